"""Who serves whom: every reason against a pair, rank, fairness, the draw, and what finding the next job costs."""

import random
from collections import Counter
from dataclasses import replace
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.messages import Announce, Offer
from protocol.rules import ModelSection, PricesSection, Rules
from tests.support.builders import (
    IMAGE_MODEL,
    NOW,
    TEXT_MODEL,
    a_handle,
    a_key,
    a_public_part,
    a_text_work,
    an_image_work,
    but,
)
from tests.support.jobs import PAYER, a_waiting_job
from tracker import fitting, matching, pool
from tracker.fitting import Reason, constraints_of, size_class
from tracker.lifecycle import Facts
from tracker.matching import NOBODY, SCAN, Named, Queue, Terms, Waiting, Worker, why_not
from tracker.pool import DRAW, Pool

TERMS = Terms(Rules())
SMALL = an_image_work(64, 64, steps=30)


def an_image_offer(model=IMAGE_MODEL, max_pixels=512 * 512, max_steps=50, engine="dry-run"):
    return Offer(kind="image", model=model, engine=engine, max_pixels=max_pixels, max_steps=max_steps)


def a_text_offer(model=TEXT_MODEL, max_tokens=256, max_context=4096):
    return Offer(kind="text", model=model, engine="dry-run", max_tokens=max_tokens, max_context=max_context)


def an_announce(*offers, slots=1, ahead=0, **more):
    return Announce(offers=offers or (an_image_offer(),), slots=slots, ahead=ahead, **more)


def a_worker(*offers, key=100, owner=101, named=NOBODY, **more):
    return Worker(a_key(key).public, owner, an_announce(*offers, **more), named=named)


def waiting(number=0, public=None, *, work=None, models=None, **fields):
    """A waiting job as the queue sees it; `models` those whose price it bears, by default those it names."""
    public = public or a_public_part(work or SMALL)
    job = a_waiting_job(number, public, **fields)
    named = public.models if models is None else models
    return Waiting.of(job, constraints_of(public, named, anonymous=job.anonymous, facts=job.facts))


def a_queue(*jobs):
    queue = Queue()
    for job in jobs:
        queue.add(job, present=True)
    return queue


def served(queue, worker, *, every=0, count=None, terms=TERMS, now=NOW):
    """The jobs that this worker gets one after the other, until there is none (or so many)."""
    found: list[Waiting] = []
    while count is None or len(found) < count:
        pair = queue.next_for(worker, terms, every)
        if pair is None:
            break
        job, offer = pair
        queue.leased(job, offer.model, now + len(found))
        queue.remove(job.handle, job.request)
        found.append(job)
    return found


#: All that an announce can refuse of who asks and what for.
REFUSES_ALL = {"anonymous": False, "declines": ("adult",), "services": False, "min_give_back": 3, "min_free_rate": 1000}

# Reasons


