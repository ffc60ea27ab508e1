"""What lies between a connection and HTTP: whom it is for, by a proxy's first word (PROXY protocol), and TLS.

Whoever stops half-way is bounded in time, and holds a place of its address from the first moment that the address is
known.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tracker.doors import REFUSAL, Door, Places, household_of, source_of
from tracker.forwarded import Client, Trust
from tracker.proxy_protocol import BadHeader, client_in, still_wanted

log = logging.getLogger(__name__)

#: A proxy's header must be there within so many seconds, and so must a finished TLS handshake after that.
HEADER_SECONDS = 5.0
HANDSHAKE_SECONDS = 8.0
#: So long the other side may take to agree to the end of TLS.
SHUTDOWN_SECONDS = 3.0
#: So long nobody is let in when the system has no room for one more connection.
BREATH_SECONDS = 1.0
BACKLOG = 1024
#: What the system says of a connection that ended before it was let in, which is to hold up nobody.
_GONE = frozenset({errno.ECONNABORTED, errno.ECONNRESET, errno.EPROTO, errno.EPERM, errno.EHOSTUNREACH})


class CannotListen(Exception):
    """Nothing can listen at the address; the text says why."""


@asynccontextmanager
async def listen(host: str, port: int, door: Callable[[], Door]) -> AsyncIterator[int]:
    """Let people in at this address until the block ends, where nothing comes before HTTP; the port. Raises
    `CannotListen`."""
    try:
        listener = await asyncio.get_running_loop().create_server(door, host, port, backlog=BACKLOG)
    except OSError as error:
        raise _cannot(host, port, error) from error
    try:
        yield int(listener.sockets[0].getsockname()[1])
    finally:
        listener.close()


def _cannot(host: str, port: int, error: OSError) -> CannotListen:
    return CannotListen(f"cannot listen on {host}, port {port}: {error.strerror or error}")


class _Ended(Exception):
    """It went away before it had said what it wanted."""


@dataclass(frozen=True)
class Porch:
    """How connections come in. context: the TLS to speak with those who come now, None for none. proxied: whether
    trusted proxies begin with a PROXY header. door: what stands behind, for somebody whose place is taken already."""

    places: Places
    trust: Trust
    context: Callable[[], ssl.SSLContext | None]
    proxied: bool
    door: Callable[[tuple[Client, str]], Door]

    @asynccontextmanager
    async def listen(self, host: str, port: int) -> AsyncIterator[int]:
        """Let people in at this address until the block ends; the port. Raises `CannotListen`."""
        try:
            listeners = await _listeners(host, port)
        except OSError as error:
            raise _cannot(host, port, error) from error
        tasks: set[asyncio.Task[None]] = set()
        tasks |= {asyncio.create_task(self._let_in(listener, tasks), name="porch") for listener in listeners}
        try:
            yield int(listeners[0].getsockname()[1])
        finally:
            ending = list(tasks)
            for task in ending:
                task.cancel()
            await asyncio.gather(*ending, return_exceptions=True)
            for listener in listeners:
                listener.close()

    async def _let_in(self, listener: socket.socket, tasks: set[asyncio.Task[None]]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, peername = await loop.sock_accept(listener)
            except OSError as error:
                if error.errno not in _GONE:
                    log.warning("nobody can be let in at the moment: %s", error.strerror or error)
                    await asyncio.sleep(BREATH_SECONDS)
                continue
            task = asyncio.create_task(self._greet(sock, source_of(peername)), name="greeting")
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async def _greet(self, sock: socket.socket, source: Client) -> None:
        """Bring one connection to its door, or end it."""
        try:
            arrival = await self._arrive(sock, source)
            if arrival is not None:
                await self._hand_over(sock, arrival)
        except (OSError, BadHeader, _Ended) as error:  # a time-out and TLS's errors too
            log.info("cuts a connection off before its first request: %s", str(error) or type(error).__name__)

    async def _arrive(self, sock: socket.socket, source: Client) -> tuple[Client, str] | None:
        """From where it comes, and for whom a place is taken; None if it was turned away."""
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.proxied and self.trust.covers(source.address):
                async with asyncio.timeout(HEADER_SECONDS):
                    source = await _proxied_source(sock, source)
            household = "" if self.trust.covers(source.address) else household_of(source.address)
            if not household or self.places.enter(household, asyncio.get_running_loop().time()):
                return source, household
            if self.context() is None:
                sock.send(REFUSAL)  # into the empty buffer of a new connection
        except BaseException:
            sock.close()
            raise
        sock.close()
        return None

    async def _hand_over(self, sock: socket.socket, arrival: tuple[Client, str]) -> None:
        """From here on the loop owns the socket, and closes it whatever comes."""
        loop, context, door = asyncio.get_running_loop(), self.context(), self.door(arrival)
        try:
            if context is None:
                await loop.connect_accepted_socket(lambda: door, sock)
            else:
                await loop.connect_accepted_socket(
                    lambda: door,
                    sock,
                    ssl=context,
                    ssl_handshake_timeout=HANDSHAKE_SECONDS,
                    ssl_shutdown_timeout=SHUTDOWN_SECONDS,
                )
        finally:
            _, household = arrival
            if household and not door.opened:  # a door that was opened gives the place back itself
                self.places.leave(household)


async def _proxied_source(sock: socket.socket, proxy: Client) -> Client:
    """For whom a trusted proxy has come, by the header that it sends first; nothing behind that is read."""
    loop = asyncio.get_running_loop()
    header = b""
    while wanted := still_wanted(header):
        more = await loop.sock_recv(sock, wanted)
        if not more:
            raise _Ended("it ended within a PROXY header")
        header += more
    # Of a connection of its own, the proxy's port is nobody's that could be reached.
    return client_in(header) or Client(proxy.address)


async def _listeners(host: str, port: int) -> list[socket.socket]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    listeners: list[socket.socket] = []
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            listener = socket.create_server(address[:2], family=family, backlog=BACKLOG)
            listener.setblocking(False)
            listeners.append(listener)
    except OSError:
        for listener in listeners:
            listener.close()
        raise
    return listeners
