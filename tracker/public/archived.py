"""What the commitments of an entry hide whose evidence has moved into an archive that lies beside the database."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from protocol import codec
from protocol.documents import Evidence, Settlement
from protocol.errors import NotAllowed, UnknownJob
from tracker.archives.file import FOLDER, opened

#: An entry's number, and its evidence.
Found = tuple[int, bytes]


def evidence_of(
    connection: sqlite3.Connection, database: Path, said: Settlement, request: bytes | None
) -> Iterator[Found]:
    """Evidence of the entry that a settlement names; with the digest of the job's request also of the job's others.
    Raises `UnknownJob` where no archive is at hand that holds it."""
    names = [
        name
        for (name,) in connection.execute("SELECT name FROM archives WHERE size > ? ORDER BY number", (said.entry,))
    ]
    for path in (database.parent / FOLDER / name for name in names):
        if not path.exists():
            continue
        with opened(path) as archive:
            row = archive.execute("SELECT of_request, evidence FROM evidence WHERE entry = ?", (said.entry,)).fetchone()
            if row is None:
                continue
            yield said.entry, row[1]
            if request is not None:
                yield from _others(archive, said, row[0], request)
            return
    text = f"the evidence of entry {said.entry} has moved into an archive ({', '.join(names)}) that is kept elsewhere"
    raise UnknownJob(f"{text}: ask the operator to bring it")


def _others(archive: sqlite3.Connection, said: Settlement, of_request: bytes, request: bytes) -> Iterator[Found]:
    if of_request != request:
        raise NotAllowed("this request is not the one behind the settlement: show the one that asked for the job")
    for entry, raw in archive.execute("SELECT entry, evidence FROM evidence WHERE of_request = ?", (of_request,)):
        if entry != said.entry and codec.decode(raw, Evidence).job == said.job:
            yield entry, raw
