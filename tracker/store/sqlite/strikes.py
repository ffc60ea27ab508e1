"""Strikes as they are kept."""

from __future__ import annotations

import sqlite3

from protocol.postings import ANONYMOUS
from protocol.rules import FilterSection
from tracker.accounts import check_user
from tracker.lines import party
from tracker.store.sqlite.tables import Tables
from tracker.strikes import NONE, Strikes, check_time_out, struck


def find(connection: sqlite3.Connection, who: str) -> Strikes:
    """Those against `who`."""
    row = connection.execute("SELECT count, last, until FROM strikes WHERE who = ?", (who,)).fetchone()
    return Strikes(*row) if row else NONE


def strike(
    connection: sqlite3.Connection,
    tables: Tables,
    payer: int,
    origin: str,
    user: bytes,
    rules: FilterSection,
    now: int,
) -> Strikes:
    """One more; see `Store.strike`."""
    if user:
        check_user(user, is_service=payer != ANONYMOUS and tables.people.face(connection, payer).service)
    who = party(origin, user)
    before = find(connection, who)
    check_time_out(before, now)
    after = struck(before, rules, now)
    connection.execute(
        "INSERT INTO strikes (who, count, last, until) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (who) DO UPDATE SET count = excluded.count, last = excluded.last, until = excluded.until",
        (who, after.count, after.last, after.until),
    )
    return after


def drop_forgotten(connection: sqlite3.Connection, rules: FilterSection, now: int) -> None:
    """Those that stand for nothing any more."""
    connection.execute(
        "DELETE FROM strikes WHERE until <= ? AND count <= (? - last) / ?", (now, now, rules.forget * 1000)
    )
