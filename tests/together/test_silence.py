"""Whoever says nothing, half of something, or something without an end is cut off, at a real tracker and at a real
worker, with the settings that ship; whoever is merely quiet is not.

The times are looked at where they are set (tests/tracker/test_pace.py, tests/peer/test_gate.py): here it is seen that
each of these connections ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from protocol.messages import AskAccount
from tests.fuzz.seeds import UPGRADE, web_frame
from tests.support.door import Door
from tests.support.horde import Horde
from tests.support.raw_peer import RawPeer, a_picture

pytestmark = pytest.mark.ci_slow

#: A guard against hanging, not a claim about speed.
PATIENCE_S = 90.0
#: Between two bytes of what never ends.
TRICKLE_S = 0.5

HEAD = b"GET /scrape HTTP/1.1\r\nHost: x\r\n"
OPENING = b"POST /stream HTTP/1.1\r\nHost: x\r\n"
LARGE = b"\x82\xff" + (2**40).to_bytes(8, "big") + bytes(4)


@dataclass
class Caller:
    """One connection to somewhere."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ended(self, more: Iterator[bytes]) -> bool:
        """Whether the other side hangs up, while `more` is sent to it, piece by piece."""
        async with asyncio.timeout(PATIENCE_S):
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                while True:
                    try:
                        if not await asyncio.wait_for(self.reader.read(65_536), TRICKLE_S):
                            return True
                    except TimeoutError:
                        self.writer.write(next(more, b""))
        return True


@asynccontextmanager
async def calling(host: str, port: int, context: ssl.SSLContext | None = None) -> AsyncIterator[Caller]:
    reader, writer = await asyncio.open_connection(host, port, ssl=context)
    try:
        yield Caller(reader, writer)
    finally:
        writer.transport.abort()


def endless(piece: bytes) -> Iterator[bytes]:
    return itertools.repeat(piece)


def unsigned() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


#: What is said first, and what follows for ever.
AT_TRACKER: dict[str, tuple[bytes, bytes]] = {
    "nothing": (b"", b""),
    "half a head": (HEAD, b""),
    "a head that never ends": (HEAD + b"X: ", b"x"),
    "a body that never ends": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n", b"x"),
    "chunks that never end": (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "no hello": (UPGRADE, b""),
    "half a frame": (UPGRADE, b"\x82"),
    "a frame that never ends": (UPGRADE, LARGE),
    "a message that never ends": (UPGRADE, web_frame(b"x", 2, last=False) + web_frame(b"", 9)),
}
AT_WORKER: dict[str, tuple[bytes, bytes]] = {
    "nothing": (b"", b""),
    "half a head": (OPENING, b""),
    "a head that never ends": (OPENING + b"X: ", b"x"),
    "half a body": (OPENING + b"Content-Length: 1000\r\n\r\nbegun", b""),
    "a body that never ends": (OPENING + b"Content-Length: 100000\r\n\r\n", b"x"),
    "chunks that never end": (OPENING + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
}
BEFORE_TLS: dict[str, tuple[bytes, bytes]] = {
    "nothing": (b"", b""),
    "half a handshake": (b"\x16\x03\x01\x02\x00\x01\x00", b""),
    "a handshake that never ends": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"x"),
}


async def cut_off(host: str, port: int, said: tuple[bytes, bytes], context: ssl.SSLContext | None = None) -> bool:
    """Whether who says this is cut off."""
    async with calling(host, port, context) as caller:
        first, then = said
        caller.writer.write(first)
        if first != UPGRADE:
            return await caller.ended(endless(then))
        async with asyncio.timeout(PATIENCE_S):
            await caller.reader.readuntil(b"\r\n\r\n")  # who speaks before is not let in at all
        pieces = itertools.chain([then], endless(then if then.startswith(b"\x02") else b"x" if then else b""))
        return await caller.ended(pieces)


async def takes_nothing(host: str, port: int) -> bool:
    """Whether who asks and asks, and reads nothing of the answers, is cut off."""
    async with calling(host, port) as caller, asyncio.timeout(PATIENCE_S):
        caller.writer.transport.pause_reading()  # type: ignore[attr-defined]
        with contextlib.suppress(ConnectionError):
            while True:
                caller.writer.write(b"GET /rules HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
                await caller.writer.drain()
    return True


async def after_hello(horde: Horde, said: bytes, then: bytes) -> bool:
    """Whether a peer that was welcomed, and that answers every ping, is cut off."""
    assert horde.link is not None
    async with RawPeer.open(horde.link) as peer:
        connection = peer._socket._conn
        assert connection is not None
        transport = connection.transport
        assert transport is not None
        transport.write(said)
        ending = asyncio.create_task(peer.closed())
        async with asyncio.timeout(PATIENCE_S):
            while not (await asyncio.wait([ending], timeout=TRICKLE_S))[0]:
                transport.write(then)
        await ending
    return True


async def all_of(ends: dict[str, Awaitable[bool]]) -> None:
    found = await asyncio.gather(*ends.values(), return_exceptions=True)
    assert dict(zip(ends, found, strict=True)) == dict.fromkeys(ends, True)


def each(
    table: dict[str, tuple[bytes, bytes]], call: Callable[[tuple[bytes, bytes]], Awaitable[bool]]
) -> dict[str, Awaitable[bool]]:
    return {what: call(said) for what, said in table.items()}


async def test_whoever_keeps_a_tracker_waiting_is_cut_off_and_whoever_is_quiet_is_not(tmp_path: Path) -> None:
    async with Horde.open(tmp_path) as horde:
        assert horde.link is not None
        host, port = horde.link.url.removeprefix("ws://").split(":")
        place = (host, int(port))
        async with RawPeer.open(horde.link) as quiet:
            ends = each(AT_TRACKER, lambda said: cut_off(*place, said))
            ends["a reader that takes nothing"] = takes_nothing(*place)
            ends["a frame that never ends, after hello"] = after_hello(
                horde, b"\x82\xff" + bytes(4) + b"\x00\x01", b"x"
            )
            fragment = web_frame(b"x", 2, last=False)
            ends["a message that never ends, after hello"] = after_hello(
                horde, fragment, web_frame(b"x", 0, last=False)
            )
            ends["a frame too large, after hello"] = after_hello(horde, LARGE, b"")
            await all_of(ends)
            await quiet.say(AskAccount())
            await quiet.envelope("account")
        assert (await horde.scrape())["peers"] == 0


async def test_whoever_keeps_a_worker_waiting_is_cut_off_and_it_serves_on(tmp_path: Path) -> None:
    async with Horde.open(tmp_path) as horde:
        assert horde.link is not None
        await horde.worker("ann", "--dry-run", "image:model=real")
        async with RawPeer.open(horde.link) as requester:
            door = await Door.found(requester, await requester.ask(*a_picture("real", steps=2)))
            host, _, port = door.record.addresses[0].rpartition(":")
            place = (host.strip("[]"), int(port))
            within = each(AT_WORKER, lambda said: cut_off(*place, said, unsigned()))
            before = each(BEFORE_TLS, lambda said: cut_off(*place, said))
            await all_of({f"in TLS: {what}": end for what, end in within.items()} | before)
        async with horde.client() as client:
            events = [event async for event in client.image("a circle", width=64, height=64, steps=3)]
        assert type(events[-1]).__name__ == "Settled"
