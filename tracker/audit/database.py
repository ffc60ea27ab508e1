"""Reading a tracker's database without being able to change it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from tracker.store.base import StoreError
from tracker.store.sqlite.database import APPLICATION_ID
from tracker.store.sqlite.reading import read_only


def open_read_only(path: Path) -> sqlite3.Connection:
    """A connection that only reads (`read_only`); raises `StoreError` for what is no tracker's database."""
    if not path.exists():
        raise StoreError(f"{path}: there is no database: make the horde first (potluck-tracker init)")
    try:
        connection = read_only(path)
        application = connection.execute("PRAGMA application_id").fetchone()[0]
    except sqlite3.DatabaseError as error:
        raise StoreError(f"{path}: not a database that can be read ({error}): restore it from a backup") from error
    if application != APPLICATION_ID:
        connection.close()
        raise StoreError(f"{path}: is no tracker's database: name a horde's folder or its database")
    return connection
