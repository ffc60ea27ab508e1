"""Clients that are opened when they are needed, what trackers publish, and asks from their beginning to their end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp import web

from peer import events
from peer.client import Client
from peer.events import Event, Unreachable
from peer.gateway import hordes as hordes_module
from peer.gateway.asks import Ask, Caller, TextAsk, gather
from peer.gateway.catalogue import Chosen, Model
from peer.gateway.errors import Troubled
from peer.gateway.hordes import FRESH_MS, SILENT_MS, STALE_MS, Hordes, _Seat
from peer.home import Home
from peer.limits_watch import pause
from protocol.keys import SigningKey, show_key
from protocol.links import Link, parse_link
from protocol.rules import AccountsSection, Rules


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000

    def __call__(self) -> int:
        return self.now


# Clients


class Connecting:
    """A client that connects when a test lets it."""

    def __init__(self) -> None:
        self.let_in: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.has_ended = False
        self.left = 0

    async def __aenter__(self) -> Connecting:
        await self.let_in
        return self

    async def __aexit__(self, *_: object) -> None:
        self.left += 1


class Opened:
    """A seat, and every client that it made."""

    def __init__(self) -> None:
        self.clients: list[Connecting] = []
        self.seat = _Seat(cast("Callable[[], Client]", self._make))

    def _make(self) -> Connecting:
        self.clients.append(Connecting())
        return self.clients[-1]

    async def next(self) -> Connecting:
        """The client that is being opened now."""
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return self.clients[-1]


async def test_a_client_is_opened_once_for_all_who_wait() -> None:
    opened = Opened()
    asked = [asyncio.create_task(opened.seat.client()) for _ in range(3)]
    (await opened.next()).let_in.set_result(None)

    assert [cast("Connecting", await one) for one in asked] == opened.clients * 3
    assert await opened.seat.client() is asked[0].result()


async def test_who_stops_waiting_does_not_disturb_the_others() -> None:
    opened = Opened()
    leaving, staying = (asyncio.create_task(opened.seat.client()) for _ in range(2))
    client = await opened.next()
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    client.let_in.set_result(None)

    assert cast("Connecting", await staying) is client


async def test_what_failed_is_tried_again_by_the_next_one_who_asks() -> None:
    opened = Opened()
    first = asyncio.create_task(opened.seat.client())
    (await opened.next()).let_in.set_exception(Unreachable("no tracker"))
    with pytest.raises(Unreachable):
        await first

    second = asyncio.create_task(opened.seat.client())
    (await opened.next()).let_in.set_result(None)

    assert cast("Connecting", await second) is opened.clients[1]


async def test_one_that_has_ended_is_left_and_another_opened() -> None:
    opened = Opened()
    first = asyncio.create_task(opened.seat.client())
    (await opened.next()).let_in.set_result(None)
    await first
    opened.clients[0].has_ended = True
    second = asyncio.create_task(opened.seat.client())
    (await opened.next()).let_in.set_result(None)

    assert cast("Connecting", await second) is opened.clients[1]
    assert opened.clients[0].left == 1
    await opened.seat.close()
    assert opened.clients[1].left == 1


async def test_closing_ends_one_that_is_still_being_opened() -> None:
    opened = Opened()
    asked = asyncio.create_task(opened.seat.client())
    await opened.next()

    await opened.seat.close()

    with pytest.raises(asyncio.CancelledError):
        await asked


# What trackers publish


class Publishing:
    """What a tracker shows to anybody, as a test sets it."""

    def __init__(self) -> None:
        self.swarms: list[dict[str, Any]] = []
        self.asked = 0
        self.url = ""
        self.is_down = False

    def serve(self, *models: str) -> None:
        self.swarms = [{"kind": "text", "model": model, "workers": 1, "waiting": 0} for model in models]

    async def answer(self, request: web.Request) -> web.Response:
        self.asked += 1
        if request.path != "/scrape":
            raise web.HTTPNotFound
        return web.Response(status=503) if self.is_down else web.json_response({"swarms": self.swarms})

    @property
    def link(self) -> Link:
        return parse_link(f"potluck:?tr={self.url}&id={show_key(SigningKey.generate().public)}&name=one")


@pytest.fixture
async def tracker() -> AsyncIterator[Publishing]:
    publishing = Publishing()
    app = web.Application()
    app.router.add_get("/{page:.*}", publishing.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    publishing.url = f"ws://127.0.0.1:{runner.addresses[0][1]}"
    yield publishing
    await runner.cleanup()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def hordes(tmp_path: Path, tracker: Publishing, clock: Clock) -> AsyncIterator[Hordes]:
    async with Hordes({"one": tracker.link}, Home(tmp_path), clock=clock) as hordes:
        yield hordes


def names(found: list[Model]) -> list[str]:
    return [model.name for model in found]


async def test_a_list_is_fresh_and_a_tracker_is_not_asked_for_each(
    hordes: Hordes, tracker: Publishing, clock: Clock
) -> None:
    tracker.serve("a")
    for _ in range(5):
        assert names((await hordes.catalogue()).served()) == ["a"]
    assert tracker.asked == 1

    tracker.serve("b")
    clock.now += FRESH_MS + 1
    assert names((await hordes.catalogue()).served()) == ["b"]


async def test_a_list_is_taken_apart_once_however_often_it_is_looked_at(
    hordes: Hordes, tracker: Publishing, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker.serve("a")
    await hordes.catalogue()
    monkeypatch.setattr(hordes_module, "read_scrape", None)  # so that another time would fail
    for _ in range(5):
        assert names((await hordes.catalogue()).served()) == ["a"]
    clock.now += FRESH_MS + 1
    with pytest.raises(TypeError):
        await hordes.catalogue()


async def test_an_ask_goes_by_what_was_known_and_looks_again_for_what_was_not(
    hordes: Hordes, tracker: Publishing, clock: Clock
) -> None:
    tracker.serve("a")
    await hordes.catalogue()
    tracker.serve("b")
    clock.now += STALE_MS

    assert (await hordes.choose(TextAsk(prompt="", models=["a"]))).models == ("a",)
    assert tracker.asked == 1
    assert (await hordes.choose(TextAsk(prompt="", models=["b"]))).models == ("b",)
    with pytest.raises(Troubled) as gone:
        await hordes.choose(TextAsk(prompt="", models=["a"]))
    assert gone.value.trouble.kind == "unavailable"


class LetIn:
    """A client that was let in."""

    has_ended = False

    def __init__(self, *, members: bool, account: int = 0) -> None:
        self.rules = Rules(accounts=AccountsSection(anonymous=not members))
        self.account_number = account

    async def ready(self) -> None:
        pass

    async def __aexit__(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("caller", list(Caller))
async def test_a_horde_that_serves_members_only_keeps_who_is_none_from_no_other(
    tmp_path: Path, tracker: Publishing, clock: Clock, caller: Caller
) -> None:
    tracker.serve("a")
    async with Hordes({"club": tracker.link, "open": tracker.link}, Home(tmp_path), clock=clock) as hordes:

        def let_in(name: str, client: LetIn) -> None:
            hordes._seats[caller, name]._client = cast("Client", client)

        async def horde(model: str = "a") -> str:
            return (await hordes.reach(caller, TextAsk(prompt="", models=[model])))[0].horde

        let_in("club", LetIn(members=True))
        let_in("open", LetIn(members=False))
        assert await horde() == "open"
        assert await horde("club/a") == "club", "who names it hears its refusal"
        let_in("open", LetIn(members=True))
        assert await horde() == "club", "where no other is left, too"
        let_in("club", LetIn(members=True, account=101))
        assert await horde() == "club"
        let_in("open", LetIn(members=False))
        assert await horde() == "club", "the first one, for its members"


async def test_ones_own_paused_worker_serves_what_oneself_asks_for(
    hordes: Hordes, tracker: Publishing, clock: Clock
) -> None:
    tracker.swarms = [{"kind": "text", "model": "a", "workers": 0, "paused": 1, "waiting": 0}]
    ask = TextAsk(prompt="", models=["a"])
    with pytest.raises(Troubled):
        await hordes.choose(ask)
    pause(hordes.home, on=True)
    assert (await hordes.choose(ask)).models == ("a",)
    with pytest.raises(Troubled):
        await hordes.choose(ask, Caller.ANYBODY)


async def test_one_that_does_not_answer_keeps_its_last_and_is_not_waited_for_by_everybody(
    hordes: Hordes, tracker: Publishing, clock: Clock
) -> None:
    tracker.serve("a")
    await hordes.catalogue()
    tracker.is_down = True
    clock.now += FRESH_MS + 1

    silent = await hordes.catalogue()
    assert names(silent.served()) == ["a"]
    assert "503" in silent.silent["one"]

    tracker.is_down = False
    clock.now += SILENT_MS
    assert (await hordes.catalogue()).silent == {}


async def test_pages_that_are_not_there_are_told_from_trackers_that_are_not(
    hordes: Hordes, tracker: Publishing
) -> None:
    assert "swarms" in await hordes.scraped()
    with pytest.raises(Troubled) as missing:
        await hordes.scraped(what="accounts/5")
    assert missing.value.trouble.kind == "not_found"
    assert (await hordes.catalogue()).silent == {}
    tracker.is_down = True
    with pytest.raises(Troubled, match="asked are: one"):
        await hordes.scraped("other")


async def test_who_asks_after_the_end_hears_it(hordes: Hordes) -> None:
    await hordes.close()

    with pytest.raises(Unreachable, match="shutting down"):
        await hordes.client(Caller.MEMBER)


class TwoHordes(Hordes):
    """Two that serve the same; `away` are those of which no client can be opened. tried: of which one was wanted."""

    def __init__(self, folder: Path, tracker: Publishing) -> None:
        super().__init__({"one": tracker.link, "two": tracker.link}, Home(folder), clock=Clock())
        self.away: set[str] = set()
        self.tried: list[str] = []

    async def client(self, caller: Caller, horde: str = "") -> Client:
        self.tried.append(horde)
        if horde in self.away:
            raise Unreachable(f"no tracker lets us in at {horde}")
        return cast("Client", Telling([]))


async def test_a_horde_that_cannot_be_reached_keeps_nobody_from_the_next(tmp_path: Path, tracker: Publishing) -> None:
    tracker.serve("a")
    hordes = TwoHordes(tmp_path, tracker)
    async with hordes:
        ask = TextAsk(prompt="", models=["a"])
        assert (await hordes.reach(Caller.MEMBER, ask))[0].horde == "one"

        hordes.away = {"one"}
        assert (await hordes.reach(Caller.MEMBER, ask))[0].horde == "two"
        hordes.tried.clear()
        assert (await hordes.reach(Caller.MEMBER, ask))[0].horde == "two"
        assert hordes.tried == ["two"], "who was found away is not tried first again"
        with pytest.raises(Unreachable, match="at one"):
            await hordes.reach(Caller.MEMBER, TextAsk(prompt="", models=["one/a"]))

        hordes.away = {"one", "two"}
        with pytest.raises(Unreachable):
            await hordes.reach(Caller.MEMBER, ask)


# Asks


class Telling:
    """A client that says what a test gives it."""

    def __init__(self, said: list[Event | Exception]) -> None:
        self.said = said
        self.rules = Rules()
        self.account_number = 7
        self.asked: dict[str, Any] = {}
        self.told: list[Event] = []
        self.ended = asyncio.Event()

    async def text(self, _prompt: object, **asked: Any) -> AsyncGenerator[Event, None]:
        self.asked = asked
        try:
            for one in self.said:
                await asyncio.sleep(0)
                if isinstance(one, Exception):
                    raise one
                self.told.append(one)
                yield one
        finally:
            self.ended.set()


class Reached(Hordes):
    """Hordes of which one client is open."""

    def __init__(self, folder: Path, client: Telling, of: tuple[Model, ...] = ()) -> None:
        super().__init__({}, Home(folder))
        self.reached = client
        self.of = of

    async def choose(self, ask: Ask, caller: Caller = Caller.MEMBER) -> Chosen:
        return Chosen("one", tuple(ask.models), self.of)

    async def client(self, caller: Caller, horde: str = "") -> Client:
        return cast("Client", self.reached)


def received(index: int) -> Event:
    return events.Received(index, 1, "stop", "dry-run", 3, (), b"", b"")


def settled(index: int) -> Event:
    return events.Settled(index, 1, 5, 0, 3, False, 9, b"")


TWO: list[Event | Exception] = [
    events.TextPiece(0, "a"),
    received(0),
    events.TextPiece(1, "b"),
    received(1),
    settled(0),
    settled(1),
]
ASK = TextAsk(prompt=[("user", "hi")], models=["m"], n=2)


async def test_an_ask_ends_with_the_last_result_and_its_settlement_is_heard_all_the_same(tmp_path: Path) -> None:
    client = Telling(TWO)
    async with Reached(tmp_path, client) as hordes:
        results = await gather(ASK, hordes.ask(Caller.MEMBER, ASK))
        assert [(result.text, result.finish, result.settled) for result in results] == [
            ("a", "stop", False),
            ("b", "stop", False),
        ]
        await client.ended.wait()
    assert client.told == TWO
    assert (client.asked["max_tokens"], client.asked["context"], client.asked["raw"]) == (1024, 2048, False)


async def test_an_ask_to_the_end_ends_with_its_settlements(tmp_path: Path) -> None:
    async with Reached(tmp_path, Telling(TWO)) as hordes:
        results = await gather(ASK, hordes.ask(Caller.MEMBER, ASK, to_the_end=True))

    assert [result.paid for result in results] == [5, 5]


async def test_closing_an_ask_closes_the_clients(tmp_path: Path) -> None:
    client = Telling(TWO)
    async with Reached(tmp_path, client) as hordes, aclosing(hordes.ask(Caller.MEMBER, ASK)) as asked:
        await anext(asked)
        await asked.aclose()
        assert client.ended.is_set()

    assert len(client.told) == 1


async def test_an_error_of_a_horde_is_the_asks(tmp_path: Path) -> None:
    async with Reached(tmp_path, Telling([events.JobExpired("expired", "nobody took it")])) as hordes:
        with pytest.raises(events.JobExpired):
            await gather(ASK, hordes.ask(Caller.MEMBER, ASK))


async def test_an_ask_that_the_end_cuts_off_hears_why(tmp_path: Path) -> None:
    client = Telling([events.TextPiece(0, "a"), Unreachable("the client was closed")])
    async with Reached(tmp_path, client) as hordes, aclosing(hordes.ask(Caller.MEMBER, ASK)) as asked:
        await anext(asked)
        await hordes.close()
        with pytest.raises(Unreachable, match="shutting down"):
            await anext(asked)


class Lost(Telling):
    """One whose tracker went away before it took the request in."""

    async def text(self, _prompt: object, **asked: Any) -> AsyncGenerator[Event, None]:
        try:
            await asyncio.Event().wait()
            yield received(0)
        finally:
            self.ended.set()

    async def ready(self) -> None:
        raise Unreachable("no tracker lets us in")


async def test_who_asks_a_tracker_that_goes_away_before_it_takes_it_in_hears_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("peer.gateway.hordes.TAKEN_SECONDS", 0.01)
    client = Lost([])
    async with Reached(tmp_path, client) as hordes:
        with pytest.raises(Unreachable, match="no tracker"):
            await gather(ASK, hordes.ask(Caller.MEMBER, ASK))

    assert client.ended.is_set(), "it is cancelled, in case that it was taken in"


def unable(text: str) -> Event:
    return events.Requeued(0, 1, "unsupported", text)


async def test_what_no_worker_can_do_is_refused_and_does_not_wait(tmp_path: Path) -> None:
    two = (Model("text", "m", "one", workers=2),)
    async with Reached(tmp_path, Telling([unable("no sampler euler"), unable("no such sampler"), *TWO]), two) as hordes:
        with pytest.raises(Troubled, match="no such sampler") as refused:
            await gather(ASK, hordes.ask(Caller.MEMBER, ASK))
    assert refused.value.trouble.kind == "unsupported"

    async with Reached(tmp_path, Telling([unable("no sampler euler"), *TWO]), two) as hordes:
        assert [result.text for result in await gather(ASK, hordes.ask(Caller.MEMBER, ASK))] == ["a", "b"]


async def test_a_failed_settlement_after_the_result_disturbs_nobody(tmp_path: Path) -> None:
    client = Telling([received(0), received(1), events.Refused("internal", "reference 5")])
    async with Reached(tmp_path, client) as hordes:
        await gather(ASK, hordes.ask(Caller.MEMBER, ASK))
        await client.ended.wait()


async def test_a_key_without_an_account_gets_the_answers_of_nobody(tmp_path: Path) -> None:
    client = Telling([received(0), received(1)])
    client.account_number = 0
    async with Reached(tmp_path, client) as hordes:
        await gather(ASK, hordes.ask(Caller.MEMBER, ASK))

    assert client.asked["max_tokens"] == Rules().limits.anonymous_max_tokens
