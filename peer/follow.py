"""One job as its requester sees it, with no socket, key, clock or file in it.

What the tracker, the worker's stream and the user say goes in; effects come out. The text that was shown is carried
from one attempt to the next, so that what was shown is what is acknowledged.
"""

from __future__ import annotations

import enum
import random
from dataclasses import dataclass

from peer import events
from peer.assembly import Assembly, Complete, Misbehaved
from peer.paths.choice import Path
from protocol import frames, messages
from protocol.documents import Lease, Settlement
from protocol.envelope import Envelope
from protocol.errors import UnknownJob
from protocol.keys import show_key
from protocol.work import ImageWork, PublicPart

#: Openings in a row that bring nothing new, before the worker counts as unreachable; and the same before it answered
#: for the first time, which has to be found out within the tracker's time for opening.
MAX_TRIES = 5
MAX_FIRST_TRIES = 2
#: Before the worker has answered for the first time it is tried again only if the first try failed as soon as that: one
#: that went over all paths took most of the time that the tracker has for it.
SOON_MS = 1_000
FIRST_DELAY_MS = 250
MAX_DELAY_MS = 4_000

#: So long the tracker may take to answer that a worker failed or cannot be reached. It takes the job back at once,
#: unless the worker has delivered a receipt: then only a denial keeps silence from paying for what never came.
PATIENCE_MS = 5_000

#: What stays the same however often one asks. TLS keeps the bytes whole, so a malformed stream is the worker's own.
LASTING = frozenset(
    {"stream_gone", "wrong_lease", "fenced", "wrong_signer", "wrong_horde", "private_part_mismatch", "malformed"}
)


class State(enum.Enum):
    """How far the job has come."""

    WAITING = "waiting"
    READING = "reading"
    GIVEN_UP = "given_up"
    ACKNOWLEDGED = "acknowledged"
    DENIED = "denied"
    ENDED = "ended"


# What goes in


@dataclass(frozen=True)
class LeaseCame:
    """A worker has the job. envelope: of the lease."""

    lease: Lease
    envelope: Envelope


@dataclass(frozen=True)
class SettlementCame:
    """The tracker says what was paid. envelope: of the settlement."""

    settlement: Settlement
    envelope: Envelope


@dataclass(frozen=True)
class StatementRefused:
    """The tracker refused our acknowledgement or denial."""

    code: str
    text: str


@dataclass(frozen=True)
class Opened:
    """The worker answered an opening, over this path, and has the private part. reason: why this path."""

    attempt: int
    path: Path
    reason: str


@dataclass(frozen=True)
class FrameCame:
    """A frame of the worker's stream."""

    attempt: int
    frame: frames.Frame


@dataclass(frozen=True)
class StreamEnded:
    """The stream broke off, or could not be opened. reason: a code."""

    attempt: int
    reason: str
    text: str


@dataclass(frozen=True)
class PatienceOver:
    """The tracker had its time to answer. given_up: the how-manieth time it was that we gave a worker up."""

    given_up: int


Said = messages.Position | messages.Requeued | messages.Ended
Input = LeaseCame | SettlementCame | StatementRefused | Said | Opened | FrameCame | StreamEnded | PatienceOver


# What comes out


@dataclass(frozen=True)
class Open:
    """Open the stream of this attempt after a delay, from the frame behind number `after` on. private: hand over the
    private part and `prefix`, the text shown so far."""

    lease: Lease
    envelope: Envelope
    after: int
    private: bool
    prefix: str
    delay_ms: int = 0


@dataclass(frozen=True)
class Close:
    """Read the present stream no longer."""


@dataclass(frozen=True)
class Emit:
    """Tell the user."""

    event: events.Event


@dataclass(frozen=True)
class Acknowledge:
    """Sign, store and send that all came. lease: envelope of the attempt's lease."""

    attempt: int
    complete: Complete
    lease: bytes


@dataclass(frozen=True)
class Deny:
    """Sign, store and send that it did not come, or something else. receipt: envelope, if a true one came."""

    attempt: int
    reason: str
    receipt: bytes


@dataclass(frozen=True)
class TellUnreachable:
    """Tell the tracker that this attempt's worker cannot be reached."""

    attempt: int
    reason: str
    text: str


@dataclass(frozen=True)
class Wait:
    """Tell us (`PatienceOver`) when there has been a connection to the tracker for so long."""

    given_up: int
    delay_ms: int = PATIENCE_MS


@dataclass(frozen=True)
class End:
    """Nothing more comes of this job. error: why there is no result, None if there is one."""

    error: events.PotluckError | None


Effect = Open | Close | Emit | Acknowledge | Deny | TellUnreachable | Wait | End

