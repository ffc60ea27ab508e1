"""What every store promises of accounts and of the keys that act for them; part of `contract.StoreContract`'s suite."""

import asyncio
from typing import Any

import pytest

from protocol import prices
from protocol.documents import Document, open_document
from protocol.envelope import Envelope
from protocol.errors import (
    BadInvite,
    BadValue,
    Equivocation,
    JobsUnderWay,
    Late,
    NotAllowed,
    NotRegistered,
    OutOfTurn,
    OverLimit,
    UnknownAccount,
    WrongSigner,
)
from protocol.keys import SigningKey
from protocol.postings import BURN
from protocol.rules import Rules
from tests.support.builders import (
    DELEGATE,
    HOUR,
    IMAGE_MODEL,
    NOW,
    RECOVERY,
    REQUESTER,
    SUCCESSOR,
    a_delegation_to,
    a_digest,
    a_key,
    a_leaving,
    a_nonce,
    a_profile,
    a_public_part,
    a_recovery,
    a_request,
    a_revocation,
    a_rotation,
    but,
    signed,
)
from tests.support.clerk import worker_key
from tracker.accounts import MAX_DELEGATIONS, NOBODY, invite_hash
from tracker.store.base import Store

PUBLIC = a_public_part()
COST = prices.price(Rules(), PUBLIC.work, IMAGE_MODEL) + prices.tax(Rules())


async def take(store: Store, document: Document, key: SigningKey = REQUESTER, now: int = NOW) -> Envelope:
    """Hand a document about an account to the store."""
    envelope = signed(document, key)
    steps: dict[str, Any] = {
        "profile": store.profile,
        "delegation": store.delegate,
        "revocation": store.revoke,
        "recovery": store.name_recovery,
        "leaving": store.leave,
    }
    await steps[document.KIND](envelope, document, now)
    return envelope


async def rotate(
    store: Store, key: SigningKey = REQUESTER, *, to: SigningKey = SUCCESSOR, sender: SigningKey | None = None, now=NOW
) -> bytes:
    said = a_rotation(REQUESTER, to)
    return await store.rotate(signed(said, key), said, sender=(sender or to).public, now=now)


