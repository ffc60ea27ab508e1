"""The economy's promises, kept by the store in SQLite."""

import pytest

from tests.support.books import check_books
from tests.tracker.store.economy import EconomyContract
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
