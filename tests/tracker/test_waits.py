"""Measured speeds, the waits that follow from them, and how well those came true."""

import pytest

from protocol.messages import Announce
from tests.support.builders import IMAGE_MODEL, NOW, SECOND, a_handle, a_key, a_text_work, an_image_work, but
from tests.tracker.test_lines import carried
from tests.tracker.test_matching import TERMS, a_worker, an_announce, an_image_offer, waiting
from tracker.forecast import Forecast
from tracker.lines import SHOWN
from tracker.matching import Queue
from tracker.pool import Pool
from tracker.waits import Predictions, Speeds, Swarm, expected, in_turn, units

SWARM: Swarm = ("image", IMAGE_MODEL)
WORK = an_image_work(64, 64, steps=30)
WORKER = a_key(100).public


def seen(speeds, seconds, *, worker=WORKER, work=WORK, issued=NOW, swarm=SWARM):
    speeds.settled(swarm, worker, work, issued, issued + seconds * SECOND)


# Speeds


def test_a_speed_is_work_over_time():
    speeds = Speeds()
    assert speeds.seconds(SWARM, units(WORK)) is None
    seen(speeds, 10)
    assert speeds.seconds(SWARM, units(WORK)) == pytest.approx(10)
    assert speeds.seconds(SWARM, units(an_image_work(128, 64, steps=30))) == pytest.approx(20)
    assert speeds.a_job(SWARM) == pytest.approx(10)
    assert speeds.seconds(("image", "another"), 1) is None


def test_what_was_seen_long_ago_counts_less_and_less():
    speeds = Speeds()
    seen(speeds, 100)
    for number in range(100):
        seen(speeds, 1, issued=NOW + (1_000 + number) * SECOND)
    assert speeds.a_job(SWARM) == pytest.approx(1, rel=0.2)


def test_the_time_in_which_a_leased_job_waited_for_its_worker_is_not_the_jobs():
    speeds = Speeds()
    seen(speeds, 10)
    seen(speeds, 20, issued=NOW)  # leased ahead, begun when the first was done
    assert speeds.a_job(SWARM) == pytest.approx(10)
    seen(speeds, 12, worker=a_key(101).public)
    assert speeds.a_job(SWARM) == pytest.approx(10.7, rel=0.05)


def test_a_worker_with_several_places_counts_by_what_it_finishes():
    speeds = Speeds()
    for number in range(1, 21):
        speeds.settled(SWARM, WORKER, WORK, NOW + (number - 1) * 5 * SECOND, NOW + (number + 1) * 5 * SECOND)
    assert speeds.a_job(SWARM) == pytest.approx(5, rel=0.15), "two at a time, each for ten seconds"


def test_what_was_paid_long_after_it_was_made_says_nothing_new():
    speeds = Speeds()
    seen(speeds, 10, issued=NOW + 100 * SECOND)
    seen(speeds, 5)
    assert speeds.a_job(SWARM) == pytest.approx(10)


def test_units_are_pixels_drawn_and_tokens():
    assert units(but(WORK, guidance_passes=1)) * 2 == units(WORK)
    assert units(a_text_work(max_tokens=70)) == 70


# Waits


@pytest.mark.parametrize(
    ("ahead", "running", "workers", "wait"),
    [
        ([], 0, 1, 1),
        ([(10, 1)], 5, 1, 15),
        ([(10, 1)], 5, 3, 5),
        ([(10, 1), (20, 0.5)], 0, 1, 20),
        ([(10, 1)], 0, 0, 0),
        ([(10, 1)], 0.1, 1, 11),
    ],
)
def test_a_wait_is_the_work_ahead_shared_among_the_workers(ahead, running, workers, wait):
    assert expected(ahead, running, workers) == wait


def test_a_job_that_is_kept_back_waits_for_its_turn_in_its_line():
    assert [in_turn(place, 4, 20) for place in (0, 3, 7)] == [5, 20, 40]


