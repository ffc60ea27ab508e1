"""Entering again what a restore has cut: settlements of former serving keys (docs/protocol.md, section 14)."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from protocol import postings
from protocol.documents import Lease, Settlement
from protocol.errors import Equivocation, OverLimit, WrongSigner
from protocol.postings import ANONYMOUS
from protocol.rules import Rules
from tracker.ledger import day_of
from tracker.lifecycle import LIVE, Attempt, Job, Outcome, Stage, State
from tracker.recovery import uncovered
from tracker.store.base import Happened, Recovered, Shown
from tracker.store.sqlite import papers
from tracker.store.sqlite.ledger import new_evidence
from tracker.store.sqlite.mint import Between
from tracker.store.sqlite.papers import job_identity
from tracker.store.sqlite.settling import end
from tracker.store.sqlite.tables import Tables
from tracker.values import replace


def recover(
    connection: sqlite3.Connection,
    tables: Tables,
    shown: Shown,
    rules: Sequence[Rules],
    now: int,
) -> Recovered:
    """See `Store.recover`. rules: every version, the newest last."""
    return _Step(connection, tables, shown, rules, now).run()


class _Step:
    """One settlement that was shown."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        tables: Tables,
        shown: Shown,
        rules: Sequence[Rules],
        now: int,
    ) -> None:
        self._connection = connection
        self._tables = tables
        self._shown = shown
        self._rules = rules
        self._now = now

    @property
    def _settlement(self) -> Settlement:
        return self._shown.settlement[1]

    @property
    def _lease(self) -> Lease:
        return self._shown.lease[1]

    def run(self) -> Recovered:
        """Enter what is not in the ledger yet."""
        digest = self._shown.settlement[0].digest
        identity = job_identity(self._settlement.job, self._settlement.attempt)
        known = bool(papers.find(self._connection, digest, identity))
        if not known:
            self._check_cut()
        happened = None
        job = self._tables.live.job(self._connection, self._settlement.job)
        entered = not known and not self._is_paid_anew(job)
        if not known:
            self._take_papers(with_lease=entered)
        if entered:
            self._enter()
            if job is not None and (ending := self._ends(job)):
                happened = self._end(job, *ending)
                self._charge(job.request, job.payer)
        self._charge_requester(job)
        return Recovered(entered, happened)

    # The settlement

    def _check_cut(self) -> None:
        """The root key lists the signer as one that served, and the entry as one that was cut."""
        signer, entry = self._shown.settlement[0].key, self._settlement.entry
        entries = next((former.entries for former in self._tables.delegation.former if former.key == signer), None)
        if entries is None:
            raise WrongSigner("a settlement by a key that has not served this horde before")
        if entry < entries:
            raise Equivocation(
                f"a settlement of entry {entry}, which was never cut, and the ledger has another one there: "
                "keep it, and show it to the operator"
            )

    def _is_paid_anew(self, job: Job | None) -> bool:
        """Whether the copy had this very lease, and it was settled since the restore."""
        if job is None or job.state is not State.SETTLED or job.settled != self._settlement.attempt:
            return False
        attempt = self._tables.live.attempt(self._connection, job.handle, job.settled)
        return attempt is not None and attempt.lease == self._shown.lease[0].digest

    def _take_papers(self, *, with_lease: bool) -> None:
        shown, connection = self._shown, self._connection
        identity = job_identity(self._settlement.job, self._settlement.attempt)
        papers.take(connection, shown.settlement[0], identity)
        if with_lease:
            papers.take(connection, shown.lease[0], identity)
            papers.take(connection, shown.receipt[0], identity)

    def _enter(self) -> None:
        """Pay the worker, out of what all have set aside; its payer's part is a matter of its own."""
        said, shown = self._settlement, self._shown
        signer, day = shown.settlement[0].key, day_of(self._lease.issued)
        self._check_budget(signer, day)
        owner = self._tables.ledger.account_for(self._connection, self._lease.worker, self._now)
        moved = postings.settle(owner, paid=said.paid, minted=said.minted, burned=said.burned, withheld=said.withheld)
        proofs = (shown.settlement[0].digest, shown.lease[0].digest, shown.receipt[0].digest)
        entry = self._append("recovered", moved, proofs)
        self._tables.mint.count(self._connection, day, said.minted, Between(owner, None))
        self._tables.accounts.withhold(self._connection, owner, said.withheld)
        if self._lease.price:
            self._tables.accounts.count_done(self._connection, owner, said.paid + said.minted)
        self._connection.execute(
            "INSERT INTO recovered (settlement, signer, entry, day, minted) VALUES (?, ?, ?, ?, ?)",
            (shown.settlement[0].digest, signer, entry, day, said.minted),
        )

    def _check_budget(self, signer: bytes, day: int) -> None:
        """A stolen key shall not mint more than its horde ever allowed."""
        row = self._connection.execute(
            "SELECT coalesce(sum(minted), 0) FROM recovered WHERE signer = ? AND day = ?", (signer, day)
        ).fetchone()
        most = max(rules.mint.daily for rules in self._rules)
        if self._settlement.minted and row[0] + self._settlement.minted > most:
            raise OverLimit("the settlements that were shown of this day mint more than any budget of this horde")

    def _append(self, event: str, moved: postings.Postings, proofs: tuple[bytes, ...]) -> int:
        said = self._settlement
        evidence = new_evidence(self._now, len(self._rules), said.job, said.attempt, proofs)
        return self._tables.ledger.append(self._connection, event, moved, evidence)[0]

    # Its job, where the copy had it

    def _ends(self, job: Job) -> tuple[Attempt | None, bool] | None:
        """The newest attempt of the job that ends by this, and whether it is the one that was settled; None if the
        job has ended, or has been delivered by somebody else."""
        if job.state not in LIVE:
            return None
        newest = self._tables.live.attempt(self._connection, job.handle, job.attempt) if job.attempt else None
        same = newest is not None and newest.lease == self._shown.lease[0].digest
        return None if job.state is State.DELIVERED and not same else (newest, same)

    def _end(self, job: Job, newest: Attempt | None, same: bool) -> Happened:
        """The job is settled: its hold goes back, and its newest attempt ends without fault."""
        was_leased = newest is not None and newest.stage is not Stage.ENDED
        if newest is not None and was_leased:
            between = Between(newest.owner, job.origin)
            self._tables.mint.reserve(self._connection, day_of(newest.issued), -newest.reserved, between)
            newest = replace(newest, stage=Stage.ENDED, reserved=0)
            self._tables.live.write_attempt(self._connection, job.handle, newest)
        if job.held:
            self._append("release", postings.release(job.payer, job.held), ())
            self._tables.accounts.hold(self._connection, job.payer, -job.held)
            self._tables.people.use(self._connection, job.delegation, -job.held)
        attempt = self._settlement.attempt
        after = replace(job, state=State.SETTLED, reason="", changed=self._now, settled=attempt, held=0)
        self._tables.live.write_job(self._connection, after)
        end(self._connection, self._tables, after)
        other = newest if was_leased and not same else None
        outcome = Outcome(after, newest if same else None, withdraw="settled" if other else "")
        return Happened(job, outcome, self._shown.settlement[0].raw, job.held, other)

    # The payer

    def _charge_requester(self, job: Job | None) -> None:
        if self._shown.request is None or self._is_charged():
            return
        envelope, body = self._shown.request
        papers.take(self._connection, envelope, body.nonce)
        if job is not None and not (job.payer == ANONYMOUS and self._amount):
            payer = job.payer
        elif self._amount:  # who pays had an account
            payer = self._tables.ledger.account_for(self._connection, envelope.key, self._now)
        else:
            payer = self._tables.people.acting(self._connection, envelope.key, self._now).account or ANONYMOUS
        self._charge(envelope.digest, payer)

    def _is_charged(self) -> bool:
        """Also where nothing was entered, so that there is nothing to charge."""
        row = self._connection.execute(
            "SELECT charged FROM recovered WHERE settlement = ?", (self._shown.settlement[0].digest,)
        ).fetchone()
        return row is None or row[0] is not None

    @property
    def _amount(self) -> int:
        return self._settlement.paid + self._settlement.burned

    def _charge(self, request: bytes, payer: int) -> None:
        proofs = (self._shown.settlement[0].digest, request)
        entry = self._append("charged", postings.hold(payer, self._amount), proofs)
        self._connection.execute(
            "UPDATE recovered SET charged = ? WHERE settlement = ?", (entry, self._shown.settlement[0].digest)
        )
        if self._lease.price:
            self._tables.accounts.count_received(
                self._connection,
                payer,
                held=0,
                spent=self._amount,
                uncovered=uncovered(self._lease, self._settlement),
                rules=self._rules[-1],
                now=self._now,
            )
