"""A job's life: every event that can befall it, and what follows (the table of docs/protocol.md, "A job's life").

`decide` is a pure function of a job, the attempt that the event speaks of, the event, the rules and the time. It
returns what becomes of the job and what is to be done, or raises the refusal that its sender gets, in which case
nothing changes. Whoever calls it reads the job and writes the outcome in one transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from protocol import messages
from protocol.errors import ContentRefused, Fenced, OutOfTurn, OverLease, TooLate
from protocol.messages import Progress
from protocol.prices import used_price
from protocol.rules import Rules
from protocol.work import ImageWork, PublicPart, Work
from tracker.values import replace


class State(StrEnum):
    """Where a job stands. Everything after `DELIVERED` is final."""

    WAITING = "waiting"
    LEASED = "leased"
    DELIVERED = "delivered"
    SETTLED = "settled"
    REFUNDED = "refunded"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    FAILED = "failed"


LIVE = frozenset({State.WAITING, State.LEASED, State.DELIVERED})


class Stage(StrEnum):
    """How far a lease has come; `ENDED` when its job has gone on without it."""

    PUSHED = "pushed"
    ACCEPTED = "accepted"
    OPENED = "opened"
    ENDED = "ended"


@dataclass(frozen=True)
class Facts:
    """What workers may go by, as it stood when a request was taken in. labels: topics that the prompt filter found.
    service: the name of a service, empty for all others. give_back: the class of who asks (`Asker`)."""

    labels: tuple[str, ...] = ()
    service: str = ""
    give_back: int = 0


NO_FACTS = Facts()


@dataclass(frozen=True)
class Job:
    """One result that somebody asked for.

    carried: the kudos behind it did not cover its price when it was admitted, so that others carry part of it.
    delegation: digest of the one by which its requester asked for the payer, if it did. user: a service's pseudonym of
    its user.
    """

    handle: bytes
    request: bytes
    number: int
    public: PublicPart
    private_digest: bytes
    job_key: bytes
    signer: bytes
    payer: int
    origin: str
    state: State
    attempt: int
    failed: int
    held: int
    score: int
    anonymous: bool
    admitted: int
    changed: int
    waited: int = 0
    cancelled: int = 0
    excluded: frozenset[bytes] = frozenset()
    settled: int = 0
    reason: str = ""
    carried: bool = False
    delegation: bytes = b""
    user: bytes = b""
    facts: Facts = NO_FACTS

    @property
    def work(self) -> Work:
        """What is to be made."""
        return self.public.work


@dataclass(frozen=True)
class Attempt:
    """One lease of a job to one worker, with the terms that the lease fixed."""

    attempt: int
    worker: bytes
    owner: int
    model: str
    lease: bytes
    stage: Stage
    issued: int
    deadline: int
    rules: int
    price: int
    paid: int
    free: int
    uncovered: int
    tax: int
    reserved: int
    receipt: bytes = b""


# Events. Those with an attempt speak of that one; the others of the job as it stands.


@dataclass(frozen=True)
class Accepted:
    """The worker took the lease."""


@dataclass(frozen=True)
class Declined:
    """The worker does not take the lease, with a reason. Once it has accepted, that is a failure; but for content that
    it may not make, which it sees only then."""

    reason: str


@dataclass(frozen=True)
class NotAccepted:
    """The worker did not answer the lease in time."""


@dataclass(frozen=True)
class Opened:
    """The requester opened the stream and handed over the private part."""


@dataclass(frozen=True)
class NotOpened:
    """The worker accepted and the requester did not come in time."""


@dataclass(frozen=True)
class WorkerFailed:
    """The worker's engine failed, or the worker is gone (`gone`)."""

    reason: str


@dataclass(frozen=True)
class Overdue:
    """The deadline has passed."""


@dataclass(frozen=True)
class CannotReach:
    """The requester cannot reach the worker."""

    reason: str


@dataclass(frozen=True)
class Received:
    """The worker's receipt: digest of the document, steps or tokens used, whether it stopped early."""

    digest: bytes
    used: int
    context_used: int
    partial: bool


@dataclass(frozen=True)
class Acknowledged:
    """The requester got what the receipt says. digest: of the acknowledgement."""

    digest: bytes
    receipt: Received


@dataclass(frozen=True)
class Denied:
    """The requester did not get it, or got something else."""

    digest: bytes
    reason: str


