"""A tap in front of the tracker: passes every WebSocket frame on, and keeps a copy of both directions, unmasked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import aiohttp
from aiohttp import web

from protocol.links import Link

WINDOW = 16


@dataclass
class Tap:
    """What went through. link: leads to the tracker by way of the tap."""

    link: Link
    to_tracker: list[bytes] = field(default_factory=list)
    from_tracker: list[bytes] = field(default_factory=list)

    @property
    def everything(self) -> bytes:
        """All frames of both directions, one after the other."""
        return b"\n".join([*self.to_tracker, *self.from_tracker])


def windows(content: bytes) -> set[bytes]:
    """All runs of 16 bytes."""
    return {content[at : at + WINDOW] for at in range(len(content) - WINDOW + 1)}


def leaked(content: bytes, recorded: bytes, known: bytes = b"") -> tuple[int, int]:
    """How many of the 16-byte windows of `content` that `known` does not contain occur in `recorded`, of how many."""
    own = windows(content) - windows(known)
    return len(own & windows(recorded)), len(own)


@asynccontextmanager
async def tapped(link: Link) -> AsyncIterator[Tap]:
    """A tap in front of the tracker behind `link`."""
    tap = Tap(link)

    async def pump(
        source: web.WebSocketResponse | aiohttp.ClientWebSocketResponse, sink: object, kept: list[bytes]
    ) -> None:
        async for message in source:
            if message.type is aiohttp.WSMsgType.BINARY:
                kept.append(message.data)
                await sink.send_bytes(message.data)  # type: ignore[attr-defined]

    async def peer(request: web.Request) -> web.WebSocketResponse:
        down = web.WebSocketResponse(max_msg_size=2**24)
        await down.prepare(request)
        async with aiohttp.ClientSession() as session, session.ws_connect(link.url + "/peer", max_msg_size=2**24) as up:
            pumps = [
                asyncio.create_task(pump(down, up, tap.to_tracker)),
                asyncio.create_task(pump(up, down, tap.from_tracker)),
            ]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for task in pumps:
                task.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        await down.close()
        return down

    app = web.Application()
    app.router.add_get("/peer", peer)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        port = runner.addresses[0][1]
        tap.link = replace(link, url=f"ws://127.0.0.1:{port}")
        yield tap
    finally:
        await runner.cleanup()
