"""Archives of a ledger that was lived through in memory: made, broken off, and looked into."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from protocol.documents import Checkpoint, open_document
from protocol.envelope import parse
from protocol.keys import SigningKey
from tests.support.builders import ROOT, SERVING
from tracker.archives import making
from tracker.archives.making import Made, Place
from tracker.archives.whole import listed, whole
from tracker.audit import Report, audit

#: In which order a step may be taken for the last time.
STAGES = ("audit", "write", "take in", "name", "check", "move", "moved", "shrink")


class Killed(BaseException):
    """Nothing catches this, as nothing catches a kill."""


def look(path: Path, query: str, *values: object) -> list[tuple[Any, ...]]:
    """What the database says."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query, values).fetchall()


def change(path: Path, statement: str, *values: object) -> None:
    """Change it, which has to change something."""
    with closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute(statement, values).rowcount, f"changed nothing: {statement}"


def checkpoints(path: Path) -> list[Checkpoint]:
    """All that are in the database, in their order."""
    rows = look(path, "SELECT document FROM checkpoints ORDER BY size")
    return [open_document(parse(raw), Checkpoint) for (raw,) in rows]


def archive(
    path: Path,
    before: int,
    *,
    stage: Callable[[str], None] = lambda name: None,
    alone: bool = True,
    key: SigningKey = SERVING,
) -> Made:
    """Move what a checkpoint from before that moment covers."""
    place = Place(path, path.parent / "archives", key)
    return making.make(place, before, alone=lambda: nullcontext(alone), told=lambda done, all_: None, stage=stage)


def killed_at(name: str, times: int = 1) -> Callable[[str], None]:
    """A process that is killed when it comes to a step for so many times."""
    left = times

    def stage(now: str) -> None:
        nonlocal left
        left -= now == name
        if not left:
            raise Killed(name)

    return stage


def audited(path: Path) -> Report:
    """The audit of a database as it is, which has to pass."""
    report = audit(path, root=ROOT.public)
    assert report.ok, "\n".join(str(finding) for finding in report.findings)
    return report


def audited_whole(path: Path, begin: int = 0) -> Report:
    """The same with what is in its archives, from an entry on."""
    with whole(path, path.parent / "archives", begin) as copy:
        return audited(copy)


def archive_files(path: Path) -> list[Path]:
    """The archives of a database that have their names, in their order."""
    named = [path.parent / "archives" / archive.name for archive in listed(path)]
    return [file for file in named if file.exists()]


def evidence(path: Path) -> dict[str, set[tuple[Any, ...]]]:
    """All that an archive may move, by table, from the database and its archives together."""
    found: dict[str, set[tuple[Any, ...]]] = {}
    queries = {
        "requests": "SELECT * FROM requests",
        "jobs": "SELECT * FROM jobs",
        "attempts": "SELECT * FROM attempts",
        "documents": "SELECT digest, signer, kind, identity, raw FROM documents",
        "checkpoints": "SELECT size, document FROM checkpoints",
    }
    for name, query in queries.items():
        found[name] = {row for place in (path, *archive_files(path)) for row in look(place, query)}
    found["evidence"] = set(look(path, "SELECT entry, evidence FROM entries WHERE evidence <> x''"))
    for place in archive_files(path):
        found["evidence"] |= set(look(place, "SELECT entry, evidence FROM evidence"))
    return found


@contextmanager
def raw_file(path: Path) -> Iterator[bytearray]:
    """A file's bytes, to be changed."""
    content = bytearray(path.read_bytes())
    yield content
    path.write_bytes(bytes(content))
