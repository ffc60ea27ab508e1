"""Hole punching: two peers behind routers connect to each other at the same moment, from ports that the routers know.

Each side opens a connection to the tracker from a local port that it can use again. The tracker sees which outer
address and port that became, tells the other side, and says when both are to start. Then both connect, from that very
local port: to each router the other's first packet is an answer to its own. TCP knows such a simultaneous open; one
connection comes of it. Each listens there too, for its router may let the other's first packet in before its own goes
out.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ipaddress
import logging
import socket
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import aiohttp

from peer.paths.addresses import Address, BadAddress, family_of, is_private, parse_address
from peer.paths.pin import Tls
from protocol.messages import Meet, Punch

MEET_PATH = "/meet"

#: From the tracker's word to the end of the last try.
MEET_SECONDS = 10.0
#: So long one try lasts if no other is told: systems say anew what was lost after one second first, so that a try of
#: one second would end just before a loss is made good, and close what the other side has taken for connected.
TRY_SECONDS = 2.5
#: So long a try waits after a refusal: the other side may start a little later.
AGAIN_SECONDS = 0.05
#: Nobody but the other side is expected.
BACKLOG = 4
#: Nothing is said over this connection; its end is heard.
MAX_MESSAGE_BYTES = 4096

FAMILIES = {0: socket.AF_UNSPEC, 4: socket.AF_INET, 6: socket.AF_INET6}

log = logging.getLogger(__name__)


class NoMeeting(Exception):
    """The two did not come together. reason: a code."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True)
class Meeting:
    """Where and how to meet. url: the tracker's. tls: how its certificate is checked. private_too: the other side may
    be on a private address, for the horde is on one. tries: how many the tracker has announced. family: by which
    version of IP, 0 for any."""

    url: str
    tls: Tls
    token: bytes
    private_too: bool
    tries: int = 1
    family: int = 0


def meeting_of(message: Meet, url: str, tls: Tls, *, private_too: bool) -> Meeting:
    """The meeting to which the tracker invites."""
    return Meeting(url, tls, message.token, private_too, message.tries, message.family)


class LocalPort:
    """A local port from which one connects several times, to several others."""

    def __init__(self) -> None:
        self.family: int | None = None
        self.port = 0

    def new_socket(self, family: int) -> socket.socket:
        """A socket that is bound to it. The first one chooses the port, and each family has one of its own."""
        made = socket.socket(family, socket.SOCK_STREAM)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Linux and macOS want both for two sockets of one port; Windows has only the first, which means as much.
            if (reuse_port := getattr(socket, "SO_REUSEPORT", None)) is not None:
                made.setsockopt(socket.SOL_SOCKET, reuse_port, 1)
            made.bind(("", self.port if family == self.family else 0))
            self.family, self.port = family, made.getsockname()[1]
        except BaseException:
            made.close()
            raise
        return made


