"""Peers that leave and return, and a tracker that is started anew: what each side hears, and what goes on."""

import asyncio

import pytest

from protocol import prices
from protocol.documents import Lease, PeerRecord, Settlement
from protocol.messages import (
    Account,
    Announce,
    AskAccount,
    Ended,
    Position,
    Private,
    Queued,
    Refused,
    Requeued,
    Taken,
    Withdrawn,
)
from protocol.rules import LimitsSection, MatchingSection, Rules, TimesSection
from tests.support.books import check_books
from tests.support.builders import HOUR, IMAGE_MODEL, SECOND, a_handle, a_public_part, an_image_private, but
from tests.support.peers import AN_OFFER, Desk, FakeClock, Peer, delivered, leased, states

PRICE = prices.price(Rules(), a_public_part().work, IMAGE_MODEL)
TIMES = TimesSection()


# Workers


async def test_a_worker_that_stays_away_loses_its_lease(desk):
    worker, requester, _ = await leased(desk)
    other = await desk.worker(1)
    worker.hang_up()
    await desk.later(TIMES.worker_grace - 1)
    await requester.hears_nothing_of(Requeued)
    await desk.later(1)
    assert (await requester.hear(Requeued)).reason == "gone"
    assert (await other.hear(Lease)).attempt == 2


async def test_a_worker_that_returns_in_time_with_its_lease_keeps_it(desk):
    worker, requester, lease = await leased(desk)
    await worker.come_back(worker.held_lease(lease))
    assert [(held.kind, held.job, held.attempt) for held in worker.tracker_holds] == [("lease", lease.job, 1)]
    await worker.serve()
    await desk.later(TIMES.worker_grace + 1)
    await requester.hears_nothing_of(Requeued)
    await worker.hears_nothing_of(Lease, Withdrawn)
    await requester.acknowledge(await worker.deliver(lease))
    await requester.hear(Settlement)


async def test_a_worker_that_returns_still_has_its_hands_full(desk):
    worker, requester, lease = await leased(desk)
    await requester.ask()
    await worker.come_back(worker.held_lease(lease))
    await worker.serve()
    await worker.hears_nothing_of(Lease)
    await worker.deliver(lease)
    await worker.hear(Lease)


async def test_a_worker_that_returns_without_its_lease_has_lost_it(desk):
    worker, requester, _ = await leased(desk)
    await worker.come_back()
    await worker.serve()
    assert (await requester.hear(Requeued)).reason == "gone"
    assert (await worker.hear(Withdrawn)).attempt == 1


async def test_a_worker_that_returns_without_a_lease_that_it_had_not_taken_yet_gets_it_again(desk):
    worker, _, lease = await leased(desk, stage="pushed")
    await worker.come_back()
    await worker.serve()
    assert await worker.hear(Lease) == lease
    await worker.deliver(lease)


async def test_a_worker_that_finished_while_it_was_away_is_not_taken_for_gone(desk):
    worker, requester, lease = await leased(desk)
    worker.hang_up()
    worker.forget()
    receipt = worker.receipt(lease)
    other = await desk.worker(1)
    await worker.connect(worker.held_receipt(lease))
    await worker.serve()  # it announces before it sends what the tracker lacks
    await requester.hears_nothing_of(Requeued)
    await other.hears_nothing_of(Lease)
    await worker.send(receipt)
    await worker.hear(Taken)
    await requester.acknowledge(receipt)
    await requester.hear(Settlement)


async def test_who_delivers_before_it_says_where_it_is_now_is_not_looked_for_at_its_old_place(desk):
    worker, requester, lease = await leased(desk)
    receipt, held = worker.receipt(lease), worker.held_lease(lease)
    worker.hang_up()
    await desk.later(TIMES.worker_grace + 1)
    assert (await requester.hear(Requeued)).reason == "gone"
    requester.forget()
    worker.forget()
    await worker.connect(held)
    await worker.send(receipt)
    await worker.hear(Taken)
    await requester.hears_nothing_of(PeerRecord, Lease)
    await worker.serve()
    assert (await requester.hear(PeerRecord)).version == worker.records == 2
    assert await requester.hear(Lease) == lease
    await requester.hears_nothing_of(PeerRecord, Lease)


async def test_being_away_twice_for_a_moment_is_not_being_gone(desk):
    worker, requester, lease = await leased(desk)
    held = worker.held_lease(lease)
    worker.hang_up()
    await desk.later(TIMES.worker_grace - 2)
    await worker.move_to(desk, held)
    await worker.serve()
    worker.hang_up()
    await desk.later(3)
    await requester.hears_nothing_of(Requeued)
    await desk.later(TIMES.worker_grace)
    assert (await requester.hear(Requeued)).reason == "gone"


