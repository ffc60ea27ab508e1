"""The walk along the ledger, leaf by leaf: evidence opened, tree and sums grown, checkpoints compared on the way."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from protocol import codec, merkle, postings, prices
from protocol.documents import Cancel, Checkpoint, Denial, Epoch, Evidence, Leaf, Request
from protocol.errors import Refusal
from protocol.merkle import Frontier
from protocol.postings import ANONYMOUS
from tracker.audit.acts import Acts
from tracker.audit.archives import Archive, begins_with
from tracker.audit.books import Books
from tracker.audit.entry import Entry
from tracker.audit.epochs import Epochs
from tracker.audit.giving import Giving
from tracker.audit.head import Head
from tracker.audit.opening import Cut, Opening, begin, compare, opening_of
from tracker.audit.papers import Horde, Paper, Papers, Version, check_signed
from tracker.audit.payments import Moment, Payments
from tracker.audit.people import People
from tracker.audit.probation import Probation
from tracker.audit.recoveries import Recoveries
from tracker.audit.report import Findings
from tracker.ledger import leaf_of
from tracker.lifecycle import LIVE, Job, State
from tracker.store.sqlite import rows

#: Events of which later entries ask nothing but the books.
_BY_THE_BOOKS = frozenset({"hold", "settle", "release", "vest"})


@dataclass
class Walked:
    """What the walk saw. head_leaf, head_root: what stands where a kept settlement says, None if nothing does.
    refunded: jobs. by_plugin: paid leases whose price was the operator's own."""

    books: Books = field(default_factory=Books)
    tree: Frontier = field(default_factory=Frontier)
    checkpoints: int = 0
    settled: int = 0
    refunded: set[bytes] = field(default_factory=set)
    by_plugin: int = 0
    head_leaf: bytes | None = None
    head_root: bytes | None = None


