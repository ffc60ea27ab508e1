"""Workers decide: whom they serve before others, what they do while paused, and whom they do not serve, in matching."""

import random

from protocol.rules import LimitsSection, Rules
from tests.support.builders import NOW, a_key, a_public_part, an_image_work
from tests.support.jobs import a_waiting_job
from tests.tracker.test_matching import a_queue, a_worker, an_announce, an_image_offer, served, waiting
from tracker.fitting import Reason
from tracker.lifecycle import Facts
from tracker.matching import SCAN, SCAN_HAD, Named, Queue, Terms, Waiting
from tracker.pool import Pool
from tracker.pseudonyms import Pseudonyms

TERMS = Terms(Rules())
ME, FRIEND, OTHER = 101, 102, 103
CHANCE = random.Random(1)


def of(payer: int, number: int, **fields: object) -> Waiting:
    job: Waiting = waiting(number, payer=payer, origin=str(payer), **fields)
    return job


def test_a_worker_gets_its_own_accounts_jobs_first_then_its_friends_then_by_rank() -> None:
    queue = a_queue(of(OTHER, 1, score=9_000), of(FRIEND, 2, score=10), of(ME, 3, score=-5), of(ME, 4, score=-7))
    worker = a_worker(named=Named(friends=frozenset({FRIEND})))
    assert [job.payer for job in served(queue, worker)] == [ME, ME, FRIEND, OTHER]
    assert served(queue, a_worker()) == [], "and nothing is served twice"


def test_the_fairness_of_the_line_does_not_go_before_ones_own() -> None:
    queue = a_queue(of(OTHER, 1, admitted=NOW - 10_000), of(ME, 2))
    assert [job.payer for job in served(queue, a_worker(), every=1)] == [ME, OTHER]


def test_without_friends_the_friend_waits_by_rank() -> None:
    queue = a_queue(of(OTHER, 1, score=9_000), of(FRIEND, 2, score=10))
    assert [job.payer for job in served(queue, a_worker())] == [OTHER, FRIEND]


def test_a_paused_worker_serves_its_own_account_and_nobody_else_not_even_friends() -> None:
    queue = a_queue(of(OTHER, 1), of(FRIEND, 2), of(ME, 3))
    worker = a_worker(paused=True, named=Named(friends=frozenset({FRIEND})))
    assert [job.payer for job in served(queue, worker)] == [ME]
    assert queue.reasons_for(worker, TERMS) == {Reason.PAUSED: 2}


def test_what_a_worker_cannot_make_it_does_not_get_even_from_its_own_account() -> None:
    queue = a_queue(of(ME, 1, public=a_public_part(an_image_work(1024, 1024))), of(ME, 2))
    assert [job.handle for job in served(queue, a_worker())] == [a_waiting_job(2).handle]


def test_limits_hold_for_friends_too() -> None:
    queue = a_queue(of(FRIEND, 1, facts=Facts(labels=("adult",))))
    assert served(queue, a_worker(declines=("adult",), named=Named(friends=frozenset({FRIEND})))) == []


def test_a_job_goes_to_its_own_accounts_idle_worker_though_others_are_idle_too() -> None:
    here = Pool()
    for number in range(20):
        here.announce(a_key(number).public, 200 + number, an_announce(), ())
    mine = here.announce(a_key(50).public, ME, an_announce(paused=True), ())
    drawn = here.draw(of(ME, 1), TERMS, CHANCE)
    assert drawn is not None
    assert drawn[0] is mine
    here.took(mine.key, (b"x" * 16, 1))
    other = here.draw(of(ME, 1), TERMS, CHANCE)
    assert other is not None
    assert other[0] is not mine, "nobody has to wait for his own worker while others are idle"
    assert here.draw(of(OTHER, 2), TERMS, CHANCE) is not None
    for key in [worker.key for worker in here.workers.values() if worker is not mine]:
        here.remove(key)
    assert here.draw(of(OTHER, 2), TERMS, CHANCE) is None
    assert here.able(of(ME, 1), TERMS) == 1
    assert here.able(of(OTHER, 1), TERMS) == 0


