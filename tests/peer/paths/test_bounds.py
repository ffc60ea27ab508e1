"""Those who stall, go without a word, or do not read: bounded in time and memory on every path."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from peer.output import Output
from peer.paths.choice import Path as Way
from peer.paths.relay_end import RelayEnds, Ticket, Tracker
from peer.spool import Spool
from peer.stream_reader import Answered, StreamBroken
from protocol.messages import Paths
from tests.support.builders import (
    JOB_KEY,
    ROOT,
    SERVING,
    a_lease,
    a_nonce,
    a_public_part,
    a_receipt,
    a_relay_ticket,
    a_request,
    a_salt,
    an_image_work,
    signed,
    some_bytes,
)
from tests.support.horde import until
from tests.support.paths import ATTEMPT, LEASE, Scene, a_scene

LARGE = signed(a_lease(a_request(a_public_part(an_image_work(2048, 2048)))))
CONTENT = some_bytes(16 * 1024 * 1024)


@pytest.fixture
def output(tmp_path: Path) -> Iterator[Output]:
    made = Output(Spool.create(tmp_path / "spool", LARGE))
    made.spool.add_artifact("image/png", CONTENT)
    receipt, salt = signed(a_receipt()), a_salt()
    made.spool.keep_receipt(receipt, salt, "stop")
    made.spool.finish(receipt, salt, "stop")
    yield made
    made.spool.remove()


def ticket_of(scene: Scene) -> Ticket:
    terms = scene.tickets[-1]
    return Ticket(terms, signed(terms))


async def joined(scene: Scene) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """The requester's end of a relayed path, by hand and before TLS."""
    scene.approaches.told(Paths(job=ATTEMPT[0], attempt=ATTEMPT[1], tickets=(ticket_of(scene).envelope.raw,)))
    connection = await scene.requesters_ends.join(ticket_of(scene), JOB_KEY, ROOT.public)
    return await asyncio.open_connection(sock=connection)


async def all_over(scene: Scene) -> None:
    await until(lambda: scene.server.connections == 0, "a place at the worker was not given back")
    await until(lambda: scene.workers_ends.ends == 0, "the worker's end stays open")
    await until(lambda: scene.requesters_ends.ends == 0, "the requester's end stays open")


async def test_an_address_that_takes_the_connection_and_stalls_does_not_hold_up_the_relay(
    tmp_path: Path, output: Output
) -> None:
    async with a_scene(tmp_path, output, reading={"connect_seconds": 0.5}) as scene:
        await scene.relay(max_bytes=2**28)
        door = await scene.door()
        stream = scene.stream(door.port)
        assert isinstance(first := await anext(stream), Answered)
        assert first.path is Way.RELAYED
        await stream.aclose()
        await all_over(scene)


async def test_stalled_tls_on_the_only_path_ends_in_time(tmp_path: Path, output: Output) -> None:
    async with a_scene(tmp_path, output, reading={"connect_seconds": 0.3}) as scene:
        door = await scene.door()
        with pytest.raises(StreamBroken):
            await anext(scene.stream(door.port))


async def test_a_relayed_reader_that_never_begins_tls_gives_its_place_back(tmp_path: Path, output: Output) -> None:
    async with a_scene(tmp_path, output, limits={"handshake_seconds": 0.3}) as scene:
        await scene.relay()
        reader, writer = await joined(scene)

        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()
        await all_over(scene)


async def test_a_relayed_reader_that_does_not_read_is_cut_off_and_costs_buffers_only(
    tmp_path: Path, output: Output
) -> None:
    async with a_scene(tmp_path, output, limits={"stall_seconds": 0.5}) as scene:
        relaying = await scene.relay()
        _, writer = await joined(scene)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        await writer.start_tls(context)
        writer.write(b"POST /stream HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n\r\nopening")
        await until(lambda: scene.desk.openings, "the opening did not arrive")

        await until(lambda: scene.server.connections == 0, "a reader that does not read is waited for")
        assert relaying.rooms.carried < len(CONTENT) // 2, "what nobody reads is carried all the same"
        writer.transport.abort()
        await all_over(scene)
        await until(lambda: relaying.rooms.streams == 0, "the relay keeps the path")


async def test_a_worker_waits_for_a_requester_at_a_relay_for_a_while_only(tmp_path: Path, output: Output) -> None:
    async with a_scene(tmp_path, output, ends={"meet_seconds": 0.3}) as scene:
        await scene.relay()
        scene.approaches.told(Paths(job=ATTEMPT[0], attempt=ATTEMPT[1], tickets=(ticket_of(scene).envelope.raw,)))

        await until(lambda: scene.workers_ends.ends == 1, "the worker did not come")
        await until(lambda: scene.workers_ends.ends == 0, "the worker waits on")


@pytest.mark.parametrize("silent", ["at once", "after the challenge", "after the entry", "half-open"])
async def test_a_relay_that_falls_silent_is_left(silent: str) -> None:
    async def relay(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(autoping=False)
        await socket.prepare(request)
        if silent != "at once":
            await socket.send_bytes(a_nonce(20))
        if silent in ("after the entry", "half-open"):
            await socket.receive_bytes()
        if silent == "half-open":
            await socket.send_bytes(b"")
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return socket

    app = web.Application()
    app.router.add_get("/relay", relay)
    async with TestServer(app, host="127.0.0.1", shutdown_timeout=0.1) as server:
        tracker = Tracker(f"ws://127.0.0.1:{server.port}", True, private_too=True)
        ends = RelayEnds(tracker, connect_seconds=0.3, meet_seconds=0.3, heartbeat_seconds=0.3)
        terms = a_relay_ticket(LEASE, relay=SERVING)
        async with ends:
            with contextlib.suppress(Exception):
                reader, writer = await asyncio.open_connection(
                    sock=await ends.join(Ticket(terms, signed(terms)), JOB_KEY, ROOT.public)
                )
                assert silent == "half-open"
                assert await reader.read() == b""
                writer.close()
            await until(lambda: ends.ends == 0, "a silent relay is waited for")
