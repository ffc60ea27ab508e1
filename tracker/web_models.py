"""The catalogue over HTTP: `/models` for people and programs, `/models/DIGEST` for who checks it against the rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from protocol.errors import BadValue
from protocol.rules import Rules
from tracker.catalogue import Listing
from tracker.replies import as_json


@dataclass(frozen=True)
class Models:
    """What the handlers share. rules: those in force."""

    listing: Listing
    rules: Callable[[], Rules]


MODELS = web.AppKey("models", Models)


def add_models(app: web.Application, listing: Listing, rules: Callable[[], Rules]) -> None:
    """Have the application answer `/models` and `/models/DIGEST`."""
    app[MODELS] = Models(listing, rules)
    app.add_routes([web.get("/models", _models), web.get(r"/models/{digest:[0-9a-f]{64}}", _published)])


async def _models(request: web.Request) -> web.Response:
    models = request.app[MODELS]
    rules = models.rules().catalogue
    return as_json(
        {
            "listed_only": rules.listed_only,
            "open_only": rules.open_only,
            "digest": rules.digest or None,
            "models": models.listing.catalogue.models,
        }
    )


async def _published(request: web.Request) -> web.Response:
    raw = request.app[MODELS].listing.published(request.match_info["digest"])
    if raw is None:
        text = "no catalogue with this digest is in force: /rules names the one that is"
        return as_json({"code": BadValue.code, "text": text}, status=404)
    # What a digest names never changes.
    headers = {"Cache-Control": "public, max-age=31536000, immutable"}
    return web.Response(body=raw, content_type="application/json", headers=headers)
