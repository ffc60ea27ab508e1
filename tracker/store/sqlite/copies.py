"""Copies of a database: made while a tracker serves, looked into before one is trusted, continued under a new key."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from protocol import documents
from protocol.documents import Epoch, Serving
from protocol.envelope import Envelope, check_delegation, parse
from protocol.errors import Refusal
from protocol.keys import SigningKey
from tracker.store.base import StoreError
from tracker.store.sqlite import papers
from tracker.store.sqlite.database import APPLICATION_ID, connect, migrations
from tracker.store.sqlite.ledger import Ledger, new_evidence
from tracker.store.sqlite.reading import read_only, stamp_of, was_sound

#: Pages between two words on how far a copy is.
PAGES = 4096

OTHER_COPY = "take another backup"


@dataclass(frozen=True)
class Copy:
    """What a copy says of itself. size, tree: of its ledger, entries and root hash."""

    path: Path
    delegation: Envelope
    serving: Serving
    size: int
    tree: bytes

    @property
    def root(self) -> bytes:
        """The horde's root key."""
        return self.delegation.key


def make_copy(source: Path, target: Path, told: Callable[[int, int], None] = lambda done, whole: None) -> None:
    """Copy the database in `source`, as it stands at one moment, to the new file `target`; its content is durable
    then. `told` hears how many pages of how many are done.

    One read transaction holds the moment: SQLite's copying would begin anew with every commit of a tracker that serves.
    """
    while not _try_copy(source, target, told):
        pass  # a tracker was started meanwhile: copy again, now beside it
    handle = os.open(target, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _try_copy(source: Path, target: Path, told: Callable[[int, int], None]) -> bool:
    """Copy; whether what was copied is of one moment."""
    with closing(open_file(source)) as reading, closing(sqlite3.connect(target, isolation_level=None)) as writing:
        before = stamp_of(source)
        try:
            reading.execute("BEGIN")
            reading.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            reading.backup(writing, pages=PAGES, progress=lambda _, left, whole: told(whole - left, whole))
            writing.execute("PRAGMA journal_mode = DELETE")  # one file, with no log beside it
            if not was_sound(source, before):
                return False
            _check_structure(writing, target)
        except sqlite3.Error as error:
            raise StoreError(f"{source}: could not be copied ({error})") from error
    return True


def look_into(path: Path) -> Copy:
    """What the copy in `path` says, once it is clear that this program can go on from it; raises `StoreError`."""
    with closing(open_file(path)) as connection:
        try:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            newest = migrations()[-1][0]
            if version > newest:
                raise StoreError(f"{path}: has version {version}, this program knows {newest}: update it first")
            _check_structure(connection, path)
            row = connection.execute("SELECT root, delegation, epoch FROM horde").fetchone()
            if row is None:
                raise StoreError(f"{path}: holds no horde: {OTHER_COPY}")
            delegation = parse(row[1])
            check_delegation(delegation, row[0])
            ledger = Ledger(SigningKey.generate(), row[0], row[2])
            ledger.load(connection)
        except (sqlite3.Error, Refusal, TypeError, ValueError) as error:
            raise StoreError(f"{path}: is damaged ({error}): {OTHER_COPY}") from error
    return Copy(path, delegation, documents.open_document(delegation, Serving), ledger.size, ledger.root)


def go_on(path: Path, delegation: Envelope, epoch: Envelope, key: SigningKey, now: int) -> None:
    """Make the copy in `path` the database of the next epoch: the new delegation, the epoch as the next entry, and a
    checkpoint over it by the new serving key. The copy is up to date with this program's schema then."""
    said = documents.open_document(epoch, Epoch)
    with closing(connect(path)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("UPDATE horde SET delegation = ?, epoch = ?", (delegation.raw, said.number))
            papers.take(connection, epoch, papers.epoch_identity(said.number))
            ledger = Ledger(key, delegation.key, said.number)
            ledger.load(connection)
            rules = connection.execute("SELECT max(version) FROM rules").fetchone()[0]
            ledger.append(connection, "epoch", (), new_evidence(said.time, rules, proofs=(epoch.digest,)))
            ledger.seal(connection, now)
            connection.execute("COMMIT")
        except (sqlite3.Error, Refusal) as error:
            raise StoreError(f"{path}: cannot be continued ({error}): {OTHER_COPY}") from error


def open_file(path: Path) -> sqlite3.Connection:
    """A connection that only reads; raises `StoreError` for what is no tracker's database."""
    try:
        connection = read_only(path)
        try:
            application = connection.execute("PRAGMA application_id").fetchone()[0]
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise StoreError(f"{path}: is no database, or its head is damaged ({error}): {OTHER_COPY}") from error
    if application != APPLICATION_ID:
        connection.close()
        raise StoreError(f"{path}: is another program's database: name a tracker's")
    return connection


def _check_structure(connection: sqlite3.Connection, path: Path) -> None:
    [fault] = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if fault != "ok":
        raise StoreError(f"{path}: is damaged ({fault}): {OTHER_COPY}")
