"""The coordinator over the real store, with scripted peers: from a request to its end, and what may not be asked."""

import logging
from typing import Any

import pytest

from protocol import codec, prices
from protocol.catalogue import Catalogue, Model
from protocol.documents import Lease, PeerRecord, RulesDocument, Settlement, sign
from protocol.filter.verdict import Verdict
from protocol.messages import (
    Account,
    AskAccount,
    AskQuote,
    AskWhy,
    Ended,
    Hello,
    Position,
    Private,
    Queued,
    Refused,
    Register,
    Taken,
    Why,
    Withdrawn,
)
from protocol.rules import (
    AccountsSection,
    CatalogueSection,
    LimitsSection,
    MatchingSection,
    MintSection,
    ModelSection,
    PricesSection,
    Rules,
    TimesSection,
)
from protocol.work import texts_of
from tests.support.builders import (
    HOUR,
    IMAGE_MODEL,
    NOW,
    ROOT,
    a_digest,
    a_handle,
    a_key,
    a_public_part,
    a_text_private,
    a_text_work,
    an_acknowledgement,
    an_image_private,
    an_image_work,
    but,
)
from tests.support.peers import A_TEXT_OFFER, AN_OFFER, Desk, FakeClock, Peer, delivered, leased, states
from tracker import positions
from tracker.content_filter import ContentFilter

PRICE = prices.price(Rules(), a_public_part().work, IMAGE_MODEL)
TAX = prices.tax(Rules())
TIMES = TimesSection()
SECRET = "a purple giraffe that nobody else would ask for"


async def refused_ask(requester, code, public=None):
    asked = requester.prepare(public)
    await requester.say(Private(private=asked.private))
    await requester.send(asked.envelope)
    assert await requester.refused() == code


# The whole way


async def test_from_a_request_to_its_settlement(desk):
    worker, requester = await desk.worker(), await desk.requester()
    queued = await requester.ask()
    [job] = queued.jobs
    asked = requester.asked[0]
    assert (queued.request, queued.held) == (asked.envelope.digest, 0)
    assert (await requester.hear(PeerRecord)).version == worker.records
    lease = await requester.hear(Lease)
    assert await worker.hear(Lease) == lease
    assert (lease.job, lease.attempt, lease.worker) == (job, 1, worker.key.public)
    assert (lease.private_digest, lease.job_key) == (asked.request.private_digest, asked.key.public)
    assert states(desk) == ["leased"]
    receipt = await worker.deliver(lease)
    assert states(desk) == ["delivered"]
    await requester.acknowledge(receipt)
    settlement = await requester.hear(Settlement)
    assert await worker.hear(Settlement) == settlement
    assert (settlement.job, settlement.attempt, settlement.paid, settlement.minted) == (job, 1, 0, PRICE)
    assert states(desk) == ["settled"]
    assert await worker.balance() == PRICE


async def test_where_a_worker_is_comes_before_its_lease(desk):
    await desk.worker()
    requester = await desk.requester()
    await requester.ask()
    kinds = [type(body) for body in requester.heard if isinstance(body, PeerRecord | Lease)]
    assert kinds == [PeerRecord, Lease]


async def test_who_has_earned_pays_price_and_tax_exactly(desk):
    requester = await desk.rich()
    had = await requester.balance()
    worker = await desk.worker()
    queued = await requester.ask()
    assert queued.held == PRICE + TAX
    lease = await worker.hear(Lease)
    assert (lease.price, lease.paid, lease.free) == (PRICE, PRICE, 0)
    assert not lease.asker.anonymous
    await requester.acknowledge(await worker.deliver(lease))
    settlement = await requester.hear(Settlement)
    assert (settlement.paid, settlement.minted, settlement.burned) == (PRICE, 0, TAX)
    assert await requester.balance() == had - PRICE - TAX
    assert await worker.balance() == PRICE
    await requester.say(AskAccount())
    account = await requester.hear(Account, number=requester.account)
    assert (account.balance, account.held, account.spent) == (had - PRICE - TAX, 0, PRICE + TAX)


