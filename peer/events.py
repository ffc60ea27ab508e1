"""What a requester hears of its jobs, and the ways in which one can end badly.

PotluckError
├── Unreachable               no tracker answers under this link
├── Refused                   the tracker refused it; `code` says why in a word
└── JobError                  a job ended without a result; nothing was paid
    ├── JobFailed             workers tried and failed
    ├── JobExpired            nobody took it in time
    ├── JobCancelled          the requester wanted it no more
    └── Denied                what came was not what the worker had signed for
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

from protocol.digests import Artifact


class PotluckError(Exception):
    """Something went wrong with the horde; the text is for people."""


class Unreachable(PotluckError):
    """No tracker answers under this link, or not the right one."""


class BadRequest(PotluckError):
    """A value outside the range that the standard gives; nothing was sent."""


class Refused(PotluckError):
    """The tracker refused what was asked for."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class JobError(PotluckError):
    """A job ended without a result, and nothing was paid. reason: a code. index: which of the request's jobs.
    released: thousandths of a kudo that went back to the requester."""

    def __init__(self, reason: str, text: str, index: int = 0, released: int = 0) -> None:
        super().__init__(text or reason)
        self.reason = reason
        self.index = index
        self.released = released


class JobFailed(JobError):
    """As many workers tried as the rules allow, and each failed."""


class JobExpired(JobError):
    """No worker took the job in the time that the rules give it."""


class JobCancelled(JobError):
    """The requester cancelled the job before there was anything to pay for."""


class Denied(JobError):
    """What came was not what the worker had signed for: denied, and the kudos are back."""


@dataclass(frozen=True)
class Event:
    """Something that happened to one job. index: which of the request's results it is, from 0."""

    index: int


@dataclass(frozen=True)
class Queued(Event):
    """The horde took the job in. job: its handle. held: thousandths set aside for the whole request."""

    job: bytes
    held: int


@dataclass(frozen=True)
class Position(Event):
    """Jobs that go before this one, and workers that could serve it. wait: seconds until one is expected to take it,
    from what was measured; 0 if unknown."""

    ahead: int
    workers: int
    wait: int = 0


@dataclass(frozen=True)
class Leased(Event):
    """A worker has the job. worker: its key. price: thousandths at most; paid: what of that comes from our kudos."""

    worker: bytes
    model: str
    attempt: int
    price: int
    paid: int


@dataclass(frozen=True)
class Path(Event):
    """How the worker is reached from now on: `direct`, `punched` (through the routers) or `relayed`. reason: why so."""

    path: str
    reason: str


@dataclass(frozen=True)
class Progress(Event):
    """Steps or tokens done, of how many at most."""

    done: int
    total: int


@dataclass(frozen=True)
class Preview(Event):
    """A small JPEG of the picture so far."""

    jpeg: bytes


@dataclass(frozen=True)
class TextPiece(Event):
    """The next piece of the answer. All pieces since the beginning, or since the last `Restarted`, are the answer."""

    text: str


@dataclass(frozen=True)
class Requeued(Event):
    """The worker did not finish; the job waits for another one, which goes on from what came so far if it can."""

    attempt: int
    reason: str
    text: str


@dataclass(frozen=True)
class Restarted(Event):
    """No engine can go on from the text that came so far: it begins anew, and the pieces so far are void."""

    reason: str


@dataclass(frozen=True)
class Picture(Event):
    """A picture, whole, and checked against what its worker signed."""

    content: bytes
    media_type: str
    seed: int

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        """How notebooks show it: IPython asks for this by name."""
        return {self.media_type: base64.b64encode(self.content).decode("ascii"), "text/plain": str(self)}

    def __str__(self) -> str:
        return f"a picture ({self.media_type}, {len(self.content)} bytes, seed {self.seed})"


@dataclass(frozen=True)
class Received(Event):
    """Everything came, fits the receipt, and is acknowledged. finish: `stop`, `length` or `cancelled`. engine: the
    class of engines within which the seed repeats. used: steps or tokens made in this attempt. context_used: tokens
    of prompt and answer together, of a text."""

    attempt: int
    finish: str
    engine: str
    used: int
    artifacts: tuple[Artifact, ...]
    receipt_digest: bytes
    acknowledged_digest: bytes
    context_used: int = 0


@dataclass(frozen=True)
class Settled(Event):
    """The last of a job: what its worker was paid. paid: from our kudos; minted: the free part; burned: the tax; all
    in thousandths. partial: of a cancelled job. settlement: digest of the tracker's signed statement; entry: where it
    stands in the ledger."""

    attempt: int
    paid: int
    minted: int
    burned: int
    partial: bool
    entry: int
    settlement: bytes
