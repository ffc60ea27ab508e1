"""No sequence of acts makes or destroys kudos, but for the mint and the burn: random acts over the real store."""

import asyncio
import random
import shutil
from contextlib import suppress

import pytest
from hypothesis import Phase, event, given, settings
from hypothesis import strategies as st

from protocol import prices
from protocol.documents import Leaving, Settlement, open_document
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
    a_nonce,
    a_public_part,
    a_transfer,
    an_award,
    signed,
)
from tests.support.clerk import Clerk, worker_key
from tracker.audit import audit
from tracker.store.base import Choice
from tracker.store.sqlite import SqliteStore

PRICE = prices.price(Rules(), a_public_part().work, IMAGE_MODEL)
RULES = Rules(
    mint=MintSection(daily=PRICE * 12 + 7, owners=2, owner_share=500, asker_share=400),
    earning=EarningSection(withheld=333, trust_jobs=3, trust_days=1, fault_days=1),
    transfers=TransfersSection(mode="limited", daily=PRICE * 3, age_days=1),
)
#: How often each is drawn.
ACTS = {"serve": 10, "deny": 1, "transfer": 4, "award": 1, "vest": 1, "vest all": 1, "leave": 1, "register": 1}
NAMES = [name for name, weight in ACTS.items() for _ in range(weight)]
TIMES = [0] * 6 + [HOUR, DAY // 2, DAY]


class Village:
    """A few people, each with a key, a worker, and whatever comes of it; and what has been made and destroyed."""

    def __init__(self, clerk, chance):
        self.clerk = clerk
        self.chance = chance
        self.keys = [worker_key(number) for number in range(4)]
        self.made = self.burned = 0
        self.number = 0

    async def act(self, name):
        clerk, chance = self.clerk, self.chance
        self.number += 1
        key, other = chance.sample(self.keys, 2)
        match name:
            case "serve" | "deny":
                await self.serve(key, other, denied=name == "deny")
            case "transfer":
                to = await clerk.store.account_of(other.public) or FIRST_PERSON
                amount = chance.choice([1, PRICE, 5 * PRICE])
                said = a_transfer(to, amount, nonce=a_nonce(self.number), valid_until=clerk.now + HOUR // 2)
                for _ in range(2):
                    await clerk.store.transfer(signed(said, key), said, clerk.now)
            case "award":
                to = await clerk.store.account_of(key.public)
                thanks = an_award(to or 1, PRICE, nonce=a_nonce(self.number), valid_until=clerk.now + HOUR // 2)
                await clerk.store.award(signed(thanks), thanks, clerk.now)
                self.made += PRICE
            case "vest":
                await clerk.store.vest(await clerk.account(key), clerk.now)
            case "vest all":
                await clerk.store.vest_all(clerk.now)
            case "leave":
                await self.leave(key)
            case "register":
                await clerk.account(key)

    async def serve(self, worker, asker, *, denied):
        """A picture for somebody, who may have an account; the worker has one."""
        clerk, chance = self.clerk, self.chance
        owner = await clerk.account(worker)
        payer = await clerk.store.account_of(asker.public) or ANONYMOUS
        origin = str(payer) if payer != ANONYMOUS else "203.0.113.0/24"
        choice = Choice(worker.public, owner, IMAGE_MODEL, chance.choice([1, 2, 3]))
        admitted = await clerk.ask(requester=asker, payer=payer, origin=origin, choices=[choice])
        leased = admitted.leases[0]
        if denied:
            await clerk.deny(leased)
            return
        happened = await clerk.acknowledge(clerk.receipt(leased, used=chance.choice([30, 30, 11])))
        said = open_document(parse(happened.settlement), Settlement)
        self.made += said.minted
        self.burned += said.burned

    async def leave(self, key):
        number = await self.clerk.store.account_of(key.public)
        state = await self.clerk.store.account(number or ANONYMOUS, self.clerk.now)
        said = Leaving(nonce=a_nonce(self.number), valid_until=self.clerk.now + HOUR // 2)
        await self.clerk.store.leave(signed(said, key), said, self.clerk.now)
        self.burned += state.balance + state.withheld

    async def check(self):
        balance = self.clerk.balance
        people = (await self.clerk.store.gifts()).unspent
        assert -await balance(MINT) == self.made
        assert await balance(BURN) == self.burned
        assert await balance(ANONYMOUS) == 0
        assert people + await balance(HELD) + await balance(WITHHELD) == self.made - self.burned


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    path = tmp_path_factory.mktemp("begun") / "horde.db"
    SqliteStore.create(path, a_delegation(), RULES, SERVING, NOW - DAY)
    return path


@settings(max_examples=25, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(seed=st.integers(0, 2**32))
def test_nothing_is_made_or_lost_whatever_people_do(begun, tmp_path_factory, seed):
    path = tmp_path_factory.mktemp("village") / "horde.db"
    shutil.copy(begun, path)
    chance = random.Random(seed)

    async def live():
        async with SqliteStore.open(path, SERVING) as store:
            store._writer._connection.execute("PRAGMA synchronous = OFF")  # nothing crashes here, and disks are slow
            clerk = await Clerk.at(store)
            village = Village(clerk, chance)
            clerk.keys.update({key.public: key for key in village.keys})
            for _ in range(60):
                clerk.now += chance.choice(TIMES) + 1
                name = chance.choice(NAMES)
                try:
                    await village.act(name)
                except Refusal as refusal:
                    event(f"{name}: {refusal.code}")
                else:
                    event(name)
                await village.check()

    asyncio.run(live())
    check_books(path)
    report = audit(path)
    assert report.ok, "\n".join(str(finding) for finding in report.findings)
    with suppress(OSError):
        shutil.rmtree(path.parent)
