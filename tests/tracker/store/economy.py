"""What every store promises of the economy: pay that waits, trust, shares of the mint, transfers, awards, gifts.

A store's own test file is little more than the fixture `backend`, as for `contract`.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest

from protocol import prices
from protocol.documents import Lease, Settlement, open_document
from protocol.envelope import parse
from protocol.errors import (
    BadValue,
    Equivocation,
    Late,
    NoKudos,
    NotAllowed,
    NotRegistered,
    TooFarAhead,
    UnknownAccount,
)
from protocol.postings import ANONYMOUS, MINT, WITHHELD
from protocol.rules import EarningSection, MintSection, Rules, TransfersSection
from tests.support.builders import (
    DAY,
    HOUR,
    IMAGE_MODEL,
    NOW,
    REQUESTER,
    SERVING,
    a_key,
    a_nonce,
    a_public_part,
    a_transfer,
    an_award,
    but,
    signed,
)
from tests.support.clerk import Clerk, worker_key
from tests.tracker.store.contract import Backend
from tracker.earning import Missing
from tracker.ledger import day_of
from tracker.store.base import SHOWN_AWARDS, Awarded, Choice, Gifts, Store

PUBLIC = a_public_part()
PRICE = prices.price(Rules(), PUBLIC.work, IMAGE_MODEL)
TAX = prices.tax(Rules())
ONE = MintSection(owners=1)
PROBATION = Rules(mint=ONE, earning=EarningSection(withheld=400, trust_jobs=3, trust_days=2, fault_days=5))
NONE = EarningSection(withheld=0)
OPEN_HANDED = Rules(mint=ONE, earning=NONE, transfers=TransfersSection(mode="on"))
HELD_BACK = PRICE * 400 // 1000
ANYBODY = a_key(77)


class EconomyContract:
    """The promises of `tracker.store.base.Store`, as far as kudos comes and goes beside jobs."""

    @pytest.fixture
    def rules(self) -> Rules:
        return PROBATION

    @pytest.fixture
    async def store(self, backend: Backend, rules: Rules) -> AsyncIterator[Store]:
        backend.create(rules)
        async with backend.open() as store:
            yield store

    @pytest.fixture
    async def clerk(self, store: Store) -> Clerk:
        return await Clerk.at(store)

    # Probation

    async def test_a_part_of_a_new_owners_pay_waits_and_the_settlement_says_how_much(self, store, clerk):
        leased = await clerk.lease(await clerk.ask_one())
        happened = await clerk.acknowledge(clerk.receipt(leased))
        said = open_document(parse(happened.settlement), Settlement)
        assert (said.minted, said.withheld) == (PRICE, HELD_BACK)
        owner = await clerk.account(worker_key(0))
        state = await store.account(owner, clerk.now)
        assert (state.balance, state.withheld, state.earned) == (PRICE - HELD_BACK, HELD_BACK, PRICE)
        assert state.missing == Missing(jobs=2, days=2)
        assert await clerk.balance(WITHHELD) == HELD_BACK

    async def test_the_settlement_that_completes_the_trust_is_paid_whole_and_all_that_waited_with_it(
        self, store, clerk
    ):
        owner = await clerk.earn(worker_key(0), 2)
        assert (await store.account(owner, clerk.now)).withheld == 2 * HELD_BACK
        clerk.now += 2 * DAY
        await clerk.earn(worker_key(0), 1)
        state = await store.account(owner, clerk.now)
        assert (state.balance, state.withheld, state.missing) == (3 * PRICE, 0, Missing())
        assert await clerk.balance(WITHHELD) == 0

    async def test_trust_may_come_with_the_day_alone(self, store, clerk):
        owner = await clerk.earn(worker_key(0), 4)
        assert await store.vest(owner, clerk.now) == 0
        clerk.now += 2 * DAY - 1
        assert await store.vest_all(clerk.now) == 0
        clerk.now += 1
        assert await store.vest_all(clerk.now) == 1
        assert await clerk.balance(owner) == 4 * PRICE
        assert await store.vest(owner, clerk.now) == 0
        size = (await store.ledger_head()).size
        assert await store.vest_all(clerk.now) == 0
        assert (await store.ledger_head()).size == size

    async def test_trust_stays_whatever_comes(self, store, clerk):
        owner = await clerk.earn(worker_key(0), 3)
        clerk.now += 2 * DAY
        assert await store.vest(owner, clerk.now)
        await clerk.deny(await clerk.lease(await clerk.ask_one()))
        await clerk.earn(worker_key(0), 1)
        state = await store.account(owner, clerk.now)
        assert (state.withheld, state.missing, state.faults) == (0, Missing(), 0)

    @pytest.mark.parametrize("held", [False, True])
    async def test_a_refund_stands_against_the_owner_for_some_days(self, store, clerk, held):
        owner = await clerk.account(worker_key(0))
        payer = await clerk.earn(ANYBODY, 1) if held else ANONYMOUS
        requester = ANYBODY if held else REQUESTER
        await clerk.deny(await clerk.lease(await clerk.ask_one(requester=requester, payer=payer)))
        clerk.now += 2 * DAY
        await clerk.earn(worker_key(0), 3)
        state = await store.account(owner, clerk.now)
        assert (state.faults, state.missing, state.withheld) == (1, Missing(fault_days=3), 3 * HELD_BACK)
        clerk.now += 3 * DAY
        state = await store.account(owner, clerk.now)
        assert (state.faults, state.missing) == (0, Missing())
        assert await store.vest(owner, clerk.now) == 3 * HELD_BACK

    async def test_ones_own_denial_of_ones_own_worker_is_no_fault(self, store, clerk):
        owner = await clerk.account(worker_key(0))
        leased = await clerk.lease(await clerk.ask_one(requester=worker_key(0), payer=owner))
        await clerk.deny(leased)
        assert (await store.account(owner, clerk.now)).faults == 0

    # Shares of the mint

    @pytest.mark.parametrize("rules", [Rules(mint=MintSection(owners=3), earning=NONE)])
    async def test_nothing_is_minted_where_too_few_owners_could_have_served(self, clerk):
        choice = await clerk.choice()
        for owners, free in ((2, 0), (3, PRICE)):
            job = await clerk.ask_one()
            leased = await clerk.store.lease(
                job.handle, 0, Choice(choice.worker, choice.owner, choice.model, owners), clerk.rules, clerk.now
            )
            assert leased is not None
            lease = open_document(parse(leased.document), Lease)
            assert (lease.owners, lease.price, lease.free) == (owners, PRICE, free)

    @pytest.mark.parametrize(
        "rules", [Rules(mint=but(ONE, daily=10 * PRICE, owner_share=250, asker_share=1_000), earning=NONE)]
    )
    async def test_no_owner_gets_more_than_its_share_of_the_day(self, store, clerk):
        first = await clerk.earn(worker_key(0), 4)
        second = await clerk.earn(worker_key(1), 4)
        assert [await clerk.balance(owner) for owner in (first, second)] == [PRICE * 10 // 4] * 2
        clerk.now += DAY
        await clerk.earn(worker_key(0), 1)
        assert await clerk.balance(first) == PRICE * 10 // 4 + PRICE, "the next day has a share of its own"

    @pytest.mark.parametrize(
        "rules", [Rules(mint=but(ONE, daily=10 * PRICE, owner_share=1_000, asker_share=150), earning=NONE)]
    )
    async def test_for_no_asker_more_is_minted_than_its_share_of_the_day(self, clerk):
        payer = await clerk.account(ANYBODY)
        owner = await clerk.account(worker_key(0))
        for origin, asker in (("203.0.113.0/24", ANONYMOUS), ("198.51.100.0/24", ANONYMOUS), (str(payer), payer)):
            before = await clerk.balance(owner)
            for _ in range(3):
                admitted = await clerk.ask(payer=asker, origin=origin, requester=ANYBODY)
                await clerk.acknowledge(clerk.receipt(await clerk.lease(admitted.jobs[0])))
            assert await clerk.balance(owner) - before == PRICE * 10 * 150 // 1000

    @pytest.mark.parametrize("rules", [Rules(mint=but(ONE, daily=10 * PRICE, owner_share=100), earning=NONE)])
    async def test_what_was_set_aside_of_a_share_comes_back_when_the_lease_is_lost(self, clerk):
        job = await clerk.ask_one()
        first = await clerk.lease(job)
        assert first.attempt.free == PRICE
        assert (await clerk.lease(await clerk.ask_one())).attempt.free == 0
        await clerk.deny(first)
        assert (await clerk.lease(await clerk.ask_one())).attempt.free == PRICE

    # Transfers

    async def give(self, clerk, to, amount, number=1, by=REQUESTER, **fields):
        said = but(a_transfer(to, amount, nonce=a_nonce(number), valid_until=clerk.now + HOUR // 2), **fields)
        await clerk.store.transfer(signed(said, by), said, clerk.now)
        return said

    @pytest.mark.parametrize("rules", [OPEN_HANDED])
    async def test_a_transfer_moves_kudos_once_however_often_it_is_sent(self, store, clerk):
        giver, taker = await clerk.earn(REQUESTER, 3), await clerk.account(ANYBODY)
        said = await self.give(clerk, taker, PRICE)
        size = (await store.ledger_head()).size
        clerk.now += DAY
        envelope = signed(said, REQUESTER)
        await asyncio.gather(*(store.transfer(envelope, said, clerk.now) for _ in range(3)))
        assert [await clerk.balance(one) for one in (giver, taker)] == [2 * PRICE, PRICE]
        assert (await store.ledger_head()).size == size
        assert (await store.account(taker, clerk.now)).earned == 0, "a gift is not earned"

    @pytest.mark.parametrize("rules", [OPEN_HANDED])
    async def test_another_transfer_under_the_same_nonce_is_equivocation(self, clerk):
        await clerk.earn(REQUESTER, 3)
        taker = await clerk.account(ANYBODY)
        await self.give(clerk, taker, 5)
        with pytest.raises(Equivocation):
            await self.give(clerk, taker, 6)
        assert await clerk.balance(taker) == 5

    @pytest.mark.parametrize("rules", [OPEN_HANDED])
    async def test_a_transfer_that_cannot_be_is_refused_and_leaves_its_nonce_free(self, store, clerk):
        giver, taker = await clerk.earn(REQUESTER, 1), await clerk.account(ANYBODY)
        for refusal, fields in (
            (NoKudos, {"amount": PRICE + 1}),
            (BadValue, {"to": giver}),
            (UnknownAccount, {"to": 4_711}),
            (UnknownAccount, {"to": MINT}),
            (UnknownAccount, {"to": 2**62}),
            (UnknownAccount, {"to": 2**64 - 1}),
            (Late, {"valid_until": clerk.now - 1}),
            (TooFarAhead, {"valid_until": clerk.now + HOUR + 1}),
        ):
            with pytest.raises(refusal):
                await self.give(clerk, **{"to": taker, "amount": 5, **fields})
        with pytest.raises(NotRegistered):
            await self.give(clerk, taker, 5, by=a_key(78))
        await self.give(clerk, taker, PRICE)
        assert [await clerk.balance(one) for one in (giver, taker)] == [0, PRICE]

    @pytest.mark.parametrize(
        "rules",
        [Rules(mint=ONE, earning=NONE, transfers=TransfersSection(mode="limited", daily=3 * PRICE, age_days=2))],
    )
    async def test_limited_transfers_are_bounded_by_age_by_the_day_and_by_what_was_earned(self, clerk):
        giver, taker = await clerk.earn(REQUESTER, 7), await clerk.account(ANYBODY)
        with pytest.raises(NotAllowed, match="age_days"):
            await self.give(clerk, taker, 1)
        clerk.now += 2 * DAY
        await self.give(clerk, taker, 2 * PRICE, 1)
        with pytest.raises(NotAllowed, match="a day"):
            await self.give(clerk, taker, PRICE + 1, 2)
        await self.give(clerk, taker, PRICE, 2)
        clerk.now += DAY
        await self.give(clerk, taker, 3 * PRICE, 3)
        clerk.now += DAY
        with pytest.raises(NotAllowed, match="by serving"):
            await self.give(clerk, giver, 1, 4, by=ANYBODY)
        assert await clerk.balance(taker) == 6 * PRICE

    @pytest.mark.parametrize("rules", [Rules(mint=ONE, transfers=TransfersSection(mode="on"))])
    async def test_what_is_withheld_cannot_be_given(self, clerk):
        await clerk.earn(REQUESTER, 1)
        taker = await clerk.account(ANYBODY)
        with pytest.raises(NoKudos):
            await self.give(clerk, taker, PRICE)

    # Awards

    async def award(self, clerk, account, amount=50_000, number=1, **fields):
        said = but(an_award(account, amount, nonce=a_nonce(number), valid_until=clerk.now + HOUR // 2), **fields)
        await clerk.store.award(signed(said, SERVING), said, clerk.now)
        return said

    async def test_an_award_makes_kudos_once(self, store, clerk):
        account = await clerk.account(ANYBODY)
        said = await self.award(clerk, account)
        size = (await store.ledger_head()).size
        await store.award(signed(said, SERVING), said, clerk.now + DAY)
        state = await store.account(account, clerk.now)
        assert (state.balance, state.earned, state.withheld) == (50_000, 0, 0)
        assert await clerk.balance(MINT) == -50_000
        assert (await store.ledger_head()).size == size

    async def test_an_award_to_nobody_is_refused_and_makes_nothing(self, store, clerk):
        for number in (4_711, MINT, 2**64 - 1):
            with pytest.raises(UnknownAccount):
                await self.award(clerk, number)
        with pytest.raises(Late):
            await self.award(clerk, await clerk.account(ANYBODY), valid_until=clerk.now - 1)
        assert (await store.ledger_head()).size == 0

    async def test_the_newest_awards_can_be_read_and_no_more_are_kept(self, store, clerk):
        assert await store.awards() == []
        one, other = await clerk.account(ANYBODY), await clerk.account(REQUESTER)
        for number in range(SHOWN_AWARDS + 2):
            account = other if number % 2 else one
            await self.award(clerk, account, 1_000 + number, number + 1, reason=f"for help {number}")
        shown = await store.awards()
        assert len(shown) == SHOWN_AWARDS
        assert shown[0] == Awarded(other, 1_000 + number, day_of(clerk.now), f"for help {number}")
        assert shown[-1].reason == "for help 2"

    # Gifts

    async def test_what_contributors_leave_unspent_is_told_with_what_it_carried(self, store, clerk):
        assert await store.gifts() == Gifts()
        await clerk.earn(worker_key(0), 3)
        kept = 3 * (PRICE - HELD_BACK)
        assert await store.gifts() == Gifts(unspent=kept, jobs=3, kudos=3 * PRICE)
        payer = await clerk.account(ANYBODY)
        await self.award(clerk, payer, PRICE + TAX)
        paid = await clerk.lease(await clerk.ask_one(requester=ANYBODY, payer=payer))
        await clerk.acknowledge(clerk.receipt(paid))
        assert await store.gifts() == Gifts(unspent=kept + PRICE - HELD_BACK, jobs=3, kudos=3 * PRICE)

    async def test_a_job_that_was_not_stored_after_all_is_told_of_as_no_gift(self, store, clerk):
        leased = await clerk.lease(await clerk.ask_one())
        receipt = clerk.receipt(leased)
        other = clerk.receipt(leased, output=b"another")
        await asyncio.gather(clerk.acknowledge(receipt), clerk.acknowledge(other), return_exceptions=True)
        assert (await store.gifts()).jobs == 1

    async def test_all_of_it_is_there_when_the_store_is_opened_anew(self, backend, rules):
        backend.create(rules)
        async with backend.open() as store:
            clerk = await Clerk.at(store)
            owner = await clerk.earn(worker_key(0), 2)
            await clerk.deny(await clerk.lease(await clerk.ask_one()))
            await self.award(clerk, owner)
            before = await store.account(owner, NOW), await store.gifts()
        async with backend.open() as store:
            assert (await store.account(owner, NOW), await store.gifts()) == before
