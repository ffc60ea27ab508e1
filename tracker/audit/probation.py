"""Probation along the ledger: what was withheld of each owner's pay, and when it became its own."""

from __future__ import annotations

import sqlite3

from protocol import postings
from protocol.postings import WITHHELD
from protocol.rules import Rules
from tracker import earning
from tracker.audit.books import Books
from tracker.audit.entry import Entry
from tracker.audit.papers import Version, version_at
from tracker.audit.report import Findings
from tracker.earning import Record


class Probation:
    """Goes along with the walk; what counts is in the books before the entry that is judged."""

    def __init__(
        self, connection: sqlite3.Connection, versions: dict[int, Version], books: Books, findings: Findings
    ) -> None:
        self._connection = connection
        self._versions = versions
        self._books = books
        self._findings = findings
        self._faults: set[tuple[int, int, int]] = set()
        self._due = 0  # an owner whose trust the last settlement has completed, and by which rules
        self._due_rules = 0

    def withheld(self, owner: int, pay: int, rules: Rules, time: int) -> int:
        """What of a pay for a job of somebody else's must wait."""
        return earning.withheld(self._record(owner, jobs=1), rules.earning, pay, time)

    def settled(self, entry: Entry, owner: int, withheld: int, rules: Rules) -> None:
        """A job of an owner was paid, and is counted in the books."""
        sums = self._books.of(owner)
        sums.withheld += withheld
        record, time = self._record(owner), entry.evidence.time
        if earning.gains_trust(record, rules.earning, time):
            sums.trusted = time
        if sums.withheld and earning.is_trusted(record, rules.earning, time):
            self._due, self._due_rules = owner, entry.evidence.rules

    def refunded(self, entry: Entry, owner: int) -> None:
        """An attempt of an owner's worker was refunded."""
        self._books.of(owner).fault = entry.evidence.time
        self._faults.add((owner, entry.evidence.time, entry.index))

    def reach(self, index: int, event: str) -> None:
        """The walk comes to an entry: what the one before it has made due must be this one."""
        if self._due and event != "vest":
            self._findings.add(f"what is withheld of account {self._due}, which is trusted", "not vested", "now", index)
            self._due = 0

    def vested(self, entry: Entry) -> None:
        """All that is withheld of an owner becomes its own, because it is trusted by the rules of then."""
        owner = next((account for account, _ in entry.moved if account != WITHHELD), 0)
        sums, said = self._books.of(owner), entry.evidence
        right = postings.vest(owner, sums.withheld)
        self._findings.expect("the postings of a vest", entry.moved, right, entry.index)
        self._findings.expect("the evidence's documents", said.documents, (), entry.index)
        by = self._due_rules if self._due else version_at(self._versions, said.time)
        self._findings.expect("the account that vests", owner, self._due or owner, entry.index)
        self._findings.expect("the rules of a vest", said.rules, by, entry.index)
        version = self._versions.get(said.rules)
        record = self._record(owner)
        lacks = version and earning.missing(record, version.rules.earning, said.time)
        if lacks:
            found = f"{lacks.jobs} jobs, {max(lacks.days, lacks.fault_days)} days are missing"
            self._findings.add("what is withheld vests", found, "an owner that is trusted", entry.index)
        if version and not lacks and earning.gains_trust(record, version.rules.earning, said.time):
            sums.trusted = said.time
        sums.withheld = 0
        self._due = 0

    def end(self) -> None:
        """The last entry was seen: compare the table of refunds, from when on it is kept."""
        self.reach(max(0, self._last()), "the end")
        kept = set(self._connection.execute("SELECT account, time, entry FROM faults"))
        [begin] = self._connection.execute("SELECT faults_from FROM horde").fetchone()
        due = {fault for fault in self._faults if fault[1] > begin or fault in kept}
        for account, time, entry in sorted(kept ^ due):
            found = "kept" if (account, time, entry) in kept else "nothing"
            self._findings.expect(f"account {account}: a fault at {time}", found, _other(found), entry)

    def _last(self) -> int:
        return int(self._connection.execute("SELECT coalesce(max(entry), 0) FROM entries").fetchone()[0])

    def _record(self, owner: int, jobs: int = 0) -> Record:
        sums = self._books.of(owner)
        row = self._connection.execute("SELECT since FROM accounts WHERE account = ?", (owner,)).fetchone()
        since = row[0] if row else 0
        return Record(since=since, jobs=sums.jobs_done + jobs, fault=sums.fault, trusted=bool(sums.trusted))


def _other(found: str) -> str:
    return "nothing" if found == "kept" else "kept"
