"""A gateway's `/v1` against the engine's own server, which speaks the same API: the same request by the same client.

What the horde itself costs is told apart from what the gateway adds to it by a third way: a `Client`, without HTTP.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import psutil

from peer.client import Client
from peer.engines.spec import SMOLLM2_MODEL, SMOLLM2_PACKAGE
from peer.engines.text import SAMPLERS
from peer.events import Progress, TextPiece
from tests.bench.engines import lacking
from tests.bench.figures import Figure, at_least, at_most, missing, ratios
from tests.bench.scale import Bench
from tests.bench.stage import children
from tests.bench.tracker import RULES, cpu_s
from tests.support.gateway import Gateway
from tests.support.horde import Horde

PROMPT = "Tell a long story about a lighthouse."
FIRST, RATE = at_most(40), at_least(0.95)
#: Calls and short texts under way at the same time.
AT_ONCE = 16
DRY_RUN = "dry-run-text"
SHORT_TOKENS = 4


@dataclass(frozen=True)
class Text:
    """One text: the seconds to its first piece and to its last, and the tokens made."""

    first_s: float
    seconds: float
    tokens: int

    @property
    def rate(self) -> float:
        """Tokens a second, behind the first one."""
        return (self.tokens - 1) / (self.seconds - self.first_s)


@dataclass(frozen=True)
class Server:
    """One that answers `/v1/chat/completions`."""

    session: aiohttp.ClientSession
    url: str
    headers: Mapping[str, str]

    async def text(self, tokens: int, seed: int) -> Text:
        """Have one text streamed."""
        body = {
            "model": SMOLLM2_MODEL,
            "messages": [{"role": "user", "content": PROMPT}],
            "max_tokens": tokens,
            "temperature": 0,
            "seed": seed,
            "stream": True,
            "stream_options": {"include_usage": True},
            # The engine's own server does as it does for a job: nothing of the text before is kept.
            "cache_prompt": False,
            "samplers": list(SAMPLERS),
        }
        began = time.perf_counter()
        first = last = 0.0
        made = 0
        async with self.session.post(f"{self.url}/v1/chat/completions", json=body, headers=self.headers) as answer:
            if answer.status != 200:
                raise RuntimeError(f"{self.url}: {answer.status} {await answer.text()}")
            async for line in answer.content:
                if not line.startswith(b"data: {"):
                    continue
                said = json.loads(line.removeprefix(b"data: "))
                if any(choice["delta"].get("content") for choice in said["choices"]):
                    last = time.perf_counter()
                    first = first or last
                made = (said.get("usage") or {}).get("completion_tokens", made)
        return Text(first - began, last - began, made)


async def measure(bench: Bench) -> list[Figure]:
    """See the module."""
    async with Horde.open(bench.folder / "gateway", RULES) as horde:
        slots = str(AT_ONCE)
        await horde.worker("words", "--dry-run", f"text:model={DRY_RUN}", "--slots", slots)
        gateway = await Gateway.start(horde, "gateway")
        async with aiohttp.ClientSession() as session, horde.client() as client:
            server = Server(session, gateway.url, gateway.bearer)
            calls = await _calls(bench, server, client)
            why = lacking("xllamacpp", SMOLLM2_PACKAGE)
            watched = psutil.Process(gateway.process.process.pid)
            return (_missing(why) if why else await _texts(bench, horde, server, client, watched)) + calls


def _missing(why: str) -> list[Figure]:
    return [
        missing("gateway_first_token_ms", "ms", "later than from the engine's own server", why, FIRST),
        missing("gateway_tokens_ratio", "times", "gateway to the engine's own server", why, RATE),
    ]


async def _texts(bench: Bench, horde: Horde, server: Server, client: Client, gateway: psutil.Process) -> list[Figure]:
    """Long texts of the real engine, by three ways in turn."""
    cpu_ms: list[float] = []
    alone: list[Text] = []
    without: list[Text] = []
    through: list[Text] = []
    tokens = bench.scale.tokens
    await horde.worker("texts", "--text", SMOLLM2_MODEL)
    async with children(horde.folder, "bare", 1) as (bare,):
        own = await bare.ask("serve_text")
        engine = Server(server.session, own["url"], {"Authorization": f"Bearer {own['key']}"})
        for number in range(bench.scale.texts * bench.scale.repetitions + 1):
            bench.say(f"gateway: {number} of {bench.scale.texts * bench.scale.repetitions}")
            found = [await engine.text(tokens, number), await _by_client(client, tokens, number)]
            before = cpu_s(gateway)
            found.append(await server.text(tokens, number))
            used = cpu_s(gateway) - before
            if number:  # the first one warms up
                cpu_ms.append(used * 1000 / found[-1].tokens)
                for ones, one in zip((alone, without, through), found, strict=True):
                    ones.append(one)
    rate, own_rate, bare_rate = ([text.rate for text in texts] for texts in (through, without, alone))
    return [
        Figure(
            "gateway_first_token_ms", "ms", "later than from the engine's own server", _later(through, alone), FIRST
        ),
        Figure("gateway_own_first_token_ms", "ms", "of that, later than by a client", _later(through, without)),
        Figure("gateway_tokens_per_s", "tokens/s", "through /v1, behind the first", rate),
        Figure("server_tokens_per_s", "tokens/s", "the engine's own server, behind the first", bare_rate),
        Figure("gateway_tokens_ratio", "times", "gateway to the engine's own server", ratios(rate, bare_rate), RATE),
        Figure("gateway_own_tokens_ratio", "times", "gateway to a client", ratios(rate, own_rate)),
        Figure("gateway_cpu_ms_per_token", "ms", "CPU of the gateway's process, by a clock of 10 ms a text", cpu_ms),
    ]


def _later(ones: list[Text], others: list[Text]) -> list[float]:
    return [(one.first_s - other.first_s) * 1000 for one, other in zip(ones, others, strict=True)]


async def _by_client(client: Client, tokens: int, seed: int) -> Text:
    began = time.perf_counter()
    first = last = 0.0
    made = 0
    asked = client.text(
        PROMPT, models=(SMOLLM2_MODEL,), max_tokens=tokens, temperature=0, seed=seed, top_k=40, top_p=1, min_p=0
    )
    async for event in asked:
        match event:
            case TextPiece():
                last = time.perf_counter()
                first = first or last
            case Progress(done=done):
                made = done
            case _:
                pass
    return Text(first - began, last - began, made)


async def _calls(bench: Bench, server: Server, client: Client) -> list[Figure]:
    """How many calls a second: of the gateway alone, and short texts of an engine that takes no time."""

    async def models() -> None:
        async with server.session.get(f"{server.url}/v1/models", headers=server.headers) as answer:
            await answer.read()
            answer.raise_for_status()

    async def through() -> None:
        body = {
            "model": DRY_RUN,
            "messages": [{"role": "user", "content": "hello"}],
            "max_tokens": SHORT_TOKENS,
        }
        async with server.session.post(
            f"{server.url}/v1/chat/completions", json=body, headers=server.headers
        ) as answer:
            await answer.read()
            answer.raise_for_status()

    async def without() -> None:
        async for _ in client.text("hello", models=(DRY_RUN,), max_tokens=SHORT_TOKENS, context=1024):
            pass

    listed: list[float] = []
    ours: list[float] = []
    theirs: list[float] = []
    for repetition in range(bench.scale.repetitions + 1):
        bench.say(f"gateway, calls: {repetition} of {bench.scale.repetitions}")
        found = [
            await _per_second(bench.scale.calls, models),
            await _per_second(bench.scale.short_texts, without),
            await _per_second(bench.scale.short_texts, through),
        ]
        if repetition:  # the first one warms up
            for ones, one in zip((listed, theirs, ours), found, strict=True):
                ones.append(one)
    return [
        Figure("gateway_calls_per_s", "1/s", f"GET /v1/models, {AT_ONCE} at once", listed),
        Figure("gateway_texts_per_s", "1/s", f"dry-run texts of {SHORT_TOKENS} tokens, {AT_ONCE} at once", ours),
        Figure("client_texts_per_s", "1/s", "the same by a client, each to its settlement", theirs),
        Figure("gateway_texts_ratio", "times", "gateway to client", ratios(ours, theirs)),
    ]


async def _per_second(count: int, call: Callable[[], Awaitable[None]]) -> float:
    """So many calls, a few of them at once; how many a second."""
    left = iter(range(count))

    async def one_after_the_other() -> None:
        for _ in left:
            await call()

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            _task: Any = group.create_task(one_after_the_other())
    return count / (time.perf_counter() - began)
