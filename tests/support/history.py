"""A ledger with a history: a real store, driven through jobs that end in every way there is.

Time is a counter, so that every step has its own moment.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from protocol import codec
from protocol.documents import Award, Lease, Transfer
from protocol.envelope import Envelope, parse
from protocol.errors import Refusal
from protocol.keys import SigningKey
from protocol.postings import ANONYMOUS
from protocol.rules import Rules
from protocol.work import PublicPart
from tests.support.builders import (
    DAY,
    MINUTE,
    NOW,
    SECOND,
    SERVING,
    a_cancel,
    a_delegation,
    a_denial,
    a_key,
    a_nonce,
    a_public_part,
    a_receipt,
    a_request,
    a_text_work,
    a_transfer,
    an_acknowledgement,
    an_award,
    signed,
)
from tests.support.jobs import ORIGIN
from tests.support.rules import plain
from tracker import lifecycle
from tracker.store.base import Admitted, Choice, Happened, RulesInForce
from tracker.store.sqlite import SqliteStore

#: Two people with a worker each, one who only asks, and one without an account.
ANN, BEN, CARL, NOBODY = a_key(50), a_key(51), a_key(52), a_key(53)


@dataclass
class Admission:
    """A request that was taken in, with the key that speaks for its jobs."""

    by: SigningKey
    job_key: SigningKey
    admitted: Admitted
    request: Envelope

    @property
    def job(self) -> bytes:
        """The handle of its first job."""
        return self.admitted.jobs[0].handle


class History:
    """A store, and shorthand for what peers send to it."""

    def __init__(self, store: SqliteStore, rules: RulesInForce) -> None:
        self.store = store
        self.rules = rules
        self.now = NOW
        self.accounts: dict[bytes, int] = {}
        self.owners = 1  # that could have served each job
        self._number = 0

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path, rules: Rules | None = None) -> AsyncIterator[History]:
        """A new horde in `path` with three accounts."""
        SqliteStore.create(path, a_delegation(), plain(rules), SERVING, NOW)
        async with SqliteStore.open(path, SERVING) as store:
            history = cls(store, await store.rules_in_force())
            for key in (ANN, BEN, CARL):
                history.accounts[key.public] = await store.register(key.public, history.tick())
            yield history

    def number_from(self, number: int) -> None:
        """Go on with keys and nonces that an earlier history has not used."""
        self._number = number

    def tick(self, by: int = SECOND) -> int:
        """Some time later."""
        self.now += by
        return self.now

    async def ask(
        self, by: SigningKey, public: PublicPart | None = None, served_by: SigningKey | None = None
    ) -> Admission:
        """A request; its jobs are leased at once to `served_by` if that is given."""
        self._number += 1
        job_key = a_key(1000 + self._number)
        now = self.tick()
        public = public or a_public_part()
        request = a_request(public, nonce=a_nonce(100 + self._number), valid_until=now + MINUTE, job_key=job_key)
        payer = self.accounts.get(by.public, ANONYMOUS)
        choice = self._choice(served_by, public) if served_by else None
        envelope = signed(request, by)
        admitted = await self.store.admit(
            envelope,
            request,
            payer=payer,
            origin=str(payer) if payer != ANONYMOUS else ORIGIN,
            choices=[choice] * public.n,
            models=public.models,
            rules=self.rules,
            now=now,
        )
        return Admission(by, job_key, admitted, envelope)

    def _choice(self, worker: SigningKey, public: PublicPart) -> Choice:
        return Choice(worker.public, self.accounts[worker.public], public.models[0], self.owners)

    async def lease(self, asked: Admission, worker: SigningKey, attempt: int, number: int = 0) -> bytes:
        """The next lease of a waiting job after `attempt`; its document."""
        job = asked.admitted.jobs[number]
        leased = await self.store.lease(job.handle, attempt, self._choice(worker, job.public), self.rules, self.tick())
        assert leased is not None
        return leased.document

    async def receipt(
        self, lease: bytes, worker: SigningKey, *, used: int | None = None, partial: bool = False
    ) -> Envelope:
        """What the worker signs; not sent yet."""
        body = codec.decode(parse(lease).body, Lease)
        return signed(a_receipt(body, used=used, partial=partial, finished=self.tick()), worker)

    async def deliver(self, receipt: Envelope) -> Happened:
        """The worker sends its receipt."""
        said = codec.decode(receipt.body, type(a_receipt()))
        return await self.store.receive(receipt, said, self.rules.rules, self.tick())

    async def acknowledge(self, asked: Admission, receipt: Envelope) -> bytes:
        """The requester acknowledges; the settlement."""
        said = an_acknowledgement(receipt)
        happened = await self.store.acknowledge(
            signed(said, asked.job_key),
            said,
            (receipt, codec.decode(receipt.body, type(a_receipt()))),
            sender=asked.by.public,
            rules=self.rules.rules,
            now=self.tick(),
        )
        return happened.settlement

    async def deny(self, asked: Admission, lease: bytes) -> None:
        """The requester denies."""
        said = a_denial(lease=codec.decode(parse(lease).body, Lease))
        await self.store.deny(
            signed(said, asked.job_key), said, None, sender=asked.by.public, rules=self.rules.rules, now=self.tick()
        )

    async def cancel(self, asked: Admission) -> None:
        """The requester wants none of it any more."""
        self._number += 1
        said = a_cancel(nonce=a_nonce(500 + self._number), valid_until=self.now + MINUTE)
        await self.store.cancel(
            signed(said, asked.job_key), said, sender=asked.by.public, rules=self.rules.rules, now=self.tick()
        )

    async def happens(self, asked: Admission, event: lifecycle.Event, after: int = SECOND) -> None:
        """Something that no document proves."""
        await self.store.happen(asked.job, 0, event, self.rules.rules, self.tick(after))

    async def transfer(self, by: SigningKey, to: int, amount: int) -> Transfer:
        """An account gives kudos to another."""
        self._number += 1
        said = a_transfer(to, amount, nonce=a_nonce(9_000 + self._number), valid_until=self.now + MINUTE)
        await self.store.transfer(signed(said, by), said, self.tick())
        return said

    async def award(self, account: int, amount: int, by: SigningKey = SERVING) -> Award:
        """The operator makes kudos for an account."""
        self._number += 1
        said = an_award(account, amount, nonce=a_nonce(9_000 + self._number), valid_until=self.now + MINUTE)
        await self.store.award(signed(said, by), said, self.tick())
        return said

    async def serve(self, by: SigningKey, worker: SigningKey, public: PublicPart | None = None) -> bytes:
        """One job from request to settlement, which is what comes back."""
        asked = await self.ask(by, public, served_by=worker)
        lease = asked.admitted.leases[0].document
        receipt = await self.receipt(lease, worker)
        await self.deliver(receipt)
        await self.store.seal(self.tick())
        return await self.acknowledge(asked, receipt)


async def live_through_everything(history: History) -> list[bytes]:
    """Jobs in every state, paid, free and in between; returns the settlements in their order."""
    text = a_public_part(a_text_work())
    settlements = [await history.serve(NOBODY, ANN) for _ in range(4)]
    settlements += [await history.serve(CARL, ANN), await history.serve(BEN, ANN, text)]
    settlements += [await history.serve(ANN, BEN), await history.serve(ANN, ANN), await history.serve(ANN, BEN, text)]
    await _live_through_failures(history)
    settlements += await _live_through_settlements(history)
    await _leave_some_alive(history)
    await history.store.seal(history.tick())
    return settlements


async def _live_through_failures(history: History) -> None:
    denied = await history.ask(ANN, served_by=BEN)
    await history.deny(denied, denied.admitted.leases[0].document)
    await history.cancel(await history.ask(ANN))
    await history.cancel(await history.ask(NOBODY))
    called_off = await history.ask(ANN, served_by=BEN)
    await history.cancel(called_off)
    await history.happens(called_off, lifecycle.CancelOver(), 20 * SECOND)
    await history.happens(await history.ask(ANN), lifecycle.Expired(), 3 * 60 * MINUTE)
    failed = await history.ask(ANN, served_by=BEN)
    await history.happens(failed, lifecycle.WorkerFailed("crashed"))
    for attempt in (1, 2):
        await history.lease(failed, BEN, attempt)
        await history.happens(failed, lifecycle.WorkerFailed("gone"))


async def _live_through_settlements(history: History) -> list[bytes]:
    settlements = []
    partly = await history.ask(ANN, served_by=BEN)
    await history.cancel(partly)
    receipt = await history.receipt(partly.admitted.leases[0].document, BEN, used=11, partial=True)
    settlements.append((await history.deliver(receipt)).settlement)

    silent = await history.ask(ANN, served_by=BEN)
    await history.deliver(await history.receipt(silent.admitted.leases[0].document, BEN))
    happened = await history.store.silence(silent.job, history.rules.rules, history.tick(2 * DAY))
    settlements.append(happened.settlement)

    # The first worker's result arrives after all, when the second one has the job.
    late = await history.ask(CARL, served_by=BEN)
    receipt = await history.receipt(late.admitted.leases[0].document, BEN)
    await history.happens(late, lifecycle.WorkerFailed("gone"))
    await history.lease(late, ANN, 1)
    settlements.append(await history.acknowledge(late, receipt))

    several = await history.ask(ANN, a_public_part(n=3), served_by=BEN)
    for number in (2, 0):
        receipt = await history.receipt(several.admitted.leases[number].document, BEN)
        settlements.append(await history.acknowledge(several, receipt))
    return settlements


async def _leave_some_alive(history: History) -> None:
    await history.ask(ANN)
    await history.ask(ANN, served_by=BEN)
    delivered = await history.ask(ANN, served_by=BEN)
    receipt = await history.receipt(delivered.admitted.leases[0].document, BEN)
    await history.deliver(receipt)
    another = signed(a_receipt(codec.decode(parse(delivered.admitted.leases[0].document).body, Lease), used=1), BEN)
    try:
        await history.deliver(another)
    except Refusal:
        return
    raise AssertionError("a second and different receipt was taken")
