"""What is promised of proposals and votes, kept by the store in SQLite."""

import sqlite3
from contextlib import closing

import pytest

from protocol.rules import Rules
from tests.support.books import check_books
from tests.support.clerk import Clerk, worker_key
from tests.support.rules import plain
from tests.tracker.store.test_sqlite import SqliteBackend
from tests.tracker.store.voting_contract import VOTES, VotingContract
from tracker.audit import audit


class TestSqliteVoting(VotingContract):
    """After each test the books in the file are right, and the audit finds nothing."""

    @pytest.fixture
    def backend(self, tmp_path):
        path = tmp_path / "horde.db"
        yield SqliteBackend(path)
        check_books(path)
        report = audit(path)
        assert report.ok, "\n".join(str(finding) for finding in report.findings)


@pytest.mark.parametrize(
    "change, found",
    [
        ("UPDATE voices SET yes = 1 - yes WHERE version > 0", "the vote of account"),
        ("DELETE FROM voices WHERE version > 0", "who has a voice"),
        ("INSERT INTO voices (proposal, account, earned) VALUES (1, 102, 5000)", "who has a voice"),
        ("UPDATE voices SET version = 0", "its outcome"),
        ("UPDATE proposals SET until = until + 1", "its end"),
        ("SELECT 1", ""),
    ],
)
async def test_votes_that_were_changed_are_found(tmp_path, change, found):
    path = tmp_path / "horde.db"
    backend = SqliteBackend(path)
    backend.create(plain(Rules(votes=VOTES)))
    async with backend.open() as store:
        clerk = await Clerk.at(store)
        for number in range(2):
            await clerk.earn(worker_key(number), 2)
        await clerk.account(worker_key(2))
        contract = VotingContract()
        proposal = await contract.propose(clerk)
        await contract.vote(clerk, proposal, 0)
        await contract.end(clerk)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(change)
    report = audit(path)
    assert report.ok == (not found)
    assert any(found in one.what for one in report.findings) or not found