async def test_jobs_between_keys_of_one_account_move_nothing_and_count_for_nothing(desk):
    peer = await desk.worker()
    await peer.ask()
    lease = await peer.hear(Lease, worker=peer.key.public)
    assert (lease.price, lease.paid, lease.free) == (0, 0, 0)
    await peer.acknowledge(await peer.deliver(lease))
    assert (await peer.hear(Settlement)).paid == 0
    state = await desk.store.account(peer.account, NOW)
    assert (state.balance, state.earned, state.jobs_done, state.jobs_received, state.taken_free) == (0, 0, 0, 0, 0)
    assert desk.coordinator._jobs.pool._settled[peer.account] == 0, "nor do they bring more work"


async def test_a_request_for_several_results_is_shared_among_workers(desk):
    workers = [await desk.worker(number) for number in range(3)]
    requester = await desk.requester()
    queued = await requester.ask(a_public_part(n=4))
    leases = [await worker.hear(Lease) for worker in workers]
    assert [queued.jobs[lease.index] for lease in leases] == [lease.job for lease in leases]
    assert len({lease.index for lease in leases}) == 3
    for worker, lease in zip(workers, leases, strict=True):
        await requester.acknowledge(await worker.deliver(lease))
    [(worker, last)] = [(worker, found) for worker in workers for found in worker.inbox if isinstance(found, Lease)]
    await requester.acknowledge(await worker.deliver(last))
    assert states(desk) == ["settled"] * 4
    assert {(await requester.hear(Settlement)).job for _ in range(4)} == set(queued.jobs)


async def test_a_text_is_leased_to_who_serves_texts(desk):
    pictures, texts = await desk.worker(0), await desk.worker(1, A_TEXT_OFFER)
    requester = await desk.requester()
    await requester.ask(a_public_part(a_text_work()))
    assert (await texts.hear(Lease)).public.work == a_text_work()
    await pictures.hears_nothing_of(Lease)


async def test_a_request_that_waits_is_leased_when_a_worker_comes(desk):
    requester = await desk.requester()
    await requester.ask()
    assert (await requester.hear(Position)).workers == 0
    worker = await desk.worker()
    assert await worker.hear(Lease) == await requester.hear(Lease)


async def test_a_slot_is_free_again_when_the_result_is_delivered(desk):
    worker, requester = await desk.worker(), await desk.requester()
    await requester.ask(a_public_part(n=2))
    first = await worker.hear(Lease)
    await worker.hears_nothing_of(Lease)
    await worker.deliver(first)
    assert (await worker.hear(Lease)).job != first.job


async def test_a_worker_with_slots_and_leases_ahead_is_kept_full(desk):
    worker, requester = await desk.worker(0, slots=2, ahead=1), await desk.requester()
    await requester.ask(a_public_part(n=4))
    leases = [await worker.hear(Lease) for _ in range(3)]
    await worker.hears_nothing_of(Lease)
    await worker.deliver(leases[0])
    await worker.hear(Lease)


async def test_positions_are_told_as_they_change(desk):
    worker, requester = await desk.worker(), await desk.requester()
    await requester.ask(a_public_part(n=4))
    await desk.later(3)
    told = {body.job: body for body in requester.heard if isinstance(body, Position)}
    assert sorted(position.ahead for position in told.values()) == [0, 1, 2]
    assert all(position.workers == 1 for position in told.values())
    requester.forget()
    await requester.acknowledge(await worker.deliver(await worker.hear(Lease)))
    await worker.report(await worker.hear(Lease), "opened")
    await desk.later(3)
    assert {body.ahead for body in requester.inbox if isinstance(body, Position)} == {0, 1}
    requester.forget()
    await desk.later(3)
    await requester.hears_nothing_of(Position)


