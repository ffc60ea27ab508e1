"""What must hold in a tracker's database at every moment, read from the file itself."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

from protocol import codec, merkle
from protocol.documents import Evidence, Leaf
from protocol.postings import ANONYMOUS, BURN, HELD, MINT, WITHHELD

#: Events by which kudos is made or destroyed.
MAKE_OR_DESTROY = frozenset({"settle", "recovered", "award", "leave", "return"})
LIVE = "('waiting', 'leased', 'delivered')"


def check_books(path: Path) -> None:
    """Assert every invariant of the ledger, of holds, of the mint and of jobs."""
    with closing(sqlite3.connect(path)) as connection:
        _check_ledger(connection)
        _check_holds(connection)
        _check_jobs(connection)
        _check_mint(connection)
        _check_withheld(connection)
        _check_under_way(connection)


def _check_ledger(connection: sqlite3.Connection) -> None:
    sums: Counter[int] = Counter()
    awarded = 0
    settled: Counter[bytes | None] = Counter()
    for number, (entry, raw, hashed, evidence) in enumerate(
        connection.execute("SELECT entry, leaf, hash, evidence FROM entries ORDER BY entry")
    ):
        leaf, beside = codec.decode(raw, Leaf), codec.decode(evidence, Evidence)
        assert entry == number, "entries are numbered without a gap"
        assert hashed == merkle.leaf_hash(raw)
        assert sum(amount for _, amount in leaf.postings) == 0, "postings sum to zero"
        assert all(amount for _, amount in leaf.postings)
        for account, amount in leaf.postings:
            sums[account] += amount
            assert leaf.event in MAKE_OR_DESTROY or account not in (MINT, BURN), "made and destroyed by nothing else"
        if leaf.event == "award":
            awarded += sum(amount for account, amount in leaf.postings if account != MINT)
        if leaf.event in ("settle", "refund"):
            settled[beside.job] += 1
    assert sum(sums.values()) == 0
    [minted] = connection.execute("SELECT coalesce(sum(minted), 0) FROM mint_days").fetchone()
    assert -sums[MINT] == minted + awarded, "kudos is made by settlements and awards alone"
    assert not [job for job, count in settled.items() if count > 1], "no job is settled or refunded twice"
    balances = dict(connection.execute("SELECT account, balance FROM accounts"))
    assert {account: sums[account] for account in balances} == balances, "a balance is the sum of its postings"
    assert all(balance >= 0 for account, balance in balances.items() if account != MINT)


def _check_holds(connection: sqlite3.Connection) -> None:
    held = dict(connection.execute("SELECT account, held FROM accounts"))
    by_payer = dict(
        connection.execute(
            "SELECT r.payer, sum(j.held) FROM jobs j JOIN requests r ON r.request = j.request"
            f" WHERE j.state IN {LIVE} GROUP BY r.payer"
        )
    )
    assert held == {account: by_payer.get(account, 0) for account in held}, "what is held is held for live jobs"
    [balance] = connection.execute("SELECT balance FROM accounts WHERE account = ?", (HELD,)).fetchone()
    assert balance == sum(by_payer.values())
    assert not by_payer.get(ANONYMOUS)
    ended = connection.execute(f"SELECT count(*) FROM jobs WHERE state NOT IN {LIVE} AND held <> 0").fetchone()
    assert ended == (0,), "an ended job holds nothing"


def _check_under_way(connection: sqlite3.Connection) -> None:
    wanted = Counter(
        account
        for (account,) in connection.execute(
            "SELECT r.payer FROM jobs j JOIN requests r ON r.request = j.request"
            f" WHERE j.state IN {LIVE} AND r.payer <> {ANONYMOUS} UNION ALL"
            f" SELECT a.owner FROM jobs j JOIN attempts a ON a.job = j.job WHERE j.state IN {LIVE}"
        )
    )
    found = Counter(dict(connection.execute("SELECT account, under_way FROM accounts WHERE under_way <> 0")))
    assert found == wanted, "what an account has under way is its jobs, and its workers' attempts, that have not ended"


def _check_jobs(connection: sqlite3.Connection) -> None:
    for job, state, attempt, settled in connection.execute("SELECT job, state, attempt, settled FROM jobs"):
        attempts = connection.execute(
            "SELECT attempt, stage, receipt FROM attempts WHERE job = ? ORDER BY attempt", (job,)
        ).fetchall()
        assert [number for number, _, _ in attempts] == list(range(1, attempt + 1)), "attempts rise by one"
        running = [number for number, stage, _ in attempts if stage != "ended"]
        assert running == ([attempt] if state in ("leased", "delivered") else []), "only the latest attempt runs"
        assert bool(settled) == (state == "settled")
        identities = [job + number.to_bytes(4, "big") for number in range(1, attempt + 1)]
        marks = ", ".join("?" * len(identities))
        paid = connection.execute(
            f"SELECT count(*) FROM documents WHERE kind = 'settlement' AND identity IN ({marks})", identities
        ).fetchone()
        assert paid == (1 if settled else 0,), "one settlement, of a settled job"


def _check_mint(connection: sqlite3.Connection) -> None:
    reserved = dict(
        connection.execute("SELECT issued / 86400000, sum(reserved) FROM attempts GROUP BY 1 HAVING sum(reserved) > 0")
    )
    for day, set_aside, minted in connection.execute("SELECT day, reserved, minted FROM mint_days"):
        assert set_aside == reserved.pop(day, 0), "what is set aside is set aside for attempts that run"
        assert minted >= 0
    assert not reserved
    stale = connection.execute("SELECT count(*) FROM attempts WHERE stage = 'ended' AND reserved <> 0").fetchone()
    assert stale == (0,)
    for what in ("owner", "asker"):
        shares = connection.execute(
            "SELECT d.day, d.reserved - coalesce(sum(s.reserved), 0), d.minted - coalesce(sum(s.minted), 0)"
            " FROM mint_days d LEFT JOIN mint_shares s ON s.day = d.day AND s.whose LIKE ? || ' %'"
            " WHERE d.day >= (SELECT shares_from FROM horde) GROUP BY d.day",
            (what,),
        )
        for day, reserved_too, minted_too in shares:
            assert (reserved_too, minted_too) == (0, 0), f"day {day}: what is minted is minted for each {what}"


def _check_withheld(connection: sqlite3.Connection) -> None:
    [withheld] = connection.execute("SELECT sum(withheld) FROM accounts").fetchone()
    [balance] = connection.execute("SELECT balance FROM accounts WHERE account = ?", (WITHHELD,)).fetchone()
    assert balance == withheld, "what is withheld is withheld of somebody"
    below = connection.execute("SELECT count(*) FROM accounts WHERE withheld < 0 OR withheld > earned").fetchone()
    assert below == (0,)


def minted_by_day(path: Path) -> dict[int, int]:
    """What was minted or is set aside, by day."""
    with closing(sqlite3.connect(path)) as connection:
        return dict(connection.execute("SELECT day, reserved + minted FROM mint_days"))
