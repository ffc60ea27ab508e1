"""The door for programs that speak AUTOMATIC1111's API: /sdapi/v1.

```
wishes     what a client writes, and what is asked of a horde for it
samplers   samplers and schedulers, by that program's names and by ours
desk       what is kept between calls: the chosen model, and what is being painted
infotext   how a picture was made, in the file and in the answer
handlers   the calls
```
"""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from peer.gateway.a1111 import handlers
from peer.gateway.a1111.desk import Desk
from peer.gateway.access import Style
from peer.gateway.errors import Kind, Trouble

NAME = "AUTOMATIC1111"
PREFIXES: Sequence[str] = ("/sdapi/v1",)
KEYS: Style = "basic"

#: That program answers whatever it cannot do with a request as one that does not fit its form.
_STATUSES: dict[Kind, int] = {"bad_value": 422, "unsupported": 422, "too_long": 422, "over_limit": 422}


def prepare(app: web.Application) -> None:
    """Remember nothing yet."""
    app[handlers.DESK] = Desk()


def routes() -> Sequence[web.AbstractRouteDef]:
    """All that this door answers."""
    return handlers.routes(PREFIXES[0])


def refuse(trouble: Trouble) -> web.Response:
    """An error in that program's form."""
    content = {"error": trouble.kind, "detail": trouble.text, "body": "", "errors": trouble.text}
    status = _STATUSES.get(trouble.kind, trouble.status)
    # Clients that were not told to send the key at once send it when they are asked for it.
    headers = {"WWW-Authenticate": 'Basic realm="potluck"'} if trouble.kind == "bad_key" else {}
    if trouble.allowed:
        headers["Allow"] = trouble.allowed
    return web.json_response(content, status=status, headers=headers)
