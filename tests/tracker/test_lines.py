"""Carried jobs: so many of an origin run at once, what is above waits, and nobody looks at it meanwhile."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.rules import LimitsSection
from tests.support.builders import NOW, a_key, a_public_part, a_text_work, an_image_work, but
from tests.tracker.test_matching import (
    TERMS,
    a_text_offer,
    a_worker,
    an_image_offer,
    cost_of_next,
    looks,
    served,
    waiting,
)
from tracker.fitting import Reason
from tracker.lines import LINES, SHOWN
from tracker.matching import Queue, Waiting

__all__ = ["looks"]  # a fixture

LIMITS = LimitsSection(without_kudos_running=2, anonymous_running=1)
#: Four of a service at once, two of one of its users.
OF_SERVICES = LimitsSection(without_kudos_running=4, user_running=2)
ALICE, BOB, CAROL = (bytes([number]) * 16 for number in (1, 2, 3))


def carried(number, *, origin="poor", rank=None, **fields):
    """A carried job of an account, of one of its users if `user` says so; `rank` 0 is the best."""
    job = waiting(number, score=-number if rank is None else -rank, origin=origin, admitted=NOW + number, **fields)
    return replace(job, carried=True)


def a_queue(*jobs, limits=LIMITS):
    queue = Queue(limits)
    for job in jobs:
        queue.add(job, present=True)
    return queue


def test_of_the_jobs_without_kudos_so_many_run_and_the_rest_waits_until_one_ends():
    jobs = [carried(number) for number in range(5)]
    queue = a_queue(*jobs)
    assert served(queue, a_worker()) == jobs[:2]
    assert len(queue) == 3
    assert queue.get(jobs[2].handle) == jobs[2], "it waits, and its requester can ask after it"
    assert queue.lines.keeps_back(jobs[2])
    assert queue.lines.ended(jobs[0].handle, "poor") == [job.handle for job in jobs[2:5]]
    assert served(queue, a_worker()) == [jobs[2]]
    for job in (jobs[1], jobs[2]):
        queue.lines.ended(job.handle, "poor")
    assert served(queue, a_worker()) == jobs[3:]
    assert len(queue) == 0


def test_who_pays_is_not_kept_back_by_anything():
    paid = [waiting(number, origin="poor") for number in range(100, 120)]
    queue = a_queue(*(carried(number) for number in range(5)), *paid)
    assert len(served(queue, a_worker())) == 2 + len(paid)


def test_each_origin_has_its_own_bound_and_people_without_account_another_one():
    jobs = [carried(number, origin=f"origin {number % 3}") for number in range(12)]
    anonymous = [carried(100 + number, origin="~block", anonymous=True) for number in range(3)]
    got = served(a_queue(*jobs, *anonymous), a_worker())
    assert Counter(job.origin for job in got) == {"origin 0": 2, "origin 1": 2, "origin 2": 2, "~block": 1}


def test_rank_and_age_decide_as_ever_among_those_who_have_room():
    poor = [carried(number, rank=10 + number) for number in range(4)]
    rich = [waiting(50, score=-5, origin="rich"), waiting(51, score=-15, origin="rich")]
    assert served(a_queue(*poor, *rich), a_worker()) == [rich[0], poor[0], poor[1], rich[1]]


def test_the_one_who_waited_longest_gets_its_turn_when_it_has_room_again():
    modest = [carried(number, rank=1_000 + number, origin="modest") for number in range(3)]
    flood = [carried(100 + number, rank=0, origin=f"flood {number}") for number in range(20)]
    queue = a_queue(*modest, *flood)
    first = served(queue, a_worker(), every=2, count=6, now=NOW + 100)
    assert [job for job in first if job in modest] == modest[:2]
    queue.lines.ended(modest[0].handle, "modest")
    later = served(queue, a_worker(), every=2, count=len(flood), now=NOW + 200)
    assert modest[2] in later


def test_a_job_that_no_worker_here_can_do_keeps_nobody_from_those_of_another_kind():
    nobody_can = [carried(number, work=an_image_work(2048, 2048)) for number in range(10)]
    texts = [carried(100 + number, work=a_text_work()) for number in range(2)]
    assert served(a_queue(*nobody_can, *texts), a_worker(an_image_offer(), a_text_offer())) == texts


def test_jobs_that_a_worker_had_keep_it_from_no_other_job_of_their_origin():
    worker = a_worker()
    had = [carried(number, excluded=frozenset({worker.key})) for number in range(3 * SHOWN)]
    fresh = carried(500)
    assert served(a_queue(*had, fresh), worker) == [fresh]
    assert served(a_queue(*had, fresh), a_worker(key=101), count=1) == [had[0]]


def test_a_worker_of_its_own_is_no_matter_of_kudos():
    jobs = [carried(number) for number in range(4)]
    queue = a_queue(*jobs)
    for job in jobs:
        queue.leased(job, "model", NOW, own=True)
        queue.remove(job.handle, job.request)
    assert queue.lines.room("poor", anonymous=False) == LIMITS.without_kudos_running


def test_why_nothing_comes_says_that_the_bound_is_reached():
    jobs = [carried(number) for number in range(5)]
    queue = a_queue(*jobs, carried(9, work=a_text_work()))
    served(queue, a_worker())
    assert queue.reasons_for(a_worker(), TERMS) == {Reason.RUNNING_LIMIT: 3, Reason.OTHER_KIND: 1}
    assert sum(queue.counts().values()) == 4, "all of them are counted as waiting"


def test_a_position_counts_whoever_goes_before_and_not_who_is_kept_back():
    jobs = [carried(number) for number in range(20)]
    last = carried(90, origin="~block", anonymous=True)
    queue = a_queue(*jobs, last)
    assert queue.ahead_of(last) == 20, "while all of them may run"
    served(queue, a_worker(), count=2)
    assert queue.ahead_of(last) == 0
    assert [queue.ahead_of(job) for job in jobs[2:5]] == [0, 1, 2], "of its own line those that stand before it"


def test_room_is_kept_for_what_is_being_admitted():
    queue = a_queue(carried(0), carried(1))
    queue.lines.reserve("poor", 2, anonymous=False)
    assert queue.next_for(a_worker(), TERMS, 0) is None
    assert queue.lines.unreserve("poor", 1) == [carried(0).handle, carried(1).handle]
    assert queue.lines.unreserve("poor", 1) == [], "they may be leased already"
    assert len(served(queue, a_worker())) == 2


def test_other_rules_hold_at_once():
    jobs = [carried(number) for number in range(6)]
    queue = a_queue(*jobs)
    assert len(served(queue, a_worker())) == 2
    queue.lines.set_limits(LimitsSection(without_kudos_running=5))
    assert served(queue, a_worker()) == jobs[2:5]
    queue.lines.set_limits(LIMITS)
    assert queue.lines.ended(jobs[0].handle, "poor") == []
    assert queue.next_for(a_worker(), TERMS, 0) is None


def test_jobs_that_nobody_here_takes_keep_nobody_from_those_that_somebody_does():
    """Alike as they are: of one size class, or asked for by the same constraints at another price."""
    too_large = [carried(number, work=an_image_work(1_024, 1_016)) for number in range(2 * SHOWN)]
    too_cheap = [carried(100 + number, public=but(a_public_part(), max_price=10)) for number in range(2 * SHOWN)]
    worker = a_worker(an_image_offer(max_pixels=1_000_000))
    large = [carried(200, work=an_image_work(992, 1_000)), carried(201, rank=9_999)]
    assert large[0].constraints == too_large[0].constraints
    assert large[1].constraints == too_cheap[0].constraints
    assert served(a_queue(*too_large, large[0]), worker) == [large[0]]
    assert served(a_queue(*too_cheap, large[1]), worker) == [large[1]]


def many_kinds(count):
    return [carried(number, models=("potluck-shapes", f"other {number}")) for number in range(count)]


def test_bringing_lines_back_takes_in_a_bounded_number_of_them_and_each_has_its_turn(monkeypatch):
    jobs = many_kinds(5 * LINES)
    queue = a_queue(*jobs, limits=LimitsSection(without_kudos_running=1))
    moved: Counter[bytes] = Counter()
    real = queue._show

    def note(handle):
        moved[handle] += 1
        real(handle)

    monkeypatch.setattr(queue.lines._origins, "_show", note)
    got = []
    for _ in jobs:
        moved.clear()
        [job] = served(queue, a_worker())
        got.append(job)
        queue.lines.ended(job.handle, "poor")
        assert moved.total() <= LINES + 1
    assert sorted(job.handle for job in got) == sorted(job.handle for job in jobs)
    assert set(got[:5]) != set(jobs[:5]), "each line comes to the front in its turn"
    assert queue.lines.is_empty


# Users of a service


def of_users(*users, first=0):
    return [carried(number, origin="service", user=user) for number, user in enumerate(users, first)]


@pytest.mark.parametrize("every", [0, 1])
def test_of_one_user_of_a_service_so_many_run_and_the_others_jobs_go_before_the_rest(every):
    flood = of_users(*[ALICE] * 50)
    others = of_users(BOB, BOB, BOB, CAROL, first=50)
    queue = a_queue(*flood, *others, limits=OF_SERVICES)
    assert served(queue, a_worker(), every=every) == [*flood[:2], *others[:2]], "and no more than four of them all"
    assert queue.lines.keeps_back(flood[2])
    assert queue.lines.keeps_back(others[3]), "the service has as much room as any account"
    assert queue.reasons_for(a_worker(), TERMS)[Reason.RUNNING_LIMIT] > 0
    queue.lines.ended(others[0].handle, "service", BOB)
    assert served(queue, a_worker(), every=every) == [others[2]]
    queue.lines.ended(flood[0].handle, "service", ALICE)
    assert served(queue, a_worker(), every=every, count=1) == [flood[2]]


def test_a_user_without_a_pseudonym_is_bounded_by_the_service_alone():
    named, unnamed = of_users(ALICE, ALICE, ALICE), of_users(*[b""] * 5, first=10)
    assert served(a_queue(*named, *unnamed, limits=OF_SERVICES), a_worker()) == [*named[:2], *unnamed[:2]]


def test_the_same_pseudonym_at_another_service_is_another_user():
    ours = of_users(ALICE, ALICE, ALICE)
    theirs = [replace(job, origin="other") for job in of_users(ALICE, ALICE, ALICE, first=10)]
    assert served(a_queue(*ours, *theirs, limits=OF_SERVICES), a_worker()) == [*ours[:2], *theirs[:2]]


def test_room_is_kept_for_what_a_user_is_being_admitted():
    queue = a_queue(*of_users(ALICE, ALICE), limits=OF_SERVICES)
    assert queue.lines.room("service", anonymous=False, user=ALICE) == 2
    queue.lines.reserve("service", 2, anonymous=False, user=ALICE)
    assert queue.lines.room("service", anonymous=False, user=ALICE) == 0
    assert queue.lines.room("service", anonymous=False, user=BOB) == 2
    assert queue.next_for(a_worker(), TERMS, 0) is None
    assert len(queue.lines.unreserve("service", 2, ALICE)) == 2
    assert len(served(queue, a_worker())) == 2


def test_a_wait_for_ones_turn_counts_the_line_whose_bound_is_met():
    jobs = of_users(*[ALICE] * 6)
    queue = a_queue(*jobs, limits=OF_SERVICES)
    assert list(queue.lines.turns(jobs[0])) == []
    served(queue, a_worker())
    assert list(queue.lines.turns(jobs[4])) == [(2, 2)]
    [probe] = of_users(BOB, first=90)
    assert list(queue.lines.turns(probe)) == []


def test_other_rules_hold_for_users_at_once():
    jobs = of_users(*[ALICE] * 6)
    queue = a_queue(*jobs, limits=OF_SERVICES)
    assert len(served(queue, a_worker())) == 2
    queue.lines.set_limits(LimitsSection(without_kudos_running=5, user_running=4))
    assert served(queue, a_worker()) == jobs[2:4]


@pytest.mark.parametrize("every", [0, 1])
def test_jobs_that_are_kept_back_cost_nobody_a_look_however_many_they_are(looks, every):
    costs = []
    for many in (10, 5_000):
        queue = a_queue(*(carried(number) for number in range(many)), waiting(90_000, score=-(10**6), origin="rich"))
        served(queue, a_worker(), count=2)
        found, cost = cost_of_next(queue, a_worker(), looks, every)
        assert found
        assert cost["why_not_pair"] == 1
        costs.append(cost)
    assert costs[0] == costs[1]


@pytest.mark.parametrize("many", [10, 5_000])
def test_bringing_a_line_back_takes_in_a_few_however_long_it_is(many, monkeypatch):
    queue = a_queue(*(carried(number) for number in range(many)))
    first, _ = served(queue, a_worker(), count=2)
    moved: list[bytes] = []

    def noted(move):
        def note(handle):
            moved.append(handle)
            move(handle)

        return note

    monkeypatch.setattr(queue.lines._origins, "_show", noted(queue._show))
    monkeypatch.setattr(queue.lines._origins, "_hide", noted(queue._hide))
    queue.lines.ended(first.handle, "poor")
    served(queue, a_worker(), count=1)
    assert len(moved) <= 2 * SHOWN


@given(data=st.data())
def test_whatever_happens_no_more_run_than_may_and_nothing_is_lost(data):
    """Against a plain model: what runs, what waits, and that whoever may run and can be served is found."""
    limits = LimitsSection(without_kudos_running=2, anonymous_running=1, user_running=1)
    queue, worker = Queue(limits), a_worker(an_image_offer(), a_text_offer())
    running: dict[bytes, Waiting] = {}
    wait: dict[bytes, Waiting] = {}
    for number in range(data.draw(st.integers(1, 40))):
        act = data.draw(st.sampled_from(("add", "add", "lease", "end", "cancel", "away")))
        if act == "add":
            anonymous, text = data.draw(st.booleans()), data.draw(st.booleans())
            job = waiting(
                number,
                work=a_text_work() if text else an_image_work(),
                score=data.draw(st.integers(-2, 2)),
                origin=f"{'~' if anonymous else ''}{data.draw(st.integers(0, 1))}",
                anonymous=anonymous,
                excluded=frozenset({a_key(1).public} if data.draw(st.booleans()) else ()),
                admitted=NOW + number,
            )
            user = b"" if anonymous else data.draw(st.sampled_from([b"", ALICE, BOB]))
            job = replace(job, carried=anonymous or data.draw(st.booleans()), user=user)
            queue.add(job, present=True)
            wait[job.handle] = job
        elif act == "lease":
            found = queue.next_for(worker, TERMS, data.draw(st.sampled_from((0, 1))))
            may = [job for job in wait.values() if not job.carried or _room(job, running, limits) > 0]
            assert (found is None) == (not may)
            if found is not None:
                job = found[0]
                assert job in may
                queue.leased(job, found[1].model, NOW + number)
                queue.remove(job.handle, job.request)
                running[job.handle] = wait.pop(job.handle)
        elif act == "end" and running:
            handle = data.draw(st.sampled_from(sorted(running)))
            job = running.pop(handle)
            queue.lines.ended(handle, job.origin, job.user)
        elif act == "cancel" and wait:
            job = wait.pop(data.draw(st.sampled_from(sorted(wait))))
            assert queue.remove(job.handle, job.request) == job
        elif act == "away" and wait:
            job = wait[data.draw(st.sampled_from(sorted(wait)))]
            queue.set_present(job.request, present=False)
            queue.set_present(job.request, present=True)
        assert len(queue) == len(wait) == sum(queue.counts().values())
    for job in wait.values():
        queue.remove(job.handle, job.request)
    for handle, job in running.items():
        queue.lines.ended(handle, job.origin, job.user)
    assert queue.lines.is_empty
    assert (queue._buckets, queue._jobs) == ({}, {})


def _room(job, running, limits):
    bound = limits.anonymous_running if job.constraints.anonymous else limits.without_kudos_running
    theirs = [other for other in running.values() if other.carried and other.origin == job.origin]
    room = bound - len(theirs)
    return min(room, limits.user_running - sum(other.user == job.user for other in theirs)) if job.user else room
