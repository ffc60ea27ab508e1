"""No sequence of acts makes or destroys kudos, but for the mint and the burn: random acts over the real store."""

import asyncio
import random
import shutil
from collections import Counter
from contextlib import AsyncExitStack, suppress
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from protocol import postings, prices
from protocol.documents import Settlement, open_document
from protocol.envelope import parse
from protocol.errors import Refusal
from protocol.postings import ANONYMOUS, BURN, FIRST_PERSON, HELD, MINT, WITHHELD
from protocol.rules import EarningSection, MintSection, Rules, TransfersSection
from tests.support.books import check_books
from tests.support.builders import (
    DAY,
    HOUR,
    IMAGE_MODEL,
    NOW,
    SERVING,
    a_delegation,
    a_delegation_to,
    a_key,
    a_leaving,
    a_nonce,
    a_public_part,
    a_recovery,
    a_revocation,
    a_rotation,
    a_transfer,
    an_award,
    signed,
)
from tests.support.clerk import Clerk, worker_key
from tracker.audit import audit
from tracker.lifecycle import WorkerFailed
from tracker.store.base import Choice
from tracker.store.sqlite import SqliteStore
from tracker.store.sqlite.accounts import Accounts

PRICE = prices.price(Rules(), a_public_part().work, IMAGE_MODEL)
RULES = Rules(
    mint=MintSection(daily=PRICE * 12 + 7, owners=2, owner_share=500, asker_share=400),
    earning=EarningSection(withheld=333, trust_jobs=3, trust_days=1, fault_days=1),
    transfers=TransfersSection(mode="limited", daily=PRICE * 3, age_days=1),
)
#: How often each is drawn.
ACTS = {
    "ask": 8,
    "pay": 8,
    "refund": 2,
    "lose": 1,
    "transfer": 4,
    "award": 1,
    "vest": 1,
    "vest all": 1,
    "tidy": 1,
    "register": 2,
    "delegate": 2,
    "revoke": 1,
    "rotate": 1,
    "recover": 1,
    "leave": 1,
}
NAMES = [name for name, weight in ACTS.items() for _ in range(weight)]
TIMES = [0] * 6 + [HOUR, DAY // 2, DAY]
#: The same examples each time, and none of them made shorter: a step that fails is told with its name.
STEADY = settings(
    max_examples=15,
    stateful_step_count=50,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


class Village:
    """A few people, each with a key, delegates, a worker, and whatever comes of it; and what was made and destroyed."""

    def __init__(self, clerk):
        self.clerk = clerk
        self.keys = [worker_key(number) for number in range(4)]
        self.delegates = []
        self.delegations = []
        self.leased = []
        self.made = self.burned = 0
        self.number = 0

    async def act(self, name, chance):
        self.number += 1
        key, other = chance.sample(self.keys, 2)
        match name:
            case "ask":
                await self.ask(chance)
            case "pay" | "refund" | "lose":
                if self.leased:
                    await self.answer(name, self.leased.pop(chance.randrange(len(self.leased))), chance)
            case "transfer":
                await self.transfer(key, other, chance.choice([1, PRICE, 5 * PRICE]))
            case "award":
                await self.award(key)
            case "vest":
                await self.clerk.store.vest(await self.account(key), self.clerk.now)
            case "vest all":
                await self.clerk.store.vest_all(self.clerk.now)
            case "tidy":
                await self.clerk.store.tidy(self.clerk.now)
            case "register":
                await self.clerk.account(key)
            case "delegate":
                await self.delegate(key, chance.choice([None, PRICE, 0]))
            case "revoke":
                await self.revoke(chance)
            case "rotate" | "recover":
                await self.rotate(key, by_recovery=name == "recover")
            case "leave":
                await self.leave(key)

    async def account(self, key):
        """For whom a key acts; the key of nobody stands for the people without an account."""
        return (await self.clerk.store.acting(key.public, self.clerk.now)).account or ANONYMOUS

    @property
    def once(self):
        """What makes a document of now another one than all before."""
        return {"nonce": a_nonce(self.number), "valid_until": self.clerk.now + HOUR // 2}

    # Jobs

    async def ask(self, chance):
        """A picture for somebody, leased to somebody else's worker, or to the same one's."""
        worker, asker = chance.sample([*self.keys, *self.delegates], 2)
        owner = await self.account(worker)
        if owner == ANONYMOUS:
            owner = await self.clerk.account(worker)
        payer = await self.account(asker)
        origin = str(payer) if payer != ANONYMOUS else "203.0.113.0/24"
        choice = Choice(worker.public, owner, IMAGE_MODEL, chance.choice([1, 2, 3]))
        admitted = await self.clerk.ask(requester=asker, payer=payer, origin=origin, choices=[choice])
        self.leased += admitted.leases.values()

    async def answer(self, name, leased, chance):
        """It is paid in full or in part, refunded, or its worker fails at it until the job does."""
        if name == "refund":
            await self.clerk.deny(leased)
        elif name == "lose":
            await self.clerk.happen(leased.job, WorkerFailed("engine"), leased.attempt.attempt)
            await self.clerk.cancel(leased.job, nonce=self.number)
        else:
            happened = await self.clerk.acknowledge(self.clerk.receipt(leased, used=chance.choice([30, 30, 11])))
            said = open_document(parse(happened.settlement), Settlement)
            self.made += said.minted
            self.burned += said.burned

    # Kudos

    async def transfer(self, key, other, amount):
        clerk, said = self.clerk, a_transfer(await self.account(other), amount, **self.once)
        for _ in range(2):
            await clerk.store.transfer(signed(said, key), said, clerk.now)

    async def award(self, key):
        said = an_award(await self.account(key), PRICE, **self.once)
        await self.clerk.store.award(signed(said), said, self.clerk.now)
        self.made += PRICE

    # Keys

    async def delegate(self, key, kudos):
        to = a_key(30_000 + self.number)
        said = a_delegation_to(to, work=True, ask=True, kudos=kudos, **self.once)
        envelope = signed(said, key)
        await self.clerk.store.delegate(envelope, said, self.clerk.now)
        self.clerk.keys[to.public] = to
        self.delegates = [*self.delegates[-3:], to]
        self.delegations.append((key, envelope.digest))

    async def revoke(self, chance):
        if self.delegations:
            key, delegation = self.delegations.pop(chance.randrange(len(self.delegations)))
            said = a_revocation(delegation, **self.once)
            await self.clerk.store.revoke(signed(said, key), said, self.clerk.now)

    async def rotate(self, key, *, by_recovery):
        store, now = self.clerk.store, self.clerk.now
        to, drawer = a_key(20_000 + self.number), a_key(40_000 + self.number)
        if by_recovery:
            named = a_recovery(drawer, version=now)
            await store.name_recovery(signed(named, key), named, now)
        said = a_rotation(key, to, **self.once)
        await store.rotate(signed(said, drawer if by_recovery else key), said, sender=to.public, now=now)
        self.clerk.keys[to.public] = to
        self.keys[self.keys.index(key)] = to

    async def leave(self, key):
        state = await self.clerk.store.account(await self.account(key), self.clerk.now)
        said = a_leaving(**self.once)
        await self.clerk.store.leave(signed(said, key), said, self.clerk.now)
        self.burned += state.balance + state.withheld

    # What must hold

    async def check(self):
        balance = self.clerk.balance
        people = (await self.clerk.store.gifts()).unspent
        assert -await balance(MINT) == self.made, "made"
        assert await balance(BURN) == self.burned, "destroyed"
        assert await balance(ANONYMOUS) == 0
        assert people + await balance(HELD) + await balance(WITHHELD) == self.made - self.burned, "there"


class Machine(RuleBasedStateMachine):
    """Acts in any order, at any time; after each the sums are looked at, and in the end every entry."""

    begun: Path
    numbers = count()
    done: Counter[str]

    def __init__(self):
        super().__init__()
        folder = self.begun.parent / f"village {next(self.numbers)}"
        folder.mkdir()
        self.path = folder / "horde.db"
        shutil.copy(self.begun, self.path)
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.village = self.runner.run(self.open())

    async def open(self):
        store = await self.stack.enter_async_context(SqliteStore.open(self.path, SERVING))
        store._writer._connection.execute("PRAGMA synchronous = OFF")  # nothing crashes here, and disks are slow
        clerk = await Clerk.at(store)
        village = Village(clerk)
        clerk.keys.update({key.public: key for key in village.keys})
        return village

    @rule(name=st.sampled_from(NAMES), seed=st.integers(0, 2**32), passes=st.sampled_from(TIMES))
    def act(self, name, seed, passes):
        self.village.clerk.now += passes + 1

        async def act():
            try:
                await self.village.act(name, random.Random(seed))
            except Refusal as refusal:
                self.done[f"{name}: {refusal.code}"] += 1
            else:
                self.done[name] += 1
            await self.village.check()

        self.runner.run(act())

    def teardown(self):
        try:
            self.runner.run(self.stack.aclose())
            check_books(self.path)
            report = audit(self.path)
            assert report.ok, "\n".join(str(finding) for finding in report.findings)
        finally:
            self.runner.close()
            with suppress(OSError):
                shutil.rmtree(self.path.parent)


@pytest.fixture
def machine(tmp_path):
    path = tmp_path / "horde.db"
    SqliteStore.create(path, a_delegation(), RULES, SERVING, NOW - DAY)
    return type("Machine", (Machine,), {"begun": path, "done": Counter()})


def test_nothing_is_made_or_lost_whatever_people_do(machine):
    run_state_machine_as_test(seed(1)(machine), settings=STEADY)
    assert set(ACTS) <= set(machine.done), f"each of them was done: {machine.done}"


def moves_short(move):
    def spoiled(self, connection, moved):
        moved = [(who, amount - (amount > 1 and who >= FIRST_PERSON)) for who, amount in moved]
        move(self, connection, moved)

    return spoiled


def gives_back_short(release):
    return lambda payer, amount: ((HELD, -amount), (payer, amount - 1)) if amount > 1 else release(payer, amount)


def withholds_short(withhold):
    return lambda self, connection, who, amount: withhold(self, connection, who, amount - (amount > 1))


@pytest.mark.parametrize(
    ("where", "what", "spoil"),
    [(Accounts, "move", moves_short), (postings, "release", gives_back_short), (Accounts, "withhold", withholds_short)],
    ids=["in a posting", "of what goes back", "of what is withheld"],
)
def test_a_store_that_loses_a_thousandth_is_found_out(machine, monkeypatch, where, what, spoil):
    monkeypatch.setattr(where, what, spoil(getattr(where, what)))
    with pytest.raises((AssertionError, ValueError)):  # found here, or refused by the ledger itself
        run_state_machine_as_test(seed(1)(machine), settings=STEADY)
