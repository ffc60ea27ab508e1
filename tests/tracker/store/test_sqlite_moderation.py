"""What is promised of moderators' acts, kept by the store in SQLite."""

import sqlite3
from contextlib import closing

import pytest

from protocol.keys import show_key
from protocol.rules import RolesSection, Rules
from tests.support.books import check_books
from tests.support.builders import NOW, an_appeal, signed
from tests.support.clerk import Clerk, worker_key
from tests.support.rules import plain
from tests.tracker.store.moderation_contract import ONE, OTHER, ModerationContract, Moderators
from tests.tracker.store.test_sqlite import SqliteBackend
from tracker.audit import audit


class TestSqliteModeration(ModerationContract):
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
        ("UPDATE acts SET since = time WHERE act = 'ban'", "in the log"),
        ("UPDATE acts SET ended = 0, ended_by = x'' WHERE act = 'suspend'", "in the log"),
        ("DELETE FROM acts WHERE act = 'warn'", "in the log"),
        ("UPDATE acts SET account = account + 1 WHERE act = 'warn'", "in the log"),
        ("UPDATE appeals SET answered = x'01'", "answered by a word on its act"),
        ("UPDATE accounts SET balance = balance + 1 WHERE account = 100", "balance"),
        ("SELECT 1", ""),
    ],
)
async def test_a_log_that_was_changed_is_found(tmp_path, change, found):
    path = tmp_path / "horde.db"
    rules = plain(Rules(roles=RolesSection(moderators=(show_key(ONE.public), show_key(OTHER.public)))))
    backend = SqliteBackend(path)
    backend.create(rules)
    async with backend.open() as store:
        account = await (await Clerk.at(store)).earn(worker_key(0), 1)
        moderators = Moderators(store)
        warning = await moderators.do("warn", account=account)
        said = an_appeal(warning.digest)
        await store.appeal(signed(said, worker_key(0)), said, NOW)
        await moderators.do("uphold", about=warning.digest)
        suspended = await moderators.do("suspend", account=account, until=NOW + 1000)
        await moderators.do("lift", OTHER, about=suspended.digest)
        await moderators.do("ban", account=account)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(change)
    report = audit(path)
    assert report.ok == (not found)
    assert any(found in one.what for one in report.findings) or not found
