"""An archive's file: a SQLite database of what moved, written from one moment of the live one."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from tracker.archives.selection import Selected, select
from tracker.store.base import StoreError
from tracker.store.sqlite.copies import open_file
from tracker.store.sqlite.reading import read_only, stamp_of, was_sound

#: Archives lie beside the database, unless the operator has brought them elsewhere.
FOLDER = "archives"

#: Marks a file as an archive ("POTA").
APPLICATION_ID = 0x504F5441

#: What lies in an archive as it lay in the database, and how one finds it there. Columns that come later are added to
#: the tables of the live database alone, and have their defaults in what is put back.
_TABLES = {
    "requests": "SELECT * FROM main.requests WHERE request IN (SELECT request FROM temp.moving) ORDER BY rowid",
    "jobs": "SELECT * FROM main.jobs WHERE request IN (SELECT request FROM temp.moving) ORDER BY rowid",
    "attempts": "SELECT a.* FROM main.attempts a JOIN main.jobs j ON j.job = a.job"
    " WHERE j.request IN (SELECT request FROM temp.moving) ORDER BY a.rowid",
    "documents": "SELECT m.request AS of_request, d.* FROM temp.moving_documents m"
    " JOIN main.documents d ON d.rowid = m.place ORDER BY m.place",
    "evidence": "SELECT m.request AS of_request, e.entry, e.evidence FROM temp.moving_entries m"
    " JOIN main.entries e ON e.entry = m.entry ORDER BY m.entry",
}
_INDEXES = (
    "CREATE UNIQUE INDEX archive.requests_by_request ON requests (request)",
    "CREATE INDEX archive.jobs_by_request ON jobs (request)",
    "CREATE UNIQUE INDEX archive.jobs_by_job ON jobs (job)",
    "CREATE UNIQUE INDEX archive.attempts_by_job ON attempts (job, attempt)",
    "CREATE INDEX archive.documents_by_request ON documents (of_request)",
    "CREATE UNIQUE INDEX archive.evidence_by_entry ON evidence (entry)",
    "CREATE INDEX archive.evidence_by_request ON evidence (of_request)",
)


def write(
    database: Path, new: Path, *, start: int, size: int, time: int, former: Mapping[bytes, int]
) -> tuple[Selected, bytes]:
    """Write what can move to the new file `new`, durably; how much that is, and the SHA-256 of the file.

    start, size: entries up to the end of the archive before, and up to this one's. time: of its checkpoint.
    """
    while True:
        for leftover in (new, new.with_name(f"{new.name}-journal")):
            leftover.unlink(missing_ok=True)
        os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        with closing(open_file(database)) as connection:
            before = stamp_of(database)
            try:
                selected = _write(connection, new, start, size, time, former)
            except sqlite3.Error as error:
                raise StoreError(f"{new}: cannot be written ({error}): make room on its disk") from error
        if was_sound(database, before):
            break
        # A tracker was started meanwhile: read again, now beside it.
    make_durable(new)
    with opened(new) as archive:
        [fault] = archive.execute("PRAGMA integrity_check(1)").fetchone()
    if fault != "ok":
        raise StoreError(f"{new}: what was written is damaged ({fault}): try another disk; nothing was deleted")
    return selected, sha256(new)


def _write(
    connection: sqlite3.Connection, new: Path, start: int, size: int, time: int, former: Mapping[bytes, int]
) -> Selected:
    connection.execute("ATTACH ? AS archive", (f"{new.resolve().as_uri()}?mode=rw",))
    connection.execute("PRAGMA archive.synchronous = FULL")
    connection.execute("BEGIN")
    selected = select(connection, size, time, former)
    connection.execute(f"PRAGMA archive.application_id = {APPLICATION_ID}")
    for table, query in _TABLES.items():
        connection.execute(f"CREATE TABLE archive.{table} AS {query}")
    connection.execute(
        "CREATE TABLE archive.checkpoints AS SELECT * FROM main.checkpoints WHERE size > ? AND size < ? ORDER BY size",
        (start or -1, size),
    )
    for index in _INDEXES:
        connection.execute(index)
    connection.execute("COMMIT")
    return selected


def make_durable(path: Path) -> None:
    """Wait until the file is on the disk, and, where the system has that, its name in the folder too."""
    for place, flags in ((path, os.O_RDWR), (path.parent, os.O_RDONLY)):
        if place.is_dir() and os.name != "posix":
            continue
        handle = os.open(place, flags)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sha256(path: Path) -> bytes:
    """Of the whole file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def check(path: Path, digest: bytes, bytes_: int) -> None:
    """Raise `StoreError` unless this is the archive that was signed for."""
    bring = "bring it from where it is kept"
    try:
        found = path.stat().st_size
        if found != bytes_:
            raise StoreError(f"{path}: {found} bytes, and the archive that was signed for has {bytes_}: {bring}")
        if (here := sha256(path)) != digest:
            text = f"SHA-256 {here.hex()}, and the archive that was signed for has {digest.hex()}"
            raise StoreError(f"{path}: {text}: this is another file, or it was damaged; {bring}")
    except FileNotFoundError as error:
        raise StoreError(f"{path}: the archive is not there: {bring}") from error
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}") from error


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """The archive in `path`, which cannot be changed through this; raises `StoreError`."""
    try:
        with closing(read_only(path)) as connection:
            application = connection.execute("PRAGMA application_id").fetchone()[0]
            if application != APPLICATION_ID:
                raise StoreError(f"{path}: is no archive of a ledger: name the right file")
            yield connection
    except sqlite3.Error as error:
        raise StoreError(f"{path}: cannot be read ({error}): bring the archive from where it is kept") from error