async def test_a_worker_that_was_away_hears_of_the_cancel_when_it_returns(desk):
    worker, requester, lease = await leased(desk)
    held = worker.held_lease(lease)
    worker.hang_up()
    await requester.cancel()
    await worker.move_to(desk, held)
    assert (await worker.hear(Withdrawn)).reason == "cancelled"
    await worker.send(worker.receipt(lease, used=10, partial=True))
    assert (await requester.hear(Settlement)).partial


async def test_a_worker_that_returns_after_its_job_was_settled_hears_so(desk):
    worker, requester, lease, receipt = await delivered(desk)
    worker.hang_up()
    await requester.acknowledge(receipt)
    await worker.move_to(desk, worker.held_receipt(lease))
    assert (await worker.hear(Settlement)).job == lease.job


@pytest.mark.parametrize("end", ["settled for another", "cancelled", "refunded", "failed", "unknown"])
async def test_a_worker_that_returns_with_a_lease_that_is_over_can_let_go(desk, end):
    worker, requester, lease = await leased(desk)
    held = worker.held_lease(lease)
    worker.hang_up()
    if end == "settled for another":
        other = await desk.worker(1)
        await desk.later(TIMES.worker_grace)
        await requester.acknowledge(await other.deliver(await other.hear(Lease)))
    elif end == "cancelled":
        await requester.cancel()
        await desk.later(TIMES.cancel)
    elif end == "refunded":
        await requester.deny(lease)
    elif end == "failed":
        await desk.coordinator.publish(Rules(matching=MatchingSection(failed_attempts=1)))
        await desk.later(TIMES.worker_grace)
    else:
        held = but(held, job=a_handle(4711))
    await worker.move_to(desk, held)
    assert (await worker.hear(Withdrawn)).reason == ("settled" if end == "settled for another" else "ended")


async def test_a_worker_that_returns_with_a_taken_receipt_hears_that_it_is_taken(desk):
    worker, _, lease, receipt = await delivered(desk)
    await worker.come_back(worker.held_receipt(lease))
    assert [(held.kind, held.digest) for held in worker.tracker_holds] == [("receipt", receipt.digest)]
    await worker.hear(Taken, documents=(receipt.digest,))


async def test_a_worker_that_leaves_while_it_announces_is_not_here(desk):
    worker = await desk.peer(0)
    await worker.register()
    await worker.show_record()
    await worker.say(Announce(offers=(AN_OFFER,)))
    worker.hang_up()
    await desk.quiet()
    assert desk.coordinator.scrape()["workers"] == 0
    requester = await desk.requester()
    await requester.ask()
    assert (await requester.hear(Position)).workers == 0


# Requesters


async def test_jobs_of_a_requester_that_left_wait_until_it_returns(desk):
    requester = await desk.requester()
    await requester.ask()
    requester.hang_up()
    worker = await desk.worker()
    await worker.hears_nothing_of(Lease)
    await requester.move_to(desk, requester.held_request())
    assert [held.kind for held in requester.tracker_holds] == ["request"]
    lease = await worker.hear(Lease)
    assert await requester.hear(Lease) == lease


async def test_a_requester_that_returns_hears_how_its_jobs_stand(desk):
    worker, requester = await desk.worker(0, slots=3), await desk.requester()
    queued = await requester.ask(a_public_part(n=4))
    leases = [await worker.hear(Lease) for _ in range(3)]
    for lease in leases:
        await worker.report(lease, "opened")
    await requester.acknowledge(await worker.deliver(leases[0]))
    await requester.deny(leases[1])
    last = await worker.hear(Lease)
    await worker.report(last, "declined", "busy")
    await requester.come_back(requester.held_request())
    again = await requester.hear(Queued)
    assert (again.request, again.jobs) == (queued.request, queued.jobs)
    assert (await requester.hear(Settlement)).job == leases[0].job
    ended = await requester.hear(Ended)
    assert (ended.job, ended.state) == (leases[1].job, "refunded")
    assert (await requester.hear(PeerRecord)).version == worker.records
    assert await requester.hear(Lease) == leases[2]
    await requester.hears_nothing_of(Lease, Settlement, Ended)


async def test_a_request_that_the_tracker_does_not_know_is_not_in_its_list(desk):
    requester = await desk.requester()
    asked = requester.prepare()
    await requester.come_back(requester.held_request(asked))
    assert requester.tracker_holds == []
    await requester.hears_nothing_of(Queued)
    await requester.send_in(asked)


async def test_many_things_held_come_in_parts(desk):
    requester = await desk.requester(account=True)
    for number in range(300):
        asked = requester.prepare(private=an_image_private(seed=number))
        await requester.say(Private(private=asked.private))
        await requester.send(asked.envelope)
    await desk.quiet()
    await requester.come_back(*map(requester.held_request, requester.asked))
    assert len(requester.tracker_holds) == 300
    await desk.quiet()
    assert len([body for body in requester.inbox if isinstance(body, Queued)]) == 300


