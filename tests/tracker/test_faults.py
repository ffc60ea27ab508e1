"""What the coordinator does when workers, requesters or strangers do not keep their word, or are slow."""

import pytest

from protocol import codec, prices
from protocol.documents import Lease, PeerRecord, Receipt, Settlement, sign
from protocol.messages import Ended, Refused, Register, Requeued, Taken, Unreachable, Withdrawn
from protocol.rules import MatchingSection, Rules, TimesSection
from tests.support.builders import (
    IMAGE_MODEL,
    a_digest,
    a_key,
    a_public_part,
    an_acknowledgement,
    but,
)
from tests.support.peers import A_TEXT_OFFER, AN_OFFER, Peer, delivered, leased, states

PRICE = prices.price(Rules(), a_public_part().work, IMAGE_MODEL)
TAX = prices.tax(Rules())
TIMES = TimesSection()


# Leases that come to nothing


async def test_a_lease_that_is_not_accepted_in_time_goes_to_another_worker(desk):
    silent, requester, lease = await leased(desk, stage="pushed")
    other = await desk.worker(1)
    await desk.later(TIMES.accept - 1)
    await other.hears_nothing_of(Lease)
    await desk.later(1)
    assert await requester.hear(Requeued) == Requeued(job=lease.job, attempt=1, reason="not_accepted")
    assert (await silent.hear(Withdrawn)).reason == "replaced"
    second = await other.hear(Lease)
    assert (second.job, second.attempt) == (lease.job, 2)
    assert await requester.hear(Lease) == second


async def test_a_declined_lease_goes_on_at_once_and_its_worker_stays_in_service(desk):
    worker, requester, lease = await leased(desk, stage="pushed")
    other = await desk.worker(1)
    await worker.report(lease, "declined", "private_limit")
    assert (await requester.hear(Requeued)).reason == "private_limit"
    assert (await other.hear(Lease)).attempt == 2
    await requester.ask()
    assert (await worker.hear(Lease)).attempt == 1


async def test_a_stream_that_is_not_opened_in_time_frees_its_worker(desk):
    worker, requester, _ = await leased(desk, stage="accepted")
    await desk.later(TIMES.open)
    assert (await worker.hear(Withdrawn)).reason == "not_opened"
    assert (await requester.hear(Requeued)).reason == "not_opened"
    assert (await worker.hear(Lease)).attempt == 2, "it is no fault of this worker"


async def test_who_does_not_open_goes_behind_those_who_rank_before(desk):
    worker, _, _ = await leased(desk, stage="accepted")
    better = await desk.requester(101, account=True)
    await better.ask()
    await desk.later(TIMES.open)
    assert not (await worker.hear(Lease)).asker.anonymous


@pytest.mark.parametrize("rules", [Rules(matching=MatchingSection(failed_attempts=2))])
async def test_streams_that_are_never_opened_fail_the_job_in_the_end(desk):
    worker, requester, _ = await leased(desk, stage="accepted")
    await desk.later(TIMES.open)
    await worker.report(await worker.hear(Lease), "accepted")
    await desk.later(TIMES.open)
    assert (await requester.hear(Ended)).state == "failed"


async def test_an_opened_stream_is_not_missed(desk):
    _, requester, _ = await leased(desk)
    await desk.later(TIMES.accept)
    await desk.later(TIMES.open)
    await requester.hears_nothing_of(Requeued)


async def test_a_worker_that_cannot_be_reached_is_replaced(desk):
    worker, requester, lease = await leased(desk, stage="accepted")
    other = await desk.worker(1)
    await requester.say(Unreachable(job=lease.job, attempt=1, reason="timeout"))
    assert (await requester.hear(Requeued)).reason == "unreachable"
    assert (await worker.hear(Withdrawn)).reason == "unreachable"
    assert (await other.hear(Lease)).attempt == 2
    await requester.say(Unreachable(job=lease.job, attempt=1, reason="timeout"))
    await requester.hears_nothing_of(Requeued, Refused)


async def test_a_stranger_cannot_say_that_a_worker_is_unreachable(desk):
    _, requester, lease = await leased(desk)
    stranger = await desk.requester(102)
    await stranger.say(Unreachable(job=lease.job, attempt=1, reason="timeout"))
    assert await stranger.refused() == "unknown_job"
    await requester.hears_nothing_of(Requeued)


