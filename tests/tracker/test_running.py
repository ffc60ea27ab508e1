"""Limits on jobs that run at once, and quotes: the coordinator over the real store, with scripted peers."""

from dataclasses import replace

import pytest

from protocol import prices
from protocol.documents import Lease
from protocol.messages import AskQuote, AskWhy, Position, Private, Queued, Quote, Refused, Why
from protocol.rules import LimitsSection, Rules
from tests.support.builders import IMAGE_MODEL, a_key, a_profile, a_public_part, an_image_work, but
from tests.support.database import tables
from tests.support.peers import Desk, FakeClock, states
from tests.tracker.test_matching import waiting
from tracker.matching import Waiting

PRICE = prices.price(Rules(), a_public_part().work, IMAGE_MODEL)
TAX = prices.tax(Rules())
LIMITS = LimitsSection(without_kudos_running=2, anonymous_running=1)


@pytest.fixture
def rules():
    return Rules(limits=LIMITS)


async def finish(worker, requester, lease):
    await requester.acknowledge(await worker.deliver(lease))


@pytest.mark.parametrize(("account", "running"), [(True, 2), (False, 1)])
async def test_of_one_request_so_many_run_and_the_rest_waits(desk, account, running):
    workers = [await desk.worker(number) for number in range(4)]
    requester = await desk.requester(account=account)
    await requester.ask(a_public_part(n=4))
    assert sorted(states(desk)) == sorted(["leased"] * running + ["waiting"] * (4 - running))
    leased = [(worker, found) for worker in workers for found in worker.inbox if isinstance(found, Lease)]
    worker, lease = leased[0]
    await worker.deliver(lease)
    await desk.quiet()
    assert states(desk).count("leased") == running, "a delivered job runs no more: the next one does"
    assert states(desk).count("delivered") == 1


async def test_requests_one_after_the_other_and_side_by_side_count_together(desk):
    for number in range(4):
        await desk.worker(number)
    first, second = await desk.requester(), await desk.requester(101)
    await first.ask()
    await second.ask()
    assert states(desk) == ["leased", "waiting"], "of one block of addresses"
    elsewhere = await desk.peer(102, block="198.51.100.0/24")
    await elsewhere.ask()
    assert states(desk) == ["leased", "waiting", "leased"]


