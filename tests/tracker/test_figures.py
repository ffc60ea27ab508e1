"""What anybody may know of the work: by kind, by swarm and by worker; and what of a worker nobody may."""

import json
from pathlib import Path
from typing import Any

import pytest

from protocol.documents import Lease
from protocol.keys import parse_key, show_key
from protocol.messages import Announce
from tests.support.builders import (
    IMAGE_MODEL,
    TEXT_MODEL,
    a_key,
    a_profile,
    a_public_part,
    a_text_work,
    an_image_work,
    but,
)
from tests.support.peers import A_TEXT_OFFER, AN_OFFER, Desk, Peer, leased
from tests.tracker.test_web import start  # noqa: F401 (a fixture)
from tracker import web_workers
from tracker.figures import COUNTED_A_MS, MINUTE_MS, WAITS, Figures, PastMinute, made_units, shown_speed, small_job
from tracker.forecast import Forecast
from tracker.matching import Queue
from tracker.pool import Pool, Served
from tracker.web_workers import Directory

PIXELSTEPS = 64 * 64 * 30 * 2


async def workers_of(desk: Desk) -> list[Any]:
    """The first part of the list."""
    part = await Directory(desk.coordinator).part(b"")
    assert part is not None
    return part["workers"]


async def entry(desk: Desk, worker: Peer) -> Any:
    """What is shown of one worker."""
    return await Directory(desk.coordinator).one(worker.key.public)


# Numbers


def test_the_past_minute_forgets_to_the_second():
    done = PastMinute()
    done.add(5, 1_000)
    done.add(7, 1_999)
    done.add(1, 30_000)
    assert (done.total(30_000), done.total(60_999), done.total(61_000), done.total(90_000)) == (13, 13, 1, 0)


def test_a_clock_that_goes_back_loses_nothing():
    done = PastMinute()
    done.add(5, 100_000)
    done.add(7, 99_000)
    assert done.total(100_000) == 12


def test_what_was_made_is_that_part_of_what_was_asked_for():
    assert made_units(an_image_work(64, 64, steps=30), 15) == PIXELSTEPS // 2
    assert made_units(a_text_work(max_tokens=100), 7) == 7
    assert made_units(a_text_work(max_tokens=100), 700) == 100, "no more than was asked for"


def test_a_speed_has_three_digits_or_whole_ones():
    found = [shown_speed(each) for each in (None, 0, 0.012345, 1.23456, 123.456, 1234567.8)]
    assert found == [0, 0, 0.0123, 1.23, 123, 1234568]


def test_a_small_job_is_no_larger_than_what_is_served():
    assert small_job("image", Served(max_pixels=200 * 200, max_steps=4)) == an_image_work(200, 200, steps=4)
    assert small_job("image", Served(max_pixels=4096 * 4096, max_steps=500)) == an_image_work(512, 512, steps=20)
    assert small_job("text", Served(max_tokens=512, max_context=600)) == but(
        a_text_work(), max_tokens=100, context_tokens=600
    )
    assert small_job("image", Served()) is None
    assert small_job("text", Served(max_tokens=1)) is None


def test_only_so_many_waits_are_looked_up_at_a_time(monkeypatch):
    pool, queue = Pool(), Queue()
    figures = Figures(queue, pool, Forecast(queue, pool))
    offers = tuple(but(AN_OFFER, model=f"model-{number:03}") for number in range(2 * WAITS))
    pool.announce(a_key(1).public, 7, Announce(offers=offers), ())
    found = figures.swarms(0)
    assert len(found) == 2 * WAITS
    assert sum(swarm["wait"] == 1 for swarm in found) == WAITS
    monkeypatch.setattr(figures, "_wait", None)  # so that another look would fail
    assert figures.swarms(1) == found


def crowded(crews: int) -> tuple[Pool, Figures]:
    """A horde of workers of which no two announced the same."""
    pool, queue = Pool(), Queue()
    for number in range(crews):
        offer = but(AN_OFFER, engine=f"an engine at {number}")
        pool.announce(number.to_bytes(32, "big"), number, Announce(offers=(offer,)), ())
    return pool, Figures(queue, pool, Forecast(queue, pool))


