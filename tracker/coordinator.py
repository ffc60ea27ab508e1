"""The coordinator: carries out what conversations, the life cycle, matching and the store say, in the right order.

Every change goes to the store first. When it is durable, the queue, the pool and the timers follow, and only then is
anybody told (commit before speak). What is kept here in memory can be rebuilt from the store at any time.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from protocol import documents, prices
from protocol.documents import (
    Acknowledgement,
    Cancel,
    Denial,
    PeerRecord,
    Receipt,
    Request,
    Serving,
)
from protocol.envelope import Envelope, check_document_context, parse
from protocol.errors import (
    NotOffered,
    NotRegistered,
    OutOfTurn,
    PrivatePartMissing,
    Refusal,
    Stopping,
    UnknownJob,
    WrongSigner,
)
from protocol.keys import SigningKey, check_key, show_key
from protocol.messages import (
    Announce,
    AskQuote,
    AskWhy,
    Kept,
    Queued,
    Quote,
    Report,
    Taken,
    Unreachable,
    Why,
    Withdrawn,
)
from protocol.postings import ANONYMOUS
from protocol.rules import Rules
from protocol.work import PublicPart, kind_of
from tracker import lifecycle
from tracker.accounts import Acting, available, check_ask, check_work
from tracker.addresses import Blocks
from tracker.askers import Askers
from tracker.catalogue import Listing
from tracker.checked import Checked
from tracker.content_filter import ContentFilter, check_content
from tracker.conversation import Conversation, Outlet, Visit
from tracker.fitting import Reason
from tracker.forwarded import IPAddress
from tracker.holdings import Holdings
from tracker.jobs import Jobs
from tracker.leases import LiveLease
from tracker.lifecycle import Stage
from tracker.limits import affordable, check_limits, check_user_limit
from tracker.lines import party
from tracker.matching import NOBODY, Named, Terms, Worker
from tracker.moderating import Moderation
from tracker.presence import Presence
from tracker.pricing import price
from tracker.quotes import cost
from tracker.recovery import read_kept
from tracker.registry import Registry
from tracker.saying import Votes
from tracker.scrape import scrape
from tracker.store.base import RulesInForce, Store, StoreError
from tracker.ways import Ways
from tracker.witnesses import Witnesses

log = logging.getLogger(__name__)

TICK_S = 0.1
CHECKPOINT_MS = 1000
POSITIONS_MS = 2000
VEST_MS = 3_600_000


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
        checkpoint: bytes,
        clock: Callable[[], int],
        chance: random.Random,
        content_filter: ContentFilter | None = None,
        listing: Listing | None = None,
    ) -> None:
        self.store = store
        self.root = root
        self.key = key
        self.delegation = delegation
        self.shown = b""
        self.clock = clock
        self.content_filter = content_filter or ContentFilter()
        self.listing = listing or Listing()
        self.checked = Checked()
        self._presence = Presence()
        self._blocks = Blocks()
        self._jobs = Jobs(store, self._presence, rules, clock=clock, chance=chance)
        self.figures = self._jobs.figures
        self._conversations: set[Conversation] = set()
        self._askers = Askers(store)
        self.registry = Registry(store, self._jobs, self._conversations, self._askers, clock=clock)
        self.ways = Ways(
            store, self._presence, self._jobs, self.registry, root=root, key=key, clock=clock, chance=chance
        )
        self.holdings = Holdings(store, self._presence, self._jobs)
        self.moderation = Moderation(
            store, self._jobs, self._conversations, self._feed, serving=key.public, clock=clock
        )
        self.votes = Votes(store)
        self.witnesses = Witnesses(checkpoint)
        self._sealed = self._positioned = clock()
        self._vested = 0
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
        content_filter: ContentFilter | None = None,
        listing: Listing | None = None,
    ) -> AsyncIterator[Coordinator]:
        """A coordinator that has taken up every job that had not ended; leaves no task behind."""
        rules = await store.rules_in_force()
        coordinator = cls(
            store,
            root=root,
            key=key,
            delegation=delegation,
            rules=rules,
            checkpoint=(await store.ledger_head()).checkpoint,
            clock=clock,
            chance=chance,
            content_filter=content_filter,
            listing=listing,
        )
        await coordinator.moderation.load()
        for standing in await store.live():
            coordinator._jobs.take_up(standing)
        try:
            yield coordinator
        finally:
            await coordinator.stop()

    def vouch_for(self, certificate: bytes) -> None:
        """Say in every challenge from here on that the tracker shows the certificate with this digest; empty: none
        that needs it."""
        shown = documents.Shown(digest=certificate) if certificate else None
        self.shown = documents.sign(shown, self.key, self.root).raw if shown else b""

    async def run(self) -> None:
        """Timers and checkpoints, until cancelled."""
        while True:
            await asyncio.sleep(TICK_S)
            await self.tick(self.clock())

    async def tick(self, now: int) -> None:
        """Do what is due at `now`."""
        self._jobs.tick(now)
        self.registry.tick(now)
        self.ways.tick(now)
        self.moderation.tick(now)
        self.witnesses.tick(now)
        await self.votes.tick(now)
        if now - self._sealed >= CHECKPOINT_MS:
            self._sealed = now
            await self._seal(now)
        if now - self._vested >= VEST_MS:
            self._vested = now
            await self._vest()
        if now - self._positioned >= POSITIONS_MS:
            self._positioned = now
            self._jobs.positions.tell_all()

    async def stop(self) -> None:
        """Say good-bye to everybody, finish what is being committed, seal."""
        self.is_stopping = True
        await self.ways.stop()
        for conversation in list(self._conversations):
            conversation.hang_up(Stopping("the tracker is stopping: come back in a moment"))
            await conversation.finish()
        await self._jobs.finish()
        await self._seal(self.clock())

    async def _seal(self, now: int) -> None:
        try:
            self.witnesses.newest = await self.store.seal(now) or self.witnesses.newest
        except StoreError as error:
            log.error("no checkpoint: %s", error)  # noqa: TRY400

    async def _vest(self) -> None:
        """Trust may come with time alone, and what limits were counted by goes with it."""
        try:
            vested = await self.store.vest_all(self.clock())  # rules may have changed since the tick began
            await self.store.tidy(self.clock())
        except StoreError as error:
            log.error("nothing is vested or tidied: %s", error)  # noqa: TRY400
        else:
            if vested:
                log.info("what was withheld of %d owners has vested", vested)

    async def publish(self, rules: Rules) -> RulesInForce:
        """Put new rules in force and hand them to everybody who is here."""
        before = self.rules.rules.catalogue
        in_force = await self.store.publish_rules(rules, self.clock())
        for conversation in list(self._conversations):
            if conversation.is_open:
                conversation.hand(in_force.document)
        self._jobs.put_in_force(in_force)
        if before != rules.catalogue:
            for conversation in list(self._conversations):
                await conversation.judge_again()
        return self.rules

    @property
    def rules(self) -> RulesInForce:
        """The rules in force."""
        return self._jobs.rules

    # Connections

    @property
    def hello_deadline_s(self) -> float:
        """Seconds within which a connection must have finished hello."""
        return float(self.rules.rules.times.hello)

    def open(self, outlet: Outlet, block: str, address: IPAddress | None = None) -> Conversation:
        """A peer has connected from this block of addresses, and this one of them, as far as it can be seen."""
        conversation = Conversation(self, outlet, block, address)
        self._conversations.add(conversation)
        return conversation

    def leave(self, conversation: Conversation) -> None:
        """A connection is gone: its waiting jobs are not matched, its leases have a moment of grace."""
        self._conversations.discard(conversation)
        self.witnesses.leave(conversation)
        self.ways.left(conversation)
        for request in conversation.requests:
            if self._presence.drop_requester(request, conversation):
                self._jobs.queue.set_present(request, present=False)
        if conversation.is_open and self._presence.drop_worker(conversation.key, conversation):
            self._jobs.pool.remove(conversation.key)
            self.figures.went(conversation.key, self.clock())
            self._jobs.expect_return(conversation.key, self.rules.rules.times.worker_grace * 1000)
        if conversation.record is not None:
            needed = bool(self._jobs.leases.of_worker(conversation.key))
            self._presence.showed_record(conversation.key, needed=needed)

    # Requests

    async def request(self, conversation: Conversation, envelope: Envelope, request: Request) -> None:
        """Take a request in and match what can be matched at once; one that was taken in before is answered again."""
        if envelope.key != conversation.key:
            raise WrongSigner("a request by another key than this session's")
        await self.registry.await_account(conversation)
        visit = conversation.visits.get(request.private_digest)
        try:
            if visit is None:
                raise PrivatePartMissing("the private part of this request has not been here: send `private` before it")
            await self._admit(conversation, envelope, request, await asyncio.shield(visit))
        except Refusal:
            found = await self.store.standing_of_request(conversation.key, request.nonce)
            if found is None or found[0] != envelope.digest:
                raise
            self.holdings.tell_request(conversation, *found)  # taken in before, whatever would be said of it now

    async def _admit(self, conversation: Conversation, envelope: Envelope, request: Request, visit: Visit) -> None:
        now, rules = self.clock(), self.rules
        documents.check_validity(request.valid_until, now)
        check_key(request.job_key)
        visit.check(request.public)
        payer = conversation.account or ANONYMOUS
        origin = self._origin(conversation, now)
        self._check_ask(conversation, request.public, payer, origin)
        if request.user:
            open_jobs = self._jobs.open_jobs[party(origin, request.user)]
            check_user_limit(request.public, rules.rules, open_jobs)
        await check_content(visit.verdict, payer, origin, request.user, self.store, rules.rules.filter, now)
        models = affordable(request.public, rules.rules, self._jobs.pool.models(kind_of(request.public.work)))
        facts = await self._askers.facts(payer, visit.verdict.labels, now)
        draw = self._jobs.draw(request, payer, origin, now, facts)
        try:
            admitted = await self.store.admit(
                envelope,
                request,
                payer=payer,
                origin=origin,
                choices=draw.choices,
                models=models or ("",),
                rules=rules,
                now=now,
                room=draw.room,
                facts=facts,
            )
        except Exception:
            self._jobs.not_admitted(draw)
            raise
        conversation.visits.pop(request.private_digest, None)
        if admitted.again:
            self._jobs.not_admitted(draw)
            await self.holdings.resume_request(conversation, request.nonce, envelope.digest)
            return
        self.holdings.watch(conversation, envelope.digest)
        handles = tuple(job.handle for job in admitted.jobs)
        conversation.tell(Queued(request=envelope.digest, jobs=handles, held=admitted.held))
        self._jobs.admitted(admitted, draw)

    def _check_ask(self, conversation: Conversation, public: PublicPart, payer: int, origin: str) -> None:
        """Refuse what the delegation, an act of moderators or the rules do not let this peer ask for."""
        check_ask(conversation.acting, public)
        open_jobs = self._jobs.open_jobs[origin]
        self.moderation.check_ask(conversation, payer, open_jobs, public.n)
        check_limits(public, self.rules.rules, anonymous=payer == ANONYMOUS, open_jobs=open_jobs)
        self.listing.check_asked(public, self.rules.rules)

    def _origin(self, conversation: Conversation, now: int) -> str:
        """Whom limits and fairness count: the account, or a hash of the address block."""
        return str(conversation.account) if conversation.account else self._blocks.origin(conversation.block, now)

    async def quote(self, conversation: Conversation, asked: AskQuote) -> None:
        """What such a request would cost and meet now; refused where the request would be. Nothing is stored."""
        await self.registry.await_account(conversation)
        now, rules, public = self.clock(), self.rules.rules, asked.public
        payer = conversation.account or ANONYMOUS
        origin = self._origin(conversation, now)
        self._check_ask(conversation, public, payer, origin)
        models = affordable(public, rules, self._jobs.pool.models(kind_of(public.work)))
        dearest = max(price(rules, public.work, model) for model in models or ("",))
        tax = prices.tax(rules, public.share)
        balance, free_now = await self._means(conversation.acting, now)
        found = cost(dearest, tax, balance, public.n)
        score = balance - found.first_held - free_now
        facts = await self._askers.facts(payer, (), now)
        prospect = self._jobs.prospect(public, payer, origin, score, found.is_carried, now, facts)
        conversation.tell(
            Quote(
                price=dearest,
                tax=tax,
                held=found.held,
                free=found.free,
                workers=prospect.workers,
                ahead=prospect.ahead,
                wait=prospect.wait,
            )
        )

    async def _means(self, acting: Acting, now: int) -> tuple[int, int]:
        """What can be set aside for whoever acts so, and what of free work its account has taken lately."""
        if not acting.account:
            return 0, 0
        state = await self.store.account(acting.account, now)
        used = await self.store.used(acting.grant.digest) if acting.grant is not None else 0
        return available(acting, state.balance, used), state.free_now

    async def cancel(self, conversation: Conversation, envelope: Envelope, said: Cancel) -> None:
        """A requester wants jobs no more."""
        now, rules = self.clock(), self.rules.rules
        for happened in await self.store.cancel(envelope, said, sender=conversation.key, rules=rules, now=now):
            self._jobs.follow(happened, now)
            if not happened.outcome.changed:
                self._jobs.tell_end(conversation, happened)

    async def answer(self, conversation: Conversation, envelope: Envelope, said: Acknowledgement | Denial) -> None:
        """A requester acknowledges or denies."""
        now, rules = self.clock(), self.rules.rules
        if isinstance(said, Acknowledgement):
            happened = await self.store.acknowledge(
                envelope, said, self._open_receipt(said), sender=conversation.key, rules=rules, now=now
            )
        else:
            receipt = self._open_receipt(said) if said.receipt else None
            happened = await self.store.deny(envelope, said, receipt, sender=conversation.key, rules=rules, now=now)
        follower = self._presence.requester(happened.before.request)
        self._jobs.follow(happened, now)
        if not happened.outcome.changed or follower is not conversation:
            self._jobs.tell_end(conversation, happened)

    def _open_receipt(self, said: Acknowledgement | Denial) -> tuple[Envelope, Receipt]:
        """The receipt inside an acknowledgement or denial, checked like one from the worker."""
        envelope = documents.parse_document(said.receipt, Receipt)
        check_document_context(envelope, self.root)
        self.checked.verify(envelope)
        return envelope, documents.open_document(envelope, Receipt)

    async def unreachable(self, conversation: Conversation, said: Unreachable) -> None:
        """A requester cannot reach its worker."""
        lease = self._jobs.leases.of_job(said.job)
        if lease is None or lease.attempt != said.attempt:
            return  # that attempt is over, and the requester hears or has heard of it
        if lease.request not in conversation.requests:
            raise UnknownJob("this session has no such job")
        log.info("worker %s cannot be reached by a requester (%s)", show_key(lease.worker)[:8], said.reason)
        await self._jobs.carry_out(said.job, said.attempt, lifecycle.CannotReach(said.reason))

    # Workers

    def peer_record(self, conversation: Conversation, envelope: Envelope, record: PeerRecord) -> None:
        """Where a worker is reached; a higher version replaces, the same again changes nothing."""
        if envelope.key != conversation.key:
            raise WrongSigner("a peer record by another key than this session's")
        if conversation.is_closed:
            return
        conversation.has_moved |= self._presence.keep_record(envelope, record)
        if conversation.record is None:
            self._presence.shows_record(conversation.key)
        conversation.record = record
        if conversation.announced is not None:
            self.ways.announced(conversation)

    async def announce(self, conversation: Conversation, announce: Announce) -> None:
        """A worker says what it serves."""
        await self.registry.await_account(conversation)
        if not conversation.account:
            raise NotRegistered("a worker needs an account, so that it can be paid: send `register` first; it is free")
        check_work(conversation.acting)
        if conversation.record is None:
            raise OutOfTurn("announce what is served after the peer record that says where")
        if conversation.is_closed:
            return
        key = conversation.key
        back = self._presence.worker(key) is not conversation
        self._presence.set_worker(key, conversation)
        conversation.announced = announce
        if back:
            await self._compare_leases(conversation, self._jobs.leases.of_worker(key))
        if conversation.has_moved:
            conversation.has_moved = False
            for lease in self._jobs.leases.of_worker(key):
                await self._tell_where(lease)
        if self._presence.worker(key) is not conversation or conversation.announced is not announce:
            return  # it has left meanwhile, or changed its mind
        if not conversation.account:
            return  # it has lost its account meanwhile
        self.figures.came(key, self.clock(), self.rules.rules.times.worker_grace * 1000)
        self._feed(conversation)
        self.ways.announced(conversation)
        if unlisted := self.listing.bound(announce, self.rules.rules)[1]:
            raise NotOffered(f"not served in this horde: {'; '.join(unlisted)}")

    def _feed(self, conversation: Conversation) -> None:
        """Give a worker leases by what it announced, unless an act keeps it from them."""
        key, announce = conversation.key, conversation.announced
        if announce is None or self._presence.worker(key) is not conversation:
            return
        if self.moderation.keeps_from_work(conversation):
            self._jobs.pool.remove(key)
            return
        running = [lease.name for lease in self._jobs.leases.of_worker(key) if not lease.receipt]
        served, _ = self.listing.bound(announce, self.rules.rules)
        named = self._named(key, announce)
        self._jobs.feed(self._jobs.pool.announce(key, conversation.account, served, running, named))

    def _named(self, worker: bytes, announce: Announce) -> Named:
        """The accounts behind the pseudonyms by which a worker names them."""
        if not (announce.not_accounts or announce.friends):
            return NOBODY
        names = self.store.pseudonyms
        return Named(names.read(worker, announce.not_accounts), names.read(worker, announce.friends))

    async def _compare_leases(self, conversation: Conversation, leases: Sequence[LiveLease]) -> None:
        """A worker is back: leases that it had not yet taken are pushed again; those that it lost are lost."""
        for lease in leases:
            if lease.receipt or lease.name in conversation.held:
                continue
            if lease.stage is Stage.PUSHED:
                standing = await self.store.standing(lease.job, lease.attempt)
                if standing is not None:
                    conversation.hand(standing.lease)
                if lease.cancelled:
                    conversation.tell(Withdrawn(job=lease.job, attempt=lease.attempt, reason="cancelled"))
            else:
                await self._jobs.carry_out(lease.job, lease.attempt, lifecycle.WorkerFailed("gone"))

    async def _tell_where(self, lease: LiveLease) -> None:
        """A worker is back under another address or certificate: who reads its stream goes on there."""
        requester = self._presence.requester(lease.request)
        standing = await self.store.standing(lease.job, lease.attempt)
        if requester is not None and standing is not None:
            self._presence.hand_lease(requester, lease.worker, standing.lease)

    async def report(self, conversation: Conversation, report: Report) -> None:
        """What became of leases at a worker."""
        for progress in report.leases:
            lease = self._jobs.leases.find(conversation.key, progress.job, progress.attempt)
            if lease is not None and not lease.receipt:  # else it has ended, and the worker hears or has heard of it
                await self._jobs.carry_out(progress.job, progress.attempt, lifecycle.event_of(progress))

    async def receipt(self, conversation: Conversation, envelope: Envelope, receipt: Receipt) -> None:
        """A worker has delivered."""
        if envelope.key != conversation.key:
            raise WrongSigner("a receipt by another key than this session's")
        now = self.clock()
        happened = await self.store.receive(envelope, receipt, self.rules.rules, now)
        conversation.tell(Taken(documents=(envelope.digest,)))
        conversation.has_moved |= conversation.record is None
        if happened.outcome.changed:
            self._jobs.follow(happened, now)
        elif happened.settlement:
            conversation.hand(happened.settlement)

    async def recover(self, conversation: Conversation, said: Kept) -> None:
        """A peer shows a settlement that a restore has cut."""
        delegation = documents.open_document(parse(self.delegation), Serving)
        shown = read_kept(said, self.root, delegation, conversation.key)
        now = self.clock()
        recovered = await self.store.recover(shown, now)
        conversation.tell(Taken(documents=(shown.settlement[0].digest,)))
        if recovered.entered:
            self._jobs.counts["recovered"] += 1
        if recovered.happened is not None:
            self._jobs.follow(recovered.happened, now)

    # Questions

    def tell_why(self, conversation: Conversation, question: AskWhy) -> None:
        """Counts by reason why nothing comes, for a worker or a waiting job."""
        terms = self._jobs.terms(self.clock())
        if question.job is not None:
            waiting = self._jobs.queue.get(question.job)
            if waiting is None or waiting.request not in conversation.requests:
                raise UnknownJob("this session has no such waiting job")
            kept_back = self._jobs.queue.lines.keeps_back(waiting)
            counts = self._jobs.pool.reasons_for(waiting, terms, kept_back=kept_back)
        else:
            counts = self._jobs.queue.reasons_for(*self._idle(conversation, terms))
        reasons = tuple((reason.value, number) for reason, number in counts.most_common())
        conversation.tell(Why(job=question.job, reasons=reasons))

    def _idle(self, conversation: Conversation, terms: Terms) -> tuple[Worker, Terms, Reason]:
        """The worker of the peer that asks why it gets nothing, and the reason against what it could serve."""
        worker, serves = self._jobs.pool.workers.get(conversation.key), self._presence.worker(conversation.key)
        if worker is not None:
            rests = worker.owner in self._jobs.pool.resting
            return worker, terms, Reason.RESTING if rests else Reason.BUSY
        if (
            not isinstance(serves, Conversation)
            or serves.announced is None
            or not self.moderation.keeps_from_work(serves)
        ):
            raise OutOfTurn("only a worker that has announced can ask why nothing comes")
        announce, _ = self.listing.bound(serves.announced, self.rules.rules)
        kept_out = Worker(serves.key, serves.account, announce, named=self._named(serves.key, announce))
        return kept_out, terms, Reason.KEPT_OUT

    def scrape(self) -> dict[str, object]:
        """How it goes, in numbers that concern nobody in particular."""
        now = self.clock()
        peers = sum(conversation.is_open for conversation in self._conversations)
        return {**scrape(self._jobs, peers, now), **self.ways.scrape()}
