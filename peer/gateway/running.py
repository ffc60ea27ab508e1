"""Asks that go on in the background, for doors whose clients poll.

Nobody sees such a client go away. So an ask that nobody asks about is cancelled after a while, and what came of one is
kept for a while; later its name is known, and answered with `gone`.
"""

from __future__ import annotations

from collections.abc import Callable

from peer.client import system_clock
from peer.gateway.asks import Ask, Caller, Results
from peer.gateway.errors import Trouble
from peer.gateway.hordes import Hordes


class Running:
    """One ask in the background. id: an unguessable name (a UUID). results: as far as they are, `results.all`. ended:
    nothing more comes. trouble: why something is missing, then. cancelled: whether that is because of `cancel`."""

    def __init__(self, id: str, caller: Caller, ask: Ask, now: int) -> None:
        self.id = id
        self.caller = caller
        self.ask = ask
        self.since = now
        self.results = Results(ask.n)
        self.ended = False
        self.cancelled = False
        self.trouble: Trouble | None = None

    def cancel(self) -> None:
        """Nobody wants the rest; what is whole stays. Returns at once."""
        raise NotImplementedError

    async def wait(self) -> None:
        """Returns when it has ended."""
        raise NotImplementedError


class Registry:
    """All that is running, and what came of it; an async context manager, whose end cancels."""

    def __init__(self, hordes: Hordes, clock: Callable[[], int] = system_clock) -> None:
        pass

    def start(self, caller: Caller, ask: Ask, id: str = "") -> Running:
        """Begin an ask; raises `Troubled` (`too_many`) if there are too many at once."""
        raise NotImplementedError

    def get(self, id: str) -> Running:
        """The ask of this name, which counts as asked about. Raises `Troubled`: `gone` if it is kept no longer,
        `not_found` if there never was one."""
        raise NotImplementedError

    def all(self, caller: Caller) -> list[Running]:
        """Everything of this caller that is kept, the oldest first."""
        raise NotImplementedError
