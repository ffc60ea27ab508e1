"""`SqliteStore`: each business step as one function on the writing connection."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import msgspec

from protocol import codec, documents, postings, prices
from protocol.documents import (
    Acknowledgement,
    Asker,
    Cancel,
    Denial,
    Lease,
    Receipt,
    Request,
    RulesDocument,
    Serving,
    Settlement,
)
from protocol.envelope import Envelope, check_delegation, parse
from protocol.errors import ReceiptMismatch, UnknownJob, WrongSigner
from protocol.keys import SigningKey, show_key
from protocol.postings import ANONYMOUS, BURN, HELD, MINT
from protocol.rules import Rules, from_json, to_json
from protocol.work import ImageWork
from tracker import lifecycle
from tracker.ledger import day_of, give_back_class
from tracker.lifecycle import Attempt, Event, Job, Outcome, Payment, Received, Stage, State, decide
from tracker.store.base import (
    AccountState,
    Admitted,
    Choice,
    Happened,
    Leased,
    LedgerHead,
    Recovered,
    RulesInForce,
    Shown,
    Standing,
    Store,
    StoreError,
)
from tracker.store.sqlite import accounts, papers, recovery, rows
from tracker.store.sqlite.database import connect
from tracker.store.sqlite.ledger import Ledger, budget_used, count_minted, new_evidence, reserve
from tracker.store.sqlite.papers import job_identity
from tracker.store.sqlite.writer import Writer

T = TypeVar("T")


class SqliteStore(Store):
    """The store in one SQLite file."""

    def __init__(self, writer: Writer, ledger: Ledger, key: SigningKey, root: bytes, delegation: Serving) -> None:
        self._writer = writer
        self._ledger = ledger
        self._key = key
        self._root = root
        self._delegation = delegation
        self._keys = (key.public, *(former.key for former in reversed(delegation.former)))

    @classmethod
    def create(cls, path: Path, delegation: Envelope, rules: Rules, key: SigningKey, now: int) -> None:
        """Make the database of a new horde; raises `StoreError` if the file holds one already."""
        connection = connect(path)
        try:
            if connection.execute("SELECT count(*) FROM horde").fetchone()[0]:
                raise StoreError(f"{path}: holds a horde already: it is not overwritten")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(
                "INSERT INTO horde (one, root, delegation) VALUES (1, ?, ?)", (delegation.key, delegation.raw)
            )
            system = [(account, now) for account in (MINT, BURN, HELD, ANONYMOUS)]
            connection.executemany("INSERT INTO accounts (account, since) VALUES (?, ?)", system)
            _publish(connection, rules, key, delegation.key, now)
            ledger = Ledger(key, delegation.key, 0)
            ledger.load(connection)
            ledger.seal(connection, now)
            connection.execute("COMMIT")
        finally:
            connection.close()

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path, key: SigningKey) -> AsyncIterator[SqliteStore]:
        """The store of the horde in `path`, served under `key`; raises `StoreError` if it cannot be."""
        if not path.exists():
            raise StoreError(f"{path}: there is no database: make the horde first (potluck-tracker init)")
        connection = connect(path)
        try:
            root, delegation, ledger = _load(connection, path, key)
        except BaseException:
            connection.close()
            raise
        writer = Writer(connection, ledger)
        try:
            yield cls(writer, ledger, key, root, delegation)
        finally:
            await writer.close()

    async def _step(self, run: Callable[[sqlite3.Connection], T], now: int = 0) -> T:
        try:
            return await self._writer.step(run)
        except papers.Conflict as conflict:
            proof = conflict
        await self._writer.step(lambda c: papers.keep_proof(c, proof, now))
        raise proof

    # The horde

    async def delegation(self) -> bytes:
        """The root's delegation to the serving key, as signed."""
        return await self._step(lambda c: _bytes(c.execute("SELECT delegation FROM horde").fetchone()))

    async def rules_in_force(self) -> RulesInForce:
        """See `Store`."""
        return await self._step(_rules)

    async def publish_rules(self, rules: Rules, now: int) -> RulesInForce:
        """See `Store`."""
        return await self._step(lambda c: _publish(c, rules, self._key, self._root, now))

    async def seal(self, now: int) -> bytes | None:
        """See `Store`."""
        return await self._step(lambda c: self._ledger.seal(c, now))

    async def ledger_head(self) -> LedgerHead:
        """See `Store`."""
        return await self._step(lambda _: LedgerHead(self._ledger.size, self._ledger.checkpoint))

    # Accounts

    async def register(self, key: bytes, now: int) -> int:
        """See `Store`."""

        return await self._step(lambda c: accounts.register(c, self._ledger, key, now))

    async def account_of(self, key: bytes) -> int:
        """See `Store`."""
        return await self._step(lambda c: accounts.account_of(c, key))

    async def account(self, number: int, now: int) -> AccountState:
        """See `Store`."""
        return await self._step(lambda c: accounts.state_of(c, number, now, _rules(c).rules))

    # Jobs

    async def admit(
        self,
        envelope: Envelope,
        request: Request,
        *,
        payer: int,
        origin: str,
        choices: Sequence[Choice | None],
        models: Sequence[str],
        rules: RulesInForce,
        now: int,
    ) -> Admitted:
        """See `Store`."""

        def run(connection: sqlite3.Connection) -> Admitted:
            # It may also be known as evidence alone, shown after a restore that cut its jobs.
            known = not papers.take(connection, envelope, request.nonce)
            if known and (jobs := rows.jobs_of_request(connection, envelope.digest)):
                return Admitted(jobs, sum(job.held for job in jobs), {}, again=True)
            documents.check_validity(request.valid_until, now)
            self._insert_request(connection, envelope, request, payer, origin)
            jobs = [
                self._insert_job(connection, envelope, request, number, payer, origin, models, rules, now)
                for number in range(request.public.n)
            ]
            held = sum(job.held for job in jobs)
            leases: dict[int, Leased] = {}
            for number, choice in enumerate(choices):
                if choice is not None:
                    leases[number] = self._lease(connection, jobs[number], choice, rules, now)
                    jobs[number] = leases[number].job
            return Admitted(jobs, held, leases)

        return await self._step(run, now)

    def _insert_request(
        self, connection: sqlite3.Connection, envelope: Envelope, request: Request, payer: int, origin: str
    ) -> None:
        try:
            connection.execute(
                "INSERT INTO requests (request, signer, nonce, job_key, payer, origin, public, private_digest)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    envelope.digest,
                    envelope.key,
                    request.nonce,
                    request.job_key,
                    payer,
                    origin,
                    codec.encode(request.public),
                    request.private_digest,
                ),
            )
        except sqlite3.IntegrityError as error:
            raise WrongSigner("the job key of this request was used before: make a fresh one for each") from error

    def _insert_job(
        self,
        connection: sqlite3.Connection,
        envelope: Envelope,
        request: Request,
        number: int,
        payer: int,
        origin: str,
        models: Sequence[str],
        rules: RulesInForce,
        now: int,
    ) -> Job:
        """One job with its hold: what the dearest model would cost, as far as the balance goes."""
        state = accounts.state_of(connection, payer, now, rules.rules)
        dearest = max(prices.price(rules.rules, request.public.work, model) for model in models)
        balance = 0 if payer == ANONYMOUS else state.balance
        held = postings.share(dearest, prices.tax(rules.rules), balance).held
        job = Job(
            handle=secrets.token_bytes(16),
            request=envelope.digest,
            number=number,
            public=request.public,
            private_digest=request.private_digest,
            job_key=request.job_key,
            signer=envelope.key,
            payer=payer,
            origin=origin,
            state=State.WAITING,
            attempt=0,
            failed=0,
            held=held,
            score=0 if payer == ANONYMOUS else state.balance - held - state.free_now,
            anonymous=payer == ANONYMOUS,
            admitted=now,
            changed=now,
        )
        rows.insert_job(connection, job)
        if held:
            evidence = new_evidence(now, rules.version, job.handle, 0, (envelope.digest,))
            self._ledger.append(connection, "hold", postings.hold(payer, held), evidence)
            connection.execute("UPDATE accounts SET held = held + ? WHERE account = ?", (held, payer))
        return job

    async def lease(self, handle: bytes, attempt: int, choice: Choice, rules: RulesInForce, now: int) -> Leased | None:
        """See `Store`."""

        def run(connection: sqlite3.Connection) -> Leased | None:
            job = rows.job(connection, handle)
            if job is None or job.state is not State.WAITING or job.attempt != attempt:
                return None
            return self._lease(connection, job, choice, rules, now)

        return await self._step(run, now)

    def _lease(self, connection: sqlite3.Connection, job: Job, choice: Choice, rules: RulesInForce, now: int) -> Leased:
        """The next attempt: terms fixed, minted part set aside, lease signed and kept."""
        own = job.payer == choice.owner
        price = 0 if own else prices.price(rules.rules, job.work, choice.model)
        share = postings.share(price, 0 if own else prices.tax(rules.rules), job.held)
        mint = rules.rules.mint
        free = postings.minted(mint.steps, mint.daily, budget_used(connection, now), share.free)
        reserve(connection, day_of(now), free)
        times = rules.rules.times
        seconds = times.image_lease if isinstance(job.work, ImageWork) else times.text_lease
        waited = job.waited + now - job.changed
        job = _leased(job, now, waited)
        payer = accounts.state_of(connection, job.payer, now, rules.rules)
        lease = Lease(
            job=job.handle,
            attempt=job.attempt,
            worker=choice.worker,
            model=choice.model,
            public=msgspec.structs.replace(job.public, models=(choice.model,), n=1),
            index=job.number,
            private_digest=job.private_digest,
            job_key=job.job_key,
            asker=Asker(
                anonymous=job.anonymous,
                give_back=0 if job.anonymous else give_back_class(payer.earned, payer.spent + payer.taken_free),
            ),
            issued=now,
            deadline=now + seconds * 1000,
            rules=rules.version,
            price=price,
            paid=share.paid,
            free=free,
        )
        envelope = documents.sign(lease, self._key, self._root)
        papers.take(connection, envelope, job_identity(job.handle, job.attempt))
        attempt = Attempt(
            attempt=job.attempt,
            worker=choice.worker,
            owner=choice.owner,
            model=choice.model,
            lease=envelope.digest,
            stage=Stage.PUSHED,
            issued=now,
            deadline=lease.deadline,
            rules=rules.version,
            price=price,
            paid=share.paid,
            free=free,
            uncovered=share.free,
            tax=share.tax_paid,
            reserved=free,
        )
        rows.insert_attempt(connection, job.handle, attempt)
        rows.update_job(connection, job)
        return Leased(job, attempt, envelope.raw, budget_used(connection, now))

    async def happen(self, handle: bytes, attempt: int, event: Event, rules: Rules, now: int) -> Happened:
        """See `Store`."""

        def run(connection: sqlite3.Connection) -> Happened:
            job = _job(connection, handle)
            return self._decide(connection, job, attempt or job.attempt, event, rules, now, ())

        return await self._step(run, now)

    async def receive(self, envelope: Envelope, receipt: Receipt, rules: Rules, now: int) -> Happened:
        """See `Store`."""

        def run(connection: sqlite3.Connection) -> Happened:
            job, attempt = _job_and_attempt(connection, receipt.job, receipt.attempt)
            if envelope.key != attempt.worker:
                raise WrongSigner("a receipt by another worker than the one that the lease names")
            papers.take(connection, envelope, job_identity(receipt.job, receipt.attempt))
            proofs = (attempt.lease, envelope.digest)
            return self._decide(connection, job, attempt.attempt, _received(envelope, receipt), rules, now, proofs)

        return await self._step(run, now)

    async def acknowledge(
        self,
        envelope: Envelope,
        said: Acknowledgement,
        receipt: tuple[Envelope, Receipt],
        *,
        sender: bytes,
        rules: Rules,
        now: int,
    ) -> Happened:
        """See `Store`."""

        def run(connection: sqlite3.Connection) -> Happened:
            job, attempt = self._take_answer(connection, envelope, said, receipt, sender, now)
            if said.output_digest != receipt[1].output_digest:
                raise ReceiptMismatch("the acknowledged digest is not the receipt's: deny what did not come as signed")
            event = lifecycle.Acknowledged(envelope.digest, _received(*receipt))
            proofs = (attempt.lease, receipt[0].digest, envelope.digest)
            return self._decide(connection, job, attempt.attempt, event, rules, now, proofs)

        return await self._step(run, now)

    async def deny(
        self,
        envelope: Envelope,
        said: Denial,
        receipt: tuple[Envelope, Receipt] | None,
        *,
        sender: bytes,
        rules: Rules,
        now: int,
    ) -> Happened:
        """See `Store`."""

        def run(connection: sqlite3.Connection) -> Happened:
            job, attempt = self._take_answer(connection, envelope, said, receipt, sender, now)
            event = lifecycle.Denied(envelope.digest, said.reason)
            return self._decide(connection, job, attempt.attempt, event, rules, now, (envelope.digest,))

        return await self._step(run, now)

    def _take_answer(
        self,
        connection: sqlite3.Connection,
        envelope: Envelope,
        said: Acknowledgement | Denial,
        receipt: tuple[Envelope, Receipt] | None,
        sender: bytes,
        now: int,
    ) -> tuple[Job, Attempt]:
        """Keep what the job key says of an attempt, with the receipt in it, once it is clear that they belong to it."""
        job, attempt = _job_and_attempt(connection, said.job, said.attempt)
        if sender != job.signer:
            raise WrongSigner(f"a {envelope.kind} in the session of another key than the one that asked")
        if envelope.key != job.job_key:
            raise WrongSigner(f"a {envelope.kind} by another key than the request's job key")
        identity = job_identity(said.job, said.attempt)
        papers.take(connection, envelope, identity)
        if receipt is not None:
            if (receipt[1].job, receipt[1].attempt) != (said.job, said.attempt):
                raise ReceiptMismatch(f"the receipt in this {envelope.kind} is of another job or attempt")
            if receipt[0].key != attempt.worker:
                raise WrongSigner("the receipt is by another worker than the one that the lease names")
            papers.take(connection, receipt[0], identity)
        return job, attempt

    async def cancel(
        self, envelope: Envelope, said: Cancel, *, sender: bytes, rules: Rules, now: int
    ) -> Sequence[Happened]:
        """See `Store`."""

        def run(connection: sqlite3.Connection) -> Sequence[Happened]:
            request = connection.execute("SELECT request FROM requests WHERE job_key = ?", (envelope.key,)).fetchone()
            jobs = rows.jobs_of_request(connection, request[0]) if request else []
            jobs = [job for job in jobs if said.job in (None, job.handle)]
            if not jobs or jobs[0].signer != sender:
                raise UnknownJob("this key has no such job: a cancel is signed by the request's job key")
            if papers.take(connection, envelope, said.nonce):
                documents.check_validity(said.valid_until, now)
            event = lifecycle.Cancelled()
            proofs = (envelope.digest,)
            return [self._decide(connection, job, job.attempt, event, rules, now, proofs) for job in jobs]

        return await self._step(run, now)

    async def silence(self, handle: bytes, rules: Rules, now: int) -> Happened:
        """See `Store`."""

        def run(connection: sqlite3.Connection) -> Happened:
            job, attempt = _job_and_attempt(connection, handle, _job(connection, handle).attempt)
            envelope = parse(papers.find(connection, attempt.receipt))
            event = lifecycle.Silence(_received(envelope, documents.open_document(envelope, Receipt)))
            proofs = (attempt.lease, attempt.receipt)
            return self._decide(connection, job, attempt.attempt, event, rules, now, proofs)

        return await self._step(run, now)

    def _decide(
        self,
        connection: sqlite3.Connection,
        job: Job,
        number: int,
        event: Event,
        rules: Rules,
        now: int,
        proofs: tuple[bytes, ...],
    ) -> Happened:
        """Ask what the event makes of the job, and write it."""
        attempt = rows.attempt(connection, job.handle, number) if number else None
        terms = _rules(connection, attempt.rules).rules if isinstance(event, _PAYING) and attempt else rules
        outcome = decide(job, attempt, event, terms, now)
        if not outcome.changed:
            settlement = self._settlement(connection, job) if outcome.job.state is State.SETTLED else b""
            return Happened(job, outcome, settlement)
        lost = self._end_others(connection, job, outcome)
        settlement = b""
        after, ended = outcome.job, outcome.attempt
        if outcome.payment is not None and ended is not None:
            received = job.changed if isinstance(event, lifecycle.Silence) else 0
            after, ended, settlement = self._pay(
                connection, after, ended, outcome.payment, rules, now, proofs, received=received
            )
        elif ended is not None and ended.stage is Stage.ENDED:
            ended = _unreserved(connection, ended)
        released = after.held if outcome.release else 0
        if released:
            evidence = new_evidence(now, _version(connection), job.handle, number, () if settlement else proofs)
            kind = "refund" if after.state is State.REFUNDED else "release"
            self._ledger.append(connection, kind, postings.release(job.payer, released), evidence)
            connection.execute("UPDATE accounts SET held = held - ? WHERE account = ?", (released, job.payer))
            after = _with_held(after, 0)
        rows.update_job(connection, after)
        if ended is not None:
            rows.update_attempt(connection, job.handle, ended)
        written = replace(outcome, job=after, attempt=ended)
        used = budget_used(connection, now) if ended is not None and ended.stage is Stage.ENDED else None
        return Happened(job, written, settlement, released, lost, used)

    def _end_others(self, connection: sqlite3.Connection, job: Job, outcome: Outcome) -> Attempt | None:
        """A newer lease ends when an older attempt is settled."""
        spoken_of = outcome.attempt.attempt if outcome.attempt else 0
        if job.state is not State.LEASED or spoken_of == job.attempt or outcome.job.state is State.LEASED:
            return None
        newest = rows.attempt(connection, job.handle, job.attempt)
        if newest is None:
            return None
        newest = _unreserved(connection, replace(newest, stage=Stage.ENDED))
        rows.update_attempt(connection, job.handle, newest)
        return newest

    def _pay(
        self,
        connection: sqlite3.Connection,
        job: Job,
        attempt: Attempt,
        payment: Payment,
        rules: Rules,
        now: int,
        proofs: tuple[bytes, ...],
        *,
        received: int,
    ) -> tuple[Job, Attempt, bytes]:
        """Enter the settlement, sign it and keep it. received: see `Evidence`."""
        day = day_of(attempt.issued)
        minted = payment.minted
        if minted > attempt.reserved:  # the attempt had ended, and what was set aside for it had gone back
            left = rules.mint.daily - budget_used(connection, attempt.issued) + attempt.reserved
            minted = max(0, min(minted, left))
        attempt = _unreserved(connection, attempt)
        count_minted(connection, day, minted)
        moved = postings.settle(attempt.owner, paid=payment.paid, minted=minted, burned=payment.tax)
        evidence = new_evidence(now, attempt.rules, job.handle, attempt.attempt, proofs, received=received)
        index, entry = self._ledger.append(connection, "settle", moved, evidence)
        settlement = Settlement(
            job=job.handle,
            attempt=attempt.attempt,
            paid=payment.paid,
            minted=minted,
            burned=payment.tax,
            partial=payment.partial,
            number=self._ledger.settled,
            entry=index,
            leaf=entry.hash,
            checkpoint=self._ledger.checkpoint,
            settled=now,
        )
        envelope = documents.sign(settlement, self._key, self._root)
        papers.take(connection, envelope, job_identity(job.handle, attempt.attempt))
        self._count(connection, job, attempt, payment, minted, rules, now)
        return _with_held(job, job.held - payment.paid - payment.tax), attempt, envelope.raw

    def _count(
        self,
        connection: sqlite3.Connection,
        job: Job,
        attempt: Attempt,
        payment: Payment,
        minted: int,
        rules: Rules,
        now: int,
    ) -> None:
        """What both accounts have given and taken; jobs within one account count for nothing."""
        if job.payer == attempt.owner:
            return
        accounts.count_done(connection, attempt.owner, payment.paid + minted)
        spent = payment.paid + payment.tax
        accounts.count_received(
            connection, job.payer, held=spent, spent=spent, uncovered=payment.uncovered, rules=rules, now=now
        )

    def _settlement(self, connection: sqlite3.Connection, job: Job) -> bytes:
        """By the key that serves, or by one that served before: the ledger was restored since, or the settlement
        entered again."""
        identity = job_identity(job.handle, job.settled)
        for key in self._keys:
            if found := papers.find_by_identity(connection, key, Settlement.KIND, identity):
                return found
        return b""

    async def recover(self, shown: Shown, now: int) -> Recovered:
        """See `Store`."""

        def run(connection: sqlite3.Connection) -> Recovered:
            rules = [_rules(connection, version).rules for version in range(1, _version(connection) + 1)]
            return recovery.recover(connection, self._ledger, self._delegation, shown, rules, now)

        return await self._step(run, now)

    # What a peer, or a tracker, that returns must know

    async def live(self) -> Sequence[Standing]:
        """See `Store`."""
        return await self._step(lambda c: [self._standing(c, job, job.attempt) for job in rows.live_jobs(c)])

    async def standing_of_request(self, signer: bytes, nonce: bytes) -> tuple[bytes, Sequence[Standing]] | None:
        """See `Store`."""

        def run(connection: sqlite3.Connection) -> tuple[bytes, Sequence[Standing]] | None:
            row = connection.execute(
                "SELECT request FROM requests WHERE signer = ? AND nonce = ?", (signer, nonce)
            ).fetchone()
            if row is None:
                return None
            jobs = rows.jobs_of_request(connection, row[0])
            return row[0], [self._standing(connection, job, job.settled or job.attempt) for job in jobs]

        return await self._step(run)

    async def standing(self, handle: bytes, attempt: int) -> Standing | None:
        """See `Store`."""

        def run(connection: sqlite3.Connection) -> Standing | None:
            job = rows.job(connection, handle)
            if job is None or rows.attempt(connection, handle, attempt) is None:
                return None
            return self._standing(connection, job, attempt)

        return await self._step(run)

    async def open_requests(self, signer: bytes) -> Sequence[tuple[bytes, bytes]]:
        """See `Store`."""

        return await self._step(lambda c: rows.open_requests(c, signer))

    def _standing(self, connection: sqlite3.Connection, job: Job, number: int) -> Standing:
        attempt = rows.attempt(connection, job.handle, number) if number else None
        lease = papers.find(connection, attempt.lease) if attempt else b""
        settlement = self._settlement(connection, job) if job.state is State.SETTLED else b""
        return Standing(job, attempt, lease, settlement)


