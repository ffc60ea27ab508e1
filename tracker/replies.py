"""Answers over HTTP that hold data."""

from __future__ import annotations

import msgspec
from aiohttp import web


def as_json(content: object, status: int = 200) -> web.Response:
    """The content as JSON that people can read too."""
    body = msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"
    return web.Response(body=body, status=status, content_type="application/json")
