"""What is promised of proposals and votes, kept by the store in SQLite."""

import pytest

from tests.support.books import check_books
from tests.tracker.store.test_sqlite import SqliteBackend
from tests.tracker.store.voting_contract import VotingContract
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
