"""The direct stream against a bare download: the same bytes, chunks and TLS, both ends in processes of their own."""

from __future__ import annotations

from typing import Any

from tests.bench.control import Child
from tests.bench.figures import Figure, at_least, ratios
from tests.bench.scale import Bench
from tests.bench.stage import children

MB = 1_000_000
SMALL_BYTES = 2_000
AT_ONCE = 4


async def measure(bench: Bench) -> list[Figure]:
    """See the module."""
    scale = bench.scale
    folder = bench.folder / "streams"
    async with children(folder, "ends", 2) as (sender, receiver):
        await sender.ask("serve", folder=str(folder), side=scale.large_side, small=SMALL_BYTES)
        bench.say("streams: a large result")
        ours: list[float] = []
        bare: list[float] = []
        kept: list[float] = []
        size = 0
        for repetition in range(scale.repetitions + 1):
            found = [await _fetch(sender, receiver, what) for what in ("large", "bare", "kept")]
            size = found[0]["bytes"]
            if repetition:  # the first one warms up
                for rates, each in zip((ours, bare, kept), found, strict=True):
                    rates.append(each["bytes"] / each["seconds"] / MB)
        bench.say("streams: small results")
        small = [
            await _fetch(sender, receiver, "small", count=scale.small_results, at_once=AT_ONCE)
            for _ in range(scale.repetitions)
        ]
    what = f"a result of {size / MB:.0f} MB from worker to requester, digest checked"
    note = f"{SMALL_BYTES} bytes each, {AT_ONCE} at once"
    return [
        Figure("stream_mb_per_s", "MB/s", what, ours),
        Figure("bare_download_mb_per_s", "MB/s", "aiohttp alone: the same chunks, certificate and TLS", bare),
        Figure("kept_download_mb_per_s", "MB/s", "the same, by a client that keeps what comes", kept),
        Figure("stream_ratio", "times", "stream to bare download", ratios(ours, bare), at_least(0.8)),
        Figure("stream_ratio_kept", "times", "stream to a bare download that is kept", ratios(ours, kept)),
        Figure(
            "small_results_per_s",
            "results/s",
            f"on reused connections; {note}",
            [scale.small_results / found["seconds"] for found in small],
        ),
        Figure(
            "small_results_handshakes",
            "handshakes",
            f"for {scale.small_results} small results",
            [found["handshakes"] for found in small],
            about={"at_once": AT_ONCE},
        ),
    ]


async def _fetch(sender: Child, receiver: Child, what: str, **about: Any) -> dict[str, Any]:
    """Let the receiver fetch; what it found, and how many handshakes the sender saw."""
    where = await sender.ask("where", what=what)
    found = await receiver.ask("fetch", what=what, where=where, **about)
    after = await sender.ask("where", what=what)
    return {**found, "handshakes": after["handshakes"] - where["handshakes"]}
