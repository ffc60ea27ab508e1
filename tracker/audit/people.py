"""Keys, delegations and profiles, against the documents behind them: who could act for which account, and when."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TypeVar

from protocol import postings
from protocol.documents import (
    Delegation,
    Document,
    Leaving,
    Profile,
    Recovery,
    Request,
    Revocation,
    Rotation,
)
from protocol.envelope import Envelope
from protocol.errors import NotAllowed, Refusal
from protocol.postings import ANONYMOUS, FIRST_PERSON
from tracker.accounts import Acting, Grant, available, check_ask
from tracker.audit.books import Books
from tracker.audit.entry import Entry
from tracker.audit.papers import Paper, Papers, open_kept
from tracker.audit.report import Findings

D = TypeVar("D", bound=Document)
T = TypeVar("T")


@dataclass(frozen=True)
class Held:
    """For whom a key acted. delegation: none for the account's own key. until: 0 while it does. begun: what made it the
    account's key; none where it registered."""

    account: int
    delegation: bytes
    since: int
    until: int
    begun: bytes = b""

    def covers(self, time: int) -> bool:
        """Whether it acted then; in the moment of a change both who did before and who does after count."""
        return self.since <= time and (not self.until or time <= self.until)

    def surely_covers(self, time: int) -> bool:
        """Whether it acted then beyond doubt."""
        return self.since < time and (not self.until or time < self.until)


