"""Whatever happens in whatever order, the books stay right: random events over the real store."""

import asyncio
import random
import shutil
import sqlite3
from contextlib import closing, suppress

import pytest
from hypothesis import Phase, event, given, settings
from hypothesis import strategies as st

from protocol import prices
from protocol.errors import Refusal
from protocol.postings import ANONYMOUS
from protocol.rules import MatchingSection, MintSection, Rules
from tests.support.books import check_books, minted_by_day
from tests.support.builders import (
    DAY,
    IMAGE_MODEL,
    NOW,
    REQUESTER,
    SECOND,
    SERVING,
    a_delegation,
    a_digest,
    a_public_part,
)
from tests.support.clerk import Clerk, worker_key
from tests.support.rules import plain
from tracker.lifecycle import (
    LIVE,
    Accepted,
    CancelOver,
    CannotReach,
    Declined,
    Expired,
    NotAccepted,
    NotOpened,
    Opened,
    Overdue,
    WorkerFailed,
)
from tracker.store.sqlite import SqliteStore

PUBLIC = a_public_part()
PRICE = prices.price(Rules(), PUBLIC.work, IMAGE_MODEL)
RULES = Rules(
    # so little that some attempts find nothing left to be minted
    mint=MintSection(daily=PRICE * 6 + 7, steps=((400, 1_000), (1_000, 300))),
    matching=MatchingSection(failed_attempts=2),
)
HAPPENINGS = {
    "accepted": Accepted(),
    "declined": Declined("busy"),
    "not accepted": NotAccepted(),
    "opened": Opened(),
    "not opened": NotOpened(),
    "failed": WorkerFailed("engine"),
    "overdue": Overdue(),
    "unreachable": CannotReach("timeout"),
    "cancel over": CancelOver(),
    "expired": Expired(),
}
#: So often is each drawn, for jobs to come to every end.
WEIGHTS = {"ask": 5, "lease": 14, "receive": 4, "acknowledge": 3, "deny": 1, "cancel": 1, "silence": 1, "failed": 6}
STEPS = [what for what, weight in (dict.fromkeys(HAPPENINGS, 1) | WEIGHTS).items() for _ in range(weight)]
TIMES = [0] * 30 + [1, 11 * SECOND, 601 * SECOND, 1_300 * SECOND, DAY, DAY]


def a_step(chance):
    return chance.choice(STEPS), chance.randrange(3), chance.randrange(3), chance.randrange(12), chance.choice(TIMES)


class Life:
    """A store to which anything may happen, and what must never be undone."""

    def __init__(self, clerk, path, payers):
        self.clerk = clerk
        self.path = path
        self.payers = payers
        self.jobs = []
        self.leases = []
        self.ended = {}
        self.settlements = {}

    async def step(self, what, which, attempt, variant, passes):
        """One step with one of the newest jobs, about one of its newest attempts."""
        clerk = self.clerk
        clerk.now += passes
        if what == "ask" or not self.jobs:
            requester, payer = self.payers[variant % len(self.payers)]
            admitted = await clerk.ask(a_public_part(n=1 + which % 2), requester=requester, payer=payer)
            self.jobs += admitted.jobs
            return
        job = self.jobs[-1 - which % len(self.jobs)]
        attempts = [leased for leased in self.leases if leased.job.handle == job.handle]
        leased = attempts[-1 - attempt % len(attempts)] if attempts else None
        if what == "lease":
            standings = {standing.job.handle: standing.job for standing in await clerk.store.live()}
            if (found := await clerk.try_lease(standings.get(job.handle, job), variant % 3)) is not None:
                self.leases.append(found)
        elif what == "cancel":
            await clerk.cancel(job, whole=variant == 0, nonce=len(self.jobs))
        elif what == "silence":
            await self.heard(await clerk.silence(job))
        elif what in HAPPENINGS:
            await clerk.happen(job, HAPPENINGS[what], leased.attempt.attempt if leased else 0)
        elif leased is not None:
            await self.say(what, leased, variant)

    async def say(self, what, leased, variant):
        """Most say the right thing, some claim too much, some contradict themselves."""
        receipt = self.clerk.receipt(
            leased,
            used={9: 12, 10: 31}.get(variant, 30),
            partial=variant == 9,
            output=a_digest("something else") if variant == 11 else None,
        )
        if what == "receive":
            await self.heard(await self.clerk.receive(receipt))
        elif what == "acknowledge":
            await self.heard(await self.clerk.acknowledge(receipt))
        else:
            await self.clerk.deny(leased, receipt if variant % 2 else None)

    async def heard(self, happened):
        if happened.settlement:
            known = self.settlements.setdefault(happened.outcome.job.handle, happened.settlement)
            assert known == happened.settlement, "there is one settlement for a job, and it is sent byte for byte"

    def check(self):
        check_books(self.path)
        assert all(used <= RULES.mint.daily for used in minted_by_day(self.path).values())
        with closing(sqlite3.connect(self.path)) as connection:
            rows = connection.execute("SELECT job, state, reason, attempt, settled, changed FROM jobs")
            ended = {row[0]: row[1:] for row in rows if row[1] not in {state.value for state in LIVE}}
        assert ended.items() >= self.ended.items(), "an end is an end"
        self.ended = ended


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A horde with a requester that has earned a little, to begin each example with."""
    path = tmp_path_factory.mktemp("begun") / "horde.db"

    async def begin():
        SqliteStore.create(path, a_delegation(), plain(RULES), SERVING, NOW - DAY)
        async with SqliteStore.open(path, SERVING) as store:
            clerk = await Clerk.at(store)
            clerk.now = NOW - DAY
            await clerk.earn(REQUESTER, 2)
            clerk.now = NOW - DAY // 2
            await clerk.earn(worker_key(0), 2)

    asyncio.run(begin())
    return path


# Drawn from a seed, for Hypothesis' own lists stay too short for a job to fail twice.
@settings(max_examples=25, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(seed=st.integers(0, 2**32))
def test_the_books_are_right_whatever_happens(begun, tmp_path_factory, seed):
    path = tmp_path_factory.mktemp("life") / "horde.db"
    shutil.copy(begun, path)
    chance = random.Random(seed)

    async def live():
        async with SqliteStore.open(path, SERVING) as store:
            clerk = await Clerk.at(store)
            clerk.asked = 1_000  # after those of `begun`
            funded, owner = await clerk.account(REQUESTER), await clerk.account(worker_key(0))
            store._writer._connection.execute("PRAGMA synchronous = OFF")  # nothing crashes here, and disks are slow
            life = Life(clerk, path, [(REQUESTER, funded), (worker_key(0), owner), (worker_key(40), ANONYMOUS)])
            for number in range(120):
                with suppress(Refusal):
                    await life.step(*a_step(chance))
                if number % 4 == 3:
                    life.check()
        for state, _, _, settled, _ in life.ended.values():
            event(state if settled < 2 else f"{state} in a later attempt")

    asyncio.run(live())
    shutil.rmtree(path.parent)
