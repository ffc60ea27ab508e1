"""Web servers of strangers: they give out the pages of this folder, and know nothing of a gateway but its address."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from tests.clients.frame import DEEP_CHAT, PAGES

LOOPBACK = "127.0.0.1"


class Site:
    """One server. config: what its page finds as config.json; set before a browser comes."""

    def __init__(self) -> None:
        self.config: dict[str, Any] = {}
        self.port = 0

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator[Site]:
        """It serves within the block, on any port."""
        site = cls()
        app = web.Application()
        app.router.add_get("/config.json", site.configured)
        app.router.add_post("/bounce/{path:.*}", site.bounce)
        app.router.add_static("/deep-chat/", DEEP_CHAT)
        app.router.add_static("/", PAGES)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, LOOPBACK, 0).start()
            site.port = runner.addresses[0][1]
            yield site
        finally:
            await runner.cleanup()

    def at(self, host: str) -> str:
        """Its origin, by this name."""
        return f"http://{host}:{self.port}"

    async def configured(self, _: web.Request) -> web.Response:
        """What the page is to know."""
        return web.json_response(self.config)

    async def bounce(self, request: web.Request) -> web.Response:
        """Send a browser on to the gateway, with all that it had sent here."""
        raise web.HTTPTemporaryRedirect(f"{self.config['gateway']}/{request.match_info['path']}")


def folder_of(config: dict[str, Any], folder: Any) -> str:
    """A copy of the hostile page with its configuration, for a name that is answered from it; where."""
    for name in ("hostile.html", "hostile.js"):
        (folder / name).write_bytes((PAGES / name).read_bytes())
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    return str(folder)
