"""What an event makes of a job: decided by `lifecycle.decide`, and written, with what is paid and what goes back."""

from __future__ import annotations

import sqlite3

from protocol import documents, postings
from protocol.documents import Acknowledgement, Denial, Receipt, Settlement
from protocol.envelope import Envelope
from protocol.errors import ReceiptMismatch, UnknownJob, WrongSigner
from protocol.rules import Rules
from tracker import earning, lifecycle
from tracker.ledger import day_of
from tracker.lifecycle import Attempt, Event, Job, Outcome, Payment, Received, Stage, State, decide
from tracker.store.base import Happened
from tracker.store.sqlite import papers, probation
from tracker.store.sqlite.ledger import new_evidence
from tracker.store.sqlite.mint import Between
from tracker.store.sqlite.papers import job_identity
from tracker.store.sqlite.tables import Tables
from tracker.values import replace

_PAYING = (lifecycle.Acknowledged, lifecycle.Received, lifecycle.Silence)


def happen(
    connection: sqlite3.Connection,
    tables: Tables,
    job: Job,
    attempt: Attempt | None,
    event: Event,
    rules: Rules,
    now: int,
    proofs: tuple[bytes, ...],
) -> Happened:
    """Ask what the event makes of the job, and write it. attempt: the one that it speaks of."""
    terms = rules
    if isinstance(event, _PAYING) and attempt is not None:
        terms = tables.versions.get(connection, attempt.rules).rules
    outcome = decide(job, attempt, event, terms, now)
    if not outcome.changed:
        settlement = settlement_of(connection, tables, job) if outcome.job.state is State.SETTLED else b""
        return Happened(job, outcome, settlement)
    lost = _end_others(connection, tables, job, outcome)
    settlement = b""
    after, ended = outcome.job, outcome.attempt
    if outcome.payment is not None and ended is not None:
        received = job.changed if isinstance(event, lifecycle.Silence) else 0
        after, ended, settlement = _pay(
            connection, tables, after, ended, outcome.payment, rules, now, proofs, received=received
        )
    elif ended is not None and ended.stage is Stage.ENDED:
        ended = _unreserved(connection, tables, job, ended)
    released = after.held if outcome.release else 0
    is_refund = after.state is State.REFUNDED
    if released or is_refund:  # a refund is entered also where nothing was held: it stands against the worker's owner
        number = attempt.attempt if attempt else 0
        rest = () if settlement else proofs
        evidence = new_evidence(now, tables.versions.newest(connection), job.handle, number, rest)
        kind = "refund" if is_refund else "release"
        index, _ = tables.ledger.append(connection, kind, postings.release(job.payer, released), evidence)
        if is_refund and attempt is not None:
            _blame(connection, tables, job, attempt, index, now)
    if released:
        tables.accounts.hold(connection, job.payer, -released)
        tables.people.use(connection, job.delegation, -released)
        after = replace(after, held=0)
    if after is not job:
        tables.live.write_job(connection, after)
    if after.state not in lifecycle.LIVE:
        end(connection, tables, after)
    if ended is not None and ended is not attempt:
        tables.live.write_attempt(connection, job.handle, ended)
    used = tables.mint.used(connection, now) if ended is not None and ended.stage is Stage.ENDED else None
    return Happened(job, replace(outcome, job=after, attempt=ended), settlement, released, lost, used)


def _end_others(connection: sqlite3.Connection, tables: Tables, job: Job, outcome: Outcome) -> Attempt | None:
    """A newer lease ends when an older attempt is settled."""
    spoken_of = outcome.attempt.attempt if outcome.attempt else 0
    if job.state is not State.LEASED or spoken_of == job.attempt or outcome.job.state is State.LEASED:
        return None
    newest = tables.live.attempt(connection, job.handle, job.attempt)
    if newest is None:
        return None
    newest = _unreserved(connection, tables, job, replace(newest, stage=Stage.ENDED))
    tables.live.write_attempt(connection, job.handle, newest)
    return newest


def _pay(
    connection: sqlite3.Connection,
    tables: Tables,
    job: Job,
    attempt: Attempt,
    payment: Payment,
    rules: Rules,
    now: int,
    proofs: tuple[bytes, ...],
    *,
    received: int,
) -> tuple[Job, Attempt, bytes]:
    """Enter the settlement, sign it and keep it. received: see `Evidence`."""
    minted, between = payment.minted, Between(attempt.owner, job.origin)
    had = attempt.reserved
    attempt = _unreserved(connection, tables, job, attempt)
    if minted > had:  # the attempt had ended, and what was set aside for it had gone back
        minted = min(minted, tables.mint.left(connection, rules.mint, attempt.issued, between))
    tables.mint.count(connection, day_of(attempt.issued), minted, between)
    tables.mint.pay(connection, day_of(attempt.issued), payment.paid, attempt.owner)
    waits = _withheld(connection, tables, job, attempt, payment.paid + minted, now)
    moved = postings.settle(attempt.owner, paid=payment.paid, minted=minted, burned=payment.tax, withheld=waits)
    evidence = new_evidence(now, attempt.rules, job.handle, attempt.attempt, proofs, received=received)
    index, entry = tables.ledger.append(connection, "settle", moved, evidence)
    settlement = Settlement(
        job=job.handle,
        attempt=attempt.attempt,
        paid=payment.paid,
        minted=minted,
        burned=payment.tax,
        withheld=waits,
        partial=payment.partial,
        number=tables.ledger.settled,
        entry=index,
        leaf=entry.hash,
        checkpoint=tables.ledger.checkpoint,
        settled=now,
    )
    envelope = documents.sign(settlement, tables.key, tables.root)
    papers.take(connection, envelope, job_identity(job.handle, attempt.attempt))
    _count(connection, tables, job, attempt, payment, minted, rules, now)
    if job.payer != attempt.owner:
        tables.accounts.withhold(connection, attempt.owner, waits)
        probation.settled(connection, tables, attempt.owner, attempt.rules, now)
    return replace(job, held=job.held - payment.paid - payment.tax), attempt, envelope.raw