@dataclass(frozen=True)
class Silence:
    """The requester said nothing to a delivered result for the time that the rules give; receipt: what was made."""

    receipt: Received


@dataclass(frozen=True)
class Cancelled:
    """The requester wants it no more."""


@dataclass(frozen=True)
class CancelOver:
    """The time for a partial receipt after a cancel is over."""


@dataclass(frozen=True)
class Expired:
    """It waited for as long as the rules give."""


@dataclass(frozen=True)
class Barred:
    """Who asked may not ask any more."""


Loss = Declined | NotAccepted | NotOpened | WorkerFailed | Overdue | CannotReach
AttemptEvent = Accepted | Opened | Loss | Received | Acknowledged | Denied | Silence
Event = AttemptEvent | Cancelled | CancelOver | Expired | Barred


# What follows.


@dataclass(frozen=True)
class Payment:
    """What a settlement moves: paid and tax leave the hold, minted comes from the mint. uncovered: free work taken."""

    paid: int
    minted: int
    tax: int
    uncovered: int
    used: int
    partial: bool


@dataclass(frozen=True)
class Outcome:
    """What an event brought about.

    job, attempt: as they now stand (attempt None where the job has none). payment: to be settled for `attempt`.
    release: whether the rest of the hold goes back. withdraw: why the worker of the job's latest attempt has to stop,
    empty if it need not. requeued: why the attempt is over, for the requester. fault: whether that was the worker's.
    changed: False for a repetition that alters nothing.
    """

    job: Job
    attempt: Attempt | None
    payment: Payment | None = None
    release: bool = False
    withdraw: str = ""
    requeued: str = ""
    fault: bool = False
    changed: bool = True


def event_of(progress: Progress) -> Event:
    """What a worker's report says."""
    match progress.state:
        case "accepted":
            return Accepted()
        case "opened":
            return Opened()
        case "declined":
            return Declined(progress.reason or "declined")
        case "failed":
            return WorkerFailed(progress.reason or "failed")


def decide(job: Job, attempt: Attempt | None, event: Event, rules: Rules, now: int) -> Outcome:
    """What `event` makes of `job`; raises the refusal that its sender gets.

    `attempt` is the one that the event speaks of; for events of the job as a whole the latest one, None if it never
    had one.
    """
    match event:
        case Cancelled():
            return _cancel(job, attempt, now)
        case CancelOver():
            return _cancel_over(job, attempt, now)
        case Expired():
            return _expire(job, attempt, rules, now)
        case Barred():
            if job.state is not State.WAITING:
                return Outcome(job, attempt, changed=False)
            return _end(job, attempt, State.EXPIRED, "suspended", now)
        case _:
            if attempt is None:
                raise OutOfTurn("this job has not been leased to anybody")
            return _decide_attempt(job, attempt, event, rules, now)


def _decide_attempt(job: Job, attempt: Attempt, event: AttemptEvent, rules: Rules, now: int) -> Outcome:
    match event:
        case Received():
            return _receive(job, attempt, event, rules, now)
        case Acknowledged():
            return _acknowledge(job, attempt, event, rules, now)
        case Denied():
            return _deny(job, attempt, event, now)
        case Silence():
            if not _is_delivered(job, attempt) or now < job.changed + rules.times.silence * 1000:
                return Outcome(job, attempt, changed=False)
            return _settle(job, attempt, event.receipt, rules, now)
        case Accepted() | Opened():
            return _progress(job, attempt, event)
        case Declined() | NotAccepted() | NotOpened() | WorkerFailed() | Overdue() | CannotReach():
            return _lose(job, attempt, event, rules, now)


def _progress(job: Job, attempt: Attempt, event: Accepted | Opened) -> Outcome:
    """Signs of life of the current lease; of any other they mean nothing."""
    if not _is_current(job, attempt):
        return Outcome(job, attempt, changed=False)
    stage = Stage.OPENED if isinstance(event, Opened) or attempt.stage is Stage.OPENED else Stage.ACCEPTED
    return Outcome(job, replace(attempt, stage=stage), changed=stage is not attempt.stage)


