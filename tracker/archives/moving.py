"""Moving: what an archive holds leaves the live database, a little at a time, while a tracker writes to it.

Nothing is deleted but what the archive, as it is read from the disk, holds byte for byte: what changed meanwhile stays.
A request goes in one transaction with all that belongs to it. So a process that is killed leaves a database in which
each request is here or there, and moving again goes on.

A transaction of another process makes the tracker's next one wait. So each is a few milliseconds long and waits for no
disk: whatever is lost of them with the power is moved again.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

from tracker.archives.file import opened
from tracker.archives.selection import said_of
from tracker.store.base import StoreError

#: A transaction that has run for so long is committed.
MAX_SECONDS = 0.004
#: And so long the tracker has the database for itself before the next one.
PAUSE_SECONDS = 0.01
#: Pages that are given back to the disk in one transaction.
PAGES = 32

T = TypeVar("T")

Told = Callable[[int, int], None]


@dataclass
class Moved:
    """How many requests went, and how many stayed because something was said of them meanwhile."""

    requests: int = 0
    stayed: int = 0


@contextmanager
def writing(database: Path) -> Iterator[sqlite3.Connection]:
    """A connection that may write beside a tracker; its commits do not wait for the disk. Raises `StoreError`."""
    try:
        with closing(sqlite3.connect(database, isolation_level=None)) as connection:
            connection.execute("PRAGMA busy_timeout = 5000")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA synchronous = NORMAL")
            yield connection
    except sqlite3.Error as error:
        raise StoreError(f"{database}: cannot be written ({error}): nothing is lost; try again") from error


def move(connection: sqlite3.Connection, file: Path, told: Told, step: Callable[[], None] = lambda: None) -> Moved:
    """Delete from the live database what the archive in `file` holds. step: called before each transaction."""
    moved = Moved()
    with opened(file) as archive:
        requests = [request for (request,) in archive.execute("SELECT request FROM requests ORDER BY rowid")]
        checkpoints = archive.execute("SELECT size, document FROM checkpoints ORDER BY size").fetchall()
        for done in _transactions(connection, requests, lambda one: _move(connection, archive, one, moved), step):
            told(done, len(requests))
        for _ in _transactions(connection, checkpoints, lambda one: _drop_checkpoint(connection, *one), step):
            pass
    return moved


def _transactions(
    connection: sqlite3.Connection, items: Iterable[T], do: Callable[[T], None], step: Callable[[], None]
) -> Iterator[int]:
    """Do something for each item, in short transactions; yields how many are done after each."""
    rest, done = iter(items), 0
    while first := list(islice(rest, 1)):
        step()
        until = time.monotonic() + MAX_SECONDS
        connection.execute("BEGIN IMMEDIATE")
        try:
            do(first[0])
            done += 1
            while time.monotonic() < until and (more := list(islice(rest, 1))):
                do(more[0])
                done += 1
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
        yield done
        time.sleep(PAUSE_SECONDS)


def _move(live: sqlite3.Connection, archive: sqlite3.Connection, request: bytes, moved: Moved) -> None:
    if not live.execute("SELECT 1 FROM requests WHERE request = ?", (request,)).fetchone():
        return  # gone already
    documents = _rows(archive, "documents", "WHERE of_request = ?", request)
    evidence = archive.execute("SELECT entry, evidence FROM evidence WHERE of_request = ?", (request,)).fetchall()
    if not _is_same(live, archive, request, documents, evidence):
        moved.stayed += 1
        return
    live.execute("DELETE FROM attempts WHERE job IN (SELECT job FROM jobs WHERE request = ?)", (request,))
    live.execute("DELETE FROM jobs WHERE request = ?", (request,))
    live.execute("DELETE FROM requests WHERE request = ?", (request,))
    live.executemany(
        "DELETE FROM documents WHERE identity = :identity AND kind = :kind AND signer = :signer AND digest = :digest",
        documents,
    )
    live.executemany("UPDATE entries SET evidence = x'' WHERE entry = ?", [(entry,) for entry, _ in evidence])
    moved.requests += 1


def _is_same(
    live: sqlite3.Connection,
    archive: sqlite3.Connection,
    request: bytes,
    documents: list[dict[str, object]],
    evidence: list[tuple[int, bytes]],
) -> bool:
    """Whether the database holds of a request what the archive does, to the byte, and nothing more."""
    for table, where in (
        ("requests", "WHERE request = ?"),
        ("jobs", "WHERE request = ? ORDER BY job"),
        ("attempts", "WHERE job IN (SELECT job FROM jobs WHERE request = ?) ORDER BY job, attempt"),
    ):
        kept = _rows(archive, table, where, request)
        names = ", ".join(kept[0]) if kept else "1"
        here = live.execute(f"SELECT {names} FROM {table} {where}", (request,)).fetchall()  # noqa: S608 (names of our own)
        if here != [tuple(row.values()) for row in kept]:
            return False
    for entry, raw in evidence:
        if live.execute("SELECT evidence FROM entries WHERE entry = ?", (entry,)).fetchone() != (raw,):
            return False
    return _documents_of(live, request, documents) == {_key(row) for row in documents}


def _documents_of(
    live: sqlite3.Connection, request: bytes, documents: list[dict[str, object]]
) -> set[tuple[object, ...]]:
    """What the database holds of the documents in the archive, and all else that is said of the jobs' attempts."""
    columns = "SELECT identity, kind, signer, digest, raw FROM documents WHERE"
    found = {
        row
        for (job,) in live.execute("SELECT job FROM jobs WHERE request = ?", (request,)).fetchall()
        for row in live.execute(f"{columns} identity BETWEEN ? AND ?", said_of(job))
    }
    for row in documents:
        found.update(
            live.execute(f"{columns} identity = ? AND kind = ? AND signer = ?", _key(row)[:3]),
        )
    return found


def _key(row: dict[str, object]) -> tuple[object, ...]:
    return row["identity"], row["kind"], row["signer"], row["digest"], row["raw"]


def _rows(connection: sqlite3.Connection, table: str, where: str, value: bytes) -> list[dict[str, object]]:
    found = connection.execute(f"SELECT * FROM {table} {where}", (value,))  # noqa: S608 (names of our own)
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found]


def _drop_checkpoint(live: sqlite3.Connection, size: int, raw: bytes) -> None:
    live.execute("DELETE FROM checkpoints WHERE size = ? AND document = ?", (size, raw))


def shrink(connection: sqlite3.Connection, *, alone: bool) -> None:
    """Give the room back to the disk. alone: no tracker runs, so that the whole file can be written anew; else only
    what is free at a page's size goes, a few pages at a time, where the database was made for that."""
    if alone and connection.execute("PRAGMA freelist_count").fetchone()[0]:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("VACUUM")
    elif connection.execute("PRAGMA auto_vacuum").fetchone()[0] == 2:
        left = connection.execute("PRAGMA freelist_count").fetchone()[0]
        while left:
            connection.execute(f"PRAGMA incremental_vacuum({PAGES})").fetchall()
            time.sleep(PAUSE_SECONDS)
            before, left = left, connection.execute("PRAGMA freelist_count").fetchone()[0]
            if left >= before:
                break
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
