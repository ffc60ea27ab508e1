"""The gate before a worker's streams: who is counted, and when, and what is not waited for. Over real sockets."""

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from peer import gate, stream_reader, stream_server
from peer.certificate import fresh_certificate
from peer.gate import Places, household_of
from peer.output import Output
from peer.stream_server import StreamServer
from protocol.errors import StreamGone
from tests.support.horde import until

#: The loops that a worker runs in: Python's own, and the faster one where there is one.
LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.new_event_loop]
with contextlib.suppress(ImportError):
    import uvloop

    LOOPS.append(uvloop.new_event_loop)
#: A guard against hanging, not a claim about speed.
PATIENCE_S = 30.0


class NoDesk:
    """Refuses every opening."""

    def open_stream(self, body: bytes) -> Output:
        raise StreamGone("nothing here")


def serving(tmp_path: Path, **limits: float) -> StreamServer:
    context = fresh_certificate(tmp_path / "worker").context
    return StreamServer(NoDesk(), context, host="127.0.0.1", port=0, **limits)  # type: ignore[arg-type]


async def plain(server: StreamServer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", server.port)


async def ended(reader: asyncio.StreamReader) -> bool:
    async with asyncio.timeout(PATIENCE_S):
        with contextlib.suppress(ConnectionError):
            return await reader.read() == b""
        return True


def trusting() -> ssl.SSLContext:
    """A client's side of TLS that takes every certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Client:
    """TLS by hand, so that a test says what goes into one segment."""

    def __init__(self) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = trusting().wrap_bio(self.incoming, self.outgoing)

    async def shake_hands(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """All of the handshake but our last word, which stays in `outgoing`."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                writer.write(self.outgoing.read())
                self.incoming.write(await reader.read(65_536))
            else:
                return

    async def read(self, reader: asyncio.StreamReader) -> bytes:
        while True:
            try:
                return self.tls.read(65_536)
            except ssl.SSLWantReadError:
                self.incoming.write(await reader.read(65_536))


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02\x00\x01\x00"])
async def test_a_handshake_that_does_not_come_is_not_waited_for(tmp_path: Path, said: bytes) -> None:
    async with serving(tmp_path, handshake_seconds=0.1) as server:
        reader, writer = await plain(server)
        writer.write(said)
        assert await ended(reader)
        writer.close()
        assert server.connections == 0


async def test_what_is_no_handshake_ends_the_connection_and_gives_its_place_back(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        reader, writer = await plain(server)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        async with asyncio.timeout(PATIENCE_S):
            with contextlib.suppress(ConnectionError):
                await reader.read()
        writer.close()
        assert server.connections == 0


@pytest.mark.parametrize("limit", ["max_connections", "max_of_one_address"])
async def test_those_whose_handshake_does_not_end_take_places_too(tmp_path: Path, limit: str) -> None:
    async with serving(tmp_path, **{limit: 2}) as server:
        writers = [(await plain(server))[1] for _ in range(2)]
        reader, writer = await plain(server)
        assert await ended(reader)
        assert server.connections == 2
        for each in (writer, *writers):
            each.close()
            with contextlib.suppress(ConnectionError):
                await each.wait_closed()


async def test_a_request_in_one_piece_with_the_end_of_the_handshake_is_heard(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, asyncio.timeout(PATIENCE_S):
        reader, writer = await plain(server)
        client = Client()
        await client.shake_hands(reader, writer)
        client.tls.write(b"POST /stream HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        writer.write(client.outgoing.read())
        assert (await client.read(reader)).startswith(b"HTTP/1.1 410")
        writer.close()


@pytest.mark.parametrize("new_loop", LOOPS)
def test_a_handshake_that_comes_at_once_is_heard_by_every_loop(
    tmp_path: Path, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """Also where the loop reads the first bytes before TLS has taken the socket over."""

    async def connect() -> None:
        async with serving(tmp_path) as server, asyncio.timeout(PATIENCE_S):
            for _ in range(20):
                _, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=trusting())
                writer.transport.abort()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(connect())


async def test_a_reader_that_hangs_up_gives_its_place_back(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, asyncio.timeout(PATIENCE_S):
        reader, writer = await plain(server)
        client = Client()
        await client.shake_hands(reader, writer)
        client.tls.write(b"POST /stream HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        writer.write(client.outgoing.read())
        assert (await client.read(reader)).startswith(b"HTTP/1.1 410")
        assert server.connections == 1
        writer.transport.abort()
        await until(lambda: not server.connections, "its place is still taken", PATIENCE_S)


@pytest.mark.slow
async def test_a_reader_that_takes_no_refusals_is_cut_off(tmp_path: Path) -> None:
    async with serving(tmp_path, stall_seconds=0.2) as server, asyncio.timeout(PATIENCE_S):
        reader, writer = await plain(server)
        client = Client()
        await client.shake_hands(reader, writer)
        with contextlib.suppress(ConnectionError):
            while True:
                client.tls.write(b"POST /stream HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n" * 100)
                writer.write(client.outgoing.read())
                await writer.drain()
        writer.close()


async def test_who_does_not_agree_to_the_end_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "GOODBYE_SECONDS", 0.1)
    async with serving(tmp_path, idle_seconds=0.1) as server, asyncio.timeout(PATIENCE_S):
        reader, writer = await plain(server)
        client = Client()
        await client.shake_hands(reader, writer)
        writer.write(client.outgoing.read())
        assert await ended_some_time(reader)  # although nothing answers the server's goodbye
        writer.close()


async def ended_some_time(reader: asyncio.StreamReader) -> bool:
    with contextlib.suppress(ConnectionError):
        while await reader.read(65_536):
            pass
    return True


def test_places_are_limited_for_all_and_for_each() -> None:
    places = Places(of_all=3, of_one=2)
    assert [places.enter(household) for household in "aaabb"] == [True, True, False, True, False]
    places.leave("a")
    assert places.enter("b")
    assert len(places) == 3


@pytest.mark.parametrize(
    ("host", "household"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("nowhere", "nowhere"),
    ],
)
def test_a_household_is_an_address_or_what_one_subscriber_has(host: str, household: str) -> None:
    assert household_of(host) == household


def test_whatever_stands_still_is_gone_within_ten_seconds() -> None:
    goodbye = gate.GOODBYE_SECONDS
    assert gate.HANDSHAKE_SECONDS + goodbye <= 10
    assert stream_server.IDLE_SECONDS + goodbye <= 10
    assert stream_server.BODY_SECONDS + stream_server.REST_SECONDS + goodbye <= 10
    assert stream_reader.ANSWER_SECONDS <= 10
    assert stream_reader.SILENCE_SECONDS <= 10
    assert 3 * stream_server.ALIVE_SECONDS < stream_reader.SILENCE_SECONDS
    assert stream_reader.IDLE_SECONDS < stream_server.IDLE_SECONDS
