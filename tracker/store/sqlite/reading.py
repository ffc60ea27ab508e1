"""Reading a database file without being able to change it, beside a tracker that writes or alone."""

from __future__ import annotations

import sqlite3
from pathlib import Path

Stamp = tuple[int, int, bool]


def read_only(path: Path) -> sqlite3.Connection:
    """A connection that only reads.

    What it shows is sound as long as `stamp_of` says that nobody began to write meanwhile, or somebody did before.
    """
    # Without a log nobody writes, and then even a folder that is read-only will do; nor is a log left behind.
    quiet = "" if _log_of(path).exists() else "&immutable=1"
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro{quiet}", uri=True, isolation_level=None)


def stamp_of(path: Path) -> Stamp:
    """What changes when somebody begins to write: size and time of the file, and whether a log lies beside it."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns, _log_of(path).exists()


def was_sound(path: Path, before: Stamp) -> bool:
    """Whether what was read since `before`, taken when the connection was open, is of one moment."""
    return before[2] or stamp_of(path) == before


def _log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")
