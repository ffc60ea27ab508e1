"""What a tracker holds in memory for peers that are connected and say nothing."""

from __future__ import annotations

import asyncio

from tests.bench.figures import Figure, at_most
from tests.bench.scale import Bench
from tests.bench.stage import PROCESSES, children
from tests.bench.tracker import RULES, Tracker

#: Connections before the first look, so that what is made once for all of them is there.
FIRST = 8
SETTLE_S = 1.0


async def measure(bench: Bench) -> list[Figure]:
    """See the module."""
    fresh, full, each = [], [], []
    for number in range(bench.scale.repetitions):
        bench.say(f"memory: {bench.scale.idle_peers} idle peers, {number + 1} of {bench.scale.repetitions}")
        folder = bench.folder / f"idle-{number}"
        async with Tracker.open(folder, RULES) as tracker, children(folder, "load") as loads:
            link = str(tracker.link)
            await asyncio.gather(*(load.ask("idle", link=link, peers=FIRST // PROCESSES) for load in loads))
            await asyncio.sleep(SETTLE_S)
            before = tracker.rss_mib()
            more = bench.scale.idle_peers // PROCESSES
            await asyncio.gather(*(load.ask("idle", link=link, peers=more) for load in loads))
            await asyncio.sleep(SETTLE_S)
            after = tracker.rss_mib()
            found = (await tracker.scrape())["peers"] - FIRST
        fresh.append(before)
        full.append(after)
        each.append((after - before) * 1024 / found)
    peers = bench.scale.idle_peers
    return [
        Figure("tracker_rss_mib_fresh", "MiB", f"resident, with {FIRST} idle peers", fresh, at_most(80)),
        Figure("tracker_rss_mib_1k_peers", "MiB", f"resident, with {peers} idle peers", full, at_most(80)),
        Figure("rss_kib_per_peer", "KiB", f"of each of {peers} idle peers", each, at_most(20)),
    ]
