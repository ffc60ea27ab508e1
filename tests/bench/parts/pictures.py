"""Pictures through a horde against the bare pipeline in a loop: the same model, settings and process priority."""

from __future__ import annotations

import time

from peer import shapes
from peer.client import Client
from peer.events import Settled
from tests.bench.engines import lacking, one_worker
from tests.bench.figures import Figure, at_least, missing, ratios
from tests.bench.scale import Bench

PROMPT = "a small red circle on blue"
SIDE, STEPS, GUIDANCE = 32, 24, 2.0
AIM = at_least(0.97)
WHAT = f"of {SIDE}x{SIDE}, {STEPS} steps, one after the other"


async def measure(bench: Bench) -> list[Figure]:
    """See the module."""
    why = lacking("torch", "diffusers", "transformers")
    if why:
        return [missing("pictures_ratio", "times", "horde to bare pipeline", why, AIM)]
    count = bench.scale.pictures
    settings = {"prompt": PROMPT, "count": count, "side": SIDE, "steps": STEPS, "guidance": GUIDANCE}
    ours, bare = [], []
    async with one_worker(bench, "pictures", "--image", shapes.NAME) as (client, engine):
        await engine.ask("load_pictures")
        for repetition in range(bench.scale.repetitions + 1):
            bench.say(f"pictures: {repetition} of {bench.scale.repetitions}")
            alone = (await engine.ask("pictures", **settings))["seconds"]
            through = await _through(client, count)
            if repetition:  # the first one warms up
                bare.append(60 * count / alone)
                ours.append(60 * count / through)
    return [
        Figure("pictures_per_min", "1/min", f"through the horde, {WHAT}", ours),
        Figure("bare_pictures_per_min", "1/min", f"the bare pipeline, {WHAT}", bare),
        Figure("pictures_ratio", "times", "horde to bare pipeline", ratios(ours, bare), AIM),
    ]


async def _through(client: Client, count: int) -> float:
    """Seconds for so many pictures of one request, all settled."""
    began = time.perf_counter()
    settled = 0
    async for event in client.image(PROMPT, width=SIDE, height=SIDE, steps=STEPS, guidance=GUIDANCE, seed=0, n=count):
        settled += isinstance(event, Settled)
    if settled != count:
        raise RuntimeError(f"{settled} of {count} pictures were settled")
    return time.perf_counter() - began
