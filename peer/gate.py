"""The gate before a worker's streams: one connection from its first moment, through TLS, to the HTTP behind it.

Connections are counted before their handshake, so that those which never finish it count too; each part of a
connection's life that could stand still has a time of its own.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, cast

#: Connections at once, of everybody and of one address (IPv6: of one /64).
MAX_CONNECTIONS = 512
MAX_OF_ONE_ADDRESS = 128
HANDSHAKE_SECONDS = 8.0
#: So long the other side may take to agree to the end of TLS.
GOODBYE_SECONDS = 1.0
#: After a connection that could not be accepted.
ACCEPT_AGAIN_SECONDS = 0.1
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


class House:
    """Accepts connections on one socket, takes those that were made otherwise, and lets each in through its gate.

    Connections are accepted here and not by a server of the loop, so that each is counted, by its address, before its
    handshake, and no longer than it lasts. behind: makes the HTTP protocol of a connection.
    """

    def __init__(
        self,
        listening: socket.socket,
        context: ssl.SSLContext,
        behind: Callable[[], asyncio.Protocol],
        places: Places,
        *,
        stall_seconds: float = STALL_SECONDS,
        handshake_seconds: float = HANDSHAKE_SECONDS,
    ) -> None:
        listening.setblocking(False)
        self.port: int = listening.getsockname()[1]
        self._listening = listening
        self._context = context
        self._behind = behind
        self._places = places
        self._stall_seconds = stall_seconds
        self._handshake_seconds = handshake_seconds
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def open(self) -> None:
        """Begin to accept."""
        _ = self._spawn(self._accept())

    async def close(self) -> None:
        """Accept no more, and end the handshakes that are under way."""
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._listening.close()

    def take(self, connection: socket.socket, household: str) -> bool:
        """Let in a connection that was made otherwise, as if it had been accepted here: it is ours from now on. False,
        and closed, if there is no place left for its household."""
        if self._closed or not self._places.enter(household):
            connection.close()
            return False
        connection.setblocking(False)
        gate = Gate(self._behind(), lambda: self._places.leave(household), self._stall_seconds)

        def over(_: object) -> None:  # also where the task was cancelled before it began
            if not gate.is_open:
                gate.leave()
                connection.close()

        self._spawn(self._let_in(connection, gate)).add_done_callback(over)
        return True

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(self._listening)
            except OSError as error:  # no file is left to open, or the other side is gone already
                log.debug("a connection was not accepted: %s", error)
                await asyncio.sleep(ACCEPT_AGAIN_SECONDS)
                continue
            self.take(connection, household_of(address[0]))

    async def _let_in(self, connection: socket.socket, gate: Gate) -> None:
        """The handshake."""
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: gate,
                connection,
                ssl=self._context,
                ssl_handshake_timeout=self._handshake_seconds,
                ssl_shutdown_timeout=GOODBYE_SECONDS,
            )
        except (OSError, ssl.SSLError) as error:
            log.debug("a reader did not finish its handshake: %s", error)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class Gate(asyncio.Protocol):
    """One connection behind its handshake: passes everything on, and cuts off a reader that does not read.

    leave: called once, when the connection is over. `is_open` from the end of the handshake on.
    """

    def __init__(self, inner: asyncio.Protocol, leave: Callable[[], None], stall_seconds: float) -> None:
        self.is_open = False
        self._inner = inner
        self._on_leave: Callable[[], None] | None = leave
        self._stall_seconds = stall_seconds
        self._transport: asyncio.Transport | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._waiting = 0

    def leave(self) -> None:
        """Give the place back."""
        on_leave, self._on_leave = self._on_leave, None
        if on_leave is not None:
            on_leave()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The handshake is done."""
        self.is_open = True
        self._transport = cast("asyncio.Transport", transport)
        self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass on, and give the place back."""
        self._wait_no_more()
        self.leave()
        self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Pass on."""
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """Pass on."""
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        """Pass on; from now on the reader is waited for."""
        self._inner.pause_writing()
        self._wait()

    def resume_writing(self) -> None:
        """Pass on."""
        self._wait_no_more()
        self._inner.resume_writing()

    def _wait_no_more(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _wait(self) -> None:
        """Wait for a reader that has to take something of what is there."""
        if self._transport is not None:
            self._waiting = self._transport.get_write_buffer_size()
            self._stall = asyncio.get_running_loop().call_later(self._stall_seconds, self._look)

    def _look(self) -> None:
        assert self._transport is not None  # noqa: S101 (waited for)
        if self._transport.get_write_buffer_size() < self._waiting:
            self._wait()
            return
        self._stall = None
        log.info("a reader took nothing for %s s and was cut off", self._stall_seconds)
        self._transport.abort()
