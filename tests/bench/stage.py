"""A tracker and the two processes of peers that load it."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from protocol.keys import SigningKey
from tests.bench.control import Child
from tests.bench.scale import Scale
from tests.bench.tracker import FUND, Tracker, cpu_s, rules

PROCESSES = 2
PEERS = 4


@dataclass(frozen=True)
class Window:
    """What happened in a while. busy_elsewhere: cores that others than the bench kept busy."""

    seconds: float
    jobs: int
    tracker_s: float
    peers_s: float
    busy_elsewhere: float

    @property
    def jobs_per_s(self) -> float:
        """Settled in a second."""
        return self.jobs / self.seconds

    @property
    def cpu_ms_per_job(self) -> float:
        """Of the tracker."""
        return self.tracker_s * 1000 / self.jobs if self.jobs else float("nan")

    @property
    def tracker_cores(self) -> float:
        """Of the tracker."""
        return self.tracker_s / self.seconds


class Stage:
    """The tracker, and the peers' processes."""

    def __init__(self, tracker: Tracker, loads: Sequence[Child], seeds: Sequence[str], scale: Scale) -> None:
        self.tracker = tracker
        self.loads = loads
        self.seeds = seeds
        self.scale = scale

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Path, scale: Scale) -> AsyncIterator[Stage]:
        """All connected, the requesters with kudos, the workers serving nothing yet."""
        seeds = [SigningKey.generate().seed.hex() for _ in range(PROCESSES * PEERS)]
        async with Tracker.open(folder, rules(len(seeds))) as tracker, children(folder, "load") as loads:
            stage = cls(tracker, loads, seeds, scale)
            port = (await loads[0].ask("listen"))["port"]
            await loads[1].ask("reach", port=port)
            for mark, load in enumerate(loads):
                mine = slice(mark * PEERS, (mark + 1) * PEERS)
                models = [FUND.format(number) for number in range(len(seeds))][mine]
                await load.ask("join", link=str(tracker.link), mark=mark, seeds=seeds[mine], peers=PEERS)
                await load.ask("fund", models=models)
            yield stage

    async def tell(self, do: str, /, **about: Any) -> list[dict[str, Any]]:
        """Tell all loads the same, at the same time."""
        return list(await asyncio.gather(*(load.ask(do, **about) for load in self.loads)))

    async def serve(self, offers: Sequence[Sequence[str]] | None = None, model: str = "") -> None:
        """Let all workers serve one model, or each its own list; no model stops new leases."""
        lists = [list(names) for names in offers or [[model] if model else []] * (PROCESSES * PEERS)]
        for number, load in enumerate(self.loads):
            mine = lists[number * PEERS : (number + 1) * PEERS]
            await load.ask("serve", offers=mine, slots=self.scale.slots)

    async def count(self) -> Counter[str]:
        """What all have seen; `sent KIND` and `heard KIND` for messages."""
        total: Counter[str] = Counter()
        for found in await self.tell("count"):
            total.update({name: found[name] for name in ("settled", "minted", "requeued")})
            for way in ("sent", "heard"):
                total.update({f"{way} {kind}": number for kind, number in found[way].items()})
        return total

    async def windows(self) -> list[Window]:
        """What happens from now on, as often as the scale says, after a while of warming up."""
        await asyncio.sleep(self.scale.warm_up_s)
        return [await self.window(self.scale.window_s) for _ in range(self.scale.repetitions)]

    async def window(self, seconds: float) -> Window:
        """What happens in so many seconds from now on."""
        processes = [load.watched for load in self.loads]
        return await watch(seconds, self.tracker, processes, self._settled)

    async def _settled(self) -> int:
        return (await self.count())["settled"]


@asynccontextmanager
async def children(folder: Path, module: str, number: int = PROCESSES) -> AsyncIterator[list[Child]]:
    """So many processes of a module of the bench, until the block ends."""
    started: list[Child] = []
    try:
        for one in range(number):
            name = f"{module}-{one}" if number > 1 else module
            started.append(await Child.start(name, folder / "logs", f"tests.bench.{module}"))
        yield started
    finally:
        await asyncio.gather(*(child.end() for child in started))


async def watch(seconds: float, tracker: Tracker, peers: Sequence[psutil.Process], settled: Any) -> Window:
    """Jobs settled and CPU used in so many seconds from now on."""
    own = psutil.Process(os.getpid())

    async def look() -> tuple[float, int, float, float, float]:
        jobs = await settled()
        used = sum(cpu_s(process) for process in peers)
        mine = own.cpu_times()
        everything = psutil.cpu_times()
        busy = sum(everything[:3]) + sum(getattr(everything, name, 0) for name in ("irq", "softirq"))
        return time.perf_counter(), jobs, cpu_s(tracker.watched), used, busy - mine.user - mine.system

    before = await look()
    await asyncio.sleep(seconds)
    after = await look()
    passed, jobs, tracker_s, peers_s, busy = (two - one for one, two in zip(before, after, strict=True))
    elsewhere = max(0.0, (busy - tracker_s - peers_s) / passed)
    return Window(passed, int(jobs), tracker_s, peers_s, elsewhere)
