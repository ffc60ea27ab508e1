"""Transfers and awards along the ledger: each by a document of who may give, and within the rules of then."""

from __future__ import annotations

import sqlite3
from typing import TypeVar

from protocol import postings
from protocol.documents import MAX_VALIDITY_MS, Award, Document, Transfer
from protocol.errors import Refusal
from protocol.postings import FIRST_PERSON
from tracker.audit.books import Books
from tracker.audit.entry import Entry
from tracker.audit.papers import Paper, Papers, Version, version_at
from tracker.audit.report import Findings
from tracker.ledger import day_of
from tracker.sanctions import is_operator
from tracker.store.base import SHOWN_AWARDS
from tracker.transfers import Giver, check_transfer

D = TypeVar("D", bound=Document)


class Giving:
    """Goes along with the walk; the balances are those before the entry that is judged."""

    def __init__(
        self, connection: sqlite3.Connection, versions: dict[int, Version], books: Books, findings: Findings
    ) -> None:
        self._connection = connection
        self._versions = versions
        self._books = books
        self._findings = findings
        self._papers = Papers(connection, findings)
        self._seen: set[bytes] = set()
        self._awards: dict[int, tuple[int, int, int, str]] = {}

    def transferred(self, entry: Entry) -> None:
        """An account gave another one kudos: its key has signed that, and the rules of then allow it."""
        said = self._document(entry, Transfer)
        if said is None:
            return
        key, body, time = said.envelope.key, said.body, entry.evidence.time
        givers = self._accounts_of(key, time)
        giver = next((account for account, _ in entry.moved if account in givers), min(givers, default=0))
        right = postings.transfer(giver, body.to, body.amount)
        self._expect(entry, "the postings of a transfer", entry.moved, right)
        if not givers:
            self._findings.add("the transfer's signer", key, "the key of an account at that time", entry.index)
        self._check_account(entry, body.to)
        self._check_time(entry, body.valid_until)
        version = self._versions.get(entry.evidence.rules)
        if version is not None and giver:
            try:
                check_transfer(version.rules.transfers, self._giver(giver, time), body.to, body.amount, time)
            except Refusal as refusal:
                self._findings.add("a transfer", refusal, "what the rules allow", entry.index)
        self._books.give(giver, body.amount, day_of(time))

    def awarded(self, entry: Entry, serving: bytes) -> None:
        """The operator made kudos for an account: the key that served then has signed that."""
        said = self._document(entry, Award)
        if said is None:
            return
        body = said.body
        version = self._versions.get(entry.evidence.rules)
        if version is not None and not is_operator(said.envelope.key, version.rules, serving):
            self._expect(entry, "the award's signer", said.envelope.key, serving)
        self._expect(entry, "the postings of an award", entry.moved, postings.award(body.account, body.amount))
        self._check_account(entry, body.account)
        self._check_time(entry, body.valid_until)
        self._awards[entry.index] = (body.account, body.amount, day_of(entry.evidence.time), body.reason)

    def _document(self, entry: Entry, of: type[D]) -> Paper[D] | None:
        """The one document behind an entry, which is behind no other."""
        named = entry.evidence.documents
        if len(named) != 1:
            self._findings.add("the evidence's documents", len(named), f"one {of.KIND}", entry.index)
            return None
        if named[0] in self._seen:
            self._findings.add(f"a {of.KIND}", "entered for the second time", "once", entry.index)
        self._seen.add(named[0])
        self._expect(
            entry, "the evidence's rules", entry.evidence.rules, version_at(self._versions, entry.evidence.time)
        )
        return self._papers.find(named[0], of, entry.index)

    def _expect(self, entry: Entry, what: str, found: object, wanted: object) -> None:
        self._findings.expect(what, found, wanted, entry.index)

    def _accounts_of(self, key: bytes, time: int) -> set[int]:
        """The account whose key this was; both of them in the moment in which it changed."""
        rows = self._connection.execute(
            "SELECT account FROM keys WHERE key = ? AND since <= ? AND (until = 0 OR until >= ?)", (key, time, time)
        )
        return {account for (account,) in rows}

    def _check_account(self, entry: Entry, number: int) -> None:
        row = self._connection.execute("SELECT since FROM accounts WHERE account = ?", (number,)).fetchone()
        if number < FIRST_PERSON or row is None or row[0] > entry.evidence.time:
            self._findings.add("the account that gets kudos", number, "one that was there", entry.index)

    def _check_time(self, entry: Entry, valid_until: int) -> None:
        time = entry.evidence.time
        if not valid_until - MAX_VALIDITY_MS <= time <= valid_until:
            self._findings.add("the time", time, f"within the hour before {valid_until}", entry.index)

    def _giver(self, number: int, time: int) -> Giver:
        sums = self._books.of(number)
        row = self._connection.execute("SELECT since FROM accounts WHERE account = ?", (number,)).fetchone()
        return Giver(
            number=number,
            since=row[0] if row else time,
            balance=sums.balance,
            earned=sums.earned - sums.withheld,
            given=sums.given,
            given_today=self._books.given_on(number, day_of(time)),
        )

    def end(self) -> None:
        """The last entry was seen: compare what anybody can read of awards, and look for what was left out."""
        kept = {
            entry: tuple(row)
            for entry, *row in self._connection.execute("SELECT entry, account, amount, day, reason FROM awards")
        }
        newest = dict(sorted(self._awards.items())[-SHOWN_AWARDS:])
        for entry in sorted(kept.keys() | newest.keys()):
            self._findings.expect("the row of an award", kept.get(entry), newest.get(entry), entry)
        for digest, kind in self._connection.execute(
            "SELECT digest, kind FROM papers WHERE kind IN (?, ?)", (Transfer.KIND, Award.KIND)
        ):
            if digest not in self._seen:
                self._findings.add(f"{kind} {digest[:8].hex()}…, which was taken", "in no entry", "in the ledger")
