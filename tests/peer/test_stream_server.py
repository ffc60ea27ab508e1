"""The stream over real TLS sockets: what readers get, however they read, and what limits hold."""

import asyncio
import contextlib
import hashlib
import os
import socket
import ssl
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from peer.certificate import Certificate, fresh_certificate
from peer.opening import MAX_BODY_BYTES
from peer.output import Output
from peer.spool import Spool
from peer.stream_server import StreamServer
from protocol.errors import REFUSALS, StreamGone, WrongCertificate
from protocol.frames import Alive, Chunk, Failed, Final, Frame, FrameReader, Preview, Progressed, Start, Text
from tests.support.builders import (
    a_lease,
    a_public_part,
    a_receipt,
    a_request,
    a_salt,
    a_text_work,
    an_image_work,
    signed,
)

TEXT = signed(a_lease(a_request(a_public_part(a_text_work(max_tokens=30_000)))))
LARGE = signed(a_lease(a_request(a_public_part(an_image_work(2048, 2048)))))
RECEIPT = signed(a_receipt())
SALT = a_salt()


class AnyDesk:
    """Answers every opening with the same, or refuses it."""

    def __init__(self, answer: Callable[[bytes], Output]) -> None:
        self._answer = answer

    def open_stream(self, body: bytes) -> Output:
        return self._answer(body)


class Client:
    """A reader that pins the certificate and counts its connections."""

    def __init__(self, port: int, digest: bytes) -> None:
        self.connections = 0
        self.url = f"https://127.0.0.1:{port}/stream"
        self._pin = aiohttp.Fingerprint(digest)
        trace = aiohttp.TraceConfig()
        trace.on_connection_create_end.append(self._count)
        self.session = aiohttp.ClientSession(trace_configs=[trace], connector=aiohttp.TCPConnector(limit=0))

    async def _count(self, *_: object) -> None:
        self.connections += 1

    def post(self, body: bytes = b"open", after: int | str | None = None, **options: Any) -> Any:
        params = {} if after is None else {"after": str(after)}
        return self.session.post(self.url, data=body, params=params, ssl=self._pin, **options)

    async def read(self, after: int | str | None = None, body: bytes = b"open") -> tuple[int, list[Frame]]:
        async with self.post(body, after) as response:
            assert response.content_type == "application/x-potluck-stream"
            return response.status, list(FrameReader().feed(await response.read()))


@contextlib.asynccontextmanager
async def serving(
    tmp_path: Path, answer: Output | Callable[[bytes], Output], **limits: Any
) -> AsyncIterator[tuple[Client, Certificate]]:
    certificate = fresh_certificate(tmp_path / "worker")
    desk = AnyDesk(answer if callable(answer) else lambda _: answer)
    async with StreamServer(desk, certificate.context, host="127.0.0.1", port=0, **limits) as server:
        client = Client(server.port, certificate.digest)
        async with client.session:
            yield client, certificate


def a_text(tmp_path: Path, *pieces: str, whole: bool = True) -> Output:
    output = Output(Spool.create(tmp_path, TEXT))
    for piece in pieces:
        output.spool.add_text(piece)
    if whole:
        finish(output)
    return output


def finish(output: Output) -> None:
    output.spool.keep_receipt(RECEIPT, SALT, "stop")
    output.spool.finish(RECEIPT, SALT, "stop")
    output.changed()


async def next_frames(response: aiohttp.ClientResponse, reader: FrameReader) -> list[Frame]:
    while True:
        frames = list(reader.feed(await response.content.readany()))
        if frames:
            return frames


async def test_a_whole_result_is_served_over_tls_1_3_with_the_pinned_certificate(tmp_path: Path) -> None:
    output = a_text(tmp_path, "one", "two", whole=False)
    async with serving(tmp_path, output) as (client, certificate), client.post() as response:
        tls = response.connection.transport.get_extra_info("ssl_object")
        assert tls.version() == "TLSv1.3"
        assert hashlib.sha256(tls.getpeercert(binary_form=True)).digest() == certificate.digest
        finish(output)
        frames = list(FrameReader().feed(await response.read()))
    assert frames == [Text(0, "one"), Text(1, "two"), Final(2, SALT, "stop", RECEIPT.raw)]


