"""Making an archive, step by step: each is done when it is durable, and whoever is killed between two goes on there.

1. The ledger is audited, and the books added up to where the archive ends: what is faulty does not move.
2. The file is written, synced, and looked into again. Until now nothing has changed.
3. The horde signs where the archive ends, which books stand there, and the file's digest, and the database takes it in.
4. The file gets its name, and a manifest beside it.
5. What the file holds, as it is read from the disk, leaves the live database, and the room is given back.
"""

from __future__ import annotations

import json
import sqlite3
from base64 import b64encode
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path

from protocol import codec, documents
from protocol.documents import Balances, Checkpoint, Serving, open_document
from protocol.envelope import parse
from protocol.errors import Refusal
from protocol.keys import SigningKey, show_key
from tracker.archives import file, moving
from tracker.archives.whole import Listed, read_list
from tracker.audit import Finding
from tracker.audit.audit import audit_to
from tracker.audit.opening import Cut, Opening, balances_digest, digest_of
from tracker.ledger import day_of
from tracker.store.base import StoreError
from tracker.store.sqlite.checkpoints import newest_before
from tracker.store.sqlite.copies import open_file
from tracker.store.sqlite.database import migrations

#: An audit that goes on from an archive's end asks for shares of the mint of days before it, since jobs were under way.
CARRIED_DAYS = 8
#: A file that is not whole yet, or not taken in.
NEW = "new.db"


class NotSound(Exception):
    """The ledger has faults: the first of them."""

    def __init__(self, finding: Finding, count: int) -> None:
        super().__init__(f"its audit finds {count} faults, the first being: {finding}")


@dataclass(frozen=True)
class Place:
    """Whose archives, and where. database: the live one. folder: of the archives. key: that serves."""

    database: Path
    folder: Path
    key: SigningKey


@dataclass
class Made:
    """What was done. number, name: of the archive that was made, 0 if nothing was old enough. finished: names of those
    that an earlier run had left half moved. begin, end: entries. requests, entries, documents: that moved into it.
    stayed: requests of which something was said meanwhile. before, after: the database's bytes on the disk, of which
    `free` wait to be used again."""

    number: int = 0
    name: str = ""
    finished: tuple[str, ...] = ()
    begin: int = 0
    end: int = 0
    requests: int = 0
    entries: int = 0
    documents: int = 0
    stayed: int = 0
    bytes: int = 0
    before: int = 0
    after: int = 0
    free: int = 0


#: Called at each step by its name: a test kills the process there.
Stage = Callable[[str], None]


def make(
    place: Place,
    before: int,
    *,
    alone: Callable[[], AbstractContextManager[bool]],
    told: moving.Told,
    stage: Stage = lambda name: None,
) -> Made:
    """Move what is older than the moment `before` into an archive, and whatever an earlier run had left; raises
    `StoreError` or `NotSound`. alone: whether no tracker runs, nor begins to until the block ends.

    stage: hears the name of each step before it is taken.
    """
    made = Made(before=_size_on_disk(place.database))
    _check_version(place.database)
    place.folder.mkdir(mode=0o700, exist_ok=True)
    with moving.writing(place.database) as connection:
        listed = read_list(connection, place.database)
        for archive in listed:
            if archive.state == "moving":
                _finish(connection, place, archive, made, told, stage)
                made.finished += (archive.name,)
        cut = _cut(place.database, listed[-1].said.size if listed else 0, before)
        if cut is not None:
            archive = _take(connection, place, cut, listed[-1] if listed else None, made, stage)
            _finish(connection, place, archive, made, told, stage)
        stage("shrink")
        with alone() as by_itself:
            moving.shrink(connection, alone=by_itself)
        made.free = _free(connection)
    made.after = _size_on_disk(place.database)
    return made


def _check_version(database: Path) -> None:
    """A running tracker of an earlier program shall not have its database changed under it."""
    with closing(open_file(database)) as connection:
        version, newest = connection.execute("PRAGMA user_version").fetchone()[0], migrations()[-1][0]
    if version != newest:
        text = f"has version {version}, and this program writes {newest}"
        raise StoreError(f"{database}: {text}: start the tracker with this program once, then archive")


def _cut(database: Path, start: int, before: int) -> Cut | None:
    """The newest checkpoint of before that moment, if there is anything between it and the last archive's end."""
    with closing(open_file(database)) as connection:
        try:
            raw = newest_before(connection, before)
            [shares] = connection.execute("SELECT shares_from FROM horde").fetchone()
            said = open_document(parse(raw), Checkpoint) if raw else None
        except (sqlite3.Error, Refusal, TypeError) as error:
            raise StoreError(f"{database}: its checkpoints cannot be read ({error}): restore a backup") from error
    if said is None or said.size <= start:
        return None
    return Cut(said.size, said.time, max(0, min(shares, day_of(said.time) - CARRIED_DAYS)))


