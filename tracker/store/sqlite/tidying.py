"""What is kept for limits and dropped when they have passed, so that it does not grow with the horde's age.

Documents and entries are evidence, and stay or move into archives. What is dropped here was counted from them, and
`audit` compares what is left of it from the moments on that stand in `horde`.
"""

from __future__ import annotations

import sqlite3

from tracker.ledger import DAY_MS, day_of
from tracker.store.sqlite import strikes
from tracker.store.sqlite.tables import Tables

#: Shares of the mint are kept for so many days after the last job of their day has ended.
KEPT_DAYS = 7


def tidy(connection: sqlite3.Connection, tables: Tables, now: int) -> None:
    """See `Store.tidy`."""
    _drop_faults(connection, now - tables.versions.get(connection).rules.earning.fault_days * DAY_MS)
    _drop_shares(connection, now)
    strikes.drop_forgotten(connection, tables.versions.get(connection).rules.filter, now)


def _drop_faults(connection: sqlite3.Connection, passed: int) -> None:
    """Refunds up to that moment stand against nobody any more; each account keeps when its last one was."""
    if not connection.execute("SELECT EXISTS (SELECT 1 FROM faults WHERE time <= ?)", (passed,)).fetchone()[0]:
        return
    connection.execute("UPDATE horde SET faults_from = max(faults_from, ?)", (passed,))
    connection.execute("DELETE FROM faults WHERE time <= (SELECT faults_from FROM horde)")


def _drop_shares(connection: sqlite3.Connection, now: int) -> None:
    """A lease's day is asked for until its job has ended."""
    [oldest] = connection.execute(
        "SELECT min(admitted) FROM jobs WHERE state IN ('waiting', 'leased', 'delivered')"
    ).fetchone()
    first = day_of(now if oldest is None else min(now, oldest)) - KEPT_DAYS
    if not connection.execute("SELECT EXISTS (SELECT 1 FROM mint_shares WHERE day < ?)", (first,)).fetchone()[0]:
        return
    connection.execute("UPDATE horde SET shares_from = max(shares_from, ?)", (first,))
    connection.execute("DELETE FROM mint_shares WHERE day < (SELECT shares_from FROM horde)")