async def test_who_waits_is_told_when_workers_come_go_or_do_not_serve_him_any_more(desk, monkeypatch):
    monkeypatch.setattr(positions, "LOOKED", 1)
    worker, requester = await desk.worker(), await desk.requester()
    await requester.ask(a_public_part(n=2))
    await worker.report(await worker.hear(Lease), "opened")
    await requester.ask(a_public_part(an_image_work(256, 256)))
    await desk.later(3)
    await desk.later(3)

    async def told() -> set[tuple[int, int]]:
        requester.forget()
        for _ in range(6):  # two rounds over two buckets, one at a time, and the end of each
            await desk.later(3)
        return {(body.ahead, body.workers) for body in requester.inbox if isinstance(body, Position)}

    assert await told() == set()
    await worker.announce(paused=True)
    assert await told() == {(0, 0)}
    await worker.announce()
    assert await told() == {(0, 1)}
    other = await desk.worker(1, A_TEXT_OFFER)
    assert await told() == set(), "that is no matter to pictures"
    other.hang_up()
    await desk.quiet()
    assert await told() == set()


async def test_a_job_that_names_no_model_goes_to_any_of_its_kind_that_it_can_bear(path):
    async with Desk.open(path, Rules(models={"dear": ModelSection(price=4_000)})) as desk:
        dear, cheap = await desk.worker(0, but(AN_OFFER, model="dear")), await desk.worker(1)
        requester = await desk.requester()
        await requester.ask(but(a_public_part(models=()), max_price=PRICE))
        assert (await cheap.hear(Lease)).model == IMAGE_MODEL
        await requester.ask(but(a_public_part(models=()), max_price=PRICE))
        await dear.hears_nothing_of(Lease)
        await requester.ask(a_public_part(models=()))
        assert (await dear.hear(Lease)).model == "dear"


# Admission


async def test_the_private_part_comes_before_its_request(desk):
    requester = await desk.requester()
    asked = requester.prepare()
    await requester.send(asked.envelope)
    assert await requester.refused() == "private_part_missing"
    await requester.send_in(asked)


@pytest.mark.parametrize(
    ("public", "private"),
    [
        (a_public_part(), a_text_private()),
        (a_public_part(a_text_work()), an_image_private()),
        (a_public_part(an_image_work(guidance_passes=1)), an_image_private()),
        (a_public_part(), but(an_image_private(), guidance=1_000)),
    ],
    ids=["a text for a picture", "a picture for a text", "guided with one pass", "unguided with two"],
)
async def test_a_private_part_must_fit_its_public_part(desk, public, private):
    requester = await desk.requester()
    asked = requester.prepare(public, private)
    await requester.say(Private(private=asked.private))
    await requester.send(asked.envelope)
    assert await requester.refused() == "private_part_mismatch"
    assert states(desk) == []


MAY_NOT_BE_ASKED: dict[str, tuple[dict[str, Any], str]] = {
    "share": ({"public": but(a_public_part(), share=True)}, "not_offered"),
    "flag": ({"public": but(a_public_part(), flags=("adult", "priority"))}, "not_offered"),
    "extra": ({"public": a_public_part(but(an_image_work(), extras=("upscale",)))}, "not_offered"),
    "n": ({"public": a_public_part(n=5)}, "over_limit"),
    "pixels": ({"public": a_public_part(an_image_work(2048, 1024))}, "over_limit"),
    "steps": ({"public": a_public_part(an_image_work(steps=51))}, "over_limit"),
    "max_price": ({"public": but(a_public_part(), max_price=PRICE - 1)}, "over_max_price"),
    "late": ({"valid_until": NOW - 1}, "late"),
    "too far ahead": ({"valid_until": NOW + 2 * HOUR}, "too_far_ahead"),
    "job key": ({"job_key": bytes(32)}, "bad_key"),
}


@pytest.mark.parametrize("what", MAY_NOT_BE_ASKED)
async def test_what_may_not_be_asked_for_is_refused_and_leaves_nothing_behind(desk, what):
    fields, code = MAY_NOT_BE_ASKED[what]
    worker, requester = await desk.worker(), await desk.requester()
    asked = requester.prepare()
    asked.envelope = sign(but(asked.request, **fields), requester.key, ROOT.public)
    await requester.say(Private(private=asked.private))
    await requester.send(asked.envelope)
    refused = await requester.hear(Refused)
    assert (refused.code, refused.about, refused.final) == (code, asked.envelope.digest, False)
    assert states(desk) == []
    await worker.hears_nothing_of(Lease)
    await requester.ask()
    await worker.hear(Lease)


