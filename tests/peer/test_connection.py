"""The connection over a real socket, against a tracker that plays a script."""

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from peer.connection import Backoff, CannotJoin, Connection
from protocol.envelope import Envelope
from protocol.links import Link
from protocol.messages import Account, AskAccount, Held, Holding, Refused, Register, SessionMessage, Taken, Welcome
from tests.support.builders import NOW, ROOT, a_digest, a_handle, a_key, a_lease, a_receipt, signed
from tests.support.tracker_side import Horde, TrackerSide

KEY = a_key(10)
HELD = Held(kind="receipt", job=a_handle(), attempt=1, digest=a_digest())
AT_ONCE = Backoff(first_seconds=0, most_seconds=0)


class Line:
    """One connection as the tracker has it."""

    def __init__(self, side: TrackerSide, socket: web.WebSocketResponse) -> None:
        self.side = side
        self.socket = socket

    async def hears(self) -> Envelope:
        return self.side.hears(await self.socket.receive_bytes())

    async def says(self, raw: bytes) -> None:
        await self.socket.send_bytes(raw)

    async def greet(self, **welcome: int) -> None:
        await self.says(self.side.challenge())
        self.side.hears_hello(await self.socket.receive_bytes())
        await self.says(self.side.welcome(**welcome))
        await self.says(self.side.horde.rules_document().raw)

    async def open(self, *theirs: Held) -> tuple[Held, ...]:
        """Greet, exchange holdings; the peer's."""
        await self.greet()
        holding = await self.hears()
        await self.says(self.side.holding(*theirs))
        return holding.open(Holding).entries

    async def until_closed(self) -> int | None:
        with contextlib.suppress(TypeError):  # what receive_bytes raises for a closing frame
            while True:
                await self.socket.receive_bytes()
        return self.socket.close_code


Script = Callable[[Line], Awaitable[None]]


@contextlib.asynccontextmanager
async def tracker(*scripts: Script, horde: Horde | None = None) -> AsyncIterator[Link]:
    """A tracker that plays the first script on the first connection, and so on; the last one from then on."""
    horde = horde or Horde()
    count = 0
    failures: list[BaseException] = []

    async def answer(request: web.Request) -> web.WebSocketResponse:
        nonlocal count
        script = scripts[min(count, len(scripts) - 1)]
        count += 1
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        try:
            await script(Line(TrackerSide(horde, count.to_bytes(16, "big")), socket))
        except Exception as error:
            failures.append(error)
        return socket

    app = web.Application()
    app.router.add_get("/peer", answer)
    async with TestServer(app, host="127.0.0.1") as server:
        yield Link(f"ws://127.0.0.1:{server.port}", horde.root)
    assert not failures


class Listener:
    """A handler that puts down what it is told."""

    def __init__(self, *held: Held) -> None:
        self.held = held
        self.told: asyncio.Queue[object] = asyncio.Queue()
        self.connection: Connection | None = None
        self.says_at_welcome: SessionMessage | None = None
        self.said_at_welcome: bytes | None = b"not asked"

    def holding(self) -> Sequence[Held]:
        return self.held

    async def welcomed(self, welcome: Welcome) -> None:
        self.told.put_nowait(welcome)
        if self.says_at_welcome is not None and self.connection is not None:
            self.said_at_welcome = await self.connection.say(self.says_at_welcome)

    async def reconciled(self, theirs: Sequence[Held]) -> None:
        self.told.put_nowait(("reconciled", tuple(theirs)))

    async def received(self, message: SessionMessage) -> None:
        self.told.put_nowait(message)

    async def received_document(self, envelope: Envelope) -> None:
        self.told.put_nowait(envelope.kind)

    async def lost(self) -> None:
        self.told.put_nowait("lost")

    async def until(self, what: object) -> None:
        while await self.told.get() != what:
            pass


def a_connection(link: Link, listener: Listener | None = None, **options: Any) -> Connection:
    listener = listener or Listener()
    settings: dict[str, Any] = {"clock": lambda: NOW, "random": random.Random(1), "backoff": AT_ONCE} | options
    listener.connection = Connection(link, KEY, listener, **settings)
    return listener.connection


@contextlib.asynccontextmanager
async def running(connection: Connection) -> AsyncIterator[Connection]:
    task = asyncio.create_task(connection.run())
    try:
        yield connection
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_it_greets_reconciles_and_passes_on_what_comes() -> None:
    heard: list[str] = []

    async def script(line: Line) -> None:
        heard.extend(held.kind for held in await line.open(HELD))
        await line.says(line.side.says(Taken(documents=(a_digest(),))))
        await line.says(line.side.horde.sign(a_lease()).raw)
        await line.until_closed()

    listener = Listener(HELD)
    async with tracker(script) as link, running(a_connection(link, listener)) as connection:
        await listener.until("rules")
        await listener.until(("reconciled", (HELD,)))
        await listener.until(Taken(documents=(a_digest(),)))
        await listener.until("lease")
        await connection.wait_ready()
        assert connection.rules == Horde().rules
        assert connection.rules_version == 1
        assert connection.trouble is None
    assert heard == ["receipt"]