async def test_frames_come_as_the_engine_makes_them(tmp_path: Path) -> None:
    output = a_text(tmp_path, whole=False)
    async with serving(tmp_path, output) as (client, _), client.post() as response:
        reader = FrameReader()
        for number, piece in enumerate(("one", "two")):
            output.spool.add_text(piece)
            output.changed()
            assert await next_frames(response, reader) == [Text(number, piece)]
        finish(output)
        assert [type(frame) for frame in await next_frames(response, reader)] == [Final]
        assert await response.content.read() == b""


@pytest.mark.parametrize("after", [-1, 0, 3, 5])
async def test_a_stream_resumes_behind_any_number(tmp_path: Path, after: int) -> None:
    output = a_text(tmp_path, *(f"piece {number}" for number in range(5)))
    async with serving(tmp_path, output) as (client, _):
        status, frames = await client.read(after)

    assert status == 200
    assert [frame.number for frame in frames if isinstance(frame, Text | Final)] == list(range(after + 1, 6))


@pytest.mark.parametrize("after", ["-2", "6", "x", "1e3", "9" * 30, ""])
async def test_numbers_that_no_frame_has_are_refused(tmp_path: Path, after: str) -> None:
    async with serving(tmp_path, a_text(tmp_path, *"abcde")) as (client, _):
        status, [failed] = await client.read(after)

    assert status == 400
    assert isinstance(failed, Failed)
    assert failed.code == "bad_value"


async def test_a_reader_gets_what_another_gets_at_its_own_pace(tmp_path: Path) -> None:
    output = a_text(tmp_path, "one", whole=False)
    async with serving(tmp_path, output) as (client, _), client.post() as first:
        assert await next_frames(first, FrameReader()) == [Text(0, "one")]
        output.spool.add_text("two")
        finish(output)
        _, second = await client.read()

    assert [type(frame) for frame in second] == [Text, Text, Final]


async def test_one_connection_serves_again_and_again(tmp_path: Path) -> None:
    def answer(body: bytes) -> Output:
        if body == b"refuse":
            raise StreamGone("not here")
        return output

    output = a_text(tmp_path, "one")
    async with serving(tmp_path, answer) as (client, _):
        for body in (b"open", b"refuse", b"open", b"refuse", b"open"):
            await client.read(body=body)
        assert client.connections == 1


async def test_another_certificate_than_the_pinned_one_is_never_spoken_to(tmp_path: Path) -> None:
    opened: list[bytes] = []

    def answer(body: bytes) -> Output:
        opened.append(body)
        raise AssertionError

    async with serving(tmp_path, answer) as (client, _):
        client._pin = aiohttp.Fingerprint(bytes(32))
        with pytest.raises(aiohttp.ServerFingerprintMismatch):
            await client.read()
    assert opened == []


async def test_older_tls_is_not_spoken(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with serving(tmp_path, a_text(tmp_path)) as (client, _):
        with pytest.raises(aiohttp.ClientConnectorError):
            await client.session.post(client.url, data=b"open", ssl=context)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("wrong_lease", 403),
        ("bad_signature", 403),
        ("wrong_certificate", 403),
        ("wrong_horde", 403),
        ("stream_gone", 410),
        ("fenced", 409),
        ("prefix_unsupported", 409),
        ("busy", 503),
        ("private_part_mismatch", 400),
        ("malformed", 400),
    ],
)
async def test_a_refusal_is_a_status_and_one_failed_frame(tmp_path: Path, code: str, status: int) -> None:
    def answer(body: bytes) -> Output:
        raise REFUSALS[code]("because")

    async with serving(tmp_path, answer) as (client, _):
        assert await client.read() == (status, [Failed(code, "because")])


