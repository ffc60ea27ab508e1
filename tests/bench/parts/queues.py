"""The same with many jobs waiting: that workers take, that nobody may serve, that name any model; and while idle.

Each queue has a tracker of its own, at which the empty queue is measured first, so that the ratio compares what
happened minutes apart at most. The queue is filled over the real protocol, by requesters that stay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from tests.bench.figures import Aim, Figure, at_most, ratios
from tests.bench.parts.jobs import conditions
from tests.bench.scale import Bench
from tests.bench.stage import PEERS, PROCESSES, Stage, Window

MODEL = "bench"
SWARMS = 50
#: Sides of pictures that are too large for every worker here: some forty size classes of one model.
TOO_LARGE = range(264, 776, 8)
SLOWDOWN: Aim = at_most(1.5)
RESTARTS = 3


async def measure(bench: Bench) -> list[Figure]:
    """See the module."""
    scale = bench.scale
    figures = []
    for jobs, name in ((scale.few_waiting, "1k"), (scale.many_waiting, "100k")):
        figures += await _served(bench, jobs, name)
    figures += await _unservable(bench)
    return figures + await _any_model(bench)


async def _served(bench: Bench, jobs: int, name: str) -> list[Figure]:
    """Jobs that the workers take from the head, while as many come in at the tail."""
    bench.say(f"queues: {jobs} waiting")
    wish = {"models": [MODEL]}
    async with Stage.open(bench.folder / f"waiting-{name}", bench.scale) as stage:
        empty = await _empty(stage, wish, model=MODEL)
        await stage.serve()
        await stage.tell("fill", jobs=jobs // PROCESSES, wishes=[wish])
        waiting = await _waiting(stage)
        await stage.serve(model=MODEL)
        await stage.tell("load", wish=wish, in_flight=0)
        full = await stage.windows()
        figures = _compared(f"waiting_{name}", f"{jobs} waiting, served from the head", empty, full, waiting)
        if jobs == bench.scale.many_waiting:
            await stage.tell("halt")
            await stage.serve()
            figures += await _idle(stage, "100k")
            rss = stage.tracker.rss_mib()
            figures.append(Figure("tracker_rss_mib_100k", "MiB", f"resident, with {waiting} waiting", [rss]))
            figures += await _restarted(stage)
    return figures


async def _unservable(bench: Bench) -> list[Figure]:
    """Half of the jobs name another model, half are too large for any worker of this one."""
    jobs = bench.scale.many_waiting
    bench.say(f"queues: {jobs} that nobody may serve")
    wish = {"models": [MODEL]}
    others: list[dict[str, Any]] = []
    for side in TOO_LARGE:
        others += [{"models": ["elsewhere"]}, {"models": [MODEL], "side": side}]
    async with Stage.open(bench.folder / "unservable", bench.scale) as stage:
        empty = await _empty(stage, wish, model=MODEL)
        await stage.tell("fill", jobs=jobs // PROCESSES, wishes=others)
        waiting = await _waiting(stage)
        await stage.tell("load", wish=wish, in_flight=stage.scale.in_flight)
        full = await stage.windows()
        await stage.tell("halt")
        idle = await _idle(stage, "unservable_100k")
    what = f"{jobs} waiting that no worker may serve, in {len(TOO_LARGE) + 1} sizes"
    return [*_compared("unservable_100k", what, empty, full, waiting), *idle]


async def _any_model(bench: Bench) -> list[Figure]:
    """Every worker serves some of many models, and every job takes any."""
    jobs = bench.scale.many_waiting
    bench.say(f"queues: {jobs} for any model")
    wish: dict[str, Any] = {"models": []}
    workers = PROCESSES * PEERS
    offers = [
        [f"swarm-{number}" for number in range(SWARMS) if number % workers == worker] for worker in range(workers)
    ]
    async with Stage.open(bench.folder / "any-model", bench.scale) as stage:
        empty = await _empty(stage, wish, offers=offers)
        await stage.serve()
        await stage.tell("fill", jobs=jobs // PROCESSES, wishes=[wish])
        waiting = await _waiting(stage)
        await stage.serve(offers)
        await stage.tell("load", wish=wish, in_flight=0)
        full = await stage.windows()
    return _compared("any_model_100k", f"{jobs} waiting for any model, {SWARMS} swarms", empty, full, waiting)


async def _empty(
    stage: Stage, wish: dict[str, Any], model: str = "", offers: Sequence[Sequence[str]] | None = None
) -> list[Window]:
    """The same load with nothing waiting."""
    await stage.serve(offers, model=model)
    await stage.tell("load", wish=wish, in_flight=stage.scale.in_flight)
    windows = await stage.windows()
    await stage.tell("halt")
    await stage.tell("drain")
    return windows


async def _waiting(stage: Stage) -> int:
    found: int = (await stage.tracker.scrape())["waiting"]
    return found


def _compared(name: str, what: str, empty: Sequence[Window], full: Sequence[Window], waiting: int) -> list[Figure]:
    about = {"waiting": waiting, **conditions(full), "empty_jobs_per_s": [w.jobs_per_s for w in empty]}
    slower = ratios([w.jobs_per_s for w in empty], [w.jobs_per_s for w in full])
    dearer = ratios([w.cpu_ms_per_job for w in full], [w.cpu_ms_per_job for w in empty])
    return [
        Figure(f"jobs_per_s_{name}", "jobs/s", what, [w.jobs_per_s for w in full], about=about),
        Figure(
            f"tracker_cpu_ms_per_job_{name}", "ms", "CPU of the tracker's process", [w.cpu_ms_per_job for w in full]
        ),
        Figure(f"slowdown_{name}", "times", "empty queue's jobs/s to this one's", slower, SLOWDOWN),
        Figure(f"cpu_ratio_{name}", "times", "this queue's CPU a job to the empty one's", dearer, SLOWDOWN),
    ]


async def _idle(stage: Stage, name: str) -> list[Figure]:
    """Everybody is connected, and nobody takes or asks for anything."""
    await asyncio.sleep(stage.scale.warm_up_s)
    windows = [await stage.window(stage.scale.idle_s) for _ in range(stage.scale.repetitions)]
    waiting = await _waiting(stage)
    return [
        Figure(
            f"idle_cores_{name}",
            "cores",
            f"CPU of the tracker with {waiting} waiting and nothing to do",
            [w.tracker_cores for w in windows],
            at_most(0.01),
            about={"waiting": waiting},
        )
    ]


async def _restarted(stage: Stage) -> list[Figure]:
    """From starting the process until peers can come."""
    waiting = await _waiting(stage)
    await stage.tell("leave")
    took = []
    for _ in range(RESTARTS):
        await stage.tracker.stop()
        took.append(await stage.tracker.start())
    found = await _waiting(stage)
    about = {"waiting_before": waiting, "waiting_after": found}
    return [Figure("start_s_100k", "s", f"from start to serving, {found} open jobs", took, about=about)]
