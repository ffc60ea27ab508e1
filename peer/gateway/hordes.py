"""The hordes that the gateway asks: a client of each, as ourselves and as nobody, opened when it is first needed."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import TYPE_CHECKING, Any

from peer.client import Client, system_clock
from peer.events import Event
from peer.gateway.asks import Ask, Caller
from peer.gateway.catalogue import Catalogue
from peer.home import Home
from protocol.links import Link
from protocol.rules import Rules

if TYPE_CHECKING:
    from types import TracebackType


class Hordes:
    """links: by the names they were joined under, in the order in which they are asked. An async context manager.

    Leaving it cancels what is under way, and waits for what is being settled.
    """

    def __init__(
        self,
        links: Mapping[str, Link],
        home: Home,
        *,
        insecure: bool = False,
        relays_only: bool = False,
        clock: Callable[[], int] = system_clock,
        random: random.Random | None = None,
    ) -> None:
        self.links = dict(links)

    async def __aenter__(self) -> Hordes:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    async def catalogue(self) -> Catalogue:
        """What the hordes serve, at most a few seconds old."""
        raise NotImplementedError

    def ask(self, caller: Caller, ask: Ask, *, to_the_end: bool = False) -> AsyncGenerator[Event, None]:
        """Send an ask to the horde that serves it; what happens to it. Ends with the last result's `Received`, or, with
        `to_the_end`, with its `Settled`. Closing it earlier cancels what is not done.

        Raises, at the first event, whatever `trouble` knows.
        """
        raise NotImplementedError

    async def client(self, caller: Caller, horde: str = "") -> Client:
        """The client of this horde, or of the first; raises `Unreachable`, or `Troubled` for an unknown name."""
        raise NotImplementedError

    async def rules(self, caller: Caller, horde: str = "") -> Rules:
        """The rules of this horde, or of the first."""
        raise NotImplementedError

    async def scraped(self, horde: str = "", what: str = "scrape") -> dict[str, Any]:
        """What the horde's tracker publishes at this address, at most a few seconds old."""
        raise NotImplementedError
