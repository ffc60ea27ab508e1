"""The economy's promises, kept by the store in SQLite."""

import pytest

from tests.support.books import check_books
from tests.support.builders import DAY, REQUESTER
from tests.support.clerk import worker_key
from tests.support.database import count
from tests.tracker.store.economy import ANYBODY, EconomyContract
from tests.tracker.store.test_sqlite import SqliteBackend
from tracker.audit import audit


class TestSqliteEconomy(EconomyContract):
    """After each test the books in the file are right, and the audit finds nothing."""

    @pytest.fixture
    def backend(self, tmp_path):
        path = tmp_path / "horde.db"
        yield SqliteBackend(path)
        check_books(path)
        report = audit(path)
        assert report.ok, "\n".join(str(finding) for finding in report.findings)

    # What passes

    @pytest.fixture
    def rows(self, backend):
        """How many rows a table has."""
        return lambda table: count(backend.path, table)

    async def test_what_limits_were_counted_by_is_dropped_when_they_have_passed(self, clerk, rows):
        store, rules = clerk.store, clerk.rules.rules.earning
        owner = await clerk.earn(worker_key(0), 2)
        for _ in range(2):
            await clerk.deny(await clerk.lease(await clerk.ask_one()))
        live = await clerk.lease(await clerk.ask_one())
        begin = clerk.now
        await store.tidy(clerk.now)
        assert (rows("faults"), rows("mint_shares")) == (2, 2)
        assert (await store.account(owner, clerk.now)).faults == 2

        clerk.now = begin + rules.fault_days * DAY
        told = await store.account(owner, clerk.now)
        await store.tidy(clerk.now)
        assert rows("faults") == 0
        assert await store.account(owner, clerk.now) == told, "every answer is the same"
        clerk.now = begin + 30 * DAY
        await store.tidy(clerk.now)
        assert rows("mint_shares") == 2, "a job of that day is under way"

        await clerk.acknowledge(clerk.receipt(live))
        await store.tidy(clerk.now)
        assert rows("mint_shares") == 0
        await clerk.earn(worker_key(0), 1)
        await store.tidy(clerk.now)
        await store.tidy(begin)
        assert rows("mint_shares") == 2, "also when the clock goes back"

    async def test_a_share_of_which_nothing_came_leaves_nothing(self, clerk, rows):
        leased = await clerk.lease(await clerk.ask_one())
        assert rows("mint_shares") > 0
        await clerk.deny(leased)
        assert rows("mint_shares") == 0

    async def test_who_gives_day_after_day_leaves_nothing_but_evidence(self, clerk, rows):
        await clerk.earn(REQUESTER, 3)
        taker = await clerk.account(ANYBODY)
        clerk.now += 10 * DAY
        await clerk.store.vest_all(clerk.now)
        tables = ("entries", "documents", "accounts", "awards", "faults", "keys")
        before = [rows(table) for table in tables]
        for number in range(5):
            clerk.now += DAY
            await self.give(clerk, taker, 5, number)
        assert [now - was for now, was in zip(map(rows, tables), before, strict=True)] == [5, 5, 0, 0, 0, 0]
