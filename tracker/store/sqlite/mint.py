"""The day's mint: what of a budget is set aside for leases, and what settlements have minted."""

from __future__ import annotations

import sqlite3

from tracker.ledger import day_of
from tracker.store.sqlite.journal import Journal


class Mint:
    """Budgets by day. What changes is in the database when `write` has been called, at the end of a transaction."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._days: dict[int, tuple[int, int]] = {}  # set aside and minted
        self._changed: set[int] = set()

    def used(self, connection: sqlite3.Connection, now: int) -> int:
        """What of today's budget is minted or set aside, in thousandths."""
        return sum(self._day(connection, day_of(now)))

    def reserve(self, connection: sqlite3.Connection, day: int, amount: int) -> None:
        """Set so much of a day's budget aside (or give it back, below zero)."""
        if amount:
            reserved, minted = self._day(connection, day)
            self._put(day, reserved + amount, minted)

    def count(self, connection: sqlite3.Connection, day: int, amount: int) -> None:
        """So much was minted on the account of that day's budget."""
        if amount:
            reserved, minted = self._day(connection, day)
            self._put(day, reserved, minted + amount)

    def _day(self, connection: sqlite3.Connection, day: int) -> tuple[int, int]:
        found = self._days.get(day)
        if found is None:
            row = connection.execute("SELECT reserved, minted FROM mint_days WHERE day = ?", (day,)).fetchone()
            found = self._days[day] = row or (0, 0)
        return found

    def _put(self, day: int, reserved: int, minted: int) -> None:
        self._journal.put(self._days, day, (reserved, minted))
        self._changed.add(day)

    def write(self, connection: sqlite3.Connection) -> None:
        """Write what has changed."""
        if self._changed:
            connection.executemany(
                "INSERT INTO mint_days (day, reserved, minted) VALUES (?, ?, ?)"
                " ON CONFLICT (day) DO UPDATE SET reserved = excluded.reserved, minted = excluded.minted",
                [(day, *self._days[day]) for day in self._changed if day in self._days],
            )
            self._changed.clear()
