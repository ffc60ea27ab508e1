"""What a worker has taken on, and what is to be done next: no socket, engine or disk in it.

Leases, openings, the engines' outcomes and the tracker's words go in; effects come out, which `peer.worker` carries
out in their order.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from peer.engines.fits import over
from peer.limits import UNLIMITED, Limits
from peer.opening import Opened
from peer.spool import Attempt
from protocol.documents import Lease, Receipt, open_document
from protocol.envelope import Envelope
from protocol.errors import (
    BadBody,
    Busy,
    ContentRefused,
    NotOffered,
    OverLimit,
    PrefixUnsupported,
    PrivatePartMissing,
    Refusal,
    StreamGone,
    TooLate,
    WrongLease,
)
from protocol.messages import UNWANTED_WORDS, Held, Offer, Progress, Refused, Withdrawn
from protocol.work import ImageWork, PrivatePart, kind_of, open_private


class State(enum.Enum):
    """How far one attempt has come at this worker."""

    ACCEPTED = "accepted"
    OPENED = "opened"
    RUNNING = "running"
    STOPPING = "stopping"
    FINISHED = "finished"
    SETTLED = "settled"
    DROPPED = "dropped"


class Step(enum.Enum):
    """What can happen to an attempt."""

    OPEN = "the requester opened the stream"
    START = "an engine took it"
    FINISH = "the receipt is signed"
    FAIL = "the engine failed"
    CANCEL = "the requester wants it no more"
    SETTLE = "the tracker settled it"
    DROP = "the attempt is over otherwise"


#: Every move that is allowed. Settled and dropped attempts are forgotten, but for the reason.
MOVES: dict[State, dict[Step, State]] = {
    State.ACCEPTED: {
        Step.OPEN: State.OPENED,
        Step.CANCEL: State.DROPPED,
        Step.SETTLE: State.SETTLED,
        Step.DROP: State.DROPPED,
    },
    State.OPENED: {
        Step.START: State.RUNNING,
        Step.FAIL: State.DROPPED,
        Step.CANCEL: State.DROPPED,
        Step.SETTLE: State.SETTLED,
        Step.DROP: State.DROPPED,
    },
    State.RUNNING: {
        Step.FINISH: State.FINISHED,
        Step.FAIL: State.DROPPED,
        Step.CANCEL: State.STOPPING,
        Step.SETTLE: State.SETTLED,
        Step.DROP: State.DROPPED,
    },
    State.STOPPING: {
        Step.FINISH: State.FINISHED,
        Step.FAIL: State.DROPPED,
        Step.CANCEL: State.STOPPING,
        Step.SETTLE: State.SETTLED,
        Step.DROP: State.DROPPED,
    },
    State.FINISHED: {
        Step.CANCEL: State.FINISHED,
        Step.SETTLE: State.SETTLED,
        Step.DROP: State.DROPPED,
    },
    State.SETTLED: {},
    State.DROPPED: {},
}

#: What readers are told when the result of a settled attempt goes.
SETTLED = "settled"

Word = Literal["accepted", "declined", "opened", "failed"]

#: Live: it takes a slot, or a place ahead, and its deadline counts.
LIVE = frozenset({State.ACCEPTED, State.OPENED, State.RUNNING, State.STOPPING})


@dataclass(frozen=True)
class Tell:
    """The tracker is to know."""

    progress: Progress


@dataclass(frozen=True)
class Hand:
    """This receipt goes to the tracker; it is on disk."""

    receipt: Envelope


@dataclass(frozen=True)
class Prepare:
    """The stream was opened: readers may follow from now on."""

    attempt: Attempt


@dataclass(frozen=True)
class Start:
    """This engine makes this attempt now."""

    attempt: Attempt
    engine: int


@dataclass(frozen=True)
class Stop:
    """The engine that makes this attempt ends within a step, with what there is."""

    attempt: Attempt


@dataclass(frozen=True)
class Discard:
    """Nothing of this attempt is needed any more: end its engine, tell its readers why, delete its spool."""

    attempt: Attempt
    code: str
    text: str


Effect = Tell | Hand | Prepare | Start | Stop | Discard


@dataclass
class Job:
    """One attempt at this worker. progress: steps or tokens done. fenced: a newer lease replaced it, so that only a
    requester who already has the receipt can still bring it to a settlement."""

    envelope: Envelope
    lease: Lease
    state: State
    private: PrivatePart | None = None
    prefix: str = ""
    engine: int | None = None
    progress: int = 0
    receipt: Envelope | None = None
    taken: bool = False
    fenced: bool = False

    @property
    def attempt(self) -> Attempt:
        """What it is filed under."""
        return Attempt(self.lease.job, self.lease.attempt)


@dataclass(frozen=True)
class Gone:
    """Why an attempt ended, remembered as long as its lease could open it anew."""

    deadline: int
    code: str
    text: str

    def refusal(self) -> Refusal:
        """What somebody hears who opens it all the same."""
        if self.code == ContentRefused.code:
            return ContentRefused(self.text)
        return StreamGone(f"this attempt has ended here: {self.text}")


@dataclass
class Jobs:
    """All attempts of one worker.

    worker: its key. offers: of each engine; one engine makes one job at a time. ahead: leases taken beyond the slots.
    limits: what its owner serves, and whom.
    """

    worker: bytes
    offers: Sequence[Sequence[Offer]]
    ahead: int
    limits: Limits = UNLIMITED
    #: Of a private part and the text already shown: the category for which the horde does not make it, or nothing.
    refuses: Callable[[PrivatePart, str], str] = lambda private, prefix: ""
    #: The tracker's clock when it let us in last: what was leased before, and is not held, is over.
    welcomed: int = 0
    jobs: dict[Attempt, Job] = field(default_factory=dict)
    gone: dict[Attempt, Gone] = field(default_factory=dict)
    _busy: set[int] = field(default_factory=set)
    _listed: frozenset[Attempt] = frozenset()

    # What the tracker says

    def leased(self, envelope: Envelope, now: int) -> list[Effect]:
        """The tracker pushed a lease (its signature checked): accept or decline it at once. One that is held already
        is answered as it stands; one that ended here is not begun anew, for each attempt is made once."""
        lease = open_document(envelope, Lease)
        attempt = Attempt(lease.job, lease.attempt)
        job = self.jobs.get(attempt)
        if job is not None:
            return self._restate(job)
        if (gone := self.gone.get(attempt)) is not None:
            return [_tell(lease, "failed", "gone", gone.text)]
        refusal = self.why_not(lease, now)
        if refusal is not None:
            return [_tell(lease, "declined", refusal.code, refusal.text)]
        job = self.jobs[attempt] = Job(envelope, lease, State.ACCEPTED)
        return self._restate(job)

    def withdrawn(self, message: Withdrawn) -> list[Effect]:
        """The tracker took a lease back."""
        attempt = Attempt(message.job, message.attempt)
        job = self.jobs.get(attempt)
        if job is None:
            return []
        if message.reason != "cancelled":
            return self._drop(job, message.reason, message.text or f"the attempt is over: {message.reason}")
        job_was = job.state
        self._move(job, Step.CANCEL)
        if job.state is State.STOPPING:
            return [Stop(attempt)] if job_was is State.RUNNING else []
        if job.state is State.DROPPED:
            return self._forget(job, "cancelled", "cancelled before an engine began")
        return []

    def settled(self, attempt: Attempt) -> list[Effect]:
        """The tracker has settled this attempt: nobody needs its result from here any more."""
        job = self.jobs.get(attempt)
        if job is None:
            return []
        self._move(job, Step.SETTLE)
        return self._forget(job, SETTLED, "settled: the result is not kept any longer")

    def taken(self, documents: Iterable[bytes]) -> None:
        """The tracker has stored these documents."""
        digests = set(documents)
        for job in self.jobs.values():
            if job.receipt is not None and job.receipt.digest in digests:
                job.taken = True

    def refused(self, message: Refused) -> list[Effect]:
        """The tracker refused something; if that is a receipt, the attempt is over here. After `fenced` the requester
        may still bring it to a settlement, so that it is kept until its deadline."""
        for job in list(self.jobs.values()):
            if job.receipt is None or job.receipt.digest != message.about:
                continue
            if message.code == "fenced":
                job.fenced = True
                return []
            if message.code not in ("busy", "stopping", "internal", "too_slow"):
                return self._drop(job, message.code, message.text)
        return []

    # A new connection

    def holding(self) -> list[Held]:
        """What is under way, for the tracker to compare: each attempt once, by its receipt as soon as there is one. The
        lease of a result that is whole may have ended at the tracker without that being a reason to drop it."""
        self._listed = frozenset(job.attempt for job in self.jobs.values() if job.state in LIVE)
        return [
            _held(job, "lease", job.envelope) if job.receipt is None else _held(job, "receipt", job.receipt)
            for job in self.jobs.values()
        ]

    def reconciled(self, theirs: Iterable[Held]) -> list[Effect]:
        """Both sides have said what they hold: drop the leases that the tracker ended, say the state of the others,
        hand over the receipts that it lacks."""
        known = {(held.kind, Attempt(held.job, held.attempt)) for held in theirs}
        effects: list[Effect] = []
        for job in list(self.jobs.values()):
            if job.state is State.FINISHED and job.receipt is not None:
                job.taken = ("receipt", job.attempt) in known
                if not job.taken:
                    effects.append(Hand(job.receipt))
            elif job.attempt in self._listed and ("lease", job.attempt) not in known:
                effects += self._drop(job, "ended", "the tracker ended this attempt while the connection was lost")
            else:
                effects += self._restate(job)
        return effects

    # The requester

    def opened(self, opened: Opened, now: int) -> list[Effect]:
        """A checked opening came. The first one hands over the private part; one for a lease that has not come yet
        is taken for it. Raises a `Refusal` for an opening that cannot be served."""
        job = self.jobs.get(opened.attempt)
        if job is None:
            job = self._take_from_opening(opened, now)
        if job.state is not State.ACCEPTED:
            return []
        if job.lease.deadline <= now:
            raise WrongLease(f"the lease ended at {job.lease.deadline}, and it is {now}: wait for the next one")
        if not opened.private:
            raise PrivatePartMissing("the stream has not been opened before: the private part has to come with this")
        private = open_private(opened.private, job.lease.private_digest, job.lease.public.work)
        if opened.prefix and not any(
            offer.continues for offers in self.offers for offer in _fitting(job.lease, offers)
        ):
            raise PrefixUnsupported(f"{job.lease.model!r} cannot continue a given text here: open without a prefix")
        if category := self.refuses(private, opened.prefix):
            text = f"{category}: the prompt filter of this horde finds what may not be made, in what is asked for"
            return self._decline(job, ContentRefused.code, f"{text} together with the text already shown")
        if not job.lease.asker.own and self.limits.has_unwanted_words(private, opened.prefix):
            text = "this worker's owner does not serve what is asked for: another one is looked for"
            return self._decline(job, UNWANTED_WORDS, text)
        job.private, job.prefix = private, opened.prefix
        self._move(job, Step.OPEN)
        self.jobs[opened.attempt] = job
        return [Prepare(job.attempt), *self._restate(job), *self._fill()]

    def _decline(self, job: Job, code: str, text: str) -> list[Effect]:
        """Now that it is seen what is asked for. Who declines without having accepted counts as one who picks: what was
        taken from an opening, before its lease came, is accepted first."""
        effects = [] if job.attempt in self.jobs else self._restate(job)
        self.jobs[job.attempt] = job
        return [*effects, _tell(job.lease, "declined", code, text), *self._drop(job, code, text)]

    def _take_from_opening(self, opened: Opened, now: int) -> Job:
        if (gone := self.gone.get(opened.attempt)) is not None:
            raise gone.refusal()
        if opened.lease.issued < self.welcomed:
            raise StreamGone("this worker does not hold this attempt any more: wait for the next one")
        refusal = self.why_not(opened.lease, now)
        if refusal is not None:
            raise refusal
        return Job(opened.envelope, opened.lease, State.ACCEPTED)

    # The engines

    def reoffered(self, engine: int, offers: Sequence[Offer], text: str) -> list[Effect]:
        """An engine serves something else from now on, or nothing. What waits for an engine and fits none any more goes
        back at once: another worker may make it. text: why."""
        self.offers = [*self.offers[:engine], offers, *self.offers[engine + 1 :]]
        effects: list[Effect] = []
        for job in list(self.jobs.values()):
            waits = job.state in (State.ACCEPTED, State.OPENED)
            if waits and not any(_fitting(job.lease, offers) for offers in self.offers):
                effects.append(_tell(job.lease, "failed", "unavailable", text))
                effects += self._drop(job, "unavailable", text)
        return effects + self._fill()

    @property
    def slots(self) -> int:
        """Engines that serve something now: so many jobs are made at once."""
        return sum(1 for offers in self.offers if offers)

    def progressed(self, attempt: Attempt, done: int) -> None:
        """Steps or tokens done."""
        if (job := self.jobs.get(attempt)) is not None:
            job.progress = done

    def finished(self, attempt: Attempt, receipt: Envelope) -> list[Effect]:
        """The result is whole, and the receipt is on disk."""
        job = self.jobs.get(attempt)
        if job is None:
            return []
        self._move(job, Step.FINISH)
        job.receipt = receipt
        job.private = None
        return [Hand(receipt)]

    def failed(self, attempt: Attempt, code: str, text: str) -> list[Effect]:
        """The engine could not make it."""
        job = self.jobs.get(attempt)
        if job is None:
            return []
        self._move(job, Step.FAIL)
        return [_tell(job.lease, "failed", code, text), *self._forget(job, code, text)]

    def engine_free(self, engine: int) -> list[Effect]:
        """The engine has ended what it did, however that came out."""
        self._busy.discard(engine)
        return self._fill()

    # Time, and a new start

    def tick(self, now: int) -> list[Effect]:
        """Give up what is past its deadline, and forget why older attempts ended."""
        for attempt in [attempt for attempt, gone in self.gone.items() if gone.deadline <= now]:
            del self.gone[attempt]
        effects: list[Effect] = []
        for job in list(self.jobs.values()):
            if job.lease.deadline <= now and (job.state in LIVE or job.fenced):
                effects += self._drop(job, "deadline", "the lease ended before the result was whole")
        return effects

    def restored(self, lease: Envelope, receipt: Envelope) -> None:
        """A whole result that an earlier run of the program left, not settled as far as is known."""
        body = open_document(lease, Lease)
        job = Job(lease, body, State.FINISHED, receipt=receipt, progress=open_document(receipt, Receipt).used)
        self.jobs[job.attempt] = job

    # Decisions

    def why_not(self, lease: Lease, now: int) -> Refusal | None:
        """The first reason not to take this lease, or none."""
        if lease.worker != self.worker:
            return WrongLease("this lease is for another worker")
        if lease.public.n != 1 or lease.model not in lease.public.models:
            return BadBody("a lease is for one job and names its model among those asked for")
        if lease.deadline <= now:
            return TooLate(f"the lease ended at {lease.deadline}, and it is {now}: check this machine's clock")
        if unwanted := self.limits.why_not(lease):
            return NotOffered(unwanted)
        if refusal := self._why_not_work(lease):
            return refusal
        live = sum(job.state in LIVE for job in self.jobs.values())
        most = self.slots + self.ahead
        return Busy(f"{live} jobs are under way, and this worker takes {most} at once") if live >= most else None

    def _why_not_work(self, lease: Lease) -> Refusal | None:
        work, kind = lease.public.work, kind_of(lease.public.work)
        named = kind, lease.model
        mine = [one for all in self.offers for one in self.limits.narrowed(all) if (one.kind, one.model) == named]
        if not mine:
            return NotOffered(f"this worker does not serve {kind} {lease.model!r}")
        if lease.public.share or (isinstance(work, ImageWork) and work.extras):
            return NotOffered("this worker neither shares results nor makes extras")
        if not any(_fitting(lease, self.limits.narrowed(offers)) for offers in self.offers):
            return OverLimit(f"larger than what this worker takes of {lease.model!r}")
        return None

    def _fill(self) -> list[Effect]:
        """Give each free engine the first opened job that it can make: of its own account, of a friend, of others."""
        effects: list[Effect] = []
        opened = [job for job in self.jobs.values() if job.state is State.OPENED]
        for job in sorted(opened, key=self._turn):
            engine = self._free_engine(job)
            if engine is not None:
                self._move(job, Step.START)
                job.engine = engine
                self._busy.add(engine)
                effects.append(Start(job.attempt, engine))
        return effects

    def _turn(self, job: Job) -> int:
        asker = job.lease.asker
        return 0 if asker.own else 1 if self.limits.is_friend(asker) else 2

    def _free_engine(self, job: Job) -> int | None:
        for engine, offers in enumerate(self.offers):
            fitting = _fitting(job.lease, offers)
            if engine not in self._busy and any(offer.continues or not job.prefix for offer in fitting):
                return engine
        return None

    def _restate(self, job: Job) -> list[Effect]:
        """Say to the tracker how a live attempt stands."""
        if job.state not in LIVE:
            return []
        return [_tell(job.lease, "accepted" if job.state is State.ACCEPTED else "opened")]

    def _drop(self, job: Job, code: str, text: str) -> list[Effect]:
        self._move(job, Step.DROP)
        return self._forget(job, code, text)

    def _forget(self, job: Job, code: str, text: str) -> list[Effect]:
        """Its engine, if it had one, counts as busy until `engine_free`."""
        del self.jobs[job.attempt]
        self.gone[job.attempt] = Gone(job.lease.deadline, code, text)
        return [Discard(job.attempt, code, text)]

    def _move(self, job: Job, step: Step) -> None:
        following = MOVES[job.state].get(step)
        if following is None:
            raise RuntimeError(f"{step.value}, of an attempt that is {job.state.value}")
        job.state = following


def _fitting(lease: Lease, offers: Sequence[Offer]) -> list[Offer]:
    work, kind = lease.public.work, kind_of(lease.public.work)
    return [offer for offer in offers if (offer.kind, offer.model) == (kind, lease.model) and not over(work, offer)]


def _tell(lease: Lease, state: Word, reason: str = "", text: str = "") -> Tell:
    return Tell(Progress(job=lease.job, attempt=lease.attempt, state=state, reason=reason, text=text))


def _held(job: Job, kind: str, document: Envelope) -> Held:
    return Held(kind=kind, job=job.lease.job, attempt=job.lease.attempt, digest=document.digest, progress=job.progress)