def _lose(job: Job, attempt: Attempt, event: Loss, rules: Rules, now: int) -> Outcome:
    """The current lease ends without a result: the job waits again, or has been tried often enough."""
    if not _is_current(job, attempt) or not _is_due(attempt, event, now):
        return Outcome(job, attempt, changed=False)
    loss = _loss_of(attempt, event)
    attempt = replace(attempt, stage=Stage.ENDED)
    if job.cancelled:
        return _end(job, attempt, State.CANCELLED, "cancelled", now)
    failed = job.failed + loss.counted
    excluded = job.excluded | {attempt.worker} if loss.excluded else job.excluded
    job = replace(job, failed=failed, excluded=excluded)
    if failed >= rules.matching.failed_attempts:
        ended = _end(job, attempt, State.FAILED, loss.reason, now)
        return replace(ended, withdraw=loss.withdraw, fault=loss.fault)
    waiting = replace(job, state=State.WAITING, changed=now)
    return Outcome(waiting, attempt, withdraw=loss.withdraw, requeued=loss.reason, fault=loss.fault)


@dataclass(frozen=True)
class _Loss:
    """What a lost lease means. counted: towards the attempts that may fail; fault: of the worker; excluded: the
    worker does not get this job again; withdraw: what the worker is told."""

    reason: str
    withdraw: str
    counted: bool = True
    fault: bool = True
    excluded: bool = True


def _loss_of(attempt: Attempt, event: Loss) -> _Loss:
    match event:
        case Declined(ContentRefused.code as reason) if attempt.stage is not Stage.PUSHED:
            # Only who has seen the words can say so. It counts, so that such a job does not go round all workers.
            return _Loss(reason, "replaced", fault=False)
        case Declined(messages.UNWANTED_WORDS as reason) if attempt.stage is not Stage.OPENED:
            return _Loss(reason, "replaced", counted=False, fault=False)
        case Declined(reason) if attempt.stage is not Stage.PUSHED:
            return _Loss(reason, "replaced")
        case Declined(reason):
            return _Loss(reason, "replaced", counted=False, fault=False)
        case NotAccepted():
            return _Loss("not_accepted", "replaced", counted=False, fault=False)
        case NotOpened():
            return _Loss("not_opened", "not_opened", fault=False, excluded=False)
        case CannotReach():
            return _Loss("unreachable", "unreachable")
        case WorkerFailed(reason):
            return _Loss(reason, "replaced")
        case Overdue():
            return _Loss("deadline", "deadline")


def _receive(job: Job, attempt: Attempt, receipt: Received, rules: Rules, now: int) -> Outcome:
    if attempt.receipt == receipt.digest:
        return Outcome(job, attempt, changed=False)
    if job.state not in LIVE:
        raise TooLate(f"this job is {job.state} ({job.reason or 'ended'}): nothing is owed for a receipt any more")
    if attempt.attempt != job.attempt:
        raise Fenced(
            f"attempt {attempt.attempt} was replaced by {job.attempt}: its receipt counts only if acknowledged"
        )
    _check_receipt(job, attempt, receipt)
    attempt = replace(attempt, receipt=receipt.digest)
    if job.cancelled:
        return _settle(job, attempt, receipt, rules, now)
    if receipt.partial:
        raise OverLease("a partial receipt, and nobody has cancelled this job")
    waited = job.waited + (now - job.changed if job.state is State.WAITING else 0)
    job = replace(job, state=State.DELIVERED, changed=now, waited=waited)
    return Outcome(job, replace(attempt, stage=Stage.OPENED))


def _acknowledge(job: Job, attempt: Attempt, event: Acknowledged, rules: Rules, now: int) -> Outcome:
    if job.state is State.SETTLED and job.settled == attempt.attempt:
        return Outcome(job, attempt, changed=False)
    if job.state not in LIVE:
        raise TooLate(f"this job is {job.state} ({job.reason or 'ended'}): it cannot be acknowledged any more")
    if attempt.attempt != job.attempt and job.state is State.DELIVERED:
        raise Fenced(f"attempt {job.attempt} has delivered: attempt {attempt.attempt} cannot be acknowledged any more")
    _check_receipt(job, attempt, event.receipt)
    if event.receipt.partial and not job.cancelled:
        raise OverLease("the receipt is partial, and nobody has cancelled this job")
    return _settle(job, replace(attempt, receipt=event.receipt.digest), event.receipt, rules, now)


