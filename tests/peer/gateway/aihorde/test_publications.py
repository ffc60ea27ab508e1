"""What is published through AI Horde's door: models, load, users, workers, documents."""

from __future__ import annotations

from typing import Any

import pytest

from peer.gateway.aihorde import census, documents, people
from peer.gateway.catalogue import Model
from protocol.messages import Account

SCRAPE: dict[str, Any] = {
    "kinds": {
        "image": {"workers": 3, "slots": 4, "waiting": 5, "queued": 7_500_000, "past_minute": 1_000_000},
        "text": {"workers": 1, "slots": 2, "waiting": 6, "queued": 900, "past_minute": 300},
    },
    "swarms": [{"kind": "image", "model": "m", "queued": 7_500_000}, {"kind": "video"}, "odd"],
}
#: What a hostile or an older tracker may publish.
ODD: tuple[dict[str, Any], ...] = (
    {},
    {"kinds": None, "swarms": None},
    {"kinds": {"image": 3, "text": []}, "swarms": {"a": 1}},
    {"kinds": {"image": {"workers": "many", "queued": -5}}, "swarms": [None, {"kind": "image", "queued": "x"}]},
)


def test_a_model_is_shown_with_what_waits_for_it() -> None:
    model = Model("image", "m", "home", workers=2, waiting=5, speed=1_000_000, wait=1, slots=3)
    assert census.models({"home/m": model}, census.queued({"home": SCRAPE})) == [
        {
            "name": "home/m",
            "count": 3,
            "performance": 1_000_000.0,
            "queued": 7_500_000.0,
            "jobs": 5.0,
            "eta": 3,
            "type": "image",
        }
    ]


def test_a_model_without_workers_is_never_done_and_one_without_a_measure_goes_by_the_wait() -> None:
    none, unmeasured = (Model("text", "m", "home", workers=workers, wait=8) for workers in (0, 1))
    found = census.models({"a": none, "b": unmeasured}, {})
    assert [model["eta"] for model in found] == [census.NEVER_SECONDS, 8]
    assert census.wanted(found, 1, None) == [found[1]]
    assert census.wanted(found, None, 0) == [found[0]]


def test_the_load_of_all_hordes_is_added_up() -> None:
    assert census.performance([SCRAPE, SCRAPE]) == {
        "queued_requests": 10,
        "queued_text_requests": 12,
        "worker_count": 6,
        "text_worker_count": 2,
        "thread_count": 8,
        "text_thread_count": 4,
        "queued_megapixelsteps": 15.0,
        "past_minute_megapixelsteps": 2.0,
        "queued_forms": 0.0,
        "interrogator_count": 0,
        "interrogator_thread_count": 0,
        "queued_tokens": 1800.0,
        "past_minute_tokens": 600.0,
    }
    assert census.image_totals([SCRAPE])["minute"]["ps"] == 1_000_000
    assert census.text_totals([SCRAPE])["minute"] == {"tokens": 300}


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_tracker_breaks_nothing(odd: dict[str, Any]) -> None:
    assert census.performance([odd])["thread_count"] == 0
    assert not sum(census.queued({"home": odd}).values())
    assert people.other(odd, 0)["id"] == 0
    assert people.workers(odd, 0) == []


def test_our_account_is_a_user_with_its_number_behind_its_name() -> None:
    account = Account(number=123, balance=2500, earned=4000, spent=1500, jobs_done=4, jobs_received=3, name="Ada")
    found = people.own(account, 1000, {"image": ["an id"], "text": [], "alchemy": []})
    assert (found["username"], found["id"], found["kudos"]) == ("Ada#123", 123, 2.5)
    assert found["kudos_details"]["accumulated"] == 2.5
    assert (found["concurrency"], found["trusted"]) == (1000, True)
    assert found["active_generations"]["image"] == ["an id"]
    assert people.own(Account(number=123, trust_days=2), 1, {})["trusted"] is False
    assert people.own(Account(number=123), 1, {})["username"] == "unnamed#123"


def test_a_public_account_is_shown_without_its_balance() -> None:
    page = {
        "account": 123,
        "name": "Ada#123",
        "service": True,
        "since_day": 10,
        "gave": {"jobs": 4, "kudos": 4000},
        "took": {"jobs": 3, "kudos": 1500, "free": 0},
    }
    found = people.other(page, 11 * people.DAY_SECONDS * 1000)
    assert (found["username"], found["service"], found["account_age"]) == ("Ada#123", True, people.DAY_SECONDS)
    assert (found["contributions"]["fulfillments"], found["usage"]["requests"]) == (4, 3)
    assert found["kudos"] == 0


def test_a_worker_that_serves_both_kinds_is_shown_once_for_each() -> None:
    entry = {
        "id": "abc",
        "name": "a",
        "since": 0,
        "slots": 2,
        "jobs": 5,
        "kudos": 7000,
        "account": 123,
        "offers": [
            {"kind": "image", "model": "m", "max_pixels": 4096, "speed": 2_500_000},
            {"kind": "text", "model": "t", "max_tokens": 100, "max_context": 200, "speed": 10.5},
            {"kind": "text", "model": "u", "max_tokens": 300, "max_context": 100, "speed": 0},
            {"kind": "video", "model": "v"},
        ],
    }
    painter, writer = people.workers(entry, 60_000)
    assert (painter["type"], painter["models"], painter["max_pixels"]) == ("image", ["m"], 4096)
    assert painter["performance"] == "2.5 megapixelsteps per second"
    assert (writer["type"], writer["models"]) == ("text", ["t", "u"])
    assert writer["performance"] == "10.5 tokens per second"
    assert (writer["max_length"], writer["max_context_length"]) == (300, 200)
    for worker in (painter, writer):
        assert (worker["id"], worker["owner"], worker["threads"], worker["uptime"]) == ("abc", "account 123", 2, 60)
        assert worker["kudos_rewards"] == 7.0


@pytest.mark.parametrize("name", documents.DOCUMENTS)
def test_each_document_comes_as_a_page_and_as_plain_text(name: str) -> None:
    assert documents.document(name, "html").startswith("<h1>")
    assert documents.document(name, "markdown").startswith("# ")