class Walk:
    """One pass over entries and checkpoints."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        horde: Horde,
        versions: dict[int, Version],
        epochs: list[Paper[Epoch]],
        head: Head | None,
        findings: Findings,
        archives: Sequence[Archive] = (),
        cut: Cut | None = None,
    ) -> None:
        self.seen = Walked()
        self.books_at_cut: Opening | None = None
        self._cut = cut
        self._begins = begins_with(archives)
        self._ends = {archive.size: archive for archive in archives}
        self._connection = connection
        self._horde = horde
        self._versions = versions
        self._head = head
        self._findings = findings
        self._papers = Papers(connection, findings)
        self._probation = Probation(connection, versions, self.seen.books, findings)
        self.people = People(connection, self.seen.books, findings)
        self._giving = Giving(connection, versions, self.seen.books, findings)
        self._acts = Acts(connection, versions, self.seen.books, self.people, findings)
        self._payments = Payments(connection, versions, self.seen.books, self._probation, self.people, findings)
        self.recoveries = Recoveries(connection, horde, versions, self.seen.books, self.people, findings)
        self._epochs = Epochs(epochs, horde, findings)
        self._checkpoint = b""
        self._roots_differ = False

    @property
    def begins(self) -> int:
        """The entry from which on evidence is checked."""
        return self._begins.size if self._begins else 0

    def run(self) -> None:
        """Walk from the first entry to the last."""
        checkpoints = iter(self._connection.execute("SELECT size, document FROM checkpoints ORDER BY size"))
        later = self._pass_checkpoints(checkpoints, next(checkpoints, None))
        for number, leaf, hashed, evidence in self._connection.execute(
            "SELECT entry, leaf, hash, evidence FROM entries ORDER BY entry"
        ):
            index = self.seen.tree.size
            self._findings.expect("the entry's number", number, index, number)
            self._entry(index, leaf, hashed, evidence)
            later = self._pass_checkpoints(checkpoints, later)
            self._pass_archive()
        for archive in self._ends.values():
            self._findings.add(f"{archive.name} ends at", archive.size, f"at most {self.seen.tree.size} entries")
        self._epochs.end()
        self.recoveries.end()
        self._probation.end()
        self._giving.end()
        self._acts.end()
        self.seen.by_plugin = self._payments.by_plugin
        while later is not None:
            self._findings.add(
                "the ledger's tail was cut: a checkpoint covers more", f"{self.seen.tree.size} entries", later[0]
            )
            self.seen.checkpoints += 1
            later = next(checkpoints, None)

    # The tree

    def _pass_checkpoints(
        self, rest: Iterator[tuple[int, bytes]], checkpoint: tuple[int, bytes] | None
    ) -> tuple[int, bytes] | None:
        """Compare the checkpoint of this size, if there is one; returns the next one. Called once for each size."""
        tree = self.seen.tree
        if self._head is not None and self._head.checkpoint.size == tree.size:
            self.seen.head_root = tree.root()
        if checkpoint is None or checkpoint[0] != tree.size:
            return checkpoint
        self.seen.checkpoints += 1
        size, raw = checkpoint
        what = f"checkpoint {size}"
        self._checkpoint = raw
        try:
            envelope, said = check_signed(raw, self._horde, Checkpoint)
        except Refusal as refusal:
            self._findings.add(what, refusal, "a document of the serving key")
            return next(rest, None)
        self._findings.expect(f"{what}: size", said.size, size)
        if not self._roots_differ:  # once they do, all later ones do
            self._roots_differ = not self._findings.expect(
                f"{what}: root of the tree (nothing after it can be trusted)", said.root, tree.root(), max(0, size - 1)
            )
        self._findings.expect(f"{what}: epoch", said.epoch, self._epochs.number)
        self._findings.expect(f"{what}: signer", envelope.key, self._epochs.serving)
        return next(rest, None)

    def _pass_archive(self) -> None:
        """Compare the books with those that were signed for here; from the last archive that was not read, go on."""
        if self._cut is not None and self.seen.tree.size == self._cut.size:
            self.books_at_cut = self.opening(self._cut.since)
        archive = self._ends.pop(self.seen.tree.size, None)
        if archive is None:
            return
        self._findings.expect(f"{archive.name}: root of the tree", archive.said.root, self.seen.tree.root())
        self._findings.expect(f"{archive.name}: epoch", archive.said.epoch, self._epochs.number)
        if archive.opening is None:
            return
        found = self.opening(archive.opening.since, archive.opening.salt)
        if archive.size > self.begins:
            compare(found, archive.opening, archive.name, self._findings)
        elif found.balances != archive.opening.balances:
            wrong = sorted({*found.balances} ^ {*archive.opening.balances})
            self._findings.add(f"{archive.name}: balances", wrong[:4], "those that the leaves add up to")
        if archive is self._begins:
            begin(self.seen.books, self.people.used, archive.opening)

    def opening(self, since: int, salt: bytes = b"") -> Opening:
        """The books as they stand now. since: the first day of which shares of the mint are still asked for."""
        return opening_of(self.seen.books, self.people.used, since, salt)

    def _entry(self, index: int, raw: bytes, stored: bytes, evidence_raw: bytes) -> None:
        self.recoveries.reach(index, self.seen.settled)
        before = self.seen.tree.root() if self._epochs.begins_at(index) else b""
        hashed = merkle.leaf_hash(raw)
        self._findings.expect("the stored hash of the leaf", stored, hashed, index)
        self.seen.tree = self.seen.tree.append(hashed)
        if self._head is not None and self._head.settlement.entry == index:
            self.seen.head_leaf = hashed
        try:
            leaf = codec.decode(raw, Leaf)
            evidence = codec.decode(evidence_raw, Evidence) if evidence_raw or index >= self.begins else None
        except Refusal as refusal:
            self._findings.add("leaf or evidence", refusal, "what can be read", index)
            return
        self.seen.settled += leaf.event == "settle"
        if evidence is not None:
            self._check_leaf(index, raw, leaf, leaf_of(leaf.event, leaf.postings, evidence, evidence_raw))
            self._judge(leaf.event, before, Entry(index, hashed, leaf.postings, evidence))
        self.seen.books.post(leaf.postings)

    def _judge(self, event: str, before: bytes, entry: Entry) -> None:
        """Of an entry of before the beginning nothing is judged that takes the books of then; what later ones speak of
        is noted all the same."""
        passed = entry.index < self.begins
        if passed and event in _BY_THE_BOOKS:
            return
        if not passed:
            self._probation.reach(entry.index, event)
        self._findings.muted = passed and event != "epoch"
        try:
            self._event(event, before, entry)
        except (Refusal, ValueError) as error:  # a row or price that makes no sense
            self._findings.add(f"what a {event} speaks of", error, "what can be read", entry.index)
        finally:
            self._findings.muted = False

    def _check_leaf(self, index: int, raw: bytes, leaf: Leaf, right: Leaf) -> None:
        """The leaf is what the evidence makes of it."""
        self._findings.expect("the sum of the postings", sum(amount for _, amount in leaf.postings), 0, index)
        for name in ("day", "hold", "evidence"):
            self._findings.expect(f"the leaf's {name}", getattr(leaf, name), getattr(right, name), index)
        if leaf == right:
            self._findings.expect("the leaf's bytes", raw, codec.encode(right), index)

    # Events

    def _event(self, event: str, before: bytes, entry: Entry) -> None:
        match event:
            case "hold" | "release" | "refund" | "settle":
                self._event_of_job(event, entry)
            case "recovered":
                self.recoveries.recovered(entry)
            case "charged":
                self.recoveries.charged(entry)
            case "vest":
                self._probation.vested(entry)
            case "transfer":
                self._giving.transferred(entry)
            case "award":
                self._giving.awarded(entry, self._epochs.serving)
                self._acts.awarded(entry)
            case "act" | "return" | "trust":
                self._acts.acted(event, entry, self._epochs.serving)
            case "leave":
                self.people.left(entry)
            case "epoch":
                self._epochs.entered(entry, before)
            case _:
                self._findings.add("the event", event, "one of docs/protocol.md", entry.index)

    def _event_of_job(self, event: str, entry: Entry) -> None:
        job = rows.job(self._connection, entry.evidence.job) if entry.evidence.job else None
        if job is None:
            self._findings.add("the job of the evidence", entry.evidence.job, "a job that is kept", entry.index)
            return
        if entry.evidence.rules not in self._versions:
            self._findings.add("the rules of the evidence", entry.evidence.rules, "a version that is kept", entry.index)
        match event:
            case "hold":
                self._hold(entry, job)
            case "settle":
                moment = Moment(self._checkpoint, self._epochs.serving, self.seen.settled)
                self._payments.check(entry, job, moment)
            case _:
                self._release(event, entry, job)

    def _expect(self, entry: Entry, what: str, found: object, wanted: object) -> None:
        self._findings.expect(what, found, wanted, entry.index)

    def _hold(self, entry: Entry, job: Job) -> None:
        """What is set aside is what one of the named models costs, as far as the balance goes: the dearest that was
        served then, and which one that was nothing proves."""
        amount = -sum(moved for account, moved in entry.moved if account == job.payer)
        self._expect(entry, "the postings of a hold", entry.moved, postings.hold(job.payer, amount))
        self._expect(entry, "the evidence's documents", entry.evidence.documents, (job.request,))
        self._expect(entry, "the attempt of a hold", entry.evidence.attempt, 0)
        self._expect(entry, "the time of a hold", entry.evidence.time, job.admitted)
        self._expect(entry, "what was held for the job before", self.seen.books.holds.get(job.handle, 0), 0)
        if job.payer == ANONYMOUS:
            self._findings.add("the payer of a hold", "anonymous", "an account", entry.index)
        request = self._papers.find(job.request, Request, entry.index)
        version = self._versions.get(entry.evidence.rules)
        if request is not None and version is not None:
            rules, public = version.rules, request.body.public
            balance = self.people.available(job.delegation, self.seen.books.of(job.payer).balance)
            tax = prices.tax(rules, public.share)
            if rules.prices.plugin:
                self._check_hold_of_plugin(entry, amount, balance, public.max_price + tax if public.max_price else None)
                self._set_aside(job, amount)
                return
            costs = {prices.price(rules, public.work, model) for model in public.models or (*rules.models, "")}
            bearable = {cost for cost in costs if not public.max_price or cost <= public.max_price}
            right = {postings.share(cost, tax, balance).held for cost in bearable}
            if amount not in right:
                wanted = " or ".join(str(held) for held in sorted(right))
                self._findings.add("the amount of a hold", amount, wanted, entry.index)
        self._set_aside(job, amount)

    def _set_aside(self, job: Job, amount: int) -> None:
        self.seen.books.hold(job.handle, job.payer, amount)
        self.people.hold(job.delegation, amount)

    def _check_hold_of_plugin(self, entry: Entry, amount: int, balance: int, most: int | None) -> None:
        """Where nobody else can compute the price, it is within the balance and within what the requester bears."""
        most = max(0, balance if most is None else min(most, balance))
        if amount > most:
            self._findings.add("the amount of a hold", amount, f"at most {most}", entry.index)

    def _release(self, event: str, entry: Entry, job: Job) -> None:
        """All that is still held goes back to who paid it, when the job has ended, for a reason that is kept."""
        held = self.seen.books.holds.get(job.handle, 0)
        amount = sum(moved for account, moved in entry.moved if account == job.payer)
        self._expect(entry, f"the postings of a {event}", entry.moved, postings.release(job.payer, held))
        self._expect(entry, "the event", event, "refund" if job.state is State.REFUNDED else "release")
        if job.state in LIVE:
            self._findings.add("the job's state", job.state, "an end", entry.index)
        named = entry.evidence.documents
        match job.state:
            case State.REFUNDED:
                self._refunded(entry, job)
            case State.CANCELLED:
                self._cancelled(entry, job)
            case _:
                self._expect(entry, "the evidence's documents", named, ())
        self.seen.books.unhold(job.handle, job.payer, amount)
        self.people.hold(job.delegation, -amount)

    def _refunded(self, entry: Entry, job: Job) -> None:
        named = entry.evidence.documents
        denial = self._papers.find(named[0], Denial, entry.index) if len(named) == 1 else None
        if denial is None:
            self._findings.add("the evidence's documents", len(named), "one denial", entry.index)
            return
        self._expect(entry, "the denial's signer", denial.envelope.key, job.job_key)
        spoken_of = job.handle, entry.evidence.attempt
        self._expect(entry, "the denial's job and attempt", (denial.body.job, denial.body.attempt), spoken_of)
        if job.handle in self.seen.refunded:
            self._findings.add("a job", "refunded for the second time", "once", entry.index)
        self.seen.refunded.add(job.handle)
        attempt = rows.attempt(self._connection, job.handle, entry.evidence.attempt)
        if attempt is not None and attempt.owner != job.payer:
            self._probation.refunded(entry, attempt.owner)

    def _cancelled(self, entry: Entry, job: Job) -> None:
        """By a cancel that the evidence names; one that came while the job was leased is found by its job key."""
        named = entry.evidence.documents
        if len(named) > 1:
            self._findings.add("the evidence's documents", len(named), "at most one cancel", entry.index)
        found = self._connection.execute(
            "SELECT digest FROM papers WHERE signer = ? AND kind = ?", (job.job_key, Cancel.KIND)
        ).fetchall()
        for digest in named or [digest for (digest,) in found]:
            cancel = self._papers.find(digest, Cancel, entry.index)
            if cancel and cancel.envelope.key == job.job_key and cancel.body.job in (None, job.handle):
                return
        self._findings.add("the cancel behind it", None, "one by the request's job key", entry.index)
