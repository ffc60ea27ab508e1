"""What every store promises. A store's own test file is little more than the fixture `backend`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, Protocol

import pytest

from protocol import prices
from protocol.documents import Asker, Checkpoint, Lease, Receipt, RulesDocument, Settlement, open_document
from protocol.envelope import check_document_context, parse
from protocol.errors import (
    Equivocation,
    Fenced,
    Late,
    OverLease,
    ReceiptMismatch,
    TooFarAhead,
    TooLate,
    UnknownJob,
    WrongSigner,
)
from protocol.postings import ANONYMOUS, BURN, FIRST_PERSON, HELD, MINT
from protocol.rules import LimitsSection, MatchingSection, MintSection, ModelSection, Rules
from tests.support.builders import (
    DAY,
    HOUR,
    IMAGE_MODEL,
    NOW,
    REQUESTER,
    ROOT,
    SECOND,
    SERVING,
    a_cancel,
    a_digest,
    a_key,
    a_nonce,
    a_public_part,
    a_text_work,
    an_acknowledgement,
    but,
    signed,
)
from tests.support.clerk import Clerk, unknown_handle, worker_key
from tests.support.jobs import ORIGIN
from tests.support.rules import plain
from tracker.lifecycle import Accepted, Expired, Facts, NotAccepted, Opened, Stage, State, WorkerFailed
from tracker.store.base import Choice, Standing, Store

PUBLIC = a_public_part()
PRICE = prices.price(Rules(), PUBLIC.work, IMAGE_MODEL)
TAX = prices.tax(Rules())


class Backend(Protocol):
    """A place for a store: empty at first, and there again when the store is opened anew."""

    def create(self, rules: Rules) -> None:
        """Make a horde in it."""

    def open(self) -> AbstractAsyncContextManager[Store]:
        """The store of the horde in it."""


async def everything(store: Store) -> Any:
    """What a store can be asked for, to be compared."""
    accounts = [await store.account(number, NOW) for number in (MINT, BURN, HELD, ANONYMOUS)]
    with suppress(UnknownJob):  # the first number that nobody has
        while True:
            accounts.append(await store.account(FIRST_PERSON + len(accounts) - 4, NOW))
    live = await store.live()
    return (
        await store.rules_in_force(),
        await store.ledger_head(),
        accounts,
        sorted(live, key=lambda standing: standing.job.handle),
        await store.open_requests(REQUESTER.public),
    )


class StoreContract:
    """The promises of `tracker.store.base.Store`."""

    @pytest.fixture
    def rules(self) -> Rules:
        return plain()

    @pytest.fixture
    async def store(self, backend: Backend, rules: Rules) -> AsyncIterator[Store]:
        backend.create(plain(rules))
        async with backend.open() as store:
            yield store

    @pytest.fixture
    async def clerk(self, store: Store) -> Clerk:
        clerk = await Clerk.at(store)
        for number in range(3):
            await clerk.account(worker_key(number))
        return clerk

    # The horde

    async def test_a_new_horde_has_its_rules_in_force_signed_as_version_one(self, store):
        found = await store.rules_in_force()
        envelope = parse(found.document)
        envelope.verify()
        assert envelope.key == SERVING.public
        check_document_context(envelope, ROOT.public)
        body = open_document(envelope, RulesDocument)
        assert (found.version, body.version, body.previous) == (1, 1, b"")
        assert (found.rules, found.digest) == (plain(), envelope.digest)

    async def test_new_rules_are_the_next_version_and_name_the_one_before(self, store):
        first = await store.rules_in_force()
        rules = Rules(limits=LimitsSection(max_n=3))
        second = await store.publish_rules(rules, NOW + 1)
        assert (second.version, second.rules) == (2, rules)
        assert open_document(parse(second.document), RulesDocument).previous == first.digest
        assert await store.rules_in_force() == second

    async def test_every_version_of_the_rules_stays_to_be_read_as_it_was(self, store):
        first = await store.rules_in_force()
        second = await store.publish_rules(Rules(limits=LimitsSection(max_n=3)), NOW + 1)
        await store.publish_rules(Rules(limits=LimitsSection(max_n=4)), NOW + 2)
        assert (await store.rules(1), await store.rules(2)) == (first, second)
        assert (await store.rules(3)).document == (await store.rules_in_force()).document

    async def test_the_same_rules_again_are_no_new_version(self, store):
        assert await store.publish_rules(plain(), NOW + 1) == await store.rules_in_force()
        assert (await store.rules_in_force()).version == 1

    async def test_a_checkpoint_covers_all_entries_and_is_made_only_if_there_are_new_ones(self, store, clerk):
        assert await store.seal(NOW) is None
        await clerk.earn(worker_key(0), 2)
        raw = await store.seal(NOW + 5)
        assert raw is not None
        envelope = parse(raw)
        envelope.verify()
        checkpoint = open_document(envelope, Checkpoint)
        head = await store.ledger_head()
        assert (checkpoint.size, checkpoint.time, checkpoint.epoch) == (head.size, NOW + 5, 0)
        assert head.size == 2, "two settlements"
        assert head.checkpoint == raw
        assert await store.seal(NOW + 6) is None

    # Accounts

    async def test_a_key_has_no_account_until_it_registers_and_one_from_then_on(self, store):
        assert await store.account_of(REQUESTER.public) == 0
        number = await store.register(REQUESTER.public, NOW)
        assert number >= FIRST_PERSON
        assert await store.account_of(REQUESTER.public) == number
        assert await store.register(REQUESTER.public, NOW + 1) == number

    async def test_keys_that_register_at_once_get_one_account_each(self, store):
        keys = [a_key(number // 2).public for number in range(20)]
        numbers = await asyncio.gather(*(store.register(key, NOW) for key in keys))
        assert len(set(numbers)) == 10
        assert [numbers[at] for at in range(0, 20, 2)] == [numbers[at] for at in range(1, 20, 2)]

    async def test_a_new_account_has_nothing(self, store):
        number = await store.register(REQUESTER.public, NOW)
        state = await store.account(number, NOW)
        assert (state.number, state.balance, state.held, state.earned, state.spent) == (number, 0, 0, 0, 0)
        assert (state.taken_free, state.free_now, state.jobs_done, state.jobs_received) == (0, 0, 0, 0)

    async def test_an_account_that_is_not_there_is_refused(self, store):
        with pytest.raises(UnknownJob):
            await store.account(4711, NOW)

    # Admission

    async def test_a_request_becomes_n_waiting_jobs_in_order(self, store, clerk):
        request = clerk.request(a_public_part(n=3))
        admitted = await clerk.ask(request=request)
        jobs = admitted.jobs
        assert [job.number for job in jobs] == [0, 1, 2]
        assert len({job.handle for job in jobs}) == 3
        assert all((job.state, job.attempt, job.failed) == (State.WAITING, 0, 0) for job in jobs)
        assert all((job.payer, job.anonymous, job.origin) == (ANONYMOUS, True, ORIGIN) for job in jobs)
        assert all((job.job_key, job.private_digest) == (request.job_key, request.private_digest) for job in jobs)
        assert (admitted.held, admitted.leases, admitted.again) == (0, {}, False)
        assert await store.open_requests(REQUESTER.public) == [(request.nonce, signed(request).digest)]

    async def test_the_same_request_again_is_answered_as_the_first_time(self, store, clerk):
        request = clerk.request(a_public_part(n=2))
        first = await clerk.ask(request=request)
        size = await store.ledger_head()
        clerk.now += HOUR  # however late it comes again
        again = await clerk.ask(request=request, choices=[await clerk.choice(), None])
        assert again.again
        assert list(again.jobs) == list(first.jobs)
        assert await store.ledger_head() == size

    async def test_a_different_request_under_the_same_nonce_is_equivocation(self, store, clerk):
        request = clerk.request()
        await clerk.ask(request=request)
        before = await everything(store)
        with pytest.raises(Equivocation):
            await clerk.ask(request=but(request, public=a_public_part(n=2)))
        assert await everything(store) == before

    async def test_two_requesters_may_use_the_same_nonce(self, clerk):
        request, other = clerk.request(), clerk.request()
        await clerk.ask(request=request)
        await clerk.ask(request=but(other, nonce=request.nonce), requester=a_key(30))

    async def test_a_job_key_is_used_once(self, store, clerk):
        request = clerk.request()
        await clerk.ask(request=request)
        before = await everything(store)
        with pytest.raises(WrongSigner):
            await clerk.ask(request=but(request, nonce=a_nonce(77)))
        assert await everything(store) == before

    @pytest.mark.parametrize(("valid_until", "refusal"), [(NOW - 1, Late), (NOW + HOUR + 1, TooFarAhead)])
    async def test_a_request_out_of_its_time_is_refused_and_its_identity_stays_free(self, clerk, valid_until, refusal):
        request = clerk.request()
        with pytest.raises(refusal):
            await clerk.ask(request=but(request, valid_until=valid_until))
        assert not (await clerk.ask(request=request)).again

    async def test_a_hold_covers_the_dearest_model_and_the_tax(self, store, clerk):
        payer = await clerk.earn(REQUESTER, 8)
        had = await clerk.balance(payer)
        job = await clerk.ask_one(payer=payer)
        assert job.held == PRICE + TAX
        state = await store.account(payer, NOW)
        assert (state.balance, state.held) == (had - PRICE - TAX, PRICE + TAX)

    async def test_each_further_job_of_a_burst_ranks_lower(self, clerk):
        payer = await clerk.earn(REQUESTER, 8)
        had = await clerk.balance(payer)
        admitted = await clerk.ask(a_public_part(n=3), payer=payer)
        cost = PRICE + TAX
        assert [job.score for job in admitted.jobs] == [had - cost, had - 2 * cost, had - 3 * cost]
        assert admitted.held == 3 * cost

    async def test_a_small_balance_covers_what_it_can_and_the_next_job_nothing(self, store, clerk):
        payer = await clerk.earn(REQUESTER, 1)
        assert await clerk.balance(payer) == PRICE
        admitted = await clerk.ask(a_public_part(n=2), payer=payer)
        assert [job.held for job in admitted.jobs] == [PRICE, 0]
        assert (await store.account(payer, NOW)).balance == 0

    async def test_jobs_that_have_a_choice_are_leased_in_the_same_step(self, clerk):
        choice = await clerk.choice(1)
        admitted = await clerk.ask(a_public_part(n=3), choices=[None, choice, None])
        assert [job.state for job in admitted.jobs] == [State.WAITING, State.LEASED, State.WAITING]
        assert list(admitted.leases) == [1]
        assert admitted.leases[1].job == admitted.jobs[1]
        assert admitted.leases[1].attempt.worker == choice.worker

    # Leases

    async def test_a_job_is_leased_to_one_worker_only(self, clerk):
        job = await clerk.ask_one()
        tries = await asyncio.gather(*(clerk.try_lease(job, worker) for worker in range(10)))
        assert sum(leased is not None for leased in tries) == 1

    async def test_a_lease_says_what_its_worker_needs_and_nothing_of_who_asks(self, clerk):
        request = clerk.request(a_public_part(n=2, models=("another", IMAGE_MODEL)))
        admitted = await clerk.ask(request=request)
        choice = await clerk.choice(1)
        clerk.now += 5
        leased = await clerk.store.lease(
            admitted.jobs[1].handle, 0, Choice(choice.worker, choice.owner, IMAGE_MODEL), clerk.rules, clerk.now
        )
        assert leased is not None
        envelope = parse(leased.document)
        envelope.verify()
        assert envelope.key == SERVING.public
        lease = open_document(envelope, Lease)
        assert (lease.job, lease.attempt, lease.index) == (admitted.jobs[1].handle, 1, 1)
        assert (lease.worker, lease.model) == (choice.worker, IMAGE_MODEL)
        assert (lease.public.models, lease.public.n) == ((IMAGE_MODEL,), 1)
        assert (lease.private_digest, lease.job_key) == (request.private_digest, request.job_key)
        assert (lease.issued, lease.deadline) == (clerk.now, clerk.now + Rules().times.image_lease * SECOND)
        assert lease.asker.anonymous
        for secret in (REQUESTER.public, request.nonce, signed(request).digest, str(ANONYMOUS).encode() * 8):
            assert secret not in leased.document

    async def test_a_lease_says_what_was_known_of_its_asker_when_it_was_taken_in(self, store, clerk):
        asker = worker_key(9)
        payer = await clerk.account(asker)
        request = clerk.request(a_public_part())
        admitted = await store.admit(
            signed(request, asker),
            request,
            payer=payer,
            origin=str(payer),
            choices=[None],
            models=request.public.models,
            rules=clerk.rules,
            now=clerk.now,
            facts=Facts(("adult", "hate"), f"Ada#{payer}", 2),
        )
        [job] = admitted.jobs
        assert (await store.live())[0].job.facts == job.facts, "also after a restart"
        for attempt, number in enumerate((1, 9)):
            choice = await clerk.choice(number)
            leased = await store.lease(job.handle, attempt, choice, clerk.rules, clerk.now)
            lease = open_document(parse(leased.document), Lease)
            known = store.pseudonyms.of(choice.worker, payer)
            assert lease.labels == ("adult", "hate")
            assert lease.asker == Asker(service=f"Ada#{payer}", give_back=2, own=number == 9, pseudonym=known)
            job = (await clerk.happen(leased.job, NotAccepted())).outcome.job

    async def test_the_facts_of_an_account_are_its_class_and_its_name_as_a_service(self, store, clerk):
        payer = await clerk.account()
        assert await store.facts(payer, clerk.now) == Facts()
        earner = await clerk.earn(worker_key(1), 1)
        assert await store.facts(earner, clerk.now) == Facts(give_back=3)

    async def test_the_attempt_number_rises_with_every_lease(self, clerk):
        job = await clerk.ask_one()
        for number, event in enumerate([NotAccepted(), WorkerFailed("gone"), NotAccepted()], start=1):
            leased = await clerk.lease(job, number)
            assert leased.attempt.attempt == number
            assert open_document(parse(leased.document), Lease).attempt == number
            job = (await clerk.happen(job, event)).outcome.job
            assert job.state is State.WAITING

    async def test_a_job_that_does_not_stand_as_the_matcher_saw_it_is_not_leased(self, store, clerk):
        choice = await clerk.choice()
        job = await clerk.ask_one()
        await clerk.lease(job)
        again = (await clerk.happen(job, NotAccepted())).outcome.job
        assert await store.lease(job.handle, 0, choice, clerk.rules, NOW) is None, "it has been leased since"
        await clerk.cancel(again)
        assert await store.lease(job.handle, 1, choice, clerk.rules, NOW) is None, "it has ended"
        assert await store.lease(unknown_handle(), 0, choice, clerk.rules, NOW) is None

    async def test_the_time_spent_waiting_is_kept_over_leases(self, clerk):
        job = await clerk.ask_one()
        clerk.now += 300
        await clerk.lease(job)
        clerk.now += 5_000
        waiting = (await clerk.happen(job, NotAccepted())).outcome.job
        assert (waiting.waited, waiting.changed) == (300, clerk.now)
        clerk.now += 200
        assert (await clerk.lease(waiting)).job.waited == 500

    async def test_a_job_expires_by_the_time_that_it_waited(self, clerk):
        job = await clerk.ask_one()
        clerk.now = NOW + Rules().times.waiting * SECOND
        happened = await clerk.happen(job, Expired())
        assert happened.outcome.job.state is State.EXPIRED

    async def test_signs_of_life_of_a_lease_are_kept(self, store, clerk):
        job = await clerk.ask_one()
        await clerk.lease(job)
        for event, stage in ((Accepted(), Stage.ACCEPTED), (Opened(), Stage.OPENED)):
            happened = await clerk.happen(job, event, 1)
            assert happened.outcome.changed
            [standing] = await store.live()
            assert standing.attempt is not None
            assert standing.attempt.stage is stage
        assert not (await clerk.happen(job, Opened(), 1)).outcome.changed

    async def test_what_a_lease_costs_falls_on_hold_tax_and_mint(self, clerk):
        payer = await clerk.earn(REQUESTER, 1)
        leased = await clerk.lease(await clerk.ask_one(payer=payer))
        attempt = leased.attempt
        assert (attempt.price, attempt.paid, attempt.uncovered, attempt.tax) == (PRICE, PRICE, 0, 0)
        free = await clerk.lease(await clerk.ask_one(payer=payer))
        assert (free.attempt.paid, free.attempt.uncovered, free.attempt.free) == (0, PRICE, PRICE)
        assert free.attempt.reserved == PRICE
        lease = open_document(parse(free.document), Lease)
        assert (lease.price, lease.paid, lease.free) == (PRICE, 0, PRICE)

    async def test_jobs_between_keys_of_one_account_cost_nothing_and_count_for_nothing(self, store, clerk):
        payer = await clerk.earn(worker_key(0), 8)
        before = await store.account(payer, NOW)
        asked = await clerk.ask_one(requester=worker_key(0), payer=payer)
        leased = await clerk.lease(asked, 0)
        assert (leased.attempt.price, leased.attempt.paid, leased.attempt.free, leased.attempt.tax) == (0, 0, 0, 0)
        happened = await clerk.acknowledge(clerk.receipt(leased))
        assert happened.released == PRICE + TAX
        assert await store.account(payer, NOW) == before
        settlement = open_document(parse(happened.settlement), Settlement)
        assert (settlement.paid, settlement.minted, settlement.burned) == (0, 0, 0)

    # From receipt to settlement

    async def test_a_receipt_delivers_and_the_same_again_changes_nothing(self, store, clerk):
        leased = await clerk.lease(await clerk.ask_one())
        receipt = clerk.receipt(leased)
        happened = await clerk.receive(receipt)
        assert happened.before.state is State.LEASED
        assert happened.outcome.job.state is State.DELIVERED
        before = await everything(store)
        again = await clerk.receive(receipt)
        assert not again.outcome.changed
        assert again.settlement == b""
        assert await everything(store) == before

    async def test_an_acknowledgement_settles_exactly(self, store, clerk):
        payer = await clerk.earn(REQUESTER, 8)
        had = await clerk.balance(payer)
        owner = await clerk.account(worker_key(1))
        leased = await clerk.lease(await clerk.ask_one(payer=payer), 1)
        receipt = clerk.receipt(leased)
        await clerk.receive(receipt)
        checkpoint = await store.seal(clerk.now)
        size = (await store.ledger_head()).size
        clerk.now += 7
        happened = await clerk.acknowledge(receipt)
        assert happened.before.state is State.DELIVERED
        assert (happened.outcome.job.state, happened.outcome.job.settled) == (State.SETTLED, 1)
        assert happened.released == 0
        envelope = parse(happened.settlement)
        envelope.verify()
        settlement = open_document(envelope, Settlement)
        assert envelope.key == SERVING.public
        assert (settlement.job, settlement.attempt, settlement.settled) == (leased.job.handle, 1, clerk.now)
        assert (settlement.paid, settlement.minted, settlement.burned) == (PRICE, 0, TAX)
        assert (settlement.entry, settlement.checkpoint, settlement.partial) == (size, checkpoint, False)
        paying, earning = await store.account(payer, clerk.now), await store.account(owner, clerk.now)
        assert (paying.balance, paying.held, paying.spent) == (had - PRICE - TAX, 0, PRICE + TAX)
        assert (paying.taken_free, paying.jobs_received) == (0, 1)
        assert (earning.balance, earning.earned, earning.jobs_done) == (PRICE, PRICE, 1)

    async def test_what_is_held_beyond_the_price_goes_back(self, backend, clerk):
        rules = await clerk.store.publish_rules(plain(Rules(models={"dear": ModelSection(price=2_000)})), NOW)
        clerk.rules = rules
        payer = await clerk.earn(REQUESTER, 8)
        had = await clerk.balance(payer)
        job = await clerk.ask_one(a_public_part(models=(IMAGE_MODEL, "dear")), payer=payer)
        assert job.held == 2 * PRICE + TAX
        happened = await clerk.acknowledge(clerk.receipt(await clerk.lease(job)))
        assert happened.released == PRICE
        assert await clerk.balance(payer) == had - PRICE - TAX

    async def test_free_work_is_minted_for_its_worker_and_remembered_of_its_taker(self, store, clerk):
        payer = await clerk.account()
        owner = await clerk.account(worker_key(1))
        settled = await clerk.acknowledge(clerk.receipt(await clerk.lease(await clerk.ask_one(payer=payer), 1)))
        settlement = open_document(parse(settled.settlement), Settlement)
        assert (settlement.paid, settlement.minted, settlement.burned) == (0, PRICE, 0)
        assert (await store.account(owner, NOW)).balance == PRICE
        assert (await store.account(MINT, NOW)).balance == -PRICE
        taker = await store.account(payer, NOW)
        assert (taker.balance, taker.taken_free, taker.free_now, taker.jobs_received) == (0, PRICE, PRICE, 1)
        half_life = Rules().matching.half_life_days * DAY
        later = await store.account(payer, NOW + half_life)
        assert (later.taken_free, later.free_now) == (PRICE, PRICE // 2)
        clerk.now += half_life
        job = await clerk.ask_one(payer=payer)
        assert job.score == -(PRICE // 2), "free work taken lowers the rank until it is forgotten"

    async def test_the_same_acknowledgement_again_is_answered_as_the_first_time(self, store, clerk):
        receipt = clerk.receipt(await clerk.lease(await clerk.ask_one()))
        first = await clerk.acknowledge(receipt)
        before = await everything(store)
        clerk.now += DAY
        again = await clerk.acknowledge(receipt)
        assert not again.outcome.changed
        assert again.settlement == first.settlement
        assert await everything(store) == before
        assert (await clerk.receive(receipt)).settlement == first.settlement, "and so is the worker's receipt"

    async def test_a_second_and_different_acknowledgement_is_equivocation(self, store, clerk):
        receipt = clerk.receipt(await clerk.lease(await clerk.ask_one()))
        await clerk.acknowledge(receipt)
        before = await everything(store)
        with pytest.raises(Equivocation):
            await clerk.acknowledge(receipt, said=an_acknowledgement(receipt, a_digest("something else")))
        assert await everything(store) == before

    async def test_a_second_and_different_receipt_is_equivocation_alone_and_within_an_acknowledgement(
        self, store, clerk
    ):
        leased = await clerk.lease(await clerk.ask_one())
        await clerk.receive(clerk.receipt(leased))
        other = clerk.receipt(leased, output=a_digest("something else"))
        before = await everything(store)
        for step in (clerk.receive(other), clerk.acknowledge(other)):
            with pytest.raises(Equivocation):
                await step
            assert await everything(store) == before

    async def test_an_acknowledgement_of_another_digest_than_the_receipts_is_refused(self, store, clerk):
        leased = await clerk.lease(await clerk.ask_one())
        receipt = clerk.receipt(leased)
        await clerk.receive(receipt)
        before = await everything(store)
        with pytest.raises(ReceiptMismatch):
            await clerk.acknowledge(receipt, said=an_acknowledgement(receipt, a_digest("something else")))
        assert await everything(store) == before
        assert (await clerk.acknowledge(receipt)).settlement, "the refused one does not stand in its way"

    async def test_only_the_leases_worker_signs_its_receipt(self, store, clerk):
        leased = await clerk.lease(await clerk.ask_one())
        forged = signed(open_document(clerk.receipt(leased), Receipt), worker_key(2))
        before = await everything(store)
        for step in (clerk.receive(forged), clerk.acknowledge(forged)):
            with pytest.raises(WrongSigner):
                await step
        assert await everything(store) == before

    async def test_only_the_job_key_answers_and_only_in_the_askers_session(self, store, clerk):
        leased = await clerk.lease(await clerk.ask_one())
        receipt = clerk.receipt(leased)
        before = await everything(store)
        with pytest.raises(WrongSigner):
            await clerk.acknowledge(receipt, key=REQUESTER)
        with pytest.raises(WrongSigner):
            await clerk.acknowledge(receipt, sender=worker_key(0))
        assert await everything(store) == before

    async def test_a_receipt_of_another_job_does_not_settle_this_one(self, store, clerk):
        here, there = [await clerk.lease(await clerk.ask_one()) for _ in range(2)]
        other = clerk.receipt(there)
        said = but(an_acknowledgement(other), job=here.job.handle)
        with pytest.raises(ReceiptMismatch):
            await clerk.acknowledge(other, said=said, sender=REQUESTER)
        assert all(standing.job.state is State.LEASED for standing in await store.live())

    async def test_a_receipt_over_its_lease_is_refused_and_the_right_one_taken_after_it(self, store, clerk):
        leased = await clerk.lease(await clerk.ask_one())
        before = await everything(store)
        with pytest.raises(OverLease):
            await clerk.receive(clerk.receipt(leased, used=31))
        assert await everything(store) == before
        await clerk.receive(clerk.receipt(leased))

    async def test_a_denial_refunds_all_and_pays_nobody(self, store, clerk):
        payer = await clerk.earn(REQUESTER, 8)
        had = await clerk.balance(payer)
        leased = await clerk.lease(await clerk.ask_one(payer=payer), 1)
        receipt = clerk.receipt(leased)
        await clerk.receive(receipt)
        happened = await clerk.deny(leased, receipt)
        assert happened.outcome.job.state is State.REFUNDED
        assert happened.released == PRICE + TAX
        assert await clerk.balance(payer) == had
        assert await clerk.balance(await clerk.account(worker_key(1))) == 0
        assert not (await clerk.deny(leased, receipt)).outcome.changed, "once is enough"
        with pytest.raises(TooLate):
            await clerk.acknowledge(receipt)
        with pytest.raises(Equivocation):
            await clerk.deny(leased, receipt, reason="another_reason")

    async def test_what_is_settled_cannot_be_denied(self, clerk):
        leased = await clerk.lease(await clerk.ask_one())
        await clerk.acknowledge(clerk.receipt(leased))
        with pytest.raises(TooLate):
            await clerk.deny(leased)

    async def test_silence_pays_by_the_receipt(self, store, clerk):
        leased = await clerk.lease(await clerk.ask_one(), 1)
        await clerk.receive(clerk.receipt(leased, used=15))
        assert not (await clerk.silence(leased.job)).outcome.changed
        clerk.now += Rules().times.silence * SECOND
        happened = await clerk.silence(leased.job)
        assert happened.outcome.job.state is State.SETTLED
        assert open_document(parse(happened.settlement), Settlement).minted == PRICE // 2
        assert not (await clerk.silence(leased.job)).outcome.changed

    # Attempts that overlap

    async def test_a_late_receipt_of_an_old_attempt_is_fenced(self, store, clerk):
        job = await clerk.ask_one()
        old = await clerk.lease(job, 1)
        waiting = (await clerk.happen(job, WorkerFailed("gone"))).outcome.job
        await clerk.lease(waiting, 2)
        before = await everything(store)
        with pytest.raises(Fenced):
            await clerk.receive(clerk.receipt(old))
        assert await everything(store) == before

    async def test_receipt_and_acknowledgement_of_an_old_attempt_settle_it_and_end_the_new_one(self, store, clerk):
        payer = await clerk.earn(REQUESTER, 8)
        had = await clerk.balance(payer)
        job = await clerk.ask_one(payer=payer)
        old = await clerk.lease(job, 1)
        waiting = (await clerk.happen(job, WorkerFailed("gone"))).outcome.job
        new = await clerk.lease(waiting, 2)
        happened = await clerk.acknowledge(clerk.receipt(old))
        assert (happened.outcome.job.state, happened.outcome.job.settled) == (State.SETTLED, 1)
        assert happened.lost is not None
        assert (happened.lost.attempt, happened.lost.worker) == (2, new.attempt.worker)
        assert (happened.lost.stage, happened.outcome.withdraw, happened.outcome.fault) == (
            Stage.ENDED,
            "settled",
            False,
        )
        assert open_document(parse(happened.settlement), Settlement).attempt == 1
        assert await clerk.balance(payer) == had - PRICE - TAX
        assert await clerk.balance(await clerk.account(worker_key(1))) == PRICE
        assert await clerk.balance(await clerk.account(worker_key(2))) == 0
        with pytest.raises(TooLate):
            await clerk.receive(clerk.receipt(new))

    async def test_a_receipt_of_the_last_attempt_is_taken_while_its_job_waits(self, clerk):
        job = await clerk.ask_one()
        leased = await clerk.lease(job)
        waiting = (await clerk.happen(job, WorkerFailed("gone"))).outcome.job
        happened = await clerk.receive(clerk.receipt(leased))
        assert happened.outcome.job.state is State.DELIVERED
        assert await clerk.try_lease(waiting, 2) is None
        settled = await clerk.acknowledge(clerk.receipt(leased))
        assert open_document(parse(settled.settlement), Settlement).minted == PRICE

    # Cancel

    async def test_a_cancelled_waiting_job_gives_its_hold_back(self, clerk):
        payer = await clerk.earn(REQUESTER, 8)
        had = await clerk.balance(payer)
        job = await clerk.ask_one(payer=payer)
        [happened] = await clerk.cancel(job)
        assert (happened.outcome.job.state, happened.released) == (State.CANCELLED, PRICE + TAX)
        assert await clerk.balance(payer) == had

    async def test_a_cancel_without_a_job_is_of_the_whole_request(self, clerk):
        jobs = (await clerk.ask(a_public_part(n=3))).jobs
        await clerk.lease(jobs[1])
        happened = await clerk.cancel(jobs[0], whole=True)
        states = [each.outcome.job.state for each in happened]
        assert states == [State.CANCELLED, State.LEASED, State.CANCELLED]
        assert happened[1].outcome.job.cancelled == clerk.now

    async def test_a_partial_receipt_after_a_cancel_is_paid_in_proportion_with_the_whole_tax(self, clerk):
        payer = await clerk.earn(REQUESTER, 8)
        had = await clerk.balance(payer)
        leased = await clerk.lease(await clerk.ask_one(payer=payer))
        with pytest.raises(OverLease):
            await clerk.receive(clerk.receipt(leased, used=10, partial=True))
        await clerk.cancel(leased.job)
        happened = await clerk.receive(clerk.receipt(leased, used=10, partial=True))
        settlement = open_document(parse(happened.settlement), Settlement)
        assert (settlement.paid, settlement.burned, settlement.partial) == (PRICE * 10 // 30, TAX, True)
        assert await clerk.balance(payer) == had - PRICE * 10 // 30 - TAX

    async def test_a_cancel_is_taken_in_its_time_only_and_again_at_any_time(self, clerk):
        job = await clerk.ask_one()
        late = a_cancel(job.handle, nonce=a_nonce(600_000), valid_until=clerk.now - 1)
        with pytest.raises(Late):
            await clerk.cancel(job, cancel=late)
        cancel = a_cancel(job.handle, nonce=a_nonce(600_001), valid_until=clerk.now + HOUR)
        [first] = await clerk.cancel(job, cancel=cancel)
        assert first.outcome.changed
        clerk.now += DAY
        [again] = await clerk.cancel(job, cancel=cancel)
        assert not again.outcome.changed

    async def test_a_cancel_by_a_stranger_is_of_no_job(self, clerk):
        job, other = await clerk.ask_one(), await clerk.ask_one()
        cancel = a_cancel(other.handle, valid_until=clerk.now + HOUR)
        with pytest.raises(UnknownJob):
            await clerk.cancel(job, cancel=cancel)
        clerk.requesters[job.handle] = worker_key(0)
        with pytest.raises(UnknownJob):
            await clerk.cancel(job)

    # The mint

    @pytest.mark.parametrize("rules", [Rules(mint=MintSection(daily=PRICE * 5 // 2, steps=((1_000, 1_000),)))])
    async def test_what_is_minted_stays_within_the_days_budget(self, clerk):
        leases = [await clerk.lease(await clerk.ask_one()) for _ in range(4)]
        assert [leased.attempt.free for leased in leases] == [PRICE, PRICE, PRICE // 2, 0]
        assert [leased.budget_used for leased in leases] == [PRICE, 2 * PRICE, PRICE * 5 // 2, PRICE * 5 // 2]
        await clerk.happen(leases[0].job, WorkerFailed("gone"))
        again = await clerk.lease(await clerk.ask_one())
        assert again.attempt.free == PRICE, "what was set aside for a lost attempt can be minted for another"
        for leased in leases[1:]:
            await clerk.acknowledge(clerk.receipt(leased))
        clerk.now += DAY
        assert (await clerk.lease(await clerk.ask_one())).attempt.free == PRICE, "each day has a budget of its own"

    @pytest.mark.parametrize("rules", [Rules(mint=MintSection(daily=PRICE, steps=((1_000, 1_000),)))])
    async def test_an_attempt_that_had_ended_is_paid_from_what_the_budget_still_bears(self, store, clerk):
        job = await clerk.ask_one()
        lost = await clerk.lease(job, 1)
        await clerk.happen(job, WorkerFailed("gone"))
        taken = await clerk.lease(await clerk.ask_one(), 2)
        assert taken.attempt.free == PRICE
        happened = await clerk.acknowledge(clerk.receipt(lost))
        assert open_document(parse(happened.settlement), Settlement).minted == 0
        assert (await store.account(MINT, NOW)).balance == 0

    @pytest.mark.parametrize("rules", [Rules(mint=MintSection(daily=4 * PRICE, steps=((500, 1_000), (1_000, 250))))])
    async def test_the_mint_falls_in_steps(self, clerk):
        leases = [await clerk.lease(await clerk.ask_one()) for _ in range(4)]
        assert [leased.attempt.free for leased in leases] == [PRICE, PRICE, PRICE // 4, PRICE // 4]
        assert all(leased.attempt.uncovered == PRICE for leased in leases)

    # Rules that change

    async def test_a_lease_is_settled_by_the_rules_of_its_lease(self, store, clerk):
        work = a_text_work()
        job = await clerk.ask_one(a_public_part(work))
        leased = await clerk.lease(job)
        clerk.rules = await store.publish_rules(but(plain(), prices=but(Rules().prices, text_token=0)), NOW)
        happened = await clerk.acknowledge(clerk.receipt(leased, used=10))
        wanted = prices.price(Rules(), a_text_work(max_tokens=10), leased.attempt.model)
        assert open_document(parse(happened.settlement), Settlement).minted == wanted

    @pytest.mark.parametrize("rules", [Rules(matching=MatchingSection(failed_attempts=2))])
    async def test_after_so_many_failed_attempts_the_job_fails_and_its_hold_goes_back(self, store, clerk):
        payer = await clerk.earn(REQUESTER, 8)
        had = await clerk.balance(payer)
        job = await clerk.ask_one(payer=payer)
        await clerk.lease(job, 1)
        waiting = (await clerk.happen(job, WorkerFailed("engine"))).outcome.job
        await clerk.lease(waiting, 2)
        happened = await clerk.happen(job, WorkerFailed("engine"))
        assert (happened.outcome.job.state, happened.released) == (State.FAILED, PRICE + TAX)
        assert await clerk.balance(payer) == had
        assert await store.live() == []

    # Steps

    async def test_steps_are_carried_out_in_the_order_in_which_they_were_called(self, store, clerk):
        for _ in range(10):
            job = await clerk.ask_one()
            choices = [await clerk.choice(number) for number in range(8)]
            leases = await asyncio.gather(*(store.lease(job.handle, 0, choice, clerk.rules, NOW) for choice in choices))
            assert leases[0] is not None
            assert leases[1:] == [None] * 7

    async def test_a_step_that_is_refused_undoes_itself_and_not_those_beside_it(self, store, clerk):
        payer = await clerk.earn(REQUESTER, 30)
        had = await clerk.balance(payer)
        requests = [clerk.request() for _ in range(12)]
        for at in range(0, 12, 3):  # every third uses a job key anew: refused when half of it was written
            requests[at] = but(requests[at], job_key=requests[at + 1].job_key)
        order = [request for at in range(0, 12, 3) for request in (requests[at + 1], requests[at], requests[at + 2])]
        steps = (clerk.ask(request=request, payer=payer) for request in order)
        outcomes = await asyncio.gather(*steps, return_exceptions=True)
        assert [isinstance(outcome, WrongSigner) for outcome in outcomes] == [False, True, False] * 4
        assert len(await store.live()) == 8
        assert await clerk.balance(payer) == had - 8 * (PRICE + TAX)
        head = await store.ledger_head()
        assert head.size == 30 + 8
        [settled] = [await clerk.acknowledge(clerk.receipt(await clerk.lease((await store.live())[0].job)))]
        assert open_document(parse(settled.settlement), Settlement).entry == 38

    async def test_many_at_once_lose_nothing(self, store, clerk):
        owners = [await clerk.account(worker_key(number)) for number in range(3)]

        async def one(number):
            job = await clerk.ask_one()
            leased = await clerk.lease(job, number % 3)
            receipt = clerk.receipt(leased)
            await asyncio.gather(clerk.receive(receipt), clerk.receive(receipt))
            first, second = await asyncio.gather(clerk.acknowledge(receipt), clerk.acknowledge(receipt))
            assert first.settlement == second.settlement
            return first.settlement

        settlements = await asyncio.gather(*(one(number) for number in range(30)))
        entries = {open_document(parse(raw), Settlement).entry for raw in settlements}
        assert entries == set(range(30))
        assert [await clerk.balance(owner) for owner in owners] == [10 * PRICE] * 3

    # What lasts

    async def test_a_store_that_is_opened_anew_knows_all_that_was_confirmed(self, backend, rules):
        backend.create(plain(rules))
        async with backend.open() as store:
            clerk = await Clerk.at(store)
            payer = await clerk.earn(REQUESTER, 20)
            await clerk.cancel(await clerk.ask_one(payer=payer))
            jobs = [await clerk.ask_one(payer=payer) for _ in range(6)]
            leases = [await clerk.lease(job, number % 3) for number, job in enumerate(jobs[1:])]
            await clerk.happen(leases[1].job, Opened(), 1)
            await clerk.receive(clerk.receipt(leases[2]))
            await clerk.acknowledge(clerk.receipt(leases[3]))
            await clerk.happen(leases[4].job, WorkerFailed("gone"))
            await store.seal(clerk.now)
            before = await everything(store)
        async with backend.open() as store:
            assert await everything(store) == before
            clerk.store = store
            again = await clerk.acknowledge(clerk.receipt(leases[3]))
            assert again.settlement, "the same acknowledgement is answered as before"
            settled = await clerk.acknowledge(clerk.receipt(leases[2]))
            head = await store.ledger_head()
            assert open_document(parse(settled.settlement), Settlement).entry == head.size - 1
            assert await clerk.account(a_key(40)) == payer + 4, "accounts are numbered on"

    async def test_every_job_that_has_not_ended_stands_as_it_was_left(self, store, clerk):
        waiting = await clerk.ask_one()
        leased = await clerk.lease(await clerk.ask_one())
        delivered = await clerk.lease(await clerk.ask_one())
        receipt = clerk.receipt(delivered)
        await clerk.receive(receipt)
        settled = await clerk.lease(await clerk.ask_one())
        await clerk.acknowledge(clerk.receipt(settled))
        by_handle = {standing.job.handle: standing for standing in await store.live()}
        assert set(by_handle) == {waiting.handle, leased.job.handle, delivered.job.handle}
        assert by_handle[waiting.handle] == Standing(waiting, None)
        assert by_handle[leased.job.handle] == Standing(leased.job, leased.attempt, leased.document)
        standing = by_handle[delivered.job.handle]
        assert standing.attempt is not None
        assert (standing.job.state, standing.attempt.receipt) == (State.DELIVERED, receipt.digest)

    async def test_a_request_is_found_by_who_asked_and_by_what_name(self, store, clerk):
        request = clerk.request(a_public_part(n=2))
        jobs = (await clerk.ask(request=request)).jobs
        leased = await clerk.lease(jobs[0])
        settled = await clerk.acknowledge(clerk.receipt(leased))
        found = await store.standing_of_request(REQUESTER.public, request.nonce)
        assert found is not None
        digest, standings = found
        assert digest == signed(request).digest
        assert [standing.job.state for standing in standings] == [State.SETTLED, State.WAITING]
        assert [standing.settlement for standing in standings] == [settled.settlement, b""]
        assert standings[0].lease == leased.document
        assert await store.standing_of_request(worker_key(0).public, request.nonce) is None
        assert await store.standing_of_request(REQUESTER.public, a_nonce(4711)) is None

    async def test_a_request_is_open_until_its_last_job_has_ended(self, store, clerk):
        request = clerk.request(a_public_part(n=2))
        jobs = (await clerk.ask(request=request)).jobs
        await clerk.cancel(jobs[0], nonce=1)
        assert await store.open_requests(REQUESTER.public) == [(request.nonce, signed(request).digest)]
        await clerk.cancel(jobs[1], nonce=2)
        assert await store.open_requests(REQUESTER.public) == []

    async def test_a_job_is_seen_from_each_of_its_attempts(self, store, clerk):
        job = await clerk.ask_one()
        first = await clerk.lease(job, 1)
        waiting = (await clerk.happen(job, WorkerFailed("gone"))).outcome.job
        second = await clerk.lease(waiting, 2)
        for leased in (first, second):
            standing = await store.standing(job.handle, leased.attempt.attempt)
            assert standing is not None
            assert standing.attempt is not None
            assert (standing.attempt.worker, standing.lease) == (leased.attempt.worker, leased.document)
            assert standing.job.attempt == 2
        assert await store.standing(job.handle, 3) is None
        assert await store.standing(unknown_handle(), 1) is None

    @pytest.mark.parametrize("what", ["happen", "receive", "acknowledge", "deny", "silence"])
    async def test_what_is_said_of_an_unknown_job_is_refused(self, store, clerk, what):
        leased = await clerk.lease(await clerk.ask_one())
        unknown = but(open_document(parse(leased.document), Lease), job=unknown_handle())
        clerk.requesters[unknown.job] = REQUESTER
        made_up = type(leased)(leased.job, leased.attempt, signed(unknown).raw, 0)
        receipt = clerk.receipt(made_up)
        steps = {
            "happen": lambda: store.happen(unknown.job, 1, Accepted(), Rules(), NOW),
            "receive": lambda: clerk.receive(receipt),
            "acknowledge": lambda: clerk.acknowledge(receipt, key=REQUESTER),
            "deny": lambda: clerk.deny(made_up),
            "silence": lambda: store.silence(unknown.job, Rules(), NOW),
        }
        with pytest.raises(UnknownJob):
            await steps[what]()