@pytest.mark.parametrize("rules", [Rules(limits=LimitsSection(anonymous_open_jobs=2, open_jobs=3, anonymous_max_n=9))])
async def test_so_many_jobs_at_once_and_again_when_they_have_ended(desk):
    requester, other = await desk.requester(), await desk.requester(101)
    await requester.ask(a_public_part(n=2))
    await refused_ask(other, "over_limit")  # the same block of addresses
    await requester.cancel()
    await other.ask()
    registered = await desk.requester(102, account=True)
    await registered.ask(a_public_part(n=3))
    await refused_ask(registered, "over_limit")
    elsewhere = await desk.peer(103, block="198.51.100.0/24")
    await elsewhere.ask(a_public_part(n=2))


@pytest.mark.parametrize("rules", [Rules(limits=LimitsSection(anonymous_open_jobs=1))])
async def test_a_refused_request_does_not_count_as_under_way(desk):
    requester = await desk.requester()
    asked = requester.prepare()
    await requester.send_in(asked)
    await requester.cancel()
    again = requester.prepare(nonce=asked.request.nonce)
    for _ in range(3):
        await requester.say(Private(private=again.private))
        await requester.send(again.envelope)
        assert await requester.refused() == "equivocation"
    await requester.ask()
    assert desk.coordinator._jobs.open_jobs == {requester.origin: 1}


async def test_the_content_filter_sees_every_text_once_and_can_refuse(path):
    seen = []

    class Forbids(ContentFilter):
        def look(self, private, rules):
            seen.append(texts_of(private))
            return Verdict("other" if "forbidden" in private.prompt else "")

    async with Desk.open(path, content_filter=Forbids()) as desk:
        requester = await desk.requester()
        asked = requester.prepare(private=an_image_private("something forbidden"))
        await requester.say(Private(private=asked.private))
        await requester.send(asked.envelope)
        refused = await requester.hear(Refused)
        assert (refused.code, refused.about) == ("content_refused", asked.envelope.digest)
        assert refused.text.startswith("other: the prompt filter found what this horde's operator has listed")
        await requester.ask(private=an_image_private("a red circle"))
        assert seen == [("something forbidden", ""), ("a red circle", "")]
        assert states(desk) == ["waiting"]


async def test_a_request_by_another_key_than_the_sessions_is_refused(desk):
    requester, other = await desk.requester(), await desk.requester(101)
    asked = other.prepare()
    await requester.say(Private(private=asked.private))
    await requester.send(asked.envelope)
    assert await requester.refused() == "wrong_signer"


async def test_garbage_for_a_private_part_is_refused(desk):
    requester = await desk.requester()
    await requester.say(Private(private=b"\xc1"))
    assert await requester.refused() == "malformed"
    await requester.say(Private(private=codec.encode(Hello(session=a_handle(), software=""))))
    assert await requester.refused() == "bad_body"


# Again


async def test_a_request_that_is_sent_again_is_answered_as_the_first_time_without_its_private_part(desk):
    worker, requester = await desk.worker(), await desk.requester()
    first = await requester.ask()
    lease = await requester.hear(Lease)
    await requester.send(requester.asked[0].envelope)
    assert await requester.hear(Queued) == first
    assert await requester.hear(Lease) == lease
    assert states(desk) == ["leased"]
    assert len([body for body in worker.heard if isinstance(body, Lease)]) == 1


async def test_a_request_that_is_sent_again_with_its_private_part_is_no_second_one(desk):
    requester = await desk.requester()
    asked = requester.prepare()
    first = await requester.send_in(asked)
    assert await requester.send_in(asked) == first
    assert states(desk) == ["waiting"]


@pytest.mark.parametrize("rules", [Rules(limits=LimitsSection(anonymous_open_jobs=2))])
@pytest.mark.parametrize("why", ["late", "limits", "rules"])
async def test_a_request_that_was_taken_in_is_answered_even_if_it_would_not_be_taken_in_now(desk, why):
    requester = await desk.requester()
    asked = requester.prepare(but(a_public_part(), max_price=PRICE))
    first = await requester.send_in(asked)
    if why == "late":
        desk.clock.now += HOUR
    elif why == "limits":
        await requester.ask()
    else:
        await desk.coordinator.publish(Rules(prices=PricesSection(image_base=50_000)))
    assert await requester.send_in(asked) == first
    await requester.hears_nothing_of(Refused)