def _deny(job: Job, attempt: Attempt, event: Denied, now: int) -> Outcome:
    if job.state is State.REFUNDED and attempt.attempt == job.attempt:
        return Outcome(job, attempt, changed=False)
    if job.state not in LIVE:
        raise TooLate(f"this job is {job.state} ({job.reason or 'ended'}): it cannot be denied any more")
    if attempt.attempt != job.attempt or job.state is State.WAITING:
        raise Fenced(f"attempt {attempt.attempt} is over, and the job goes on without it: there is nothing to deny")
    attempt = replace(attempt, stage=Stage.ENDED)
    return replace(_end(job, attempt, State.REFUNDED, event.reason, now), withdraw="refunded", fault=True)


def _cancel(job: Job, attempt: Attempt | None, now: int) -> Outcome:
    match job.state:
        case State.WAITING:
            return _end(job, attempt, State.CANCELLED, "cancelled", now)
        case State.LEASED:
            if job.cancelled:
                return Outcome(job, attempt, changed=False)
            return Outcome(replace(job, cancelled=now), attempt, withdraw="cancelled")
        case _:  # a delivered result has been made, and an ended job has ended
            return Outcome(job, attempt, changed=False)


def _cancel_over(job: Job, attempt: Attempt | None, now: int) -> Outcome:
    if job.state is not State.LEASED or not job.cancelled or attempt is None:
        return Outcome(job, attempt, changed=False)
    attempt = replace(attempt, stage=Stage.ENDED)
    return replace(_end(job, attempt, State.CANCELLED, "cancelled", now), withdraw="ended")


def _expire(job: Job, attempt: Attempt | None, rules: Rules, now: int) -> Outcome:
    """Time to live counts only while the job waits."""
    if job.state is not State.WAITING or now < expires(job, rules):
        return Outcome(job, attempt, changed=False)
    return _end(job, attempt, State.EXPIRED, "expired", now)


def _end(job: Job, attempt: Attempt | None, state: State, reason: str, now: int) -> Outcome:
    """The job ends unpaid; its hold goes back."""
    return Outcome(replace(job, state=state, reason=reason, changed=now), attempt, release=True)


def _settle(job: Job, attempt: Attempt, receipt: Received, rules: Rules, now: int) -> Outcome:
    """The attempt is paid, by what it used; a newer lease ends without fault."""
    price = used_price(rules, job.work, attempt.model, receipt.used, attempt.price) if attempt.price else 0
    paid = min(attempt.paid, price)
    uncovered = min(attempt.uncovered, price - paid)
    minted = attempt.free * uncovered // attempt.uncovered if attempt.uncovered else 0
    payment = Payment(paid, minted, attempt.tax, uncovered, receipt.used, receipt.partial)
    withdraw = "settled" if job.state is State.LEASED and attempt.attempt != job.attempt else ""
    job = replace(job, state=State.SETTLED, reason="", changed=now, settled=attempt.attempt)
    return Outcome(job, replace(attempt, stage=Stage.ENDED), payment=payment, release=True, withdraw=withdraw)


def expires(job: Job, rules: Rules) -> int:
    """When a waiting job will have waited for as long as the rules give."""
    return job.changed - job.waited + rules.times.waiting * 1000


def _is_due(attempt: Attempt, event: Loss, now: int) -> bool:
    """Timers are hints: whether what they say is still so is judged here."""
    match event:
        case NotAccepted():
            return attempt.stage is Stage.PUSHED
        case NotOpened():
            return attempt.stage is Stage.ACCEPTED
        case Overdue():
            return now >= attempt.deadline
        case _:
            return True


def _is_current(job: Job, attempt: Attempt) -> bool:
    return job.state is State.LEASED and attempt.attempt == job.attempt


def _is_delivered(job: Job, attempt: Attempt) -> bool:
    return job.state is State.DELIVERED and attempt.attempt == job.attempt


def _most(work: Work) -> int:
    return work.steps if isinstance(work, ImageWork) else work.max_tokens


def _check_receipt(job: Job, attempt: Attempt, receipt: Received) -> None:
    """Refuse a receipt that claims more than its lease, or a second one that differs from the first."""
    if attempt.receipt and attempt.receipt != receipt.digest:
        raise OverLease(f"attempt {attempt.attempt} has another receipt already")
    most = _most(job.work)
    if receipt.used > most:
        raise OverLease(f"the receipt claims {receipt.used} steps or tokens: the lease allows {most}")
    if not isinstance(job.work, ImageWork) and receipt.context_used > job.work.context_tokens:
        raise OverLease(
            f"the receipt claims {receipt.context_used} of context: the lease allows {job.work.context_tokens}"
        )