async def test_a_body_beyond_the_limit_is_refused_without_being_kept(tmp_path: Path) -> None:
    seen: list[int] = []

    def answer(body: bytes) -> Output:
        seen.append(len(body))
        raise WrongCertificate("seen")

    async with serving(tmp_path, answer) as (client, _):
        status, [failed] = await client.read(body=bytes(MAX_BODY_BYTES + 1))
        assert (status, failed.code) == (413, "too_large")  # type: ignore[union-attr]
        assert (await client.read(body=bytes(MAX_BODY_BYTES)))[0] == 403
    assert seen == [MAX_BODY_BYTES]


async def test_a_body_that_claims_to_be_compressed_is_not_unpacked(tmp_path: Path) -> None:
    seen: list[bytes] = []

    def answer(body: bytes) -> Output:
        seen.append(body)
        raise StreamGone("seen")

    headers = {"Content-Encoding": "gzip"}
    async with serving(tmp_path, answer) as (client, _), client.post(b"not gzip", headers=headers) as response:
        assert response.status == 410
    assert seen == [b"not gzip"]


async def test_a_body_that_does_not_come_is_not_waited_for(tmp_path: Path) -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b"begun"
        await asyncio.Event().wait()

    server = serving(tmp_path, a_text(tmp_path), body_seconds=0.1)
    async with server as (client, _), client.post(slow()) as response:  # type: ignore[arg-type]
        assert response.status == 408


async def test_nothing_else_is_served(tmp_path: Path) -> None:
    async with serving(tmp_path, a_text(tmp_path)) as (client, _):
        async with client.session.get(client.url, ssl=client._pin) as response:
            assert response.status == 405
        async with client.session.post(client.url + "/../etc/passwd", ssl=client._pin) as response:
            assert response.status == 404


async def test_connections_beyond_the_limit_are_ended_at_once(tmp_path: Path) -> None:
    output = a_text(tmp_path, "one", whole=False)
    async with serving(tmp_path, output, max_connections=2) as (client, _):
        async with client.post() as first, client.post() as second:
            assert (first.status, second.status) == (200, 200)
            with pytest.raises(aiohttp.ClientError):
                await client.read()
            finish(output)
            await first.read()
            await second.read()
        assert (await client.read())[0] == 200


