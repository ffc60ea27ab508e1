"""What can move into an archive: requests whose jobs are over, with all that was entered and signed about them.

Only jobs move, since they are what a ledger grows by. Leaves and their hashes stay, and so does whatever else anybody
signed: accounts, keys, transfers, awards, acts, votes and restores are few, and later moments ask for them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

from protocol import codec
from protocol.documents import Epoch, Evidence, Leaf, Settlement, open_document
from protocol.envelope import parse
from tracker.store.sqlite.papers import job_identity

#: Events of a job that are entered once, while it is lived through. What a restore brings about is kept at hand: it is
#: asked for whenever somebody shows one more settlement.
_ORDINARY = frozenset({"hold", "settle", "release", "refund"})

#: Reads from `temp.kept_jobs`, which holds a job for every reason that it cannot move.
_KEPT = """
INSERT INTO temp.kept_jobs
SELECT job FROM jobs WHERE state IN ('waiting', 'leased', 'delivered') OR changed >= :time OR held <> 0
UNION ALL SELECT job FROM attempts WHERE reserved <> 0
UNION ALL SELECT job FROM temp.entered WHERE entry >= :size OR NOT ordinary
UNION ALL SELECT job FROM temp.entered WHERE entry IN (SELECT entry FROM faults)
UNION ALL SELECT substr(d.identity, 1, 16) FROM documents d
 WHERE d.digest IN (SELECT first FROM equivocations) AND length(d.identity) = 20
UNION ALL SELECT j.job FROM jobs j JOIN requests r ON r.request = j.request
 WHERE r.request IN (SELECT first FROM equivocations) OR r.job_key IN (
  SELECT signer FROM documents WHERE kind = 'cancel' AND digest IN (SELECT first FROM equivocations))
"""


@dataclass(frozen=True)
class Selected:
    """How much can move."""

    requests: int
    entries: int
    documents: int


def select(connection: sqlite3.Connection, size: int, time: int, former: Mapping[bytes, int]) -> Selected:
    """Lay out, beside the database, what can move: `temp.moving`, `temp.moving_entries`, `temp.moving_documents`.

    size, time: of the checkpoint behind which all of it lies. former: keys that served before, each with the first
    entry that a restore has cut.
    """
    for statement in (
        "CREATE TEMP TABLE entered (entry INTEGER PRIMARY KEY, job BLOB NOT NULL, ordinary INTEGER NOT NULL)",
        "CREATE TEMP TABLE kept_jobs (job BLOB NOT NULL)",
        "CREATE TEMP TABLE moving (request BLOB PRIMARY KEY) WITHOUT ROWID",
    ):
        connection.execute(statement)
    _read_entries(connection)
    connection.execute("CREATE INDEX temp.entered_by_job ON entered (job)")
    connection.execute(_KEPT, {"size": size, "time": time})
    _keep_recovered(connection, former)
    connection.execute(
        "INSERT INTO temp.moving SELECT request FROM requests WHERE request NOT IN"
        " (SELECT request FROM jobs WHERE job IN (SELECT job FROM temp.kept_jobs))"
    )
    _lay_out(connection)
    return Selected(
        *connection.execute(
            "SELECT (SELECT count(*) FROM temp.moving), (SELECT count(*) FROM temp.moving_entries),"
            " (SELECT count(*) FROM temp.moving_documents)"
        ).fetchone()
    )


def _read_entries(connection: sqlite3.Connection) -> None:
    """Which entries speak of which job: only their evidence says that."""
    writing = connection.cursor()
    for entry, leaf, raw in connection.execute("SELECT entry, leaf, evidence FROM entries WHERE evidence <> x''"):
        job = codec.decode(raw, Evidence).job
        if job is not None:
            ordinary = codec.decode(leaf, Leaf).event in _ORDINARY
            writing.execute("INSERT INTO temp.entered VALUES (?, ?, ?)", (entry, job, ordinary))


def _keep_recovered(connection: sqlite3.Connection, former: Mapping[bytes, int]) -> None:
    """Jobs of which a settlement was shown that a restore had cut, or may be shown yet: those that were under way in
    the copy and have ended since. By their rows the tracker knows that they were paid anew."""
    for (raw,) in connection.execute("SELECT raw FROM documents WHERE kind = 'epoch'").fetchall():
        time = open_document(parse(raw), Epoch).time
        connection.execute(
            "INSERT INTO temp.kept_jobs SELECT job FROM jobs WHERE admitted <= ?1 AND changed >= ?1", (time,)
        )
    for key, entries in former.items():
        for job, raw in connection.execute(
            "SELECT substr(identity, 1, 16), raw FROM documents WHERE kind = 'settlement' AND signer = ?", (key,)
        ).fetchall():
            if open_document(parse(raw), Settlement).entry >= entries:
                connection.execute("INSERT INTO temp.kept_jobs VALUES (?)", (job,))


def _lay_out(connection: sqlite3.Connection) -> None:
    """Entries and documents of what moves. What is said of an attempt stands under its job; a cancel is found by who
    signed it, and no index leads there."""
    connection.execute(
        "CREATE TEMP TABLE moving_entries AS SELECT e.entry, j.request FROM temp.entered e JOIN jobs j ON j.job = e.job"
        " WHERE j.request IN (SELECT request FROM temp.moving)"
    )
    connection.execute("CREATE TEMP TABLE moving_documents (place INTEGER PRIMARY KEY, request BLOB NOT NULL)")
    connection.execute(
        "CREATE TEMP TABLE cancels AS SELECT rowid AS place, signer FROM documents WHERE kind = 'cancel'"
    )
    connection.execute("CREATE INDEX temp.cancels_by_signer ON cancels (signer)")
    connection.execute(
        "INSERT INTO temp.moving_documents SELECT d.rowid, r.request FROM requests r JOIN documents d"
        " ON d.identity = r.nonce AND d.kind = 'request' AND d.signer = r.signer AND d.digest = r.request"
        " WHERE r.request IN (SELECT request FROM temp.moving)"
    )
    connection.execute(
        "INSERT INTO temp.moving_documents SELECT c.place, r.request FROM requests r JOIN temp.cancels c"
        " ON c.signer = r.job_key WHERE r.request IN (SELECT request FROM temp.moving)"
    )
    jobs = connection.execute("SELECT request, job FROM jobs WHERE request IN (SELECT request FROM temp.moving)")
    connection.cursor().executemany(
        "INSERT INTO temp.moving_documents SELECT rowid, ? FROM documents WHERE identity BETWEEN ? AND ?",
        ((request, *said_of(job)) for request, job in jobs),
    )


def said_of(job: bytes) -> tuple[bytes, bytes]:
    """The first and the last identity of what is said of a job's attempts."""
    return job_identity(job, 0), job_identity(job, 2**32 - 1)