async def test_the_same_acknowledgement_again_is_answered_with_the_same_settlement(desk):
    worker, requester, _, receipt = await delivered(desk)
    said = await requester.acknowledge(receipt)
    first = requester.envelope_of(await requester.hear(Settlement)).raw
    await requester.send(said)
    assert requester.envelope_of(await requester.hear(Settlement)).raw == first
    await requester.acknowledge(receipt, said=an_acknowledgement(receipt, a_digest("something else")))
    assert await requester.refused() == "equivocation"
    assert await worker.balance() == PRICE


async def test_the_same_receipt_again_is_taken_again(desk):
    worker, requester, _, receipt = await delivered(desk)
    await worker.send(receipt)
    await worker.hear(Taken, documents=(receipt.digest,))
    await requester.acknowledge(receipt)
    settlement = await worker.hear(Settlement)
    await worker.send(receipt)
    await worker.hear(Taken, documents=(receipt.digest,))
    assert await worker.hear(Settlement) == settlement


async def test_the_same_denial_and_the_same_cancel_again_are_answered(desk):
    _, requester, lease = await leased(desk)
    denial = await requester.deny(lease)
    assert (await requester.hear(Ended)).state == "refunded"
    await requester.send(denial)
    assert (await requester.hear(Ended)).state == "refunded"
    await requester.ask(a_public_part(a_text_work()))
    cancel = await requester.cancel()
    assert (await requester.hear(Ended)).state == "cancelled"
    await requester.send(cancel)
    assert (await requester.hear(Ended)).state == "cancelled"


# How jobs end


async def test_a_denial_refunds_and_pays_nobody(desk):
    requester = await desk.rich()
    had = await requester.balance()
    worker = await desk.worker()
    await requester.ask()
    lease = await worker.hear(Lease)
    receipt = await worker.deliver(lease)
    await requester.deny(lease, receipt)
    ended = await requester.hear(Ended)
    assert (ended.state, ended.reason, ended.released) == ("refunded", "digest_mismatch", PRICE + TAX)
    assert (await worker.hear(Withdrawn)).reason == "refunded"
    assert (await requester.balance(), await worker.balance()) == (had, 0)
    await requester.acknowledge(receipt)
    assert await requester.refused() == "too_late"


async def test_silence_settles_after_a_day(desk):
    worker, requester, _, receipt = await delivered(desk)
    await desk.later(TIMES.silence - 1)
    await worker.hears_nothing_of(Settlement)
    await desk.later(1)
    settlement = await worker.hear(Settlement)
    assert (settlement.minted, await worker.balance()) == (PRICE, PRICE)
    assert await requester.hear(Settlement) == settlement
    await requester.acknowledge(receipt)
    assert await requester.hear(Settlement) == settlement, "and who speaks later hears how it ended"
    assert desk.coordinator.scrape()["since_start"]["silences"] == 1


async def test_a_waiting_job_is_cancelled_at_once(desk):
    requester = await desk.rich()
    had = await requester.balance()
    [job] = (await requester.ask()).jobs
    await requester.cancel(job)
    ended = await requester.hear(Ended)
    assert (ended.job, ended.state, ended.attempt, ended.released) == (job, "cancelled", 0, PRICE + TAX)
    assert await requester.balance() == had
    worker = await desk.worker()
    await worker.hears_nothing_of(Lease)