@pytest.mark.parametrize(
    ("job", "worker", "reason"),
    [
        (waiting(), a_worker(a_text_offer()), Reason.OTHER_KIND),
        (waiting(), a_worker(an_image_offer("another")), Reason.OTHER_MODEL),
        (waiting(work=an_image_work(1024, 1024)), a_worker(), Reason.TOO_LARGE),
        (waiting(work=an_image_work(512, 520)), a_worker(), Reason.TOO_LARGE),
        (waiting(work=an_image_work(steps=51)), a_worker(), Reason.TOO_MANY_STEPS),
        (waiting(work=an_image_work(steps=200)), a_worker(), Reason.TOO_MANY_STEPS),
        (waiting(work=a_text_work(max_tokens=257)), a_worker(a_text_offer()), Reason.TOO_LONG),
        (waiting(work=a_text_work(context_tokens=4097)), a_worker(a_text_offer()), Reason.TOO_LONG),
        (waiting(work=a_text_work(max_tokens=5000)), a_worker(a_text_offer()), Reason.TOO_LONG),
        (waiting(anonymous=True), a_worker(anonymous=False), Reason.NO_ANONYMOUS),
        (waiting(), a_worker(paused=True), Reason.PAUSED),
        (waiting(public=but(a_public_part(), flags=("adult",))), a_worker(declines=("adult",)), Reason.FLAG),
        (waiting(facts=Facts(labels=("hate",))), a_worker(declines=("adult", "hate")), Reason.FLAG),
        (waiting(facts=Facts(service="Ada#7")), a_worker(services=False), Reason.NO_SERVICES),
        (waiting(facts=Facts(service="New name#7")), a_worker(not_services=("Ada#7",)), Reason.NO_SERVICES),
        (waiting(facts=Facts(service="Ada#7")), a_worker(not_services=("Bob#8", "Ada#7")), Reason.NO_SERVICES),
        (waiting(facts=Facts(give_back=1)), a_worker(min_give_back=2), Reason.GIVE_BACK),
        (waiting(anonymous=True), a_worker(min_give_back=1), Reason.GIVE_BACK),
        (waiting(), a_worker(named=Named(declined=frozenset({PAYER}))), Reason.ACCOUNT),
        (waiting(excluded=frozenset({a_key(100).public})), a_worker(), Reason.HAD_IT),
        (waiting(public=but(a_public_part(), max_price=10)), a_worker(), Reason.OVER_MAX_PRICE),
        (waiting(work=but(SMALL, extras=("upscale",))), a_worker(), Reason.NOT_OFFERED),
        (waiting(held=0), a_worker(min_free_rate=1001), Reason.FREE_RATE),
    ],
    ids=[
        "other kind",
        "other model",
        "too large",
        "too large by a little",
        "too many steps by one",
        "too many steps",
        "too many tokens by one",
        "too much context by one",
        "too many tokens",
        "no anonymous",
        "paused",
        "flag",
        "label",
        "no services",
        "this service under another name",
        "not this service",
        "gives too little back",
        "anonymous people give nothing back",
        "not this account",
        "had it",
        "over max price",
        "no longer priced",
        "free rate",
    ],
)
def test_every_reason_against_a_pair(job, worker, reason):
    assert why_not(job, worker, TERMS) is reason
    queue = a_queue(job)
    assert queue.next_for(worker, TERMS, 0) is None
    assert queue.reasons_for(worker, TERMS) == {reason: 1}
    here = Pool()
    here.announce(worker.key, worker.owner, worker.announce, (), worker.named)
    assert here.draw(job, TERMS, random.Random(1)) is None
    assert here.reasons_for(job, TERMS) == {reason: 1}
    assert here.able(job, TERMS) == 0


@pytest.mark.parametrize(
    ("job", "worker"),
    [
        (waiting(), a_worker()),
        (waiting(work=an_image_work(512, 512, steps=50)), a_worker()),
        (waiting(work=a_text_work(256, 4096)), a_worker(a_text_offer())),
        (waiting(models=()), a_worker(an_image_offer("whatever"))),
        (waiting(models=("a", IMAGE_MODEL)), a_worker()),
        (waiting(anonymous=True), a_worker()),
        (waiting(excluded=frozenset({a_key(101).public})), a_worker()),
        (waiting(public=but(a_public_part(), max_price=2_579)), a_worker()),
        (waiting(held=0), a_worker(min_free_rate=1000)),
        (waiting(held=2_579), a_worker(min_free_rate=1001)),
        (waiting(), a_worker(an_image_offer(max_pixels=16), an_image_offer())),
        (waiting(public=but(a_public_part(), flags=("adult",))), a_worker()),
        (waiting(facts=Facts(labels=("hate",))), a_worker(declines=("adult",))),
        (waiting(facts=Facts(service="Ada#7")), a_worker(not_services=("Bob#8", "Ada#17", "Ada#71"))),
        (waiting(), a_worker(services=False)),
        (waiting(facts=Facts(give_back=2)), a_worker(min_give_back=2)),
        (waiting(), a_worker(named=Named(declined=frozenset({PAYER + 1})))),
        (waiting(payer=101, held=0, facts=Facts(("adult",), "Me#101")), a_worker(paused=True, **REFUSES_ALL)),
    ],
)
def test_no_reason_against_a_pair(job, worker):
    found = why_not(job, worker, TERMS)
    assert isinstance(found, Offer)
    assert a_queue(job).next_for(worker, TERMS, 0) == (job, found)
    here = Pool()
    here.announce(worker.key, worker.owner, worker.announce, (), worker.named)
    assert here.draw(job, TERMS, random.Random(1)) == (here.workers[worker.key], found)
    assert here.able(job, TERMS) == 1


def test_every_reason_has_a_case():
    marks = test_every_reason_against_a_pair.pytestmark
    named = {case[2] for mark in marks for case in mark.args[1]}
    of_no_pair = {Reason.REQUESTER_AWAY, Reason.RUNNING_LIMIT, Reason.RESTING, Reason.KEPT_OUT, Reason.BUSY}
    assert named == set(Reason) - of_no_pair


