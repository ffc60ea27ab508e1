"""How long a job will wait, from measured speeds, and how well that came true. No clock and no storage in it.

A swarm's speed is what its workers were seen to do: work asked for in the attempts that were settled, over the time
that these took their workers. What is known is forgotten with the process, and a swarm of which nothing is known makes
every wait that depends on it unknown (0).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from protocol.work import ImageWork, Kind, Work

#: What one more attempt leaves of the weight of those before it: the last twenty or so count.
FADE = 0.95
#: Swarms, and workers, of which something is remembered; beyond that those that were seen least lately are forgotten.
SWARMS = 4_096
WORKERS = 65_536
#: Predictions that a report looks back on.
LOOKED_BACK = 1_000

K = TypeVar("K")
V = TypeVar("V")
Swarm = tuple[Kind, str]


def units(work: Work) -> int:
    """How much work this is, in units of its kind: pixels drawn, or tokens, as they were asked for."""
    if isinstance(work, ImageWork):
        return work.width * work.height * work.steps * work.guidance_passes
    return work.max_tokens


@dataclass
class Seen:
    """Faded sums over attempts. units: of work as it was asked for; made: what of it was done."""

    units: float = 0.0
    made: float = 0.0
    seconds: float = 0.0
    attempts: float = 0.0

    def add(self, asked: int, made: int, seconds: float) -> None:
        """One more attempt."""
        self.units = self.units * FADE + asked
        self.made = self.made * FADE + made
        self.seconds = self.seconds * FADE + seconds
        self.attempts = self.attempts * FADE + 1


class Speeds:
    """How fast the workers of each swarm are. Those that work on several jobs at once count by what they finish."""

    def __init__(self) -> None:
        self._seen: dict[Swarm, Seen] = {}
        self._finished: dict[bytes, int] = {}  # by worker, when it was last seen to finish something

    def settled(
        self, swarm: Swarm, worker: bytes, work: Work, issued: int, delivered: int, made: int | None = None
    ) -> float:
        """An attempt was made in full, from its lease (ms) to its receipt, and paid. A worker that had other work until
        later than the lease took it up then. made: units that were done, if fewer than were asked for. Returns the
        seconds that it took, 0 if that cannot be told."""
        begun = max(issued, self._finished.get(worker, 0))
        if delivered <= begun:
            return 0.0  # paid long after it was made: what lies in between is seen already
        put(self._finished, worker, delivered, WORKERS)
        seconds = (delivered - begun) / 1000
        seen = self._seen.get(swarm) or Seen()
        seen.add(units(work), units(work) if made is None else made, seconds)
        put(self._seen, swarm, seen, SWARMS)
        return seconds

    def seconds(self, swarm: Swarm, of: float) -> float | None:
        """How long one worker of the swarm takes for so many units; None if nothing is known of it."""
        seen = self._seen.get(swarm)
        return of * seen.seconds / seen.units if seen and seen.units else None

    def a_job(self, swarm: Swarm) -> float | None:
        """How long one worker of the swarm took for a job, on average."""
        seen = self._seen.get(swarm)
        return seen.seconds / seen.attempts if seen else None

    def made(self, swarm: Swarm) -> float | None:
        """How many units a second one worker of the swarm does."""
        seen = self._seen.get(swarm)
        return seen.made / seen.seconds if seen else None


def put(table: dict[K, V], key: K, value: V, most: int) -> None:
    """Set it as the newest, and drop the oldest if there are too many."""
    table.pop(key, None)
    table[key] = value
    if len(table) > most:
        del table[next(iter(table))]


def expected(ahead: Iterable[tuple[float, float]], running: float, workers: int) -> int:
    """Whole seconds, at least one, until `workers` workers have come to a job.

    ahead: for each group of jobs that go before it, the seconds that one worker needs for all of them, and the part of
    them that falls to these workers. running: seconds of work that they have in hand.
    """
    total = running + sum(seconds * part for seconds, part in ahead)
    return max(1, math.ceil(total / workers)) if workers else 0


def in_turn(place: int, at_once: int, a_job: float) -> int:
    """Whole seconds until the job in this place (from 0) of a line has its turn, if so many of the line run at once
    and as many do now."""
    return max(1, math.ceil((place + 1) * a_job / at_once))


class Predictions:
    """What was predicted to those who wait, and what came of it."""

    def __init__(self) -> None:
        self._told: dict[bytes, tuple[int, int]] = {}
        self._ratios: deque[float] = deque(maxlen=LOOKED_BACK)
        self.unserved = 0

    def told(self, job: bytes, wait: int, now: int) -> None:
        """A waiting job was told to expect a worker in so many seconds; what it hears first is what counts."""
        if wait:
            self._told.setdefault(job, (wait, now))

    def served(self, job: bytes, now: int) -> None:
        """A worker takes the job."""
        if (told := self._told.pop(job, None)) is not None:
            wait, since = told
            self._ratios.append((now - since) / (wait * 1000))

    def ended(self, job: bytes, *, unserved: bool) -> None:
        """The job waits no more, without a worker. unserved: nobody came in time, however long it was told to wait."""
        if self._told.pop(job, None) is not None:
            self.unserved += unserved

    def report(self) -> dict[str, float]:
        """Actual over predicted wait of the last jobs: how many, median and 90th percentile; and how many were told a
        wait and never served."""
        found: dict[str, float] = {"predicted": len(self._ratios), "unserved": self.unserved}
        if self._ratios:
            ratios = sorted(self._ratios)
            found["median"] = round(percentile(ratios, 50), 2)
            found["p90"] = round(percentile(ratios, 90), 2)
        return found


def percentile(ordered: list[float], percent: int) -> float:
    """The smallest of these values that is not below so many percent of them."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
