"""What a door is, and what its handlers find in the application and in each request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from aiohttp import web

from peer.gateway.access import Style
from peer.gateway.asks import Caller
from peer.gateway.errors import Trouble
from peer.gateway.files import Files
from peer.gateway.hordes import Hordes
from peer.gateway.running import Registry

HORDES = web.AppKey("HORDES", Hordes)
RUNNING = web.AppKey("RUNNING", Registry)
FILES = web.AppKey("FILES", Files)

#: As whom this request asks; set before any handler runs.
CALLER = web.RequestKey("CALLER", Caller)


class Door(Protocol):
    """A module. All that its handlers raise becomes a `Trouble`, which `refuse` answers; so does whatever is wrong
    before a handler is reached: no key, no such path, a body that is too large."""

    @property
    def NAME(self) -> str:  # noqa: N802 (a module's constant, which nobody sets)
        """What it is called."""
        ...

    @property
    def PREFIXES(self) -> Sequence[str]:  # noqa: N802
        """Paths below these are its own: `/v1`."""
        ...

    @property
    def KEYS(self) -> Style:  # noqa: N802
        """How its clients say their key."""
        ...

    def prepare(self, app: web.Application) -> None:
        """Put what it keeps into the application, under keys of its own."""

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        """All that it answers."""
        ...

    def refuse(self, trouble: Trouble) -> web.Response:
        """An error in this door's form."""
        ...
