"""What is promised of proposals and votes, kept by the store in SQLite."""

import sqlite3
from contextlib import closing

import pytest

from protocol.errors import NotAllowed
from protocol.rules import Rules
from tests.support.books import check_books
from tests.support.builders import DAY, SERVING, an_answer, signed
from tests.support.clerk import Clerk, worker_key
from tests.support.rules import plain
from tests.tracker.store.test_sqlite import SqliteBackend
from tests.tracker.store.voting_contract import VOTES, VotingContract
from tracker.audit import audit
from tracker.store.sqlite import voting


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
        ("UPDATE proposals SET rules = 2", "the rules by which it goes"),
        ("answer by a stranger", "answered by an operator"),
        ("answer that names another version", "the version that applies it"),
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
    if change.startswith("answer"):
        key, version = (worker_key(5), 0) if "stranger" in change else (SERVING, 1)
        said = an_answer(proposal=proposal.digest, valid_until=clerk.now + 1, rules=version)
        raw = signed(said, key).raw.hex()
        change = f"UPDATE proposals SET answer = x'{raw}'"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(change)
    report = audit(path)
    assert report.ok == (not found)
    assert any(found in one.what for one in report.findings) or not found


async def test_a_proposal_that_is_refused_or_sent_again_reads_no_second_roll(tmp_path, monkeypatch):
    """Whoever once earned enough cannot have the tracker count the whole ledger again and again."""
    counted = []
    read_roll = voting.read_roll

    def counting(*args):
        counted.append(1)
        return read_roll(*args)

    monkeypatch.setattr(voting, "read_roll", counting)
    backend = SqliteBackend(tmp_path / "horde.db")
    backend.create(plain(Rules(votes=VOTES)))
    async with backend.open() as store:
        clerk = await Clerk.at(store)
        await clerk.earn(worker_key(0), 2)
        contract = VotingContract()
        for _ in range(3):
            await contract.propose(clerk)
        assert len(counted) == 1
        clerk.now += 40 * DAY
        await store.end_votes(clerk.now)
        for nonce in range(2, 5):
            with pytest.raises(NotAllowed):
                await contract.propose(clerk, nonce=nonce)
        assert len(counted) == 2
