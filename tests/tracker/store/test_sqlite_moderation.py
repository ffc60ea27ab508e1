"""What is promised of moderators' acts, kept by the store in SQLite."""

import pytest

from tests.support.books import check_books
from tests.tracker.store.moderation_contract import ModerationContract
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
