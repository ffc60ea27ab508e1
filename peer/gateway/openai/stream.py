"""A stream of server-sent events to one client."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Self

from aiohttp import web

from peer.gateway.openai.lines import WAITING

#: When so long nothing was said, a comment is, so that neither the client nor a proxy takes us for dead.
ALIVE_SECONDS = 10.0


class Stream:
    """Begins with the first thing that is said, so that whatever goes wrong before that is answered with its status.

    Use it as an async context manager. While nothing comes of a job it says that it is alive, which begins it too.
    """

    def __init__(
        self, request: web.Request, headers: Mapping[str, str] | None = None, alive_seconds: float = ALIVE_SECONDS
    ) -> None:
        self.response = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream; charset=utf-8",
                # nginx and those that took after it keep back what comes, unless told so.
                "X-Accel-Buffering": "no",
                **(headers or {}),
            }
        )
        self._request = request
        self._alive_seconds = alive_seconds
        self._turn = asyncio.Lock()
        self._said = False

    @property
    def begun(self) -> bool:
        """Whether the client has its status already."""
        return self.response.prepared

    async def say(self, data: bytes) -> None:
        """Send these bytes now."""
        if not self.response.prepared:
            await self._begin()
        self._said = True
        await self.response.write(data)

    async def _begin(self) -> None:
        async with self._turn:
            if not self.response.prepared:
                await self.response.prepare(self._request)

    async def _live(self) -> None:
        while True:
            await asyncio.sleep(self._alive_seconds)
            if not self._said:
                await self.say(WAITING)
            self._said = False

    async def __aenter__(self) -> Self:
        self._living = asyncio.create_task(self._live())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._living.cancel()
        # Also how it failed is of no interest: the client is gone, and whoever writes next finds out.
        await asyncio.gather(self._living, return_exceptions=True)
