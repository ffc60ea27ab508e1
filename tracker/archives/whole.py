"""A copy of the live database into which archives are put back: as it would be if nothing had ever moved."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from protocol.documents import Balances, open_document
from protocol.envelope import parse
from protocol.errors import Refusal
from tracker.archives import file
from tracker.store.base import StoreError
from tracker.store.sqlite.copies import make_copy, open_file


@dataclass(frozen=True)
class Listed:
    """An archive, as a database names it. said: the signed `balances`, which whoever audits has to check."""

    number: int
    name: str
    file_bytes: int
    raw: bytes
    said: Balances
    state: str


def listed(database: Path) -> list[Listed]:
    """The archives of a database, in their order; raises `StoreError`."""
    with closing(open_file(database)) as connection:
        return read_list(connection, database)


def read_list(connection: sqlite3.Connection, database: Path) -> list[Listed]:
    """The same by a connection that is there."""
    try:
        if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'archives'").fetchone():
            return []  # a database that an earlier program has made
        rows = connection.execute(
            "SELECT number, name, bytes, document, state FROM archives ORDER BY number"
        ).fetchall()
        return [
            Listed(number, name, size, raw, open_document(parse(raw), Balances), state)
            for number, name, size, raw, state in rows
        ]
    except (sqlite3.Error, Refusal) as error:
        raise StoreError(f"{database}: its list of archives cannot be read ({error}): restore a backup") from error


@contextmanager
def whole(
    database: Path, folder: Path, begin: int, told: Callable[[int, int], None] = lambda done, all_: None
) -> Iterator[Path]:
    """A copy, until the block ends, with all evidence from entry `begin` on, which is where an archive ends, or 0;
    raises `StoreError`, which names the archive that is missing or damaged. folder: where archives lie."""
    archives = listed(database)
    if begin not in {0, *(archive.said.size for archive in archives)}:
        ends = ", ".join(str(archive.said.size) for archive in archives)
        raise StoreError(f"{database}: no archive ends at entry {begin}: wanted 0 or one of {ends or 'none'}")
    wanted = [archive for archive in archives if archive.said.size > begin]
    for archive in wanted:
        if archive.state == "moving" and not (folder / archive.name).exists():
            raise StoreError(f"{folder / archive.name}: is not whole yet: give `potluck-tracker archive` once more")
        file.check(folder / archive.name, archive.said.file, archive.file_bytes)
    with TemporaryDirectory(prefix=".audit-", dir=database.parent) as scratch:
        copy = Path(scratch) / database.name
        os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        make_copy(database, copy, told)
        # The newest first: of what is in two of them, because it changed while it was moved, the later is right.
        for archive in reversed(wanted):
            _put_back(copy, folder / archive.name, archive.number)
        yield copy


def _put_back(copy: Path, path: Path, number: int) -> None:
    try:
        with closing(sqlite3.connect(copy.resolve().as_uri(), uri=True, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = OFF")  # it lasts as long as this process
            connection.execute("ATTACH ? AS archive", (f"{path.resolve().as_uri()}?mode=ro&immutable=1",))
            connection.execute("BEGIN")
            for table in ("requests", "jobs", "attempts", "documents", "checkpoints"):
                rows = connection.execute(f"PRAGMA archive.table_info({table})").fetchall()
                names = ", ".join(row[1] for row in rows if row[1] != "of_request")
                connection.execute(
                    f"INSERT OR IGNORE INTO main.{table} ({names})"  # noqa: S608 (the file is the one that was signed for)
                    f" SELECT {names} FROM archive.{table} ORDER BY rowid"
                )
            connection.execute(
                "UPDATE main.entries SET evidence = (SELECT e.evidence FROM archive.evidence e"
                " WHERE e.entry = main.entries.entry)"
                " WHERE evidence = x'' AND entry IN (SELECT entry FROM archive.evidence)"
            )
            connection.execute("UPDATE main.archives SET state = 'back' WHERE number = ?", (number,))
            connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise StoreError(f"{path}: cannot be put back ({error}): bring the archive from where it is kept") from error
