"""What every store promises of moderators' acts. A store's own test file is little more than the fixture `backend`."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from protocol.envelope import Envelope
from protocol.errors import (
    BadValue,
    Equivocation,
    NoKudos,
    NotAllowed,
    NotRegistered,
    OverLimit,
    Suspended,
    UnknownAccount,
    UnknownAct,
    WrongSigner,
)
from protocol.governing import Act
from protocol.keys import SigningKey, show_key
from protocol.postings import BURN
from protocol.rules import EarningSection, ModerationSection, RolesSection, Rules
from tests.support.builders import (
    DAY,
    NOW,
    a_delegation_to,
    a_key,
    a_leaving,
    a_nonce,
    a_rotation,
    a_transfer,
    an_act,
    an_appeal,
    an_award,
    but,
    signed,
)
from tests.support.clerk import Clerk, worker_key
from tests.support.rules import plain
from tests.tracker.store.contract import Backend
from tracker.store.base import Acted, Logged, Store

ONE, OTHER, OPERATOR = a_key(501), a_key(502), a_key(503)
HALF = 500 - 1  # another than the default, which tests switch off


class Moderators:
    """Signs acts and hands them to the store, each with a nonce of its own."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.now = NOW
        self.count = 5_000

    def sign(self, act: str, key: SigningKey = ONE, **fields: Any) -> tuple[Envelope, Act]:
        self.count += 1
        said = an_act(act, **{"nonce": a_nonce(self.count), "valid_until": self.now + 1000, **fields})
        return signed(said, key), said

    async def do(self, act: str, key: SigningKey = ONE, **fields: Any) -> Envelope:
        envelope, said = self.sign(act, key, **fields)
        await self.store.act(envelope, said, self.now)
        return envelope

    async def log(self) -> list[Logged]:
        return list(await self.store.acts(self.now, 2**40, 100))

    async def standing(self) -> list[str]:
        return [one.act.act for one in await self.store.sanctions(self.now)]


