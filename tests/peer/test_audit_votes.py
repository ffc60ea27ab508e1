"""Votes in the audit of a public ledger: a tracker that miscounts or invents voices is found."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from peer.audit.mine import Known
from peer.audit.report import Report
from peer.audit.votes import Counted
from peer.home import Home
from peer.proposing import keep_vote, votes_in
from protocol import documents
from protocol.documents import open_document
from protocol.envelope import Envelope, parse
from protocol.governing import Outcome
from protocol.keys import SigningKey
from protocol.rules import LedgerSection, Rules, VotesSection
from tests.support.auditing import FromDatabase, found_in
from tests.support.builders import ROOT, SERVING, a_key, a_nonce, a_proposal, a_vote, an_answer, but, signed
from tests.support.clerk import Clerk, worker_key
from tests.support.rules import plain
from tests.tracker.store.test_sqlite import SqliteBackend
from tracker.store.base import Store

RULES = plain(Rules(votes=VotesSection(standing=5_000, quorum=2), ledger=LedgerSection(delay_days=0)))
WEEK_MS = 7 * 86_400_000


class Voting:
    """A horde that has voted: three accounts with a voice, two yes and one no, on thirty pictures at once."""

    def __init__(self, path: Path, store: Store, clerk: Clerk) -> None:
        self.path = path
        self.store = store
        self.clerk = clerk
        self.votes: list[Envelope] = []

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path) -> AsyncIterator[Voting]:
        backend = SqliteBackend(path)
        backend.create(RULES)
        async with backend.open() as store:
            voting = cls(path, store, await Clerk.at(store))
            await voting.vote()
            yield voting

    async def vote(self) -> None:
        clerk, store = self.clerk, self.store
        for number in range(3):
            await clerk.earn(worker_key(number), 2)
        await clerk.account(worker_key(3))
        said = a_proposal(valid_until=clerk.now + 1)
        self.proposal = signed(said, worker_key(0))
        await store.propose(self.proposal, said, clerk.now)
        for number in range(3):
            vote = a_vote(self.proposal.digest, yes=number < 2)
            self.votes.append(signed(vote, worker_key(number)))
            await store.vote(self.votes[-1], vote, clerk.now)
        clerk.now += WEEK_MS + 1
        [self.outcome] = await store.end_votes(clerk.now)
        await store.publish_rules(but(RULES, limits=but(RULES.limits, max_n=30)), clerk.now + 1)
        clerk.now += 2
        await self.answer()
        await store.seal(clerk.now)

    async def answer(self, number: int = 1, key: SigningKey = SERVING, rules: int = 2) -> None:
        said = an_answer(
            proposal=self.proposal.digest, nonce=a_nonce(9_000 + number), valid_until=self.clerk.now + 1, rules=rules
        )
        await self.store.answer(signed(said, key), said, self.clerk.now)

    async def audited(self, *votes: Envelope) -> Report:
        known = Known(votes=[one.raw for one in votes])
        return await found_in(
            FromDatabase(self.path, self.clerk.now), self.path.parent / "audit", known, self.clerk.now
        )

    def change(self, **fields: Any) -> None:
        """Sign another outcome, as the tracker could."""
        said = msgspec.structs.replace(open_document(parse(self.outcome), Outcome), **fields)
        self.write("outcome", documents.sign(said, SERVING, ROOT.public).raw)

    def write(self, column: str, raw: bytes) -> None:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute(f"UPDATE proposals SET {column} = ?", (raw,))


def texts(report: Report) -> list[str]:
    assert {finding.kind for finding in report.findings} <= {"votes"}
    return [finding.text for finding in report.findings]


async def test_a_vote_as_it_went_is_right_and_so_is_who_finds_its_own_vote_in_it(tmp_path: Path) -> None:
    async with Voting.open(tmp_path / "horde.db") as voting:
        for vote in voting.votes:
            report = await voting.audited(vote)
            assert texts(report) == []
            assert (report.proposals, report.votes) == (1, 1)
            assert any("1 proposal; 1 votes" in line for line in report.lines())


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"accepted": False}, "not accepted by 2 yes and 1 no"),
        ({"yes": 1}, "is accepted by 1 yes and 1 no"),
        ({"yes": 9, "voices": 12}, "12 voices, and by the leaves 3 accounts"),
        ({"yes": 9}, "10 votes were counted, of 3 voices"),
        ({"voices": 4}, "4 voices, and by the leaves 3"),
        ({"size": 3}, "3 voices, and by the leaves"),
        ({"rules": 2}, "which was not in force then"),
        ({"rules": 9}, "which was not in force then"),
        ({"opened": 5}, "which was not in force then"),
        ({"ended": 5}, "before its end"),
        ({"proposal": bytes(32)}, "the outcome of another one"),
    ],
)
async def test_an_outcome_that_does_not_follow_is_found(tmp_path: Path, fields: dict[str, Any], found: str) -> None:
    async with Voting.open(tmp_path / "horde.db") as voting:
        voting.change(**fields)
        assert any(found in text for text in texts(await voting.audited()))


async def test_an_outcome_or_answer_by_who_may_not_sign_it_is_found(tmp_path: Path) -> None:
    async with Voting.open(tmp_path / "horde.db") as voting:
        said = open_document(parse(voting.outcome), Outcome)
        voting.write("outcome", documents.sign(said, a_key(9), ROOT.public).raw)
        assert ["never served this horde" in text for text in texts(await voting.audited())] == [True]
        voting.write("outcome", voting.outcome)
        assert texts(await voting.audited()) == []
        answer = an_answer(proposal=voting.proposal.digest, valid_until=voting.clerk.now, rules=2)
        voting.write("answer", signed(answer, a_key(9)).raw)
        assert ["no operator's" in text for text in texts(await voting.audited())] == [True]
        for rules in (1, 3):
            voting.write("answer", signed(msgspec.structs.replace(answer, rules=rules), SERVING).raw)
            assert [f"version {rules} of the rules, which does not" in text for text in texts(await voting.audited())]
        await voting.answer(2, rules=0)
        assert texts(await voting.audited()) == []


async def test_a_vote_that_was_not_counted_is_missed_by_who_has_cast_it(tmp_path: Path) -> None:
    async with Voting.open(tmp_path / "horde.db") as voting:
        with closing(sqlite3.connect(voting.path)) as connection, connection:
            connection.execute("UPDATE voices SET version = 0, signer = x'', digest = x'' WHERE account = 100")
        assert texts(await voting.audited()) == [], "who has not voted cannot know"
        [text] = texts(await voting.audited(voting.votes[0]))
        assert "is not shown to be among those counted" in text
        other = signed(a_vote(bytes(32)), worker_key(0))
        assert any("is not shown" in text for text in texts(await voting.audited(other)))


async def test_a_proof_of_another_vote_or_of_another_size_proves_nothing(tmp_path: Path) -> None:
    class Lying(FromDatabase):
        shown: bytes

        async def counted(self, vote: bytes) -> Counted:
            found = await super().counted(self.shown)
            return found if self.shown != vote else msgspec.structs.replace(found, size=2)

    async with Voting.open(tmp_path / "horde.db") as voting:
        source = Lying(voting.path, voting.clerk.now)
        for source.shown in (voting.votes[0].raw, voting.votes[1].raw):
            known = Known(votes=[voting.votes[0].raw])
            report = await found_in(source, tmp_path / "audit", known, voting.clerk.now)
            assert len(texts(report)) == 1


def test_the_newest_vote_on_a_proposal_is_kept_and_a_spoilt_copy_is_none(tmp_path: Path) -> None:
    home = Home(tmp_path)
    for version, yes in ((1, True), (2, False)):
        keep_vote(home, ROOT.public, signed(a_vote(yes=yes, version=version), worker_key(0)))
    newest = signed(a_vote(yes=False, version=2), worker_key(0))
    assert votes_in(home, ROOT.public) == [newest.raw]
    assert votes_in(home, a_key(9).public) == []
    [path] = home.votes_folder(ROOT.public).iterdir()
    path.write_bytes(newest.raw[:-1] + b"x")
    assert votes_in(home, ROOT.public) == []