def test_a_worker_that_serves_several_models_serves_with_one_that_the_job_can_bear():
    rules = Rules(models={"dear": ModelSection(price=5_000)})
    worker = a_worker(an_image_offer("dear"), an_image_offer("cheap"))
    job = waiting(public=but(a_public_part(models=()), max_price=2_579))
    found = why_not(job, worker, Terms(rules))
    assert isinstance(found, Offer)
    assert found.model == "cheap"
    assert a_queue(job).next_for(worker, Terms(rules), 0) == (job, found)


def test_the_reason_that_is_given_is_the_one_of_the_offer_that_came_closest():
    worker = a_worker(a_text_offer(), an_image_offer("another"), an_image_offer(max_steps=10))
    assert why_not(waiting(), worker, TERMS) is Reason.TOO_MANY_STEPS


def test_a_worker_says_below_which_rate_it_does_no_free_work():
    worker = a_worker(min_free_rate=500)
    for rate, fits in ((1000, True), (500, True), (499, False), (0, False)):
        found = why_not(waiting(held=0), worker, Terms(Rules(), rate))
        assert isinstance(found, Offer) is fits
        assert isinstance(why_not(waiting(held=10_000), worker, Terms(Rules(), rate)), Offer), "a paid job is no matter"


def test_reasons_are_counted_for_a_worker_that_gets_nothing():
    queue = a_queue(
        *(waiting(number, work=an_image_work(1024, 1024)) for number in range(3)),
        waiting(3, work=a_text_work()),
        waiting(4),
    )
    queue.add(waiting(5), present=False)
    worker = a_worker()
    reasons = queue.reasons_for(worker, TERMS)
    assert reasons == {Reason.TOO_LARGE: 3, Reason.OTHER_KIND: 1, Reason.BUSY: 1, Reason.REQUESTER_AWAY: 1}


def test_jobs_that_are_alike_but_for_their_past_are_counted_by_that():
    worker = a_worker()
    had = [waiting(number, excluded=frozenset({worker.key})) for number in range(3)]
    queue = a_queue(*had, *(waiting(number) for number in range(3, 2 * SCAN)))
    assert queue.reasons_for(worker, TERMS) == {Reason.HAD_IT: 3, Reason.BUSY: 2 * SCAN - 3}


def test_reasons_are_counted_for_a_job_that_waits():
    here = Pool()
    for number, announce in enumerate([an_announce(), an_announce(anonymous=False), an_announce(a_text_offer())]):
        here.announce(a_key(number).public, 100 + number, announce, ())
    here.took(a_key(0).public, (a_handle(9), 1))
    reasons = here.reasons_for(waiting(anonymous=True), TERMS)
    assert reasons == {Reason.BUSY: 1, Reason.NO_ANONYMOUS: 1, Reason.OTHER_KIND: 1}
    assert here.able(waiting(anonymous=True), TERMS) == 1


def test_reasons_counted_by_crews_are_those_of_each_worker_by_itself():
    chance = random.Random(7)
    seen = set()
    for _ in range(300):
        here = Pool()
        here.resting = {103} if chance.random() < 0.5 else set()
        for number in range(chance.randrange(8)):
            announce = an_announce(anonymous=chance.random() < 0.5, paused=chance.random() < 0.3)
            named = Named(declined=frozenset({102})) if chance.random() < 0.3 else NOBODY
            here.announce(a_key(number).public, chance.choice([102, 103, 104]), announce, (), named)
            for lease in range(chance.randrange(3)):
                here.took(a_key(number).public, (a_handle(lease), 1))
        excluded = frozenset(a_key(number).public for number in range(8) if chance.random() < 0.2)
        job = waiting(payer=102, anonymous=chance.random() < 0.5, excluded=excluded)
        kept_back = chance.random() < 0.3
        counts = here.reasons_for(job, TERMS, kept_back=kept_back)
        assert counts == Counter(reasons_one_by_one(here, job, kept_back=kept_back))
        seen |= set(counts)
    assert seen >= {Reason.PAUSED, Reason.ACCOUNT, Reason.HAD_IT, Reason.RESTING, Reason.BUSY, Reason.RUNNING_LIMIT}


def reasons_one_by_one(here, job, *, kept_back):
    for worker in here.workers.values():
        found = why_not(job, worker, TERMS)
        if isinstance(found, Reason):
            yield found
        elif worker.owner in here.resting and worker.owner != job.payer:
            yield Reason.RESTING
        elif kept_back:
            yield Reason.RUNNING_LIMIT
        elif not worker.has_room:
            yield Reason.BUSY


