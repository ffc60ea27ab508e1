"""`SqliteStore`: each business step as one function on the writing connection."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence, Set
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from protocol import documents
from protocol.documents import (
    Acknowledgement,
    Award,
    Cancel,
    Delegation,
    Denial,
    Leaving,
    Profile,
    Receipt,
    Recovery,
    Request,
    Revocation,
    Rotation,
    Serving,
    Transfer,
)
from protocol.envelope import Envelope, check_delegation, parse
from protocol.errors import NotAllowed, ReceiptMismatch, UnknownJob, WrongSigner
from protocol.governing import Act, Answer, Appeal, Proposal, Vote
from protocol.keys import SigningKey, show_key
from protocol.postings import SYSTEM
from protocol.rules import FilterSection, Rules
from tracker import lifecycle
from tracker.accounts import Acting
from tracker.ledger import give_back_class
from tracker.lifecycle import NO_FACTS, Event, Facts, Job, State
from tracker.lines import party
from tracker.proposals import Proposed
from tracker.pseudonyms import Pseudonyms
from tracker.sanctions import Sanction
from tracker.store.base import (
    AccountState,
    Acted,
    Admitted,
    Appealed,
    Awarded,
    Choice,
    Face,
    Gifts,
    Granted,
    Happened,
    Leased,
    LedgerHead,
    Logged,
    Page,
    Recovered,
    RulesInForce,
    Shown,
    Standing,
    Store,
    StoreError,
)
from tracker.store.sqlite import (
    accounts,
    acts,
    admission,
    giving,
    moderating,
    papers,
    probation,
    recovery,
    rows,
    strikes,
    tidying,
    voting,
)
from tracker.store.sqlite.database import connect
from tracker.store.sqlite.papers import job_identity
from tracker.store.sqlite.settling import happen, job_and_attempt, job_of, received, settlement_of, take_answer
from tracker.store.sqlite.tables import Tables
from tracker.store.sqlite.writer import Writer
from tracker.strikes import Strikes, check_time_out
from tracker.values import replace

T = TypeVar("T")


#: Accounts of which is remembered that they have no voice.
MAX_VOICELESS = 1000


class SqliteStore(Store):
    """The store in one SQLite file."""

    def __init__(self, writer: Writer, tables: Tables, path: Path) -> None:
        self._writer = writer
        self._path = path
        self._tables = tables
        self._roll = asyncio.Lock()
        self._voiceless: dict[int, int] = {}  # accounts that the roll had not, with what they had earned by then

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
            system = [(account, now) for account in SYSTEM]
            connection.executemany("INSERT INTO accounts (account, since) VALUES (?, ?)", system)
            tables = Tables(key, delegation.key, documents.open_document(delegation, Serving), 0)
            tables.versions.publish(connection, rules, key, delegation.key, now)
            tables.load(connection)
            tables.ledger.seal(connection, now)
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
            tables = _load(connection, path, key)
        except BaseException:
            connection.close()
            raise
        writer = Writer(connection, tables)
        try:
            yield cls(writer, tables, path)
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
        return await self._step(self._tables.versions.get)

    async def rules(self, version: int) -> RulesInForce:
        """See `Store`."""
        return await self._step(lambda c: self._tables.versions.get(c, version))

    async def publish_rules(self, rules: Rules, now: int) -> RulesInForce:
        """See `Store`."""
        tables = self._tables
        return await self._step(lambda c: tables.versions.publish(c, rules, tables.key, tables.root, now))

    async def seal(self, now: int) -> bytes | None:
        """See `Store`."""
        return await self._step(lambda c: self._tables.ledger.seal(c, now))

    async def ledger_head(self) -> LedgerHead:
        """See `Store`."""
        ledger = self._tables.ledger
        return await self._step(lambda _: LedgerHead(ledger.size, ledger.checkpoint))

    # Accounts

    async def register(self, key: bytes, now: int, invite: str | None = None) -> int:
        """See `Store`."""
        return await self._step(lambda c: acts.register(c, self._tables, key, now, invite))

    async def account_of(self, key: bytes) -> int:
        """See `Store`."""
        return await self._step(lambda c: accounts.account_of(c, key))

    async def acting(self, key: bytes, now: int) -> Acting:
        """See `Store`."""
        return await self._step(lambda c: self._tables.people.acting(c, key, now))

    async def add_invites(self, hashes: Sequence[bytes], now: int) -> None:
        """See `Store`."""
        await self._step(lambda c: acts.add_invites(c, hashes, now))

    async def profile(self, envelope: Envelope, said: Profile, now: int) -> None:
        """See `Store`."""
        await self._step(lambda c: acts.profile(c, self._tables, envelope, said, now), now)

    async def delegate(self, envelope: Envelope, said: Delegation, now: int) -> None:
        """See `Store`."""
        await self._step(lambda c: acts.delegate(c, self._tables, envelope, said, now), now)

    async def revoke(self, envelope: Envelope, said: Revocation, now: int) -> bytes:
        """See `Store`."""
        return await self._step(lambda c: acts.revoke(c, self._tables, envelope, said, now), now)

    async def name_recovery(self, envelope: Envelope, said: Recovery, now: int) -> None:
        """See `Store`."""
        await self._step(lambda c: acts.name_recovery(c, self._tables, envelope, said, now), now)

    async def rotate(self, envelope: Envelope, said: Rotation, *, sender: bytes, now: int) -> bytes:
        """See `Store`."""
        return await self._step(lambda c: acts.rotate(c, self._tables, envelope, said, sender, now), now)

    async def leave(self, envelope: Envelope, said: Leaving, now: int) -> Sequence[bytes]:
        """See `Store`."""
        return await self._step(lambda c: acts.leave(c, self._tables, envelope, said, now), now)

    async def used(self, delegation: bytes) -> int:
        """See `Store`."""
        return await self._step(lambda c: self._tables.people.used(c, delegation))

    async def granted(self, number: int, now: int) -> Sequence[Granted]:
        """See `Store`."""
        return await self._step(lambda c: self._tables.people.granted(c, number, now))

    async def face(self, number: int) -> Face:
        """See `Store`."""
        return await self._step(lambda c: self._tables.people.face(c, number))

    async def page(self, number: int, now: int) -> Page | None:
        """See `Store`."""
        return await self._step(lambda c: acts.page(c, self._tables, number, now))

    async def public(self, numbers: Sequence[int]) -> Set[int]:
        """See `Store`."""
        return await self._step(lambda c: acts.public(c, self._tables, numbers))

    async def services(self, now: int, after: int, most: int) -> Sequence[Page]:
        """See `Store`."""
        return await self._step(lambda c: acts.services(c, self._tables, now, after, most))

    async def account(self, number: int, now: int) -> AccountState:
        """See `Store`."""
        tables = self._tables

        def run(connection: sqlite3.Connection) -> AccountState:
            state = tables.accounts.state_of(connection, number, now, tables.versions.get(connection).rules)
            return replace(state, faults=probation.faults(connection, tables, number, now))

        return await self._step(run)

    async def facts(self, number: int, now: int) -> Facts:
        """See `Store`."""
        tables = self._tables

        def run(connection: sqlite3.Connection) -> Facts:
            state = tables.accounts.state_of(connection, number, now, tables.versions.get(connection).rules)
            give_back = give_back_class(state.earned, state.spent + state.taken_free)
            return Facts((), tables.people.service_name(connection, number), give_back)

        return await self._step(run)

    @property
    def pseudonyms(self) -> Pseudonyms:
        """See `Store`."""
        return self._tables.pseudonyms

    async def vest(self, number: int, now: int) -> int:
        """See `Store`."""
        return await self._step(lambda c: probation.vest(c, self._tables, number, now))

    async def vest_all(self, now: int) -> int:
        """See `Store`."""
        return await self._step(lambda c: probation.vest_all(c, self._tables, now))

    async def transfer(self, envelope: Envelope, said: Transfer, now: int) -> None:
        """See `Store`."""
        await self._step(lambda c: giving.transfer(c, self._tables, envelope, said, now), now)

    async def award(self, envelope: Envelope, said: Award, now: int) -> None:
        """See `Store`."""
        await self._step(lambda c: giving.award(c, self._tables, envelope, said, now), now)

    async def act(self, envelope: Envelope, said: Act, now: int) -> Acted:
        """See `Store`."""
        return await self._step(lambda c: moderating.act(c, self._tables, envelope, said, now), now)

    async def appeal(self, envelope: Envelope, said: Appeal, now: int) -> Acted:
        """See `Store`."""
        return await self._step(lambda c: moderating.appeal(c, self._tables, envelope, said, now), now)

    async def sanctions(self, now: int) -> Sequence[Sanction]:
        """See `Store`."""
        return await self._step(lambda c: moderating.sanctions(c, now))

    async def acts(self, now: int, before: int, most: int) -> Sequence[Logged]:
        """See `Store`."""
        return await self._step(lambda c: moderating.log(c, now, before, most))

    async def acts_of(self, account: int, now: int, most: int) -> Sequence[Logged]:
        """See `Store`."""
        return await self._step(lambda c: moderating.log_of(c, account, now, most))

    async def appeals(self, now: int, most: int) -> tuple[Sequence[Appealed], int]:
        """See `Store`."""
        return await self._step(lambda c: moderating.appeals(c, now, most))

    async def propose(self, envelope: Envelope, said: Proposal, now: int) -> int:
        """See `Store`."""
        by = await self._step(lambda c: voting.proposer(c, self._tables, envelope, said, now))
        if by.known:
            return by.known
        rules = (await self.rules_in_force()).rules.votes
        if self._voiceless.get(by.account) == by.own:
            raise voting.no_voice(by.account, rules)
        async with self._roll:  # each reads many leaves: one after the other, however many ask for one
            roll = await asyncio.to_thread(voting.read_roll, self._path, rules, now)
        if by.account not in roll.voices:
            if len(self._voiceless) >= MAX_VOICELESS:
                self._voiceless.clear()
            self._voiceless[by.account] = by.own
        return await self._step(lambda c: voting.propose(c, self._tables, envelope, said, roll, now), now)

    async def vote(self, envelope: Envelope, said: Vote, now: int) -> None:
        """See `Store`."""
        await self._step(lambda c: voting.vote(c, self._tables, envelope, said, now), now)

    async def end_votes(self, now: int) -> Sequence[bytes]:
        """See `Store`."""
        return await self._step(lambda c: voting.end_votes(c, self._tables, now))

    async def answer(self, envelope: Envelope, said: Answer, now: int) -> None:
        """See `Store`."""
        await self._step(lambda c: voting.answer(c, self._tables, envelope, said, now), now)

    async def proposals(self, before: int, most: int) -> Sequence[Proposed]:
        """See `Store`."""
        return await self._step(lambda c: voting.proposals(c, before, most))

    async def proof_of_vote(self, envelope: Envelope) -> tuple[int, int, Sequence[bytes]] | None:
        """See `Store`."""
        return await self._step(lambda c: voting.proof_of_vote(c, envelope))

    async def awards(self) -> Sequence[Awarded]:
        """See `Store`."""
        return await self._step(giving.awards)

    async def strike(self, payer: int, origin: str, user: bytes, rules: FilterSection, now: int) -> Strikes:
        """See `Store`."""
        return await self._step(lambda c: strikes.strike(c, self._tables, payer, origin, user, rules, now))

    async def tidy(self, now: int) -> None:
        """See `Store`."""
        await self._step(lambda c: tidying.tidy(c, self._tables, now))

    async def gifts(self) -> Gifts:
        """See `Store`."""
        return await self._step(lambda c: giving.gifts(c, self._tables))

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
        room: int | None = None,
        facts: Facts = NO_FACTS,
    ) -> Admitted:
        """See `Store`."""

        def run(connection: sqlite3.Connection) -> Admitted:
            # It may also be known as evidence alone, shown after a restore that cut its jobs.
            known = not papers.take(connection, envelope, request.nonce)
            if known and (jobs := rows.jobs_of_request(connection, envelope.digest)):
                return Admitted(jobs, sum(job.held for job in jobs), {}, again=True)
            documents.check_validity(request.valid_until, now)
            check_time_out(strikes.find(connection, party(origin, request.user)), now)
            return admission.admit(
                connection,
                self._tables,
                envelope,
                request,
                payer=payer,
                origin=origin,
                choices=choices,
                models=models,
                rules=rules,
                now=now,
                room=room,
                facts=facts,
            )

        return await self._step(run, now)

    async def lease(self, handle: bytes, attempt: int, choice: Choice, rules: RulesInForce, now: int) -> Leased | None:
        """See `Store`."""

        def run(connection: sqlite3.Connection) -> Leased | None:
            job = self._tables.live.job(connection, handle)
            if job is None or job.state is not State.WAITING or job.attempt != attempt:
                return None
            if not admission.may_serve(connection, self._tables, choice, now):
                raise NotAllowed("this worker does not work for that account any more")
            return admission.lease(connection, self._tables, job, choice, rules, now)

        return await self._step(run, now)

    async def happen(self, handle: bytes, attempt: int, event: Event, rules: Rules, now: int) -> Happened:
        """See `Store`."""

        def run(connection: sqlite3.Connection) -> Happened:
            job = job_of(connection, self._tables, handle)
            number = attempt or job.attempt
            spoken_of = self._tables.live.attempt(connection, handle, number) if number else None
            return happen(connection, self._tables, job, spoken_of, event, rules, now, ())

        return await self._step(run, now)

    async def receive(self, envelope: Envelope, receipt: Receipt, rules: Rules, now: int) -> Happened:
        """See `Store`."""

        def run(connection: sqlite3.Connection) -> Happened:
            job, attempt = job_and_attempt(connection, self._tables, receipt.job, receipt.attempt)
            if envelope.key != attempt.worker:
                raise WrongSigner("a receipt by another worker than the one that the lease names")
            papers.take(connection, envelope, job_identity(receipt.job, receipt.attempt))
            proofs = (attempt.lease, envelope.digest)
            event = received(envelope, receipt)
            return happen(connection, self._tables, job, attempt, event, rules, now, proofs)

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
            job, attempt = take_answer(connection, self._tables, envelope, said, receipt, sender)
            if said.output_digest != receipt[1].output_digest:
                raise ReceiptMismatch("the acknowledged digest is not the receipt's: deny what did not come as signed")
            event = lifecycle.Acknowledged(envelope.digest, received(*receipt))
            proofs = (attempt.lease, receipt[0].digest, envelope.digest)
            return happen(connection, self._tables, job, attempt, event, rules, now, proofs)

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
            job, attempt = take_answer(connection, self._tables, envelope, said, receipt, sender)
            event = lifecycle.Denied(envelope.digest, said.reason)
            return happen(connection, self._tables, job, attempt, event, rules, now, (envelope.digest,))

        return await self._step(run, now)

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
            latest = [self._tables.live.attempt(connection, job.handle, job.attempt) for job in jobs]
            return [
                happen(connection, self._tables, job, attempt, event, rules, now, proofs)
                for job, attempt in zip(jobs, latest, strict=True)
            ]

        return await self._step(run, now)

    async def silence(self, handle: bytes, rules: Rules, now: int) -> Happened:
        """See `Store`."""

        def run(connection: sqlite3.Connection) -> Happened:
            number = job_of(connection, self._tables, handle).attempt
            job, attempt = job_and_attempt(connection, self._tables, handle, number)
            envelope = parse(papers.find(connection, attempt.receipt, job_identity(handle, number)))
            event = lifecycle.Silence(received(envelope, documents.open_document(envelope, Receipt)))
            proofs = (attempt.lease, attempt.receipt)
            return happen(connection, self._tables, job, attempt, event, rules, now, proofs)

        return await self._step(run, now)

    async def recover(self, shown: Shown, now: int) -> Recovered:
        """See `Store`."""

        def run(connection: sqlite3.Connection) -> Recovered:
            versions = self._tables.versions
            rules = [versions.get(connection, number).rules for number in range(1, versions.newest(connection) + 1)]
            return recovery.recover(connection, self._tables, shown, rules, now)

        return await self._step(run, now)

    # What a peer, or a tracker, that returns must know

    async def live(self) -> Sequence[Standing]:
        """See `Store`."""
        return await self._step(lambda c: [self._standing(c, job, job.attempt) for job in rows.live_jobs(c)])

    async def standing_of_request(self, signer: bytes, nonce: bytes) -> tuple[bytes, Sequence[Standing]] | None:
        """See `Store`."""

        def run(connection: sqlite3.Connection) -> tuple[bytes, Sequence[Standing]] | None:
            digest = papers.digest_of(connection, signer, Request.KIND, nonce)
            jobs = rows.jobs_of_request(connection, digest) if digest else []
            if not jobs:  # also if it is known as evidence alone, shown after a restore that cut its jobs
                return None
            return digest, [self._standing(connection, job, job.settled or job.attempt) for job in jobs]

        return await self._step(run)

    async def standing(self, handle: bytes, attempt: int) -> Standing | None:
        """See `Store`."""

        def run(connection: sqlite3.Connection) -> Standing | None:
            job = self._tables.live.job(connection, handle)
            if job is None or self._tables.live.attempt(connection, handle, attempt) is None:
                return None
            return self._standing(connection, job, attempt)

        return await self._step(run)

    async def open_requests(self, signer: bytes) -> Sequence[tuple[bytes, bytes]]:
        """See `Store`."""

        return await self._step(lambda c: rows.open_requests(c, signer))

    def _standing(self, connection: sqlite3.Connection, job: Job, number: int) -> Standing:
        attempt = self._tables.live.attempt(connection, job.handle, number) if number else None
        lease = papers.find(connection, attempt.lease, job_identity(job.handle, number)) if attempt else b""
        settlement = settlement_of(connection, self._tables, job) if job.state is State.SETTLED else b""
        return Standing(job, attempt, lease, settlement)


def _load(connection: sqlite3.Connection, path: Path, key: SigningKey) -> Tables:
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
    tables = Tables(key, root, delegation, epoch)
    tables.load(connection)
    return tables


def _bytes(row: tuple[bytes]) -> bytes:
    return row[0]