#: Every move that is allowed. Inputs that are missing for a state change nothing there: messages cross each other on
#: their ways, and after a reconnect the tracker repeats what it said.
MOVES: dict[State, dict[type[Input], frozenset[State]]] = {
    State.WAITING: {
        messages.Position: frozenset({State.WAITING}),
        LeaseCame: frozenset({State.READING, State.ENDED}),
        messages.Ended: frozenset({State.ENDED}),
        SettlementCame: frozenset({State.ENDED}),
    },
    State.READING: {
        LeaseCame: frozenset({State.READING, State.ENDED}),
        messages.Requeued: frozenset({State.READING}),
        Opened: frozenset({State.READING}),
        FrameCame: frozenset({State.READING, State.ACKNOWLEDGED, State.DENIED, State.GIVEN_UP, State.WAITING}),
        StreamEnded: frozenset({State.READING, State.GIVEN_UP, State.WAITING}),
        messages.Ended: frozenset({State.ENDED}),
        SettlementCame: frozenset({State.ENDED}),
    },
    State.GIVEN_UP: {
        # Also the same lease again: after a reconnect the tracker repeats it if it has not heard that we gave up.
        LeaseCame: frozenset({State.GIVEN_UP, State.READING, State.ENDED}),
        messages.Requeued: frozenset({State.WAITING, State.GIVEN_UP}),
        PatienceOver: frozenset({State.GIVEN_UP, State.DENIED}),
        messages.Ended: frozenset({State.ENDED}),
        SettlementCame: frozenset({State.ENDED}),
    },
    State.ACKNOWLEDGED: {
        StatementRefused: frozenset({State.ENDED}),
        messages.Ended: frozenset({State.ENDED}),
        SettlementCame: frozenset({State.ENDED}),
    },
    State.DENIED: {
        StatementRefused: frozenset({State.ENDED}),
        messages.Ended: frozenset({State.ENDED}),
        SettlementCame: frozenset({State.ENDED}),
    },
    State.ENDED: {},
}


@dataclass(frozen=True)
class Asked:
    """What this job was asked as. index: which of the request's jobs. seed: of this very job."""

    public: PublicPart
    private_digest: bytes
    job_key: bytes
    index: int
    seed: int


@dataclass
class _Attempt:
    """The attempt that is being read. known: the worker has the private part. prefix: the text that it was to go on
    from. over: the tracker has taken it back; tries: openings since something new came; since: when the lease came."""

    lease: Lease
    envelope: Envelope
    assembly: Assembly
    prefix: str
    since: int
    known: bool = False
    over: bool = False
    tries: int = 0
    done: int = -1