# Size classes


@given(value=st.integers(0, 2**40))
def test_a_size_class_is_not_below_its_value_and_within_an_eighth_above(value):
    found = size_class(value)
    assert found >= value
    assert found * 8 <= value * 9
    assert size_class(found) == found, "a bound is its own class"


@given(one=st.integers(0, 2**40), other=st.integers(0, 2**40))
def test_size_classes_keep_the_order(one, other):
    if one <= other:
        assert size_class(one) <= size_class(other)


def test_there_are_eight_classes_for_each_power_of_two():
    assert len({size_class(value) for value in range(1025, 2049)}) == 8


def test_jobs_that_name_the_same_models_in_another_order_are_alike():
    one, other = (waiting(n, a_public_part(models=models)) for n, models in enumerate([("a", "b"), ("b", "a", "b")]))
    assert one.constraints == other.constraints


# Rank


def test_accounts_go_before_anonymous_people_then_the_higher_score_then_age():
    jobs = [
        waiting(0, anonymous=True, score=0, admitted=NOW),
        waiting(1, score=-5, admitted=NOW),
        waiting(2, score=7, admitted=NOW + 2),
        waiting(3, score=7, admitted=NOW + 1),
        waiting(4, score=9_000, admitted=NOW + 9),
        waiting(5, anonymous=True, score=0, admitted=NOW - 9),
    ]
    queue = a_queue(*jobs)
    assert served(queue, a_worker()) == [jobs[number] for number in (4, 3, 2, 1, 5, 0)]


def test_rank_holds_over_buckets():
    small, large = waiting(0, score=1), waiting(1, work=an_image_work(512, 512), score=2)
    text, anything = waiting(2, work=a_text_work(), score=3), waiting(3, models=(), score=4)
    queue = a_queue(small, large, text, anything)
    worker = a_worker(an_image_offer(), a_text_offer())
    assert served(queue, worker) == [anything, text, large, small]


def test_a_position_counts_those_alike_that_rank_before():
    jobs = [waiting(number, score=-number) for number in range(4)]
    queue = a_queue(*jobs, waiting(9, work=a_text_work(), score=50))
    assert [queue.ahead_of(job) for job in jobs] == [0, 1, 2, 3]
    assert len(list(queue.heads(2))) == 3


# Fairness


def flood(count, origin="flood", score=1_000_000, first=0):
    return [waiting(first + number, score=score, origin=origin, admitted=NOW + number) for number in range(count)]


@pytest.mark.parametrize("every", [2, 4])
def test_every_so_many_leases_go_to_whom_waited_longest_so_that_nobody_starves(every):
    modest = waiting(5_000, score=-1_000_000, origin="modest", admitted=NOW + 5)
    queue = a_queue(*flood(200), modest)
    got = served(queue, a_worker(), every=every, count=2 * every, now=NOW + 100)
    assert modest in got


def test_without_that_rule_the_modest_starves():
    modest = waiting(5_000, score=-1_000_000, origin="modest", admitted=NOW + 5)
    queue = a_queue(*flood(200), modest)
    assert modest not in served(queue, a_worker(), every=0, count=200)


def test_a_flood_that_goes_on_starves_nobody():
    queue = a_queue(*flood(50))
    modest = [waiting(5_000 + n, score=-9, origin=f"modest {n}", admitted=NOW + 60 + n) for n in range(5)]
    for job in modest:
        queue.add(job, present=True)
    got: list[Waiting] = []
    number = 100
    while not set(modest) <= set(got):
        got += served(queue, a_worker(), every=4, count=1, now=NOW + number)
        queue.add(flood(1, first=number)[0], present=True)
        number += 1
        assert number < 200, "somebody starves"
    taken = [len(got[: got.index(job)]) for job in modest]
    assert taken == sorted(taken), "in the order in which they came"


