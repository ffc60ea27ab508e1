"""Accounts: whose key is whose, and how each stands.

A job moves kudos between the same few accounts many times. So rows are changed in memory, and each is written once for
each commit, however many steps of it changed it.
"""

from __future__ import annotations

import copy
import sqlite3

import msgspec

from protocol.errors import UnknownJob
from protocol.postings import ANONYMOUS, Postings
from protocol.rules import Rules
from tracker import earning
from tracker.earning import Record
from tracker.ledger import decayed
from tracker.store.base import AccountState
from tracker.store.sqlite.journal import Journal

#: Rows that are kept in memory between two commits.
MOST = 4096

_READ = (
    "SELECT balance, held, earned, spent, taken_free, free_now, free_at, jobs_done, jobs_received, jobs_free, withheld,"
    " trusted, fault, since, given, given_day, given_today, under_way FROM accounts WHERE account = ?"
)
_WRITE = (
    "UPDATE accounts SET balance = ?, held = ?, earned = ?, spent = ?, taken_free = ?, free_now = ?, free_at = ?,"
    " jobs_done = ?, jobs_received = ?, jobs_free = ?, withheld = ?, trusted = ?, fault = ?, since = ?, given = ?,"
    " given_day = ?, given_today = ?, under_way = ? WHERE account = ?"
)


class _Row(msgspec.Struct):
    """One account, in the order of its columns."""

    balance: int = 0
    held: int = 0
    earned: int = 0
    spent: int = 0
    taken_free: int = 0
    free_now: int = 0
    free_at: int = 0
    jobs_done: int = 0
    jobs_received: int = 0
    jobs_free: int = 0
    withheld: int = 0
    trusted: int = 0
    fault: int = 0
    since: int = 0
    given: int = 0
    given_day: int = 0
    given_today: int = 0
    under_way: int = 0


