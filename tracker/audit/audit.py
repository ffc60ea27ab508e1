"""All passes of an audit, one after the other, over one snapshot of the database."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from protocol.errors import Refusal
from protocol.keys import show_key
from protocol.postings import WITHHELD
from tracker.audit.archives import read_archives
from tracker.audit.books import compare_accounts, compare_mint, compare_under_way
from tracker.audit.database import open_read_only
from tracker.audit.entries import Walk
from tracker.audit.head import Head, check_head, compare_head
from tracker.audit.jobs import check_attempts, check_jobs, check_requests
from tracker.audit.opening import Cut, Opening
from tracker.audit.papers import (
    Horde,
    check_documents,
    check_equivocations,
    index_documents,
    read_epochs,
    read_horde,
    read_rules,
)
from tracker.audit.report import Findings, Report
from tracker.audit.votes import check_votes
from tracker.store.base import StoreError
from tracker.store.sqlite.reading import stamp_of, was_sound

#: What a damaged file brings about: SQLite notices, or a column holds what no step has put there.
UNREADABLE = (sqlite3.Error, TypeError, ValueError, AttributeError, OverflowError, Refusal)

T = TypeVar("T")

#: The structure of the file is checked until so many faults have been found.
MAX_STRUCTURE = 20


def audit(path: Path, *, root: bytes | None = None, head: Head | None = None) -> Report:
    """The report on the ledger in `path`; raises `StoreError` if there is none that can be read.

    root: the horde's id, if it is known from elsewhere. head: a settlement that somebody kept.
    """
    return _read(path, root, head, None)[0]


def audit_to(path: Path, root: bytes, cut: Cut) -> tuple[Report, Opening | None]:
    """The same, and the books as they stood where it is cut; None if the audit did not come so far."""
    return _read(path, root, None, cut)


def _read(path: Path, root: bytes | None, head: Head | None, cut: Cut | None) -> tuple[Report, Opening | None]:
    while True:
        with closing(open_read_only(path)) as connection:
            before = stamp_of(path)
            found = _Audit(connection, path, root, head, cut).run()
        if was_sound(path, before):
            return found
        # A tracker was started meanwhile: read again, now beside it.


class _Audit:
    """One reading of everything."""

    def __init__(
        self, connection: sqlite3.Connection, path: Path, root: bytes | None, head: Head | None, cut: Cut | None
    ) -> None:
        self._connection = connection
        self._path = path
        self._root = root
        self._head = head
        self._cut = cut
        self._findings = Findings()

    def run(self) -> tuple[Report, Opening | None]:
        """All passes."""
        connection, findings, head = self._connection, self._findings, self._head
        horde = self._read_horde()
        self._attempt("the file's structure", lambda: _check_structure(connection, findings))
        versions = self._attempt("rules", lambda: read_rules(connection, horde, findings)) or {}
        self._attempt("documents", lambda: index_documents(connection))
        documents = self._attempt("documents", lambda: check_documents(connection, horde, findings))
        self._attempt("equivocations", lambda: check_equivocations(connection, horde, findings))
        epochs = self._attempt("epochs", lambda: read_epochs(connection, horde)) or []
        archives = self._attempt("archives", lambda: read_archives(connection, horde, findings)) or []
        walk = Walk(connection, horde, versions, epochs, head, findings, archives, self._cut)
        self._attempt("entries", walk.run)
        seen = walk.seen
        head_cut = ""
        if head is not None:
            check_head(head, horde, findings)
            head_cut = walk.recoveries.became_of(head)
            compare_head(head, horde, seen.tree.size, seen.head_leaf, seen.head_root, findings)
        self._attempt("requests", lambda: check_requests(connection, walk.people, findings))
        self._attempt("keys and delegations", walk.people.check_tables)
        jobs = self._attempt("jobs", lambda: check_jobs(connection, horde, walk, findings))
        self._attempt("attempts", lambda: check_attempts(connection, walk.recoveries.papers, findings))
        accounts = self._attempt("accounts", lambda: compare_accounts(connection, seen.books, findings))
        self._attempt("accounts", lambda: compare_under_way(connection, findings))
        self._attempt("the day's mint", lambda: compare_mint(connection, seen.books, findings))
        self._attempt("votes", lambda: check_votes(connection, horde, versions, findings))
        gaps = self._attempt("what was cut", lambda: tuple(walk.recoveries.gaps()))
        report = Report(
            ok=not findings.count,
            root=show_key(horde.root),
            entries=seen.tree.size,
            sum=seen.books.sum,
            minted=seen.books.all_minted,
            burned=seen.books.all_burned,
            accounts=accounts or 0,
            jobs=jobs or 0,
            documents=documents or 0,
            checkpoints=seen.checkpoints,
            tree=seen.tree.root().hex(),
            head=head is not None,
            findings=tuple(findings.kept),
            more=findings.count - len(findings.kept),
            head_cut=head_cut,
            epoch=horde.epoch,
            gaps=gaps or (),
            withheld=seen.books.of(WITHHELD).balance,
            by_plugin=seen.by_plugin,
            begins=walk.begins,
            archives=tuple(archive.name for archive in archives if not archive.is_back),
            put_back=tuple(archive.name for archive in archives if archive.is_back),
        )
        return report, walk.books_at_cut

    def _read_horde(self) -> Horde:
        try:
            self._connection.execute("BEGIN")
            return read_horde(self._connection, self._root, self._findings)
        except UNREADABLE as error:
            raise StoreError(f"{self._path}: cannot be read ({error}): restore it from a backup") from error

    def _attempt(self, what: str, run: Callable[[], T]) -> T | None:
        """One pass; a part of the file that cannot be read is a finding, and the other passes go on."""
        try:
            return run()
        except UNREADABLE as error:
            self._findings.add(f"reading {what}", error, "a database that can be read")
            return None


def _check_structure(connection: sqlite3.Connection, findings: Findings) -> None:
    for (fault,) in connection.execute(f"PRAGMA integrity_check({MAX_STRUCTURE})"):
        findings.expect("the file's structure", fault, "ok")
    for table, row, parent, _ in connection.execute("PRAGMA foreign_key_check"):
        findings.add(f"table {table}, row {row}", "names what is not there", f"a row of {parent}")