async def test_who_has_kudos_runs_as_many_as_they_cover(desk):
    requester = await desk.rich()
    workers = [await desk.worker(number) for number in range(1, 7)]
    had = await requester.balance()
    covered = -(-(had - PRICE + 1) // (PRICE + TAX))  # the last one may lack the tax alone
    await requester.ask(a_public_part(n=covered))
    assert states(desk)[-covered:] == ["leased"] * covered
    assert covered > LIMITS.without_kudos_running
    await requester.ask(a_public_part(n=4))
    assert states(desk)[-4:].count("leased") == min(2, len(workers) - covered)


async def test_a_worker_of_ones_own_does_not_count(desk):
    own = await desk.worker(0, slots=5)
    await own.ask(a_public_part(n=5))
    assert states(desk) == ["leased"] * 5


async def test_a_job_that_ends_lets_the_next_one_run_at_a_worker_that_was_idle_all_the_time(desk):
    worker, requester = await desk.worker(slots=3), await desk.requester()
    [job, *rest] = (await requester.ask(a_public_part(n=3))).jobs
    lease = await worker.hear(Lease)
    await finish(worker, requester, lease)
    second = await worker.hear(Lease)
    assert second.job in {job, *rest} - {lease.job}
    await worker.report(second, "failed", "engine")
    await desk.quiet()
    assert sorted(states(desk)) == ["leased", "settled", "waiting"]


async def test_a_lease_that_is_lost_makes_room(desk):
    worker, requester = await desk.worker(slots=3), await desk.requester()
    await requester.ask(a_public_part(n=2))
    lease = await worker.hear(Lease)
    await worker.report(lease, "declined", "busy")
    other = await worker.hear(Lease)
    assert other.job != lease.job
    assert sorted(states(desk)) == ["leased", "waiting"]


async def test_a_job_that_is_kept_back_can_be_cancelled_and_expires_like_any(desk):
    await desk.worker()
    requester = await desk.requester()
    jobs = (await requester.ask(a_public_part(n=3))).jobs
    waits = next(job for job, state in zip(jobs, states(desk), strict=True) if state == "waiting")
    await requester.cancel(waits)
    assert states(desk).count("cancelled") == 1
    await desk.later(desk.coordinator.rules.rules.times.waiting + 1)
    assert "expired" in states(desk)
    assert desk.coordinator._jobs.queue.lines.kept_back == {}


async def test_why_a_job_is_kept_back_is_told_to_who_asks(desk):
    worker, requester = await desk.worker(slots=3), await desk.requester()
    jobs = (await requester.ask(a_public_part(n=2))).jobs
    lease = await worker.hear(Lease)
    [kept_back] = set(jobs) - {lease.job}
    position = await requester.hear(Position, job=kept_back)
    assert (position.ahead, position.workers) == (0, 1)
    await requester.say(AskWhy(job=kept_back))
    assert (await requester.hear(Why)).reasons == (("running_limit", 1),)
    await worker.say(AskWhy())
    assert (await worker.hear(Why)).reasons == (("running_limit", 1),)


async def test_what_one_worker_must_not_have_again_another_is_asked_for(desk, monkeypatch):
    jobs = desk.coordinator._jobs
    first, second = a_key(1).public, a_key(2).public
    excluded = [frozenset({first}), frozenset({second}), frozenset({first}), frozenset(), frozenset()]
    waits = [replace(waiting(number, excluded=had), carried=True) for number, had in enumerate(excluded)]
    for job in waits:
        jobs.queue.add(job, present=True)
    looked_at: list[Waiting] = []
    monkeypatch.setattr(jobs, "_match", looked_at.append)
    jobs._match_opened([job.handle for job in waits])
    assert looked_at == [waits[0], waits[1], waits[3]], "and not for what is like those in vain"


def told(requester, jobs):
    """The newest position of each of these jobs."""
    newest = {said.job: said.ahead for said in requester.heard if isinstance(said, Position)}
    return sorted(newest[job] for job in jobs)


async def test_who_is_kept_back_hears_that_the_line_moves(desk):
    worker, requester = await desk.worker(slots=3), await desk.requester()
    kept_back = set((await requester.ask(a_public_part(n=4))).jobs)
    first = await worker.hear(Lease)
    await desk.later(3)
    kept_back.remove(first.job)
    assert told(requester, kept_back) == [0, 1, 2]
    await finish(worker, requester, first)
    kept_back.remove((await worker.hear(Lease)).job)
    await desk.later(3)
    assert told(requester, kept_back) == [0, 1]


async def test_after_a_restart_what_ran_still_counts(path):
    clock = FakeClock()
    async with Desk.open(path, Rules(limits=LIMITS), clock=clock) as desk:
        workers, requester = [await desk.worker(n) for n in range(3)], await desk.requester(account=True)
        await requester.ask(a_public_part(n=3))
        assert sorted(states(desk)) == ["leased", "leased", "waiting"]
    async with Desk.open(path, clock=clock) as desk:
        for worker in workers:
            worker.forget()
        again = await desk.worker(7)
        [origin] = desk.coordinator._jobs.queue.lines._origins.parties.values()
        assert len(origin.running) == 2
        await again.hears_nothing_of(Lease)


async def test_other_rules_let_more_run_at_once(desk):
    workers = [await desk.worker(number) for number in range(4)]
    requester = await desk.requester()
    await requester.ask(a_public_part(n=4))
    assert states(desk).count("leased") == 1
    await desk.coordinator.publish(but(desk.coordinator.rules.rules, limits=but(LIMITS, anonymous_running=3)))
    await desk.quiet()
    assert states(desk).count("leased") == 3
    assert len(workers) == 4


async def test_nothing_of_a_bound_is_left_when_all_have_ended(desk):
    worker, requester = await desk.worker(slots=2), await desk.requester()
    await requester.ask(a_public_part(n=4))
    for _ in range(4):
        await finish(worker, requester, await worker.hear(Lease))
    await desk.quiet()
    assert states(desk) == ["settled"] * 4
    assert desk.coordinator._jobs.queue.lines.is_empty


# Users of a service


ALICE, BOB = bytes(15) + b"A", bytes(15) + b"B"


async def a_service(desk):
    service = await desk.requester(account=True)
    await service.present(a_profile("Pictures for all", service=True))
    await desk.quiet()
    return service


async def ask_for(service, user, n=1):
    return (await service.send_in(service.prepare(a_public_part(n=n), user=user))).jobs


@pytest.mark.parametrize("rules", [Rules(limits=LimitsSection(without_kudos_running=3, user_running=2))])
async def test_of_one_user_of_a_service_so_many_run_and_the_next_one_has_room(path, rules):
    clock = FakeClock()
    async with Desk.open(path, rules, clock=clock) as desk:
        for number in range(1, 6):
            await desk.worker(number)
        service = await a_service(desk)
        await ask_for(service, ALICE, 4)
        assert sorted(states(desk)) == ["leased"] * 2 + ["waiting"] * 2
        await ask_for(service, BOB, 2)
        assert states(desk)[-2:] == ["leased", "waiting"], "no more of the service as a whole than of any account"
    async with Desk.open(path, clock=clock) as desk:
        assert {len(known.running) for known in desk.coordinator._jobs.queue.lines._users.parties.values()} == {1, 2}
        assert sum(desk.coordinator._jobs.open_jobs.values()) == 2 * 6, "by account, and by user"


@pytest.mark.parametrize("rules", [Rules(limits=LimitsSection(open_jobs=4, user_open_jobs=2))])
async def test_so_many_jobs_of_one_user_of_a_service_are_under_way_and_no_other_user_is_refused(desk):
    service = await a_service(desk)
    await ask_for(service, ALICE, 2)
    for user, rule in ((ALICE, "user_open_jobs"), (BOB, "")):
        asked = service.prepare(user=user)
        await service.say(Private(private=asked.private))
        await service.send(asked.envelope)
        if rule:
            refused = await service.hear(Refused)
            assert refused.code == "over_limit"
            assert f"limits.{rule}; wait until 1 of them has ended" in refused.text
        else:
            await service.hear(Queued)
    await service.cancel()
    await ask_for(service, b"", 2)
    [(account, all_of_it), (alice, hers)] = sorted(desk.coordinator._jobs.open_jobs.items())
    assert (all_of_it, alice, hers) == (4, f"{account} {ALICE.hex()}", 2)


# Waits


async def test_a_wait_is_told_when_speeds_are_known_and_the_report_compares(desk):
    worker, requester = await desk.worker(), await desk.requester(account=True)
    await requester.ask()
    lease = await worker.hear(Lease)
    desk.clock.now += 10_000
    await finish(worker, requester, lease)
    await requester.ask(a_public_part(n=2))
    running = await worker.hear(Lease)
    position = await requester.hear(Position)
    assert (position.ahead, position.wait) == (0, 5), "half of a job of ten seconds"
    desk.clock.now += 10_000
    await finish(worker, requester, running)
    await worker.hear(Lease)
    assert desk.coordinator.scrape()["waits"] == {"predicted": 1, "unserved": 0, "median": 2.0, "p90": 2.0}


# Quotes


async def quoted(requester, public=None):
    await requester.say(AskQuote(public=public or a_public_part()))
    return await requester.hear(Quote)


async def test_a_quote_says_what_a_request_then_costs(desk):
    requester = await desk.rich()
    await desk.worker(1)
    quote = await quoted(requester)
    assert (quote.price, quote.tax, quote.held, quote.free) == (PRICE, TAX, PRICE + TAX, 0)
    assert (quote.workers, quote.ahead, quote.wait) == (1, 0, 1)
    assert (await requester.ask()).held == quote.held


async def test_a_quote_for_somebody_without_kudos_says_what_others_carry(desk):
    quote = await quoted(await desk.requester(), a_public_part(n=3))
    assert (quote.held, quote.free, quote.workers, quote.wait) == (0, 3 * PRICE, 0, 0)


async def test_a_quote_tells_the_place_that_the_request_would_have(desk):
    richer = await desk.rich(200, jobs=2)
    waiting = await desk.requester(account=True)
    await waiting.ask(a_public_part(n=5))
    assert (await quoted(await desk.requester(101))).ahead == 5, "those with an account go before"
    assert (await quoted(richer)).ahead == 0


async def test_a_quote_is_refused_where_the_request_would_be(desk):
    requester = await desk.requester()
    await requester.say(AskQuote(public=a_public_part(an_image_work(2048, 2048))))
    assert await requester.refused() == "over_limit"
    await requester.say(AskQuote(public=but(a_public_part(), max_price=1)))
    assert await requester.refused() == "over_max_price"


async def test_a_quote_stores_and_changes_nothing(desk):
    await desk.worker()
    requester = await desk.requester(account=True)
    before = tables(desk.path)
    for _ in range(3):
        await quoted(requester)
    await desk.quiet()
    assert tables(desk.path) == before
    assert desk.coordinator._jobs.open_jobs == {}
    assert desk.coordinator._jobs.queue.lines.is_empty
