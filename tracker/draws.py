"""Which workers were drawn for a request that is about to be admitted, and what its first job would meet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from protocol.messages import Offer
from tracker.matching import Worker
from tracker.store.base import Choice


class Drawn(NamedTuple):
    """A worker for a job that is about to be admitted, and of how many owners it could have been."""

    worker: Worker
    offer: Offer
    owners: int

    @property
    def choice(self) -> Choice:
        """What the store is told."""
        return Choice(self.worker.key, self.worker.owner, self.offer.model, self.owners)


@dataclass(frozen=True)
class Draw:
    """What was drawn for a request that is about to be admitted, job by job. room: how many of its jobs may run at once
    if others carry them."""

    pairs: list[Drawn | None]
    origin: str
    room: int
    user: bytes = b""

    @property
    def choices(self) -> list[Choice | None]:
        """What the store is told."""
        return [pair and pair.choice for pair in self.pairs]

    @property
    def workers(self) -> list[Worker]:
        """Those whose places are promised, one for each place."""
        return [pair.worker for pair in self.pairs if pair is not None]


@dataclass(frozen=True)
class Prospect:
    """What a request's first job would meet: jobs that go before it, workers that could serve it, and how many seconds
    it would wait, 0 if unknown."""

    ahead: int
    workers: int
    wait: int
