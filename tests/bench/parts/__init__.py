"""The parts of the bench: each sets up what it needs, measures, and takes it down again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tests.bench.figures import Figure
from tests.bench.parts import filtering, gateway, jobs, memory, paths, pictures, queues, streams, texts
from tests.bench.scale import Bench

Part = Callable[[Bench], Awaitable[list[Figure]]]

PARTS: dict[str, Part] = {
    "jobs": jobs.measure,
    "queues": queues.measure,
    "memory": memory.measure,
    "filter": filtering.measure,
    "streams": streams.measure,
    "paths": paths.measure,
    "pictures": pictures.measure,
    "texts": texts.measure,
    "gateway": gateway.measure,
}