class ModerationContract:
    """The promises of `Store.act`, `appeal` and what they are asked for."""

    @pytest.fixture
    def rules(self) -> Rules:
        roles = RolesSection(
            moderators=(show_key(ONE.public), show_key(OTHER.public)), operators=(show_key(OPERATOR.public),)
        )
        return plain(
            Rules(roles=roles, moderation=ModerationSection(return_alone=1000), earning=EarningSection(withheld=HALF))
        )

    @pytest.fixture
    async def store(self, backend: Backend, rules: Rules) -> AsyncIterator[Store]:
        backend.create(rules)
        async with backend.open() as store:
            yield store

    @pytest.fixture
    async def account(self, store: Store) -> int:
        """An account that has earned something."""
        return await (await Clerk.at(store)).earn(worker_key(0), 3)

    @pytest.fixture
    def moderators(self, store: Store) -> Moderators:
        return Moderators(store)

    async def test_an_act_stands_in_the_log_and_in_the_ledger_and_the_same_again_changes_nothing(
        self, store, account, moderators
    ):
        envelope, said = moderators.sign("warn", account=account)
        before = (await store.ledger_head()).size
        assert await store.act(envelope, said, NOW) == await store.act(envelope, said, NOW) == Acted(1, account)
        assert (await store.ledger_head()).size == before + 1
        [found] = await moderators.log()
        assert (found.number, found.kind, found.account, found.state) == (1, "warn", account, "stands")
        assert found.document == envelope.raw
        assert await store.acts_of(account, NOW, 9) == [found]

    async def test_only_keys_with_a_role_act(self, store, account, moderators):
        with pytest.raises(NotAllowed, match="no moderator's"):
            await moderators.do("warn", a_key(504), account=account)
        await moderators.do("warn", OPERATOR, account=account)
        rules = (await store.rules_in_force()).rules
        await store.publish_rules(plain(), NOW + 1)
        moderators.now += 2
        with pytest.raises(NotAllowed):
            await moderators.do("warn", ONE, account=account)
        await store.publish_rules(rules, NOW + 3)
        moderators.now += 2
        await moderators.do("warn", ONE, account=account)

    async def test_acts_on_nobody_are_refused(self, moderators, account):
        for act, fields in (
            ("warn", {"account": account + 7}),
            ("return", {"account": account, "amount": 1, "to": account + 7}),
        ):
            with pytest.raises(UnknownAccount):
                await moderators.do(act, **fields)
        with pytest.raises(BadValue, match="a moment to come"):
            await moderators.do("suspend", account=account, until=NOW)
        for act in ("lift", "agree", "uphold"):
            with pytest.raises(UnknownAct):
                await moderators.do(act, about=bytes(32))
        assert await moderators.log() == []

    async def test_what_keeps_somebody_from_something_ends_by_itself_or_when_it_is_lifted(
        self, store, account, moderators
    ):
        await moderators.do("suspend", account=account, until=NOW + DAY)
        limit = await moderators.do("limit", account=account, open_jobs=2)
        await moderators.do("block", block="192.0.2.0/24", until=NOW + 2 * DAY)
        assert await moderators.standing() == ["suspend", "limit", "block"]
        moderators.now += DAY + 1
        assert await moderators.standing() == ["limit", "block"]
        await moderators.do("lift", OTHER, about=limit.digest)
        assert await moderators.standing() == ["block"]
        assert [(one.kind, one.state) for one in await moderators.log()] == [
            ("lift", "stands"),
            ("block", "stands"),
            ("limit", "over"),
            ("suspend", "over"),
        ]
        with pytest.raises(UnknownAct, match="is over"):
            await moderators.do("lift", about=limit.digest)

    async def test_a_ban_needs_two_moderators(self, store, account, moderators):
        ban = await moderators.do("ban", account=account)
        assert await moderators.standing() == []
        assert [one.state for one in await moderators.log()] == ["proposed"]
        with pytest.raises(NotAllowed, match="a second one"):
            await moderators.do("agree", ONE, about=ban.digest)
        agreed = await moderators.do("agree", OTHER, about=ban.digest)
        assert await moderators.standing() == ["ban"]
        assert (await moderators.log())[1].agreed == agreed.digest
        with pytest.raises(UnknownAct, match="waits for no second"):
            await moderators.do("agree", OPERATOR, about=ban.digest)

    async def test_who_proposed_a_ban_must_still_have_its_role_when_the_second_agrees(
        self, store, rules, account, moderators
    ):
        ban = await moderators.do("ban", account=account)
        left = RolesSection(moderators=(show_key(OTHER.public),))
        moderators.now += 2
        await store.publish_rules(but(rules, roles=left), NOW + 1)
        with pytest.raises(NotAllowed):
            await moderators.do("agree", OTHER, about=ban.digest)
        await moderators.do("lift", OTHER, about=ban.digest)
        assert [one.state for one in await moderators.log()] == ["stands", "over"]

    async def test_a_ban_that_two_have_signed_is_lifted_by_two(self, store, account, moderators):
        ban = await moderators.do("ban", account=account)
        await moderators.do("agree", OTHER, about=ban.digest)
        said = an_appeal(ban.digest)
        await store.appeal(signed(said, worker_key(0)), said, NOW)
        first = await moderators.do("lift", about=ban.digest)
        assert await moderators.standing() == ["ban"], "one alone does not undo what two did"
        assert (await store.appeals(NOW, 9))[0], "nor does it answer an appeal"
        assert (await moderators.log())[0].state == "proposed"
        with pytest.raises(NotAllowed, match="a second one"):
            await moderators.do("agree", ONE, about=first.digest)
        await moderators.do("lift", OTHER, about=first.digest)
        with pytest.raises(UnknownAct):
            await moderators.do("agree", OTHER, about=first.digest)
        again = await moderators.do("lift", about=ban.digest)
        await moderators.do("agree", OTHER, about=again.digest)
        assert await moderators.standing() == []
        assert await store.appeals(NOW, 9) == ([], 0)
        found = {one.number: one for one in await moderators.log()}
        assert (found[1].state, found[1].ended_by) == ("over", again.digest)
        assert [found[number].state for number in (3, 5)] == ["over", "stands"]

    async def test_one_moderator_takes_a_ban_back_that_only_waits_and_lifts_one_where_one_is_enough(
        self, store, rules, account, moderators
    ):
        ban = await moderators.do("ban", account=account)
        await moderators.do("lift", OTHER, about=ban.digest)
        with pytest.raises(UnknownAct):
            await moderators.do("agree", OTHER, about=ban.digest)
        await store.publish_rules(but(rules, moderation=but(rules.moderation, signers=1)), NOW + 1)
        moderators.now += 2
        alone = await moderators.do("ban", account=account)
        assert await moderators.standing() == ["ban"]
        await moderators.do("lift", about=alone.digest)
        assert await moderators.standing() == []

    async def test_two_lifts_of_one_ban_that_both_wait_end_it_once(self, account, moderators):
        ban = await moderators.do("ban", account=account)
        await moderators.do("agree", OTHER, about=ban.digest)
        lifts = [await moderators.do("lift", key, about=ban.digest) for key in (ONE, OTHER)]
        await moderators.do("agree", OTHER, about=lifts[0].digest)
        with pytest.raises(UnknownAct, match="is over"):
            await moderators.do("agree", ONE, about=lifts[1].digest)

    async def test_two_keys_of_one_account_are_not_two_moderators(self, store, account, moderators):
        own = await store.register(ONE.public, NOW)
        said = a_delegation_to(OTHER)
        await store.delegate(signed(said, ONE), said, NOW)
        moderators.now += 2
        ban = await moderators.do("ban", account=account)
        with pytest.raises(NotAllowed, match=f"another key of account {own}"):
            await moderators.do("agree", OTHER, about=ban.digest)
        await moderators.do("agree", OPERATOR, about=ban.digest)

    async def test_a_key_that_was_rotated_away_is_still_its_accounts(self, store, account, moderators):
        own = await store.register(ONE.public, NOW)
        said = a_rotation(ONE, OTHER)
        await store.rotate(signed(said, ONE), said, sender=OTHER.public, now=NOW)
        moderators.now += 2
        for key in (ONE, OTHER):
            with pytest.raises(NotAllowed, match="another moderator"):
                await moderators.do("trust", key, account=own)
        ban = await moderators.do("ban", account=account)
        with pytest.raises(NotAllowed, match="another key of account"):
            await moderators.do("agree", OTHER, about=ban.digest)

    async def test_whoever_proposed_in_its_own_favour_gains_nothing_by_registering_later(
        self, store, account, moderators
    ):
        to = await store.register(a_key(505).public, NOW)
        proposed = await moderators.do("return", account=account, amount=1001, to=to)
        said = a_rotation(a_key(505), ONE)
        await store.rotate(signed(said, a_key(505)), said, sender=ONE.public, now=NOW)
        moderators.now += 2
        with pytest.raises(NotAllowed, match="another moderator"):
            await moderators.do("agree", OTHER, about=proposed.digest)

    async def test_whoever_is_suspended_gives_nothing_away_whatever_key_it_has_by_then(
        self, store, account, moderators
    ):
        to = await store.register(a_key(505).public, NOW)
        gift = a_transfer(to, 1)
        await moderators.do("suspend", account=account, until=NOW + 8 * DAY)
        said = a_rotation(worker_key(0), a_key(507))
        await store.rotate(signed(said, worker_key(0)), said, sender=a_key(507).public, now=NOW)
        with pytest.raises(Suspended, match="is suspended"):
            await store.transfer(signed(gift, a_key(507)), gift, NOW)
        late = a_transfer(to, 1, nonce=a_nonce(12), valid_until=NOW + 8 * DAY + 2)
        await store.transfer(signed(late, a_key(507)), late, NOW + 8 * DAY + 1)

    async def test_acts_on_who_has_left_can_be_answered_and_lifted(self, store, account, moderators):
        limit = await moderators.do("limit", account=account, open_jobs=1)
        said = an_appeal(limit.digest)
        await store.appeal(signed(said, worker_key(0)), said, NOW)
        left = a_leaving()
        await store.leave(signed(left, worker_key(0)), left, NOW)
        await moderators.do("uphold", about=limit.digest)
        assert await store.appeals(NOW, 9) == ([], 0)
        await moderators.do("lift", about=limit.digest)
        with pytest.raises(UnknownAccount):
            await moderators.do("warn", account=account)

    async def test_appeals_are_against_acts_and_not_against_words_on_them(self, store, account, moderators):
        warning = await moderators.do("warn", account=account)
        for word in (
            await moderators.do("uphold", about=warning.digest),
            await moderators.do("lift", about=warning.digest),
        ):
            said = an_appeal(word.digest)
            with pytest.raises(UnknownAct, match="appeal against the act"):
                await store.appeal(signed(said, worker_key(0)), said, NOW)

    async def test_only_operators_make_kudos(self, store, account):
        for key in (ONE, a_key(504), worker_key(0)):
            said = an_award(account=account)
            with pytest.raises(WrongSigner, match="no operator's"):
                await store.award(signed(said, key), said, NOW)

    async def test_kudos_are_returned_and_no_account_falls_below_zero(self, store, account, moderators):
        to = await store.register(a_key(505).public, NOW)
        balance = (await store.account(account, NOW)).balance
        await moderators.do("return", account=account, amount=1000, to=to)
        assert (await store.account(to, NOW)).balance == 1000
        rest = balance - 1000
        with pytest.raises(NoKudos, match="below zero"):
            await moderators.do("return", account=account, amount=rest + 1)
        burned = (await store.account(BURN, NOW)).balance
        proposed = await moderators.do("return", account=account, amount=rest)
        assert (await store.account(account, NOW)).balance == rest, "more than one may return alone"
        await moderators.do("agree", OTHER, about=proposed.digest)
        assert (await store.account(account, NOW)).balance == 0
        assert (await store.account(BURN, NOW)).balance == burned + rest
        with pytest.raises(UnknownAct, match="another return"):
            await moderators.do("lift", about=proposed.digest)

    async def test_a_second_signature_comes_too_late_for_kudos_that_are_gone(self, store, account, moderators):
        balance = (await store.account(account, NOW)).balance
        proposed = await moderators.do("return", account=account, amount=balance)
        await moderators.do("return", account=account, amount=1)
        with pytest.raises(NoKudos):
            await moderators.do("agree", OTHER, about=proposed.digest)
        assert [one.state for one in await moderators.log()] == ["stands", "proposed"]

    async def test_trust_makes_what_was_withheld_an_accounts_own_and_can_be_lifted(self, store, account, moderators):
        before = await store.account(account, NOW)
        assert before.withheld > 0
        assert before.missing
        trust = await moderators.do("trust", account=account)
        after = await store.account(account, NOW)
        assert (after.balance, after.withheld) == (before.balance + before.withheld, 0)
        assert not after.missing
        await moderators.do("lift", OTHER, about=trust.digest)
        assert (await store.account(account, NOW)).missing == before.missing

    async def test_nobody_decides_in_its_own_favour(self, store, account, moderators):
        own = await store.register(ONE.public, NOW)
        for act, fields in (("trust", {"account": own}), ("return", {"account": account, "amount": 1, "to": own})):
            with pytest.raises(NotAllowed, match="another moderator"):
                await moderators.do(act, **fields)
        limit = await moderators.do("limit", OTHER, account=own, open_jobs=1)
        with pytest.raises(NotAllowed, match="another moderator"):
            await moderators.do("lift", about=limit.digest)
        await moderators.do("lift", OTHER, about=limit.digest)

    async def test_an_account_appeals_and_is_answered(self, store, account, moderators):
        warning = await moderators.do("warn", account=account)
        appeals = [an_appeal(warning.digest, nonce=a_nonce(6_000 + n), text=f"word {n}") for n in range(4)]
        for one in appeals[:3]:
            assert await store.appeal(signed(one, worker_key(0)), one, NOW) == Acted(1, account)
            assert await store.appeal(signed(one, worker_key(0)), one, NOW) == Acted(1, account)
        with pytest.raises(OverLimit, match=r"moderation\.appeals"):
            await store.appeal(signed(appeals[3], worker_key(0)), appeals[3], NOW)
        found, more = await store.appeals(NOW, 2)
        assert ([one.account for one in found], more) == ([account] * 2, 1)
        assert found[0].about.appeals == 3
        await moderators.do("uphold", OTHER, about=warning.digest)
        assert await store.appeals(NOW, 2) == ([], 0)

    async def test_only_whom_an_act_concerns_appeals(self, store, account, moderators):
        warning = await moderators.do("warn", account=account)
        said = an_appeal(warning.digest)
        with pytest.raises(NotRegistered):
            await store.appeal(signed(said, a_key(506)), said, NOW)
        await store.register(a_key(506).public, NOW)
        with pytest.raises(UnknownAct, match="does not concern"):
            await store.appeal(signed(said, a_key(506)), said, NOW)

    async def test_two_acts_under_one_nonce_are_an_equivocation(self, store, account, moderators):
        await moderators.do("warn", account=account, nonce=a_nonce(9))
        with pytest.raises(Equivocation):
            await moderators.do("ban", account=account, nonce=a_nonce(9))

    async def test_an_award_stands_in_the_log_too(self, store, account, moderators):
        said = an_award(account=account)
        await store.award(signed(said, OPERATOR), said, NOW)
        assert [(one.kind, one.account) for one in await moderators.log()] == [("award", account)]
