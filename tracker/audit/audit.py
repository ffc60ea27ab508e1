"""All passes of an audit, one after the other, over one snapshot of the database."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from protocol.keys import show_key
from tracker.audit.books import compare_accounts, compare_mint
from tracker.audit.database import open_read_only
from tracker.audit.entries import Walk
from tracker.audit.head import Head, check_head, compare_head
from tracker.audit.jobs import check_attempts, check_jobs, check_requests
from tracker.audit.papers import check_documents, check_equivocations, read_horde, read_rules
from tracker.audit.report import Findings, Report
from tracker.store.base import StoreError

#: The structure of the file is checked until so many faults have been found.
MAX_STRUCTURE = 20


def audit(path: Path, *, root: bytes | None = None, head: Head | None = None) -> Report:
    """The report on the ledger in `path`; raises `StoreError` if there is none that can be read.

    root: the horde's id, if it is known from elsewhere. head: a settlement that somebody kept.
    """
    findings = Findings()
    with closing(open_read_only(path)) as connection:
        try:
            connection.execute("BEGIN")
            horde = read_horde(connection, root, findings)
        except sqlite3.DatabaseError as error:
            raise StoreError(f"{path}: cannot be read ({error}): restore it from a backup") from error
        counts = {"documents": 0, "jobs": 0, "accounts": 0}

        def attempt(what: str, run: Callable[[], object]) -> None:
            """One pass; a part of the file that cannot be read is a finding, and the other passes go on."""
            try:
                counted = run()
            except sqlite3.DatabaseError as error:
                findings.add(f"reading {what}", error, "a database that can be read")
            else:
                if what in counts and isinstance(counted, int):
                    counts[what] = counted

        attempt("the file's structure", lambda: _check_structure(connection, findings))
        versions = read_rules(connection, horde, findings)
        attempt("documents", lambda: check_documents(connection, horde, findings))
        attempt("equivocations", lambda: check_equivocations(connection, horde, findings))
        if head is not None:
            check_head(head, horde.root, horde.serving, findings)
        walk = Walk(connection, horde, versions, head, findings)
        attempt("entries", walk.run)
        seen = walk.seen
        if head is not None:
            compare_head(head, seen.tree.size, seen.head_leaf, seen.head_root, findings)
        attempt("requests", lambda: check_requests(connection, horde, findings))
        attempt("jobs", lambda: check_jobs(connection, horde, seen.books, findings))
        attempt("attempts", lambda: check_attempts(connection, horde, findings))
        attempt("accounts", lambda: compare_accounts(connection, seen.books, findings))
        attempt("the day's mint", lambda: compare_mint(connection, seen.books, findings))
    return Report(
        ok=not findings.count,
        root=show_key(horde.root),
        entries=seen.tree.size,
        sum=seen.books.sum,
        minted=seen.books.all_minted,
        burned=seen.books.all_burned,
        checkpoints=seen.checkpoints,
        tree=seen.tree.root().hex(),
        head=head is not None,
        findings=tuple(findings.kept),
        more=findings.count - len(findings.kept),
        **counts,
    )


def _check_structure(connection: sqlite3.Connection, findings: Findings) -> None:
    for (fault,) in connection.execute(f"PRAGMA integrity_check({MAX_STRUCTURE})"):
        findings.expect("the file's structure", fault, "ok")
    for table, row, parent, _ in connection.execute("PRAGMA foreign_key_check"):
        findings.add(f"table {table}, row {row}", "names what is not there", f"a row of {parent}")
