"""The door for programs that speak AI Horde's API."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from peer.gateway.access import Style
from peer.gateway.errors import Trouble

NAME = "AI Horde"
PREFIXES = (
    "/api/v2",
    "/v2",
)
KEYS: Style = "apikey"


def prepare(app: web.Application) -> None:
    """Nothing is kept."""


def routes() -> Sequence[web.AbstractRouteDef]:
    """All that this door answers."""
    return []


def refuse(trouble: Trouble) -> web.Response:
    """An error in this door's form."""
    return web.json_response({"message": trouble.text}, status=trouble.status)
