"""What anybody may know of the horde's work: how much of it is done, how fast, by which workers. No I/O in it.

A unit of work is a pixel drawn in one step of one guidance pass, or a token. All that is known here is forgotten with
the process.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import get_args

from protocol.keys import show_key
from protocol.messages import Offer
from protocol.work import ImageWork, Kind, PublicPart, TextWork, Work, kind_of
from tracker.fitting import constraints_of
from tracker.forecast import Forecast
from tracker.lifecycle import Attempt, State
from tracker.matching import Queue, Waiting, Worker
from tracker.pool import Pool, Served
from tracker.store.base import Happened
from tracker.waits import WORKERS, Seen, Swarm, put, units

MINUTE_MS = 60_000
#: By so much of its key a worker is called, here as in logs and on people's screens.
NAME_LETTERS = 8
#: Swarms whose wait is looked up at a time, those with the most waiting jobs first, and for how long it holds.
WAITS = 32
WAITS_MS = 2_000
#: What is served is counted anew once a millisecond has gone by for every so many offers to count: readers hold up a
#: tracker of thousands of workers no more than one of a few, whose count is always the newest.
COUNTED_A_MS = 10
#: Models of one worker whose speed is remembered.
MODELS = 64
#: What counts as a small job.
SMALL_SIDE, SMALL_STEPS = 512, 20
SMALL_TOKENS, SMALL_CONTEXT = 100, 1024


class PastMinute:
    """Units of work done within the last minute, to the second."""

    def __init__(self) -> None:
        self._seconds: deque[tuple[int, int]] = deque()

    def add(self, done: int, now: int) -> None:
        """So many units were done now."""
        second = now // 1000
        if self._seconds and self._seconds[-1][0] >= second:
            second, before = self._seconds.pop()
            done += before
        self._seconds.append((second, done))
        self._drop(now)

    def total(self, now: int) -> int:
        """How many in the minute before `now`."""
        self._drop(now)
        return sum(done for _, done in self._seconds)

    def _drop(self, now: int) -> None:
        while self._seconds and self._seconds[0][0] * 1000 <= now - MINUTE_MS:
            self._seconds.popleft()


@dataclass
class Record:
    """What one worker has done since it came. since, left: milliseconds; left is 0 while it is here. earned:
    thousandths of a kudo."""

    since: int
    left: int = 0
    jobs: int = 0
    earned: int = 0
    seen: dict[Swarm, Seen] = field(default_factory=dict)


class Figures:
    """The work of one tracker process, in numbers."""

    def __init__(self, queue: Queue, pool: Pool, forecast: Forecast) -> None:
        self._queue = queue
        self._pool = pool
        self._forecast = forecast
        self._records: dict[bytes, Record] = {}
        self._done: dict[Kind, PastMinute] = {kind: PastMinute() for kind in get_args(Kind)}
        self._waits: dict[Swarm, int] = {}
        self._waits_at = -WAITS_MS
        self._served: tuple[dict[Swarm, Served], dict[Kind, Served]] = {}, {}
        self._served_at = self._served_for = 0

    # What happens

    def came(self, worker: bytes, now: int, grace: int) -> None:
        """A worker is here; one that was away for less than `grace` milliseconds has not left."""
        record = self._records.get(worker)
        if record is None or (record.left and now - record.left > grace):
            record = Record(now)
        record.left = 0
        put(self._records, worker, record, WORKERS)

    def went(self, worker: bytes, now: int) -> None:
        """A worker has left."""
        if (record := self._records.get(worker)) is not None:
            record.left = now

    def settled(self, happened: Happened, attempt: Attempt, now: int) -> None:
        """An attempt was paid: what was made in it, and how fast if it was made in full."""
        before, payment = happened.before, happened.outcome.payment
        if payment is None:
            return
        swarm = kind_of(before.work), attempt.model
        made = made_units(before.work, payment.used)
        delivered = before.changed if before.state is State.DELIVERED else now
        if now - delivered < MINUTE_MS:
            self._done[swarm[0]].add(made, now)
        record = self._records.get(attempt.worker)
        if record is not None and attempt.issued >= record.since:
            record.jobs += 1
            record.earned += payment.paid + payment.minted
        if payment.partial:
            return
        seconds = self._forecast.speeds.settled(swarm, attempt.worker, before.work, attempt.issued, delivered, made)
        if seconds and record is not None:
            seen = record.seen.get(swarm) or Seen()
            seen.add(units(before.work), made, seconds)
            put(record.seen, swarm, seen, MODELS)

    # What is shown

    def kinds(self, now: int) -> dict[str, dict[str, int]]:
        """For each kind: its workers and their slots, workers that are paused, jobs and units of work that wait, units
        done in the past minute."""
        waiting = self._queue.by_kind()
        served = self._counted(now)[1]
        return {
            kind: {
                "workers": served[kind].workers,
                "slots": served[kind].slots,
                "paused": served[kind].paused,
                "waiting": waiting[kind][0],
                "queued": waiting[kind][1],
                "past_minute": done.total(now),
            }
            for kind, done in self._done.items()
        }

    def swarms(self, now: int) -> list[dict[str, object]]:
        """Each model that is served or wanted; of jobs that name none those that wait."""
        waiting, queued, swarms = self._queue.counts(), self._queue.work(), self._counted(now)[0]
        waits = self._known_waits(sorted(swarms, key=lambda swarm: (-waiting[swarm], swarm)), swarms, now)
        return [
            {
                "kind": swarm[0],
                "model": swarm[1],
                "workers": (served := swarms.get(swarm, Served())).workers,
                "slots": served.slots,
                "paused": served.paused,
                "waiting": waiting[swarm],
                "queued": queued[swarm],
                **_largest(served),
                "speed": shown_speed(self._forecast.speeds.made(swarm)),
                "wait": waits.get(swarm, 0),
            }
            for swarm in sorted({*swarms, *waiting})
        ]

    def _counted(self, now: int) -> tuple[dict[Swarm, Served], dict[Kind, Served]]:
        """How each model and each kind is served."""
        if not 0 <= now - self._served_at < self._served_for:
            self._served = self._pool.swarms(), self._pool.kinds()
            self._served_at, self._served_for = now, self._pool.alike() // COUNTED_A_MS
        return self._served

    def _known_waits(self, wanted: Iterable[Swarm], swarms: dict[Swarm, Served], now: int) -> dict[Swarm, int]:
        if not 0 <= now - self._waits_at < WAITS_MS:
            self._waits_at, self._waits = now, {}
            for swarm in list(wanted)[:WAITS]:
                self._waits[swarm] = self._wait(swarm, swarms[swarm], now)
        return self._waits

    def _wait(self, swarm: Swarm, served: Served, now: int) -> int:
        """Seconds until a small job of somebody with an account and no kudos would be taken; 0 if unknown."""
        work = small_job(swarm[0], served)
        if work is None:
            return 0
        public = PublicPart(work=work, models=(swarm[1],))
        probe = Waiting.unborn(public, constraints_of(public, public.models, anonymous=False), "", now)
        return self._forecast.wait(probe, now)

    def workers(self, after: bytes, most: int) -> list[Worker]:
        """The workers that are here with a key above `after`, the lowest first."""
        keys = heapq.nsmallest(most, (key for key in self._pool.workers if key > after))
        return [self._pool.workers[key] for key in keys]

    def worker(self, key: bytes) -> Worker | None:
        """The worker with this key, if it is here."""
        return self._pool.workers.get(key)

    def shown(self, worker: Worker) -> dict[str, object]:
        """A worker as everybody may see it: not where it is, nor whose. Its time to the minute, its kudos to the whole
        one."""
        record = self._records.get(worker.key) or Record(0)
        shown = show_key(worker.key)
        return {
            "id": shown,
            "name": shown[:NAME_LETTERS],
            "since": record.since // MINUTE_MS * MINUTE_MS,
            "slots": worker.announce.slots,
            "anonymous": worker.announce.anonymous,
            "paused": worker.announce.paused,
            "jobs": record.jobs,
            "kudos": record.earned // 1000 * 1000,
            "offers": list(self._offers(worker, record)),
        }

    def _offers(self, worker: Worker, record: Record) -> Iterator[dict[str, object]]:
        for offer in worker.announce.offers:
            seen = record.seen.get((offer.kind, offer.model))
            speed = shown_speed(seen.made / seen.seconds if seen else None)
            yield {"kind": offer.kind, "model": offer.model, **_largest(offer), "speed": speed}


def _largest(served: Offer | Served) -> dict[str, int]:
    return {
        "max_pixels": served.max_pixels,
        "max_steps": served.max_steps,
        "max_tokens": served.max_tokens,
        "max_context": served.max_context,
    }


def shown_speed(speed: float | None) -> float:
    """Units a second as people read them: three digits, or whole ones above that; 0 if unknown."""
    return 0 if not speed else round(speed, max(0, 2 - math.floor(math.log10(speed))))


def made_units(work: Work, used: int) -> int:
    """How much of this work was done, if so many of its steps or tokens were."""
    asked = work.steps if isinstance(work, ImageWork) else work.max_tokens
    return units(work) * min(used, asked) // asked


def small_job(kind: Kind, served: Served) -> Work | None:
    """A small job of the kind, no larger than what is served; None if not even the least is."""
    if kind == "text":
        tokens, context = min(SMALL_TOKENS, served.max_tokens), min(SMALL_CONTEXT, served.max_context)
        return TextWork(max_tokens=tokens, context_tokens=context) if tokens and context >= 16 else None
    side = min(SMALL_SIDE, math.isqrt(served.max_pixels) // 8 * 8)
    steps = min(SMALL_STEPS, served.max_steps)
    return ImageWork(width=side, height=side, steps=steps) if side >= 16 and steps else None