class Punching:
    """One side of one meeting. `told` takes the tracker's words; `connect` brings the socket."""

    def __init__(self, meeting: Meeting, *, seconds: float = MEET_SECONDS, try_seconds: float = TRY_SECONDS) -> None:
        self._meeting = meeting
        self._seconds = seconds
        self._try_seconds = try_seconds
        self._told: asyncio.Queue[Punch] = asyncio.Queue(maxsize=16)
        #: Set when there is a try that was told and is not begun.
        self._next = asyncio.Event()
        self._port = LocalPort()
        self._trouble = "no answer"

    def told(self, message: Punch) -> None:
        """The tracker says where to connect to, and when."""
        with contextlib.suppress(asyncio.QueueFull):
            self._told.put_nowait(message)
            self._next.set()

    async def connect(self) -> tuple[socket.socket, Address]:
        """A socket that is connected to the other side, and its address; raises `NoMeeting`."""
        try:
            async with asyncio.timeout(self._seconds):
                return await self._connect()
        except TimeoutError:
            raise NoMeeting("timeout", f"the two did not meet within {self._seconds:g} seconds") from None

    async def _connect(self) -> tuple[socket.socket, Address]:
        trace = aiohttp.TraceConfig()
        trace.on_request_redirect.append(refuse_redirect)
        connector = aiohttp.TCPConnector(
            family=FAMILIES[self._meeting.family],
            socket_factory=lambda info: self._port.new_socket(int(info[0])),
        )
        try:
            async with (
                aiohttp.ClientSession(
                    connector=connector, trace_configs=[trace], cookie_jar=aiohttp.DummyCookieJar()
                ) as http,
                http.ws_connect(
                    f"{self._meeting.url}{MEET_PATH}",
                    params={"token": show_token(self._meeting.token)},
                    ssl=self._meeting.tls,
                    max_msg_size=MAX_MESSAGE_BYTES,
                    compress=0,
                    # The tracker need not agree to the end.
                    timeout=aiohttp.ClientWSTimeout(ws_close=0.0),
                ) as tracker,
            ):
                return await self._meet(tracker)
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(error, TimeoutError):
                raise
            raise NoMeeting("no_meeting", f"{self._meeting.url}: {str(error) or type(error).__name__}") from error

    async def _meet(self, tracker: aiohttp.ClientWebSocketResponse) -> tuple[socket.socket, Address]:
        """Carry out each try that the tracker announces, as long as it is there."""
        hearing = asyncio.create_task(_heard_to_the_end(tracker))
        last = NoMeeting("no_meeting", "the tracker ended the meeting before a try")
        try:
            while True:
                telling = asyncio.create_task(self._told.get())
                try:
                    await asyncio.wait({hearing, telling}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    if not telling.done():
                        telling.cancel()
                if not telling.done():
                    raise last
                message = telling.result()
                if self._told.empty():
                    self._next.clear()
                try:
                    return await self._try(message)
                except NoMeeting as error:
                    last = error
                if message.number >= self._meeting.tries:
                    raise last
        finally:
            hearing.cancel()
            await asyncio.gather(hearing, return_exceptions=True)

    async def _try(self, message: Punch) -> tuple[socket.socket, Address]:
        address = self._checked(message.address)
        family = family_of(address.host)
        if family is None or family != self._port.family:
            raise NoMeeting("no_meeting", f"{address}: of another family than our connection to the tracker")
        with self._port.new_socket(family) as listening:
            listening.setblocking(False)
            listening.listen(BACKLOG)
            delay = message.delay / 1000
            ways = _accept(listening, address.host), self._dial(address, family, delay)
            met = await _first(ways, delay + self._try_seconds, self._next)
        if met is None:
            raise NoMeeting("no_meeting", f"{address}: {self._trouble} (try {message.number})")
        return met, address

    async def _dial(self, address: Address, family: int, delay: float) -> socket.socket:
        """Connect again and again: the other side may start a little later."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(delay)
        while True:
            self._trouble = "no answer"
            connecting = self._port.new_socket(family)
            connecting.setblocking(False)
            try:
                await loop.sock_connect(connecting, (address.host, address.port))
            except OSError as error:
                connecting.close()
                self._trouble = error.strerror or str(error)
                await asyncio.sleep(AGAIN_SECONDS)
            except BaseException:
                connecting.close()
                raise
            else:
                return connecting

    def _checked(self, text: str) -> Address:
        try:
            address = parse_address(text)
        except BadAddress as error:
            raise NoMeeting("bad_address", str(error)) from error
        if family_of(address.host) is None:
            raise NoMeeting("bad_address", f"{address}: a name where the outer address was wanted")
        if is_private(address.host) and not self._meeting.private_too:
            raise NoMeeting("bad_address", f"{address}: a private address in a horde that is not on one")
        return address


def show_token(token: bytes) -> str:
    """A token as it stands in a URL: base32, lower case, no padding."""
    return base64.b32encode(token).decode("ascii").lower().rstrip("=")


async def _accept(listening: socket.socket, host: str) -> socket.socket:
    """The other side may be the first, or its router may give it another port for us than for the tracker."""
    loop = asyncio.get_running_loop()
    while True:
        accepted, address = await loop.sock_accept(listening)
        if ipaddress.ip_address(address[0].partition("%")[0]) == ipaddress.ip_address(host):
            return accepted
        accepted.close()


async def _first(
    ways: tuple[Coroutine[Any, Any, socket.socket], ...], seconds: float, ended: asyncio.Event
) -> socket.socket | None:
    """What the first of these brings within this time, and before `ended`; what another one brings too is closed."""
    tasks = [asyncio.ensure_future(way) for way in ways]
    ending = asyncio.ensure_future(ended.wait())
    taken: socket.socket | None = None
    try:
        await asyncio.wait({*tasks, ending}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        taken = next((task.result() for task in tasks if task.done() and task.exception() is None), None)
    finally:
        for task in (*tasks, ending):
            task.cancel()
        for outcome in await asyncio.gather(*tasks, ending, return_exceptions=True):
            if isinstance(outcome, socket.socket) and outcome is not taken:
                outcome.close()
    return taken


async def _heard_to_the_end(tracker: aiohttp.ClientWebSocketResponse) -> None:
    """Answer the tracker's pings, by which it measures how far away we are, until it ends the meeting."""
    async for _ in tracker:
        pass


async def refuse_redirect(
    _session: aiohttp.ClientSession, _context: object, _params: aiohttp.TraceRequestRedirectParams
) -> None:
    """Nobody is sent elsewhere from the tracker's address."""
    raise aiohttp.ClientConnectionError("the tracker's address sends elsewhere")
