"""Reading a tracker's database without being able to change it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from tracker.store.base import StoreError
from tracker.store.sqlite.database import APPLICATION_ID


def open_read_only(path: Path) -> sqlite3.Connection:
    """A connection that only reads; raises `StoreError` for what is no tracker's database.

    What it shows is sound as long as `stamp_of` says that nobody began to write meanwhile, or somebody did before.
    """
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


def stamp_of(path: Path) -> tuple[int, int, bool]:
    """What changes when somebody begins to write: size and time of the file, and whether a log lies beside it."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns, _log_of(path).exists()


def _connect(path: Path) -> sqlite3.Connection:
    # Without a log nobody writes, and then even a folder that is read-only will do; nor is a log left behind.
    quiet = "" if _log_of(path).exists() else "&immutable=1"
    address = f"{path.resolve().as_uri()}?mode=ro{quiet}"
    return sqlite3.connect(address, uri=True, isolation_level=None)


def _log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")
