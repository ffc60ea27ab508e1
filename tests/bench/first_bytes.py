"""How long after its lease the first byte of a job comes, by path: at a street of homes behind routers, each with a
delay, where network namespaces can be had; else on loopback, where nothing can be punched."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.bench.control import Child
from tests.bench.figures import Figure, missing
from tests.bench.scale import Bench
from tests.nat.hordes import StreetHorde
from tests.nat.kinds import Kind
from tests.nat.measure import measure as measured
from tests.nat.namespaces import NO_NAMESPACES, can_make_namespaces
from tests.nat.net import Network
from tests.support.horde import Horde

DIRECT, PUNCHED, RELAYED = "direct", "punched", "relayed"
#: Where the worker of each path lives, for a requester behind a port-restricted router.
WORKERS: Mapping[str, Kind] = {DIRECT: Kind.PUBLIC, PUNCHED: Kind.PORT_RESTRICTED, RELAYED: Kind.SYMMETRIC}
REQUESTER = "requester"
#: Each packet from or to a home takes so long to the street: four times that from home to home and back.
DELAY_MS = 10.0
RULES = "limits.anonymous_running = 1000\nlimits.anonymous_open_jobs = 1000\n"
MODULE = "tests.bench.firsts"


@dataclass(frozen=True)
class _Stand:
    """Who asks for jobs, and under which conditions. link: of the horde."""

    asker: Child
    link: str
    conditions: str
    relays_only: bool = False

    async def ask(self, bench: Bench, path: str) -> list[Figure]:
        """Median of each repetition, and the slowest percent of all."""
        bench.say(f"paths: first bytes, {path}")
        count, relays_only = bench.scale.first_bytes, self.relays_only and path == RELAYED
        every: list[list[float]] = []
        reason = ""
        for repetition in range(bench.scale.repetitions + 1):
            asked = 1 if repetition == 0 else count  # the first one warms up
            found = await self.asker.ask("ask", link=self.link, model=path, count=asked, relays_only=relays_only)
            if set(found["paths"]) != {path}:
                raise RuntimeError(f"the paths are {found['paths']}, and were to be {path}")
            if repetition:
                every.append(sorted(found["ms"]))
                reason = found["reason"]
        whole = sorted(ms for each in every for ms in each)
        what = f"from the lease to the worker's answer, {path}; each on a new connection; {self.conditions}"
        tail = f"the slowest percent of these {len(whole)}"
        about = {"ms": whole, "reason": reason}
        return [
            Figure(f"first_byte_ms_p50_{path}", "ms", what, [_quantile(each, 0.5) for each in every], about=about),
            Figure(f"first_byte_ms_p99_{path}", "ms", tail, [_quantile(whole, 0.99)]),
        ]


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


async def measure(bench: Bench) -> list[Figure]:
    """See the module."""
    folder = bench.folder / "first-bytes"
    folder.mkdir()
    if can_make_namespaces():
        return await _at_the_street(bench, folder)
    return await _on_loopback(bench, folder)


async def _at_the_street(bench: Bench, folder: Path) -> list[Figure]:
    homes = {f"worker {path}": kind for path, kind in WORKERS.items()} | {REQUESTER: Kind.PORT_RESTRICTED}
    figures: list[Figure] = []
    with Network.open(folder, homes, dict.fromkeys(homes, DELAY_MS)) as network:
        link = measured(network, REQUESTER, kib=64)
        async with StreetHorde.open(network, folder, RULES) as horde, AsyncExitStack() as stack:
            for path in WORKERS:
                await horde.worker(f"worker {path}", "--dry-run", f"image:model={path},step_ms=1")
            asker = await Child.start("firsts", folder / "logs", MODULE, prefix=network.prefix(REQUESTER))
            stack.push_async_callback(asker.end)
            conditions = f"{link.rtt_ms:.0f} ms from a home to the street and back"
            stand = _Stand(asker, str(horde.link), conditions)
            for path in WORKERS:
                figures += await stand.ask(bench, path)
    return figures


async def _on_loopback(bench: Bench, folder: Path) -> list[Figure]:
    figures: list[Figure] = []
    async with Horde.open(folder, RULES) as horde, AsyncExitStack() as stack:
        for path in (DIRECT, RELAYED):
            await horde.worker(f"worker-{path}", "--dry-run", f"image:model={path},step_ms=1")
        asker = await Child.start("firsts", folder / "logs", MODULE)
        stack.push_async_callback(asker.end)
        stand = _Stand(asker, str(horde.link), f"on loopback ({NO_NAMESPACES}), relays asked for", relays_only=True)
        for path in (DIRECT, RELAYED):
            figures += await stand.ask(bench, path)
    what = "from the lease to the worker's answer, punched"
    names = [f"first_byte_ms_{which}_{PUNCHED}" for which in ("p50", "p99")]
    return [*figures, *(missing(name, "ms", what, NO_NAMESPACES) for name in names)]