def _withheld(connection: sqlite3.Connection, tables: Tables, job: Job, attempt: Attempt, pay: int, now: int) -> int:
    """What of the pay waits until its owner is trusted, by the rules of the lease."""
    if job.payer == attempt.owner:
        return 0
    record = tables.accounts.record(connection, attempt.owner, jobs=1)
    return earning.withheld(record, tables.versions.get(connection, attempt.rules).rules.earning, pay, now)


def _blame(connection: sqlite3.Connection, tables: Tables, job: Job, attempt: Attempt, entry: int, now: int) -> None:
    """A refund stands against the worker's owner; jobs within one account count for nothing."""
    if job.payer != attempt.owner:
        tables.accounts.blame(connection, attempt.owner, now)
        connection.execute("INSERT INTO faults (account, time, entry) VALUES (?, ?, ?)", (attempt.owner, now, entry))


def _count(
    connection: sqlite3.Connection,
    tables: Tables,
    job: Job,
    attempt: Attempt,
    payment: Payment,
    minted: int,
    rules: Rules,
    now: int,
) -> None:
    """What both accounts have given and taken; jobs within one account count for nothing."""
    if job.payer == attempt.owner:
        return
    tables.accounts.count_done(connection, attempt.owner, payment.paid + minted)
    spent = payment.paid + payment.tax
    tables.accounts.count_received(
        connection, job.payer, held=spent, spent=spent, uncovered=payment.uncovered, rules=rules, now=now
    )


def _unreserved(connection: sqlite3.Connection, tables: Tables, job: Job, attempt: Attempt) -> Attempt:
    """What was set aside of the day's mint for an attempt goes back."""
    if not attempt.reserved:
        return attempt
    between = Between(attempt.owner, job.origin)
    tables.mint.reserve(connection, day_of(attempt.issued), -attempt.reserved, between)
    return replace(attempt, reserved=0)


def end(connection: sqlite3.Connection, tables: Tables, job: Job) -> None:
    """A job has ended: who paid for it, and whose workers had it, have it under way no more."""
    tables.accounts.end(connection, job.payer)
    for number in range(1, job.attempt + 1):
        attempt = tables.live.attempt(connection, job.handle, number)
        if attempt is not None:
            tables.accounts.end(connection, attempt.owner)


def settlement_of(connection: sqlite3.Connection, tables: Tables, job: Job) -> bytes:
    """By the key that serves, or by one that served before: the ledger was restored since, or the settlement
    entered again."""
    identity = job_identity(job.handle, job.settled)
    for key in tables.keys:
        if found := papers.find_by_identity(connection, key, Settlement.KIND, identity):
            return found
    return b""


def take_answer(
    connection: sqlite3.Connection,
    tables: Tables,
    envelope: Envelope,
    said: Acknowledgement | Denial,
    receipt: tuple[Envelope, Receipt] | None,
    sender: bytes,
) -> tuple[Job, Attempt]:
    """Keep what the job key says of an attempt, with the receipt in it, once it is clear that they belong to it."""
    job, attempt = job_and_attempt(connection, tables, said.job, said.attempt)
    if sender != job.signer:
        raise WrongSigner(f"a {envelope.kind} in the session of another key than the one that asked")
    if envelope.key != job.job_key:
        raise WrongSigner(f"a {envelope.kind} by another key than the request's job key")
    identity = job_identity(said.job, said.attempt)
    papers.take(connection, envelope, identity)
    if receipt is not None:
        if (receipt[1].job, receipt[1].attempt) != (said.job, said.attempt):
            raise ReceiptMismatch(f"the receipt in this {envelope.kind} is of another job or attempt")
        if receipt[0].key != attempt.worker:
            raise WrongSigner("the receipt is by another worker than the one that the lease names")
        if receipt[0].digest != attempt.receipt:  # else it is kept already
            papers.take(connection, receipt[0], identity)
    return job, attempt


def received(envelope: Envelope, receipt: Receipt) -> Received:
    """The event that a receipt is."""
    return Received(envelope.digest, receipt.used, receipt.context_used, receipt.partial)


def job_of(connection: sqlite3.Connection, tables: Tables, handle: bytes) -> Job:
    """The job with this handle; raises `UnknownJob`."""
    job = tables.live.job(connection, handle)
    if job is None:
        raise UnknownJob("there is no such job at this horde")
    return job


def job_and_attempt(connection: sqlite3.Connection, tables: Tables, handle: bytes, number: int) -> tuple[Job, Attempt]:
    """The job, and one attempt of it; raises `UnknownJob`."""
    job = job_of(connection, tables, handle)
    attempt = tables.live.attempt(connection, handle, number)
    if attempt is None:
        raise UnknownJob(f"this job has no attempt {number}")
    return job, attempt
