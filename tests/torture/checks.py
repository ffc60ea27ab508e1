"""What must hold after a kill: the books are right, and what anybody was told is in the database."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from protocol.envelope import Envelope, parse
from protocol.errors import Refusal
from protocol.messages import Account, Ended, Queued, Taken
from tests.support.books import LIVE, check_books

DATABASE = "horde.db"


def copy_at_rest(database: Path, to: Path) -> Path:
    """The file and its log exactly as a killed tracker left them."""
    to.mkdir(parents=True)
    for suffix in ("", "-wal"):
        source = database.with_name(database.name + suffix)
        if source.exists():
            shutil.copyfile(source, to / source.name)
    return to / database.name


def copy_in_use(database: Path, to: Path) -> Path:
    """One moment of a database with which a tracker works."""
    to.mkdir(parents=True)
    with (
        closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as source,
        closing(sqlite3.connect(to / database.name)) as copy,
    ):
        source.backup(copy)
    return to / database.name


def check(copy: Path, confirmed: Iterable[bytes]) -> None:
    """Assert that the books are right and that nothing confirmed is missing; the copy's folder is removed if so."""
    with closing(sqlite3.connect(copy)) as connection:
        for raw in confirmed:
            if missing := lost(connection, raw):
                raise AssertionError(f"confirmed, and not in the database: {missing}")
    check_books(copy)
    shutil.rmtree(copy.parent)


def lost(connection: sqlite3.Connection, raw: bytes) -> str:
    """What a message of the tracker says that the database does not know; empty if it knows all of it."""
    try:
        envelope = parse(raw)
    except Refusal:
        return ""  # the challenge
    match envelope.kind:
        case "queued":
            return _lost_request(connection, envelope.open(Queued))
        case "taken":
            digests = envelope.open(Taken).documents
            return "" if all(_has_document(connection, digest) for digest in digests) else "a document taken"
        case "settlement" | "lease":
            return "" if _has_document(connection, envelope.digest) else f"a {envelope.kind}"
        case "ended":
            return _lost_end(connection, envelope)
        case "account":
            number = envelope.open(Account).number
            found = connection.execute("SELECT 1 FROM accounts WHERE account = ?", (number,)).fetchone()
            return "" if found or not number else f"account {number}"
        case _:
            return ""


def _has_document(connection: sqlite3.Connection, digest: bytes) -> bool:
    return connection.execute("SELECT 1 FROM documents WHERE digest = ?", (digest,)).fetchone() is not None


def _lost_request(connection: sqlite3.Connection, queued: Queued) -> str:
    jobs = {
        job
        for (job,) in connection.execute("SELECT job FROM jobs WHERE request = ? ORDER BY number", (queued.request,))
    }
    return "" if jobs and jobs == set(queued.jobs) else f"request {queued.request.hex()} with its jobs"


def _lost_end(connection: sqlite3.Connection, envelope: Envelope) -> str:
    said = envelope.open(Ended)
    found = connection.execute("SELECT state FROM jobs WHERE job = ?", (said.job,)).fetchone()
    return "" if found == (said.state,) else f"the end of job {said.job.hex()} ({said.state}, found {found})"


def live_jobs(copy: Path) -> list[tuple[str, str]]:
    """Jobs that have not ended, with their states."""
    with closing(sqlite3.connect(copy)) as connection:
        found = connection.execute(f"SELECT hex(job), state FROM jobs WHERE state IN {LIVE}").fetchall()
    shutil.rmtree(copy.parent)
    return found


def states(copy: Path) -> dict[str, int]:
    """How many jobs there are in each state."""
    with closing(sqlite3.connect(copy)) as connection:
        return dict(connection.execute("SELECT state, count(*) FROM jobs GROUP BY state"))