def test_a_bound_on_what_others_carry_does_not_keep_a_job_from_its_own_accounts_worker() -> None:
    queue = Queue(LimitsSection(without_kudos_running=1))
    running, kept_back = of(ME, 1, carried=True), of(ME, 2, carried=True)
    queue.lines.started(running.handle, running.origin, anonymous=False)
    queue.add(kept_back, present=True)
    assert queue.lines.keeps_back(kept_back)
    assert queue.next_for(a_worker(owner=OTHER), TERMS, 0) is None
    assert queue.next_for(a_worker(owner=OTHER, named=Named(friends=frozenset({ME}))), TERMS, 0) is None
    assert queue.next_for(a_worker(owner=ME), TERMS, 0) == (kept_back, an_image_offer())


def test_an_account_that_a_worker_does_not_serve_is_in_nobody_elses_way() -> None:
    """As many of its jobs as a scan passes over, all before the one that can be served."""
    unwanted = [of(OTHER, number, score=9_000) for number in range(SCAN_HAD - 1)]
    job = of(FRIEND, 5_000)
    worker = a_worker(named=Named(declined=frozenset({OTHER})))
    assert SCAN < len(unwanted)
    assert a_queue(*unwanted, job).next_for(worker, TERMS, 0) == (job, an_image_offer())


def test_a_job_is_drawn_for_the_one_worker_among_many_that_serves_its_account() -> None:
    here = Pool()
    for number in range(300):
        here.announce(a_key(number).public, 200 + number, an_announce(), (), Named(declined=frozenset({OTHER})))
    able = here.announce(a_key(400).public, 500, an_announce(), ())
    drawn = here.draw(of(OTHER, 1), TERMS, CHANCE)
    assert drawn is not None
    assert drawn[0] is able
    assert here.able(of(OTHER, 1), TERMS) == 1
    for key in list(here.workers):
        here.remove(key)
    assert (here._declining, here._of_owner, here._crews) == ({}, {}, {})


def test_jobs_that_differ_in_who_asks_are_in_one_line_as_far_as_positions_go() -> None:
    first = of(OTHER, 1, score=30, facts=Facts(give_back=3))
    service = of(FRIEND, 2, score=20, facts=Facts(service="Fred#102"))
    nobody = waiting(3, anonymous=True, payer=4)
    queue = a_queue(nobody, service, first)
    assert [queue.ahead_of(job) for job in (first, service, nobody)] == [0, 1, 2]
    for job in (first, service, nobody):
        queue.remove(job.handle, job.request)
    assert (queue._alike, queue._payers._jobs) == ({}, {})


# Pseudonyms


def test_a_worker_knows_an_account_by_a_pseudonym_that_no_other_worker_has() -> None:
    names = Pseudonyms(bytes(32))
    one, two = a_key(1).public, a_key(2).public
    known = {names.of(worker, account) for worker in (one, two) for account in (100, 101)}
    assert len(known) == 4
    assert {len(name) for name in known} == {16}
    assert names.of(one, 100) == Pseudonyms(bytes(32)).of(one, 100), "also after a restart"
    assert names.of(one, 100) != Pseudonyms(bytes([1]) * 32).of(one, 100), "in another horde another one"
    assert names.of(one, 0) == b""


def test_the_tracker_reads_a_workers_list_back_and_nothing_that_is_made_up_or_anothers() -> None:
    names = Pseudonyms(bytes(32))
    one, two = a_key(1).public, a_key(2).public
    asked = [names.of(one, 100), names.of(two, 101), bytes(16), b"short", names.of(one, 2**40)]
    assert names.read(one, asked) == {100, 2**40}
    assert names.read(two, asked) == {101}
