"""Who is at the door: how many connections each address has, and whether those that are here get on.

An address is what the connection comes from, or what a proxy that the operator trusts says of it (`tracker.forwarded`).
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections import Counter
from collections.abc import Callable
from typing import cast

from aiohttp import web

from tracker.forwarded import NOBODY, Client, IPAddress, Trust, parse_address
from tracker.pace import LOOK_SECONDS, Pace

log = logging.getLogger(__name__)

#: What stands for a connection that has no address that could be read.
UNKNOWN = "unknown"

#: For each connection that an address may have at once, it may make so many in a minute.
TURNS_A_MINUTE = 20

REFUSAL = (
    b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"
    b"over_limit: this address has as many connections here as the rule limits.connections allows: close some; if none"
    b" is left to close, it made too many in this minute: try again when the minute is over\n"
)


def block_of(address: IPAddress | None) -> str:
    """The address block for which limits and fairness count people without an account; loopback is one block."""
    if address is None:
        return UNKNOWN
    if address.is_loopback:
        return str(address)
    bits = 24 if address.version == 4 else 48
    return str(ipaddress.ip_network((address, bits), strict=False))


def household_of(address: IPAddress | None) -> str:
    """What connections are counted for: an IPv4 address, or the /64 that one IPv6 subscriber has at least."""
    if address is None:
        return UNKNOWN
    return str(address) if address.version == 4 else str(ipaddress.ip_network((address, 64), strict=False))


class Places:
    """How many connections each address has and made in this minute, and whether it may have one more."""

    def __init__(self, limit: Callable[[], int]) -> None:
        self._limit = limit
        self._taken: Counter[str] = Counter()
        self._made: Counter[str] = Counter()
        self._minute = 0

    def enter(self, household: str, now: float) -> bool:
        """Take a place at `now` (seconds); False if this address has none left, or comes too often."""
        minute = int(now // 60)
        if minute != self._minute:
            self._minute = minute
            self._made.clear()
        limit = self._limit()
        if self._taken[household] >= limit or self._made[household] >= TURNS_A_MINUTE * limit:
            return False
        self._taken[household] += 1
        self._made[household] += 1
        return True

    def leave(self, household: str) -> None:
        """Give a place back."""
        self._taken[household] -= 1
        if not self._taken[household]:
            del self._taken[household]

    def __len__(self) -> int:
        return self._taken.total()


class Rounds:
    """Looks at every door now and then, by one timer for all of them."""

    def __init__(self) -> None:
        self._doors: set[Door] = set()
        self._next: asyncio.TimerHandle | None = None

    def add(self, door: Door) -> None:
        """Look at this one too."""
        self._doors.add(door)
        if self._next is None:
            self._next = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._go)

    def remove(self, door: Door) -> None:
        """Look at it no more."""
        self._doors.discard(door)
        if not self._doors and self._next is not None:
            self._next.cancel()
            self._next = None

    def _go(self) -> None:
        self._next = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._go)
        for door in list(self._doors):
            door.look()


class Door(asyncio.Protocol):
    """Stands before the HTTP protocol of one connection: counts it from its first moment, and sees that it gets on.

    A proxy's connections are not counted here, but by the addresses that it names. opened: when it came, by the
    loop's clock; 0 before. source: from where the connection comes. arrival: the same, and for whom a place is taken
    already, where that was found out before (`tracker.porch`); the door gives the place back.
    """

    __slots__ = (
        "_behind",
        "_clock",
        "_household",
        "_inner",
        "_is_counted",
        "_largest",
        "_last",
        "_pace",
        "_places",
        "_rounds",
        "_too_large",
        "_transport",
        "opened",
        "source",
        "trust",
    )

    def __init__(
        self,
        behind: Callable[[], asyncio.Protocol],
        places: Places,
        trust: Trust,
        rounds: Rounds,
        arrival: tuple[Client, str] | None = None,
    ) -> None:
        self.opened = 0.0
        self.source, self._household = arrival or (NOBODY, "")
        self.trust = trust
        self._is_counted = arrival is not None
        self._behind = behind
        self._inner: asyncio.Protocol | None = None
        self._places = places
        self._pace = Pace()
        self._rounds = rounds
        self._clock: Callable[[], float] = asyncio.get_running_loop().time
        self._transport: asyncio.Transport | None = None
        self._last = b""
        self._largest: Callable[[], int] | None = None
        self._too_large: Callable[[int], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let the connection in, or turn it away with a word."""
        self._transport = cast("asyncio.Transport", transport)
        self.opened = self._clock()
        self._rounds.add(self)
        if not self._is_counted:
            self.source = source_of(transport.get_extra_info("peername"))
            if not self.trust.covers(self.source.address):
                household = household_of(self.source.address)
                if not self._places.enter(household, self.opened):
                    self._transport.write(REFUSAL)
                    self._transport.close()
                    return
                self._household = household
        self._inner = self._behind()
        self._inner.connection_made(transport)

    def upgraded(self, largest: Callable[[], int], too_large: Callable[[int], None]) -> None:
        """What comes from here on are the frames of a WebSocket.

        largest: how large a message may be at the moment. too_large: called once with the size of one that is larger;
        nothing is read behind it.
        """
        self._largest, self._too_large = largest, too_large
        self._pace.upgraded()

    @property
    def spoke_early(self) -> bool:
        """Whether something came behind the head of the request that was read last."""
        return self._last != b"\r\n\r\n"

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the place back."""
        self._rounds.remove(self)
        if self._household:
            self._places.leave(self._household)
        if self._inner is not None:
            self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Pass on, as long as it is not too much."""
        if self._inner is None:
            return
        if self._largest is None:
            self._last = (self._last + data[-4:])[-4:]
        elif self._too_large is None:
            return
        elif (size := self._pace.heard(data, self._clock())) > self._largest():
            too_large, self._too_large = self._too_large, None
            too_large(size)
            return
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """Pass on."""
        return self._inner.eof_received() if self._inner is not None else None

    def pause_writing(self) -> None:
        """Pass on; from now on the reader is waited for."""
        if self._transport is not None:
            self._pace.paused(self._transport.get_write_buffer_size(), self._clock())
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass on."""
        self._pace.resumed()
        if self._inner is not None:
            self._inner.resume_writing()

    def look(self) -> None:
        """Cut the connection off if it has stood still for too long."""
        transport = self._transport
        assert transport is not None  # noqa: S101 (set before the rounds know of this door)
        # asyncio's TLS answers no other question after it was closed twice; whatever is closing has to be gone soon.
        closing = transport.is_closing()
        reason = self._pace.overdue(
            self._clock(),
            waiting=0 if closing else transport.get_write_buffer_size(),
            reads=not closing and transport.is_reading(),
            closing=closing,
        )
        if reason:
            log.info("cuts a connection off: %s", reason)
            transport.abort()


def source_of(peername: object) -> Client:
    """Where a socket says that its connection comes from."""
    if not isinstance(peername, tuple) or len(peername) < 2:
        return NOBODY
    return Client(parse_address(str(peername[0])), peername[1] or None)


def client_of(request: web.BaseRequest) -> Client:
    """Who makes this request, address and port, as far as those who are trusted say so."""
    door = door_of(request)
    return door.trust.client(door.source, request.headers.getall(door.trust.header, [])) if door else NOBODY


def door_of(request: web.BaseRequest) -> Door | None:
    """The door through which this request came; None if its connection is gone."""
    door = request.transport.get_protocol() if request.transport else None
    return door if isinstance(door, Door) else None
