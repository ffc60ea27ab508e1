"""Reading a tracker's database without being able to change it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from tracker.store.base import StoreError
from tracker.store.sqlite.database import APPLICATION_ID


def open_read_only(path: Path) -> sqlite3.Connection:
    """A connection that only reads; raises `StoreError` for what is no tracker's database."""
    if not path.exists():
        raise StoreError(f"{path}: there is no database: make the horde first (potluck-tracker init)")
    try:
        connection = _connect(path)
        application = connection.execute("PRAGMA application_id").fetchone()[0]
    except sqlite3.DatabaseError as error:
        raise StoreError(f"{path}: not a database that can be read ({error}): restore it from a backup") from error
    if application != APPLICATION_ID:
        connection.close()
        raise StoreError(f"{path}: is no tracker's database: name a horde's folder or its database")
    return connection


def _connect(path: Path) -> sqlite3.Connection:
    address = path.resolve().as_uri()
    connection = sqlite3.connect(f"{address}?mode=ro", uri=True, isolation_level=None)
    try:
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except sqlite3.OperationalError:
        connection.close()
        if path.with_name(f"{path.name}-wal").exists():
            raise
        # A folder in which nothing may be written, and nobody is writing: without a log there is nothing to miss.
        return sqlite3.connect(f"{address}?mode=ro&immutable=1", uri=True, isolation_level=None)
    return connection
