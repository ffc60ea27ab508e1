"""The audit of who got how much of a day's mint, and of pay that waits, where restores and other rules come between."""

from contextlib import asynccontextmanager

import pytest

from protocol.rules import EarningSection, MintSection, Rules
from tests.support.builders import ROOT, but
from tests.support.history import ANN, BEN, CARL, NOBODY, History
from tests.tracker.test_audit import damage, told
from tests.tracker.test_recovery import begin, finish, one, restored
from tracker.audit import audit
from tracker.store.sqlite.copies import make_copy

MINT = MintSection(owners=1, daily=10_000, owner_share=300, asker_share=1_000)
OF_ONE = Rules(mint=MINT, earning=EarningSection(withheld=0))


@asynccontextmanager
async def cut(tmp_path, rules, live):
    """A horde that was restored from a copy made before `live`; with what that returned."""
    path, copy = tmp_path / "horde.db", tmp_path / "copy.db"
    async with History.open(path, rules) as history:
        await history.store.seal(history.tick())
        make_copy(path, copy)
        lost = await live(history)
        async with restored(history, copy) as later:
            yield later, lost


async def test_an_asker_with_an_account_is_nobody_else_for_its_share(tmp_path):
    path = tmp_path / "horde.db"
    async with History.open(path, OF_ONE) as history:
        await history.serve(CARL, ANN)
        assert audit(path).ok
    damage(path, "UPDATE requests SET origin = 'somebody else'")
    damage(path, "UPDATE mint_shares SET whose = 'asker somebody else' WHERE whose LIKE 'asker %'")

    assert "whom it counts for: found somebody else, wanted 102" in told(audit(path))


async def test_what_is_entered_again_takes_nothing_from_what_was_promised_since(tmp_path):
    async with cut(tmp_path, OF_ONE, lambda history: one(history, NOBODY, ANN)) as (later, lost):
        promised = await begin(later.history, NOBODY, ANN)
        await later.show_both(lost)
        await finish(later.history, promised)
        minted = -(await later.history.store.account(1, later.history.now)).balance
        assert minted > MINT.daily * MINT.owner_share // 1_000
        third = await one(later.history, NOBODY, ANN)
        assert third.settlement
        assert -(await later.history.store.account(1, later.history.now)).balance == minted, "its share is used up"
        await later.history.serve(NOBODY, BEN)

    assert audit(later.path, root=ROOT.public).ok, told(audit(later.path))


async def test_what_was_withheld_and_vested_before_a_restore_vests_again(tmp_path):
    probation = but(
        OF_ONE, mint=MintSection(owners=1), earning=EarningSection(withheld=400, trust_jobs=3, trust_days=0)
    )

    async def live(history):
        return [await one(history, NOBODY, ANN) for _ in range(4)]

    async with cut(tmp_path, probation, live) as (later, lost):
        history = later.history
        ann = history.accounts[ANN.public]
        for job in lost[:2]:
            await later.show_both(job)
        assert (await history.store.account(ann, history.now)).withheld > 0
        for job in reversed(lost):
            await later.show_both(job)
        state = await history.store.account(ann, history.tick())
        assert not state.missing
        assert await history.store.vest(ann, history.tick()) == state.withheld
        after = await history.store.account(ann, history.tick())
        assert (after.balance, after.withheld) == (after.earned, 0)
        await history.serve(NOBODY, ANN)

    assert audit(later.path, root=ROOT.public).ok, told(audit(later.path))


@pytest.mark.parametrize("by", ["the next job", "the tick"])
async def test_what_waits_when_probation_is_switched_off_is_the_owners_and_trust_has_to_be_gained_later(tmp_path, by):
    path = tmp_path / "horde.db"
    probation = but(
        OF_ONE, mint=MintSection(owners=1), earning=EarningSection(withheld=400, trust_jobs=3, trust_days=0)
    )
    async with History.open(path, probation) as history:
        store, ann = history.store, history.accounts[ANN.public]
        await history.serve(NOBODY, ANN)
        assert (await store.account(ann, history.tick())).withheld > 0
        off = but(probation, earning=but(probation.earning, withheld=0))
        history.rules = await store.publish_rules(off, history.tick())
        state = await store.account(ann, history.tick())
        assert not state.missing
        if by == "the tick":
            assert await store.vest_all(history.tick()) == 1
        else:
            await history.serve(NOBODY, ANN)
        assert (await store.account(ann, history.tick())).withheld == 0
        history.rules = await store.publish_rules(probation, history.tick())
        assert (await store.account(ann, history.tick())).missing
        await history.serve(NOBODY, ANN)
        await history.serve(NOBODY, ANN)

    assert audit(path).ok, told(audit(path))
