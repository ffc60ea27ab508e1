"""What every store promises of proposals and votes. A store's own test file is little more than a fixture."""

from collections.abc import AsyncIterator

import pytest

from protocol.documents import open_document
from protocol.envelope import Envelope, parse
from protocol.errors import (
    BadValue,
    Equivocation,
    NotAllowed,
    NotRegistered,
    OutOfTurn,
    OverLimit,
    Suspended,
    UnknownAct,
    WrongSigner,
)
from protocol.governing import Outcome
from protocol.keys import SigningKey
from protocol.merkle import leaf_hash, root_of, verify_inclusion
from protocol.rules import Rules, VotesSection
from tests.support.builders import (
    DAY,
    SERVING,
    a_key,
    a_leaving,
    a_nonce,
    a_proposal,
    a_rotation,
    a_vote,
    an_act,
    an_answer,
    but,
    signed,
)
from tests.support.clerk import Clerk, worker_key
from tests.support.rules import plain
from tests.tracker.store.contract import Backend
from tracker.proposals import Proposed
from tracker.store.base import Store

WEEK = 7 * DAY
VOTES = VotesSection(standing=5_000, quorum=2)


class VotingContract:
    """The promises of `Store.propose`, `vote`, `end_votes` and `answer`. Three accounts have served, the last least."""

    @pytest.fixture
    def rules(self) -> Rules:
        return plain(Rules(votes=VOTES))

    @pytest.fixture
    async def store(self, backend: Backend, rules: Rules) -> AsyncIterator[Store]:
        backend.create(rules)
        async with backend.open() as store:
            yield store

    @pytest.fixture
    async def clerk(self, store: Store) -> Clerk:
        clerk = await Clerk.at(store)
        for number in range(3):
            await clerk.earn(worker_key(number), 2)
        await clerk.account(worker_key(3))
        return clerk

    async def propose(self, clerk: Clerk, number: int = 0, nonce: int = 1, **fields: str) -> Envelope:
        said = a_proposal(nonce=a_nonce(9_000 + nonce), valid_until=clerk.now + 1, **fields)
        envelope = signed(said, worker_key(number))
        await clerk.store.propose(envelope, said, clerk.now)
        return envelope

    async def vote(
        self, clerk: Clerk, proposal: Envelope, number: int, *, yes: bool = True, version: int = 1
    ) -> Envelope:
        said = a_vote(proposal.digest, yes=yes, version=version)
        envelope = signed(said, worker_key(number))
        await clerk.store.vote(envelope, said, clerk.now)
        return envelope

    async def only(self, clerk: Clerk) -> Proposed:
        [found] = await clerk.store.proposals(2**40, 9)
        return found

    async def end(self, clerk: Clerk) -> Outcome:
        clerk.now += WEEK + 1
        [raw] = await clerk.store.end_votes(clerk.now)
        envelope = parse(raw)
        envelope.verify()
        assert envelope.key == SERVING.public
        assert (await clerk.store.end_votes(clerk.now)) == []
        return open_document(envelope, Outcome)

    async def test_a_proposal_is_voted_on_by_who_had_a_voice_when_it_began(self, clerk):
        proposal = await self.propose(clerk)
        found = await self.only(clerk)
        assert (found.number, found.voices, found.was, found.until) == (1, 3, "20", clerk.now + WEEK)
        await clerk.earn(worker_key(3), 2)
        with pytest.raises(NotAllowed, match="when that began"):
            await self.vote(clerk, proposal, 3)
        with pytest.raises(UnknownAct):
            await self.vote(clerk, signed(a_proposal(), a_key(1)), 0)
        cast = [await self.vote(clerk, proposal, number, yes=number < 2) for number in range(3)]
        outcome = await self.end(clerk)
        assert (outcome.yes, outcome.no, outcome.accepted) == (2, 1, True)
        assert outcome.proposal == proposal.digest
        ballots = sorted(cast, key=lambda one: one.digest)
        assert outcome.root == root_of([leaf_hash(one.raw) for one in ballots])
        assert open_document(parse((await self.only(clerk)).outcome), Outcome) == outcome
        with pytest.raises(OutOfTurn, match="has ended"):
            await self.vote(clerk, proposal, 0, version=2)

    async def test_who_voted_can_be_shown_that_it_was_counted(self, clerk):
        proposal = await self.propose(clerk)
        first = await self.vote(clerk, proposal, 0, yes=False)
        cast = await self.vote(clerk, proposal, 0, version=2)
        await self.vote(clerk, proposal, 1)
        assert await clerk.store.proof_of_vote(cast) is None, "nothing is shown before the end"
        outcome = await self.end(clerk)
        place, size, proof = await clerk.store.proof_of_vote(cast)
        assert verify_inclusion(leaf_hash(cast.raw), place, size, proof, outcome.root)
        assert not verify_inclusion(leaf_hash(first.raw), place, size, proof, outcome.root)
        assert await clerk.store.proof_of_vote(first) is None

    async def test_one_account_has_one_vote_and_may_change_its_mind(self, clerk):
        proposal = await self.propose(clerk)
        await self.vote(clerk, proposal, 0)
        await self.vote(clerk, proposal, 0)
        await self.vote(clerk, proposal, 0, yes=False, version=3)
        with pytest.raises(OutOfTurn, match="raise its version"):
            await self.vote(clerk, proposal, 0, version=2)
        with pytest.raises(Equivocation):
            await self.vote(clerk, proposal, 0, yes=True, version=3)
        outcome = await self.end(clerk)
        assert (outcome.yes, outcome.no, outcome.accepted) == (0, 1, False)

    async def test_whoever_is_suspended_neither_proposes_nor_votes_meanwhile(self, clerk):
        proposal = await self.propose(clerk)
        account = await clerk.account(worker_key(1))
        said = an_act("suspend", account=account, until=clerk.now + DAY, valid_until=clerk.now + 1)
        await clerk.store.act(signed(said, SERVING), said, clerk.now)
        with pytest.raises(Suspended):
            await self.vote(clerk, proposal, 1)
        with pytest.raises(Suspended):
            await self.propose(clerk, 1, nonce=2)
        clerk.now += DAY + 1
        await self.vote(clerk, proposal, 1)

    async def test_a_vote_stays_cast_when_its_account_rotates_leaves_or_is_banned_and_a_new_key_may_change_it(
        self, clerk
    ):
        proposal = await self.propose(clerk)
        for number in range(3):
            await self.vote(clerk, proposal, number)
        rotation = a_rotation(worker_key(0), a_key(707), valid_until=clerk.now + 1)
        await clerk.store.rotate(signed(rotation, worker_key(0)), rotation, sender=a_key(707).public, now=clerk.now)
        with pytest.raises(NotRegistered):
            await self.vote(clerk, proposal, 0, version=2)
        again = a_vote(proposal.digest, yes=False, version=2)
        await clerk.store.vote(signed(again, a_key(707)), again, clerk.now)
        left = a_leaving(valid_until=clerk.now + 1)
        await clerk.store.leave(signed(left, worker_key(1)), left, clerk.now)
        await clerk.store.register(worker_key(1).public, clerk.now)
        with pytest.raises(NotAllowed, match="has no voice"):
            await self.vote(clerk, proposal, 1, yes=False, version=2)
        ban = an_act(
            "suspend", account=await clerk.account(worker_key(2)), until=clerk.now + 2 * WEEK, valid_until=clerk.now + 1
        )
        await clerk.store.act(signed(ban, SERVING), ban, clerk.now)
        outcome = await self.end(clerk)
        assert (outcome.yes, outcome.no) == (2, 1)

    async def test_as_many_for_as_against_change_nothing(self, clerk):
        proposal = await self.propose(clerk)
        for number in range(2):
            await self.vote(clerk, proposal, number, yes=bool(number))
        outcome = await self.end(clerk)
        assert (outcome.yes, outcome.no, outcome.accepted) == (1, 1, False)

    async def test_too_few_votes_change_nothing(self, clerk):
        proposal = await self.propose(clerk)
        await self.vote(clerk, proposal, 0)
        assert not (await self.end(clerk)).accepted

    async def test_only_who_has_a_voice_proposes_and_one_thing_at_once(self, clerk):
        with pytest.raises(NotAllowed, match="serve some more"):
            await self.propose(clerk, 3)
        await self.propose(clerk)
        await self.propose(clerk)
        with pytest.raises(OverLimit, match=r"votes\.proposals"):
            await self.propose(clerk, nonce=2)
        await self.propose(clerk, 1, nonce=2)
        clerk.now += 40 * DAY
        await clerk.store.end_votes(clerk.now)
        with pytest.raises(NotAllowed, match="within 30 days"):
            await self.propose(clerk, nonce=3)

    @pytest.mark.parametrize(
        ("key", "value", "why"),
        [
            ("limits.max_m", "3", "known are limits.max_pixels"),
            ("nonsense", "3", "known are horde"),
            ("limits.max_n", '"many"', "Expected `int`"),
            ("limits.max_n", "20", "already"),
            ("limits.max_n", "0", ">= 1"),
            ("limits.max_n", "}", "malformed"),
            ("limits.max_n", "[" * 1900 + "]" * 1900, "brackets far deeper"),
            ("limits.max_n", "1" + "0" * 60, "at most 1000000000000"),
            ("limits.max_n", "true", "Expected `int`"),
            ("horde.name", '"' + "x" * 61 + '"', "<= 60"),
            ("horde.name", "null", "Expected `str`"),
            ("prices.image_sizes", "[[5, 1], [3, 2]]", "rise from 1 on"),
            ("times.cancel", "100000", "wanted less than times"),
            ("roles.moderators", '["' + "a" * 52 + '"]', "wanted keys as"),
            ("filter.lists", "{}", "no rule"),
            ("catalogue.digest", '"x"', "no rule"),
            ("prices.plugin", '"x"', "no rule"),
            ("models.x", "{}", "no rule"),
        ],
    )
    async def test_what_could_not_be_applied_is_refused(self, clerk, key, value, why):
        with pytest.raises(BadValue, match=why):
            await self.propose(clerk, key=key, value=value)

    async def test_whoever_has_no_voice_is_told_so_again_until_it_has_served_some_more(self, clerk):
        clerk.now += 40 * DAY
        for nonce in range(2):
            with pytest.raises(NotAllowed, match="serve some more"):
                await self.propose(clerk, nonce=nonce)
        await clerk.earn(worker_key(0), 2)
        await self.propose(clerk, nonce=3)

    async def test_the_operator_applies_what_was_accepted_or_says_why_not(self, clerk, rules):
        proposal = await self.propose(clerk)

        async def answer(number: int, key: SigningKey = SERVING, version: int = 0) -> None:
            said = an_answer(
                proposal=proposal.digest, nonce=a_nonce(9_100 + number), valid_until=clerk.now + 1, rules=version
            )
            await clerk.store.answer(signed(said, key), said, clerk.now)

        with pytest.raises(OutOfTurn, match="being voted on"):
            await answer(1)
        for number in range(3):
            await self.vote(clerk, proposal, number)
        await self.end(clerk)
        with pytest.raises(WrongSigner):
            await answer(2, worker_key(0))
        with pytest.raises(BadValue, match="that there is"):
            await answer(3, version=2)
        await clerk.store.publish_rules(but(rules, limits=but(rules.limits, max_n=29)), clerk.now)
        with pytest.raises(BadValue, match=r"limits\.max_n = 29"):
            await answer(4, version=2)
        await answer(5)
        await clerk.store.publish_rules(but(rules, limits=but(rules.limits, max_n=30)), clerk.now)
        await answer(6, version=3)
        assert (await self.only(clerk)).answer