def _load(connection: sqlite3.Connection, path: Path, key: SigningKey) -> tuple[bytes, Serving, Ledger]:
    """Whose horde this is, who may sign for it, and its ledger."""
    row = connection.execute("SELECT root, delegation, epoch FROM horde").fetchone()
    if row is None:
        raise StoreError(f"{path}: holds no horde: make it first (potluck-tracker init)")
    root, raw, epoch = row
    envelope = parse(raw)
    check_delegation(envelope, root)
    delegation = documents.open_document(envelope, Serving)
    if delegation.serving != key.public:
        raise StoreError(f"{path}: its horde has appointed another serving key than {show_key(key.public)}")
    ledger = Ledger(key, root, epoch)
    ledger.load(connection)
    return root, delegation, ledger


_PAYING = (lifecycle.Acknowledged, lifecycle.Received, lifecycle.Silence)


def _received(envelope: Envelope, receipt: Receipt) -> Received:
    return Received(envelope.digest, receipt.used, receipt.context_used, receipt.partial)


def _leased(job: Job, now: int, waited: int) -> Job:
    return replace(job, state=State.LEASED, attempt=job.attempt + 1, changed=now, waited=waited)


def _with_held(job: Job, held: int) -> Job:
    return replace(job, held=held)


def _unreserved(connection: sqlite3.Connection, attempt: Attempt) -> Attempt:
    """What was set aside of the day's mint for an attempt goes back."""
    reserve(connection, day_of(attempt.issued), -attempt.reserved)
    return replace(attempt, reserved=0)