async def test_a_requester_that_leaves_while_it_returns_is_not_here(desk):
    requester = await desk.requester()
    await requester.ask()
    requester.hang_up()
    requester.forget()
    await requester.greet()
    returning = asyncio.create_task(requester.hold(requester.held_request()))
    await asyncio.sleep(0)
    requester.hang_up()
    await returning
    worker = await desk.worker()
    await worker.hears_nothing_of(Lease)


async def test_a_request_of_who_is_gone_at_once_waits_for_its_return(desk):
    worker, requester = await desk.worker(), await desk.requester()
    asked = requester.prepare(a_public_part(n=2))
    await requester.say(Private(private=asked.private))
    await requester.send(asked.envelope)
    requester.hang_up()
    await desk.quiet()
    assert states(desk) == ["leased", "waiting"]
    lease = await worker.hear(Lease)
    await worker.report(lease, "failed", "engine")
    other = await desk.worker(1)
    await other.hears_nothing_of(Lease)
    await requester.move_to(desk, requester.held_request())
    await other.hear(Lease)


# Two connections of one key


async def test_of_two_connections_of_a_worker_the_newer_one_gets_the_leases(desk):
    worker, requester = await desk.worker(), await desk.requester()
    twin = Peer(desk, worker.key, records=worker.records)
    await twin.connect()
    await twin.serve()
    await requester.ask()
    lease = await twin.hear(Lease)
    await worker.hears_nothing_of(Lease)
    await twin.report(lease, "opened")
    worker.hang_up()
    await desk.later(TIMES.worker_grace + 1)
    await requester.hears_nothing_of(Requeued)
    assert desk.coordinator.scrape()["workers"] == 1
    twin.hang_up()
    assert desk.coordinator.scrape()["workers"] == 0


async def test_of_two_connections_of_a_requester_the_one_that_answers_hears_how_it_ends(desk):
    _, requester, _, receipt = await delivered(desk)
    twin = Peer(desk, requester.key, asked=list(requester.asked))
    await twin.connect()
    await twin.acknowledge(receipt)
    settlement = await twin.hear(Settlement)
    assert await requester.hear(Settlement) == settlement


async def test_a_twin_that_leaves_does_not_take_the_requester_with_it(desk):
    requester = await desk.requester()
    await requester.ask()
    twin = Peer(desk, requester.key, asked=list(requester.asked))
    await twin.connect()
    twin.hang_up()
    worker = await desk.worker()
    await worker.hear(Lease)
    await requester.hear(Lease)


async def test_an_account_that_is_opened_in_one_connection_counts_in_the_other(desk):
    requester = await desk.requester()
    twin = Peer(desk, requester.key)
    await twin.connect()
    number = await twin.register()
    await requester.say(AskAccount())
    assert (await requester.hear(Account)).number == number


# A tracker that is started anew


async def test_a_restarted_tracker_takes_up_every_job_where_it_stood(path):
    clock = FakeClock()
    async with Desk.open(path, clock=clock) as desk:
        worker, requester = await desk.worker(0, slots=2), await desk.requester()
        await requester.ask(a_public_part(n=4))
        whole, opened = [await worker.hear(Lease) for _ in range(2)]
        await worker.report(opened, "opened")
        receipt = await worker.deliver(whole)
        pushed = await worker.hear(Lease)
        await desk.quiet()
    async with Desk.open(path, clock=clock) as desk:
        clock.now += SECOND
        found = desk.coordinator.scrape()
        assert (found["waiting"], found["leased"], found["delivered"]) == (1, 2, 1)
        await requester.move_to(desk, requester.held_request())
        await requester.hear(Queued)
        assert len([body for body in requester.inbox if isinstance(body, Lease)]) == 3
        requester.forget()
        await worker.move_to(desk, worker.held_lease(opened), worker.held_receipt(whole))
        assert sorted(held.kind for held in worker.tracker_holds) == ["lease", "lease", "receipt"]
        await worker.hear(Taken, documents=(receipt.digest,))
        await worker.serve(slots=2)
        assert await worker.hear(Lease) == pushed, "a stored lease that it had not taken is pushed again"
        assert (await requester.hear(PeerRecord)).version == worker.records
        moved = {(await requester.hear(Lease)).job for _ in range(3)}
        assert moved == {whole.job, opened.job, pushed.job}, "who returned before the worker hears where it is"
        await worker.hears_nothing_of(Lease, Withdrawn)
        await requester.acknowledge(receipt)
        assert (await requester.hear(Settlement)).job == whole.job
        for lease in (opened, pushed):
            await requester.acknowledge(await worker.deliver(lease))
        await requester.acknowledge(await worker.deliver(await worker.hear(Lease)))
        assert states(desk) == ["settled"] * 4
    check_books(path)


