"""Jobs a second with an empty queue: without and with the direct stream, and how long a lease takes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from tests.bench.figures import Figure, at_least, at_most
from tests.bench.scale import Bench
from tests.bench.signatures import operations, seconds_per_job
from tests.bench.stage import PEERS, Stage, Window, children, watch

MODEL = "bench"
#: Messages that come less than once in so many jobs say nothing about a job.
RARE = 1 / 50
WITHOUT_STREAM = "signed, durable, settled, paid, all checked; no stream: digest of a constant"


async def measure(bench: Bench) -> list[Figure]:
    """See the module."""
    async with Stage.open(bench.folder / "jobs", bench.scale) as stage:
        bench.say("jobs: without the stream")
        await stage.serve(model=MODEL)
        figures = await _without_stream(stage)
        bench.say("jobs: at half load")
        figures += await _latency(stage, figures[0].median or 1.0)
        figures.append(
            Figure("tracker_rss_mib", "MiB", "resident, after the load above", [stage.tracker.rss_mib()], at_most(80))
        )
        await stage.serve()
        await stage.tell("leave")
        bench.say("jobs: with the stream")
        figures += await _with_stream(stage)
    return figures


async def _without_stream(stage: Stage) -> list[Figure]:
    before = await stage.count()
    await stage.tell("load", wish={"models": [MODEL]}, in_flight=stage.scale.in_flight)
    windows = await stage.windows()
    await stage.tell("halt")
    await stage.tell("drain")
    seen = await stage.count() - before
    per_job = _per_job(seen)
    samples = {**(await stage.loads[1].ask("samples")), **(await stage.loads[0].ask("samples"))}
    floors = [1 / seconds_per_job(per_job, samples) for _ in range(stage.scale.repetitions)]
    checks, signatures = operations(per_job)
    about = {**conditions(windows), "requeued": seen["requeued"], "minted": seen["minted"]}
    operation_counts = f"{checks:.2f} checks and {signatures:.2f} signatures a job, on one core"
    return [
        Figure("jobs_per_s", "jobs/s", WITHOUT_STREAM, [w.jobs_per_s for w in windows], at_least(1000), about=about),
        Figure(
            "tracker_cpu_ms_per_job",
            "ms",
            "CPU of the tracker's process, same windows",
            [w.cpu_ms_per_job for w in windows],
            at_most(0.8),
        ),
        Figure("signature_floor_jobs_per_s", "jobs/s", operation_counts, floors, about={"messages_per_job": per_job}),
        Figure(
            "tracker_cpu_to_signatures",
            "times",
            "the tracker's CPU a job to that of its signatures and checks: less moved by a busy machine",
            [w.cpu_ms_per_job * floor / 1000 for w, floor in zip(windows, floors, strict=True)],
        ),
    ]


def conditions(windows: Sequence[Window]) -> dict[str, object]:
    """What else was going on."""
    return {
        "tracker_cores": [round(w.tracker_cores, 3) for w in windows],
        "peers_cores": [round(w.peers_s / w.seconds, 3) for w in windows],
        "busy_elsewhere_cores": [round(w.busy_elsewhere, 3) for w in windows],
    }


def _per_job(seen: Counter[str]) -> dict[str, float]:
    """Messages of each kind for a job, at peers; those that come now and then left out."""
    messages = ((kind, number / seen["settled"]) for kind, number in sorted(seen.items()))
    return {kind: number for kind, number in messages if kind.startswith(("sent ", "heard ")) and number > RARE}


async def _latency(stage: Stage, jobs_per_s: float) -> list[Figure]:
    """At half of what was just reached, evenly spread."""
    rate = jobs_per_s / 2
    await stage.tell("pace", wish={"models": [MODEL]}, rate=rate / len(stage.loads))
    await asyncio.sleep(stage.scale.warm_up_s)
    await stage.tell("latencies")
    middles, tails = [], []
    windows = []
    for _ in range(stage.scale.repetitions):
        windows.append(await stage.window(stage.scale.window_s))
        found = sorted(value for answer in await stage.tell("latencies") for value in answer["ms"])
        middles.append(_quantile(found, 0.5))
        tails.append(_quantile(found, 0.99))
    await stage.tell("halt")
    await stage.tell("drain")
    about = {"rate": rate, **conditions(windows)}
    what = f"from request to checked lease, at {rate:.0f} jobs/s"
    return [
        Figure("request_to_lease_ms_p50", "ms", what, middles, about=about),
        Figure("request_to_lease_ms_p99", "ms", what, tails),
    ]


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")


async def _with_stream(stage: Stage) -> list[Figure]:
    """The same requesters' accounts, with the real client; real workers, each engine in a process of its own."""
    tracker = stage.tracker
    async with children(tracker.folder, "streaming") as loads:

        async def tell(what: str, **about: object) -> list[dict[str, int]]:
            return list(await asyncio.gather(*(load.ask(what, **about) for load in loads)))

        async def settled() -> int:
            return sum(found["settled"] for found in await tell("count"))

        for number, load in enumerate(loads):
            mine = stage.seeds[number * PEERS : (number + 1) * PEERS]
            folder = str(tracker.folder / f"peers-{number}")
            await load.ask(
                "join", link=str(tracker.link), folder=folder, seeds=mine, peers=PEERS, slots=stage.scale.stream_slots
            )
        await tell("load", in_flight=stage.scale.stream_slots)
        await asyncio.sleep(stage.scale.warm_up_s)
        peers = [load.watched for load in loads]
        windows = [await watch(stage.scale.window_s, tracker, peers, settled) for _ in range(stage.scale.repetitions)]
        await tell("halt")
    what = "the same with real workers, dry-run engines and clients: pictures over the stream"
    about = conditions(windows)
    return [
        Figure("jobs_per_s_with_stream", "jobs/s", what, [w.jobs_per_s for w in windows], about=about),
        Figure(
            "tracker_cpu_ms_per_job_with_stream",
            "ms",
            "CPU of the tracker's process, same windows",
            [w.cpu_ms_per_job for w in windows],
        ),
    ]