class People:
    """Looks up who acted when; goes along with the walk for what is spent through delegations and burned by leaving."""

    def __init__(self, connection: sqlite3.Connection, books: Books, findings: Findings) -> None:
        self._connection = connection
        self._books = books
        self._findings = findings
        self._papers = Papers(connection, findings)
        self._used: Counter[bytes] = Counter()
        self._terms: dict[bytes, Delegation | None] = {}
        self._left: set[bytes] = set()

    @property
    def used(self) -> Counter[bytes]:
        """What is held and spent through each delegation."""
        return self._used

    # Who acted when

    def held(self, key: bytes) -> list[Held]:
        """All that a key was and did for accounts."""
        found = [
            Held(account, b"", since, until, begun)
            for account, since, until, begun in self._connection.execute(
                "SELECT account, since, until, begun FROM keys WHERE key = ?", (key,)
            )
        ]
        for account, digest, since, until in self._connection.execute(
            "SELECT account, delegation, since, until FROM delegations WHERE delegate = ?", (key,)
        ):
            terms = self._terms_of(digest)
            ends = [end for end in (until, terms.expires if terms else 0) if end]
            found.append(Held(account, digest, since, min(ends, default=0)))
        return found

    def owners(self, worker: bytes, time: int) -> set[int]:
        """The accounts for which a key could work then."""
        return {
            held.account
            for held in self.held(worker)
            if held.covers(time) and (not held.delegation or self._may_work(held.delegation))
        }

    def owner(self, worker: bytes, time: int, said: int) -> int:
        """The account for which a key worked: the one that is said, if it could."""
        owners = self.owners(worker, time)
        return said if said in owners else min(owners, default=0)

    def account(self, key: bytes, time: int, said: int = 0) -> int:
        """The account for which a key acted then, in whichever role; 0 for none."""
        accounts = {held.account for held in self.held(key) if held.covers(time)}
        return said if said in accounts else min(accounts, default=0)

    def surely_known_as(self, key: bytes, time: int) -> set[int]:
        """Every account that somebody with this key was known by then, beyond doubt: for which it acted, or whose own
        key it was before."""
        return {
            held.account
            for held in self.held(key)
            if (held.surely_covers(time) if held.delegation else held.since < time)
        }

    def _may_work(self, delegation: bytes) -> bool:
        terms = self._terms_of(delegation)
        return terms is not None and terms.work

    def _terms_of(self, digest: bytes) -> Delegation | None:
        if digest not in self._terms:
            row = self._connection.execute(
                "SELECT raw FROM documents WHERE rowid = (SELECT place FROM papers WHERE digest = ?)", (digest,)
            ).fetchone()
            try:
                self._terms[digest] = open_kept(row[0] if row else None, Delegation)[1]
            except Refusal:
                self._terms[digest] = None
        return self._terms[digest]

    # Along the walk

    def available(self, delegation: bytes, balance: int) -> int:
        """What of the balance a hold can take that is made through a delegation."""
        terms = self._terms_of(delegation) if delegation else None
        if terms is None:
            return balance
        return available(Acting(0, Grant(delegation, terms)), balance, self._used[delegation])

    def hold(self, delegation: bytes, amount: int) -> None:
        """So much is set aside through a delegation (below zero: it went back)."""
        if delegation:
            self._used[delegation] += amount

    def left(self, entry: Entry) -> None:
        """An account has ended, by its own key: what it had is burned."""
        named = entry.evidence.documents
        said = self._papers.find(named[0], Leaving, entry.index) if len(named) == 1 else None
        if said is None:
            self._findings.add("the evidence's documents", len(named), "one leaving", entry.index)
            return
        if named[0] in self._left:
            self._findings.add("a leaving", "entered for the second time", "once", entry.index)
        self._left.add(named[0])
        row = self._connection.execute(
            "SELECT account FROM keys WHERE key = ? AND ended = ?", (said.envelope.key, named[0])
        ).fetchone()
        if row is None:
            self._findings.add("the leaving's signer", said.envelope.key, "the account's key of then", entry.index)
            return
        sums = self._books.of(row[0])
        right = postings.leave(row[0], sums.balance, sums.withheld)
        self._findings.expect("the postings of a leave", entry.moved, right, entry.index)
        self._findings.expect("what is held for who leaves", sums.held, 0, entry.index)
        sums.withheld = 0

    # Requests

    def check_payer(self, what: str, request: Paper[Request], payer: int, delegation: bytes, admitted: int) -> None:
        """Who pays is who the signer acted for, within its bounds; nobody only if the key had no account."""
        held = self.held(request.envelope.key)
        if payer == ANONYMOUS:
            own = [one.account for one in held if not one.delegation and not one.begun and one.surely_covers(admitted)]
            self._findings.expect(f"{what}: payer", payer, own[0] if own else ANONYMOUS)
            self._findings.expect(f"{what}: the delegation of nobody", delegation, b"")
            return
        if not any((one.account, one.delegation) == (payer, delegation) and one.covers(admitted) for one in held):
            wanted = sorted({one.account for one in held if one.covers(admitted)}) or [ANONYMOUS]
            self._findings.add(f"{what}: payer", payer, " or ".join(map(str, wanted)))
        terms = self._terms_of(delegation) if delegation else None
        if terms is not None:
            try:
                check_ask(Acting(payer, Grant(delegation, terms)), request.body.public)
            except NotAllowed as refusal:
                self._findings.add(f"{what}: what its delegation allows", refusal, "a request within it")

    # The tables

    def check_tables(self) -> None:
        """Every row has its document by who may sign it, and every document its row."""
        rows = self._connection.execute("SELECT account, key, since, until, begun, ended FROM keys").fetchall()
        for row in rows:
            self._check_key(*row)
        self._check_chains(rows)
        self._check_one_key_each()
        for delegation in self._connection.execute(
            "SELECT delegation, account, signer, delegate, since, until, ended, used FROM delegations"
        ).fetchall():
            self._check_delegation(*delegation)
        self._check_shown()
        self._check_none_left_out()

    def _check_key(self, account: int, key: bytes, since: int, until: int, begun: bytes, ended: bytes) -> None:
        what = f"account {account}: its key {key[:8].hex()}…"
        if begun:
            paper = self._paper(f"{what}: how it came", begun, Rotation)
            if paper is not None:
                self._findings.expect(f"{what}: the key of its rotation", paper.body.key, key)
                if not self._was_key(account, paper.body.former, None):
                    self._findings.add(f"{what}: whose its rotation was", paper.body.former, f"account {account}")
                if not self._may_rotate(account, paper.envelope.key, since):
                    self._findings.add(f"{what}: who rotated", paper.envelope.key, "its former or its recovery key")
        if bool(until) != bool(ended):
            self._findings.add(f"{what}: how it went", ended, "a document exactly if it went")
        elif ended and self._named(ended, Rotation) is None:
            paper_of_end = self._paper(f"{what}: how it went", ended, Leaving)
            if paper_of_end is not None:
                self._findings.expect(f"{what}: who ended it", paper_of_end.envelope.key, key)
                if ended not in self._left:
                    self._findings.add(f"{what}: its leaving", "in no entry", "in the ledger")

    def _may_rotate(self, account: int, signer: bytes, time: int) -> bool:
        if self._was_key(account, signer, time):
            return True
        return any(
            paper.body.recovery == signer and self._was_key(account, paper.envelope.key, None)
            for paper in self._recoveries
        )

    @cached_property
    def _recoveries(self) -> list[Paper[Recovery]]:
        return self._all(Recovery)

    def _check_chains(self, rows: list[tuple[int, bytes, int, int, bytes, bytes]]) -> None:
        """Each account began with one key, when it was opened; each rotation put one key in the place of another."""
        opened = dict(self._connection.execute("SELECT account, since FROM accounts").fetchall())
        firsts = sorted((account, since) for account, _, since, _, begun, _ in rows if not begun)
        wanted = sorted((account, since) for account, since in opened.items() if account >= FIRST_PERSON)
        for account, since in sorted({*firsts} ^ {*wanted}) or _twice(firsts):
            self._findings.add(f"account {account}: the key that it began with", since, "one, of when it was opened")
        came = sorted((begun, account, since) for account, _, since, _, begun, _ in rows if begun)
        went = sorted(
            (ended, account, until) for account, _, _, until, _, ended in rows if ended and self._named(ended, Rotation)
        )
        for digest, account, time in sorted({*came} ^ {*went}) or _twice(came) or _twice(went):
            what = f"account {account}: rotation {digest[:8].hex()}…"
            self._findings.add(what, f"half of one at {time}", "one key that goes and one that comes, at once")

    def _check_one_key_each(self) -> None:
        """Each person has one key, or has left."""
        rows = self._connection.execute(
            "SELECT a.account, count(k.key) FROM accounts a LEFT JOIN keys k ON k.account = a.account AND k.until = 0"
            " WHERE a.account >= ? GROUP BY a.account",
            (FIRST_PERSON,),
        ).fetchall()
        for account, count in rows:
            if count == 1:
                continue
            last = self._connection.execute(
                "SELECT ended FROM keys WHERE account = ? ORDER BY until DESC LIMIT 1", (account,)
            ).fetchone()
            if count or last is None or self._named(last[0], Leaving) is None:
                self._findings.add(f"account {account}: its keys", count, "one, or none after its leaving")

    def _check_delegation(
        self,
        digest: bytes,
        account: int,
        signer: bytes,
        delegate: bytes,
        since: int,
        until: int,
        ended: bytes,
        used: int,
    ) -> None:
        what = f"delegation {digest[:8].hex()}…"
        self._findings.expect(f"{what}: held and spent through it", used, self._used[digest])
        paper = self._paper(what, digest, Delegation)
        if paper is None:
            return
        self._findings.expect(f"{what}: delegate", delegate, paper.body.delegate)
        self._findings.expect(f"{what}: signer", signer, paper.envelope.key)
        if not self._was_key(account, signer, since):
            self._findings.add(f"{what}: signer", signer, f"the key of account {account} at that time")
        if until and not self._ends(digest, paper.body, account, until, ended):
            self._findings.add(f"{what}: how it ended", ended, "by its account, by a newer one, or by itself")

    def _ends(self, digest: bytes, said: Delegation, account: int, until: int, ended: bytes) -> bool:
        if not ended:
            return until == said.expires
        revocation, newer = self._named(ended, Revocation), self._named(ended, Delegation)
        leaving = self._named(ended, Leaving)
        by = next((paper.envelope.key for paper in (revocation, newer, leaving) if paper is not None), b"")
        fits = (
            (revocation is not None and revocation.body.delegation == digest)
            or (newer is not None and newer.body.delegate == said.delegate)
            or leaving is not None
        )
        return fits and self._was_key(account, by, until)

    def _check_shown(self) -> None:
        for account, digest, version, name, public, service in self._connection.execute(
            "SELECT account, digest, version, name, public, service FROM profiles"
        ).fetchall():
            what = f"account {account}: its profile"
            profile = self._paper(what, digest, Profile)
            if profile is not None:
                said = profile.body
                row = (version, name, bool(public), bool(service))
                self._findings.expect(what, row, (said.version, said.name, said.public, said.service))
                self._check_was_key(what, account, profile.envelope)
        for account, digest, version, recovery in self._connection.execute(
            "SELECT account, digest, version, recovery FROM recoveries"
        ).fetchall():
            what = f"account {account}: its recovery key"
            named = self._paper(what, digest, Recovery)
            if named is not None:
                self._findings.expect(what, (version, recovery), (named.body.version, named.body.recovery))
                self._check_was_key(what, account, named.envelope)

    def _check_was_key(self, what: str, account: int, envelope: Envelope) -> None:
        if not self._was_key(account, envelope.key, None):
            self._findings.add(f"{what}: signer", envelope.key, f"a key of account {account}")

    def _check_none_left_out(self) -> None:
        """What was taken had its effect."""
        queries = {
            Delegation.KIND: "SELECT delegation FROM delegations",
            Rotation.KIND: "SELECT begun FROM keys",
            Leaving.KIND: "SELECT ended FROM keys",
        }
        for kind, query in queries.items():
            had_effect = {digest for (digest,) in self._connection.execute(query)}
            for (digest,) in self._connection.execute("SELECT digest FROM papers WHERE kind = ?", (kind,)).fetchall():
                if digest not in had_effect:
                    self._findings.add(f"{kind} {digest[:8].hex()}…, which was taken", "without effect", "its row")
        for paper in self._all(Revocation):
            row = self._connection.execute(
                "SELECT until FROM delegations WHERE delegation = ?", (paper.body.delegation,)
            ).fetchone()
            if row is None or not row[0]:
                name = paper.body.delegation[:8].hex()
                self._findings.add(f"delegation {name}…, which was revoked", "stands", "ended")

    def _was_key(self, account: int, key: bytes, time: int | None) -> bool:
        """Whether this was the account's own key, at that time or at any."""
        return any(
            held.account == account and not held.delegation and (time is None or held.covers(time))
            for held in self.held(key)
        )

    def _paper(self, what: str, digest: bytes, of: type[D]) -> Paper[D] | None:
        paper = self._named(digest, of)
        if paper is None:
            self._findings.add(what, digest, f"a {of.KIND} that is kept")
        return paper

    def _named(self, digest: bytes, of: type[D]) -> Paper[D] | None:
        row = self._connection.execute(
            "SELECT raw FROM documents WHERE rowid = (SELECT place FROM papers WHERE digest = ?)", (digest,)
        ).fetchone()
        try:
            return Paper(*open_kept(row[0], of)) if row else None
        except Refusal:
            return None

    def _all(self, of: type[D]) -> list[Paper[D]]:
        rows = self._connection.execute(
            "SELECT d.raw FROM papers p JOIN documents d ON d.rowid = p.place WHERE p.kind = ?", (of.KIND,)
        ).fetchall()
        found = []
        for (raw,) in rows:
            try:
                found.append(Paper(*open_kept(raw, of)))
            except Refusal:
                continue  # a finding of `check_documents`
        return found


def _twice(sorted_values: Sequence[T]) -> list[T]:
    return [one for one, following in pairwise(sorted_values) if one == following]
