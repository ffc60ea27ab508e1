"""The door for programs that speak AI Horde's API, version 2.

```
bodies     what clients send                      wishes     what that means for a horde
wrong      errors in AI Horde's words             progress   how a request stands
census     models, load and counts                people     accounts and workers
documents  terms, privacy, sponsors               lenient    samplers that a model has not
asking     requests: taken in, looked at, taken back
reading    everything else
```
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from weakref import WeakKeyDictionary

from aiohttp import web

from peer.gateway.access import Style
from peer.gateway.aihorde import asking, reading
from peer.gateway.aihorde.documents import DOCUMENTS
from peer.gateway.aihorde.wrong import refuse

__all__ = ["KEYS", "NAME", "PREFIXES", "prepare", "refuse", "routes"]

NAME = "AI Horde"
PREFIXES = ("/api/v2", "/v2")
KEYS: Style = "apikey"


def prepare(app: web.Application) -> None:
    """Keep what was asked through this door."""
    app[asking.SHOWN] = WeakKeyDictionary()
    app[reading.GIVING] = asyncio.Lock()


def routes() -> Sequence[web.AbstractRouteDef]:
    """All that this door answers, below each of its prefixes."""
    return [route for prefix in PREFIXES for route in (*_requests(prefix), *_publications(prefix), *_people(prefix))]


def _requests(at: str) -> list[web.RouteDef]:
    return [
        web.post(f"{at}/generate/async", asking.ask_image),
        web.get(f"{at}/generate/check/{{id}}", asking.check_image_request),
        web.get(f"{at}/generate/status/{{id}}", asking.image_status),
        web.delete(f"{at}/generate/status/{{id}}", asking.image_status),
        web.post(f"{at}/generate/text/async", asking.ask_text),
        web.get(f"{at}/generate/text/status/{{id}}", asking.text_status),
        web.delete(f"{at}/generate/text/status/{{id}}", asking.text_status),
        web.post(f"{at}/interrogate/async", reading.no_alchemy),
        web.get(f"{at}/interrogate/status/{{id}}", reading.no_alchemy_request),
        web.delete(f"{at}/interrogate/status/{{id}}", reading.no_alchemy_request),
    ]


def _publications(at: str) -> list[web.RouteDef]:
    names = "|".join(DOCUMENTS)
    return [
        web.get(f"{at}/status/heartbeat", reading.heartbeat),
        web.get(f"{at}/status/modes", reading.modes),
        web.get(f"{at}/status/performance", reading.performance),
        web.get(f"{at}/status/models", reading.models),
        web.get(f"{at}/status/models/{{name:.+}}", reading.model),
        web.get(f"{at}/stats/img/totals", reading.image_totals),
        web.get(f"{at}/stats/text/totals", reading.text_totals),
        web.get(f"{at}/stats/{{kind:img|text}}/models", reading.model_totals),
        web.get(f"{at}/documents/{{name:{names}}}", reading.document),
        *[web.get(f"{at}/{empty}", reading.nothing) for empty in _EMPTY],
    ]


#: Lists that clients read at their start, of what a horde has not.
_EMPTY = ("status/news", "teams", "styles/image", "styles/text", "collections")


def _people(at: str) -> list[web.RouteDef]:
    return [
        web.get(f"{at}/find_user", reading.find_user),
        web.get(f"{at}/users", reading.users),
        web.get(f"{at}/users/{{id}}", reading.user),
        web.get(f"{at}/workers", reading.workers),
        web.get(f"{at}/workers/name/{{name}}", reading.worker_by_name),
        web.get(f"{at}/workers/{{id}}", reading.worker),
        web.post(f"{at}/kudos/transfer", reading.give),
    ]
