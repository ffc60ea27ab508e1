"""One settlement, computed again: from request, rules, lease and receipt to what each account must get."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

import msgspec

from protocol import postings, prices
from protocol.documents import Acknowledgement, Lease, Receipt, Request, Settlement
from protocol.envelope import parse
from protocol.errors import Refusal
from protocol.rules import Rules
from protocol.work import ImageWork, PublicPart
from tracker.audit.books import Books
from tracker.audit.entry import Entry
from tracker.audit.papers import Paper, Papers, Version
from tracker.audit.people import People
from tracker.audit.probation import Probation
from tracker.audit.report import Findings
from tracker.ledger import day_of
from tracker.lifecycle import Attempt, Job, State
from tracker.store.sqlite import rows
from tracker.store.sqlite.papers import job_identity


@dataclass(frozen=True)
class Moment:
    """What was so when an entry came. checkpoint: the newest one before it. serving: the key that served. settled: how
    many settlements there were, that of this entry among them."""

    checkpoint: bytes
    serving: bytes
    settled: int


@dataclass(frozen=True)
class Proofs:
    """The documents behind a settlement. acknowledgement: None where silence or a cancel settled it."""

    request: Paper[Request]
    lease: Paper[Lease]
    receipt: Paper[Receipt]
    acknowledgement: Paper[Acknowledgement] | None


@dataclass(frozen=True)
class Due:
    """What the evidence says is due. minted: at most. uncovered: free work taken."""

    paid: int
    minted: int
    tax: int
    uncovered: int


def due(work: PublicPart, lease: Lease, share: postings.Share, rules: Rules, used: int) -> Due:
    """The payment by what was used, never above the lease."""
    price = prices.used_price(rules, work.work, lease.model, used, lease.price) if lease.price else 0
    paid = min(lease.paid, price)
    uncovered = min(share.free, price - paid)
    minted = lease.free * uncovered // share.free if share.free else 0
    return Due(paid, minted, share.tax_paid, uncovered)


class Payments:
    """Checks the settle entries, in their order."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        versions: dict[int, Version],
        books: Books,
        probation: Probation,
        people: People,
        findings: Findings,
    ) -> None:
        self.by_plugin = 0  # leases of which nobody else can compute the price
        self._probation = probation
        self._people = people
        self._connection = connection
        self._versions = versions
        self._books = books
        self._findings = findings
        self._papers = Papers(connection, findings)

    def check(self, entry: Entry, job: Job, moment: Moment) -> None:
        """One settle entry of `job`."""
        attempt = rows.attempt(self._connection, job.handle, entry.evidence.attempt)
        if attempt is None:
            self._findings.add("the attempt", None, f"attempt {entry.evidence.attempt}", entry.index)
            return
        self._expect(entry, "the job's state", (job.state, job.settled), (State.SETTLED, attempt.attempt))
        proofs = self._find_proofs(entry, job, attempt)
        if proofs is None:
            return
        version = self._versions.get(proofs.lease.body.rules)
        if version is None:
            self._findings.add("the rules of the lease", proofs.lease.body.rules, "a version that is kept", entry.index)
            return
        self._check_proofs(entry, job, proofs, version.rules)
        self._check_terms(entry, job, attempt, proofs, version.rules, moment)

    def _expect(self, entry: Entry, what: str, found: object, wanted: object) -> None:
        self._findings.expect(what, found, wanted, entry.index)

    def _find_proofs(self, entry: Entry, job: Job, attempt: Attempt) -> Proofs | None:
        named = entry.evidence.documents
        if len(named) not in (2, 3):
            self._findings.add("the evidence's documents", len(named), "lease, receipt, acknowledgement", entry.index)
            return None
        self._expect(entry, "the lease of the attempt", attempt.lease, named[0])
        self._expect(entry, "the receipt of the attempt", attempt.receipt, named[1])
        request = self._papers.find(job.request, Request, entry.index)
        lease = self._papers.find(named[0], Lease, entry.index)
        receipt = self._papers.find(named[1], Receipt, entry.index)
        said = self._papers.find(named[2], Acknowledgement, entry.index) if len(named) == 3 else None
        if request is None or lease is None or receipt is None or (len(named) == 3 and said is None):
            return None
        return Proofs(request, lease, receipt, said)

    def _check_proofs(self, entry: Entry, job: Job, proofs: Proofs, rules: Rules) -> None:
        """Each document is about this attempt, by who may say it."""
        request, lease, receipt = proofs.request.body, proofs.lease.body, proofs.receipt.body
        spoken_of = job.handle, entry.evidence.attempt
        self._expect(entry, "the lease's job and attempt", (lease.job, lease.attempt), spoken_of)
        self._expect(entry, "the receipt's job and attempt", (receipt.job, receipt.attempt), spoken_of)
        self._expect(entry, "the receipt's signer", proofs.receipt.envelope.key, lease.worker)
        self._expect(entry, "the evidence's rules", entry.evidence.rules, lease.rules)
        self._expect(entry, "the lease's index", lease.index, job.number)
        self._expect(entry, "the lease's private digest", lease.private_digest, request.private_digest)
        self._expect(entry, "the lease's job key", lease.job_key, request.job_key)
        one = msgspec.structs.replace(request.public, models=(lease.model,), n=1)
        self._expect(entry, "the lease's public part", lease.public, one)
        if request.public.models and lease.model not in request.public.models:
            self._findings.add("the lease's model", lease.model, f"one of {request.public.models}", entry.index)
        work = request.public.work
        most = work.steps if isinstance(work, ImageWork) else work.max_tokens
        if receipt.used > most:
            self._findings.add("the receipt's use", receipt.used, f"at most {most}", entry.index)
        if receipt.partial and not job.cancelled:
            self._findings.add("a partial receipt", "paid", "a cancelled job", entry.index)
        if proofs.acknowledgement is not None:
            self._check_acknowledgement(entry, proofs, proofs.acknowledgement)
        elif not job.cancelled:
            received = entry.evidence.received
            if received < lease.issued:
                self._findings.add("when the receipt came", received, f"not before {lease.issued}", entry.index)
            earliest = received + rules.times.silence * 1000
            if entry.evidence.time < earliest:
                self._findings.add(
                    "paid without an acknowledgement",
                    f"at {entry.evidence.time}",
                    f"not before {earliest}",
                    entry.index,
                )

    def _check_acknowledgement(self, entry: Entry, proofs: Proofs, said: Paper[Acknowledgement]) -> None:
        spoken_of = proofs.receipt.body.job, proofs.receipt.body.attempt
        self._expect(entry, "the acknowledgement's signer", said.envelope.key, proofs.request.body.job_key)
        self._expect(entry, "the acknowledgement's job and attempt", (said.body.job, said.body.attempt), spoken_of)
        self._expect(entry, "the acknowledged digest", said.body.output_digest, proofs.receipt.body.output_digest)
        try:
            inner = parse(said.body.receipt).digest
        except Refusal as refusal:
            self._findings.add("the receipt in the acknowledgement", refusal, "a receipt", entry.index)
        else:
            self._expect(entry, "the receipt in the acknowledgement", inner, proofs.receipt.envelope.digest)

    def _check_terms(
        self, entry: Entry, job: Job, attempt: Attempt, proofs: Proofs, rules: Rules, moment: Moment
    ) -> None:
        """Price, share, payment: computed again, and compared with lease, postings and settlement."""
        lease = proofs.lease.body
        owner = self._people.owner(lease.worker, lease.issued, attempt.owner)
        self._expect(entry, "the worker's account", attempt.owner, owner)
        own = owner == job.payer
        price = 0 if own else self._price(rules, job, lease)
        held = self._books.holds.get(job.handle, 0)
        share = postings.share(price, 0 if own else prices.tax(rules, job.public.share), held)
        self._expect(entry, "the lease's price", lease.price, price)
        if 0 < job.public.max_price < lease.price:
            self._findings.add("the lease's price", lease.price, f"at most {job.public.max_price}", entry.index)
        self._expect(entry, "the lease's paid part", lease.paid, share.paid)
        self._expect(
            entry, "the attempt's free part and tax", (attempt.uncovered, attempt.tax), (share.free, share.tax_paid)
        )
        most_free = share.free * max(rate for _, rate in rules.mint.steps) // 1000
        if lease.free > most_free:
            self._findings.add("the lease's minted part", lease.free, f"at most {most_free}", entry.index)
        if lease.free and lease.owners < rules.mint.owners:
            found = f"{lease.free}, though {lease.owners} owners could have served it"
            self._findings.add("the lease's minted part", found, f"0 below {rules.mint.owners}", entry.index)
        owed = due(job.public, lease, share, rules, proofs.receipt.body.used)
        minted = -sum(amount for account, amount in entry.moved if account == postings.MINT)
        # An attempt that had ended once gave back what was set aside for it, and was minted what was left of the day.
        least = 0 if attempt.attempt != job.attempt or job.failed or job.excluded else owed.minted
        if not least <= minted <= owed.minted:
            wanted = str(least) if least == owed.minted else f"{least} to {owed.minted}"
            self._findings.add("minted", minted, wanted, entry.index)
        pay, time = owed.paid + minted, entry.evidence.time
        withheld = 0 if own else self._probation.withheld(owner, pay, rules, time)
        right = postings.settle(owner, paid=owed.paid, minted=minted, burned=owed.tax, withheld=withheld)
        self._expect(entry, "the postings", entry.moved, right)
        self._check_budget(entry, job, owner, lease, minted, owed.paid)
        self._check_settlement(entry, proofs, owed, minted, withheld, moment)
        self._enter(job, owner, owed, minted)
        if not own:
            self._probation.settled(entry, owner, withheld, rules)

    def _price(self, rules: Rules, job: Job, lease: Lease) -> int:
        """By the formulas; where a plug-in made the price, as the lease says."""
        if not rules.prices.plugin:
            return prices.price(rules, job.work, lease.model)
        self.by_plugin += 1
        return lease.price

    def _check_budget(self, entry: Entry, job: Job, owner: int, lease: Lease, minted: int, paid: int) -> None:
        """No day mints more than any rules that were in force so far allowed, and nobody gets more of it than that.
        Of askers without an account only the tracker knows who is whose neighbour."""
        day = day_of(lease.issued)
        whose, whom = f"owner {owner}", f"asker {job.origin}"
        self._books.mint(day, minted, whose, whom)
        self._books.shares[day, f"paid {owner}"] += paid
        known = [one.rules.mint for one in self._versions.values() if one.issued <= entry.evidence.time]
        again = self._books.again
        bounds = [("", self._books.minted[day] - again[day, ""], max((mint.daily for mint in known), default=0))]
        earned = self._books.shares[day, f"paid {owner}"]
        shares = [
            postings.owner_room(mint.daily, mint.owner_share, mint.owner_base, mint.owner_matched, earned, 0)
            for mint in known
        ]
        bounds.append((f" for {whose}", self._books.shares[day, whose] - again[day, whose], max(shares, default=0)))
        if job.payer != postings.ANONYMOUS:
            shares = [mint.daily * mint.asker_share // 1000 for mint in known]
            bounds.append((f" for {whom}", self._books.shares[day, whom], max(shares, default=0)))
        for what, found, most in bounds:
            if minted and found > most:
                self._findings.add(f"minted on day {day}{what}", found, f"at most {most}", entry.index)

    def _check_settlement(
        self, entry: Entry, proofs: Proofs, owed: Due, minted: int, withheld: int, moment: Moment
    ) -> None:
        """The signed settlement says what the entry does."""
        identity = job_identity(proofs.lease.body.job, proofs.lease.body.attempt)
        paper = self._papers.find_by_identity(moment.serving, Settlement, identity, entry.index)
        if paper is None:
            return
        right = Settlement(
            job=proofs.lease.body.job,
            attempt=proofs.lease.body.attempt,
            paid=owed.paid,
            minted=minted,
            burned=owed.tax,
            withheld=withheld,
            partial=proofs.receipt.body.partial,
            number=moment.settled,
            entry=entry.index,
            leaf=entry.hash,
            checkpoint=moment.checkpoint,
            settled=entry.evidence.time,
        )
        for name in right.__struct_fields__:
            self._expect(entry, f"the settlement's {name}", getattr(paper.body, name), getattr(right, name))

    def _enter(self, job: Job, owner: int, owed: Due, minted: int) -> None:
        """Count what both accounts gave and took; jobs within one account count for nothing."""
        if owner == job.payer:
            return
        worker, payer = self._books.of(owner), self._books.of(job.payer)
        worker.earned += owed.paid + minted
        worker.jobs_done += 1
        payer.spent += owed.paid + owed.tax
        payer.taken_free += owed.uncovered
        payer.jobs_received += 1
        payer.jobs_free += bool(owed.uncovered)
        self._books.unhold(job.handle, job.payer, owed.paid + owed.tax)
