"""How a request stands, in AI Horde's words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from peer import events
from peer.gateway.aihorde import progress
from peer.gateway.asks import ImageAsk, Result, Results, TextAsk
from peer.gateway.errors import Trouble
from protocol.keys import show_key

WORKER = b"w" * 32


@dataclass
class Request:
    """One that a test sets up."""

    ask: ImageAsk | TextAsk = field(default_factory=lambda: ImageAsk(prompt="x", n=2, width=64, height=64, steps=10))
    since: int = 0
    ended: bool = False
    cancelled: bool = False
    trouble: Trouble | None = None


def standing(request: Request, *happened: events.Event, speed: int = 0, now: int = 0) -> dict[str, Any]:
    return progress.check(request, heard(request, *happened), lambda _: speed, now)


def heard(request: Request, *happened: events.Event) -> list[Result]:
    results = Results(request.ask.n)
    for event in happened:
        results.receive(event)
    return results.all


def queued(index: int) -> events.Event:
    return events.Queued(index, b"j" * 16, 0)


def leased(index: int) -> events.Event:
    return events.Leased(index, WORKER, "m", 1, price=1500, paid=0)


def whole(index: int) -> events.Event:
    return events.Received(index, 1, "stop", "an engine", 10, (), b"", b"")


def test_one_that_has_just_come_waits() -> None:
    assert standing(Request()) == {
        "finished": 0,
        "processing": 0,
        "restarted": 0,
        "waiting": 2,
        "done": False,
        "faulted": False,
        "wait_time": 0,
        "queue_position": 1,
        "kudos": 0,
        "is_possible": True,
    }


def test_results_are_counted_by_where_they_are() -> None:
    found = standing(
        Request(),
        queued(0),
        queued(1),
        events.Position(1, ahead=4, workers=2, wait=9),
        leased(0),
        events.Progress(0, 5, 10),
    )
    assert (found["processing"], found["waiting"], found["finished"], found["done"]) == (1, 1, 0, False)
    assert (found["queue_position"], found["wait_time"]) == (5, 9)


def test_the_wait_counts_the_work_that_is_left() -> None:
    position = events.Position(1, ahead=0, workers=1, wait=9)
    steps = 64 * 64 * 2
    found = standing(Request(), leased(0), events.Progress(0, 5, 10), position, speed=steps)
    assert found["wait_time"] == 9 + 10
    alone = Request(TextAsk(prompt="x", max_tokens=100))
    assert standing(alone, leased(0), events.Progress(0, 40, 100), speed=20)["wait_time"] == 3


def test_one_that_is_whole_is_done_and_has_cost_something() -> None:
    found = standing(Request(), leased(0), leased(1), whole(0), whole(1))
    assert (found["done"], found["finished"], found["processing"], found["waiting"]) == (True, 2, 0, 0)
    assert found["kudos"] == 3.0
    settled = events.Settled(0, 1, paid=700, minted=0, burned=0, partial=False, entry=1, settlement=b"")
    assert standing(Request(), leased(0), leased(1), whole(0), whole(1), settled)["kudos"] == 2.2


def test_one_that_a_worker_gave_up_waits_again() -> None:
    found = standing(Request(), leased(0), events.Requeued(0, 1, "gone", ""))
    assert (found["restarted"], found["processing"], found["waiting"]) == (1, 0, 2)


def test_one_of_which_nothing_came_is_faulted_and_one_of_which_a_part_came_is_not() -> None:
    failed = Request(ended=True, trouble=Trouble("failed", "x"))
    assert standing(failed)["faulted"] is True
    assert standing(failed)["done"] is True
    found = standing(failed, leased(0), whole(0))
    assert (found["faulted"], found["done"], found["finished"], found["waiting"]) == (False, True, 1, 0)


def test_one_that_was_taken_back_is_done_and_not_faulted() -> None:
    for ended in (False, True):
        found = standing(Request(cancelled=True, ended=ended, trouble=Trouble("cancelled", "x")), leased(0))
        assert (found["done"], found["faulted"], found["processing"], found["waiting"]) == (True, False, 0, 0)


def test_only_one_for_which_there_is_no_worker_for_long_is_impossible() -> None:
    nobody, somebody = (events.Position(0, ahead=3, workers=workers) for workers in (0, 1))
    alone = Request(ImageAsk(prompt="x"))
    late = progress.PATIENCE_MS + 1
    assert standing(alone, queued(0), nobody, now=late - 1)["is_possible"] is True
    assert standing(alone, queued(0), nobody, now=late)["is_possible"] is False
    assert standing(alone, queued(0), somebody, now=late)["is_possible"] is True
    assert standing(alone, queued(0), nobody, leased(0), now=late)["is_possible"] is True
    assert standing(alone, now=late)["is_possible"] is True


def test_a_picture_has_its_seed_as_text_and_a_text_as_a_number() -> None:
    request = Request()
    result = heard(request, leased(0), whole(0))[0]
    shared = {
        "id": "an id",
        "model": "m",
        "worker_id": show_key(WORKER),
        "worker_name": show_key(WORKER)[:8],
        "state": "ok",
        "gen_metadata": [],
        "censored": False,
    }
    assert progress.image(result, 7, "an id", "bare") == {**shared, "img": "bare", "seed": "7"}
    assert progress.text(result, 7, "an id", "words") == {**shared, "text": "words", "seed": 7}


def test_what_was_stopped_half_way_says_so() -> None:
    part = events.Received(0, 1, "cancelled", "an engine", 3, (), b"", b"")
    assert progress.image(heard(Request(), leased(0), part)[0], 7, "id", "")["state"] == "partial"
