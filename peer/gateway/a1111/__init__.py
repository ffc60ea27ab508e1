"""The door for programs that speak Automatic1111's API."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from peer.gateway.access import Style
from peer.gateway.errors import Trouble

NAME = "Automatic1111"
PREFIXES = ("/sdapi/v1",)
KEYS: Style = "basic"


def prepare(app: web.Application) -> None:
    """Nothing is kept."""


def routes() -> Sequence[web.AbstractRouteDef]:
    """All that this door answers."""
    return []


def refuse(trouble: Trouble) -> web.Response:
    """An error in this door's form."""
    return web.json_response({"message": trouble.text}, status=trouble.status)
