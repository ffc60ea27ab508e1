"""What was entered again after a restore, and what nobody has shown."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from protocol import postings
from protocol.documents import Lease, Receipt, Request, Settlement
from protocol.errors import Refusal
from protocol.keys import show_key
from protocol.postings import ANONYMOUS, FIRST_PERSON
from tracker.audit.books import Books
from tracker.audit.entry import Entry
from tracker.audit.head import Head
from tracker.audit.papers import Horde, Papers, Version, open_kept
from tracker.audit.people import People
from tracker.audit.report import Findings, Gap
from tracker.ledger import day_of
from tracker.recovery import check_relations, uncovered
from tracker.store.sqlite import rows


@dataclass
class Entered:
    """A settlement that was entered again. charged: the entry by which its payer was charged, None if it was not."""

    signer: bytes
    settlement: Settlement
    lease: Lease
    papers: tuple[bytes, ...]
    entry: int
    charged: int | None = None

    @property
    def amount(self) -> int:
        """What its payer owes."""
        return self.settlement.paid + self.settlement.burned


class Recoveries:
    """Goes along with the walk. entered: by the settlement's digest."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        horde: Horde,
        versions: dict[int, Version],
        books: Books,
        people: People,
        findings: Findings,
    ) -> None:
        self._people = people
        self.entered: dict[bytes, Entered] = {}
        self._connection = connection
        self._horde = horde
        self._versions = versions
        self._books = books
        self._findings = findings
        self._papers = Papers(connection, findings)
        self._minted: Counter[tuple[bytes, int]] = Counter()
        self._settled_before: dict[int, int] = {}

    @property
    def papers(self) -> set[bytes]:
        """Digests of all settlements and leases behind what was entered again."""
        return {digest for entered in self.entered.values() for digest in entered.papers}

    def reach(self, index: int, settled: int) -> None:
        """The walk comes to an entry, with so many settlements before it."""
        if index in self._horde.former.values():
            self._settled_before[index] = settled

    def recovered(self, entry: Entry) -> None:
        """A `recovered` entry follows from its settlement, lease and receipt, and comes once."""
        named = entry.evidence.documents
        if len(named) != 3:
            self._findings.add("the evidence's documents", len(named), "settlement, lease, receipt", entry.index)
            return
        settlement = self._papers.find(named[0], Settlement, entry.index)
        lease = self._papers.find(named[1], Lease, entry.index)
        receipt = self._papers.find(named[2], Receipt, entry.index)
        if settlement is None or lease is None or receipt is None:
            return
        said, signer = settlement.body, settlement.envelope.key
        check_relations(said, lease.body, (receipt.envelope, receipt.body))
        self._expect(entry, "the evidence's job and attempt", _job_of(entry), (said.job, said.attempt))
        if not self._horde.is_cut(signer, said.entry):
            self._findings.add("a settlement entered again", f"of entry {said.entry}", "one that was cut", entry.index)
        if named[0] in self.entered:
            self._findings.add("a settlement entered again", "for the second time", "once", entry.index)
        said_owner = next((account for account, _ in entry.moved if account >= FIRST_PERSON), 0)
        owner = self._people.account(lease.body.worker, entry.evidence.time, said_owner)
        right = postings.settle(owner, paid=said.paid, minted=said.minted, burned=said.burned, withheld=said.withheld)
        self._expect(entry, "the postings", entry.moved, right)
        self._check_mint(entry, signer, owner, day_of(lease.body.issued), said.minted)
        self._books.of(owner).withheld += said.withheld
        self.entered[named[0]] = Entered(signer, said, lease.body, named[:2], entry.index)
        if lease.body.price:
            sums = self._books.of(owner)
            sums.earned += said.paid + said.minted
            sums.jobs_done += 1

    def _check_mint(self, entry: Entry, signer: bytes, owner: int, day: int, minted: int) -> None:
        self._books.mint_again(day, minted, f"owner {owner}")
        self._minted[signer, day] += minted
        most = max((version.rules.mint.daily for version in self._versions.values()), default=0)
        if minted and self._minted[signer, day] > most:
            self._findings.add(f"minted again on day {day}", self._minted[signer, day], f"at most {most}", entry.index)

    def charged(self, entry: Entry) -> None:
        """A `charged` entry takes from the payer what its settlement says, once."""
        named = entry.evidence.documents
        entered = self.entered.get(named[0]) if len(named) == 2 else None
        if entered is None or entered.charged is not None:
            found = "charged already" if entered else "not entered again before"
            self._findings.add("what a payer is charged for", found, "a settlement and the request", entry.index)
            return
        entered.charged = entry.index
        said = entered.settlement
        self._expect(entry, "the evidence's job and attempt", _job_of(entry), (said.job, said.attempt))
        request = self._papers.find(named[1], Request, entry.index)
        if request is None:
            return
        self._expect(entry, "the request's job key", request.body.job_key, entered.lease.job_key)
        payer = self._payer(entered, request.envelope.key, entry.evidence.time)
        self._expect(entry, "the postings", entry.moved, postings.hold(payer, entered.amount))
        if entered.lease.price:
            sums = self._books.of(payer)
            sums.spent += entered.amount
            sums.taken_free += uncovered(entered.lease, said)
            sums.jobs_free += bool(uncovered(entered.lease, said))
            sums.jobs_received += 1

    def _payer(self, entered: Entered, signer: bytes, time: int) -> int:
        """As the ledger has its job; else the account of who asked, as it stood then."""
        job = rows.job(self._connection, entered.settlement.job)
        if job is not None and not (job.payer == ANONYMOUS and entered.amount):
            return job.payer
        return self._people.account(signer, time) or ANONYMOUS

    def _expect(self, entry: Entry, what: str, found: object, wanted: object) -> None:
        self._findings.expect(what, found, wanted, entry.index)

    # At the end

    def end(self) -> None:
        """The last entry was seen: compare the table by which the tracker knows what it has entered."""
        kept = {
            digest: row
            for digest, *row in self._connection.execute(
                "SELECT settlement, signer, entry, charged, day, minted FROM recovered"
            )
        }
        right = {
            digest: [one.signer, one.entry, one.charged, day_of(one.lease.issued), one.settlement.minted]
            for digest, one in self.entered.items()
        }
        for digest in sorted(kept.keys() | right.keys()):
            entry = self.entered[digest].entry if digest in self.entered else None
            what = f"the row of a settlement that was entered again, {digest[:8].hex()}…"
            self._findings.expect(what, kept.get(digest), right.get(digest), entry)

    def became_of(self, head: Head) -> str:
        """What became of a settlement that somebody kept, if a restore had cut it; else nothing."""
        number = head.settlement.entry
        if not self._horde.is_cut(head.envelope.key, number):
            return ""
        cut = f"a restore cut entry {number}"
        entered = self.entered.get(head.envelope.digest)
        if entered is not None:
            return f"{cut}, and it was entered again as entry {entered.entry}"
        return f"{cut}, and nobody has shown it: the peer that keeps it shows it by coming back"

    def gaps(self) -> Iterator[Gap]:
        """For each key that served before: what was cut, what of it came back, what nobody has shown."""
        shown_by = {key: set(self._shown(key, entries)) for key, entries in self._horde.former.items()}
        # Up to the restore that it began with, a key went on from numbers that another one had signed.
        any_shown = set().union(*shown_by.values())
        for key, entries in self._horde.former.items():
            shown, before = shown_by[key], self._settled_before.get(entries, 0)
            missing = set(range(before + 1, max(shown, default=0))) - any_shown
            mine = [one for one in self.entered.values() if one.signer == key]
            yield Gap(
                key=show_key(key),
                entries=entries,
                shown=len(shown),
                recovered=len(mine),
                missing=len(missing),
                lacking=sum(one.amount for one in mine if one.charged is None),
            )

    def _shown(self, key: bytes, entries: int) -> Iterator[int]:
        """The numbers of the settlements of this key that were cut and shown."""
        for (raw,) in self._connection.execute(
            "SELECT d.raw FROM papers p JOIN documents d ON d.rowid = p.place WHERE p.signer = ? AND p.kind = ?",
            (key, Settlement.KIND),
        ):
            try:
                _, said = open_kept(raw, Settlement)
            except Refusal:
                continue  # a finding of `check_documents`
            if said.entry >= entries:
                yield said.number


def _job_of(entry: Entry) -> tuple[bytes | None, int]:
    return entry.evidence.job, entry.evidence.attempt
