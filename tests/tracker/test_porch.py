"""What comes before HTTP, over real sockets and under both kinds of loop: PROXY headers, TLS, and who stops there."""

import asyncio
import errno
import ipaddress
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import cast

import aiohttp
import pytest
from aiohttp import web

from tracker import pace, porch
from tracker.doors import Door, Places, Rounds, client_of
from tracker.forwarded import FORWARDED, X_FORWARDED_FOR, Trust
from tracker.porch import CannotListen, Porch
from tracker.proxy_protocol import SIGNATURE
from tracker.tls import make_self_signed, read_certificate

try:
    from uvloop import new_event_loop as new_uvloop
except ImportError:  # Windows has none
    LOOPS = [asyncio.new_event_loop]
else:
    LOOPS = [asyncio.new_event_loop, new_uvloop]

LOOPBACK = (ipaddress.ip_network("127.0.0.1"),)
TRUSTING = Trust(LOOPBACK)
PATIENCE_S = 30.0
GET = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
#: More than any buffer on the way takes.
MUCH = bytes(64 * 1024 * 1024)

pytestmark = pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning")


def v2(source: str, port: int) -> bytes:
    addresses = ipaddress.ip_address(source).packed + bytes(4) + struct.pack(">HH", port, 443)
    return SIGNATURE + struct.pack(">BBH", 0x21, 0x11, len(addresses)) + addresses


class Opened:
    """A porch with a small HTTP server behind it, which answers with who it thinks is there."""

    def __init__(self, porch: Porch, port: int, contexts: list[ssl.SSLContext]) -> None:
        self.porch = porch
        self.port = port
        self.places = porch.places
        self.contexts = contexts

    async def answer(self, said: bytes, *, tls: bool = False) -> bytes:
        """All that comes back for these bytes, until the other side ends it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        async with asyncio.timeout(PATIENCE_S):
            writer.write(said)
            if tls:
                await writer.start_tls(careless(), server_hostname="x")
                writer.write(GET)
            try:
                return await reader.read()
            except ConnectionError:
                return b""
            finally:
                writer.close()

    async def seen(self, said: bytes, *, tls: bool = False) -> str:
        """Who the server thinks has asked."""
        head, _, body = (await self.answer(said, tls=tls)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        return body.decode()


def careless() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def tell(request: web.BaseRequest) -> web.StreamResponse:
    if request.path == "/much":
        return web.Response(body=MUCH)
    client = client_of(request)
    if request.path == "/twice" and request.transport is not None:
        request.transport.close()
        request.transport.close()
    return web.Response(text=f"{client.address} {client.port}")


@asynccontextmanager
async def opened(
    *, trust: Trust = TRUSTING, proxied: bool = True, limit: int = 9, context: ssl.SSLContext | None = None
) -> AsyncIterator[Opened]:
    behind, rounds, places = web.Server(tell), Rounds(), Places(lambda: limit)
    contexts = [context] if context else []
    here = Porch(
        places,
        trust,
        lambda: contexts[-1] if contexts else None,
        proxied,
        lambda arrival: Door(behind, places, trust, rounds, arrival),
    )
    async with here.listen("127.0.0.1", 0) as port:
        yield Opened(here, port, contexts)
    await behind.shutdown(1)


@pytest.fixture(params=LOOPS, ids=lambda make: make.__module__.partition(".")[0])
def run(request):
    """Run a test's coroutine under one kind of loop."""

    def run(made) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(made)

    return run


@pytest.fixture
def context(tmp_path) -> Callable[[], ssl.SSLContext]:
    """Makes another certificate each time."""

    def make() -> ssl.SSLContext:
        files = [tmp_path / name for name in ("crt", "key")]
        for file, content in zip(files, make_self_signed("127.0.0.1"), strict=True):
            file.unlink(missing_ok=True)
            file.write_bytes(content)
            file.chmod(0o600)
        found = read_certificate(Path(files[0]), Path(files[1])).context
        assert found is not None
        return found

    return make


async def settled(places: Places, count: int = 0) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while len(places) != count:  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "header", [b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n", v2("203.0.113.7", 4711)], ids=["v1", "v2"]
)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_trusted_proxy_names_address_and_port_whatever_follows_at_once(run, context, header, tls):
    async def test():
        async with opened(context=context() if tls else None) as here:
            assert await here.seen(header if tls else header + GET, tls=tls) == "203.0.113.7 4711"
            await settled(here.places)

    run(test())


