"""The application with a small door in it: the guard before each handler, and what becomes of its errors."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from yarl import URL

from peer.events import JobExpired
from peer.gateway import bodies
from peer.gateway.access import Access, Style
from peer.gateway.asks import Caller
from peer.gateway.bodies import MAX_BYTES
from peer.gateway.door import CALLER, FILES
from peer.gateway.errors import Trouble
from peer.gateway.files import url_of
from peer.gateway.hordes import Hordes
from peer.gateway.serve import Listening, address, make_app, serving
from peer.home import Home

KEY = "abcdefghijklmnopqrst_-"
BEARER = {"Authorization": f"Bearer {KEY}"}
PROMPT = "a red circle"
PAGE = "http://chat.example:3000"


class Wish(msgspec.Struct):
    prompt: str
    steps: int = 1


class SmallDoor:
    """A door with a handler for each thing that can happen."""

    NAME = "small"
    PREFIXES = ("/small",)
    KEYS: Style = "bearer"

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.cancelled = asyncio.Event()

    def prepare(self, app: web.Application) -> None:
        """Nothing is kept."""

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        return [
            web.get("/small/who", self.who),
            web.post("/small/wish", self.wish),
            web.get("/small/late", self.late),
            web.get("/small/broken", self.broken),
            web.get("/small/stream", self.stream),
            web.get("/small/half", self.half),
            web.get("/small/file", self.file),
        ]

    def refuse(self, trouble: Trouble) -> web.Response:
        return web.json_response({"small": trouble.kind, "text": trouble.text}, status=trouble.status)

    async def who(self, request: web.Request) -> web.Response:
        return web.json_response(request[CALLER].value)

    async def wish(self, request: web.Request) -> web.Response:
        return web.json_response((await bodies.read(request, Wish)).steps)

    async def late(self, _: web.Request) -> web.Response:
        raise JobExpired("expired", "nobody took it")

    async def broken(self, _: web.Request) -> web.Response:
        raise RuntimeError(PROMPT)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"one")
        self.begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return response

    async def half(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"one")
        raise RuntimeError(PROMPT)

    async def file(self, request: web.Request) -> web.Response:
        return web.json_response(url_of(request, request.app[FILES].put(b"png", "image/png")))


@pytest.fixture
def door() -> SmallDoor:
    return SmallDoor()


@pytest.fixture
async def url(tmp_path: Path, door: SmallDoor) -> AsyncIterator[str]:
    access = Access(KEY, origins=frozenset({PAGE}))
    app = make_app(Hordes({}, Home(tmp_path)), access, doors=[door])
    async with serving(app, Listening("127.0.0.1", 0)) as url:
        yield url


@pytest.fixture
async def program() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def ask(program: aiohttp.ClientSession, url: str, method: str = "GET", **more: Any) -> tuple[int, Any]:
    async with program.request(method, url, **{"headers": BEARER, **more}) as answer:
        return answer.status, json.loads(await answer.read() or b"null")


async def test_a_member_comes_in_and_nobody_else(program: aiohttp.ClientSession, url: str) -> None:
    assert await ask(program, f"{url}/small/who") == (200, Caller.MEMBER.value)
    status, said = await ask(program, f"{url}/small/who", headers={})
    assert (status, said["small"]) == (401, "bad_key")


@pytest.mark.parametrize("path", ["/%73mall/who", "/small/%77ho", "/x/../small/who", "//small/who", "/small//who"])
async def test_no_spelling_of_a_path_comes_in_without_the_key(
    program: aiohttp.ClientSession, url: str, path: str
) -> None:
    async with program.get(URL(url + path, encoded=True)) as answer:
        assert answer.status in (401, 404)


async def test_only_the_front_page_and_a_sign_of_life_are_open(program: aiohttp.ClientSession, url: str) -> None:
    async with program.get(url) as answer:
        assert answer.status == 200
        assert "/v1" in await answer.text()
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert await ask(program, f"{url}/healthz", headers={}) == (200, {"status": "ok"})
    assert (await ask(program, f"{url}/elsewhere", headers={}))[0] == 404
    assert (await ask(program, f"{url}/smaller/who", headers={}))[0] == 404


@pytest.mark.parametrize(
    ("method", "path", "more", "status", "kind"),
    [
        ("GET", "/small/nothing", {}, 404, "not_found"),
        ("DELETE", "/small/who", {}, 405, "bad_method"),
        ("GET", "/small/late", {}, 504, "expired"),
        ("POST", "/small/wish", {"data": b"{"}, 400, "bad_value"),
        ("POST", "/small/wish", {"data": b'{"prompt": 5}'}, 400, "bad_value"),
        ("POST", "/small/wish", {"data": b""}, 400, "bad_value"),
        ("POST", "/small/wish", {"data": b"\xff"}, 400, "bad_value"),
        ("POST", "/small/wish", {"data": "large"}, 413, "too_large"),
    ],
)
async def test_whatever_goes_wrong_is_said_in_the_doors_form(
    program: aiohttp.ClientSession, url: str, method: str, path: str, more: Any, status: int, kind: str
) -> None:
    if more.get("data") == "large":
        more = {"data": BytesIO(bytes(MAX_BYTES + 1))}
    found, said = await ask(program, url + path, method, **more)

    assert (found, said["small"]) == (status, kind)
    assert said["text"]


async def test_unknown_fields_are_no_error_and_a_wrong_one_is_named(program: aiohttp.ClientSession, url: str) -> None:
    wish = {"prompt": "hi", "steps": 5, "unheard_of": [1]}

    assert await ask(program, f"{url}/small/wish", "POST", json=wish) == (200, 5)
    _, said = await ask(program, f"{url}/small/wish", "POST", json=wish | {"steps": "many"})
    assert said["text"].startswith("steps: ")


async def test_a_body_that_is_not_packed_as_it_says_is_the_clients_fault(
    program: aiohttp.ClientSession, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    headers = {**BEARER, "Content-Encoding": "gzip"}

    status, said = await ask(program, f"{url}/small/wish", "POST", data=PROMPT.encode(), headers=headers)

    assert (status, said["small"]) == (400, "bad_value")
    assert PROMPT not in caplog.text


@pytest.mark.parametrize("place", ['{"prompt": %s}', '{"prompt": "hi", "unheard_of": %s}'])
async def test_a_body_that_is_nested_too_deep_is_the_clients_fault(
    program: aiohttp.ClientSession, url: str, place: str
) -> None:
    deep = place % ("[" * 100_000 + "]" * 100_000)

    status, said = await ask(program, f"{url}/small/wish", "POST", data=deep)

    assert (status, said["small"]) == (400, "bad_value")


async def test_a_fault_of_ours_shows_a_reference_and_no_word_of_the_prompt(
    program: aiohttp.ClientSession, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    status, said = await ask(program, f"{url}/small/broken")

    assert (status, said["small"]) == (500, "internal")
    assert said["text"].rpartition(" ")[2] in caplog.text
    assert "in broken" in caplog.text
    assert PROMPT not in caplog.text + said["text"]
    assert "Traceback" not in said["text"]


async def test_an_answer_that_had_begun_breaks_off_and_gets_no_second_head(
    program: aiohttp.ClientSession, url: str
) -> None:
    async with program.get(f"{url}/small/half", headers=BEARER) as answer:
        with pytest.raises(aiohttp.ClientError):
            await answer.read()


async def test_whose_client_goes_away_is_cancelled(program: aiohttp.ClientSession, url: str, door: SmallDoor) -> None:
    async with program.get(f"{url}/small/stream", headers=BEARER) as answer:
        assert await answer.content.readexactly(3) == b"one"
        assert not door.cancelled.is_set()
        answer.close()
    await door.cancelled.wait()


async def test_the_end_does_not_wait_for_a_client_that_stays(
    tmp_path: Path, program: aiohttp.ClientSession, door: SmallDoor
) -> None:
    app = make_app(Hordes({}, Home(tmp_path)), Access(KEY), doors=[door])
    async with serving(app, Listening("127.0.0.1", 0), goodbye_seconds=0.01) as url:
        answer = await program.get(f"{url}/small/stream", headers=BEARER)
        await door.begun.wait()

    assert door.cancelled.is_set()
    answer.close()


# Pages


async def test_a_named_page_gets_exact_headers_also_on_a_stream(program: aiohttp.ClientSession, url: str) -> None:
    async with program.get(f"{url}/small/stream", headers={**BEARER, "Origin": PAGE}) as answer:
        assert answer.headers["Access-Control-Allow-Origin"] == PAGE
        assert answer.headers["Vary"] == "Origin"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        answer.close()
    async with program.get(f"{url}/small/who", headers=BEARER) as answer:
        assert "Access-Control-Allow-Origin" not in answer.headers


async def test_a_named_pages_preflight_needs_no_key_and_another_pages_fails(
    program: aiohttp.ClientSession, url: str
) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}

    async with program.options(f"{url}/small/wish", headers={**asked, "Origin": PAGE}) as answer:
        assert answer.status == 204
        assert answer.headers["Access-Control-Allow-Headers"] == "authorization"
    async with program.options(f"{url}/small/wish", headers={**asked, "Origin": "http://evil.example"}) as answer:
        assert answer.status == 403
        assert not [name for name in answer.headers if name.startswith("Access-Control")]


async def test_another_host_is_refused_everywhere(program: aiohttp.ClientSession, url: str) -> None:
    for path in ("/", "/healthz", "/small/who", "/files/x", "/elsewhere"):
        status, _ = await ask(program, url + path, headers={**BEARER, "Host": "evil.example"})
        assert status == 403


async def test_a_picture_is_had_by_its_name_by_every_page(program: aiohttp.ClientSession, url: str) -> None:
    _, where = await ask(program, f"{url}/small/file")

    assert where.startswith(f"{url}/files/")
    async with program.get(where, headers={"Sec-Fetch-Site": "cross-site"}) as answer:
        assert (answer.status, answer.content_type, await answer.read()) == (200, "image/png", b"png")
        assert "sandbox" in answer.headers["Content-Security-Policy"]
    assert (await ask(program, f"{url}/files/guessed.png"))[0] == 404


async def test_a_request_without_host_is_refused(url: str) -> None:
    parts = URL(url)
    reader, writer = await asyncio.open_connection(parts.host, parts.port)
    writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
    await writer.drain()

    assert (await reader.readline()).split()[1] in (b"400", b"403")
    writer.close()
    await writer.wait_closed()


async def test_a_broken_request_is_not_quoted_in_the_log(url: str, caplog: pytest.LogCaptureFixture) -> None:
    parts = URL(url)
    reader, writer = await asyncio.open_connection(parts.host, parts.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer \x01" + KEY.encode() + b"\r\n\r\n")
    await writer.drain()

    assert (await reader.readline()).split()[1] == b"400"
    assert "Error handling request" in caplog.text
    assert KEY not in caplog.text
    writer.close()
    await writer.wait_closed()


# Start


def test_a_door_with_a_path_outside_of_its_prefix_is_not_opened(tmp_path: Path, door: SmallDoor) -> None:
    door.PREFIXES = ("/smal",)

    with pytest.raises(ValueError, match="is not below /smal"):
        make_app(Hordes({}, Home(tmp_path)), Access(KEY), doors=[door])


async def test_a_place_that_is_taken_is_an_error(tmp_path: Path, door: SmallDoor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        app = make_app(Hordes({}, Home(tmp_path)), Access(KEY), doors=[door])
        with pytest.raises(OSError, match=r"in use|one usage|permitted"):
            async with serving(app, Listening("127.0.0.1", taken.getsockname()[1])):
                pass


def test_the_address_is_one_that_a_program_can_be_given() -> None:
    assert address(Listening("127.0.0.1", 0), 7346) == "http://127.0.0.1:7346"
    assert address(Listening("", 7346), 7346) == "http://127.0.0.1:7346"
    assert address(Listening("::1", 7346), 7346) == "http://[::1]:7346"