def test_a_small_horde_is_counted_anew_each_time_and_a_large_one_as_seldom_as_that_takes_long():
    for crews, is_held in ((COUNTED_A_MS // 4, False), (20 * COUNTED_A_MS, True)):
        pool, figures = crowded(crews)
        assert figures.swarms(1000)[0]["workers"] == crews
        pool.announce(b"one more".ljust(32), 7, Announce(offers=(AN_OFFER,)), ())
        now = crews if is_held else crews + 1
        assert (figures.swarms(1001)[0]["workers"], figures.kinds(1001)["image"]["workers"]) == (now, now)
        later = 1000 + pool.alike()
        assert figures.swarms(later)[0]["workers"] == figures.kinds(later)["image"]["workers"] == crews + 1


def test_slots_are_those_of_each_worker_though_workers_that_offer_the_same_are_counted_together():
    pool = Pool()
    for number, slots in ((1, 2), (2, 5), (1, 3)):
        pool.announce(a_key(number).public, number, Announce(offers=(AN_OFFER,), slots=slots), ())
    assert pool.kinds()["image"] == Served(workers=2, slots=8)
    pool.remove(a_key(2).public)
    assert pool.swarms()["image", IMAGE_MODEL].slots == 3


def test_workers_that_are_paused_are_counted_apart_and_what_they_take_where_nobody_else_serves():
    pool = Pool()
    large = but(AN_OFFER, max_pixels=4096 * 4096)
    for number, announce in enumerate([Announce(offers=(large,), paused=True), Announce(offers=(AN_OFFER,), slots=2)]):
        pool.announce(a_key(number).public, number, announce, ())
    assert pool.kinds()["image"] == Served(workers=1, slots=2, paused=1)
    assert pool.swarms()["image", IMAGE_MODEL].max_pixels == AN_OFFER.max_pixels
    assert pool.paused() == 1
    pool.remove(a_key(1).public)
    served = pool.swarms()["image", IMAGE_MODEL]
    assert (served.workers, served.slots, served.paused, served.max_pixels) == (0, 0, 1, large.max_pixels)


# A horde at work


async def test_swarms_and_kinds_say_what_is_served_waits_and_is_done(desk):
    worker, requester, lease = await leased(desk)
    other = await desk.requester(101)
    await other.ask()
    large = but(AN_OFFER, max_pixels=2048 * 2048, max_steps=10)
    await desk.worker(1, large, A_TEXT_OFFER, slots=3, anonymous=False)
    [image, text] = desk.coordinator.scrape()["swarms"]
    assert image == {
        "kind": "image",
        "model": IMAGE_MODEL,
        "workers": 2,
        "slots": 4,
        "paused": 0,
        "waiting": 1,
        "queued": PIXELSTEPS,
        "max_pixels": 2048 * 2048,
        "max_steps": 100,
        "max_tokens": 0,
        "max_context": 0,
        "speed": 0,
        "wait": 0,
    }
    assert (text["model"], text["max_tokens"], text["max_context"], text["wait"]) == (TEXT_MODEL, 512, 8192, 1)

    desk.clock.now += 10_000
    await worker.deliver(lease)
    await requester.acknowledge(worker.receipts[lease.job, lease.attempt])
    await desk.quiet()
    found = desk.coordinator.scrape()
    assert found["swarms"][0]["speed"] == pytest.approx(PIXELSTEPS / 10, rel=0.01)
    assert found["kinds"] == {
        "image": {"workers": 2, "slots": 4, "paused": 0, "waiting": 0, "queued": 0, "past_minute": PIXELSTEPS},
        "text": {"workers": 1, "slots": 3, "paused": 0, "waiting": 0, "queued": 0, "past_minute": 0},
    }
    desk.clock.now += MINUTE_MS
    assert desk.coordinator.scrape()["kinds"]["image"]["past_minute"] == 0


async def test_every_figure_is_in_the_standard(desk):
    await desk.worker()
    scraped = desk.coordinator.scrape()
    [worker] = await workers_of(desk)
    said = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text("utf-8")
    said = said[said.index("**Public pages.**") : said.index("## 7. Session messages")]
    shown = {*scraped["kinds"]["image"], *scraped["swarms"][0], *worker, *worker["offers"][0]}
    assert {name for name in shown if f"`{name}`" not in said} == set()


async def test_a_job_for_one_of_several_models_waits_in_each_swarm_and_once_in_its_kind(desk):
    requester = await desk.requester()
    await requester.ask(a_public_part(an_image_work(), models=("one", "other")))
    found = desk.coordinator.scrape()
    assert [(swarm["model"], swarm["waiting"], swarm["workers"]) for swarm in found["swarms"]] == [
        ("one", 1, 0),
        ("other", 1, 0),
    ]
    assert found["kinds"]["image"]["waiting"] == 1


async def test_a_worker_is_shown_with_what_it_did_since_it_came_and_nothing_of_whose_it_is(desk):
    worker, requester, lease = await leased(desk)
    came = desk.clock.now
    desk.clock.now += 10_000
    await worker.deliver(lease)
    await requester.acknowledge(worker.receipts[lease.job, lease.attempt])
    await desk.quiet()
    [shown] = await workers_of(desk)
    assert shown["kudos"] > 0
    assert shown == {
        "id": show_key(worker.key.public),
        "name": show_key(worker.key.public)[:8],
        "since": came // MINUTE_MS * MINUTE_MS,
        "slots": 1,
        "paused": False,
        "anonymous": True,
        "jobs": 1,
        "kudos": shown["kudos"] // 1000 * 1000,
        "account": None,
        "offers": [
            {
                "kind": "image",
                "model": IMAGE_MODEL,
                "max_pixels": AN_OFFER.max_pixels,
                "max_steps": AN_OFFER.max_steps,
                "max_tokens": 0,
                "max_context": 0,
                "speed": pytest.approx(PIXELSTEPS / 10, rel=0.01),
            }
        ],
    }
    assert "203.0.113" not in json.dumps(shown)


async def test_an_account_is_named_where_its_page_is_public(desk):
    worker = await desk.worker()
    assert (await entry(desk, worker))["account"] is None
    await worker.present(a_profile("Ada", public=True))
    await desk.quiet()
    assert (await entry(desk, worker))["account"] == worker.account


async def test_who_is_back_in_time_has_not_left_and_who_is_not_begins_anew(desk):
    worker = await desk.worker()
    came = desk.clock.now
    await desk.later(300)
    await worker.come_back()
    await worker.show_record()
    await worker.announce()
    assert (await entry(desk, worker))["since"] == came // MINUTE_MS * MINUTE_MS
    worker.hang_up()
    assert await entry(desk, worker) is None
    await desk.later(300)
    await worker.come_back()
    await worker.show_record()
    await worker.announce()
    assert (await entry(desk, worker))["since"] == desk.clock.now // MINUTE_MS * MINUTE_MS


async def test_a_partial_picture_counts_for_what_was_made_and_says_nothing_of_speed(desk):
    worker, requester, lease = await leased(desk)
    await worker.report(lease, "accepted")
    await worker.report(lease, "opened")
    await requester.cancel(lease.job)
    desk.clock.now += 5_000
    await worker.deliver(lease, used=15, partial=True)
    await requester.acknowledge(worker.receipts[lease.job, lease.attempt])
    await desk.quiet()
    found = desk.coordinator.scrape()
    assert found["kinds"]["image"]["past_minute"] == PIXELSTEPS // 2
    assert found["swarms"][0]["speed"] == 0


# Over HTTP


@pytest.fixture
def crowd(monkeypatch):
    """Five workers in a coordinator, listed two at a time."""
    monkeypatch.setattr(web_workers, "LISTED", 2)

    async def crowd(desk):
        workers = [await desk.worker(number) for number in range(5)]
        return sorted(show_key(worker.key.public) for worker in workers)

    return crowd


async def test_workers_are_listed_in_parts_by_their_keys(desk, crowd):
    keys = await crowd(desk)
    directory, found, after = Directory(desk.coordinator), [], ""
    while (part := await directory.part(parse_key(after) if after else b"")) is not None:
        found += [worker["id"] for worker in part["workers"]]
        if part["after"] is None:
            break
        after = part["after"]
    assert sorted(map(str, found)) == keys


async def test_no_crowd_of_readers_holds_the_tracker_up(desk, crowd, monkeypatch):
    monkeypatch.setattr(web_workers, "MAX_PARTS", 3)
    await crowd(desk)
    directory = Directory(desk.coordinator)
    parts = [await directory.part(bytes([number])) for number in range(4)]
    assert [part is None for part in parts] == [False, False, False, True]
    assert await directory.part(bytes([1])) is parts[1], "it was made in this second"
    await desk.later(1)
    assert await directory.part(bytes([3])) is not None


async def test_the_list_is_for_anybody_to_read_and_wrong_questions_are_answered(start):  # noqa: F811
    async with start() as tracker:
        answer, text = await tracker.get("/workers")
        assert (answer.status, json.loads(text)) == (200, {"workers": [], "after": None})
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        key = show_key(a_key(1).public)
        found = [(await tracker.get(path))[0].status for path in (f"/workers/{key}", "/workers/x", "/workers?after=x")]
    assert found == [404, 400, 400]


async def test_a_worker_that_pauses_is_still_shown(desk):
    worker = await desk.worker()
    await worker.say(Announce(offers=()))
    await desk.quiet()
    assert (await entry(desk, worker))["offers"] == []
    assert desk.coordinator.scrape()["swarms"] == []


async def test_a_text_is_counted_by_the_tokens_that_were_made(desk):
    worker = await desk.worker(0, A_TEXT_OFFER)
    requester = await desk.requester()
    await requester.ask(a_public_part(a_text_work(max_tokens=100)))
    lease = await worker.hear(Lease)
    desk.clock.now += 2_000
    await worker.deliver(lease, used=10)
    await requester.acknowledge(worker.receipts[lease.job, lease.attempt])
    await desk.quiet()
    found = desk.coordinator.scrape()
    assert (found["kinds"]["text"]["past_minute"], found["swarms"][0]["speed"]) == (10, 5)