def test_a_flood_of_many_sizes_is_one_flood():
    sizes = [an_image_work(16 + 8 * (n % 50), 16 + 8 * (n // 50)) for n in range(200)]
    many = [waiting(n, work=work, score=9, origin="flood", admitted=NOW + n) for n, work in enumerate(sizes)]
    assert len({job.constraints for job in many}) > 30
    modest = waiting(5_000, score=-9, origin="modest", admitted=NOW + 500)
    queue = a_queue(*many, modest)
    assert modest in served(queue, a_worker(), every=4, count=8, now=NOW + 1_000)


def test_who_is_served_in_one_line_has_not_waited_longest_in_another():
    first, second = waiting(0, origin="one"), waiting(1, work=an_image_work(128, 128), origin="one")
    other = waiting(2, work=an_image_work(128, 128), origin="other", admitted=NOW + 5, score=-9)
    queue = a_queue(first, second, other)
    assert served(queue, a_worker(), every=1, now=NOW + 100) == [first, other, second]


def test_turns_go_round():
    queue = a_queue(
        *(waiting(n, score=100 - n, origin=f"origin {n % 3}", admitted=NOW + n) for n in range(12)),
    )
    got = served(queue, a_worker(), every=1, now=NOW + 100)
    assert [job.origin for job in got[:6]] == ["origin 0", "origin 1", "origin 2"] * 2
    assert got[0].since < got[3].since, "an origin's oldest job goes first"


def test_each_swarm_counts_its_own_leases():
    modest = waiting(5_000, score=-9, origin="modest", admitted=NOW + 5)
    queue = a_queue(*flood(20), modest, *(waiting(100 + n, work=a_text_work()) for n in range(20)))
    served(queue, a_worker(a_text_offer()), every=4, count=3)
    assert modest not in served(queue, a_worker(), every=4, count=3)
    assert served(queue, a_worker(), every=4, count=1) != [modest], "the flood's first job has waited longer"
    assert modest in served(queue, a_worker(), every=4, count=8)


# Away and present


def test_jobs_of_an_absent_requester_are_not_matched_and_are_again_when_it_returns():
    here, away = waiting(0), waiting(1, score=99)
    queue = a_queue(here, away)
    queue.set_present(away.request, present=False)
    assert served(queue, a_worker()) == [here]
    assert (len(queue), queue.get(away.handle)) == (1, None)
    assert queue.holds(away.handle, away.request, 0)
    assert queue.set_present(away.request, present=True) == [away]
    assert queue.set_present(away.request, present=True) == [], "nothing new"
    assert served(queue, a_worker()) == [away]
    assert len(queue) == 0


def test_a_job_that_begins_to_wait_while_its_requester_is_away_comes_back_with_it():
    job = waiting(0)
    queue = Queue()
    queue.add(job, present=False)
    assert queue.next_for(a_worker(), TERMS, 0) is None
    assert queue.set_present(job.request, present=True) == [job]
    assert queue.next_for(a_worker(), TERMS, 0) is not None


def test_a_job_is_removed_wherever_it_is():
    here, away = waiting(0), waiting(1)
    queue = a_queue(here)
    queue.add(away, present=False)
    assert queue.remove(here.handle, here.request) == here
    assert queue.remove(away.handle, away.request) == away
    assert queue.remove(away.handle, away.request) is None
    assert len(queue) == 0
    assert queue.set_present(away.request, present=True) == []
    assert not queue.holds(here.handle, here.request, 0)


def test_a_job_is_held_by_the_attempt_after_which_it_waits():
    job = waiting(0, attempt=2)
    queue = a_queue(job)
    assert queue.holds(job.handle, job.request, 2)
    assert not queue.holds(job.handle, job.request, 1)


def copies(job, count):
    """So many jobs like this one, each of a request of its own, a hundred origins among them."""
    for number in range(count):
        name = number.to_bytes(16, "big")
        rank = (*job.rank[:2], NOW + number, name)
        yield replace(job, handle=name, request=name, rank=rank, origin=f"origin {number % 100}", since=NOW + number)


@given(data=st.data())
def test_the_queue_is_empty_after_everything_has_left(data):
    some = copies(waiting(), 4), copies(waiting(work=a_text_work()), 4)
    jobs = [replace(job, handle=bytes([n]) * 16, request=bytes([n % 3])) for n, job in enumerate(chain(*some))]
    present = dict.fromkeys(range(3), True)
    queue = Queue()
    for job in data.draw(st.permutations(jobs)):
        queue.add(job, present=present[job.request[0]])
        request = data.draw(st.integers(0, 2))
        present[request] = data.draw(st.booleans())
        queue.set_present(bytes([request]), present=present[request])
    assert len(queue) == 8
    assert sum(queue.counts().values()) == sum(present[job.request[0]] for job in jobs)
    for job in data.draw(st.permutations(jobs)):
        assert queue.remove(job.handle, job.request) == job
    assert len(queue) == 0
    assert (queue._jobs, queue._buckets, queue._by_model, queue._requests, queue._away) == ({}, {}, {}, {}, set())
    assert (queue._present, queue._served) == ({}, {"image": {}, "text": {}})


# The draw


def a_pool(*workers):
    """A pool of (owner, how many workers) pairs."""
    here = Pool()
    number = 0
    for owner, count in workers:
        for _ in range(count):
            here.announce(a_key(number).public, owner, an_announce(), ())
            number += 1
    return here


def draws(here, times=3_000, seed=5):
    chance = random.Random(seed)
    drawn: Counter[int] = Counter()
    for _ in range(times):
        pair = here.draw(waiting(), TERMS, chance)
        assert pair is not None
        drawn[pair[0].owner] += 1
    return drawn


@pytest.mark.parametrize("many", [2, 10, 300])
def test_an_owner_gains_nothing_by_splitting_into_many_workers(many):
    drawn = draws(a_pool((101, many), (102, 1), (103, 1)))
    assert all(abs(count - 1_000) < 100 for count in drawn.values()), drawn


def test_owners_get_work_in_proportion_to_what_they_have_finished():
    here = a_pool((101, 1), (102, 1))
    for _ in range(2):
        here.count_settled(101)
    drawn = draws(here)
    assert abs(drawn[101] - 2_250) < 100, "(1 + 2) against 1"


def test_an_owner_with_a_lease_comes_after_those_that_have_none():
    here = a_pool((101, 300), (102, 1))
    for _ in range(9):
        here.count_settled(101)
    busy = next(key for key, worker in here.workers.items() if worker.owner == 101)
    here.took(busy, (a_handle(1), 1))
    here.took(busy, (a_handle(1), 1))  # again, as after a report
    assert draws(here, 100) == {102: 100}

    other = next(worker for worker in here.workers.values() if worker.owner == 102)
    here.promise(other)
    assert draws(here, 100) == {101: 100}, "102 has no idle worker"
    here.promise_over(other)
    here.released(busy, (a_handle(1), 1))
    assert draws(here, 100)[101] > 80, "(1 + 9) against 1"


@pytest.mark.parametrize("seed", range(5))
def test_how_many_leases_an_owner_has_is_what_its_workers_have(seed):
    here, chance = Pool(), random.Random(seed)
    keys = [a_key(number).public for number in range(4)]
    promised = []
    for step in range(400):
        key, lease = chance.choice(keys), (a_handle(chance.randrange(6)), 1)
        match chance.randrange(6):
            case 0:
                here.announce(key, 101 + chance.randrange(2), an_announce(), [(a_handle(7), step)])
            case 1:
                here.remove(key)
            case 2:
                here.took(key, lease)
            case 3:
                here.released(key, lease)
            case 4 if key in here.workers:
                promised.append(here.workers[key])
                here.promise(promised[-1])
            case 5 if promised:
                here.promise_over(promised.pop())
        counted: Counter[int] = Counter()
        for worker in here.workers.values():
            counted[worker.owner] += worker.load
        assert here._leases == +counted


def test_of_busy_workers_the_one_whose_owner_has_fewest_leases_takes_a_job_ahead():
    here = Pool()
    for number, owner in enumerate((101, 101, 102)):
        key = a_key(number).public
        here.announce(key, owner, an_announce(ahead=1), ())
        here.took(key, (a_handle(number), 1))
    drawn = here.draw(waiting(), TERMS, random.Random(1))
    assert drawn is not None
    assert drawn[0].owner == 102


def test_within_an_owner_every_worker_gets_its_share():
    here = a_pool((101, 5))
    chance = random.Random(5)
    drawn = Counter(pair[0].key for _ in range(1_000) if (pair := here.draw(waiting(), TERMS, chance)))
    assert len(drawn) == 5
    assert all(abs(count - 200) < 60 for count in drawn.values()), drawn


def test_workers_of_an_owner_that_announce_differently_make_it_no_likelier():
    here = Pool()
    for number in range(6):
        here.announce(a_key(number).public, 101, an_announce(an_image_offer(engine=f"engine {number}")), ())
    here.announce(a_key(9).public, 102, an_announce(), ())
    drawn = draws(here)
    assert abs(drawn[102] - 1_500) < 120, drawn


def test_a_job_is_leased_ahead_only_if_no_idle_worker_could_take_it():
    here = Pool()
    busy, idle = a_key(1).public, a_key(2).public
    here.announce(busy, 101, an_announce(ahead=4), ())
    here.took(busy, (a_handle(1), 1))
    here.announce(idle, 102, an_announce(an_image_offer(max_pixels=4096)), ())
    chance = random.Random(1)
    drawn = [here.draw(waiting(), TERMS, chance) for _ in range(20)]
    assert {pair[0].key for pair in drawn if pair} == {idle}
    large = here.draw(waiting(work=an_image_work(512, 512)), TERMS, chance)
    assert large is not None
    assert large[0].key == busy, "which the idle one cannot make"


def test_among_busy_workers_the_one_with_the_fewest_leases_is_taken():
    here = Pool()
    for number, leases in enumerate([3, 1, 2]):
        key = a_key(number).public
        here.announce(key, 101, an_announce(ahead=9), ((a_handle(n), 1) for n in range(leases)))
    pair = here.draw(waiting(), TERMS, random.Random(1))
    assert pair is not None
    assert pair[0].key == a_key(1).public


def test_a_full_worker_gets_nothing():
    here = Pool()
    worker = here.announce(a_key(1).public, 101, an_announce(slots=2, ahead=1), ())
    for number in range(3):
        pair = here.draw(waiting(), TERMS, random.Random(1))
        assert pair == (worker, an_image_offer())
        here.promise(worker)
        if number < 2:  # one promise is kept as a lease, the other stays open
            here.promise_over(worker)
            here.took(worker.key, (a_handle(number), 1))
    assert not worker.has_room
    assert here.draw(waiting(), TERMS, random.Random(1)) is None
    here.released(worker.key, (a_handle(0), 1))
    assert here.draw(waiting(), TERMS, random.Random(1)) is not None


def test_a_worker_that_announces_anew_keeps_what_it_has_to_do():
    here = Pool()
    key = a_key(1).public
    worker = here.announce(key, 101, an_announce(slots=2), ())
    here.promise(worker)
    here.took(key, (a_handle(1), 1))
    assert here.draw(waiting(), TERMS, random.Random(1)) is None
    again = here.announce(key, 101, an_announce(an_image_offer("other"), slots=2), ())
    assert (again.load, again.has_room) == (2, False)
    here.promise_over(worker)
    assert again.load == 1, "a promise that was made before is over after it"
    pair = here.draw(waiting(models=("other",)), TERMS, random.Random(1))
    assert pair is not None
    assert here.draw(waiting(), TERMS, random.Random(1)) is None, "it does not serve that any more"


def test_an_idle_worker_is_found_among_any_number_of_busy_ones():
    here = a_pool(*((1_000 + n, 1) for n in range(4 * DRAW)))
    for number in range(4 * DRAW):
        here.took(a_key(number).public, (a_handle(number), 1))
    idle = a_key(200).public
    here.released(idle, (a_handle(200), 1))
    pair = here.draw(waiting(), TERMS, random.Random(3))
    assert pair is not None
    assert pair[0].key == idle


def test_the_one_worker_that_can_is_found_among_any_number_that_cannot():
    here = a_pool(*((1_000 + n, 1) for n in range(4 * DRAW)))
    able = here.announce(a_key(9_999).public, 101, an_announce(an_image_offer(max_steps=500)), ())
    job = waiting(work=an_image_work(steps=100))
    assert here.draw(job, TERMS, random.Random(3)) == (able, an_image_offer(max_steps=500))
    assert here.able(job, TERMS) == 1


def test_workers_that_had_the_job_are_passed_over_however_many_they_are():
    here = a_pool(*((1_000 + n, 1) for n in range(2 * DRAW)))
    had = frozenset(a_key(number).public for number in range(2 * DRAW) if number != 70)
    pair = here.draw(waiting(excluded=had), TERMS, random.Random(3))
    assert pair is not None
    assert pair[0].key == a_key(70).public
    assert here.able(waiting(excluded=had), TERMS) == 1


def test_who_is_gone_is_drawn_no_more():
    here = a_pool((101, 2))
    here.remove(a_key(0).public)
    here.remove(a_key(0).public)
    assert {name: served.workers for name, served in here.swarms().items()} == {("image", IMAGE_MODEL): 1}
    assert here.models("image") == [IMAGE_MODEL]
    here.remove(a_key(1).public)
    assert (here.swarms(), here.models("image"), here.draw(waiting(), TERMS, random.Random(1))) == ({}, [], None)
    assert (here._crews, here._crew_of, here._by_model) == ({}, {}, {})


# What it costs


@pytest.fixture
def looks(monkeypatch):
    """How many pairs of a job and workers are looked at."""
    counter: Counter[str] = Counter()

    def counted(module, name):
        real = getattr(module, name)

        def count(*arguments, **more):
            counter[name] += 1
            return real(*arguments, **more)

        monkeypatch.setattr(module, name, count)

    counted(matching, "why_not_pair")
    counted(fitting, "fitting_offers")
    counted(pool, "why_not_terms")
    return counter


def cost_of_next(queue, worker, looks, every=0):
    looks.clear()
    found = queue.next_for(worker, TERMS, every)
    return found is not None, dict(looks)


UNSERVABLE = {
    "too large": waiting(work=an_image_work(2048, 2048)),
    "another kind": waiting(work=a_text_work()),
    "another model": waiting(models=("another",)),
    "over max price": waiting(public=but(a_public_part(SMALL), max_price=10)),
    "had it": waiting(excluded=frozenset({a_key(100).public})),
}


@pytest.mark.parametrize("every", [0, 1])
def test_the_next_job_costs_the_same_with_ten_and_with_twenty_thousand_waiting(looks, every):
    few, many = (a_queue(*copies(waiting(), count)) for count in (10, 20_000))
    assert cost_of_next(few, a_worker(), looks, every) == cost_of_next(many, a_worker(), looks, every)


def test_what_an_announce_says_to_a_swarm_is_judged_once_until_it_changes(looks):
    here = a_pool((101, 1), (102, 1))
    first, second = here.workers.values()
    queue = a_queue(*(waiting(number, work=an_image_work(64 * number, 64)) for number in range(1, 9)))
    assert queue.next_for(first, TERMS, 0) is not None
    looks.clear()
    assert queue.next_for(first, TERMS, 0) is not None
    assert queue.next_for(second, TERMS, 0) is not None, "announced the same"
    assert looks["fitting_offers"] == 0
    smaller = here.announce(first.key, 101, an_announce(an_image_offer(max_pixels=64)), ())
    assert queue.next_for(smaller, TERMS, 0) is None
    assert queue.next_for(second, TERMS, 0) is not None


@pytest.mark.parametrize("why", UNSERVABLE)
def test_jobs_that_cannot_be_served_cost_no_more_when_there_are_many(looks, why):
    worker = a_worker()
    queue = a_queue(*copies(UNSERVABLE[why], 20_000))
    found, cost = cost_of_next(queue, worker, looks)
    assert not found
    assert cost.get("why_not_pair", 0) <= (matching.SCAN_HAD if why == "had it" else SCAN)
    assert cost.get("fitting_offers", 0) <= 1
    queue.add(waiting(30_000, work=an_image_work(128, 128)), present=True)
    assert cost_of_next(queue, worker, looks)[0], "and are in nobody's way"


def test_a_worker_is_not_kept_from_work_by_the_jobs_that_it_missed():
    worker = a_worker()
    missed = [waiting(number, score=9, excluded=frozenset({worker.key})) for number in range(5 * SCAN)]
    job = waiting(9_000)
    assert served(a_queue(*missed, job), worker) == [job]


def test_a_draw_costs_the_same_with_ten_and_with_two_thousand_workers(looks):
    costs = []
    for count in (10, 2_000):
        here = a_pool(*((1_000 + n, 1) for n in range(count)))
        looks.clear()
        assert here.draw(waiting(), TERMS, random.Random(1)) is not None
        costs.append(dict(looks))
    assert costs[0] == costs[1]


def test_a_draw_looks_at_nobody_who_has_no_room(looks):
    here = a_pool(*((1_000 + n, 1) for n in range(50)))
    for number, worker in enumerate(list(here.workers.values())):
        here.announce(worker.key, worker.owner, an_announce(an_image_offer(max_pixels=10**6 + number)), ())
        here.took(worker.key, (bytes([number]) * 16, 1))
    looks.clear()
    assert here.draw(waiting(), TERMS, random.Random(1)) is None
    assert looks.total() == 0


def test_what_a_crew_says_to_jobs_that_are_alike_is_judged_once(looks):
    here = a_pool(*((1_000 + n, 1) for n in range(3)))
    here.draw(waiting(), TERMS, random.Random(1))
    looks.clear()
    here.draw(waiting(2), TERMS, random.Random(1))
    here.owners(waiting(3), TERMS, 10)
    assert looks["fitting_offers"] == 0


def test_prices_of_the_day_decide():
    dear = Terms(Rules(prices=PricesSection(image_base=10_000)))
    job = waiting(public=but(a_public_part(SMALL), max_price=5_000))
    assert isinstance(why_not(job, a_worker(), TERMS), Offer)
    assert why_not(job, a_worker(), dear) is Reason.OVER_MAX_PRICE
