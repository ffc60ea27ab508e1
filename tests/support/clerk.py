"""A clerk who carries out steps at a store for made-up peers: what they sign is signed here, one line for each step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from protocol.documents import Acknowledgement, Cancel, Lease, Receipt, Request, open_document
from protocol.envelope import Envelope, parse
from protocol.keys import SigningKey
from protocol.postings import ANONYMOUS
from protocol.rules import Rules
from protocol.work import PublicPart
from tests.support.builders import (
    HOUR,
    NOW,
    REQUESTER,
    a_cancel,
    a_denial,
    a_handle,
    a_key,
    a_nonce,
    a_public_part,
    a_receipt,
    a_request,
    an_acknowledgement,
    signed,
)
from tests.support.jobs import ORIGIN
from tracker.lifecycle import Event, Job
from tracker.store.base import Admitted, Choice, Happened, Leased, RulesInForce, Store

#: Keys of workers, requesters and jobs are numbered apart.
_WORKERS, _JOB_KEYS = 1_000, 10_000


def worker_key(number: int = 0) -> SigningKey:
    """The key of that worker."""
    return a_key(_WORKERS + number)


@dataclass
class Clerk:
    """One store, the rules in force, and the time, which the test moves."""

    store: Store
    rules: RulesInForce
    now: int = NOW
    keys: dict[bytes, SigningKey] = field(default_factory=dict)
    requesters: dict[bytes, SigningKey] = field(default_factory=dict)
    asked: int = 0

    @classmethod
    async def at(cls, store: Store) -> Clerk:
        """A clerk at this store."""
        return cls(store, await store.rules_in_force())

    @property
    def _rules(self) -> Rules:
        return self.rules.rules

    # Accounts

    async def account(self, key: SigningKey = REQUESTER) -> int:
        """The account of a key, opened if need be."""
        return await self.store.register(key.public, self.now)

    async def balance(self, account: int) -> int:
        """What an account can spend."""
        return (await self.store.account(account, self.now)).balance

    async def choice(self, worker: int = 0, public: PublicPart | None = None) -> Choice:
        """The choice of that worker, for the first model of the public part."""
        public = public or a_public_part()
        owner = await self.account(worker_key(worker))
        return Choice(worker_key(worker).public, owner, public.models[0])

    async def earn(self, account_key: SigningKey, jobs: int) -> int:
        """Have a key serve so many free pictures of 512x512 for people without an account; its account."""
        owner = await self.account(account_key)
        for _ in range(jobs):
            public = a_public_part()
            [job] = (await self.ask(public)).jobs
            leased = await self.store.lease(
                job.handle, 0, Choice(account_key.public, owner, public.models[0]), self.rules, self.now
            )
            assert leased is not None
            self.keys[account_key.public] = account_key
            await self.acknowledge(self.receipt(leased))
        return owner

    # Requests

    def request(self, public: PublicPart | None = None, *, number: int | None = None) -> Request:
        """A fresh request, or that of a number; each has a job key of its own."""
        if number is None:
            self.asked += 1
            number = self.asked
        key = a_key(_JOB_KEYS + number)
        self.keys[key.public] = key
        return a_request(
            public or a_public_part(), nonce=a_nonce(1_000 + number), job_key=key, valid_until=self.now + HOUR // 2
        )

    async def ask(
        self,
        public: PublicPart | None = None,
        *,
        requester: SigningKey = REQUESTER,
        payer: int = ANONYMOUS,
        origin: str = "",
        choices: Sequence[Choice | None] = (),
        models: Sequence[str] = (),
        request: Request | None = None,
    ) -> Admitted:
        """Send a request in, a fresh one if none is given. origin: the account's, or one address block of all others,
        unless it is given."""
        request = request or self.request(public)
        admitted = await self.store.admit(
            signed(request, requester),
            request,
            payer=payer,
            origin=origin or (ORIGIN if payer == ANONYMOUS else str(payer)),
            choices=choices or [None] * request.public.n,
            models=models or request.public.models,
            rules=self.rules,
            now=self.now,
        )
        for job in admitted.jobs:
            self.requesters[job.handle] = requester
        return admitted

    async def ask_one(
        self, public: PublicPart | None = None, *, requester: SigningKey = REQUESTER, payer: int = ANONYMOUS
    ) -> Job:
        """Send a request for one result in."""
        [job] = (await self.ask(public, requester=requester, payer=payer)).jobs
        return job

    # Leases

    async def lease(self, job: Job, worker: int = 0) -> Leased:
        """Lease a waiting job to that worker."""
        leased = await self.try_lease(job, worker)
        assert leased is not None, "the job does not wait as it did"
        return leased

    async def try_lease(self, job: Job, worker: int = 0) -> Leased | None:
        """The same; None if the job does not wait as it did."""
        choice = await self.choice(worker, job.public)
        return await self.store.lease(job.handle, job.attempt, choice, self.rules, self.now)

    async def happen(self, job: Job, event: Event, attempt: int = 0) -> Happened:
        """Something that no document proves."""
        return await self.store.happen(job.handle, attempt, event, self._rules, self.now)

    def receipt(
        self, leased: Leased, *, used: int | None = None, partial: bool = False, output: bytes | None = None
    ) -> Envelope:
        """The worker's receipt for a lease."""
        lease = open_document(parse(leased.document), Lease)
        receipt = a_receipt(lease, used=used, partial=partial, output=output, finished=self.now)
        return signed(receipt, self._worker(lease.worker))

    def _worker(self, public: bytes) -> SigningKey:
        known = next((key for key in map(worker_key, range(64)) if key.public == public), None)
        return known or self.keys[public]

    async def receive(self, receipt: Envelope) -> Happened:
        """The worker sends its receipt."""
        return await self.store.receive(receipt, open_document(receipt, Receipt), self._rules, self.now)

    # Answers

    async def acknowledge(
        self,
        receipt: Envelope,
        *,
        said: Acknowledgement | None = None,
        key: SigningKey | None = None,
        sender: SigningKey | None = None,
    ) -> Happened:
        """The requester acknowledges a receipt."""
        body = open_document(receipt, Receipt)
        said = said or an_acknowledgement(receipt)
        envelope = signed(said, key or await self._job_key(said.job))
        return await self.store.acknowledge(
            envelope,
            said,
            (receipt, body),
            sender=(sender or self.requesters[body.job]).public,
            rules=self._rules,
            now=self.now,
        )

    async def deny(self, leased: Leased, receipt: Envelope | None = None, reason: str = "digest_mismatch") -> Happened:
        """The requester denies an attempt."""
        lease = open_document(parse(leased.document), Lease)
        denial = a_denial(receipt, lease, reason)
        return await self.store.deny(
            signed(denial, self.keys[lease.job_key]),
            denial,
            (receipt, open_document(receipt, Receipt)) if receipt else None,
            sender=self.requesters[lease.job].public,
            rules=self._rules,
            now=self.now,
        )

    async def cancel(
        self, job: Job, *, whole: bool = False, nonce: int = 0, cancel: Cancel | None = None
    ) -> Sequence[Happened]:
        """The requester cancels a job, or the whole request that it belongs to."""
        cancel = cancel or a_cancel(
            None if whole else job.handle, nonce=a_nonce(500_000 + nonce), valid_until=self.now + HOUR // 2
        )
        return await self.store.cancel(
            signed(cancel, self.keys[job.job_key]),
            cancel,
            sender=self.requesters[job.handle].public,
            rules=self._rules,
            now=self.now,
        )

    async def silence(self, job: Job) -> Happened:
        """Nobody answers for a delivered job."""
        return await self.store.silence(job.handle, self._rules, self.now)

    async def _job_key(self, handle: bytes) -> SigningKey:
        standing = await self.store.standing(handle, 1)
        assert standing is not None
        return self.keys[standing.job.job_key]


def unknown_handle() -> bytes:
    """The handle of a job that was never made."""
    return a_handle(999_999)
