"""The gate before a worker's streams: one connection from its first moment, through TLS, to the HTTP behind it.

Connections are counted before their handshake, so that those which never finish it count too; each part of a
connection's life that could stand still has a time of its own.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import ssl
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

#: Connections at once, of everybody and of one address (IPv6: of one /64).
MAX_CONNECTIONS = 512
MAX_OF_ONE_ADDRESS = 128
HANDSHAKE_SECONDS = 8.0
#: So long the other side may take to agree to the end of TLS.
GOODBYE_SECONDS = 1.0
#: A reader that takes nothing of what waits for it for so long is cut off.
STALL_SECONDS = 60.0

log = logging.getLogger(__name__)


@dataclass
class Places:
    """Who is inside, by household: an IPv4 address, or the /64 that one IPv6 subscriber has at least."""

    of_all: int = MAX_CONNECTIONS
    of_one: int = MAX_OF_ONE_ADDRESS
    _taken: Counter[str] = field(default_factory=Counter)

    def __len__(self) -> int:
        return self._taken.total()

    def enter(self, household: str) -> bool:
        """Take a place; False if there is none left."""
        if len(self) >= self.of_all or self._taken[household] >= self.of_one:
            return False
        self._taken[household] += 1
        return True

    def leave(self, household: str) -> None:
        """Give a place back."""
        self._taken[household] -= 1
        if not self._taken[household]:
            del self._taken[household]


def household_of(host: str) -> str:
    """Whom a connection from this address is counted for."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
    return str(address) if address.version == 4 else str(ipaddress.ip_network((address, 64), strict=False))


@dataclass
class House:
    """What all gates of one server share. behind: makes the HTTP protocol of a connection."""

    behind: Callable[[], asyncio.Protocol]
    context: ssl.SSLContext
    places: Places
    stall_seconds: float = STALL_SECONDS
    handshake_seconds: float = HANDSHAKE_SECONDS
    _arrivals: set[asyncio.Task[None]] = field(default_factory=set)

    def gate(self) -> asyncio.Protocol:
        """The protocol of a new connection."""
        return Gate(self)

    def arrives(self, task: asyncio.Task[None]) -> None:
        """Keep hold of a handshake until it is done."""
        self._arrivals.add(task)
        task.add_done_callback(self._arrivals.discard)

    async def close(self) -> None:
        """End the handshakes that are under way."""
        arrivals = list(self._arrivals)
        for task in arrivals:
            task.cancel()
        await asyncio.gather(*arrivals, return_exceptions=True)


class Gate(asyncio.Protocol):
    """One connection: first the protocol of its plain socket, then, behind TLS, that of what was decrypted."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._household: str | None = None
        self._inner: asyncio.Protocol | None = None
        self._early = bytearray()
        self._transport: asyncio.Transport | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._waiting = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let the connection in to its handshake, or end it at once."""
        plain = cast("asyncio.Transport", transport)
        peer = plain.get_extra_info("peername")
        household = household_of(peer[0]) if isinstance(peer, tuple) else ""
        if not self._house.places.enter(household):
            plain.abort()
            return
        self._household = household
        plain.pause_reading()  # nothing is read before TLS reads it; uvloop begins to read all the same
        self._house.arrives(asyncio.get_running_loop().create_task(self._arrive(plain)))

    async def _arrive(self, plain: asyncio.Transport) -> None:
        """The handshake; what came behind it is passed on."""
        loop = asyncio.get_running_loop()
        shaking = loop.create_task(
            loop.start_tls(
                plain,
                self,
                self._house.context,
                server_side=True,
                ssl_handshake_timeout=self._house.handshake_seconds,
                ssl_shutdown_timeout=GOODBYE_SECONDS,
            )
        )
        try:
            await asyncio.sleep(0)  # it has taken the socket over, and nothing is read until the loop's next turn
            if self._early and not plain.is_closing():
                loop.call_soon(_hand_over, cast("asyncio.BufferedProtocol", plain.get_protocol()), bytes(self._early))
                self._early.clear()
            transport = await shaking
        except (OSError, ssl.SSLError, asyncio.CancelledError) as error:
            log.debug("a reader did not finish its handshake: %s", error)
            shaking.cancel()
            plain.abort()
            self._leave()
            return
        if transport is None or transport.is_closing():  # it went between the handshake and now
            self._leave()
            return
        self._transport = transport
        self._inner = self._house.behind()
        self._inner.connection_made(transport)
        if self._early:
            early, self._early = bytes(self._early), bytearray()
            self._inner.data_received(early)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the place back."""
        self._wait_no_more()
        self._leave()
        if self._inner is not None:
            self._inner.connection_lost(exc)

    def _leave(self) -> None:
        household, self._household = self._household, None
        if household is not None:
            self._house.places.leave(household)

    def data_received(self, data: bytes) -> None:
        """Pass on."""
        if self._inner is not None:
            self._inner.data_received(data)
        else:
            self._early += data

    def eof_received(self) -> bool | None:
        """Pass on."""
        return self._inner.eof_received() if self._inner is not None else None

    def pause_writing(self) -> None:
        """Pass on; from now on the reader is waited for."""
        if self._inner is not None:
            self._inner.pause_writing()
        self._wait()

    def resume_writing(self) -> None:
        """Pass on."""
        self._wait_no_more()
        if self._inner is not None:
            self._inner.resume_writing()

    def _wait_no_more(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _wait(self) -> None:
        """Wait for a reader that has to take something of what is there."""
        if self._transport is not None:
            self._waiting = self._transport.get_write_buffer_size()
            self._stall = asyncio.get_running_loop().call_later(self._house.stall_seconds, self._look)

    def _look(self) -> None:
        assert self._transport is not None  # noqa: S101 (waited for)
        if self._transport.get_write_buffer_size() < self._waiting:
            self._wait()
            return
        self._stall = None
        log.info("a reader took nothing for %s s and was cut off", self._house.stall_seconds)
        self._transport.abort()


def _hand_over(tls: asyncio.BufferedProtocol, early: bytes) -> None:
    """Give TLS the beginning of its handshake, which was read before it could."""
    left = memoryview(early)
    while left:
        room = memoryview(tls.get_buffer(len(left)))
        size = min(len(room), len(left))
        room[:size] = left[:size]
        tls.buffer_updated(size)
        left = left[size:]