@pytest.mark.parametrize("reason", ["engine", "deadline", "gone", ""])
async def test_a_failed_attempt_is_followed_by_another_workers(desk, reason):
    worker, requester, lease = await leased(desk)
    other = await desk.worker(1)
    await worker.report(lease, "failed", reason)
    assert (await requester.hear(Requeued)).reason == (reason or "failed")
    await requester.acknowledge(await other.deliver(await other.hear(Lease)))
    assert (await requester.hear(Settlement)).attempt == 2


@pytest.mark.parametrize("rules", [Rules(matching=MatchingSection(failed_attempts=2))])
async def test_after_so_many_failures_the_job_fails_and_what_was_held_goes_back(desk):
    requester = await desk.rich()
    had = await requester.balance()
    workers = {worker.key.public: worker for worker in [await desk.worker(number) for number in range(2)]}
    await requester.ask()
    for _ in workers:
        lease = await requester.hear(Lease)
        await workers[lease.worker].report(lease, "failed", "engine")
    ended = await requester.hear(Ended)
    assert (ended.state, ended.reason, ended.attempt, ended.released) == ("failed", "engine", 2, PRICE + TAX)
    assert await requester.balance() == had


async def test_a_deadline_that_passes_ends_the_attempt(desk):
    worker, requester, _ = await leased(desk)
    other = await desk.worker(1)
    await desk.later(TIMES.image_lease - 1)
    await other.hears_nothing_of(Lease)
    await desk.later(1)
    assert (await worker.hear(Withdrawn)).reason == "deadline"
    assert (await requester.hear(Requeued)).reason == "deadline"
    assert (await other.hear(Lease)).attempt == 2


async def test_a_worker_that_failed_at_much_gets_what_it_did_not_fail_at(desk):
    worker, requester = await desk.worker(0, slots=20), await desk.requester()
    for _ in range(20):
        await requester.ask()
        await worker.report(await worker.hear(Lease), "failed", "engine")
    await worker.announce(slots=1)
    await requester.ask()
    await requester.ask()
    await worker.deliver(await worker.hear(Lease))
    await worker.hear(Lease)


# Attempts that overlap


async def test_a_late_receipt_of_an_old_attempt_is_fenced(desk):
    worker, _, lease = await leased(desk)
    held = worker.held_lease(lease)
    other = await desk.worker(1)
    worker.hang_up()
    await desk.later(TIMES.worker_grace)
    await other.hear(Lease)
    worker.forget()
    await worker.connect(held)
    assert (await worker.hear(Withdrawn)).reason == "replaced"
    receipt = worker.receipt(lease)
    await worker.send(receipt)
    refused = await worker.hear(Refused)
    assert (refused.code, refused.about) == ("fenced", receipt.digest)
    assert states(desk) == ["leased"]


async def test_what_the_requester_has_whole_from_an_old_attempt_settles_it(desk):
    worker, requester, lease = await leased(desk)
    other = await desk.worker(1)
    await requester.say(Unreachable(job=lease.job, attempt=1, reason="timeout"))
    second = await other.hear(Lease)
    await other.report(second, "accepted")
    await requester.acknowledge(worker.receipt(lease))
    settlement = await requester.hear(Settlement)
    assert settlement.attempt == 1
    assert await worker.hear(Settlement) == settlement
    assert (await other.hear(Withdrawn)).reason == "settled"
    await other.hears_nothing_of(Settlement)
    assert (await worker.balance(), await other.balance()) == (PRICE, 0)
    await requester.ask(a_public_part(n=2))
    await worker.hear(Lease)
    await other.hear(Lease)


async def test_a_receipt_of_the_last_attempt_is_taken_while_the_job_waits(desk):
    worker, requester, lease = await leased(desk)
    await requester.say(Unreachable(job=lease.job, attempt=1, reason="timeout"))
    await requester.hear(Requeued)
    receipt = worker.receipt(lease)
    await worker.send(receipt)
    await worker.hear(Taken)
    assert states(desk) == ["delivered"]
    other = await desk.worker(1)
    await other.hears_nothing_of(Lease)
    await requester.acknowledge(receipt)
    assert (await requester.hear(Settlement)).attempt == 1


# What is signed wrongly, or by the wrong one


async def test_a_receipt_over_its_lease_is_refused_and_changes_nothing(desk):
    worker, _, lease = await leased(desk)
    await worker.send(worker.receipt(lease, used=31))
    assert await worker.refused() == "over_lease"
    assert states(desk) == ["leased"]


