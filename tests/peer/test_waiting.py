"""What a person is told while a job waits, and what a quote says."""

from __future__ import annotations

import pytest

from peer import events
from peer.commands.report import _Waits, doing_now, quote_lines, show_wait
from peer.events import BadRequest
from peer.measures import check_public, image_work, public_part, text_work
from protocol.messages import Quote

QUOTE = Quote(price=7_600, tax=3_000, held=10_600, free=0, workers=2, ahead=3, wait=95)
LEASED = events.Leased(0, worker=bytes(32), model="m", attempt=1, price=1, paid=0)


@pytest.mark.parametrize(
    ("seconds", "shown"), [(1, "1 s"), (119, "119 s"), (120, "2 min"), (3_600, "60 min"), (9_000, "2 h")]
)
def test_a_wait_is_shown_as_people_say_it(seconds: int, shown: str) -> None:
    assert show_wait(seconds) == shown


def test_the_place_is_told_with_the_wait_where_one_is_known() -> None:
    assert doing_now(events.Position(0, 3, 1, 40)) == "in the queue behind 3; 1 worker could do it, in about 40 s"
    assert doing_now(events.Position(0, 3, 2)) == "in the queue behind 3; 2 workers could do it"


@pytest.mark.parametrize("live", [True, False])
def test_how_well_the_first_word_came_true_is_told_when_a_worker_takes_the_job(live: bool) -> None:
    now = 100.0
    waits = _Waits(live=live, clock=lambda: now)
    waits.line(events.Position(0, 2, 1, 60))
    now = 150.0
    waits.line(events.Position(0, 1, 1, 30))
    now = 172.0
    assert waits.line(LEASED) == "waited 72 s; 60 s had been expected"
    assert waits.line(LEASED) is None, "a second worker after the first failed is another matter"


def test_nothing_is_said_of_a_wait_that_nobody_knew() -> None:
    waits = _Waits(live=True)
    waits.line(events.Position(0, 2, 1))
    assert waits.line(LEASED) is None


def test_a_quote_for_people_says_all_that_it_holds() -> None:
    text = "\n".join(quote_lines(QUOTE, 1))
    for part in ("7.6 kudos at most, for", "tax 3, burned", "10.6 of your kudos", "behind 3", "about 95 s", "2 that"):
        assert part in text
    assert "7.6 kudos at most each" in quote_lines(QUOTE, 4)[0]


def test_a_quote_where_nobody_can_do_it_promises_no_time() -> None:
    none = Quote(price=1, tax=1, held=0, free=1, workers=0, ahead=0)
    assert "no worker here could do it now" in "\n".join(quote_lines(none, 1))


# Measures


def test_guidance_above_one_takes_two_passes() -> None:
    assert [image_work(guidance=value).guidance_passes for value in (0, 1, 1.001, 7.5)] == [1, 1, 2, 2]


def test_a_text_without_room_for_a_prompt_is_refused() -> None:
    with pytest.raises(BadRequest, match="leaves no room for a prompt"):
        text_work(256, 256)


def test_what_no_tracker_would_take_is_refused_with_the_value() -> None:
    with pytest.raises(BadRequest, match="width 65: wanted"):
        check_public(public_part(image_work(width=65), (), 1, 0))
    with pytest.raises(BadRequest, match=r"width 1000000000000000000000000: wanted a multiple of 8, 16 to 4096"):
        check_public(public_part(image_work(width=10**24), (), 1, 0))
    with pytest.raises(BadRequest, match=r"max_price 1e\+30: wanted 0 or more"):
        check_public(public_part(image_work(), (), 1, 1e30))
    with pytest.raises(BadRequest, match="max_price nan: wanted a number"):
        public_part(image_work(), (), 1, float("nan"))
