"""Asks in the background: what is known of them, how they end, how long they are kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from peer import events
from peer.events import Event
from peer.gateway import running as running_module
from peer.gateway.asks import Ask, Caller, ImageAsk, Results, TextAsk
from peer.gateway.errors import Troubled
from peer.gateway.hordes import Hordes
from peer.gateway.running import MAX_OF_ANYBODY, PIECE_BYTES, Registry, Running
from peer.home import Home

ASK = ImageAsk(prompt="a red circle", n=2)


def queued(index: int) -> Event:
    return events.Queued(index, bytes(16), 0)


def leased(index: int) -> Event:
    return events.Leased(index, bytes(32), "paint", 1, 7000, 0)


def picture(index: int, content: bytes = b"png") -> Event:
    return events.Picture(index, content, "image/png", 40 + index)


def received(index: int) -> Event:
    return events.Received(index, 1, "stop", "dry-run", 30, (), b"", b"")


class Scripted(Hordes):
    """Hordes that say what a test puts in; an exception among it is raised."""

    def __init__(self, folder: Path) -> None:
        super().__init__({}, Home(folder))
        self.said: asyncio.Queue[Event | Exception | None] = asyncio.Queue()
        self.closed = 0

    async def ask(self, caller: Caller, ask: Ask, *, to_the_end: bool = False) -> AsyncGenerator[Event, None]:
        try:
            while (one := await self.said.get()) is not None:
                if isinstance(one, Exception):
                    raise one
                yield one
        finally:
            self.closed += 1

    def say(self, *what: Event | Exception | None) -> None:
        for one in what:
            self.said.put_nowait(one)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def hordes(tmp_path: Path) -> Scripted:
    return Scripted(tmp_path)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def registry(hordes: Scripted, clock: Clock) -> AsyncGenerator[Registry, None]:
    async with Registry(hordes, clock, kept_ms=1000, most=100) as registry:
        yield registry


async def ended(running: Running) -> Running:
    while not running.ended:
        await running.changed()
    return running


def kind(error: pytest.ExceptionInfo[Troubled]) -> str:
    return error.value.trouble.kind


async def test_results_grow_with_what_is_heard(registry: Registry, hordes: Scripted) -> None:
    running = registry.start(Caller.MEMBER, ASK)
    hordes.say(queued(0), queued(1), leased(0), events.Progress(0, 3, 30), events.Preview(0, b"jpeg"))
    first, second = running.results.all
    while not first.preview:
        await running.changed()

    assert (first.is_being_made, first.model, first.price, first.done, first.total) == (True, "paint", 7000, 3, 30)
    assert not second.is_being_made
    hordes.say(picture(0), received(0), leased(1), picture(1), received(1))
    await running.wait()
    assert running.is_done
    assert not running.ended
    hordes.say(events.Settled(0, 1, 5, 2, 3, False, 9, b""), None)
    await ended(running)
    assert (first.content, first.seed, first.finish, first.paid, first.preview) == (b"png", 40, "stop", 5, b"")
    assert second.seed == 41
    assert running.trouble is None


def test_text_begins_anew_where_its_worker_could_not_go_on() -> None:
    results = Results(1)

    for event in (
        events.TextPiece(0, "a"),
        events.TextPiece(0, "b"),
        events.Restarted(0, ""),
        events.TextPiece(0, "c"),
    ):
        results.receive(event)

    assert results.all[0].text == "c"


async def test_one_that_fails_says_why_and_keeps_what_is_whole(registry: Registry, hordes: Scripted) -> None:
    running = registry.start(Caller.MEMBER, ASK)
    hordes.say(picture(0), received(0), events.JobFailed("crashed", "the engine crashed", 1))

    await running.wait()

    assert running.trouble is not None
    assert (running.trouble.kind, running.trouble.text) == ("failed", "the engine crashed")
    assert [result.is_whole for result in running.results.all] == [True, False]


async def test_a_fault_of_ours_ends_it_without_a_word_of_the_prompt(
    registry: Registry, hordes: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    running = registry.start(Caller.MEMBER, ASK)
    hordes.say(RuntimeError("a red circle"))

    await running.wait()

    assert running.trouble is not None
    assert running.trouble.kind == "internal"
    assert "RuntimeError" in caplog.text
    assert "circle" not in caplog.text + running.trouble.text


@pytest.mark.parametrize("begun", [False, True])
async def test_cancelling_closes_the_ask_also_before_it_began(
    registry: Registry, hordes: Scripted, begun: bool
) -> None:
    running = registry.start(Caller.MEMBER, ASK)
    if begun:
        hordes.say(queued(0))
        await running.changed()

    running.cancel()
    await running.wait()

    assert (running.cancelled, running.ended) == (True, True)
    assert running.trouble is not None
    assert running.trouble.kind == "cancelled"
    assert hordes.closed == begun


async def test_what_nobody_asks_about_is_cancelled_and_gone(registry: Registry, hordes: Scripted, clock: Clock) -> None:
    running = registry.start(Caller.MEMBER, ASK)
    clock.now += 900
    assert registry.get(running.id) is running
    clock.now += 900
    assert registry.get(running.id) is running
    clock.now += 1001

    with pytest.raises(Troubled) as gone:
        registry.get(running.id)
    with pytest.raises(Troubled) as unknown:
        registry.get("6f1c")

    assert (kind(gone), kind(unknown)) == ("gone", "not_found")
    await ended(running)
    assert running.cancelled


async def test_one_that_is_waited_for_is_not_forgotten(registry: Registry, hordes: Scripted, clock: Clock) -> None:
    running = registry.start(Caller.MEMBER, ASK)
    waiting = asyncio.create_task(running.wait())
    await asyncio.sleep(0)
    clock.now += 5000
    registry.sweep()

    hordes.say(None)
    await waiting

    assert not running.cancelled
    assert registry.get(running.id) is running


async def test_the_oldest_results_make_room(registry: Registry, hordes: Scripted) -> None:
    made = []
    for _ in range(3):
        running = registry.start(Caller.MEMBER, ImageAsk(prompt=""))
        hordes.say(picture(0, bytes(60)), received(0), None)
        made.append(await ended(running))
    registry.sweep()

    assert registry.all(Caller.MEMBER) == made[2:]
    assert registry.all(Caller.ANYBODY) == []


async def test_nobodys_results_push_out_none_of_the_accounts(registry: Registry, hordes: Scripted) -> None:
    made = []
    for caller in (Caller.MEMBER, Caller.ANYBODY, Caller.ANYBODY):
        running = registry.start(caller, ImageAsk(prompt=""))
        hordes.say(picture(0, bytes(60)), received(0), None)
        made.append(await ended(running))
    registry.sweep()

    assert registry.all(Caller.MEMBER) == made[:1]
    assert registry.all(Caller.ANYBODY) == []


async def test_texts_and_what_was_asked_take_room_too(registry: Registry, hordes: Scripted) -> None:
    long = registry.start(Caller.MEMBER, TextAsk(prompt=[("user", "x" * 60), ("user", "y" * 60)]))
    hordes.say(received(0), None)
    await ended(long)
    pieces = registry.start(Caller.MEMBER, TextAsk(prompt=""))
    hordes.say(events.TextPiece(0, "a"), events.TextPiece(0, "b"), received(0), None)
    await ended(pieces)
    registry.sweep()

    assert (long.size, pieces.size) == (120, 2 * PIECE_BYTES)
    assert registry.all(Caller.MEMBER) == []


async def test_no_more_are_kept_however_small_they_are(
    registry: Registry, hordes: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running_module, "MAX_KEPT", 2)
    made = []
    for _ in range(4):
        hordes.say(received(0), None)
        made.append(await ended(registry.start(Caller.MEMBER, TextAsk(prompt=""))))
    registry.sweep()

    assert registry.all(Caller.MEMBER) == made[2:]
    with pytest.raises(Troubled) as gone:
        registry.get(made[0].id)
    assert kind(gone) == "gone"


async def test_polling_does_not_look_through_all_that_is_kept(
    registry: Registry, hordes: Scripted, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, swept = registry.start(Caller.MEMBER, ASK), []
    monkeypatch.setattr(registry, "sweep", lambda: swept.append(clock.now))
    for number in range(1000):
        with pytest.raises(Troubled):
            registry.get(f"unknown {number}")
    assert not swept
    clock.now += 1001
    with pytest.raises(Troubled) as gone:
        registry.get(running.id)
    assert kind(gone) == "gone"
    assert swept == [clock.now]


async def test_nobody_in_particular_cannot_fill_it(registry: Registry, hordes: Scripted) -> None:
    for _ in range(MAX_OF_ANYBODY):
        registry.start(Caller.ANYBODY, TextAsk(prompt="hi"))

    with pytest.raises(Troubled) as refused:
        registry.start(Caller.ANYBODY, TextAsk(prompt="hi"))
    registry.start(Caller.MEMBER, TextAsk(prompt="hi"))

    assert kind(refused) == "too_many"


async def test_a_name_of_the_clients_own_is_used_once(registry: Registry, hordes: Scripted) -> None:
    assert registry.start(Caller.MEMBER, ASK, "mine").id == "mine"

    with pytest.raises(Troubled, match="another request"):
        registry.start(Caller.MEMBER, ASK, "mine")


async def test_the_end_cancels_what_runs(hordes: Scripted, clock: Clock) -> None:
    async with Registry(hordes, clock) as registry:
        running = registry.start(Caller.MEMBER, ASK)
        hordes.say(queued(0))
        await running.changed()

    assert running.ended
    assert hordes.closed == 1