async def test_after_a_restart_life_signs_have_a_grace(path):
    clock = FakeClock()
    async with Desk.open(path, clock=clock) as desk:
        worker, requester, lease = await leased(desk)
        held = worker.held_lease(lease)
    clock.now += HOUR  # however long the tracker was away
    async with Desk.open(path, clock=clock) as desk:
        await requester.move_to(desk, requester.held_request())
        await worker.move_to(desk, held)
        await worker.serve()
        await desk.later(TIMES.restart_grace - 1)
        await requester.hears_nothing_of(Requeued)
        receipt = await worker.deliver(lease)
        await requester.acknowledge(receipt)
        await requester.hear(Settlement)
    check_books(path)


async def test_after_the_grace_a_deadline_that_has_passed_ends_the_attempt(path):
    clock = FakeClock()
    async with Desk.open(path, clock=clock) as desk:
        worker, requester, lease = await leased(desk)
        held = worker.held_lease(lease)
    clock.now += HOUR
    async with Desk.open(path, clock=clock) as desk:
        await requester.move_to(desk, requester.held_request())
        await worker.move_to(desk, held)
        await worker.serve()
        await desk.later(TIMES.restart_grace)
        assert (await requester.hear(Requeued)).reason == "deadline"


async def test_a_worker_that_does_not_return_after_a_restart_loses_its_lease(path):
    clock = FakeClock()
    async with Desk.open(path, clock=clock) as desk:
        _, requester, _ = await leased(desk)
    async with Desk.open(path, clock=clock) as desk:
        await requester.move_to(desk, requester.held_request())
        other = await desk.worker(1)
        await desk.later(TIMES.restart_grace + TIMES.worker_grace - 1)
        await other.hears_nothing_of(Lease)
        await desk.later(1)
        assert (await requester.hear(Requeued)).reason == "gone"
        assert (await other.hear(Lease)).attempt == 2
    check_books(path)


async def test_a_restarted_tracker_lets_jobs_wait_until_their_requester_returns(path):
    clock = FakeClock()
    async with Desk.open(path, clock=clock) as desk:
        requester = await desk.requester()
        await requester.ask()
    async with Desk.open(path, clock=clock) as desk:
        worker = await desk.worker()
        await worker.hears_nothing_of(Lease)
        await desk.later(TIMES.waiting - 1)
        assert states(desk) == ["waiting"]
        await requester.move_to(desk, requester.held_request())
        await worker.hear(Lease)


async def test_silence_and_cancel_go_on_after_a_restart(path):
    clock = FakeClock()
    async with Desk.open(path, clock=clock) as desk:
        worker, requester, lease, _ = await delivered(desk)
        await requester.ask()
        second = await worker.hear(Lease)
        held = worker.held_lease(second)
        await requester.cancel()
    async with Desk.open(path, clock=clock) as desk:
        await worker.move_to(desk, held, worker.held_receipt(lease))
        assert (await worker.hear(Withdrawn)).reason == "cancelled"
        await desk.later(TIMES.restart_grace + TIMES.cancel)
        assert states(desk) == ["delivered", "cancelled"]
        await desk.later(TIMES.silence)
        assert states(desk) == ["settled", "cancelled"]
    check_books(path)


async def test_limits_count_what_was_under_way_before_a_restart(path):
    clock = FakeClock()
    async with Desk.open(path, Rules(limits=LimitsSection(open_jobs=2)), clock=clock) as desk:
        await (await desk.requester(account=True)).ask(a_public_part(n=2))
        await (await desk.requester(101)).ask()
        before = dict(desk.coordinator._jobs.open_jobs)
    async with Desk.open(path, clock=clock) as desk:
        assert desk.coordinator._jobs.open_jobs == before, "jobs under way keep the hash that they came with"
        requester = await desk.requester()
        asked = requester.prepare()
        await requester.say(Private(private=asked.private))
        await requester.send(asked.envelope)
        assert await requester.refused() == "over_limit"


async def test_a_tracker_that_stops_says_so_and_leaves_nothing_behind(path):
    async with Desk.open(path) as desk:
        worker, requester, _ = await leased(desk)
        asked = requester.prepare()
        await requester.say(Private(private=asked.private))
        await requester.send(asked.envelope)
    for peer in (worker, requester):
        refused = await peer.hear(Refused)
        assert (refused.code, refused.final) == ("stopping", True)
        assert peer.line.closed is not None
    assert states(desk) == ["leased", "waiting"], "what had come in was carried out"
    assert asyncio.all_tasks() == {asyncio.current_task()}
    check_books(path)
