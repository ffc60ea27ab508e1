"""Requests, jobs and attempts as the tables have them, against the documents and entries that they stand for."""

from __future__ import annotations

import sqlite3
from collections import Counter

from protocol import codec
from protocol.documents import Evidence, Lease, Request, Settlement
from protocol.errors import Refusal
from protocol.postings import ANONYMOUS
from protocol.work import PublicPart
from tracker.audit.entries import Walk
from tracker.audit.papers import Horde, Paper, open_kept
from tracker.audit.people import People
from tracker.audit.report import Findings
from tracker.lifecycle import LIVE, State
from tracker.store.sqlite.papers import job_identity


def check_requests(connection: sqlite3.Connection, people: People, findings: Findings) -> None:
    """Each request's row says what its document does, has n jobs, and the payer is who its signer acted for."""
    for request, payer, origin, delegation, raw, jobs, admitted, *kept in connection.execute(
        "SELECT r.request, r.payer, r.origin, r.delegation, d.raw,"
        " (SELECT count(*) FROM jobs j WHERE j.request = r.request),"
        " (SELECT min(admitted) FROM jobs j WHERE j.request = r.request),"
        " r.signer, r.nonce, r.job_key, r.public, r.private_digest, r.user"
        " FROM requests r LEFT JOIN papers p ON p.digest = r.request LEFT JOIN documents d ON d.rowid = p.place"
    ):
        what = f"request {request[:8].hex()}…"
        try:
            envelope, said = open_kept(raw, Request)
            kept[3] = codec.decode(kept[3], PublicPart)
        except Refusal as refusal:
            findings.add(what, refusal, "a request that is kept")
            continue
        right = (envelope.key, said.nonce, said.job_key, said.public, said.private_digest, said.user)
        names = ("signer", "nonce", "job key", "public part", "private digest", "user")
        for name, found, wanted in zip(names, kept, right, strict=True):
            findings.expect(f"{what}: {name}", found, wanted)
        findings.expect(f"{what}: number of jobs", jobs, said.public.n)
        if payer != ANONYMOUS:  # of the others only the tracker knows who is whose neighbour
            findings.expect(f"{what}: whom it counts for", origin, str(payer))
        if admitted is not None:
            people.check_payer(what, Paper(envelope, said), payer, delegation, admitted)


def check_jobs(connection: sqlite3.Connection, horde: Horde, walk: Walk, findings: Findings) -> int:
    """Each job's state is what the entries say; how many jobs there are."""
    count = 0
    books = walk.seen.books
    for job, state, held, attempt, attempts, settled, signer, asker in connection.execute(
        "SELECT j.job, j.state, j.held, j.attempt, (SELECT max(attempt) FROM attempts a WHERE a.job = j.job),"
        " j.settled, j.signer, r.signer FROM jobs j LEFT JOIN requests r ON r.request = j.request"
    ):
        count += 1
        what = f"job {job[:8].hex()}…"
        findings.expect(f"{what}: what its hold contains", held, books.holds.get(job, 0))
        findings.expect(f"{what}: its latest attempt", attempt, attempts or 0)
        findings.expect(f"{what}: who asked for it", signer, asker)
        if state not in LIVE:
            findings.expect(f"{what}, which is {state}: what is still held", books.holds.get(job, 0), 0)
        if state == State.REFUNDED and job not in walk.seen.refunded:
            findings.add(f"{what}, which is {state}", "in no entry", "a refund")
        if state == State.SETTLED:
            _check_paid_once(connection, horde, walk, what, job, settled, findings)
        else:
            findings.expect(f"{what}, which is {state}: the attempt that was paid", settled, 0)
    return count


def _check_paid_once(
    connection: sqlite3.Connection,
    horde: Horde,
    walk: Walk,
    what: str,
    job: bytes,
    settled: int,
    findings: Findings,
) -> None:
    """A settled job has one settlement, whose entry is a settle entry for it, or by which it was entered again.

    The walk has shown the other direction: every settle entry is the one that its attempt's settlement names.
    """
    raw = _settlement_of(connection, horde, job, settled)
    try:
        envelope, said = open_kept(raw, Settlement)
    except Refusal:
        findings.add(f"{what}: its settlement", None, f"one of attempt {settled}")
        return
    again = walk.recoveries.entered.get(envelope.digest)
    index = again.entry if again else said.entry
    row = connection.execute("SELECT evidence FROM entries WHERE entry = ?", (index,)).fetchone()
    try:
        evidence = codec.decode(row[0], Evidence) if row else None
    except Refusal:
        evidence = None
    paid = (evidence.job, evidence.attempt) if evidence else None
    findings.expect(f"{what}: the entry that its settlement names", paid, (job, settled), index)


def _settlement_of(connection: sqlite3.Connection, horde: Horde, job: bytes, attempt: int) -> bytes | None:
    for key in horde.keys:
        row = connection.execute(
            "SELECT raw FROM documents WHERE signer = ? AND kind = ? AND identity = ?",
            (key, Settlement.KIND, job_identity(job, attempt)),
        ).fetchone()
        if row is not None:
            return bytes(row[0])
    return None


def check_attempts(connection: sqlite3.Connection, recovered: set[bytes], findings: Findings) -> None:
    """Each attempt's row says what its signed lease does; leases and settlements belong to attempts, but for those of
    jobs that were entered again."""
    columns = ("job", "attempt", "worker", "model", "issued", "deadline", "rules", "price", "paid", "free")
    for raw, *row in connection.execute(
        "SELECT d.raw, a.job, a.attempt, a.worker, a.model, a.issued, a.deadline, a.rules, a.price, a.paid, a.free"
        " FROM attempts a LEFT JOIN papers p ON p.digest = a.lease LEFT JOIN documents d ON d.rowid = p.place"
    ):
        what = f"attempt {row[1]} of job {row[0][:8].hex()}…"
        try:
            _, lease = open_kept(raw, Lease)
        except Refusal as refusal:
            findings.add(f"{what}: its lease", refusal, "a lease that is kept")
            continue
        for name, found in zip(columns, row, strict=True):
            findings.expect(f"{what}: {name}", found, getattr(lease, name))
    stray: Counter[str] = Counter()
    for kind, digest in connection.execute(
        "SELECT d.kind, d.digest FROM documents d WHERE d.kind IN ('lease', 'settlement') AND NOT EXISTS (SELECT 1 FROM"
        " attempts a JOIN jobs j ON j.job = a.job WHERE a.job = substr(d.identity, 1, 16)"
        " AND (a.lease = d.digest OR (d.kind = 'settlement' AND j.settled = a.attempt)))"
    ):
        stray[kind] += digest not in recovered
    for kind, count in (+stray).items():
        findings.add(f"documents of kind {kind} that belong to no attempt", count, 0)
