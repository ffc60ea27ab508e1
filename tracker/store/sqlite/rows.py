"""Rows of jobs and attempts, to and from the values that decisions are made of."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from functools import lru_cache
from itertools import islice
from typing import Any, TypeVar

from protocol import codec
from protocol.work import PublicPart
from tracker.lifecycle import Attempt, Facts, Job, Stage, State
from tracker.store.sqlite.journal import Journal

K = TypeVar("K")
V = TypeVar("V")

KEY = 32
#: Jobs and attempts that are kept in memory between two commits.
MOST = 1024

_JOB = (
    "SELECT j.job, j.request, j.number, r.public, r.private_digest, r.job_key, r.signer, r.payer, r.origin, j.state,"
    " j.attempt, j.failed, j.held, j.score, j.anonymous, j.admitted, j.changed, j.waited, j.cancelled, j.excluded,"
    " j.settled, j.reason, j.carried, r.delegation, r.user, r.labels, r.service, r.give_back"
    " FROM jobs j JOIN requests r ON r.request = j.request"
)
_ATTEMPT = (
    "SELECT attempt, worker, owner, model, lease, stage, issued, deadline, rules, price, paid, free, uncovered, tax,"
    " reserved, receipt FROM attempts"
)


@lru_cache(maxsize=4096)
def _public(raw: bytes) -> PublicPart:
    return codec.decode(raw, PublicPart)


def _to_job(row: tuple[Any, ...]) -> Job:
    excluded = row[19]
    return Job(
        handle=row[0],
        request=row[1],
        number=row[2],
        public=_public(row[3]),
        private_digest=row[4],
        job_key=row[5],
        signer=row[6],
        payer=row[7],
        origin=row[8],
        state=State(row[9]),
        attempt=row[10],
        failed=row[11],
        held=row[12],
        score=row[13],
        anonymous=bool(row[14]),
        admitted=row[15],
        changed=row[16],
        waited=row[17],
        cancelled=row[18],
        excluded=frozenset(excluded[at : at + KEY] for at in range(0, len(excluded), KEY)),
        settled=row[20],
        reason=row[21],
        carried=bool(row[22]),
        delegation=row[23],
        user=row[24],
        facts=Facts(tuple(row[25].split()), row[26], row[27]),
    )


def _to_attempt(row: tuple[Any, ...]) -> Attempt:
    return Attempt(
        attempt=row[0],
        worker=row[1],
        owner=row[2],
        model=row[3],
        lease=row[4],
        stage=Stage(row[5]),
        issued=row[6],
        deadline=row[7],
        rules=row[8],
        price=row[9],
        paid=row[10],
        free=row[11],
        uncovered=row[12],
        tax=row[13],
        reserved=row[14],
        receipt=row[15],
    )


def job(connection: sqlite3.Connection, handle: bytes) -> Job | None:
    """The job with this handle."""
    row = connection.execute(f"{_JOB} WHERE j.job = ?", (handle,)).fetchone()
    return _to_job(row) if row else None


def jobs_of_request(connection: sqlite3.Connection, request: bytes) -> list[Job]:
    """All jobs of a request, in order."""
    rows = connection.execute(f"{_JOB} WHERE j.request = ? ORDER BY j.number", (request,))
    return [_to_job(row) for row in rows]


def live_jobs(connection: sqlite3.Connection) -> Iterable[Job]:
    """All jobs that have not ended."""
    rows = connection.execute(f"{_JOB} WHERE j.state IN ('waiting', 'leased', 'delivered') ORDER BY j.admitted")
    return map(_to_job, rows.fetchall())


def open_requests(connection: sqlite3.Connection, signer: bytes) -> list[tuple[bytes, bytes]]:
    """Nonce and digest of each request of `signer` with a job that has not ended; those that have cost nothing."""
    return connection.execute(
        "SELECT nonce, request FROM requests WHERE request IN (SELECT request FROM jobs WHERE signer = ?"
        " AND state IN ('waiting', 'leased', 'delivered'))",
        (signer,),
    ).fetchall()


def attempt(connection: sqlite3.Connection, handle: bytes, number: int) -> Attempt | None:
    """One attempt of a job."""
    row = connection.execute(f"{_ATTEMPT} WHERE job = ? AND attempt = ?", (handle, number)).fetchone()
    return _to_attempt(row) if row else None


def insert_job(connection: sqlite3.Connection, job: Job) -> None:
    """A new job, as it stands when it is first written; its request is there."""
    connection.execute(
        "INSERT INTO jobs (job, request, number, state, attempt, held, score, anonymous, admitted, changed, waited,"
        " carried, signer) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            job.handle,
            job.request,
            job.number,
            job.state.value,
            job.attempt,
            job.held,
            job.score,
            job.anonymous,
            job.admitted,
            job.changed,
            job.waited,
            job.carried,
            job.signer,
        ),
    )


def update_job(connection: sqlite3.Connection, job: Job) -> None:
    """Write what may change of a job."""
    connection.execute(
        "UPDATE jobs SET state = ?, reason = ?, attempt = ?, failed = ?, held = ?, changed = ?, waited = ?,"
        " cancelled = ?, excluded = ?, settled = ? WHERE job = ?",
        (
            job.state.value,
            job.reason,
            job.attempt,
            job.failed,
            job.held,
            job.changed,
            job.waited,
            job.cancelled,
            b"".join(sorted(job.excluded)),
            job.settled,
            job.handle,
        ),
    )


def insert_attempt(connection: sqlite3.Connection, handle: bytes, new: Attempt) -> None:
    """A new attempt of a job."""
    connection.execute(
        "INSERT INTO attempts (job, attempt, worker, owner, model, lease, stage, issued, deadline, rules, price, paid,"
        " free, uncovered, tax, reserved) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            handle,
            new.attempt,
            new.worker,
            new.owner,
            new.model,
            new.lease,
            new.stage.value,
            new.issued,
            new.deadline,
            new.rules,
            new.price,
            new.paid,
            new.free,
            new.uncovered,
            new.tax,
            new.reserved,
        ),
    )


def update_attempt(connection: sqlite3.Connection, handle: bytes, changed: Attempt) -> None:
    """Write what may change of an attempt."""
    connection.execute(
        "UPDATE attempts SET stage = ?, reserved = ?, receipt = ? WHERE job = ? AND attempt = ?",
        (changed.stage.value, changed.reserved, changed.receipt, handle, changed.attempt),
    )


class Live:
    """Jobs and attempts that something happened to lately, as their rows are. Every change is written at once."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._jobs: dict[bytes, Job] = {}
        self._attempts: dict[tuple[bytes, int], Attempt] = {}

    def job(self, connection: sqlite3.Connection, handle: bytes) -> Job | None:
        """The job with this handle."""
        return self._jobs.get(handle) or job(connection, handle)

    def attempt(self, connection: sqlite3.Connection, handle: bytes, number: int) -> Attempt | None:
        """One attempt of a job."""
        return self._attempts.get((handle, number)) or attempt(connection, handle, number)

    def add_job(self, connection: sqlite3.Connection, new: Job) -> None:
        """See `insert_job`."""
        insert_job(connection, new)
        if new.state is not State.WAITING:  # waiting jobs may be many, and nothing happens to them
            self._journal.put(self._jobs, new.handle, new)

    def write_job(self, connection: sqlite3.Connection, changed: Job) -> None:
        """See `update_job`."""
        update_job(connection, changed)
        self._journal.put(self._jobs, changed.handle, changed)

    def add_attempt(self, connection: sqlite3.Connection, handle: bytes, new: Attempt) -> None:
        """See `insert_attempt`."""
        insert_attempt(connection, handle, new)
        self._journal.put(self._attempts, (handle, new.attempt), new)

    def write_attempt(self, connection: sqlite3.Connection, handle: bytes, changed: Attempt) -> None:
        """See `update_attempt`."""
        update_attempt(connection, handle, changed)
        self._journal.put(self._attempts, (handle, changed.attempt), changed)

    def shrink(self) -> None:
        """Keep no more than so many of them, the last ones."""
        _drop_first(self._jobs)
        _drop_first(self._attempts)


def _drop_first(table: dict[K, V]) -> None:
    for key in list(islice(table, max(0, len(table) - MOST))):
        del table[key]
