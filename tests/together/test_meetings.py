"""The meeting place for hole punching, over real sockets: who comes, what is seen of it, and when it is over."""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from protocol.links import Link
from protocol.messages import Meet, Punch
from tests.support.horde import Horde
from tests.support.meeting import Two
from tests.support.raw_peer import PATIENCE_S

pytestmark = pytest.mark.asyncio(loop_scope="module")

RULES = "limits.anonymous_running = 100\n"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def link(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Link]:
    async with Horde.open(tmp_path_factory.mktemp("horde"), RULES) as horde:
        assert horde.link is not None
        yield horde.link


def shown(token: bytes) -> str:
    """A token as it stands in an address."""
    return base64.b32encode(token).decode().rstrip("=").lower()


class AtMeeting:
    """A connection to `/meet`."""

    def __init__(self, sock: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = sock
        self._reading = asyncio.create_task(sock.receive())  # by which pings are answered

    @property
    def address(self) -> str:
        """Where it comes from."""
        host, port = self.socket.get_extra_info("sockname")[:2]
        return f"{host}:{port}"

    @classmethod
    @asynccontextmanager
    async def open(cls, link: Link, token: bytes, header: str = "") -> AsyncIterator[AtMeeting]:
        """header: from where a proxy says that it comes."""
        headers = {"X-Forwarded-For": header} if header else {}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.ws_connect(f"{link.url}/meet?token={shown(token)}") as sock,
        ):
            found = cls(sock)
            try:
                yield found
            finally:
                await found.leave()

    async def leave(self) -> None:
        """End it from this side."""
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        await self.socket.close()

    async def end(self) -> str:
        """Wait for the end; the reason."""
        async with asyncio.timeout(PATIENCE_S):
            message = await self._reading
        assert message.type is aiohttp.WSMsgType.CLOSE
        return str(message.extra)


async def tokens(two: Two) -> tuple[bytes, bytes]:
    """What requester and worker are invited with."""
    await two.ask()
    ours, theirs = await two.requester.expect(Meet), await two.worker.expect(Meet)
    assert (ours.tries, ours.job, ours.attempt) == (3, two.lease.job, two.lease.attempt)
    return ours.token, theirs.token


@asynccontextmanager
async def both(two: Two, link: Link, headers: Sequence[str] = ("", "")) -> AsyncIterator[list[AtMeeting]]:
    """Both at the meeting, answering pings."""
    async with AsyncExitStack() as stack:
        found = [
            await stack.enter_async_context(AtMeeting.open(link, token, header))
            for token, header in zip(await tokens(two), headers, strict=True)
        ]
        yield found


async def test_both_are_told_where_the_other_one_comes_from_and_again_until_there_is_no_try_left(link: Link) -> None:
    async with Two.open(link) as two, both(two, link) as (requester, worker):
        for number in (1, 2, 3):
            ours, theirs = await two.requester.expect(Punch), await two.worker.expect(Punch)
            assert (ours.number, ours.address) == (number, worker.address)
            assert (theirs.number, theirs.address) == (number, requester.address)
            assert ours.delay < 10_000
            assert theirs.delay < 10_000
        assert await requester.end() == await worker.end() == "no_path: no try was left"


async def test_who_has_what_it_wanted_ends_the_meeting(link: Link) -> None:
    async with Two.open(link) as two, both(two, link) as (requester, worker):
        await two.requester.expect(Punch)
        await requester.leave()
        assert await worker.end() == "the other side has ended the meeting"


async def test_a_token_serves_once_and_a_stranger_has_none(link: Link) -> None:
    async with Two.open(link) as two:
        ours, _ = await tokens(two)
        async with AtMeeting.open(link, ours):
            for token in (ours, bytes(16), two.lease.job):
                with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                    async with AtMeeting.open(link, token):
                        pass
                assert refused.value.status == 403


async def test_what_is_no_websocket_uses_a_token_up(link: Link) -> None:
    url = link.url.replace("ws", "http", 1)
    async with Two.open(link) as two, aiohttp.ClientSession() as session:
        ours, theirs = await tokens(two)
        async with session.get(f"{url}/meet?token={shown(ours)}") as answer:
            assert answer.status == 400
        async with session.get(f"{url}/meet?token={shown(theirs)}") as answer:
            assert answer.status == 403
        async with session.get(f"{url}/meet") as answer:
            assert answer.status == 403
            assert (await answer.json())["code"] == "bad_token"


async def test_whoever_says_anything_there_ends_the_meeting(link: Link) -> None:
    async with Two.open(link) as two, both(two, link) as (requester, worker):
        await requester.socket.send_bytes(b"hello")
        assert await worker.end() == "the other side has ended the meeting"


@pytest.mark.slow
async def test_who_answers_no_ping_keeps_nobody_for_ever(link: Link) -> None:
    async with Two.open(link) as two:
        ours, theirs = await tokens(two)
        host, port = link.url.removeprefix("ws://").split(":")
        with socket.create_connection((host, int(port))) as mute:  # a kernel that answers, and nobody behind it
            head = (
                f"GET /meet?token={shown(ours)} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\n"
                "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            )
            mute.sendall(head.encode())
            async with AtMeeting.open(link, theirs) as worker:
                assert (await worker.end()).startswith("no_path")
        assert not any(found.kind == "punch" for found in two.worker.heard)


@pytest.fixture
def proxied_rules() -> str:
    return f'server.trusted_proxies = ["127.0.0.1"]\n{RULES}'


async def test_behind_a_proxy_address_and_port_come_from_its_header(tmp_path: Path, proxied_rules: str) -> None:
    async with Horde.open(tmp_path, proxied_rules) as horde:
        assert horde.link is not None
        link = horde.link
        async with Two.open(link) as two, both(two, link, ("11.0.0.7:5001", "9.9.9.9:1, 11.0.1.7:5002")):
            assert (await two.requester.expect(Punch)).address == "11.0.1.7:5002"
            assert (await two.worker.expect(Punch)).address == "11.0.0.7:5001"
        for headers in (("11.0.0.7", "11.0.1.7:5002"), ("11.0.0.7:5001", ""), ("11.0.0.7:5001", "unknown")):
            async with Two.open(link) as two, both(two, link, headers) as (requester, worker):
                assert "behind a proxy" in await requester.end()
                assert "behind a proxy" in await worker.end()
                assert not any(found.kind == "punch" for found in two.worker.heard)


async def test_a_header_of_a_stranger_is_not_believed(link: Link) -> None:
    async with Two.open(link) as two, both(two, link, ("11.0.0.7:5001", "11.0.1.7:5002")) as (requester, worker):
        assert (await two.requester.expect(Punch)).address == worker.address
        assert (await two.worker.expect(Punch)).address == requester.address
