"""Opening the file: settings that make a commit durable, and migrations."""

from __future__ import annotations

import sqlite3
from importlib import resources
from pathlib import Path

from tracker.store.base import StoreError

#: Marks a file as ours ("POTL"), so that another program's database is never taken for one.
APPLICATION_ID = 0x504F544C


def connect(path: Path) -> sqlite3.Connection:
    """A connection that may write: WAL, every commit synced, foreign keys on; the schema brought up to date."""
    try:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256)
        try:
            _set_up(connection, path)
        except BaseException:
            connection.close()
            raise
    except sqlite3.DatabaseError as error:
        raise StoreError(f"{path}: {_complaint(error)}") from error
    return connection


def _complaint(error: sqlite3.DatabaseError) -> str:
    """What is wrong with a file that cannot be opened, and what to do."""
    # Errors that Python's module raises by itself have no code.
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in _OF_THE_DISK:
        return f"cannot be written ({error}): make room on its disk, and see that it can be written"
    return f"not a database that can be used ({error}): restore it from a backup"


#: What SQLite calls a disk that does not take what is written.
_OF_THE_DISK = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN})


def _set_up(connection: sqlite3.Connection, path: Path) -> None:
    if _is_new(connection, path):
        # Room that archives free goes back to the disk a few pages at a time: nothing else can be made so later.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA busy_timeout = 5000")
    # Savepoints would spill into temporary files, a page for each that a step touches.
    connection.execute("PRAGMA temp_store = MEMORY")
    # 16 MB of pages in memory, and as many of the log before it is copied into the file: by default a busy tracker
    # copies the same pages again every few dozen jobs.
    connection.execute("PRAGMA cache_size = -16000")
    connection.execute("PRAGMA wal_autocheckpoint = 4000")
    if mode != "wal":
        raise StoreError(f"{path}: journal mode is {mode}, wanted wal: put the database on a local disk")
    migrate(connection, path)


def migrations() -> list[tuple[int, str]]:
    """Number and text of every migration, in order."""
    files = [file for file in resources.files("tracker.store.sqlite").iterdir() if file.name.endswith(".sql")]
    return sorted((int(file.name.split("_")[0]), file.read_text("utf-8")) for file in files)


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Apply what is missing, each migration in a transaction of its own; refuse a database of a newer program."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    known = migrations()
    newest = known[-1][0]
    if version > newest:
        raise StoreError(f"{path}: has version {version}, this program knows {newest}: update it")
    for number, text in known:
        if number <= version:
            continue
        marks = f"PRAGMA application_id = {APPLICATION_ID};\nPRAGMA user_version = {number};"
        script = f"BEGIN IMMEDIATE;\n{text}\n{marks}\nCOMMIT;"
        try:
            connection.executescript(script)
        except sqlite3.DatabaseError as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise StoreError(f"{path}: migration {number} failed ({error}): the database is as it was") from error


def _is_new(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether nothing is in the file yet; another program's database is refused."""
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    if tables and application != APPLICATION_ID:
        raise StoreError(f"{path}: is another program's database: name another file")
    return not tables