def _take(
    connection: sqlite3.Connection, place: Place, cut: Cut, last: Listed | None, made: Made, stage: Stage
) -> Listed:
    """Audit, write, sign and take in. Nothing is deleted yet."""
    serving, root = _horde(connection, place)
    stage("audit")
    report, opening = audit_to(place.database, root, cut)
    if not report.ok:
        raise NotSound(report.findings[0], len(report.findings) + report.more)
    if opening is None:
        raise StoreError(f"{place.database}: the audit did not come to entry {cut.size}: restore a backup")
    stage("write")
    start, new = last.said.size if last else 0, place.folder / NEW
    former = {one.key: one.entries for one in serving.former}
    selected, digest = file.write(place.database, new, start=start, size=cut.size, time=cut.time, former=former)
    number = last.number + 1 if last else 1
    books = codec.encode(opening)
    said = _said(connection, number, start, cut, opening, books, digest, last)
    name = f"archive-{number:06}-{digest.hex()[:8]}.db"
    envelope = documents.sign(said, place.key, root)
    size = new.stat().st_size
    stage("take in")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(
            "INSERT INTO archives (number, size, name, bytes, document, books, state)"
            " VALUES (?, ?, ?, ?, ?, ?, 'moving')",
            (number, cut.size, name, size, envelope.raw, books),
        )
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
    connection.execute("PRAGMA synchronous = NORMAL")
    made.number, made.name, made.begin, made.end, made.bytes = number, name, start, cut.size, size
    made.requests, made.entries, made.documents = selected.requests, selected.entries, selected.documents
    return Listed(number, name, size, envelope.raw, said, "moving")


def _horde(connection: sqlite3.Connection, place: Place) -> tuple[Serving, bytes]:
    root, raw = connection.execute("SELECT root, delegation FROM horde").fetchone()
    serving = open_document(parse(raw), Serving)
    if serving.serving != place.key.public:
        text = f"its horde has appointed another serving key than {show_key(place.key.public)}"
        raise StoreError(f"{place.database}: {text}")
    return serving, root


def _said(
    connection: sqlite3.Connection,
    number: int,
    start: int,
    cut: Cut,
    opening: Opening,
    books: bytes,
    digest: bytes,
    last: Listed | None,
) -> Balances:
    [raw] = connection.execute("SELECT document FROM checkpoints WHERE size = ?", (cut.size,)).fetchone()
    checkpoint = open_document(parse(raw), Checkpoint)
    return Balances(
        number=number,
        start=start,
        size=cut.size,
        root=checkpoint.root,
        epoch=checkpoint.epoch,
        time=checkpoint.time,
        balances=balances_digest(opening.balances),
        books=digest_of(books),
        file=digest,
        previous=parse(last.raw).digest if last else b"",
    )


def _finish(
    connection: sqlite3.Connection, place: Place, archive: Listed, made: Made, told: moving.Told, stage: Stage
) -> None:
    """Name the file, and let what it holds leave the live database."""
    path, new = place.folder / archive.name, place.folder / NEW
    if not path.exists() and new.exists():
        file.check(new, archive.said.file, archive.file_bytes)
        _write_manifest(connection, place, archive)
        stage("name")
        new.rename(path)
        file.make_durable(path)
    stage("check")
    file.check(path, archive.said.file, archive.file_bytes)
    made.stayed += moving.move(connection, path, told, lambda: stage("move")).stayed
    stage("moved")
    connection.execute("UPDATE archives SET state = 'moved' WHERE number = ?", (archive.number,))


def _write_manifest(connection: sqlite3.Connection, place: Place, archive: Listed) -> None:
    """What shows anybody which file this is, and what was signed for it."""
    [books] = connection.execute("SELECT books FROM archives WHERE number = ?", (archive.number,)).fetchone()
    [checkpoint] = connection.execute(
        "SELECT document FROM checkpoints WHERE size = ?", (archive.said.size,)
    ).fetchone()
    root, delegation = connection.execute("SELECT root, delegation FROM horde").fetchone()
    content = {
        "horde": show_key(root),
        "archive": archive.name,
        "bytes": archive.file_bytes,
        "sha256": archive.said.file.hex(),
        "from": archive.said.start,
        "to": archive.said.size,
        "tree": archive.said.root.hex(),
        "delegation": b64encode(delegation).decode(),
        "checkpoint": b64encode(checkpoint).decode(),
        "document": b64encode(archive.raw).decode(),
        "balances": codec.decode(books, Opening).balances,
    }
    path = (place.folder / archive.name).with_suffix(".json")
    path.write_text(json.dumps(content, indent=2) + "\n", "ascii")
    file.make_durable(path)


def _size_on_disk(database: Path) -> int:
    return database.stat().st_size


def _free(connection: sqlite3.Connection) -> int:
    pages, size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("freelist_count", "page_size"))
    return int(pages * size)
