"""The requester's end of the stream, against a worker that plays a script over real TLS."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import unused_port

from peer.certificate import Certificate, fresh_certificate
from peer.paths.addresses import Address, BadAddress, PublicResolver, parse_address
from peer.paths.choice import Path as Way
from peer.stream_reader import Answered, BadRecord, StreamBroken, StreamReader, Worker, worker_of
from protocol import frames
from tests.support.builders import WORKER, a_digest, a_peer_record, a_salt, signed

FINAL = frames.Final(1, a_salt(), "stop", b"receipt")
TEXT = frames.Text(0, "hello")
Script = Callable[[web.Request, web.StreamResponse], Awaitable[None]]


class Server:
    """A worker's HTTPS server: what was asked of it, and over how many connections."""

    def __init__(self, script: Script, certificate: Certificate) -> None:
        self.certificate = certificate
        self.requests: list[web.Request] = []
        self.bodies: list[bytes] = []
        self.connections: set[object] = set()
        self.port = 0
        self._script = script

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.bodies.append(await request.read())
        self.connections.add(request.transport)
        response = web.StreamResponse()
        await self._script(request, response)
        return response

    def worker(self, *addresses: Address, certificate: bytes | None = None) -> Worker:
        here = Address("127.0.0.1", self.port)
        return Worker(WORKER.public, 1, certificate or self.certificate.digest, addresses or (here,))


@contextlib.asynccontextmanager
async def serving(script: Script, folder: Path, context: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server(script, fresh_certificate(folder))
    app = web.Application()
    app.router.add_post("/stream", server.answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context or server.certificate.context)
        await site.start()
        server.port = runner.addresses[0][1]
        yield server
    finally:
        await runner.cleanup()


def sends(*pieces: bytes) -> Script:
    async def script(request: web.Request, response: web.StreamResponse) -> None:
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)

    return script


def refuses(status: int, body: bytes) -> Script:
    async def script(request: web.Request, response: web.StreamResponse) -> None:
        response.set_status(status)
        await response.prepare(request)
        await response.write(body)

    return script


async def read(
    reader: StreamReader, worker: Worker, body: bytes = b"opening", after: int = -1
) -> list[frames.Frame | Answered]:
    return [frame async for frame in reader.read(worker, body, after)]


@pytest.fixture
async def reader() -> AsyncIterator[StreamReader]:
    async with StreamReader(private_too=True) as reader:
        yield reader


WHOLE = sends(frames.encode_frame(TEXT), frames.encode_frame(frames.Alive()), frames.encode_frame(FINAL))


async def test_frames_come_in_their_order_behind_the_answer(reader: StreamReader, tmp_path: Path) -> None:
    async with serving(WHOLE, tmp_path) as server:
        found = await read(reader, server.worker(), b"the opening")

    assert found == [Answered(Way.DIRECT, f"direct 127.0.0.1:{server.port}"), TEXT, frames.Alive(), FINAL]
    assert server.bodies == [b"the opening"]
    assert "after" not in server.requests[0].query


async def test_what_came_before_is_not_asked_for_again(reader: StreamReader, tmp_path: Path) -> None:
    async with serving(WHOLE, tmp_path) as server:
        await read(reader, server.worker(), after=41)

    assert server.requests[0].query["after"] == "41"


async def test_a_connection_serves_again_for_the_next_stream(reader: StreamReader, tmp_path: Path) -> None:
    async with serving(WHOLE, tmp_path) as server:
        for _ in range(5):
            await read(reader, server.worker())

        assert len(server.requests) == 5
        assert len(server.connections) == 1


async def test_another_certificate_gets_nothing_from_us(reader: StreamReader, tmp_path: Path) -> None:
    async with serving(WHOLE, tmp_path) as server:
        with pytest.raises(StreamBroken) as caught:
            await read(reader, server.worker(certificate=a_digest("another")))

    assert caught.value.reason == "wrong_certificate"
    assert server.requests == []


async def test_a_worker_that_speaks_only_older_tls_gets_nothing_from_us(reader: StreamReader, tmp_path: Path) -> None:
    old = Server(WHOLE, fresh_certificate(tmp_path)).certificate
    old.context.minimum_version = ssl.TLSVersion.TLSv1_2
    old.context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with serving(WHOLE, tmp_path, old.context) as server:
        with pytest.raises(StreamBroken, match=r"TLS 1\.3"):
            await read(reader, server.worker(certificate=old.digest))

    assert server.requests == []


async def test_the_next_address_is_tried_where_one_does_not_answer(reader: StreamReader, tmp_path: Path) -> None:
    async with serving(WHOLE, tmp_path) as server:
        worker = server.worker(Address("127.0.0.1", unused_port()), Address("127.0.0.1", server.port))

        assert (await read(reader, worker))[-1] == FINAL


async def test_a_worker_that_is_not_there_is_told_from_one_that_breaks_off(reader: StreamReader) -> None:
    worker = Worker(WORKER.public, 1, a_digest(), (Address("127.0.0.1", unused_port()),))

    with pytest.raises(StreamBroken) as caught:
        await read(reader, worker)

    assert caught.value.reason == "no_connection"