async def test_a_cancelled_lease_is_paid_for_what_was_made(desk):
    requester = await desk.rich()
    had = await requester.balance()
    worker = await desk.worker()
    await requester.ask()
    lease = await worker.hear(Lease)
    await worker.report(lease, "opened")
    await requester.cancel()
    assert (await worker.hear(Withdrawn)).reason == "cancelled"
    await worker.send(worker.receipt(lease, used=10, partial=True))
    await worker.hear(Taken)
    settlement = await requester.hear(Settlement)
    assert await worker.hear(Settlement) == settlement
    assert (settlement.paid, settlement.burned, settlement.partial) == (PRICE * 10 // 30, TAX, True)
    assert await requester.balance() == had - PRICE * 10 // 30 - TAX


async def test_a_cancelled_lease_without_a_receipt_ends_unpaid(desk):
    worker, requester, lease = await leased(desk)
    await requester.cancel()
    await worker.hear(Withdrawn)
    await desk.later(TIMES.cancel - 1)
    await requester.hears_nothing_of(Ended)
    await desk.later(1)
    assert (await requester.hear(Ended)).state == "cancelled"
    assert (await worker.hear(Withdrawn)).reason == "ended"
    await worker.send(worker.receipt(lease, used=10, partial=True))
    assert await worker.refused() == "too_late"
    await requester.ask()
    await worker.hear(Lease)


async def test_a_cancel_of_a_request_ends_what_waits_and_leaves_what_is_delivered(desk):
    worker, requester = await desk.worker(), await desk.requester()
    await requester.ask(a_public_part(n=3))
    receipt = await worker.deliver(await worker.hear(Lease))
    await requester.cancel()
    assert sorted(states(desk)) == ["cancelled", "delivered", "leased"]
    assert (await requester.hear(Ended)).state == "cancelled"
    await requester.acknowledge(receipt)
    await requester.hear(Settlement)


async def test_a_partial_receipt_that_nobody_asked_for_is_refused(desk):
    worker, _, lease = await leased(desk)
    await worker.send(worker.receipt(lease, used=10, partial=True))
    assert await worker.refused() == "over_lease"


async def test_a_job_that_waited_too_long_expires(desk):
    requester = await desk.rich()
    had = await requester.balance()
    await requester.ask()
    await desk.later(TIMES.waiting - 1)
    await requester.hears_nothing_of(Ended)
    await desk.later(1)
    ended = await requester.hear(Ended)
    assert (ended.state, ended.released) == ("expired", PRICE + TAX)
    assert await requester.balance() == had


async def test_time_to_live_does_not_run_while_a_job_is_leased(desk):
    requester = await desk.requester()
    await requester.ask()
    await desk.later(TIMES.waiting - 10)
    worker = await desk.worker()
    lease = await worker.hear(Lease)
    await worker.report(lease, "opened")
    await desk.later(300)
    await worker.report(lease, "failed", "engine")
    await desk.later(9)
    await requester.hears_nothing_of(Ended)
    await desk.later(1)
    assert (await requester.hear(Ended)).state == "expired"


# Accounts


async def test_whoever_asks_for_an_account_gets_one_and_is_known_by_it(desk):
    peer = await desk.peer(0)
    await peer.say(AskAccount())
    assert (await peer.hear(Account)).number == 0
    number = await peer.register()
    assert number >= 100
    assert await peer.register() == number
    peer.hang_up()
    peer.forget()
    assert (await peer.connect()).account == number
    await peer.say(AskAccount())
    assert "free for everyone" in (await peer.hear(Account)).notice


@pytest.mark.parametrize("rules", [Rules(accounts=AccountsSection(registration="closed"))])
async def test_where_registration_is_closed_nobody_new_gets_an_account_and_all_are_served(desk):
    peer = await desk.peer(0)
    await peer.say(Register())
    assert await peer.refused() == "not_registered"
    await peer.ask()
    number = await desk.store.register(a_key(2_001).public, NOW)
    known = await desk.peer(1)
    assert await known.register() == number


@pytest.mark.parametrize("rules", [Rules(accounts=AccountsSection(anonymous=False))])
async def test_a_horde_for_members_refuses_who_asks_as_nobody_and_serves_who_registers(desk):
    worker = await desk.worker()
    peer = await desk.requester()
    await refused_ask(peer, "not_registered")
    await peer.say(AskQuote(public=a_public_part()))
    assert await peer.refused() == "not_registered"
    await peer.say(AskAccount())
    assert (await peer.hear(Account)).notice.startswith("This horde serves its members")
    await peer.register()
    await peer.ask()
    assert await worker.hear(Lease)


async def test_who_had_asked_as_nobody_is_still_served_when_a_horde_closes_its_door(desk):
    requester = await desk.requester()
    await requester.ask()
    await desk.coordinator.publish(Rules(accounts=AccountsSection(anonymous=False)))
    await refused_ask(requester, "not_registered", a_public_part(n=2))
    worker = await desk.worker()
    assert await worker.hear(Lease)


# Rules that change


async def test_new_rules_reach_everybody_who_is_here_and_hold_from_then_on(desk):
    requester = await desk.requester()
    first = await requester.hear(RulesDocument)
    rules = await desk.coordinator.publish(Rules(limits=LimitsSection(anonymous_max_n=2)))
    assert (await requester.hear(RulesDocument)).version == first.version + 1
    await refused_ask(requester, "over_limit", a_public_part(n=3))
    other = await desk.requester(101)
    assert (await other.hear(RulesDocument)).version == rules.version


async def test_who_has_the_rules_in_force_is_not_sent_them(desk):
    peer = Peer(desk, a_key(2_000))
    await peer.greet(rules=desk.coordinator.rules.digest)
    await peer.hears_nothing_of(RulesDocument)


UPSCALE = Rules(prices=PricesSection(image_extras={"upscale": 10}))
DEARER = Rules(prices=PricesSection(image_base=9_000))


async def ask_what_will_not_be_priced(desk):
    requester = await desk.requester()
    await requester.ask(a_public_part(but(an_image_work(), extras=("upscale",))))
    await requester.ask(but(a_public_part(), max_price=PRICE))
    await desk.coordinator.publish(DEARER)
    return requester


async def check_that_it_stands_in_nobodys_way(desk, requester):
    worker = await desk.worker()
    await worker.hears_nothing_of(Lease)
    await worker.say(AskWhy())
    assert {reason for reason, _ in (await worker.hear(Why)).reasons} <= {"not_offered", "over_max_price"}
    await requester.ask()
    await worker.report(await worker.hear(Lease), "failed", "engine")
    await desk.later(TIMES.waiting + TIMES.restart_grace + 1)
    assert states(desk)[:2] == ["expired"] * 2


@pytest.mark.parametrize("rules", [UPSCALE])
async def test_a_job_that_new_rules_do_not_price_stands_in_nobodys_way(desk):
    await check_that_it_stands_in_nobodys_way(desk, await ask_what_will_not_be_priced(desk))


async def test_nor_does_it_after_a_restart(path):
    clock = FakeClock()
    async with Desk.open(path, UPSCALE, clock=clock) as desk:
        requester = await ask_what_will_not_be_priced(desk)
    async with Desk.open(path, clock=clock) as desk:
        await requester.move_to(desk, *map(requester.held_request, requester.asked))
        await check_that_it_stands_in_nobodys_way(desk, requester)


# Questions


async def test_a_worker_and_a_requester_can_ask_why_nothing_comes(desk):
    worker, requester = await desk.worker(0, anonymous=False), await desk.requester()
    [job] = (await requester.ask()).jobs
    await requester.say(AskWhy(job=job))
    assert await requester.hear(Why) == Why(job=job, reasons=(("no_anonymous", 1),))
    await worker.say(AskWhy())
    assert await worker.hear(Why) == Why(reasons=(("no_anonymous", 1),))
    await worker.say(AskWhy(job=job))
    assert await worker.refused() == "unknown_job"
    await requester.say(AskWhy())
    assert await requester.refused() == "out_of_turn"


async def test_scrape_counts_and_names_nobody(desk):
    _, requester, _ = await leased(desk)
    await requester.ask()
    found = desk.coordinator.scrape()
    assert (found["peers"], found["workers"], found["waiting"], found["leased"], found["delivered"]) == (2, 1, 1, 1, 0)
    [swarm] = found["swarms"]
    assert (swarm["kind"], swarm["model"], swarm["workers"], swarm["waiting"]) == ("image", IMAGE_MODEL, 1, 1)
    assert found["mint"] == {"daily": MintSection().daily, "used_today": PRICE}


# Privacy


async def test_no_prompt_rests_at_the_tracker(path, caplog):
    caplog.set_level(logging.DEBUG)
    async with Desk.open(path) as desk:
        worker, requester = await desk.worker(), await desk.requester()
        private = an_image_private(SECRET)
        for ends in ("settled", "refunded", "cancelled", "failed", "expired"):
            await requester.send_in(requester.prepare(private=private))
            lease = await worker.hear(Lease)
            if ends == "settled":
                await requester.acknowledge(await worker.deliver(lease))
            elif ends == "refunded":
                await requester.deny(lease)
            elif ends == "cancelled":
                await requester.cancel()
                await worker.report(lease, "failed", "cancelled")
            elif ends == "failed":
                await desk.coordinator.publish(Rules(matching=MatchingSection(failed_attempts=1)))
                await worker.report(lease, "failed", "engine")
            else:
                await worker.report(lease, "declined", "busy")
                await desk.later(TIMES.waiting)
            assert states(desk)[-1] == ends
        refused = requester.prepare(a_public_part(a_text_work()), private)
        await requester.say(Private(private=refused.private))
        await requester.send(refused.envelope)
        assert await requester.refused() == "private_part_mismatch"
        written = b"".join(file.read_bytes() for file in path.parent.iterdir())
        assert requester.asked[0].request.private_digest in written, "the digest is there"
        assert SECRET.encode() not in written
    assert caplog.text
    assert SECRET not in caplog.text


async def test_a_request_right_behind_its_register_is_its_accounts(desk: Desk) -> None:
    requester = await desk.requester()
    await requester.say(Register())
    queued = await requester.ask()

    account = await requester.hear(Account)
    assert account.number >= 100
    jobs = [standing.job for standing in await desk.store.live()]
    assert [(job.handle, job.payer) for job in jobs] == [(queued.jobs[0], account.number)]


async def test_a_request_that_has_ended_leaves_nothing_in_memory(desk: Desk) -> None:
    presence = desk.coordinator._presence
    lease = await leased(desk)
    assert presence._requesters
    await lease.requester.acknowledge(await lease.worker.deliver(lease.lease))
    await lease.requester.hear(Settlement)

    assert presence._requesters == {}
    assert desk.coordinator._jobs._live == {}
    assert all(not conversation.requests for conversation in desk.coordinator._conversations)


async def test_a_receipt_with_a_broken_signature_is_found_though_its_worker_delivered_the_true_one(desk: Desk) -> None:
    lease = await leased(desk)
    receipt = await lease.worker.deliver(lease.lease)
    broken = bytes([receipt.raw[-1] ^ 1])
    forged = but(an_acknowledgement(receipt), job=lease.lease.job, receipt=receipt.raw[:-1] + broken)

    await lease.requester.present(forged, lease.requester.asked[-1].key)
    assert await lease.requester.refused() == "bad_signature"
    await lease.requester.acknowledge(receipt)
    await lease.requester.hear(Settlement)


async def test_a_worker_hears_which_of_its_models_may_not_be_served_and_serves_the_others(desk):
    desk.coordinator.listing.use(Catalogue({AN_OFFER.model: Model(kind="image", licence="LicenseRef-closed")}))
    worker = await desk.worker(0, AN_OFFER, A_TEXT_OFFER)
    await desk.coordinator.publish(Rules(catalogue=CatalogueSection(listed_only=True)))
    refused = await worker.hear(Refused)
    assert refused.code == "not_offered"
    assert repr(A_TEXT_OFFER.model) in refused.text
    assert repr(AN_OFFER.model) not in refused.text
    assert [swarm["model"] for swarm in desk.coordinator.scrape()["swarms"] if swarm["workers"]] == [AN_OFFER.model]

    await desk.coordinator.publish(Rules(catalogue=CatalogueSection(open_only=True)))
    assert "LicenseRef-closed" in (await worker.hear(Refused)).text
    assert not [swarm for swarm in desk.coordinator.scrape()["swarms"] if swarm["workers"]]
    await desk.coordinator.publish(Rules())
    assert len([swarm for swarm in desk.coordinator.scrape()["swarms"] if swarm["workers"]]) == 2