async def test_a_receipt_that_somebody_else_brings_is_refused(desk):
    worker, _, lease = await leased(desk)
    stranger = await desk.peer(9)
    await stranger.send(worker.receipt(lease))
    assert await stranger.refused() == "wrong_signer"
    await stranger.send(sign(worker.receipts[lease.job, 1].open(Receipt), stranger.key, worker.key.public))
    assert await stranger.refused() == "wrong_horde"


async def test_a_forged_receipt_within_an_acknowledgement_is_found(desk):
    worker, requester, lease = await leased(desk)
    good = worker.receipt(lease)
    forged = codec.encode([1, "receipt", good.key, good.context, good.body, bytes(64)])
    foreign = sign(good.open(Receipt), worker.key, a_key(70).public).raw
    for receipt, code in ((forged, "bad_signature"), (foreign, "wrong_horde"), (b"\xc1", "malformed")):
        await requester.acknowledge(good, said=but(an_acknowledgement(good), receipt=receipt))
        assert await requester.refused() == code
    assert states(desk) == ["leased"]


@pytest.mark.parametrize("what", ["acknowledge", "deny", "cancel"])
async def test_nobody_else_answers_for_a_requester(desk, what):
    _, requester, lease, receipt = await delivered(desk)
    stranger = await desk.requester(102)
    stranger.asked = list(requester.asked)  # even with the job key
    if what == "acknowledge":
        await stranger.acknowledge(receipt)
    elif what == "deny":
        await stranger.deny(lease)
    else:
        await stranger.cancel()
    assert await stranger.refused() == ("unknown_job" if what == "cancel" else "wrong_signer")
    assert states(desk) == ["delivered"]


# Workers


async def test_a_worker_needs_an_account_and_a_peer_record(desk):
    peer = await desk.peer(0)
    await peer.announce()
    assert await peer.refused() == "not_registered"
    await peer.register()
    await peer.announce()
    assert await peer.refused() == "out_of_turn"
    await peer.show_record()
    await peer.announce()
    await peer.hears_nothing_of(Refused)


async def test_register_record_and_announce_may_come_in_one_breath(desk):
    peer = await desk.peer(0)
    await peer.say(Register())
    await peer.show_record()
    await peer.announce()
    await peer.hears_nothing_of(Refused)
    assert desk.coordinator.scrape()["workers"] == 1


async def test_a_peer_record_is_by_its_peer_and_never_of_a_lower_version(desk):
    worker = await desk.worker()
    record = await worker.show_record(5)
    await worker.show_record(4)
    assert await worker.refused() == "out_of_turn"
    await worker.present(record)
    await worker.show_record(6)
    await worker.hears_nothing_of(Refused)
    stranger = await desk.peer(1)
    await stranger.send(sign(record, worker.key, desk.coordinator.root))
    assert await stranger.refused() == "wrong_signer"


async def test_two_different_peer_records_of_one_version_are_equivocation(desk):
    worker = await desk.worker()
    record = await worker.show_record(7)
    await worker.present(but(record, certificate=a_digest("another")))
    assert await worker.refused() == "equivocation"


async def test_who_reads_a_workers_stream_hears_where_it_has_gone(desk):
    worker, requester, lease = await leased(desk)
    bystander = await desk.requester(102)
    requester.forget()
    record = await worker.show_record()
    await worker.announce()
    assert await requester.hear(PeerRecord) == record
    assert await requester.hear(Lease) == lease
    await worker.announce()
    await requester.hears_nothing_of(PeerRecord, Lease)
    await bystander.hears_nothing_of(PeerRecord)


async def test_the_newest_announce_counts_whole(desk):
    worker, requester = await desk.worker(), await desk.requester()
    await worker.announce(A_TEXT_OFFER)
    await requester.ask()
    await worker.hears_nothing_of(Lease)
    await worker.announce(AN_OFFER, A_TEXT_OFFER)
    await worker.hear(Lease)
    await worker.announce(AN_OFFER, slots=2)
    await requester.ask()
    await worker.hear(Lease)
    await requester.ask()
    await worker.hears_nothing_of(Lease)


async def test_no_lease_is_pushed_before_the_peers_last_holding(desk):
    requester = await desk.requester()
    await requester.ask()
    worker = Peer(desk, a_key(2_000))
    await worker.greet()
    await worker.say(Register())
    assert await worker.refused() == "out_of_turn"
    await worker.hears_nothing_of(Lease)
    await worker.hold()
    await worker.serve()
    await worker.hear(Lease)
