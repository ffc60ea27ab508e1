"""Sums over the ledger's entries: what the stored balances and counts must agree with."""

from __future__ import annotations

import sqlite3
from collections import Counter
from dataclasses import dataclass, field, fields

from protocol.postings import ANONYMOUS, BURN, MINT, WITHHELD, Postings
from tracker.audit.report import Findings
from tracker.ledger import DAY_MS


@dataclass
class Sums:
    """One account, as its entries say."""

    balance: int = 0
    held: int = 0
    earned: int = 0
    spent: int = 0
    taken_free: int = 0
    jobs_done: int = 0
    jobs_received: int = 0
    jobs_free: int = 0
    withheld: int = 0
    trusted: int = 0
    fault: int = 0
    given: int = 0
    given_day: int = 0
    given_today: int = 0


COLUMNS = tuple(column.name for column in fields(Sums))


@dataclass
class Books:
    """All accounts. holds: what is set aside for each job that has not ended. minted: by the day of the lease.
    shares: the same for each one among whom the day's mint is shared. again: what of both was entered again after a
    restore; the name of the day as a whole is empty."""

    accounts: dict[int, Sums] = field(default_factory=dict)
    holds: dict[bytes, int] = field(default_factory=dict)
    minted: Counter[int] = field(default_factory=Counter)
    shares: Counter[tuple[int, str]] = field(default_factory=Counter)
    again: Counter[tuple[int, str]] = field(default_factory=Counter)

    def of(self, account: int) -> Sums:
        """The sums of an account."""
        return self.accounts.setdefault(account, Sums())

    def post(self, postings: Postings) -> None:
        """Move what an entry moves."""
        for account, amount in postings:
            self.of(account).balance += amount

    def hold(self, job: bytes, payer: int, amount: int) -> None:
        """So much is set aside for a job."""
        self.holds[job] = self.holds.get(job, 0) + amount
        self.of(payer).held += amount

    def unhold(self, job: bytes, payer: int, amount: int) -> None:
        """So much of it is not set aside any more."""
        self.of(payer).held -= amount
        left = self.holds.get(job, 0) - amount
        if left:
            self.holds[job] = left
        else:
            self.holds.pop(job, None)

    def give(self, giver: int, amount: int, day: int) -> None:
        """An account gave another one so much."""
        sums = self.of(giver)
        sums.given += amount
        sums.given_today = amount + self.given_on(giver, day)
        sums.given_day = day

    def given_on(self, giver: int, day: int) -> int:
        """What an account gave on a day that is its last one, or later."""
        sums = self.of(giver)
        return sums.given_today if sums.given_day == day else 0

    def mint(self, day: int, amount: int, *shares: str) -> None:
        """So much was minted of a day's budget, and of these shares of it."""
        self.minted[day] += amount
        for whose in shares:
            self.shares[day, whose] += amount

    def mint_again(self, day: int, amount: int, *shares: str) -> None:
        """The same of what a restore had cut: it had its bounds when it was first minted, and takes nothing from what
        leases have promised since."""
        self.mint(day, amount, *shares)
        for whose in ("", *shares):
            self.again[day, whose] += amount

    @property
    def all_minted(self) -> int:
        """All kudos ever made."""
        return -self.of(MINT).balance

    @property
    def all_burned(self) -> int:
        """All kudos ever destroyed."""
        return self.of(BURN).balance

    @property
    def sum(self) -> int:
        """Of all balances; zero, or something is wrong."""
        return sum(account.balance for account in self.accounts.values())


def compare_accounts(connection: sqlite3.Connection, books: Books, findings: Findings) -> int:
    """Stored balances and counts against the sums; how many accounts there are."""
    seen = set()
    for account, *stored in connection.execute(
        "SELECT account, balance, held, earned, spent, taken_free, jobs_done, jobs_received, jobs_free, withheld,"
        " trusted, fault, given, given_day, given_today FROM accounts"
    ):
        seen.add(account)
        sums = books.accounts.get(account, Sums())
        for name, value in zip(COLUMNS, stored, strict=True):
            findings.expect(f"account {account}: stored {name}", value, getattr(sums, name))
    for account in sorted(books.accounts.keys() - seen):
        findings.add(f"account {account}, which entries name", None, "a row")
    findings.expect("the sum of all balances", books.sum, 0)
    withheld = sum(account.withheld for account in books.accounts.values())
    findings.expect("the balance of what is withheld", books.of(WITHHELD).balance, withheld)
    return len(seen)


def compare_under_way(connection: sqlite3.Connection, findings: Findings) -> None:
    """What each account has to see to the end before it can leave, against the jobs that have not ended."""
    rows = connection.execute(
        "SELECT account, count(*) FROM ("
        " SELECT r.payer AS account FROM jobs j JOIN requests r ON r.request = j.request"
        " WHERE j.state IN ('waiting', 'leased', 'delivered') AND r.payer <> ?"
        " UNION ALL SELECT a.owner FROM jobs j JOIN attempts a ON a.job = j.job"
        " WHERE j.state IN ('waiting', 'leased', 'delivered')) GROUP BY account",
        (ANONYMOUS,),
    )
    wanted = dict(rows.fetchall())
    for account, found in connection.execute("SELECT account, under_way FROM accounts"):
        findings.expect(f"account {account}: stored under_way", found, wanted.get(account, 0))


def compare_mint(connection: sqlite3.Connection, books: Books, findings: Findings) -> None:
    """What each day's budget bore: minted as the entries say, set aside as the attempts say."""
    reserved = dict(
        connection.execute(
            "SELECT issued / ?, sum(reserved) FROM attempts GROUP BY 1 HAVING sum(reserved) <> 0", (DAY_MS,)
        )
    )
    stored = {
        day: (aside, minted) for day, aside, minted in connection.execute("SELECT day, reserved, minted FROM mint_days")
    }
    for day in sorted(stored.keys() | reserved.keys() | books.minted.keys()):
        aside, minted = stored.get(day, (0, 0))
        findings.expect(f"day {day}: stored mint", minted, books.minted[day])
        findings.expect(f"day {day}: stored mint set aside", aside, reserved.get(day, 0))
    _compare_shares(connection, books, findings)


def _compare_shares(connection: sqlite3.Connection, books: Books, findings: Findings) -> None:
    """The same for each owner and each asker, for the days that are still here."""
    [begin] = connection.execute("SELECT shares_from FROM horde").fetchone()
    reserved = {
        (day, whose): aside
        for day, whose, aside in connection.execute(
            "SELECT issued / ?1, 'owner ' || owner, sum(reserved) FROM attempts WHERE reserved <> 0 GROUP BY 1, 2"
            " UNION ALL SELECT a.issued / ?1, 'asker ' || r.origin, sum(a.reserved) FROM attempts a"
            " JOIN jobs j ON j.job = a.job JOIN requests r ON r.request = j.request WHERE a.reserved <> 0"
            " GROUP BY 1, 2",
            (DAY_MS,),
        )
    }
    stored = {
        (day, whose): (aside, minted)
        for day, whose, aside, minted in connection.execute("SELECT day, whose, reserved, minted FROM mint_shares")
    }
    for name in sorted(stored.keys() | reserved.keys() | {name for name, minted in books.shares.items() if minted}):
        if name[0] < begin:
            continue
        aside, minted = stored.get(name, (0, 0))
        findings.expect(f"day {name[0]}, {name[1]}: stored mint", minted, books.shares[name])
        findings.expect(f"day {name[0]}, {name[1]}: stored mint set aside", aside, reserved.get(name, 0))
