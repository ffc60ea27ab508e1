"""The coordinator: carries out what conversations, the life cycle, matching and the store say, in the right order.

Every change goes to the store first. When it is durable, the queue, the pool and the timers follow, and only then is
anybody told (commit before speak). What is kept here in memory can be rebuilt from the store at any time.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

from protocol import documents
from protocol.documents import Acknowledgement, Cancel, Denial, PeerRecord, Receipt, Request
from protocol.envelope import Envelope, check_document_context
from protocol.errors import (
    NotRegistered,
    OutOfTurn,
    PrivatePartMismatch,
    PrivatePartMissing,
    Stopping,
    UnknownJob,
    WrongSigner,
)
from protocol.keys import SigningKey, check_key, show_key
from protocol.messages import (
    Account,
    Announce,
    AskWhy,
    Ended,
    Held,
    Offer,
    Position,
    Queued,
    Report,
    Requeued,
    SessionMessage,
    Taken,
    Unreachable,
    Why,
    Withdrawn,
)
from protocol.postings import ANONYMOUS, mint_rate
from protocol.rules import Rules
from protocol.work import ImageWork, PublicPart, kind_of
from tracker import lifecycle
from tracker.content_filter import ContentFilter, no_filter
from tracker.conversation import Conversation, Outlet, Visit
from tracker.ledger import day_of
from tracker.lifecycle import Attempt, Event, Job, Stage, State
from tracker.limits import affordable, check_limits
from tracker.matching import Pool, Queue, Terms, Waiting, Worker
from tracker.store.base import Choice, Happened, Leased, RulesInForce, Standing, Store, StoreError
from tracker.timers import Timers

log = logging.getLogger(__name__)

TICK_S = 0.1
CHECKPOINT_MS = 1000
POSITIONS_MS = 2000
#: How many jobs at the head of each bucket are told when their position changes.
POSITIONS = 20

NOTICE = (
    "This horde is free for everyone, always, with and without an account. Kudos is earned by serving, decides who "
    "goes first, and cannot be bought."
)


@dataclass
class LiveLease:
    """A lease whose job has not ended, as the coordinator remembers it."""

    job: bytes
    attempt: int
    worker: bytes
    request: bytes
    signer: bytes
    stage: Stage
    digest: bytes
    deadline: int
    receipt: bytes = b""
    pushed_in: Conversation | None = None

    @property
    def name(self) -> tuple[bytes, int]:
        """Job and attempt."""
        return self.job, self.attempt


class Coordinator:
    """One tracker process at work."""

    def __init__(
        self,
        store: Store,
        *,
        root: bytes,
        key: SigningKey,
        delegation: bytes,
        rules: RulesInForce,
        clock: Callable[[], int],
        chance: random.Random,
        content_filter: ContentFilter = no_filter,
    ) -> None:
        self.store = store
        self.root = root
        self.key = key
        self.delegation = delegation
        self.rules = rules
        self.clock = clock
        self.content_filter = content_filter
        self.started = clock()
        self.counts: Counter[str] = Counter()
        self._chance = chance
        self._queue = Queue()
        self._pool = Pool()
        self._timers = Timers()
        self._conversations: set[Conversation] = set()
        self._workers: dict[bytes, Conversation] = {}
        self._watchers: dict[bytes, Conversation] = {}
        self._records: dict[bytes, Envelope] = {}
        self._leases: dict[bytes, dict[tuple[bytes, int], LiveLease]] = {}
        self._current: dict[bytes, LiveLease] = {}
        self._open_jobs: Counter[str] = Counter()
        self._positions: dict[bytes, int] = {}
        self._budget_day = 0
        self._budget_used = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._starved = False
        self.is_stopping = False

    @classmethod
    @asynccontextmanager
    async def start(
        cls,
        store: Store,
        *,
        root: bytes,
        key: SigningKey,
        delegation: bytes,
        clock: Callable[[], int],
        chance: random.Random,
        content_filter: ContentFilter = no_filter,
    ) -> AsyncIterator[Coordinator]:
        """A coordinator that has taken up every job that had not ended; leaves no task behind."""
        rules = await store.rules_in_force()
        coordinator = cls(
            store,
            root=root,
            key=key,
            delegation=delegation,
            rules=rules,
            clock=clock,
            chance=chance,
            content_filter=content_filter,
        )
        for standing in await store.live():
            coordinator._take_up(standing)
        try:
            yield coordinator
        finally:
            await coordinator.stop()

    async def run(self) -> None:
        """Timers and checkpoints, until cancelled."""
        now = self.clock()
        sealed = positioned = now
        while True:
            await asyncio.sleep(TICK_S)
            now = self.clock()
            self._timers.run(now)
            if self._starved:
                self._feed_all()
            if now - sealed >= CHECKPOINT_MS:
                sealed = now
                await self._seal(now)
            if now - positioned >= POSITIONS_MS:
                positioned = now
                self._tell_positions()

    async def stop(self) -> None:
        """Say good-bye to everybody, finish what is being committed, seal."""
        self.is_stopping = True
        for conversation in list(self._conversations):
            conversation.hang_up(Stopping("the tracker is stopping: come back in a moment"))
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._seal(self.clock())

    async def _seal(self, now: int) -> None:
        try:
            await self.store.seal(now)
        except StoreError as error:
            log.error("no checkpoint: %s", error)  # noqa: TRY400

    async def publish(self, rules: Rules) -> RulesInForce:
        """Put new rules in force and hand them to everybody who is here."""
        self.rules = await self.store.publish_rules(rules, self.clock())
        for conversation in list(self._conversations):
            if conversation.is_open:
                conversation.hand(self.rules.document)
        self._feed_all()
        return self.rules

    # Connections

    @property
    def hello_deadline_s(self) -> float:
        """Seconds within which a connection must have finished hello."""
        return float(self.rules.rules.times.hello)

    def open(self, outlet: Outlet, origin: str) -> Conversation:
        """A peer has connected from `origin` (a block of addresses)."""
        conversation = Conversation(self, outlet, origin)
        self._conversations.add(conversation)
        return conversation

    def leave(self, conversation: Conversation) -> None:
        """A connection is gone: its waiting jobs are not matched, its leases have a moment of grace."""
        self._conversations.discard(conversation)
        for request in conversation.requests:
            if self._watchers.get(request) is conversation:
                del self._watchers[request]
                self._queue.set_present(request, present=False)
        if conversation.is_open and self._workers.get(conversation.key) is conversation:
            del self._workers[conversation.key]
            self._pool.remove(conversation.key)
            self._expect_return(conversation.key, self.rules.rules.times.worker_grace * 1000)

    async def holding(self, conversation: Conversation) -> list[Held]:
        """What the tracker holds for a peer: leases and receipts of a worker, requests of a requester."""
        held = [
            Held(
                kind="receipt" if lease.receipt else "lease",
                job=lease.job,
                attempt=lease.attempt,
                digest=lease.receipt or lease.digest,
            )
            for lease in self._leases.get(conversation.key, {}).values()
        ]
        for nonce, digest in await self.store.open_requests(conversation.key):
            held.append(Held(kind="request", job=nonce, digest=digest))
        return held

    async def reconcile(self, conversation: Conversation, held: Sequence[Held]) -> None:
        """A peer has said what it holds: give it what it lacks."""
        leases = self._leases.get(conversation.key, {})
        for entry in held:
            name = entry.job, entry.attempt
            if entry.kind == "lease":
                conversation.held[name] = entry
            if entry.kind == "request":
                await self._resume_request(conversation, entry.job, entry.digest)
            elif entry.kind in ("lease", "receipt"):
                lease = leases.get(name)
                if lease is None:
                    await self._tell_ended_lease(conversation, entry)
                elif entry.kind == "receipt" and lease.receipt == entry.digest:
                    conversation.tell(Taken(documents=(entry.digest,)))

    async def _tell_ended_lease(self, conversation: Conversation, entry: Held) -> None:
        """A worker holds what has ended here: the settlement, if it was paid for; else that it can let go."""
        standing = await self.store.standing(entry.job, entry.attempt)
        if standing is not None and standing.job.settled == entry.attempt and standing.settlement:
            conversation.hand(standing.settlement)
        elif entry.kind == "lease" or standing is None or standing.job.state not in lifecycle.LIVE:
            reason = "ended" if standing is None else standing.job.state.value
            conversation.tell(Withdrawn(job=entry.job, attempt=entry.attempt, reason=reason))

    async def _resume_request(self, conversation: Conversation, nonce: bytes, digest: bytes) -> None:
        found = await self.store.standing_of_request(conversation.key, nonce)
        if found is not None and found[0] == digest:
            self._tell_request(conversation, *found)

    def _tell_request(self, conversation: Conversation, digest: bytes, standings: Sequence[Standing]) -> None:
        """Where a request stands, job by job; from now on this connection follows it."""
        self._watch(conversation, digest)
        jobs = tuple(standing.job.handle for standing in standings)
        conversation.tell(Queued(request=digest, jobs=jobs, held=sum(standing.job.held for standing in standings)))
        for standing in standings:
            job, attempt = standing.job, standing.attempt
            if standing.settlement:
                conversation.hand(standing.settlement)
            elif job.state not in lifecycle.LIVE:
                conversation.tell(_ended(job, 0))
            elif attempt is not None and job.state is not State.WAITING:
                self._hand_lease(conversation, attempt.worker, standing.lease)
        for waiting in self._queue.set_present(digest, present=True):
            self._match(waiting)

    def _watch(self, conversation: Conversation, request: bytes) -> None:
        self._watchers[request] = conversation
        conversation.requests.add(request)

    def _hand_lease(self, conversation: Conversation, worker: bytes, lease: bytes) -> None:
        """To a requester: where the worker is reached, and its lease."""
        record = self._records.get(worker)
        if record is not None:
            conversation.hand(record.raw)
        conversation.hand(lease)

    # Accounts

    async def register(self, conversation: Conversation) -> None:
        """The peer's key wants to be an account."""
        if not conversation.account and self.rules.rules.accounts.registration == "closed":
            raise NotRegistered("this horde takes no new accounts; you are served without one")
        conversation.account = await self.store.register(conversation.key, self.clock())
        for other in self._conversations:
            if other.is_open and other.key == conversation.key:
                other.account = conversation.account
        await self.tell_account(conversation)

    async def tell_account(self, conversation: Conversation) -> None:
        """How the peer's account stands."""
        if not conversation.account:
            conversation.tell(Account(number=0, notice=NOTICE))
            return
        state = await self.store.account(conversation.account, self.clock())
        conversation.tell(
            Account(
                number=state.number,
                balance=state.balance,
                held=state.held,
                earned=state.earned,
                spent=state.spent,
                taken_free=state.taken_free,
                jobs_done=state.jobs_done,
                jobs_received=state.jobs_received,
                notice=NOTICE,
            )
        )

    # Requests

    async def request(self, conversation: Conversation, envelope: Envelope, request: Request) -> None:
        """Take a request in and match what can be matched at once; one that was taken in before is answered again."""
        if envelope.key != conversation.key:
            raise WrongSigner("a request by another key than this session's")
        visit = conversation.visits.get(request.private_digest)
        if visit is None:
            await self._request_again(conversation, envelope, request)
            return
        now, rules = self.clock(), self.rules
        documents.check_validity(request.valid_until, now)
        check_key(request.job_key)
        _check_visit(visit, request.public)
        payer = conversation.account or ANONYMOUS
        origin = str(conversation.account) if conversation.account else conversation.origin
        check_limits(request.public, rules.rules, anonymous=payer == ANONYMOUS, open_jobs=self._open_jobs[origin])
        models = affordable(request.public, rules.rules, self._pool.models(kind_of(request.public.work)))
        self._open_jobs[origin] += request.public.n
        drawn = self._draw(request, models, payer, origin, now)
        try:
            admitted = await self.store.admit(
                envelope,
                request,
                payer=payer,
                origin=origin,
                choices=[pair and Choice(pair[0].key, pair[0].owner, pair[1].model) for pair in drawn],
                models=models or ("",),
                rules=rules,
                now=now,
            )
        except Exception:
            self._open_jobs[origin] -= request.public.n
            raise
        finally:
            for pair in drawn:
                if pair is not None:
                    pair[0].promised -= 1
        conversation.visits.pop(request.private_digest, None)
        if admitted.again:
            self._open_jobs[origin] -= request.public.n
            await self._resume_request(conversation, request.nonce, envelope.digest)
            return
        self.counts["requests"] += 1
        self._watch(conversation, envelope.digest)
        if conversation.is_closed:
            del self._watchers[envelope.digest]
        handles = tuple(job.handle for job in admitted.jobs)
        conversation.tell(Queued(request=envelope.digest, jobs=handles, held=admitted.held))
        for number, job in enumerate(admitted.jobs):
            if number in admitted.leases:
                self._push(admitted.leases[number])
            else:
                self._wait(job)

    async def _request_again(self, conversation: Conversation, envelope: Envelope, request: Request) -> None:
        """Without its private part only a request that is known already can be answered."""
        found = await self.store.standing_of_request(conversation.key, request.nonce)
        if found is None or found[0] != envelope.digest:
            raise PrivatePartMissing("the private part of this request has not been here: send `private` before it")
        self._tell_request(conversation, *found)

    def _draw(
        self, request: Request, models: tuple[str, ...], payer: int, origin: str, now: int
    ) -> list[tuple[Worker, Offer] | None]:
        """Workers for the jobs of a request that is about to be admitted; their places are promised meanwhile."""
        public = request.public
        probe = Waiting.of(_unborn(request, payer, origin, now), models if public.models else ())
        drawn: list[tuple[Worker, Offer] | None] = []
        for _ in range(public.n):
            pair = self._pool.draw(probe, self._terms(now), self._chance)
            if pair is not None:
                pair[0].promised += 1
            drawn.append(pair)
        return drawn

    async def cancel(self, conversation: Conversation, envelope: Envelope, said: Cancel) -> None:
        """A requester wants jobs no more."""
        now, rules = self.clock(), self.rules.rules
        for happened in await self.store.cancel(envelope, said, sender=conversation.key, rules=rules, now=now):
            self._follow(happened, now)
            self._tell_cancelled(conversation, happened)

    def _tell_cancelled(self, conversation: Conversation, happened: Happened) -> None:
        job = happened.outcome.job
        if job.state is State.LEASED and happened.outcome.changed:
            due = job.cancelled + self.rules.rules.times.cancel * 1000
            self._timers.at(due, lambda: self._happen(job.handle, 0, lifecycle.CancelOver()))
        elif not happened.outcome.changed and job.state not in lifecycle.LIVE:
            self._tell_end(conversation, happened)

    async def answer(self, conversation: Conversation, envelope: Envelope, said: Acknowledgement | Denial) -> None:
        """A requester acknowledges or denies."""
        now, rules = self.clock(), self.rules.rules
        if isinstance(said, Acknowledgement):
            happened = await self.store.acknowledge(
                envelope, said, self._open_receipt(said.receipt), sender=conversation.key, rules=rules, now=now
            )
        else:
            receipt = self._open_receipt(said.receipt) if said.receipt else None
            happened = await self.store.deny(envelope, said, receipt, sender=conversation.key, rules=rules, now=now)
        if happened.outcome.changed:
            self._follow(happened, now)
        else:
            self._tell_end(conversation, happened)

    def _open_receipt(self, raw: bytes) -> tuple[Envelope, Receipt]:
        """The receipt inside an acknowledgement or denial, checked like one from the worker."""
        envelope = documents.parse_document(raw, Receipt)
        check_document_context(envelope, self.root)
        lease = self._leases.get(envelope.key, {})
        if not any(known.receipt == envelope.digest for known in lease.values()):
            envelope.verify()  # one that was taken before has been checked, byte for byte
        return envelope, documents.open_document(envelope, Receipt)

    async def unreachable(self, conversation: Conversation, said: Unreachable) -> None:
        """A requester cannot reach its worker."""
        lease = self._current.get(said.job)
        if lease is None or lease.attempt != said.attempt:
            return  # that attempt is over, and the requester hears or has heard of it
        if lease.request not in conversation.requests:
            raise UnknownJob("this session has no such job")
        log.info("worker %s cannot be reached by a requester (%s)", show_key(lease.worker)[:8], said.reason)
        await self._carry_out(said.job, said.attempt, lifecycle.CannotReach(said.reason))

    # Workers

    def peer_record(self, conversation: Conversation, envelope: Envelope, record: PeerRecord) -> None:
        """Where a worker is reached; a higher version replaces, the same again changes nothing."""
        if envelope.key != conversation.key:
            raise WrongSigner("a peer record by another key than this session's")
        known = self._records.get(envelope.key)
        if known is not None and documents.open_document(known, PeerRecord).version > record.version:
            raise OutOfTurn("a peer record of a lower version than the last one: raise its version")
        self._records[envelope.key] = envelope
        conversation.record = record

    async def announce(self, conversation: Conversation, announce: Announce) -> None:
        """A worker says what it serves."""
        if not conversation.account:
            raise NotRegistered("a worker needs an account, so that it can be paid: send `register` first; it is free")
        if conversation.record is None:
            raise OutOfTurn("announce what is served after the peer record that says where")
        key = conversation.key
        back = self._workers.get(key) is not conversation
        self._workers[key] = conversation
        leases = self._leases.get(key, {})
        if back:
            await self._compare_leases(conversation, list(leases.values()))
        running = [name for name, lease in leases.items() if not lease.receipt]
        worker = self._pool.announce(key, conversation.account, announce, running)
        self._feed(worker)

    async def _compare_leases(self, conversation: Conversation, leases: Sequence[LiveLease]) -> None:
        """A worker is back: leases that it had not yet taken are pushed again; those that it lost are lost."""
        for lease in leases:
            if lease.receipt or lease.name in conversation.held:
                lease.pushed_in = conversation
            elif lease.stage is Stage.PUSHED:
                standing = await self.store.standing(lease.job, lease.attempt)
                if standing is not None:
                    lease.pushed_in = conversation
                    conversation.hand(standing.lease)
            else:
                await self._carry_out(lease.job, lease.attempt, lifecycle.WorkerFailed("gone"))

    async def report(self, conversation: Conversation, report: Report) -> None:
        """What became of leases at a worker."""
        leases = self._leases.get(conversation.key, {})
        for progress in report.leases:
            lease = leases.get((progress.job, progress.attempt))
            if lease is None or lease.receipt:
                continue  # it has ended meanwhile, and the worker hears or has heard of it
            event: Event
            match progress.state:
                case "accepted":
                    event = lifecycle.Accepted()
                case "opened":
                    event = lifecycle.Opened()
                case "declined":
                    event = lifecycle.Declined(progress.reason or "declined")
                case "failed":
                    event = lifecycle.WorkerFailed(progress.reason or "failed")
            await self._carry_out(progress.job, progress.attempt, event)

    async def receipt(self, conversation: Conversation, envelope: Envelope, receipt: Receipt) -> None:
        """A worker has delivered."""
        if envelope.key != conversation.key:
            raise WrongSigner("a receipt by another key than this session's")
        now = self.clock()
        happened = await self.store.receive(envelope, receipt, self.rules.rules, now)
        conversation.tell(Taken(documents=(envelope.digest,)))
        if happened.outcome.changed:
            self._follow(happened, now)
        elif happened.settlement:
            conversation.hand(happened.settlement)

    # Matching

    def _terms(self, now: int) -> Terms:
        mint = self.rules.rules.mint
        used = self._budget_used if self._budget_day == day_of(now) else 0
        return Terms(self.rules.rules, mint_rate(mint.steps, mint.daily, used))

    def _wait(self, job: Job) -> None:
        """A job waits: it gets a worker at once, or a place in the queue."""
        waiting = self._waiting(job)
        self._queue.add(waiting, present=job.request in self._watchers)
        due = lifecycle.expires(job, self.rules.rules)
        self._timers.at(due, lambda: self._expire(job.handle, job.attempt, job.request))
        if job.request in self._watchers and not self._match(waiting):
            self._tell_position(waiting)

    def _waiting(self, job: Job) -> Waiting:
        models = job.public.models and affordable(job.public, self.rules.rules, ())
        return Waiting.of(job, models)

    def _match(self, waiting: Waiting) -> bool:
        """Lease a waiting job if somebody can take it now."""
        pair = self._pool.draw(waiting, self._terms(self.clock()), self._chance)
        if pair is None:
            return False
        self._spawn(self._lease(waiting, *pair))
        return True

    def _feed(self, worker: Worker) -> None:
        """Give a worker the jobs that it should get now."""
        now = self.clock()
        terms = self._terms(now)
        while worker.has_room and self._pool.workers.get(worker.key) is worker:
            found = self._queue.next_for(worker, terms, self.rules.rules.matching.every)
            if found is None:
                return
            self._spawn(self._lease(found[0], worker, found[1]))

    def _feed_all(self) -> None:
        self._starved = False
        for worker in list(self._pool.workers.values()):
            self._feed(worker)

    def _lease(self, waiting: Waiting, worker: Worker, offer: Offer) -> Coroutine[Any, Any, None]:
        """Take the job out of the queue now; commit the lease and push it in what is returned."""
        now = self.clock()
        self._queue.leased(waiting, offer.model, now)
        self._queue.remove(waiting.handle, waiting.request)
        worker.promised += 1
        choice = Choice(worker.key, worker.owner, offer.model)

        async def commit() -> None:
            try:
                leased = await self.store.lease(waiting.handle, waiting.attempt, choice, self.rules, now)
            except StoreError:
                self._queue.add(waiting, present=waiting.request in self._watchers)
                self._starved = True
                raise
            finally:
                worker.promised -= 1
            if leased is not None:
                self._push(leased)
            else:
                self._feed(worker)

        return commit()

    def _push(self, leased: Leased) -> None:
        """A lease is durable: both sides get it."""
        job, attempt = leased.job, leased.attempt
        self._budget_day, self._budget_used = day_of(attempt.issued), leased.budget_used
        lease = self._remember(job, attempt)
        worker = self._workers.get(attempt.worker)
        if worker is not None:
            lease.pushed_in = worker
            worker.hand(leased.document)
        watcher = self._watchers.get(job.request)
        if watcher is not None:
            self._hand_lease(watcher, attempt.worker, leased.document)
        self._positions.pop(job.handle, None)
        self.counts["leases"] += 1
        self._watch_lease(lease, 0)

    def _remember(self, job: Job, attempt: Attempt) -> LiveLease:
        lease = LiveLease(
            job=job.handle,
            attempt=attempt.attempt,
            worker=attempt.worker,
            request=job.request,
            signer=job.signer,
            stage=attempt.stage,
            digest=attempt.lease,
            deadline=attempt.deadline,
            receipt=attempt.receipt if job.state is State.DELIVERED else b"",
        )
        self._leases.setdefault(attempt.worker, {})[lease.name] = lease
        self._current[job.handle] = lease
        if not lease.receipt and attempt.worker in self._pool.workers:
            self._pool.workers[attempt.worker].leases.add(lease.name)
        return lease

    # Time

    def _watch_lease(self, lease: LiveLease, grace: int) -> None:
        """Look again when an acceptance, an opening or the result is overdue."""
        now, times = self.clock(), self.rules.rules.times
        if lease.stage is Stage.PUSHED:
            self._later(now + grace + times.accept * 1000, lease, Stage.PUSHED, lifecycle.NotAccepted())
        elif lease.stage is Stage.ACCEPTED:
            self._later(now + grace + times.open * 1000, lease, Stage.ACCEPTED, lifecycle.NotOpened())
        if lease.stage is Stage.PUSHED or grace:
            due = max(lease.deadline, now + grace)
            self._later(due, lease, None, lifecycle.WorkerFailed("deadline"))

    def _later(self, due: int, lease: LiveLease, stage: Stage | None, event: Event) -> None:
        def look() -> None:
            if self._current.get(lease.job) is lease and not lease.receipt and stage in (None, lease.stage):
                self._happen(lease.job, lease.attempt, event)

        self._timers.at(due, look)

    def _expire(self, handle: bytes, attempt: int, request: bytes) -> None:
        if self._queue.holds(handle, request, attempt):
            self._happen(handle, 0, lifecycle.Expired())

    def _expect_return(self, worker: bytes, within_ms: int) -> None:
        """A worker is away: what it does not come back for is lost."""

        def look() -> None:
            if worker not in self._workers:
                for lease in list(self._leases.get(worker, {}).values()):
                    if not lease.receipt:
                        self._happen(lease.job, lease.attempt, lifecycle.WorkerFailed("gone"))

        self._timers.at(self.clock() + within_ms, look)

    def _await_answer(self, job: Job) -> None:
        """A delivered job is paid when its requester says nothing for long enough."""
        due = job.changed + self.rules.rules.times.silence * 1000

        def look() -> None:
            lease = self._current.get(job.handle)
            if lease is not None and lease.receipt and lease.attempt == job.attempt:
                self._spawn(self._silence(job.handle))

        self._timers.at(due, look)

    async def _silence(self, handle: bytes) -> None:
        now = self.clock()
        self.counts["silences"] += 1
        self._follow(await self.store.silence(handle, self.rules.rules, now), now)

    # What follows from an event

    def _happen(self, handle: bytes, attempt: int, event: Event) -> None:
        self._spawn(self._carry_out(handle, attempt, event))

    async def _carry_out(self, handle: bytes, attempt: int, event: Event) -> None:
        now = self.clock()
        self._follow(await self.store.happen(handle, attempt, event, self.rules.rules, now), now)

    def _follow(self, happened: Happened, now: int) -> None:
        """Bring memory in line with what is now durable, then tell everybody whom it concerns."""
        if not happened.outcome.changed:
            return
        before, job, attempt = happened.before, happened.outcome.job, happened.outcome.attempt
        newest = happened.lost or attempt
        if before.state is State.WAITING:
            self._queue.remove(job.handle, job.request)
        if before.state is State.LEASED and newest is not None:
            self._follow_lease(happened, newest)
        if job.state is State.DELIVERED and attempt is not None:
            lease = self._remember(job, attempt)
            lease.pushed_in = self._workers.get(attempt.worker)
            self._await_answer(job)
        if job.state not in lifecycle.LIVE:
            self._forget(job)
            self._tell_end(self._watchers.get(job.request), happened)
            if attempt is not None and happened.settlement:
                self._tell_worker(attempt.worker, happened.settlement)
                self._pool.count_settled(attempt.owner)
        elif happened.outcome.requeued and attempt is not None:
            reason = happened.outcome.requeued
            self._tell_watcher(job, Requeued(job=job.handle, attempt=attempt.attempt, reason=reason[:40]))
            self._wait(job)
        if newest is not None and newest.worker in self._pool.workers:
            self._feed(self._pool.workers[newest.worker])

    def _follow_lease(self, happened: Happened, newest: Attempt) -> None:
        """The newest lease went on, or ended: its worker's slot is free, and it is told why if it does not know."""
        job, withdraw = happened.outcome.job, happened.outcome.withdraw
        name = job.handle, newest.attempt
        lease = self._leases.get(newest.worker, {}).get(name)
        if job.state is State.LEASED and newest.stage is not Stage.ENDED:
            if lease is not None and lease.stage is not newest.stage:
                lease.stage = newest.stage
                self._watch_lease(lease, 0)
        else:
            self._release(newest.worker, name)
            if job.state is not State.DELIVERED and lease is not None:
                self._drop(lease)
        conversation = self._workers.get(newest.worker)
        if withdraw and conversation is not None:
            conversation.tell(Withdrawn(job=job.handle, attempt=newest.attempt, reason=withdraw))

    def _release(self, worker: bytes, name: tuple[bytes, int]) -> None:
        if worker in self._pool.workers:
            self._pool.workers[worker].leases.discard(name)

    def _drop(self, lease: LiveLease) -> None:
        leases = self._leases.get(lease.worker, {})
        leases.pop(lease.name, None)
        if not leases:
            self._leases.pop(lease.worker, None)
        if self._current.get(lease.job) is lease:
            del self._current[lease.job]

    def _forget(self, job: Job) -> None:
        """A job has ended."""
        lease = self._current.get(job.handle)
        if lease is not None:
            self._release(lease.worker, lease.name)
            self._drop(lease)
        self._positions.pop(job.handle, None)
        self._open_jobs[job.origin] -= 1
        if not self._open_jobs[job.origin]:
            del self._open_jobs[job.origin]
        self.counts[job.state.value] += 1

    def _tell_end(self, conversation: Conversation | None, happened: Happened) -> None:
        """To a requester: how its job ended."""
        job = happened.outcome.job
        if conversation is None:
            return
        if happened.settlement:
            conversation.hand(happened.settlement)
        elif job.state is not State.SETTLED and job.state not in lifecycle.LIVE:
            conversation.tell(_ended(job, happened.released))

    def _tell_worker(self, worker: bytes, document: bytes) -> None:
        conversation = self._workers.get(worker)
        if conversation is not None:
            conversation.hand(document)

    def _tell_watcher(self, job: Job, message: SessionMessage) -> None:
        watcher = self._watchers.get(job.request)
        if watcher is not None:
            watcher.tell(message)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Carry something out that no message waits for."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a step failed: %s", error, exc_info=None if isinstance(error, StoreError) else error)

    # After a restart

    def _take_up(self, standing: Standing) -> None:
        """A job that had not ended when the last process did; life signs are awaited anew, with a grace."""
        job, attempt = standing.job, standing.attempt
        times = self.rules.rules.times
        grace = times.restart_grace * 1000
        self._open_jobs[job.origin] += 1
        if job.state is State.WAITING:
            self._queue.add(self._waiting(job), present=False)
            due = max(lifecycle.expires(job, self.rules.rules), self.clock() + grace)
            self._timers.at(due, lambda: self._expire(job.handle, job.attempt, job.request))
        elif attempt is not None:
            lease = self._remember(job, attempt)
            if job.state is State.DELIVERED:
                self._await_answer(job)
                return
            self._watch_lease(lease, grace)
            self._expect_return(attempt.worker, grace + times.worker_grace * 1000)
            if job.cancelled:
                due = self.clock() + grace + times.cancel * 1000
                self._timers.at(due, lambda: self._happen(job.handle, 0, lifecycle.CancelOver()))

    # Questions

    def tell_why(self, conversation: Conversation, question: AskWhy) -> None:
        """Counts by reason why nothing comes, for a worker or a waiting job."""
        terms = self._terms(self.clock())
        if question.job is not None:
            waiting = self._queue.get(question.job)
            if waiting is None or waiting.request not in conversation.requests:
                raise UnknownJob("this session has no such waiting job")
            counts = self._pool.reasons_for(waiting, terms)
        else:
            worker = self._pool.workers.get(conversation.key)
            if worker is None:
                raise OutOfTurn("only a worker that has announced can ask why nothing comes")
            counts = self._queue.reasons_for(worker, terms)
        reasons = tuple((reason.value, number) for reason, number in counts.most_common())
        conversation.tell(Why(job=question.job, reasons=reasons))

    def _tell_positions(self) -> None:
        for waiting in self._queue.heads(POSITIONS):
            self._tell_position(waiting)

    def _tell_position(self, waiting: Waiting) -> None:
        ahead = self._queue.ahead_of(waiting)
        watcher = self._watchers.get(waiting.request)
        if watcher is not None and self._positions.get(waiting.handle) != ahead:
            self._positions[waiting.handle] = ahead
            workers = self._pool.able(waiting, self._terms(self.clock()))
            watcher.tell(Position(job=waiting.handle, ahead=ahead, workers=workers))

    def scrape(self) -> dict[str, object]:
        """How it goes, in numbers that concern nobody in particular."""
        waiting = self._queue.counts()
        swarms = self._pool.swarms()
        names = sorted({*swarms, *waiting})
        leased = sum(not lease.receipt for lease in self._current.values())
        return {
            "name": self.rules.rules.horde.name,
            "peers": sum(conversation.is_open for conversation in self._conversations),
            "workers": len(self._pool.workers),
            "waiting": len(self._queue),
            "leased": leased,
            "delivered": len(self._current) - leased,
            "since_start": {name: self.counts[name] for name in sorted(self.counts)},
            "mint": {
                "daily": self.rules.rules.mint.daily,
                "used_today": self._budget_used if self._budget_day == day_of(self.clock()) else 0,
            },
            "swarms": [
                {"kind": kind, "model": model, "workers": swarms.get((kind, model), 0), "waiting": waiting[kind, model]}
                for kind, model in names
            ],
        }