class Accounts:
    """All accounts. What changes is in the database when `write` has been called, at the end of a transaction."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._rows: dict[int, _Row] = {}
        self._changed: set[int] = set()
        self._carried = {"jobs": 0, "kudos": 0}  # a dict, so that the journal can undo it

    def load(self, connection: sqlite3.Connection) -> None:
        """Read what is kept in memory of all accounts together."""
        jobs, kudos = connection.execute(
            "SELECT coalesce(sum(jobs_free), 0), coalesce(sum(taken_free), 0) FROM accounts"
        ).fetchone()
        self._carried = {"jobs": jobs, "kudos": kudos}

    @property
    def carried(self) -> tuple[int, int]:
        """How many jobs others carried a part of, and how much of them, whoever asked."""
        return self._carried["jobs"], self._carried["kudos"]

    def open(self, connection: sqlite3.Connection, number: int, now: int) -> None:
        """A new account, with nothing in it."""
        connection.execute("INSERT INTO accounts (account, since) VALUES (?, ?)", (number, now))
        self._journal.put(self._rows, number, _Row(since=now))

    def _row(self, connection: sqlite3.Connection, number: int) -> _Row:
        row = self._rows.get(number)
        if row is None:
            found = connection.execute(_READ, (number,)).fetchone()
            if found is None:
                raise UnknownJob(f"there is no account {number}")
            row = self._rows[number] = _Row(*found)
        return row

    def _change(self, connection: sqlite3.Connection, number: int) -> _Row:
        """The row, to be changed by the caller at once."""
        row = copy.copy(self._row(connection, number))
        self._journal.put(self._rows, number, row)
        self._changed.add(number)
        return row

    def state_of(self, connection: sqlite3.Connection, number: int, now: int, rules: Rules) -> AccountState:
        """How an account stands."""
        row = self._row(connection, number)
        return AccountState(
            number=number,
            balance=row.balance,
            held=row.held,
            earned=row.earned,
            spent=row.spent,
            taken_free=row.taken_free,
            free_now=decayed(row.free_now, row.free_at, now, rules.matching.half_life_days),
            jobs_done=row.jobs_done,
            jobs_received=row.jobs_received,
            since=row.since,
            withheld=row.withheld,
            missing=earning.missing(_record(row), rules.earning, now),
        )

    def record(self, connection: sqlite3.Connection, number: int, jobs: int = 0) -> Record:
        """What speaks for an owner, with so many jobs more."""
        return _record(self._row(connection, number), jobs)

    def move(self, connection: sqlite3.Connection, moved: Postings) -> None:
        """Change the balances."""
        for account, amount in moved:
            self._change(connection, account).balance += amount

    def hold(self, connection: sqlite3.Connection, number: int, amount: int) -> None:
        """So much more is held for an account's jobs (below zero: less)."""
        self._change(connection, number).held += amount

    def withhold(self, connection: sqlite3.Connection, number: int, amount: int) -> None:
        """So much more of what it earned waits until it is trusted (below zero: less)."""
        if amount:
            self._change(connection, number).withheld += amount

    def begin(self, connection: sqlite3.Connection, number: int) -> None:
        """One thing more that the account has to see to the end. Nobody asks that of people without one."""
        if number != ANONYMOUS:
            self._change(connection, number).under_way += 1

    def end(self, connection: sqlite3.Connection, number: int) -> None:
        """One thing less."""
        if number != ANONYMOUS:
            self._change(connection, number).under_way -= 1

    def under_way(self, connection: sqlite3.Connection, number: int) -> int:
        """How many jobs that have not ended it pays for, and attempts of such jobs its workers had."""
        return self._row(connection, number).under_way

    def balance(self, connection: sqlite3.Connection, number: int) -> int:
        """What it can spend."""
        return self._row(connection, number).balance

    def withheld(self, connection: sqlite3.Connection, number: int) -> int:
        """What of its earnings waits."""
        return self._row(connection, number).withheld

    def trust(self, connection: sqlite3.Connection, number: int, now: int) -> None:
        """From now on all that it earns is its own at once."""
        self._change(connection, number).trusted = now

    def blame(self, connection: sqlite3.Connection, number: int, now: int) -> None:
        """One of its attempts was refunded."""
        self._change(connection, number).fault = now

    def given(self, connection: sqlite3.Connection, number: int, day: int) -> tuple[int, int]:
        """What it gave to other accounts, since the beginning and on this day."""
        row = self._row(connection, number)
        return row.given, row.given_today if row.given_day == day else 0

    def give(self, connection: sqlite3.Connection, number: int, amount: int, day: int) -> None:
        """It gives so much to another account."""
        given, today = self.given(connection, number, day)
        row = self._change(connection, number)
        row.given, row.given_day, row.given_today = given + amount, day, today + amount

    def count_done(self, connection: sqlite3.Connection, owner: int, earned: int) -> None:
        """A worker's account has done a job."""
        row = self._change(connection, owner)
        row.earned += earned
        row.jobs_done += 1

    def count_received(
        self,
        connection: sqlite3.Connection,
        payer: int,
        *,
        held: int,
        spent: int,
        uncovered: int,
        rules: Rules,
        now: int,
    ) -> None:
        """A payer's account has got a result. held: what of its holds that took; uncovered: of it that others
        carried."""
        row = self._change(connection, payer)
        row.held -= held
        row.spent += spent
        row.taken_free += uncovered
        row.free_now = decayed(row.free_now, row.free_at, now, rules.matching.half_life_days) + uncovered
        row.free_at = now
        row.jobs_received += 1
        row.jobs_free += bool(uncovered)
        if uncovered:
            self._journal.put(self._carried, "jobs", self._carried["jobs"] + 1)
            self._journal.put(self._carried, "kudos", self._carried["kudos"] + uncovered)

    def write(self, connection: sqlite3.Connection) -> None:
        """Write what has changed."""
        if self._changed:
            changed = (number for number in self._changed if number in self._rows)
            rows = [(*msgspec.structs.astuple(self._rows[number]), number) for number in changed]
            connection.executemany(_WRITE, rows)
            self._changed.clear()

    def shrink(self) -> None:
        """Keep no more rows than that; nothing may wait to be written."""
        if len(self._rows) > MOST:
            self._rows.clear()


def _record(row: _Row, jobs: int = 0) -> Record:
    return Record(since=row.since, jobs=row.jobs_done + jobs, fault=row.fault, trusted=bool(row.trusted))


def account_of(connection: sqlite3.Connection, key: bytes) -> int:
    """The number of the account whose own key this is, 0 if it is none's."""
    row = connection.execute("SELECT account FROM keys WHERE key = ? AND until = 0", (key,)).fetchone()
    return row[0] if row else 0
