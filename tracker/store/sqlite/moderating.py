"""Acts of moderators and operators: taken, brought into force, logged; and what people answer to them.

Each act is an entry of the ledger, so that the log cannot be changed behind anybody's back. Each function is a step of
the store; what refuses does so before anything is written.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from protocol import documents, postings
from protocol.documents import Award
from protocol.envelope import Envelope, parse
from protocol.errors import BadValue, NoKudos, NotAllowed, OverLimit, UnknownAccount, UnknownAct
from protocol.governing import Act, Appeal
from protocol.postings import Postings
from protocol.rules import Rules
from tracker.ledger import show_kudos
from tracker.sanctions import (
    LASTING,
    LIFTED,
    WORDS,
    Sanction,
    Sanctions,
    State,
    can_be_spoken_of,
    check_role,
    needs_second,
    state_of,
)
from tracker.store.base import Acted, Appealed, Logged
from tracker.store.sqlite import papers
from tracker.store.sqlite.acts import owner_of
from tracker.store.sqlite.ledger import new_evidence
from tracker.store.sqlite.tables import Tables

_LOG = (
    "SELECT a.number, a.digest, a.act, a.account, a.time, a.until, a.since, a.ended, d.raw, a.agreed, a.ended_by,"
    " (SELECT count(*) FROM appeals p WHERE p.about = a.digest AND p.answered = x'') FROM acts a JOIN documents d"
    " ON d.identity = a.nonce AND d.signer = a.signer AND d.kind = CASE a.act WHEN 'award' THEN 'award' ELSE 'act' END"
)


@dataclass(frozen=True)
class _Row:
    """One act as the table has it."""

    number: int
    digest: bytes
    signer: bytes
    account: int
    until: int
    since: int
    ended: int
    said: Act

    @property
    def act(self) -> str:
        return self.said.act

    def state(self, now: int) -> State:
        return state_of(self.since, self.ended, self.until, now)


def act(connection: sqlite3.Connection, tables: Tables, envelope: Envelope, said: Act, now: int) -> Acted:
    """See `Store.act`."""
    if papers.is_known(connection, envelope, said.nonce, said.valid_until, now):
        known = _find(connection, envelope.digest)
        return Acted(known.number, known.account)
    force = tables.versions.get(connection)
    check_role(envelope.key, force.rules, tables.key.public)
    about = _spoken_of(connection, tables, envelope, said, force.rules, now)
    account = about.account if about else said.account
    if about is None and account:  # else somebody may have left since
        check_account(connection, tables, account)
    effect, lifted = _what_happens(connection, said, about, now)
    standing = lifted.said if lifted and lifted.state(now) == "stands" else None
    waits = said.act != "agree" and needs_second(said, force.rules, standing)
    signers = [envelope.key, *([about.signer] if about and said.act == "agree" else ())]
    _check_own(connection, tables, signers, effect, lifted, now)
    _check_effect(connection, tables, effect, now)
    papers.take(connection, envelope, said.nonce)
    event, moved = ("act", ()) if waits else _come_into_force(connection, tables, effect, lifted, now)
    evidence = new_evidence(now, force.version, proofs=(envelope.digest,))
    entry, _ = tables.ledger.append(connection, event, moved, evidence)
    if event == "trust":
        tables.accounts.withhold(connection, account, -sum(amount for of, amount in moved if of == account))
    number = _log(connection, envelope, said, account, entry, now, since=0 if waits else now)
    if about is not None and not waits:
        _follow(connection, envelope, said, about, lifted, now)
    return Acted(number, account)


def _spoken_of(
    connection: sqlite3.Connection, tables: Tables, envelope: Envelope, said: Act, rules: Rules, now: int
) -> _Row | None:
    """The act that another one lifts, agrees to or upholds, if it can."""
    if not said.about:
        return None
    row = _find(connection, said.about)
    state = row.state(now)
    if not can_be_spoken_of(row.act, state, said.act):
        raise UnknownAct(f"act {row.number} is a word of {row.act}: name the act that it is about")
    if said.act == "agree":
        if state != "proposed":
            raise UnknownAct(f"act {row.number} waits for no second signature")
        _check_two(connection, tables, row, envelope.key, now)
        check_role(row.signer, rules, tables.key.public)
    if said.act == "lift":
        _check_lifted(row, state)
    return row


def _check_two(connection: sqlite3.Connection, tables: Tables, row: _Row, key: bytes, now: int) -> None:
    """Two signatures are of two keys, and of two people as far as accounts show it."""
    if row.signer == key:
        raise NotAllowed(f"act {row.number} was signed by this key: a second one has to agree")
    both = tables.people.accounts_of(connection, key, now) & tables.people.accounts_of(connection, row.signer, now)
    if both:
        raise NotAllowed(
            f"act {row.number} was signed by another key of account {min(both)}: somebody else has to agree"
        )


def _check_lifted(row: _Row, state: State) -> None:
    if state == "over":
        raise UnknownAct(f"act {row.number} is over")
    if state == "stands" and row.act not in LIFTED:
        raise UnknownAct(f"act {row.number} is a {row.act}, which another {row.act} undoes")


def _what_happens(connection: sqlite3.Connection, said: Act, about: _Row | None, now: int) -> tuple[Act, _Row | None]:
    """The act that would come into force, and the one that it would lift."""
    if about is None or said.act == "uphold":
        return said, None
    if said.act == "lift":
        return said, about
    if about.act != "lift":
        return about.said, None
    lifted = _find(connection, about.said.about)
    _check_lifted(lifted, lifted.state(now))
    return about.said, lifted


def _check_own(
    connection: sqlite3.Connection, tables: Tables, signers: Sequence[bytes], effect: Act, lifted: _Row | None, now: int
) -> None:
    """Nobody decides in its own favour."""
    gains = {"trust": effect.account, "return": effect.to, "lift": lifted.account if lifted else 0}.get(effect.act, 0)
    for key in signers if gains else ():
        if gains in tables.people.accounts_of(connection, key, now):
            raise NotAllowed(f"a {effect.act} for the account of a key that signs it: another moderator decides that")


def _check_effect(connection: sqlite3.Connection, tables: Tables, effect: Act, now: int) -> None:
    if effect.until and effect.until <= now:
        raise BadValue(f"until {effect.until}, and it is {now}: name a moment to come")
    if effect.act == "return":
        if effect.to:
            check_account(connection, tables, effect.to)
        balance = tables.accounts.balance(connection, effect.account)
        if effect.amount > balance:
            raise NoKudos(
                f"{show_kudos(effect.amount)} kudos to return, and account {effect.account} has {show_kudos(balance)}:"
                " no account falls below zero"
            )


def check_account(connection: sqlite3.Connection, tables: Tables, number: int) -> None:
    """Refuse the number of nobody."""
    if number >= 2**63 or not tables.people.key_of(connection, number):
        raise UnknownAccount(f"there is no account {number} here: a name's number stands behind its '#'")


def _come_into_force(
    connection: sqlite3.Connection, tables: Tables, effect: Act, lifted: _Row | None, now: int
) -> tuple[str, Postings]:
    """What an act does to accounts: its event in the ledger, and what that moves."""
    if effect.act == "return":
        return "return", postings.give_back(effect.account, effect.to, effect.amount)
    if effect.act == "trust":
        tables.accounts.trust(connection, effect.account, now)
        return "trust", postings.vest(effect.account, tables.accounts.withheld(connection, effect.account))
    if lifted is not None and lifted.act == "trust":
        tables.accounts.trust(connection, lifted.account, 0)
        return "trust", ()
    return "act", ()


def _log(
    connection: sqlite3.Connection,
    envelope: Envelope,
    said: Act | Award,
    account: int,
    entry: int,
    now: int,
    *,
    since: int,
) -> int:
    kind, until, about = (said.act, said.until, said.about) if isinstance(said, Act) else (Award.KIND, 0, b"")
    cursor = connection.execute(
        "INSERT INTO acts (digest, signer, nonce, act, account, until, about, time, since, entry)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (envelope.digest, envelope.key, said.nonce, kind, account, until, about, now, since, entry),
    )
    return int(cursor.lastrowid or 0)


def log_award(connection: sqlite3.Connection, envelope: Envelope, said: Award, entry: int, now: int) -> None:
    """An award stands in the public log too."""
    _log(connection, envelope, said, said.account, entry, now, since=now)


def _follow(
    connection: sqlite3.Connection, envelope: Envelope, said: Act, about: _Row, lifted: _Row | None, now: int
) -> None:
    """What becomes of the act that another one speaks of, and of the appeals against it."""
    word, answered = envelope.digest, about
    if said.act == "agree":
        connection.execute("UPDATE acts SET since = ?, agreed = ? WHERE number = ?", (now, word, about.number))
        if lifted is None:
            return
        word, answered = about.digest, lifted
    if lifted is not None:
        connection.execute("UPDATE acts SET ended = ?, ended_by = ? WHERE number = ?", (now, word, lifted.number))
    connection.execute("UPDATE appeals SET answered = ? WHERE about = ? AND answered = x''", (word, answered.digest))


def _find(connection: sqlite3.Connection, digest: bytes) -> _Row:
    row = connection.execute(
        "SELECT a.number, a.digest, a.signer, a.account, a.until, a.since, a.ended, d.raw FROM acts a JOIN"
        " documents d ON d.identity = a.nonce AND d.signer = a.signer AND d.kind = 'act' WHERE a.digest = ?",
        (digest,),
    ).fetchone()
    if row is None:
        raise UnknownAct(f"no act {digest[:6].hex()} is in this horde's log: `potluck acts` shows them")
    number, digest, signer, account, until, since, ended, raw = row
    return _Row(number, digest, signer, account, until, since, ended, _open(raw))


def _open(raw: bytes) -> Act:
    return documents.open_document(parse(raw), Act)


def appeal(connection: sqlite3.Connection, tables: Tables, envelope: Envelope, said: Appeal, now: int) -> Acted:
    """See `Store.appeal`."""
    known = papers.is_known(connection, envelope, said.nonce, said.valid_until, now)
    row = _find(connection, said.about)
    if known:
        return Acted(row.number, row.account)
    number = owner_of(connection, tables, envelope.key, envelope.kind, now)
    if row.account != number:
        raise UnknownAct(f"act {row.number} does not concern account {number}: `potluck acts` shows those that do")
    if row.act in WORDS:
        raise UnknownAct(f"act {row.number} is a word of {row.act}: appeal against the act that it is about")
    most = tables.versions.get(connection).rules.moderation.appeals
    [found] = connection.execute(
        "SELECT count(*) FROM appeals WHERE about = ? AND answered = x''", (said.about,)
    ).fetchone()
    if found >= most:
        raise OverLimit(
            f"{found} appeals against act {row.number} wait for an answer: at most {most} by the rule"
            " moderation.appeals; moderators see them"
        )
    papers.take(connection, envelope, said.nonce)
    connection.execute(
        "INSERT INTO appeals (digest, signer, nonce, account, about, time) VALUES (?, ?, ?, ?, ?, ?)",
        (envelope.digest, envelope.key, said.nonce, number, said.about, now),
    )
    return Acted(row.number, number)


_STANDING = (
    "SELECT a.digest, d.raw FROM acts a JOIN documents d ON d.identity = a.nonce AND d.signer = a.signer"
    " AND d.kind = 'act' WHERE a.act IN ('limit', 'suspend', 'ban', 'pause', 'block') AND a.ended = 0"
    " AND a.since > 0 AND (a.until = 0 OR a.until >= ?)"
)


def sanctions(connection: sqlite3.Connection, now: int) -> list[Sanction]:
    """See `Store.sanctions`."""
    rows = connection.execute(f"{_STANDING} ORDER BY a.number", (now,))
    found = [Sanction(digest, _open(raw)) for digest, raw in rows]
    return [one for one in found if one.act.act in LASTING]


def check_free(connection: sqlite3.Connection, account: int, now: int) -> None:
    """Refuse what an account does while it is suspended or banned: in the same step in which it would do it, whatever
    its session knew before."""
    rows = connection.execute(f"{_STANDING} AND a.account = ? ORDER BY a.number", (now, account))
    Sanctions(Sanction(digest, _open(raw)) for digest, raw in rows).check(account, now)


def log(connection: sqlite3.Connection, now: int, before: int, most: int) -> list[Logged]:
    """See `Store.acts`."""
    rows = connection.execute(f"{_LOG} WHERE a.number < ? ORDER BY a.number DESC LIMIT ?", (before, most)).fetchall()
    return [_logged(row, now) for row in rows]


def log_of(connection: sqlite3.Connection, account: int, now: int, most: int) -> list[Logged]:
    """See `Store.acts_of`."""
    rows = connection.execute(f"{_LOG} WHERE a.account = ? ORDER BY a.number DESC LIMIT ?", (account, most)).fetchall()
    return [_logged(row, now) for row in rows]


def appeals(connection: sqlite3.Connection, now: int, most: int) -> tuple[list[Appealed], int]:
    """See `Store.appeals`."""
    rows = connection.execute(
        "SELECT p.account, d.raw, p.about FROM appeals p JOIN documents d ON d.identity = p.nonce"
        " AND d.signer = p.signer AND d.kind = 'appeal' WHERE p.answered = x'' ORDER BY p.time, p.digest LIMIT ?",
        (most,),
    ).fetchall()
    found = []
    for account, raw, about in rows:
        row = connection.execute(f"{_LOG} WHERE a.digest = ?", (about,)).fetchone()
        found.append(Appealed(account, raw, _logged(row, now)))
    [count] = connection.execute("SELECT count(*) FROM appeals WHERE answered = x''").fetchone()
    return found, count - len(found)


def _logged(row: tuple[int, bytes, str, int, int, int, int, int, bytes, bytes, bytes, int], now: int) -> Logged:
    number, digest, kind, account, time, until, since, ended, raw, agreed, ended_by, open_appeals = row
    return Logged(
        number=number,
        digest=digest,
        kind=kind,
        account=account,
        time=time,
        until=until,
        state=state_of(since, ended, until, now),
        document=raw,
        agreed=agreed,
        ended_by=ended_by,
        appeals=open_appeals,
    )
