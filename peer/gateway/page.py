"""What belongs to no door: a front page, a sign of life, and pictures by their names."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from peer.gateway.door import FILES
from peer.gateway.errors import Trouble
from peer.gateway.files import FOLDER

_FRONT = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Potluck gateway</title></head><body>
<h1>Potluck gateway</h1>
<p>This machine asks a volunteer horde for pictures and texts on behalf of programs that speak one of these:</p>
<table>
<tr><th>API</th><th>base address</th><th>key</th></tr>
<tr><td>OpenAI</td><td>/v1</td><td>Authorization: Bearer KEY</td></tr>
<tr><td>AI Horde v2</td><td>/api/v2</td><td>apikey: KEY</td></tr>
<tr><td>AUTOMATIC1111</td><td>/sdapi/v1</td><td>the password of HTTP's Basic</td></tr>
</table>
<p>KEY is the access key in the gateway's folder, gateway/access-key. docs/gateway.md says more.</p>
</body></html>
"""
_NO_SCRIPT = {"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'"}
#: A picture may be shown by the page of whoever has its name.
_FOR_ALL = {"Cross-Origin-Resource-Policy": "cross-origin", "Content-Security-Policy": "default-src 'none'; sandbox"}


def routes() -> Sequence[web.AbstractRouteDef]:
    """All that is served without a key."""
    return [web.get("/", _front), web.get("/healthz", _alive), web.get(f"{FOLDER}{{name}}", _file)]


def has(path: str) -> bool:
    """Whether a path is one of these."""
    return path in ("/", "/healthz") or path.startswith(FOLDER)


def refuse(trouble: Trouble) -> web.Response:
    """An error where no door is."""
    return web.json_response({"error": trouble.kind, "text": trouble.text}, status=trouble.status)


async def _front(_: web.Request) -> web.Response:
    return web.Response(text=_FRONT, content_type="text/html", headers=_NO_SCRIPT)


async def _alive(_: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


async def _file(request: web.Request) -> web.Response:
    found = request.app[FILES].get(request.match_info["name"])
    if found is None:
        return refuse(Trouble("not_found", "no picture has this name, or it is kept no longer"))
    content, media_type = found
    return web.Response(body=content, content_type=media_type, headers=_FOR_ALL)