def _job(connection: sqlite3.Connection, handle: bytes) -> Job:
    job = rows.job(connection, handle)
    if job is None:
        raise UnknownJob("there is no such job at this horde")
    return job


def _job_and_attempt(connection: sqlite3.Connection, handle: bytes, number: int) -> tuple[Job, Attempt]:
    job = _job(connection, handle)
    attempt = rows.attempt(connection, handle, number)
    if attempt is None:
        raise UnknownJob(f"this job has no attempt {number}")
    return job, attempt


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("SELECT max(version) FROM rules").fetchone()[0]
    return version


def _rules(connection: sqlite3.Connection, version: int = 0) -> RulesInForce:
    version = version or _version(connection)
    row = connection.execute("SELECT digest, document FROM rules WHERE version = ?", (version,)).fetchone()
    return _read_rules(row[0], row[1])


@lru_cache(maxsize=64)
def _read_rules(digest: bytes, document: bytes) -> RulesInForce:
    found = documents.open_document(parse(document), RulesDocument)
    return RulesInForce(found.version, from_json(found.rules), digest, document)


def _publish(connection: sqlite3.Connection, rules: Rules, key: SigningKey, root: bytes, now: int) -> RulesInForce:
    newest = connection.execute("SELECT digest, document FROM rules ORDER BY version DESC LIMIT 1").fetchone()
    previous = _read_rules(*newest) if newest else None
    if previous is not None and previous.rules == rules:
        return previous
    version = previous.version + 1 if previous else 1
    document = RulesDocument(
        version=version, issued=now, rules=to_json(rules), previous=previous.digest if previous else b""
    )
    envelope = documents.sign(document, key, root)
    connection.execute(
        "INSERT INTO rules (version, digest, document) VALUES (?, ?, ?)", (version, envelope.digest, envelope.raw)
    )
    return RulesInForce(version, rules, envelope.digest, envelope.raw)


def _bytes(row: tuple[bytes]) -> bytes:
    return row[0]
