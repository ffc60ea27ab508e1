"""What calls itself a router may be anybody in the local network."""

from __future__ import annotations

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from peer.paths.mapping import _session


async def test_what_calls_itself_a_router_sends_nobody_elsewhere() -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        if request.path == "/away":
            raise web.HTTPFound("/elsewhere")
        return web.Response(text="a description")

    app = web.Application()
    app.router.add_get("/{path}", answer)
    async with TestServer(app, host="127.0.0.1") as server, _session(str(server.make_url("/description"))) as http:
        async with http.get(server.make_url("/description")) as response:
            assert response.status == 200
        for url in (str(server.make_url("/away")), f"http://localhost:{server.port}/control"):
            with pytest.raises(aiohttp.ClientConnectionError, match="sends us"):
                await http.get(url)

    assert asked == ["/description", "/away"]