def _check_visit(visit: Visit, public: PublicPart) -> None:
    """What of public and private part must agree, as far as the tracker can know."""
    kind = kind_of(public.work)
    if visit.kind != kind:
        raise PrivatePartMismatch(f"the private part is of kind {visit.kind}, the public part of kind {kind}")
    if isinstance(public.work, ImageWork) and visit.guided != (public.work.guidance_passes == 2):
        raise PrivatePartMismatch("guidance above 1000 takes 2 guidance passes, else 1")


def _ended(job: Job, released: int) -> Ended:
    """What a requester is told of a job that ended without settlement."""
    state = cast("Literal['refunded', 'cancelled', 'expired', 'failed']", job.state.value)
    return Ended(job=job.handle, attempt=job.attempt, state=state, reason=job.reason[:40], released=released)


def _unborn(request: Request, payer: int, origin: str, now: int) -> Job:
    """The job that a request will have, as far as matching it needs to know."""
    return Job(
        handle=b"",
        request=b"",
        number=0,
        public=request.public,
        private_digest=request.private_digest,
        job_key=request.job_key,
        signer=b"",
        payer=payer,
        origin=origin,
        state=State.WAITING,
        attempt=0,
        failed=0,
        held=0,
        score=0,
        anonymous=payer == ANONYMOUS,
        admitted=now,
        changed=now,
    )
