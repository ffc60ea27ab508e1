"""Workers decide, at the coordinator: labels, friends, own jobs, words that an owner does not serve."""

import pytest

from protocol.catalogue import Catalogue, Model
from protocol.documents import Lease
from protocol.filter.verdict import Verdict
from protocol.messages import Account as AccountMessage
from protocol.messages import AskAccount, AskQuote, AskWhy, Private, Refused, Requeued, Why
from protocol.rules import CatalogueSection, MatchingSection, Rules
from tests.support.builders import DAY, a_public_part, an_image_private, an_image_work, but
from tests.support.peers import A_TEXT_OFFER, Desk, Peer
from tests.tracker.test_moderating import RULES, Office
from tracker.content_filter import ContentFilter

SMALL = a_public_part(an_image_work(64, 64, steps=30))


class Labels(ContentFilter):
    """Marks prompts that say so."""

    def look(self, private, rules):
        return Verdict(labels=("adult",) if "adult" in private.prompt else ())


async def name_at(asker: Peer, worker: Peer) -> bytes:
    """By what this worker knows the asker."""
    await asker.say(AskAccount(worker=worker.key.public))
    return (await asker.hear(AccountMessage)).pseudonym


async def why(peer: Peer) -> dict[str, int]:
    """Why nothing comes to this worker."""
    await peer.say(AskWhy())
    return dict((await peer.hear(Why)).reasons)


async def test_a_label_of_the_filter_keeps_a_job_from_workers_that_decline_it_and_stands_in_the_lease(path):
    async with Desk.open(path, content_filter=Labels()) as desk:
        prude = await desk.worker(0, declines=("adult",))
        asker = await desk.requester()
        await asker.ask(private=an_image_private("something adult"))
        await desk.quiet()
        assert await why(prude) == {"flag": 1}
        free = await desk.worker(1)
        assert (await free.hear(Lease)).labels == ("adult",)
        await asker.ask(private=an_image_private("a red circle"))
        assert (await prude.hear(Lease)).labels == ()


async def test_what_is_done_for_a_friend_is_a_gift(path):
    async with Desk.open(path) as desk:
        worker, asker = await desk.worker(0), await desk.requester(account=True)
        await asker.ask(public=SMALL)
        lease = await worker.hear(Lease)
        assert lease.free > 0, "a control: the horde mints for strangers"
        assert lease.asker.pseudonym == await name_at(asker, worker)
        await worker.deliver(lease)
        await asker.acknowledge(worker.receipts[lease.job, lease.attempt])
        await desk.quiet()

        await worker.announce(friends=(await name_at(asker, worker),))
        await asker.ask(public=SMALL)
        gift = await worker.hear(Lease)
        assert (gift.free, gift.owners) == (0, 0)
        await worker.deliver(gift)
        await asker.acknowledge(worker.receipts[gift.job, gift.attempt])
        await desk.quiet()

        # Not before it has something to do, so that the job waits and is chosen from the queue.
        await worker.announce(paused=True, friends=(await name_at(asker, worker),))
        await asker.ask(public=SMALL)
        await worker.announce(friends=(await name_at(asker, worker),))
        waited = await worker.hear(Lease)
        assert (waited.free, waited.owners) == (0, 0)


async def test_own_jobs_are_leased_to_a_paused_worker_and_nothing_is_owed(path):
    async with Desk.open(path) as desk:
        other, worker = await desk.worker(1), await desk.worker(0, paused=True)
        await worker.ask(public=SMALL)
        lease = await worker.hear(Lease)
        assert lease.asker.own
        assert (lease.price, lease.paid, lease.free) == (0, 0, 0)
        assert lease.worker == worker.key.public, "though another one is idle"
        assert await why(other) == {}


@pytest.mark.parametrize(
    ("state", "reason", "rests"),
    [
        ("accepted", "unwanted_words", False),
        ("accepted", "content_refused", False),
        ("accepted", "busy", True),
        ("pushed", "unwanted_words", True),
        ("pushed", "content_refused", True),
    ],
)
async def test_an_owner_who_declines_for_words_that_it_has_seen_is_not_taken_for_one_who_picks(
    path, state, reason, rests
):
    async with Desk.open(path, rules=Rules(matching=MatchingSection(declines=1))) as desk:
        worker, asker = await desk.worker(0), await desk.requester()
        for _ in range(2):
            await asker.ask(public=SMALL)
            lease = await worker.hear(Lease)
            if state == "accepted":
                await worker.report(lease, "accepted")
            await worker.report(lease, "declined", reason)
            assert (await asker.hear(Requeued)).reason == reason
        await asker.ask(public=SMALL)
        if rests:
            await worker.hears_nothing_of(Lease)
        else:
            await worker.hear(Lease)


async def test_a_worker_that_turned_down_too_much_is_told_so_and_serves_its_own_account_all_the_same(path):
    async with Desk.open(path, rules=Rules(matching=MatchingSection(declines=1))) as desk:
        worker, asker = await desk.worker(0), await desk.requester()
        for _ in range(2):
            await asker.ask(public=SMALL)
            await worker.report(await worker.hear(Lease), "declined", "busy")
        jobs = (await asker.ask(public=SMALL)).jobs
        assert await why(worker) == {"had_it": 2, "resting": 1}
        await asker.say(AskWhy(job=jobs[0]))
        assert dict((await asker.hear(Why)).reasons) == {"resting": 1}
        await worker.announce(A_TEXT_OFFER)
        await worker.ask(public=SMALL)
        await worker.announce()
        assert (await worker.hear(Lease)).asker.own, "from the queue, by which nobody else gets it"


async def test_a_worker_that_moderators_keep_from_work_is_told_that_and_not_that_it_is_none(path):
    async with Desk.open(path, RULES) as desk:
        worker, asker = await desk.worker(0), await desk.requester()
        await Office(desk).do("pause", account=worker.account, until=desk.clock.now + DAY)
        await asker.ask(public=SMALL)
        assert await why(worker) == {"kept_out": 1}
        beside = await desk.peer(0)
        await beside.say(AskWhy())
        assert dict((await beside.hear(Why)).reasons) == {"kept_out": 1}, "as `potluck status` asks"
        await asker.say(AskWhy())
        assert await asker.refused() == "out_of_turn", "a control: no worker"


async def test_who_asks_for_a_model_that_nobody_may_serve_here_is_told_at_once(path):
    async with Desk.open(path, rules=Rules(catalogue=CatalogueSection(listed_only=True))) as desk:
        listed = Model(kind="image", licence="MIT", millions=1)
        desk.coordinator.listing.use(Catalogue({SMALL.models[0]: listed}))
        asker = await desk.requester()
        asked = asker.prepare(but(SMALL, models=("mine",)))
        await asker.say(Private(private=asked.private))
        await asker.send(asked.envelope)
        refused = await asker.hear(Refused)
        assert (refused.code, refused.text.endswith(f"there are: {SMALL.models[0]}")) == ("not_offered", True)
        await asker.say(AskQuote(public=but(SMALL, models=("mine",))))
        assert (await asker.hear(Refused)).code == "not_offered", "a quote says what a request would hear"
        assert (await asker.ask(public=SMALL)).jobs