async def test_a_connection_that_asks_nothing_is_ended(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    async with serving(tmp_path, a_text(tmp_path), idle_seconds=0.1) as (client, _):
        port = int(client.url.split(":")[2].split("/")[0])
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        writer.write(b"POST /stream HTTP/1.1\r\nX-Slow: ")
        assert await reader.read() == b""
        writer.close()


async def test_a_slow_reader_delays_neither_the_engine_nor_others(tmp_path: Path) -> None:
    content = os.urandom(24 * 1024 * 1024)
    output = Output(Spool.create(tmp_path, LARGE))
    async with serving(tmp_path, output) as (client, _):
        slow_session = aiohttp.ClientSession(read_bufsize=1024)
        async with slow_session, slow_session.post(client.url, data=b"open", ssl=client._pin) as slow:
            output.spool.add_artifact("image/png", content)  # returns at once, with a reader that reads nothing
            finish(output)
            _, frames = await client.read()
            assert b"".join(frame.content for frame in frames if isinstance(frame, Chunk)) == content

            late = list(FrameReader().feed(await slow.read()))
    assert late == frames
    assert isinstance(late[0], Start)


async def test_a_reader_that_takes_nothing_is_cut_off(tmp_path: Path) -> None:
    output = Output(Spool.create(tmp_path, LARGE))
    output.spool.add_artifact("image/png", bytes(30 * 1024 * 1024))
    finish(output)
    certificate = fresh_certificate(tmp_path / "worker")
    server = StreamServer(AnyDesk(lambda _: output), certificate.context, host="127.0.0.1", port=0, stall_seconds=0.1)
    async with server:
        client = Client(server.port, certificate.digest)
        await client.session.close()
        client.session = aiohttp.ClientSession(read_bufsize=1024)
        async with client.session, client.post() as response:
            while server.connections:  # noqa: ASYNC110 (aiohttp tells nobody when a connection ends)
                await asyncio.sleep(0.01)
            with pytest.raises(aiohttp.ClientError):
                await response.read()


async def test_signs_of_life_come_while_nothing_else_does(tmp_path: Path) -> None:
    output = a_text(tmp_path, whole=False)
    async with serving(tmp_path, output, alive_seconds=0.01) as (client, _), client.post() as response:
        assert set(await next_frames(response, FrameReader())) == {Alive()}
        finish(output)
        await response.read()


async def test_only_the_latest_progress_and_preview_are_sent_and_once_each(tmp_path: Path) -> None:
    output = a_text(tmp_path, whole=False)
    output.progress = Progressed(1, 9)
    output.progress = Progressed(2, 9)
    output.preview = Preview(b"jpeg 2")
    async with serving(tmp_path, output) as (client, _), client.post() as response:
        reader = FrameReader()
        frames = await next_frames(response, reader)
        assert frames == [Progressed(2, 9), Preview(b"jpeg 2")]
        output.progress = Progressed(5, 9)
        output.changed()
        assert await next_frames(response, reader) == [Progressed(5, 9)]
        finish(output)
        assert [type(frame) for frame in await next_frames(response, reader)] == [Final]


async def test_a_failure_ends_every_stream_of_the_attempt(tmp_path: Path) -> None:
    output = a_text(tmp_path, "one", whole=False)
    async with serving(tmp_path, output) as (client, _), client.post() as response:
        reader = FrameReader()
        assert await next_frames(response, reader) == [Text(0, "one")]
        output.fail("crashed", "the engine's process ended")
        output.spool.remove()
        assert await next_frames(response, reader) == [Failed("crashed", "the engine's process ended")]
        assert await response.content.read() == b""
        assert await client.read() == (200, [Failed("crashed", "the engine's process ended")])


async def test_frames_that_vanish_from_the_disk_end_the_stream_and_not_the_worker(tmp_path: Path) -> None:
    output = a_text(tmp_path, "one")
    (output.spool.folder / "frames").unlink()
    async with serving(tmp_path, output) as (client, _):
        _, [failed] = await client.read()

    assert isinstance(failed, Failed)
    assert failed.code == "stream_gone"


async def test_the_server_ends_although_streams_are_open(tmp_path: Path) -> None:
    output = a_text(tmp_path, whole=False)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(output.spool.close)
        client, _ = await stack.enter_async_context(serving(tmp_path, output))
        await stack.enter_async_context(client.post())


def test_each_start_has_a_fresh_certificate_and_leaves_no_key_behind(tmp_path: Path) -> None:
    (tmp_path / "tls-left.pem").write_text("of a crash")

    first, second = fresh_certificate(tmp_path), fresh_certificate(tmp_path)

    assert first.digest != second.digest
    assert list(tmp_path.iterdir()) == []


def test_the_key_is_never_readable_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[int] = []
    load = ssl.SSLContext.load_cert_chain

    def spy(self: ssl.SSLContext, path: Any, *rest: Any) -> None:
        modes.append(stat.S_IMODE(Path(path).stat().st_mode))
        load(self, path, *rest)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", spy)
    fresh_certificate(tmp_path)

    assert len(modes) == 1
    if os.name == "posix":
        assert modes == [0o600]


async def test_an_empty_host_means_every_address_of_the_machine(tmp_path: Path) -> None:
    certificate = fresh_certificate(tmp_path / "worker")
    output = a_text(tmp_path, "one")
    hosts = ["127.0.0.1", *(["[::1]"] if socket.has_dualstack_ipv6() else [])]
    async with StreamServer(AnyDesk(lambda _: output), certificate.context, host="", port=0) as server:
        client = Client(server.port, certificate.digest)
        async with client.session:
            for host in hosts:
                client.url = f"https://{host}:{server.port}/stream"
                assert (await client.read())[0] == 200
