"""Plain TCP between places: what a router really does, before any program of ours is held to it."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass

from tests.nat.net import ELSEWHERE, TRACKER, Network, Place

#: Longer than anything takes here that gets an answer.
NO_ANSWER_SECONDS = 0.7
TRIES = 3

_SO_REUSEPORT = 15  # on Linux, where alone this runs; the `socket` of other systems does not have the name

End = tuple[str, int]


def common_family(one: Place, other: Place) -> int:
    """4 or 6, in which both have addresses; 0 if there is none."""
    return next((family for family in (4, 6) if one.outer(family) and other.outer(family)), 0)


def open_socket(place: Place, family: int, port: int = 0) -> socket.socket:
    """A TCP socket on that machine, bound to a port that others may bind as well."""
    made = place.network.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, _SO_REUSEPORT, 1)
    made.setblocking(False)
    made.bind(("" if family == 4 else "::", port))
    return made


def listener(place: Place, family: int, port: int = 0) -> socket.socket:
    """The same, listening."""
    made = open_socket(place, family, port)
    made.listen(16)
    return made


def port_of(end: socket.socket) -> int:
    """The local port."""
    found: int = end.getsockname()[1]
    return found


async def answer(place: Place, family: int, where: End) -> str:
    """What somebody at this place gets who connects: `connected`, `refused` or `nothing`."""
    with open_socket(place, family) as caller:
        try:
            async with asyncio.timeout(NO_ANSWER_SECONDS):
                await asyncio.get_running_loop().sock_connect(caller, where)
        except ConnectionRefusedError:
            return "refused"
        except TimeoutError:
            return "nothing"
    return "connected"


async def knock(network: Network, home: Place, family: int) -> str:
    """What a stranger gets who connects to a program that listens at this home."""
    with listener(home, family) as waiting:
        return await answer(network[ELSEWHERE], family, (home.outer(family), port_of(waiting)))


async def seen_from(network: Network, home: Place, family: int) -> list[End]:
    """As whom two machines of the street see one local port of this home."""
    with ExitStack() as stack:
        first = stack.enter_context(_Called(network[TRACKER], family))
        second = stack.enter_context(_Called(network[ELSEWHERE], family))
        own = stack.enter_context(open_socket(home, family))
        again = stack.enter_context(open_socket(home, family, port_of(own)))
        return [await first.by(own), await second.by(again)]


class _Called:
    """A machine that others connect to so as to learn as whom it sees them."""

    def __init__(self, place: Place, family: int) -> None:
        self._place, self._family = place, family
        self._listener = listener(place, family)
        self._kept: list[socket.socket] = []

    def __enter__(self) -> _Called:
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._listener, *self._kept):
            each.close()

    async def by(self, caller: socket.socket) -> End:
        """As whom it sees this socket, which stays connected."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(10):
            where = (self._place.outer(self._family), port_of(self._listener))
            _, (accepted, seen) = await asyncio.gather(
                loop.sock_connect(caller, where), loop.sock_accept(self._listener)
            )
        self._kept.append(accepted)
        return seen[0], seen[1]


@dataclass(frozen=True)
class Punched:
    """A hole through which bytes went both ways. tries: how many it took; ms: from the start of the last one."""

    tries: int
    ms: float


async def punch(network: Network, one: Place, other: Place) -> Punched | None:
    """Let both connect to each other at once, from the ports of connections to the tracker, to where the tracker saw
    the other; each listens there as well. None where no connection comes of it."""
    family = common_family(one, other)
    if not family:
        return None
    async with _meeting(network, one, other, family) as (ports, seen):
        for number in range(1, TRIES + 1):
            began = time.monotonic()
            with ExitStack() as stack:
                ends = [
                    stack.enter_context(_Punching(place, family, port, towards))
                    for place, port, towards in zip((one, other), ports, reversed(seen), strict=True)
                ]
                try:
                    async with asyncio.timeout(NO_ANSWER_SECONDS):
                        await _exchange(*await asyncio.gather(*(end.connected() for end in ends)))
                        return Punched(number, (time.monotonic() - began) * 1000)
                except (TimeoutError, OSError):
                    continue
    return None


@asynccontextmanager
async def _meeting(
    network: Network, one: Place, other: Place, family: int
) -> AsyncIterator[tuple[list[int], list[End]]]:
    """The local ports of two connections to the tracker, and as whom it sees them."""
    with ExitStack() as stack:
        tracker = stack.enter_context(_Called(network[TRACKER], family))
        own = [stack.enter_context(open_socket(place, family)) for place in (one, other)]
        seen = [await tracker.by(each) for each in own]
        yield [port_of(each) for each in own], seen


class _Punching:
    """One side: connects from a port, and listens on it."""

    def __init__(self, place: Place, family: int, port: int, towards: End) -> None:
        self._towards = towards
        self._connecting = open_socket(place, family, port)
        self._listening = listener(place, family, port)
        self._accepted: socket.socket | None = None

    def __enter__(self) -> _Punching:
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._connecting, self._listening, self._accepted):
            if each is not None:
                each.close()

    async def connected(self) -> socket.socket:
        """The first socket that is connected, whichever side began."""
        ways = [asyncio.ensure_future(self._connect()), asyncio.ensure_future(self._accept())]
        try:
            for way in asyncio.as_completed(ways):
                try:
                    return await way
                except OSError:  # refused; the other way is open still
                    continue
            raise ConnectionError("neither way")
        finally:
            for each in ways:
                each.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _connect(self) -> socket.socket:
        await asyncio.get_running_loop().sock_connect(self._connecting, self._towards)
        return self._connecting

    async def _accept(self) -> socket.socket:
        self._accepted, _ = await asyncio.get_running_loop().sock_accept(self._listening)
        self._accepted.setblocking(False)
        return self._accepted


async def _exchange(one: socket.socket, other: socket.socket) -> None:
    """Something said by each side is heard by the other."""
    loop = asyncio.get_running_loop()
    for speaker, hearer in ((one, other), (other, one)):
        await loop.sock_sendall(speaker, b"hello")
        if await loop.sock_recv(hearer, 16) != b"hello":
            raise ConnectionError("these two are not connected with each other")


async def say(network: Network, speaker: str, hearer: str, content: bytes) -> None:
    """Send this over plain TCP from one machine to another, until it has arrived whole."""
    loop = asyncio.get_running_loop()
    with listener(network[hearer], 4) as waiting, open_socket(network[speaker], 4) as own:
        await loop.sock_connect(own, (network[hearer].outer4, port_of(waiting)))
        others, _ = await loop.sock_accept(waiting)
        with others:
            others.setblocking(False)
            sending = asyncio.ensure_future(loop.sock_sendall(own, content))
            left = len(content)
            while left:
                left -= len(await loop.sock_recv(others, 65_536))
            await sending
