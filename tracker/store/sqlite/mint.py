"""The day's mint: what of a budget is set aside for leases, and what settlements have minted.

It is counted for the day as a whole, and for each owner that gets it and each asker for whom it is minted.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from protocol import postings
from protocol.rules import MintSection
from tracker.ledger import day_of
from tracker.store.sqlite.journal import Journal

#: Shares that are kept in memory between two commits.
MOST = 4096

#: A day, and whose share of it; `""` for the day as a whole.
Name = tuple[int, str]


@dataclass(frozen=True)
class Between:
    """Whom a free part is minted between. asker: where the request comes from, as fairness counts it; None where that
    is not known any more."""

    owner: int
    asker: str | None

    @property
    def shares(self) -> tuple[str, ...]:
        """Whose shares it takes."""
        owner = f"owner {self.owner}"
        return (owner,) if self.asker is None else (owner, f"asker {self.asker}")


def _paid(owner: int) -> str:
    """Under this name stands what an owner was paid, which is none of the mint and widens its share."""
    return f"paid {owner}"


class Mint:
    """Budgets by day. What changes is in the database when `write` has been called, at the end of a transaction."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._known: dict[Name, tuple[int, int]] = {}  # set aside and minted
        self._changed: set[Name] = set()

    def used(self, connection: sqlite3.Connection, now: int) -> int:
        """What of today's budget is minted or set aside, in thousandths."""
        return sum(self._find(connection, (day_of(now), "")))

    def within(self, connection: sqlite3.Connection, rules: MintSection, now: int, between: Between) -> int:
        """What both of them may still get of that day's budget."""
        day = day_of(now)
        used = [sum(self._find(connection, (day, whose))) for whose in between.shares]
        _, paid = self._find(connection, (day, _paid(between.owner)))
        found = postings.owner_room(
            rules.daily, rules.owner_share, rules.owner_base, rules.owner_matched, paid, used[0]
        )
        return min([found, *(postings.room(rules.daily, rules.asker_share, spent) for spent in used[1:])])

    def left(self, connection: sqlite3.Connection, rules: MintSection, now: int, between: Between) -> int:
        """What may still be minted of that day's budget between the two, whatever the rate."""
        return min(max(0, rules.daily - self.used(connection, now)), self.within(connection, rules, now, between))

    def reserve(self, connection: sqlite3.Connection, day: int, amount: int, between: Between) -> None:
        """Set so much of a day's budget aside (or give it back, below zero)."""
        if amount:
            for whose in ("", *between.shares):
                reserved, minted = self._find(connection, (day, whose))
                self._put((day, whose), reserved + amount, minted)

    def count(self, connection: sqlite3.Connection, day: int, amount: int, between: Between) -> None:
        """So much was minted on the account of that day's budget."""
        if amount:
            for whose in ("", *between.shares):
                reserved, minted = self._find(connection, (day, whose))
                self._put((day, whose), reserved, minted + amount)

    def pay(self, connection: sqlite3.Connection, day: int, amount: int, owner: int) -> None:
        """People with kudos paid so much for an owner's work of that day."""
        if amount:
            reserved, paid = self._find(connection, (day, _paid(owner)))
            self._put((day, _paid(owner)), reserved, paid + amount)

    def _find(self, connection: sqlite3.Connection, name: Name) -> tuple[int, int]:
        found = self._known.get(name)
        if found is None:
            if name[1]:
                row = connection.execute(
                    "SELECT reserved, minted FROM mint_shares WHERE day = ? AND whose = ?", name
                ).fetchone()
            else:
                row = connection.execute("SELECT reserved, minted FROM mint_days WHERE day = ?", (name[0],)).fetchone()
            found = self._known[name] = row or (0, 0)
        return found

    def _put(self, name: Name, reserved: int, minted: int) -> None:
        self._journal.put(self._known, name, (reserved, minted))
        self._changed.add(name)

    def write(self, connection: sqlite3.Connection) -> None:
        """Write what has changed."""
        if not self._changed:
            return
        changed = [(*name, *self._known[name]) for name in self._changed if name in self._known]
        connection.executemany(
            "INSERT INTO mint_days (day, reserved, minted) VALUES (?, ?, ?)"
            " ON CONFLICT (day) DO UPDATE SET reserved = excluded.reserved, minted = excluded.minted",
            [(day, reserved, minted) for day, whose, reserved, minted in changed if not whose],
        )
        connection.executemany(
            "INSERT INTO mint_shares (day, whose, reserved, minted) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (day, whose) DO UPDATE SET reserved = excluded.reserved, minted = excluded.minted",
            [row for row in changed if row[1] and (row[2] or row[3])],
        )
        # A share of which nothing came is none: nobody could tell whose such a row was.
        connection.executemany(
            "DELETE FROM mint_shares WHERE day = ? AND whose = ?",
            [row[:2] for row in changed if row[1] and not (row[2] or row[3])],
        )
        self._changed.clear()

    def shrink(self) -> None:
        """Keep no more than so many of them; nothing may wait to be written."""
        if len(self._known) > MOST:
            self._known.clear()
