"""Texts through a horde against the engine alone: the first token, and tokens a second."""

from __future__ import annotations

import time
from typing import Any

from peer.client import Client
from peer.engines.spec import SMOLLM2_MODEL, SMOLLM2_PACKAGE
from peer.events import Progress, TextPiece
from tests.bench.engines import lacking, one_worker
from tests.bench.figures import Figure, at_least, at_most, missing, ratios
from tests.bench.scale import Bench

PROMPT = "Tell a long story about a lighthouse."
FIRST, RATE = at_most(30), at_least(0.95)


async def measure(bench: Bench) -> list[Figure]:
    """See the module."""
    why = lacking("xllamacpp", SMOLLM2_PACKAGE)
    if why:
        return [
            missing("first_token_ms", "ms", "later than from the engine alone", why, FIRST),
            missing("tokens_ratio", "times", "horde to engine alone", why, RATE),
        ]
    later: list[float] = []
    ours: list[float] = []
    bare: list[float] = []
    tokens = bench.scale.tokens
    async with one_worker(bench, "texts", "--text", SMOLLM2_MODEL) as (client, engine):
        await engine.ask("load_text")
        for number in range(bench.scale.texts * bench.scale.repetitions + 1):
            bench.say(f"texts: {number} of {bench.scale.texts * bench.scale.repetitions}")
            alone = await engine.ask("text", prompt=PROMPT, tokens=tokens, seed=number)
            through = await _through(client, tokens, number)
            if number:  # the first one warms up
                later.append((through["first_s"] - alone["first_s"]) * 1000)
                ours.append(_rate(through))
                bare.append(_rate(alone))
    return [
        Figure("first_token_ms", "ms", "later than from the engine alone", later, FIRST),
        Figure("tokens_per_s", "tokens/s", "through the horde, behind the first", ours),
        Figure("bare_tokens_per_s", "tokens/s", "the engine alone, behind the first", bare),
        Figure("tokens_ratio", "times", "horde to engine alone", ratios(ours, bare), RATE),
    ]


def _rate(text: dict[str, Any]) -> float:
    """Tokens a second, behind the first one."""
    return float((text["tokens"] - 1) / (text["seconds"] - text["first_s"]))


async def _through(client: Client, tokens: int, seed: int) -> dict[str, Any]:
    """One text: the seconds to its first piece and to its last, and the tokens made."""
    began = time.perf_counter()
    first = last = 0.0
    made = 0
    async for event in client.text(PROMPT, max_tokens=tokens, temperature=0, seed=seed):
        match event:
            case TextPiece():
                last = time.perf_counter()
                first = first or last
            case Progress(done=done):
                made = done
            case _:
                pass
    return {"first_s": first - began, "seconds": last - began, "tokens": made}