class PeopleContract:
    """The promises of `tracker.store.base.Store` about people."""

    @pytest.fixture
    async def owner(self, store: Store) -> int:
        return await store.register(REQUESTER.public, NOW)

    # Invitations

    async def test_a_code_makes_one_account_and_a_refused_one_none(self, store):
        await store.add_invites([invite_hash("one"), invite_hash("two")], NOW)
        for code in ("", "three"):
            with pytest.raises(BadInvite):
                await store.register(REQUESTER.public, NOW, code)
        number = await store.register(REQUESTER.public, NOW, "One")
        assert await store.register(REQUESTER.public, NOW, "") == number, "who has an account needs no code"
        with pytest.raises(BadInvite, match="used"):
            await store.register(a_key(50).public, NOW, "one")
        assert await store.account_of(a_key(50).public) == 0
        assert await store.register(a_key(50).public, NOW, "two") == number + 1

    async def test_of_many_that_use_one_code_at_once_one_gets_in(self, store):
        await store.add_invites([invite_hash("one")], NOW)
        tries = (store.register(a_key(number).public, NOW, "one") for number in range(40, 50))
        found = await asyncio.gather(*tries, return_exceptions=True)
        assert [type(result) for result in found if not isinstance(result, int)] == [BadInvite] * 9

    # Profiles

    async def test_a_higher_profile_replaces_and_the_same_again_changes_nothing(self, store, owner):
        first = await take(store, a_profile("Ada"))
        second = await take(store, a_profile("Ada L", version=2, service=True))
        await store.profile(second, a_profile("Ada L", version=2, service=True), NOW)
        face = await store.face(owner)
        assert (face.name, face.version, face.service, face.public) == ("Ada L", 2, True, False)
        with pytest.raises(OutOfTurn):
            await store.profile(first, a_profile("Ada"), NOW)
        with pytest.raises(Equivocation):
            await take(store, a_profile("Another", version=2))
        assert await store.face(owner) == face

    async def test_pages_are_of_public_accounts_and_services(self, store, owner):
        assert await store.page(owner, NOW) is None
        assert await store.page(owner + 1, NOW) is None
        await take(store, a_profile("Ada"))
        assert await store.page(owner, NOW) is None
        assert await store.public([owner, owner + 1]) == set()
        await take(store, a_profile("Ada", version=2, public=True))
        assert await store.public([owner, owner + 1]) == {owner}
        page = await store.page(owner, NOW)
        assert page is not None
        assert (page.face.name, page.state.number) == ("Ada", owner)
        assert await store.services(NOW, 0, 9) == []
        await take(store, a_profile("Ada", version=3, service=True))
        assert [page.state.number for page in await store.services(NOW, 0, 9)] == [owner]
        assert await store.public([owner]) == {owner}
        other = a_key(50)
        number = await store.register(other.public, NOW)
        await take(store, a_profile("Bea", service=True), other)
        for after, most, found in ((0, 9, [owner, number]), (0, 1, [owner]), (owner, 9, [number]), (number, 9, [])):
            assert [page.state.number for page in await store.services(NOW, after, most)] == found
        assert await store.page(owner, NOW) is not None

    # Delegations

    async def test_a_delegate_acts_for_the_account_until_it_is_revoked(self, store, owner):
        delegation = await take(store, a_delegation_to(ask=True, label="attic"))
        acting = await store.acting(DELEGATE.public, NOW)
        assert (acting.account, acting.grant.digest, acting.grant.terms.label) == (owner, delegation.digest, "attic")
        assert await store.register(DELEGATE.public, NOW) == owner, "it gets no account of its own"
        [granted] = await store.granted(owner, NOW)
        assert (granted.digest, granted.used, granted.document) == (delegation.digest, 0, delegation.raw)
        revocation = a_revocation(delegation.digest)
        envelope = signed(revocation)
        assert await store.revoke(envelope, revocation, NOW + 1) == DELEGATE.public
        assert await store.acting(DELEGATE.public, NOW + 1) == NOBODY
        assert await store.granted(owner, NOW + 1) == []
        await store.revoke(envelope, revocation, NOW + 2 * HOUR)
        await store.delegate(delegation, open_document(delegation, type(granted.terms)), NOW + 2 * HOUR)
        assert await store.acting(DELEGATE.public, NOW + 2) == NOBODY, "what was taken back does not come again"

    async def test_a_delegation_that_has_expired_is_in_nobodys_way(self, store, owner):
        await take(store, a_delegation_to(ask=True, expires=NOW + 5))
        assert (await store.acting(DELEGATE.public, NOW + 5)).account == owner
        assert await store.acting(DELEGATE.public, NOW + 6) == NOBODY
        assert await store.granted(owner, NOW + 6) == []
        number = await store.register(DELEGATE.public, NOW + 6)
        assert number != owner
        assert (await store.acting(DELEGATE.public, NOW + 6)).account == number

    async def test_who_has_an_account_or_acts_for_another_one_is_no_delegate(self, store, owner):
        other = a_key(50)
        await store.register(other.public, NOW)
        with pytest.raises(NotAllowed):
            await take(store, a_delegation_to(other, ask=True))
        await take(store, a_delegation_to(ask=True))
        with pytest.raises(NotAllowed):
            await take(store, a_delegation_to(ask=True, nonce=a_nonce(50)), other)
        with pytest.raises(NotAllowed, match="own key"):
            await take(store, a_profile("Mine"), DELEGATE)
        with pytest.raises(NotRegistered):
            await take(store, a_profile("Mine"), a_key(51))
        with pytest.raises(UnknownAccount):
            await take(store, a_revocation(a_digest("none")))

    async def test_a_key_that_was_somebody_elses_is_no_delegate(self, store, owner):
        """Requesters know a worker's key. Who could make it his delegate would be paid for what it does next."""
        other, machine, gone = a_key(50), a_key(51), a_key(52)
        await store.register(other.public, NOW)
        worked = await take(store, a_delegation_to(machine, work=True))
        await take(store, a_revocation(worked.digest))
        await take(store, a_delegation_to(a_key(53), work=True, expires=NOW + 5, nonce=a_nonce(53)))
        await store.register(gone.public, NOW)
        await take(store, a_leaving(), gone)
        await rotate(store, now=NOW + 6)
        for number, key in enumerate((machine, a_key(53), gone, REQUESTER), 60):
            with pytest.raises(NotAllowed, match="fresh key"):
                await take(store, a_delegation_to(key, work=True, nonce=a_nonce(number)), other, NOW + 6)
            assert await store.acting(key.public, NOW + 6) == NOBODY
        for number, key in enumerate((machine, REQUESTER), 70):  # to the account itself it may come back
            await take(store, a_delegation_to(key, work=True, nonce=a_nonce(number)), SUCCESSOR, NOW + 6)
            assert (await store.acting(key.public, NOW + 6)).account == owner

    async def test_an_end_before_all_time_is_no_end_at_all(self, store, owner):
        with pytest.raises(NotAllowed, match="later end"):
            await take(store, a_delegation_to(ask=True, expires=-1))
        assert await store.acting(DELEGATE.public, NOW) == NOBODY

    async def test_a_newer_delegation_replaces_the_one_before_and_counts_anew(self, store, clerk):
        owner = await clerk.earn(REQUESTER, 4)
        await take(store, a_delegation_to(ask=True, kudos=5_000))
        await clerk.ask_one(requester=DELEGATE, payer=owner)
        await take(store, a_delegation_to(ask=True, kudos=5_000, nonce=a_nonce(50)))
        [granted] = await store.granted(owner, clerk.now)
        assert granted.used == 0

    async def test_only_so_many_delegations_stand_at_once(self, store, owner):
        for number in range(MAX_DELEGATIONS):
            await take(store, a_delegation_to(a_key(5_000 + number), ask=True, nonce=a_nonce(5_000 + number)))
        with pytest.raises(OverLimit):
            await take(store, a_delegation_to(ask=True))
        assert len(await store.granted(owner, NOW)) == MAX_DELEGATIONS

    async def test_what_goes_back_can_be_spent_again_through_a_delegation(self, store, clerk):
        owner = await clerk.earn(REQUESTER, 8)
        await take(store, a_delegation_to(ask=True, kudos=COST + 1_000))
        first = await clerk.ask_one(requester=DELEGATE, payer=owner)
        second = await clerk.ask_one(requester=DELEGATE, payer=owner)
        assert (first.held, second.held) == (COST, 1_000)
        [granted] = await store.granted(owner, clerk.now)
        assert granted.used == await store.used(granted.digest) == COST + 1_000
        await clerk.cancel(first)
        assert [granted.used for granted in await store.granted(owner, clerk.now)] == [1_000]
        leased = await clerk.lease(second)
        await clerk.acknowledge(clerk.receipt(leased))
        assert [granted.used for granted in await store.granted(owner, clerk.now)] == [1_000]
        third = await clerk.ask_one(requester=DELEGATE, payer=owner)
        assert third.held == COST

    async def test_a_request_beyond_its_delegation_is_refused_and_stores_nothing(self, store, clerk):
        owner = await clerk.account()
        await take(store, a_delegation_to(ask=True, max_steps=1))
        before = await store.account(owner, clerk.now)
        with pytest.raises(NotAllowed):
            await clerk.ask_one(requester=DELEGATE, payer=owner)
        assert await store.open_requests(DELEGATE.public) == []
        assert await store.account(owner, clerk.now) == before

    async def test_nobody_asks_for_an_account_that_it_does_not_act_for(self, store, clerk):
        owner = await clerk.account()
        with pytest.raises(NotAllowed):
            await clerk.ask_one(requester=DELEGATE, payer=owner)

    async def test_a_pseudonym_is_taken_from_services_only(self, store, clerk):
        owner = await clerk.account()
        request = but(a_request(), user=bytes(16))
        with pytest.raises(BadValue):
            await clerk.ask(request=request, payer=owner)
        await take(store, a_profile("Ada", service=True))
        assert len((await clerk.ask(request=request, payer=owner)).jobs) == 1

    async def test_a_worker_that_lost_its_account_gets_no_lease(self, store, clerk):
        owner = await clerk.account()
        job = await clerk.ask_one()
        delegation = await take(store, a_delegation_to(worker_key(9), work=True))
        choice = but_owner(await clerk.choice(0), worker_key(9), owner)
        await take(store, a_revocation(delegation.digest))
        with pytest.raises(NotAllowed):
            await store.lease(job.handle, job.attempt, choice, clerk.rules, clerk.now)
        admitted = await clerk.ask(request=clerk.request(), choices=[choice])
        assert admitted.leases == {}
        assert await clerk.try_lease(job) is not None

    # Recovery and rotation

    async def test_the_former_key_signs_the_new_one_and_the_account_goes_on(self, store, owner):
        await take(store, a_profile("Ada"))
        await take(store, a_delegation_to(ask=True))
        assert await rotate(store, now=NOW + 1) == REQUESTER.public
        assert await store.acting(REQUESTER.public, NOW + 1) == NOBODY
        assert (await store.acting(SUCCESSOR.public, NOW + 1)).account == owner
        assert (await store.acting(DELEGATE.public, NOW + 1)).account == owner
        assert (await store.face(owner)).name == "Ada"
        assert await rotate(store, now=NOW + 2 * HOUR) == REQUESTER.public, "the same again"
        assert (await store.acting(SUCCESSOR.public, NOW + 1)).account == owner
        with pytest.raises(NotRegistered):
            await take(store, a_profile("Thief", version=9))

    async def test_a_rotation_is_taken_by_former_or_recovery_key_in_the_session_of_the_new_one(self, store, owner):
        with pytest.raises(WrongSigner, match="session"):
            await rotate(store, sender=REQUESTER)
        with pytest.raises(WrongSigner):
            await rotate(store, SUCCESSOR)
        with pytest.raises(WrongSigner):
            await rotate(store, RECOVERY)
        said = a_rotation(a_key(50), SUCCESSOR)
        with pytest.raises(NotRegistered):
            await store.rotate(signed(said, a_key(50)), said, sender=SUCCESSOR.public, now=NOW)
        await take(store, a_recovery())
        await rotate(store, RECOVERY)
        assert (await store.acting(SUCCESSOR.public, NOW)).account == owner

    async def test_the_recovery_key_names_any_key_that_the_account_had(self, store, owner):
        await take(store, a_recovery())
        await rotate(store, now=NOW + 1)
        third = a_key(60)
        said = but(a_rotation(REQUESTER, third), nonce=a_nonce(60))
        with pytest.raises(WrongSigner):
            await store.rotate(signed(said, REQUESTER), said, sender=third.public, now=NOW + 2)
        await store.rotate(signed(said, RECOVERY), said, sender=third.public, now=NOW + 2)
        assert (await store.acting(third.public, NOW + 2)).account == owner
        assert await store.acting(SUCCESSOR.public, NOW + 2) == NOBODY

    async def test_a_recovery_key_that_is_the_accounts_own_is_refused(self, store, owner):
        with pytest.raises(NotAllowed):
            await take(store, a_recovery(REQUESTER))
        await take(store, a_recovery())
        with pytest.raises(NotAllowed, match="recovery key"):
            await rotate(store, RECOVERY, to=RECOVERY)

    async def test_a_delegate_hears_that_only_the_accounts_own_key_is_rotated(self, store, owner):
        await take(store, a_delegation_to(ask=True))
        said = a_rotation(DELEGATE, SUCCESSOR)
        with pytest.raises(NotAllowed, match=f"acts for account {owner} by a delegation"):
            await store.rotate(signed(said, DELEGATE), said, sender=SUCCESSOR.public, now=NOW)

    async def test_jobs_of_the_former_key_stay_its_own(self, store, clerk):
        owner = await clerk.earn(REQUESTER, 4)
        job = await clerk.ask_one(payer=owner)
        leased = await clerk.lease(job)
        await rotate(store)
        happened = await clerk.acknowledge(clerk.receipt(leased))
        assert happened.settlement
        assert (await store.account(owner, clerk.now)).held == 0

    # Leaving

    async def test_leaving_burns_what_is_left_and_ends_everything(self, store, clerk):
        owner = await clerk.earn(REQUESTER, 3)
        balance = await clerk.balance(owner)
        await take(store, a_profile("Ada", public=True))
        await take(store, a_delegation_to(ask=True))
        burned = (await store.account(BURN, clerk.now)).balance
        said = a_leaving()
        envelope = signed(said)
        assert set(await store.leave(envelope, said, NOW)) == {REQUESTER.public, DELEGATE.public}
        assert (await store.account(BURN, clerk.now)).balance == burned + balance
        assert await clerk.balance(owner) == 0
        for key in (REQUESTER, DELEGATE):
            assert await store.acting(key.public, NOW) == NOBODY
        assert await store.page(owner, NOW) is None
        assert await store.leave(envelope, said, NOW + 2 * HOUR) == []
        assert await store.register(REQUESTER.public, NOW + 1) > owner

    async def test_leaving_waits_for_jobs_that_are_under_way(self, store, clerk):
        asks = await clerk.account()
        serves = await clerk.account(worker_key(0))
        leased = await clerk.lease(await clerk.ask_one(payer=asks), 0)
        for key in (REQUESTER, worker_key(0)):
            with pytest.raises(JobsUnderWay):
                await take(store, a_leaving(), key)
        await clerk.acknowledge(clerk.receipt(leased))
        for key in (REQUESTER, worker_key(0)):
            await take(store, a_leaving(), key)
        assert await clerk.balance(asks) == await clerk.balance(serves) == 0

    async def test_an_account_with_nothing_leaves_an_entry_too(self, store, owner):
        before = (await store.ledger_head()).size
        await take(store, a_leaving())
        assert (await store.ledger_head()).size == before + 1

    async def test_documents_that_come_too_late_are_refused(self, store, owner):
        for document in (a_delegation_to(ask=True), a_revocation(), a_leaving()):
            with pytest.raises(Late):
                await take(store, document, now=NOW + HOUR)
        with pytest.raises(Late):
            await rotate(store, now=NOW + HOUR)
        assert (await store.acting(REQUESTER.public, NOW)).account == owner


def but_owner(choice, key: SigningKey, owner: int):
    """The choice of another worker."""
    return type(choice)(key.public, owner, choice.model)
