"""How the tracker answers over HTTP."""

from __future__ import annotations

import msgspec
from aiohttp import web


def answer(content: object, status: int = 200) -> web.Response:
    """An answer in JSON that people can read as it is."""
    body = msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"
    return web.Response(body=body, status=status, content_type="application/json")
