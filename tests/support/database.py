"""A look at a tracker's database from outside, while the tracker works with it."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path

#: Not part of what a refusal must leave alone: checkpoints come by the clock, and proofs of equivocation are meant to.
APART = frozenset({"checkpoints", "equivocations"})


def tables(path: Path) -> dict[str, str]:
    """A digest of each table's content, which differs if anything in it does."""
    connection = _open(path)
    try:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return {name: _digest(connection, name) for name in sorted(names) if name not in APART}
    finally:
        connection.close()


def count(path: Path, table: str) -> int:
    """How many rows a table has."""
    connection = _open(path)
    try:
        number: int = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        return number
    finally:
        connection.close()


def job_states(folder: Path) -> dict[str, str]:
    """The state of each job of the tracker in `folder`, by its handle in hexadecimal."""
    connection = _open(folder / "horde.db")
    try:
        return {job.hex(): state for job, state in connection.execute("SELECT job, state FROM jobs")}
    finally:
        connection.close()


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)


def _digest(connection: sqlite3.Connection, table: str) -> str:
    rows = sorted(repr(row) for row in connection.execute(f"SELECT * FROM {table}"))
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()