class Follow:
    """One job, from its place in the queue to its settlement."""

    def __init__(self, asked: Asked, root: bytes, random: random.Random) -> None:
        self.state = State.WAITING
        self.cancelled = False
        self._asked = asked
        self._root = root
        self._random = random
        self._attempt: _Attempt | None = None
        self._shown: list[str] = []
        self._denied = ""
        self._given_up = 0
        self._trouble = ("failed", "")

    @property
    def attempt(self) -> int:
        """The newest attempt heard of, 0 if there was none."""
        return self._attempt.lease.attempt if self._attempt else 0

    def cancel(self) -> None:
        """The user wants it no more: from now on a partial result is what is expected."""
        self.cancelled = True

    def receive(self, said: Input, now: int) -> list[Effect]:
        """What one input leads to, in order; `now` is the tracker's time."""
        if type(said) not in MOVES[self.state]:
            return []
        match said:
            case messages.Position():
                return [Emit(events.Position(self._asked.index, said.ahead, said.workers, said.wait))]
            case messages.Requeued():
                return self._requeued(said)
            case messages.Ended():
                return self._ended(said)
            case LeaseCame():
                return self._lease_came(said, now)
            case SettlementCame():
                return self._settled(said)
            case StatementRefused():
                return self._statement_refused(said)
            case PatienceOver():
                return self._patience_over(said)
            case Opened() | FrameCame() | StreamEnded():
                if said.attempt != self.attempt:
                    return []
                return self._stream(said, now)

    def _move(self, to: State, said: Input) -> None:
        assert to in MOVES[self.state][type(said)], f"{self.state} to {to} by {type(said).__name__}"  # noqa: S101
        self.state = to

    # The tracker

    def _lease_came(self, said: LeaseCame, now: int) -> list[Effect]:
        if said.lease.attempt < self.attempt:
            return []
        if (mismatch := _mismatch(said.lease, self._asked)) is not None:
            self._move(State.ENDED, said)
            return [Close(), End(events.Refused("wrong_lease", f"the tracker leased something else: {mismatch}"))]
        if self._attempt is not None and said.lease.attempt == self.attempt:
            return self._lease_again(self._attempt, said, now)
        before = [Close()] if self.state is State.READING else []
        self._move(State.READING, said)
        prefix = "".join(self._shown)
        assembly = Assembly(said.lease, self._root, prefix)
        self._attempt = _Attempt(said.lease, said.envelope, assembly, prefix, since=now)
        lease = said.lease
        leased = events.Leased(self._asked.index, lease.worker, lease.model, lease.attempt, lease.price, lease.paid)
        return [*before, Emit(leased), self._open(self._attempt)]

    def _lease_again(self, attempt: _Attempt, said: LeaseCame, now: int) -> list[Effect]:
        if self.state is State.READING:
            attempt.over = False
            return []
        # Also one that was taken back: a receipt that came before the next lease has made it count again.
        self._move(State.READING, said)
        attempt.tries, attempt.over, attempt.since = 0, False, now
        return [self._open(attempt)]

    def _requeued(self, said: messages.Requeued) -> list[Effect]:
        if self._attempt is None or said.attempt < self.attempt:
            return []
        # As long as the stream flows it is read on: a receipt that comes before the next lease still counts.
        self._attempt.over = True
        if self.state is State.GIVEN_UP:
            self._move(State.WAITING, said)
        text = said.text or self._workers_words(said.reason)
        return [Emit(events.Requeued(self._asked.index, said.attempt, said.reason, text))]

    def _ended(self, said: messages.Ended) -> list[Effect]:
        self._move(State.ENDED, said)
        kinds: dict[str, type[events.JobError]] = {
            "refunded": events.Denied if self._denied else events.JobFailed,
            "cancelled": events.JobCancelled,
            "expired": events.JobExpired,
            "failed": events.JobFailed,
        }
        ended = f"the job has ended: {said.state} ({said.reason or 'no reason given'})"
        text = self._denied or said.text or self._workers_words(said.reason) or ended
        reason = said.reason or said.state
        return [Close(), End(kinds[said.state](reason, text, self._asked.index, said.released))]

    def _workers_words(self, reason: str) -> str:
        """What the worker itself said of this reason, or what we tried to reach it, in a sentence; the tracker passes
        on codes only."""
        code, text = self._trouble
        return text if reason in (code, "unreachable") else ""

    def _settled(self, said: SettlementCame) -> list[Effect]:
        acknowledged = self.state is State.ACKNOWLEDGED
        self._move(State.ENDED, said)
        settlement = said.settlement
        settled = events.Settled(
            self._asked.index,
            settlement.attempt,
            settlement.paid,
            settlement.minted,
            settlement.burned,
            settlement.partial,
            settlement.entry,
            said.envelope.digest,
        )
        if acknowledged:
            return [Emit(settled), End(None)]
        text = self._denied or "the tracker settled the job before its result had come whole"
        return [Close(), Emit(settled), End(events.JobFailed("not_received", text, self._asked.index))]

    def _statement_refused(self, said: StatementRefused) -> list[Effect]:
        self._move(State.ENDED, said)
        if self._denied:
            return [End(events.Denied(said.code, f"{self._denied}; and the denial was refused: {said.text}"))]
        if said.code == UnknownJob.code:
            return [End(None)]  # restored from a copy, the horde has lost the job; its result has come all the same
        return [End(events.Refused(said.code, said.text))]

    def _patience_over(self, said: PatienceOver) -> list[Effect]:
        if said.given_up != self._given_up:
            return []
        self._move(State.DENIED, said)
        reason, text = self._trouble
        self._denied = f"the worker says that it is done, and its result could not be read: {text or reason}"
        return [Deny(self.attempt, reason, b"")]

    # The worker's stream

    def _stream(self, said: Opened | FrameCame | StreamEnded, now: int) -> list[Effect]:
        attempt = self._attempt
        assert attempt is not None  # noqa: S101 (its number is that of the input)
        match said:
            case Opened(path=path, reason=reason):
                attempt.known = True
                return [Emit(events.Path(self._asked.index, path.word, reason))]
            case FrameCame(frame=frames.Failed(code=code, text=text)):
                return self._worker_failed(attempt, said, code, text)
            case FrameCame():
                return self._frame(attempt, said, now)
            case StreamEnded():
                return self._cut(attempt, said, said.reason, said.text, now)

    def _frame(self, attempt: _Attempt, said: FrameCame, now: int) -> list[Effect]:
        frame, index = said.frame, self._asked.index
        if isinstance(frame, frames.Progressed):
            if frame.done > attempt.done:
                attempt.done, attempt.tries = frame.done, 0
            return [Emit(events.Progress(index, frame.done, frame.total))]
        try:
            complete = attempt.assembly.take(frame)
        except Misbehaved as error:
            return [Close(), *self._cut(attempt, said, "malformed", str(error), now)]
        if isinstance(frame, frames.Preview):
            return [Emit(events.Preview(index, frame.jpeg))]
        if not isinstance(frame, frames.Alive):
            attempt.tries = 0
        if isinstance(frame, frames.Text):
            self._shown.append(frame.text)
            return [Emit(events.TextPiece(index, frame.text))]
        return self._complete(attempt, said, complete) if complete is not None else []

    def _complete(self, attempt: _Attempt, said: FrameCame, complete: Complete) -> list[Effect]:
        number = attempt.lease.attempt
        if (fault := complete.fault(attempt.lease, self._root, cancelled=self.cancelled)) is not None:
            self._move(State.DENIED, said)
            self._denied = fault.text
            return [Close(), Deny(number, fault.reason, complete.receipt if fault.keeps_receipt else b"")]
        self._move(State.ACKNOWLEDGED, said)
        pictures = [
            Emit(events.Picture(self._asked.index, content, media_type, self._asked.seed))
            for media_type, content in complete.files
        ]
        receipt = complete.opened
        received = events.Received(
            self._asked.index,
            number,
            complete.finish,
            receipt.engine,
            receipt.used,
            complete.artifacts,
            receipt.output_digest,
            complete.output_digest,
            receipt.context_used,
        )
        return [Close(), *pictures, Acknowledge(number, complete, attempt.envelope.raw), Emit(received)]

    def _worker_failed(self, attempt: _Attempt, said: Input, code: str, text: str) -> list[Effect]:
        if code == "prefix_unsupported" and attempt.prefix and not attempt.assembly.begun:
            return [Close(), *self._restart(attempt, text)]
        self._trouble = (code[:40], text)
        if attempt.over:
            self._move(State.WAITING, said)
            return [Close()]
        # The worker tells the tracker the same, which then looks for another one.
        return [Close(), self._give_up(said, code or "failed", text)]

    def _cut(self, attempt: _Attempt, said: Input, reason: str, text: str, now: int) -> list[Effect]:
        if attempt.over:
            self._move(State.WAITING, said)
            return []
        if reason == "prefix_unsupported" and attempt.prefix and not attempt.assembly.begun:
            return self._restart(attempt, text)
        if reason == "private_part_missing":
            attempt.known = False
        attempt.tries += 1
        first = MAX_FIRST_TRIES if now - attempt.since < SOON_MS else 1
        most = MAX_TRIES if attempt.known else first
        if attempt.tries < most and reason not in LASTING and now < attempt.lease.deadline:
            return [self._open(attempt, self._delay(attempt.tries))]
        wait = self._give_up(said, reason, text)
        return [TellUnreachable(attempt.lease.attempt, reason[:40], text[:2000]), wait]

    def _give_up(self, said: Input, reason: str, text: str) -> Wait:
        self._move(State.GIVEN_UP, said)
        self._given_up += 1
        self._trouble = (reason[:40], text)
        return Wait(self._given_up)

    def _restart(self, attempt: _Attempt, text: str) -> list[Effect]:
        self._shown.clear()
        attempt.prefix = ""
        attempt.assembly = Assembly(attempt.lease, self._root)
        why = text or "the engine of the next worker cannot go on from a given text"
        return [Emit(events.Restarted(self._asked.index, why)), self._open(attempt)]

    def _delay(self, tries: int) -> int:
        """Full jitter: many requesters of one worker do not come back at once."""
        return self._random.randrange(min(MAX_DELAY_MS, FIRST_DELAY_MS << tries) + 1)

    def _open(self, attempt: _Attempt, delay_ms: int = 0) -> Open:
        return Open(
            attempt.lease,
            attempt.envelope,
            attempt.assembly.after,
            private=not attempt.known,
            prefix="" if attempt.known else attempt.prefix,
            delay_ms=delay_ms,
        )


def _mismatch(lease: Lease, asked: Asked) -> str | None:
    """What about this lease was not asked for."""
    wanted = asked.public
    if lease.job_key != asked.job_key or lease.private_digest != asked.private_digest:
        return "another request's job"
    if lease.index != asked.index:
        return f"job {lease.index} as job {asked.index}"
    if lease.public.work != wanted.work:
        return "other measures than asked for"
    if wanted.models and lease.model not in wanted.models:
        return f"model {lease.model!r}"
    if wanted.max_price and lease.price > wanted.max_price:
        return f"a price of {lease.price} where {wanted.max_price} was the most"
    return None


def describe(lease: Lease) -> str:
    """One line on a lease, for logs."""
    kind = "image" if isinstance(lease.public.work, ImageWork) else "text"
    return f"{kind} {lease.job.hex()[:8]} attempt {lease.attempt} at {show_key(lease.worker)[:8]}"