async def test_our_holding_comes_before_all_that_is_said() -> None:
    heard: list[str] = []

    async def script(line: Line) -> None:
        await line.greet(account=3)
        heard.append((await line.hears()).kind)
        await line.says(line.side.says(Account(number=9)))
        await line.says(line.side.holding())
        heard.append((await line.hears()).kind)
        await line.until_closed()

    listener = Listener()
    listener.says_at_welcome = Register()
    async with tracker(script) as link, running(a_connection(link, listener)) as connection:
        await connection.wait_ready()
        assert connection.account == 9
        await connection.say(AskAccount())
        await listener.until(Account(number=9))
    assert listener.said_at_welcome is None
    assert heard[0] == "holding"


async def test_many_speakers_at_once_keep_the_numbers_in_order() -> None:
    heard: list[Envelope] = []

    async def script(line: Line) -> None:
        await line.open()
        for _ in range(60):
            heard.append(await line.hears())  # noqa: PERF401 (says where it stops when it stops)
        await line.until_closed()

    receipt = signed(a_receipt(), KEY)
    async with tracker(script) as link, running(a_connection(link)) as connection:
        await connection.wait_ready()
        async with asyncio.TaskGroup() as group:
            said = [group.create_task(connection.say(AskAccount())) for _ in range(50)]
            for _ in range(10):
                group.create_task(connection.send_document(receipt))
    digests = [envelope.digest for envelope in heard if envelope.kind == "ask_account"]
    assert [task.result() for task in said] == digests
    assert [envelope.raw for envelope in heard if envelope.kind == "receipt"] == [receipt.raw] * 10


async def test_it_returns_after_a_loss_and_says_again_what_it_holds() -> None:
    holdings: list[tuple[Held, ...]] = []

    async def cut(line: Line) -> None:
        holdings.append(await line.open())
        line.socket._req.transport.abort()  # type: ignore[union-attr]

    async def stay(line: Line) -> None:
        holdings.append(await line.open())
        await line.until_closed()

    listener = Listener(HELD)
    async with tracker(cut, cut, stay) as link, running(a_connection(link, listener)) as connection:
        await listener.until("lost")
        await listener.until("lost")
        await connection.wait_ready()
    assert holdings == [(HELD,)] * 3


async def test_nothing_is_sent_while_there_is_no_connection() -> None:
    connection = a_connection(Link("ws://127.0.0.1:9", ROOT.public))

    assert await connection.say(AskAccount()) is None
    await connection.send_document(signed(a_receipt()))
    assert not connection.is_ready


async def test_a_wrong_root_ends_it_for_good() -> None:
    async def script(line: Line) -> None:
        await line.says(line.side.challenge())
        assert await line.until_closed() == aiohttp.WSCloseCode.OK

    async with tracker(script, horde=Horde(root_key=a_key(30))) as link:
        with pytest.raises(CannotJoin) as caught:
            await a_connection(Link(link.url, ROOT.public)).run()

    assert caught.value.refusal.code == "wrong_horde"


async def test_an_older_delegation_after_a_newer_one_ends_it_for_good() -> None:
    async def newer(line: Line) -> None:
        await line.says(line.side.challenge(version=2))
        await line.socket.close()

    async def older(line: Line) -> None:
        await line.says(line.side.challenge(version=1))
        await line.until_closed()

    async with tracker(newer, older) as link:
        connection = a_connection(link)
        with pytest.raises(CannotJoin) as caught:
            await connection.run()

    assert caught.value.refusal.code == "bad_delegation"
    assert connection.delegation_version == 2


async def test_plain_websockets_over_the_internet_are_refused_unless_allowed() -> None:
    with pytest.raises(CannotJoin) as caught:
        await a_connection(Link("ws://horde.example", ROOT.public)).run()

    assert caught.value.refusal.code == "insecure_link"
    assert "--insecure" in str(caught.value)


async def test_a_tracker_that_breaks_the_protocol_is_left_with_a_reason_and_met_again() -> None:
    codes: list[int | None] = []

    async def forger(line: Line) -> None:
        await line.open()
        raw = line.side.says(Account(number=1))
        await line.says(raw)
        await line.says(raw)
        codes.append(await line.until_closed())

    async def stay(line: Line) -> None:
        await line.open()
        await line.until_closed()

    listener = Listener()
    async with tracker(forger, stay) as link, running(a_connection(link, listener)) as connection:
        await listener.until("lost")
        assert connection.trouble is None or connection.trouble.startswith("out_of_sequence")
        await listener.until(("reconciled", ()))
    assert codes == [aiohttp.WSCloseCode.POLICY_VIOLATION]


