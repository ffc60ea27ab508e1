"""The finder of what was said on the wire finds it: in plain TCP, in HTTP, behind the masks of WebSockets."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from tests.nat.capture import Capture, captured, unmasked
from tests.nat.kinds import Kind
from tests.nat.namespaces import NO_NAMESPACES, can_make_namespaces
from tests.nat.net import ELSEWHERE, TRACKER, Network
from tests.nat.probes import listener, open_socket

pytestmark = [pytest.mark.skipif(not can_make_namespaces(), reason=NO_NAMESPACES), pytest.mark.nat]

SECRET = random.Random(1).randbytes(300_000)
HOME = "home"


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    with Network.open(tmp_path, {HOME: Kind.PORT_RESTRICTED}) as made:
        yield made


async def said_over_websockets(network: Network, family: int, *, up: bytes, down: bytes) -> Capture:
    """Say something in both directions over a plain WebSocket to the tracker's machine, captured there."""

    async def answer(request: web.Request) -> web.WebSocketResponse:
        end = web.WebSocketResponse(max_msg_size=2**24)
        await end.prepare(request)
        assert await end.receive_bytes() == up
        await end.send_bytes(down)
        await end.receive()
        return end

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    waiting = listener(network[TRACKER], family)
    await web.SockSite(runner, waiting).start()
    caller = network[HOME] if family == 4 else network[ELSEWHERE]
    connector = aiohttp.TCPConnector(socket_factory=lambda info: open_socket(caller, family))
    host = network[TRACKER].outer(family)
    url = f"http://{host if family == 4 else f'[{host}]'}:{waiting.getsockname()[1]}/"
    with captured(network, TRACKER) as capture:
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.ws_connect(url, max_msg_size=2**24) as end,
        ):
            await end.send_bytes(up)
            assert await end.receive_bytes() == down
        await runner.cleanup()
    return capture


@pytest.mark.parametrize("family", [4, 6])
async def test_what_websockets_say_in_the_clear_is_found_whole_in_both_directions(
    network: Network, family: int
) -> None:
    up, down = SECRET[:150_000], SECRET[150_000:]
    capture = await said_over_websockets(network, family, up=up, down=down)

    for content in (up, down):
        found, looked_for = capture.found(content)
        assert looked_for == len(content) - 15
        assert found == looked_for
    assert capture.found(random.Random(2).randbytes(1_000))[0] == 0


async def test_a_single_window_is_found_also_across_packets(network: Network) -> None:
    loop = asyncio.get_running_loop()
    with (
        captured(network, TRACKER) as capture,
        listener(network[TRACKER], 4) as waiting,
        open_socket(network[HOME], 4) as own,
    ):
        own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await loop.sock_connect(own, (network[TRACKER].outer4, waiting.getsockname()[1]))
        others, _ = await loop.sock_accept(waiting)
        with others:
            for part in (b"xxxx", SECRET[:8], SECRET[8:16], b"yyyy"):
                await loop.sock_sendall(own, part)
                await loop.sock_recv(others, 64)

    assert capture.found(SECRET[:16]) == (1, 1)
    assert capture.found(SECRET[:17]) == (1, 2)
    assert capture.found(SECRET[:17], known=SECRET[:16]) == (0, 1)


def test_frames_of_every_length_are_read() -> None:
    head = b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"
    frames = b"".join(
        (
            b"\x82\x83" + bytes([1, 2, 3, 4]) + bytes([1 ^ 9, 2 ^ 9, 3 ^ 9]),
            b"\x82\x7e\x00\x80" + bytes(128),
            b"\x82\x7f" + (70_000).to_bytes(8, "big") + b"z" * 70_000,
            b"\x89\x00",
        )
    )

    assert unmasked(head + frames) == b"\x09\x09\x09" + bytes(128) + b"z" * 70_000
    assert unmasked(b"no head at all") == b""
    assert unmasked(b"GET / HTTP/1.1\r\n\r\nplain") == b""