def test_a_header_may_come_in_pieces(run):
    async def test():
        async with opened() as here:
            reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
            for piece in v2("203.0.113.7", 4711) + GET:
                writer.write(bytes([piece]))
                await writer.drain()
                await asyncio.sleep(0)
            assert (await reader.read()).endswith(b"203.0.113.7 4711")
            writer.close()

    run(test())


def test_of_a_connection_of_its_own_a_proxy_has_an_address_and_no_port(run):
    async def test():
        async with opened() as here:
            assert await here.seen(b"PROXY UNKNOWN\r\n" + GET) == "127.0.0.1 None"
            assert len(here.places) == 0

    run(test())


@pytest.mark.parametrize(
    "said", [GET, b"", b"PROXY nonsense\r\n" + GET, SIGNATURE + b"\x21\x11\xff\xff", b"\x16\x03\x01" + bytes(60)]
)
def test_a_trusted_proxy_that_begins_otherwise_is_cut_off(run, monkeypatch, said):
    monkeypatch.setattr(porch, "HEADER_SECONDS", 0.2)

    async def test():
        async with opened() as here:
            assert await here.answer(said) == b""

    run(test())


def test_a_header_of_anybody_else_is_no_header(run):
    async def test():
        async with opened(trust=Trust((ipaddress.ip_network("10.0.0.0/8"),))) as here:
            answer = await here.answer(b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n" + GET)
            assert b" 400 " in answer.partition(b"\r\n")[0]
            assert (await here.seen(GET)).startswith("127.0.0.1 ")

    run(test())


def test_what_the_client_of_a_proxy_without_http_writes_into_headers_is_not_believed(run):
    forged = GET.replace(b"\r\n\r\n", b"\r\nX-Forwarded-For: 198.51.100.1\r\nForwarded: for=198.51.100.1\r\n\r\n")

    async def test(header):
        async with opened(trust=Trust(LOOPBACK, header)) as here:
            assert await here.seen(v2("203.0.113.7", 4711) + forged) == "203.0.113.7 4711"
            # One proxy before another: the second one knows HTTP.
            assert await here.seen(v2("127.0.0.1", 4711) + forged) == "198.51.100.1 None"

    for header in (FORWARDED, X_FORWARDED_FOR):
        run(test(header))


def test_places_are_counted_by_the_address_that_a_proxy_names(run):
    async def test():
        async with opened(limit=2) as here:
            held = []
            for _ in range(2):
                _, writer = await asyncio.open_connection("127.0.0.1", here.port)
                writer.write(v2("203.0.113.7", 4711))
                held.append(writer)
            await settled(here.places, 2)
            assert (await here.answer(v2("203.0.113.7", 4712))).startswith(b"HTTP/1.1 429")
            assert await here.seen(v2("203.0.113.8", 4711) + GET) == "203.0.113.8 4711"
            for writer in held:
                writer.close()
            await settled(here.places)

    run(test())


def test_tls_is_of_version_1_3_and_reads_as_well_as_it_writes(run, context):
    async def test():
        shown = context()
        async with opened(context=shown, proxied=False, trust=Trust()) as here, aiohttp.ClientSession() as http:
            url = f"https://127.0.0.1:{here.port}"
            async with http.get(url, ssl=careless()) as answer:
                assert (await answer.text()).startswith("127.0.0.1 ")
            async with http.get(f"{url}/much", ssl=careless()) as answer:
                assert len(await answer.read()) == len(MUCH)
            old = careless()
            old.maximum_version = ssl.TLSVersion.TLSv1_2
            with pytest.raises(aiohttp.ClientConnectorError):
                await http.get(url, ssl=old)
            assert await here.answer(GET) in (b"", b"\x15\x03\x01\x00\x02\x02F", b"\x15\x03\x01\x00\x02\x02\n")

    run(test())


def test_another_certificate_is_shown_to_those_who_come_after(run, context):
    async def fingerprint(here) -> bytes:
        _, writer = await asyncio.open_connection("127.0.0.1", here.port, ssl=careless())
        shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return shown

    async def test():
        async with opened(context=context(), proxied=False) as here:
            before = await fingerprint(here)
            assert await fingerprint(here) == before
            here.contexts.append(context())
            assert await fingerprint(here) != before

    run(test())


def test_whoever_stops_within_a_handshake_holds_a_place_and_not_for_long(run, context, monkeypatch):
    monkeypatch.setattr(porch, "HANDSHAKE_SECONDS", 0.5)

    async def test():
        async with opened(context=context(), proxied=False, limit=3, trust=Trust()) as here:
            connections = [await asyncio.open_connection("127.0.0.1", here.port) for _ in range(8)]
            for _, writer in connections:
                writer.write(b"\x16\x03\x01\x02\x00\x01")
            await settled(here.places, 3)
            async with asyncio.timeout(PATIENCE_S):
                for reader, writer in connections:
                    with suppress(ConnectionError):
                        assert len(await reader.read()) < 20  # an alert at most
                    writer.close()
            await settled(here.places)

    run(test())


def test_whoever_takes_nothing_is_cut_off_through_tls_too(run, context, monkeypatch):
    monkeypatch.setattr(pace, "STALL_SECONDS", 0.3)
    monkeypatch.setattr(pace, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr("tracker.doors.LOOK_SECONDS", 0.1)

    async def test():
        async with opened(context=context(), proxied=False, trust=Trust()) as here:
            reader, writer = await asyncio.open_connection("127.0.0.1", here.port, ssl=careless(), limit=1024)
            writer.write(GET.replace(b"/ ", b"/much "))
            assert await reader.read(1)
            await settled(here.places)
            writer.transport.abort()

    run(test())


def test_a_connection_that_was_closed_twice_goes_and_troubles_no_other(run, context, monkeypatch):
    monkeypatch.setattr(porch, "SHUTDOWN_SECONDS", 0.5)
    monkeypatch.setattr("tracker.doors.LOOK_SECONDS", 0.02)

    async def test():
        faults = []
        asyncio.get_running_loop().set_exception_handler(lambda _, found: faults.append(found))
        async with opened(context=context(), proxied=False, trust=Trust()) as here:
            _, writer = await asyncio.open_connection("127.0.0.1", here.port, ssl=careless())
            writer.write(GET.replace(b"/ ", b"/twice "))
            cast("asyncio.Transport", writer.transport).pause_reading()
            await settled(here.places, 1)
            await settled(here.places)
            writer.transport.abort()
        assert faults == []

    run(test())


def test_a_closed_porch_lets_nobody_in_and_leaves_nothing_behind(run, context):
    async def test():
        before = asyncio.all_tasks()
        async with opened(context=context()) as here:
            _, writer = await asyncio.open_connection("127.0.0.1", here.port)
            _, other = await asyncio.open_connection("127.0.0.1", here.port)
            other.write(v2("203.0.113.7", 4711))
            await settled(here.places, 1)
        with pytest.raises(ConnectionError):
            await asyncio.open_connection("127.0.0.1", here.port)
        await settled(here.places)
        assert asyncio.all_tasks() == before
        writer.close()
        other.close()

    run(test())


def test_an_address_that_is_taken_is_said_to_be(run):
    async def test():
        async with opened() as here:
            with pytest.raises(CannotListen, match=f"cannot listen on 127.0.0.1, port {here.port}: "):
                async with here.porch.listen("127.0.0.1", here.port):
                    pass

    run(test())


def test_who_goes_before_it_is_let_in_holds_up_nobody(monkeypatch):
    gone = [OSError(errno.ECONNABORTED, "gone"), OSError(errno.EPROTO, "gone"), OSError(errno.EMFILE, "no room")]
    monkeypatch.setattr(porch, "BREATH_SECONDS", 0)
    slept = []

    async def sleep(seconds):
        slept.append(seconds)
        await asyncio.tasks.sleep(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)

    class Loop(asyncio.SelectorEventLoop):
        async def sock_accept(self, sock):
            if gone:
                raise gone.pop(0)
            return await super().sock_accept(sock)

    async def test():
        async with opened() as here:
            assert await here.seen(b"PROXY TCP4 203.0.113.7 127.0.0.1 4711 443\r\n" + GET) == "203.0.113.7 4711"
        assert slept == [0]

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(test())