@pytest.mark.parametrize("hostile", ["text", "too large", "garbage"])
async def test_hostile_frames_end_the_connection_and_not_the_program(hostile: str) -> None:
    async def script(line: Line) -> None:
        await line.open()
        match hostile:
            case "text":
                await line.socket.send_str("hello")
            case "too large":
                await line.says(bytes(600_000))
            case _:
                await line.says(b"\xc1" * 100)
        await line.until_closed()

    async def stay(line: Line) -> None:
        await line.open()
        await line.until_closed()

    listener = Listener()
    async with tracker(script, stay) as link, running(a_connection(link, listener)):
        await listener.until("lost")
        await listener.until(("reconciled", ()))


async def test_a_tracker_that_says_nothing_is_too_slow() -> None:
    async def mute(line: Line) -> None:
        await line.until_closed()

    async def stay(line: Line) -> None:
        await line.open()
        await line.until_closed()

    async with tracker(mute, stay) as link, running(a_connection(link, greeting_seconds=0.2)) as connection:
        await connection.wait_ready()


async def test_a_final_refusal_is_told_and_a_passing_one_tried_again() -> None:
    refused = Refused(code="stopping", text="back soon", final=True)

    async def script(line: Line) -> None:
        await line.open()
        await line.says(line.side.says(refused))
        await line.until_closed()

    listener = Listener()
    async with tracker(script) as link, running(a_connection(link, listener)):
        await listener.until(refused)
        await listener.until("lost")
        await listener.until(refused)


async def test_a_fault_of_the_handler_is_not_taken_for_a_lost_connection() -> None:
    async def script(line: Line) -> None:
        await line.open()
        await line.until_closed()

    class Faulty(Listener):
        async def reconciled(self, theirs: Sequence[Held]) -> None:
            raise OSError("no space left on device")

    async with tracker(script) as link:
        with pytest.raises(OSError, match="no space"):
            await a_connection(link, Faulty()).run()


async def test_a_redirect_is_not_followed() -> None:
    app = web.Application()

    async def elsewhere(request: web.Request) -> web.Response:
        raise web.HTTPFound("http://127.0.0.1:9/peer")

    app.router.add_get("/peer", elsewhere)
    waits = asyncio.Event()

    class Random(random.Random):
        def uniform(self, a: float, b: float) -> float:
            waits.set()
            return 0

    async with TestServer(app, host="127.0.0.1") as server:
        connection = a_connection(Link(f"ws://127.0.0.1:{server.port}", ROOT.public), random=Random())
        async with running(connection):
            await waits.wait()
            assert connection.trouble is not None
            assert "sends elsewhere" in connection.trouble


class _Tries(random.Random):
    """Waits for nothing, and tells of the third try."""

    def __init__(self) -> None:
        super().__init__(1)
        self.made = 0
        self.third = asyncio.Event()

    def uniform(self, a: float, b: float) -> float:
        self.made += 1
        if self.made == 3:
            self.third.set()
        return 0


async def _trouble_with(link: Link) -> str:
    tries = _Tries()
    connection = a_connection(link, random=tries)
    async with running(connection):
        await tries.third.wait()
        assert connection.trouble is not None
        return connection.trouble


async def test_where_nothing_answers_it_is_told_once_and_in_words(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{free.getsockname()[1]}"  # bound, so that nobody else listens there
        trouble = await _trouble_with(Link(url, ROOT.public))
    assert trouble.startswith("nothing answers (")
    assert trouble.endswith("): is it running, is the address right?")
    told = [record.getMessage() for record in caplog.records if record.name == "peer.connection"]
    assert told == [f"no connection to the tracker at {url}: {trouble}; trying again"]


async def test_what_is_no_tracker_is_named() -> None:
    async with TestServer(web.Application(), host="127.0.0.1") as server:
        other = await _trouble_with(Link(f"ws://127.0.0.1:{server.port}", ROOT.public))
        plain = await _trouble_with(Link(f"wss://127.0.0.1:{server.port}", ROOT.public))
    assert other == "something else than a tracker answers (HTTP status 404): is the address right?"
    assert plain.startswith("no TLS with what answers (")


def test_waits_grow_to_a_bound_and_are_drawn_from_their_whole_width() -> None:
    backoff = Backoff(first_seconds=1, most_seconds=8)

    class Top(random.Random):
        def uniform(self, a: float, b: float) -> float:
            assert a == 0
            return b

    assert [backoff.delay(failures, Top()) for failures in (1, 2, 3, 4, 5, 1000)] == [1, 2, 4, 8, 8, 8]
