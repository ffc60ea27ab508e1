"""The end of probation: what was withheld of an owner's earnings becomes its own."""

from __future__ import annotations

import sqlite3

from protocol import postings
from tracker import earning
from tracker.ledger import DAY_MS
from tracker.store.sqlite.ledger import new_evidence
from tracker.store.sqlite.tables import Tables


def settled(connection: sqlite3.Connection, tables: Tables, owner: int, version: int, now: int) -> None:
    """A job of an owner was paid and counted. version: of the rules by which it was."""
    record = tables.accounts.record(connection, owner)
    rules = tables.versions.get(connection, version).rules.earning
    if earning.gains_trust(record, rules, now):
        tables.accounts.trust(connection, owner, now)
    if earning.is_trusted(record, rules, now):
        _vest(connection, tables, owner, version, now)


def vest(connection: sqlite3.Connection, tables: Tables, owner: int, now: int) -> int:
    """What is withheld vests, if the owner is trusted by the rules in force; so much that was."""
    if not tables.accounts.withheld(connection, owner):
        return 0
    force = tables.versions.get(connection)
    record = tables.accounts.record(connection, owner)
    if not earning.is_trusted(record, force.rules.earning, now):
        return 0
    if earning.gains_trust(record, force.rules.earning, now):
        tables.accounts.trust(connection, owner, now)
    return _vest(connection, tables, owner, force.version, now)


def vest_all(connection: sqlite3.Connection, tables: Tables, now: int) -> int:
    """The same for every owner of whom something is withheld; of how many it has vested."""
    owners = connection.execute("SELECT account FROM accounts WHERE withheld > 0 ORDER BY account").fetchall()
    return sum(vest(connection, tables, owner, now) > 0 for (owner,) in owners)


def faults(connection: sqlite3.Connection, tables: Tables, owner: int, now: int) -> int:
    """How many refunds stand against an owner that is not trusted yet."""
    rules = tables.versions.get(connection).rules.earning
    record = tables.accounts.record(connection, owner)
    if record.trusted or not earning.counts_as_fault(record.fault, rules, now):
        return 0
    since = now - rules.fault_days * DAY_MS
    row = connection.execute("SELECT count(*) FROM faults WHERE account = ? AND time > ?", (owner, since)).fetchone()
    return int(row[0])


def _vest(connection: sqlite3.Connection, tables: Tables, owner: int, version: int, now: int) -> int:
    amount = tables.accounts.withheld(connection, owner)
    if amount:
        tables.ledger.append(connection, "vest", postings.vest(owner, amount), new_evidence(now, version))
        tables.accounts.withhold(connection, owner, -amount)
    return amount