@pytest.mark.parametrize(
    "status, body, reason",
    [
        (409, frames.encode_frame(frames.Failed("prefix_unsupported", "cannot")), "prefix_unsupported"),
        (410, frames.encode_frame(frames.Failed("stream_gone", "over")), "stream_gone"),
        (500, b"", "refused"),
        (502, b"<html>bad gateway</html>", "refused"),
        (503, frames.encode_frame(TEXT), "refused"),
        (307, b"", "refused"),
    ],
)
async def test_a_refused_opening_has_the_workers_reason(
    reader: StreamReader, tmp_path: Path, status: int, body: bytes, reason: str
) -> None:
    async with serving(refuses(status, body), tmp_path) as server:
        with pytest.raises(StreamBroken) as caught:
            await read(reader, server.worker())

    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "piece, reason",
    [
        (b"", "cut"),
        (frames.encode_frame(TEXT), "cut"),
        (frames.encode_frame(FINAL)[:-1], "cut"),
        (b"\xff\xff\xff\xff", "malformed"),
        (b"\x00\x00\x00\x03abc", "malformed"),
    ],
)
async def test_a_stream_that_ends_too_early_or_is_none_is_broken(
    reader: StreamReader, tmp_path: Path, piece: bytes, reason: str
) -> None:
    async with serving(sends(piece), tmp_path) as server:
        with pytest.raises(StreamBroken) as caught:
            await read(reader, server.worker())

    assert caught.value.reason == reason


async def test_a_connection_that_dies_is_a_cut(reader: StreamReader, tmp_path: Path) -> None:
    async def script(request: web.Request, response: web.StreamResponse) -> None:
        await response.prepare(request)
        await response.write(frames.encode_frame(TEXT))
        assert request.transport is not None
        request.transport.abort()

    async with serving(script, tmp_path) as server:
        with pytest.raises(StreamBroken) as caught:
            await read(reader, server.worker())

    assert caught.value.reason == "cut"


async def test_bytes_that_make_no_frame_are_no_sign_of_life(tmp_path: Path) -> None:
    async def script(request: web.Request, response: web.StreamResponse) -> None:
        await response.prepare(request)
        await response.write((1000).to_bytes(4, "big"))
        while True:
            await response.write(b"x")
            await asyncio.sleep(0.02)

    async with serving(script, tmp_path) as server, StreamReader(private_too=True, silence_seconds=0.3) as reader:
        with pytest.raises(StreamBroken) as caught:
            await read(reader, server.worker())

    assert caught.value.reason == "silent"


async def test_an_answer_that_never_begins_is_not_waited_for_whatever_comes_of_it(tmp_path: Path) -> None:
    async def trickle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nX: ")
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.01)
        writer.close()

    certificate = fresh_certificate(tmp_path)
    listener = await asyncio.start_server(trickle, "127.0.0.1", 0, ssl=certificate.context)
    port = listener.sockets[0].getsockname()[1]
    worker = Worker(WORKER.public, 1, certificate.digest, (Address("127.0.0.1", port),))
    async with listener, StreamReader(private_too=True, answer_seconds=0.2, connect_seconds=5) as reader:
        with pytest.raises(StreamBroken) as caught:
            await read(reader, worker)

    assert caught.value.reason == "timeout"


async def test_a_worker_that_says_nothing_at_all_is_silent(tmp_path: Path) -> None:
    async def script(request: web.Request, response: web.StreamResponse) -> None:
        await response.prepare(request)
        await asyncio.Event().wait()

    async with serving(script, tmp_path) as server, StreamReader(private_too=True, silence_seconds=0.1) as reader:
        with pytest.raises(StreamBroken) as caught:
            await read(reader, server.worker())

    assert caught.value.reason == "silent"


@pytest.mark.parametrize(
    "text, host, port",
    [
        ("example.org:443", "example.org", 443),
        ("192.0.2.1:8443", "192.0.2.1", 8443),
        ("[2001:db8::1]:9", "2001:db8::1", 9),
    ],
)
def test_addresses_are_read(text: str, host: str, port: int) -> None:
    address = parse_address(text)

    assert (address.host, address.port, str(address)) == (host, port, text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "host", "host:", ":1", "host:0", "host:65536", "host:-1", "host:١", "2001:db8::1:9", "[host]:1"),
        *("a/b:1", "user@host:1", "host?x:1", "host#:1", "ho st:1", "[fe80::1%eth0]:1"),
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(BadAddress):
        parse_address(text)


PRIVATE = ("127.0.0.1:1", "10.0.0.1:1", "192.168.1.1:1", "[::1]:1", "[fe80::1]:1", "[::ffff:10.0.0.1]:1", "localhost:1")


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_followed_only_in_a_private_horde(address: str) -> None:
    record = signed(a_peer_record((address,)))

    worker = worker_of(record, private_too=False)
    assert (worker.addresses, worker.none_because) == ((), "private_address")
    assert len(worker_of(record, private_too=True).addresses) == 1


def test_of_several_addresses_the_public_ones_stay() -> None:
    record = signed(a_peer_record((*PRIVATE, "example.org:2")))

    assert worker_of(record, private_too=False).addresses == (Address("example.org", 2),)


def test_a_record_without_addresses_still_says_which_certificate_to_expect() -> None:
    worker = worker_of(signed(a_peer_record(())), private_too=True)

    assert (worker.addresses, worker.none_because) == ((), "no_address")
    assert worker.certificate == a_peer_record(()).certificate


def test_a_record_with_what_is_no_address_is_refused() -> None:
    with pytest.raises(BadRecord):
        worker_of(signed(a_peer_record(("no address",))), private_too=True)


async def test_a_name_that_leads_to_a_private_address_is_not_followed(tmp_path: Path) -> None:
    async with serving(WHOLE, tmp_path) as server, StreamReader(private_too=False) as reader:
        with pytest.raises(StreamBroken) as caught:
            await read(reader, server.worker(Address("localhost", server.port)))

    assert caught.value.reason == "no_connection"
    assert server.requests == []
    with pytest.raises(OSError, match="private"):
        await PublicResolver().resolve("localhost")