class Scene:
    """A queue, workers, and a forecast that has seen some of them take ten seconds for a picture."""

    def __init__(self, workers=1, *, busy=True, known=True):
        self.queue, self.pool = Queue(), Pool()
        self.forecast = Forecast(self.queue, self.pool)
        for number in range(workers):
            self.add(number, an_announce(), busy=busy)
        if known:
            seen(self.forecast.speeds, 10)

    def add(self, number, announce: Announce, *, busy=True):
        key = a_key(number).public
        self.pool.announce(key, 100 + number, announce, ())
        if busy:
            self.pool.took(key, (a_handle(9_000 + number), 1))

    def waits(self, *jobs, now=NOW):
        for job in jobs:
            self.queue.add(job, present=True)
        return [self.forecast.wait(job, now) for job in jobs]


def test_whoever_is_further_back_waits_longer():
    jobs = [waiting(number, admitted=NOW + number) for number in range(4)]
    assert Scene().waits(*jobs) == [5, 15, 25, 35]
    assert Scene(workers=5).waits(*jobs) == [5, 7, 9, 11]


def test_nothing_is_promised_where_nothing_is_known():
    assert Scene(known=False).waits(waiting()) == [0]
    assert Scene(workers=0).waits(waiting()) == [0]


def test_where_somebody_is_idle_nobody_waits():
    assert Scene(busy=False).waits(waiting()) == [1]


def test_jobs_of_another_size_that_go_before_are_waited_for_too():
    scene = Scene()
    scene.queue.add(waiting(1, work=an_image_work(128, 128, steps=30), score=9), present=True)
    assert scene.waits(waiting(2, score=5)) == [45]


def test_of_what_others_can_take_too_only_a_part_is_waited_for():
    scene = Scene()
    scene.add(1, an_announce(an_image_offer(), an_image_offer("another")))
    other = waiting(1, models=("another",), score=9, work=WORK)
    scene.queue.add(other, present=True)
    assert scene.waits(waiting(2, score=5)) == [10], "both for half of a job in hand each, and for the other's job"


def test_a_job_that_is_kept_back_waits_for_those_of_its_origin():
    scene = Scene(workers=20, busy=False)
    for number in range(8):
        scene.queue.lines.started(a_handle(1_000 + number), "poor", anonymous=False)
    jobs = [carried(number) for number in range(SHOWN + 12)]
    waits = scene.waits(*jobs)
    assert (waits[0], waits[7], waits[15]) == (2, 10, 20), "eight at a time, of ten seconds each"


def test_what_was_found_for_one_holds_for_others_like_it_for_a_while():
    scene = Scene()
    assert scene.waits(waiting(0)) == [5]
    scene.add(1, an_announce())
    assert scene.waits(waiting(1, admitted=NOW + 1), now=NOW + SECOND) == [15]
    assert scene.waits(waiting(2, admitted=NOW + 2), now=NOW + 3 * SECOND) == [15], "two workers are known by now"


def test_the_forecast_does_not_change_who_gets_what():
    scene = Scene()
    jobs = [waiting(number) for number in range(3)]
    scene.waits(*jobs)
    found = scene.queue.next_for(a_worker(), TERMS, 0)
    assert found is not None
    assert found[0] == jobs[0]


# How they came true


def test_a_report_compares_what_came_with_the_first_word():
    predictions = Predictions()
    for number in range(10):
        job = a_handle(number)
        predictions.told(job, 10, NOW)
        predictions.told(job, 3, NOW + SECOND)
        predictions.served(job, NOW + (number + 1) * SECOND)
    assert predictions.report() == {"predicted": 10, "unserved": 0, "median": 0.5, "p90": 0.9}


def test_who_was_never_served_is_counted_and_who_gave_up_is_not():
    predictions = Predictions()
    for number, unserved in enumerate((True, False)):
        predictions.told(a_handle(number), 10, NOW)
        predictions.ended(a_handle(number), unserved=unserved)
    predictions.told(a_handle(3), 0, NOW)
    predictions.served(a_handle(3), NOW + SECOND)
    predictions.served(a_handle(4), NOW + SECOND)
    assert predictions.report() == {"predicted": 0, "unserved": 1}, "to nobody was anything promised"
