"""Whatever happens in whatever order, the books stay right: random events over the real store."""

import asyncio
import shutil
import sqlite3
from contextlib import closing, suppress

import pytest
from hypothesis import given, settings
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
    mint=MintSection(daily=PRICE * 4 + 7, steps=((400, 1_000), (1_000, 300))),
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
STEPS = (
    "ask",
    "ask",
    "lease",
    "lease",
    "lease",
    "receive",
    "receive",
    "acknowledge",
    "acknowledge",
    "deny",
    "cancel",
    "silence",
    *HAPPENINGS,
)
TIMES = (0, 0, 0, 1, 11 * SECOND, 601 * SECOND, 1_300 * SECOND, DAY)
STEP = st.tuples(st.sampled_from(STEPS), st.integers(0, 30), st.integers(0, 30), st.sampled_from(TIMES))


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

    async def step(self, what, one, two, passes):
        clerk = self.clerk
        clerk.now += passes
        if what == "ask":
            requester, payer = self.payers[one % len(self.payers)]
            admitted = await clerk.ask(a_public_part(n=1 + two % 3), requester=requester, payer=payer)
            self.jobs += admitted.jobs
            return
        if not self.jobs:
            return
        job = self.jobs[one % len(self.jobs)]
        attempts = [leased for leased in self.leases if leased.job.handle == job.handle]
        leased = attempts[two % len(attempts)] if attempts else None
        if what == "lease":
            standings = {standing.job.handle: standing.job for standing in await clerk.store.live()}
            if (found := await clerk.try_lease(standings.get(job.handle, job), two % 3)) is not None:
                self.leases.append(found)
        elif what == "cancel":
            await clerk.cancel(job, whole=two % 2 == 0, nonce=one * 31 + two)
        elif what == "silence":
            await self.heard(await clerk.silence(job))
        elif what in HAPPENINGS:
            await clerk.happen(job, HAPPENINGS[what], two % (len(attempts) + 1))
        elif leased is not None:
            await self.say(what, leased, one + two)

    async def say(self, what, leased, variant):
        """Some say the right thing, some claim too much, some contradict themselves."""
        receipt = self.clerk.receipt(
            leased,
            used=(30, 30, 30, 12, 0, 31)[variant % 6],
            partial=variant % 6 == 3,
            output=a_digest("something else") if variant % 7 == 6 else None,
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
        SqliteStore.create(path, a_delegation(), RULES, SERVING, NOW - DAY)
        async with SqliteStore.open(path, SERVING) as store:
            clerk = await Clerk.at(store)
            clerk.now = NOW - DAY
            await clerk.earn(REQUESTER, 2)
            clerk.now = NOW - DAY // 2
            await clerk.earn(worker_key(0), 2)

    asyncio.run(begin())
    return path


@settings(max_examples=60)
@given(steps=st.lists(STEP, min_size=5, max_size=50))
def test_the_books_are_right_after_every_step(begun, tmp_path_factory, steps):
    path = tmp_path_factory.mktemp("life") / "horde.db"
    shutil.copy(begun, path)

    async def live():
        async with SqliteStore.open(path, SERVING) as store:
            clerk = await Clerk.at(store)
            funded, owner = await clerk.account(REQUESTER), await clerk.account(worker_key(0))
            life = Life(clerk, path, [(REQUESTER, funded), (worker_key(0), owner), (worker_key(40), ANONYMOUS)])
            for step in steps:
                with suppress(Refusal):
                    await life.step(*step)
                life.check()

    asyncio.run(live())
    check_books(path)
    shutil.rmtree(path.parent)
