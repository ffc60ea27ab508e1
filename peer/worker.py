"""A worker: joins the horde, takes leases, lets its engines make what is asked, serves the results.

This is the shell around `peer.worker_jobs`, which decides: here are the connection, the stream server, the engines
and the spools.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from peer import moderation
from peer.audit.shown import Shown
from peer.certificate import Certificate, fresh_certificate
from peer.connection import BACKOFF, Backoff, CannotJoin, Connection
from peer.content import Content
from peer.engines.base import Engine, EngineError
from peer.engines.spec import EngineSpec
from peer.keeping import Keeping, Showing
from peer.limits import UNLIMITED, Limits, shown_asker
from peer.making import Making
from peer.models import Models
from peer.news import News
from peer.opening import check_opening
from peer.output import Output
from peer.paths.approaches import Approaches
from peer.paths.look import be_seen
from peer.paths.relay_end import RelayEnds, tracker_of
from peer.peer_record import Addresses
from peer.reach import reach_routes
from peer.relaying import Offering, Relaying
from peer.reports import batches
from peer.spool import Attempt, Spool, SpoolError, reopen_all
from peer.stream_server import StreamServer
from peer.whereabouts import Whereabouts
from peer.worker_jobs import SETTLED, Discard, Effect, Hand, Job, Jobs, Prepare, Start, State, Stop, Tell
from protocol.documents import Serving, Settlement, open_document
from protocol.envelope import Envelope
from protocol.errors import BadInvite, NotRegistered, StreamGone, refusal
from protocol.keys import SigningKey, show_key
from protocol.links import Link
from protocol.messages import (
    Account,
    Acts,
    Held,
    Kept,
    Look,
    Meet,
    Offer,
    Paths,
    Progress,
    Punch,
    Reached,
    Refused,
    Register,
    Report,
    SessionMessage,
    Taken,
    Welcome,
    Withdrawn,
)
from protocol.work import kind_of

TICK_SECONDS = 1.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """How a worker serves.

    host, port: where it listens; an empty host means all addresses, port 0 any free one. addresses: under which it
    can be reached, `host` or `host:port`; none means the one from which it reaches the tracker. ahead: leases taken
    beyond the engines at work. limits: what its owner serves, and whom. relay: streams of others that it relays
    besides. maps: asks the router to let requesters in.
    """

    host: str = ""
    port: int = 0
    addresses: tuple[str, ...] = ()
    ahead: int = 1
    limits: Limits = UNLIMITED
    relay: Offering | None = None
    maps: bool = False


SETTINGS = Settings()


@dataclass
class _Run:
    """A result that is being made and stored. engine: which one makes it, None when that is done. spool_to_remove: at
    its end, since nobody wants the result."""

    task: asyncio.Task[None]
    stop: asyncio.Event
    engine: int | None
    spool_to_remove: Spool | None = None


class Worker:
    """One worker of one horde. folder: its own; one program at a time uses it. engines: opened and closed by `run`.
    owner: of a delegate, the account for which alone it works; 0 for a key that becomes an account of its own."""

    def __init__(
        self,
        link: Link,
        key: SigningKey,
        engines: Sequence[Engine],
        folder: Path,
        *,
        clock: Callable[[], int],
        random: random.Random,
        settings: Settings = SETTINGS,
        insecure: bool = False,
        rules: Envelope | None = None,
        delegation_seen: int = 0,
        backoff: Backoff = BACKOFF,
        on_news: Callable[[News], None] = lambda news: None,
        owner: int = 0,
    ) -> None:
        self.connection = Connection(
            link,
            key,
            self,
            clock=clock,
            random=random,
            insecure=insecure,
            rules=rules,
            delegation_seen=delegation_seen,
            backoff=backoff,
        )
        self._key = key
        self._clock = clock
        self._tracker = tracker_of(link)
        self._engines = engines
        self._folder = folder
        self._settings = settings
        self._on_news = on_news
        self._spools = folder / "spool" / show_key(link.root)[:16]
        self._keeping = Keeping(folder / "settled", link.root)
        self._shown = Shown(folder, link.root)
        self._showing = Showing(self._keeping)
        self._jobs = Jobs(key.public, (), settings.ahead, settings.limits)
        self._content = Content(link, folder / "filter", self._tell_news)
        self._jobs.refuses = lambda private, prefix: self._content.refuses(private, prefix, self.connection.rules)
        specs = [spec for engine in engines if isinstance(spec := getattr(engine, "spec", None), EngineSpec)]
        self._models = Models(link, folder, specs, self._tell_news)
        self._outputs: dict[Attempt, Output] = {}
        self._runs: dict[Attempt, _Run] = {}
        self._outbox: list[Progress | Envelope] = []
        self._outbox_filled = asyncio.Event()
        self._sending = asyncio.Lock()
        self._reoffered = asyncio.Event()
        addresses = Addresses(settings.host, settings.addresses)
        self._whereabouts = Whereabouts(self.connection, key, folder, addresses, clock, self._tell_news)
        self._certificate: Certificate | None = None
        self._server: StreamServer | None = None
        self._approaches: Approaches | None = None
        self._relaying: Relaying | None = None
        self._group: asyncio.TaskGroup | None = None
        self._looking: asyncio.Task[None] | None = None
        self._owner = owner
        self._lost_account = False
        self._is_announced = False
        self._is_ending = False

    async def run(self) -> None:
        """Serve until cancelled. Raises `EngineError` if an engine cannot be opened, `CannotJoin` if the tracker
        cannot be joined, `OSError` if the port or the folder cannot be used."""
        async with AsyncExitStack() as stack:
            for engine in self._engines:
                await stack.enter_async_context(engine)
            self._jobs.offers = [tuple(engine.offers) for engine in self._engines]
            for number, engine in enumerate(self._engines):
                engine.when_reoffered(partial(self._reoffer, number))
            for spool in await asyncio.to_thread(reopen_all, self._spools):
                self._restore(spool)
            self._certificate = fresh_certificate(self._folder)
            self._server = await stack.enter_async_context(self._make_server(self._certificate))
            self._approaches = await self._make_approaches(stack, self._server)
            self._whereabouts.listens(self._server.port, self._certificate.digest)
            self._tell_news(News("listening", f"port {self._server.port}"))
            try:
                await self._serve()
            except BaseExceptionGroup as errors:
                if len(errors.exceptions) == 1:
                    raise errors.exceptions[0] from None
                raise
            finally:
                self._end_outputs()

    def _make_server(self, certificate: Certificate) -> StreamServer:
        routes = reach_routes(self._key, self.connection.root, certificate.digest)
        if (offering := self._settings.relay) is not None:
            connection = self.connection
            self._relaying = Relaying(
                self._key.public,
                connection.root,
                offering,
                serving=lambda: connection.serving,
                now=connection.now,
            )
            routes += self._relaying.routes()
        settings = self._settings
        return StreamServer(self, certificate.context, host=settings.host, port=settings.port, routes=routes)

    async def _make_approaches(self, stack: AsyncExitStack, server: StreamServer) -> Approaches:
        connection = self.connection
        relays = await stack.enter_async_context(RelayEnds(self._tracker))
        approaches = Approaches(
            self._key,
            connection.root,
            self._tracker,
            relays,
            server.take,
            expects=lambda job, attempt: Attempt(job, attempt) in self._jobs.jobs,
            serving=lambda: connection.serving,
            now=connection.now,
        )
        return await stack.enter_async_context(approaches)

    async def _serve(self) -> None:
        async with asyncio.TaskGroup() as self._group:
            self._group.create_task(self.connection.run())
            self._group.create_task(self._send_outbox())
            self._group.create_task(self._watch_deadlines())
            self._group.create_task(self._announce_anew())
            self._group.create_task(self._content.keep(lambda: self.connection.rules))
            self._group.create_task(
                self._models.keep(
                    lambda: self.connection.rules, lambda: _distinct(self._jobs.offers), self._reoffered.set
                )
            )
            if self._settings.maps:
                self._group.create_task(self._whereabouts.keep_mapped())
            if self._relaying is not None:
                self._group.create_task(self._relaying.report(self._tell_news))
            try:
                await asyncio.Event().wait()  # until we are cancelled, or a task fails, which cancels this too
            finally:
                self._is_ending = True

    def open_stream(self, body: bytes) -> Output:
        """For the stream server: the output that the opening in `body` asks for; raises a `Refusal`."""
        assert self._certificate is not None  # noqa: S101 (there is a server, so there is one)
        opened = check_opening(
            body,
            root=self.connection.root,
            serving=self.connection.serving,
            worker=self._key.public,
            certificate=self._certificate.digest,
            known_lease=self._known_lease,
        )
        self._carry_out(self._jobs.opened(opened, self.connection.now()))
        output = self._outputs.get(opened.attempt)
        if output is None and (gone := self._jobs.gone.get(opened.attempt)) is not None:
            raise gone.refusal()
        if output is None:
            raise StreamGone("the worker could not make room for the result: wait for the next attempt")
        return output

    def _known_lease(self, attempt: Attempt) -> bytes | None:
        job = self._jobs.jobs.get(attempt)
        return job.envelope.digest if job is not None else None

    # The connection's handler

    def holding(self) -> Sequence[Held]:
        """Leases and receipts."""
        return self._jobs.holding()

    async def welcomed(self, welcome: Welcome) -> None:
        """What was leased before now and is not held is over."""
        self._jobs.welcomed = welcome.clock
        self._is_announced = False

    async def reconciled(self, theirs: Sequence[Held]) -> None:
        """Show what a restore has cut, and catch up; then announce, or register first."""
        assert self.connection.delegation is not None  # noqa: S101 (shown before the welcome)
        self._check_owner(self.connection.account)
        if self._owner and not self.connection.account:
            # Nothing is shown either: it would be paid to an account that is opened for this key alone.
            raise CannotJoin(
                NotRegistered("this key acts for no account here (any more): ask its owner for a delegation")
            )
        await self._showing.begin(self.connection, open_document(self.connection.delegation, Serving))
        self._carry_out(self._jobs.reconciled(theirs))
        if self.connection.account:
            await self._announce()
        elif not self._lost_account:
            await self.connection.say(Register())

    async def received(self, message: SessionMessage) -> None:
        """What the tracker says about leases and receipts; the account, once there is one."""
        match message:
            case Withdrawn():
                self._carry_out(self._jobs.withdrawn(message))
            case Meet() | Punch() | Paths() if self._approaches is not None:
                self._approaches.told(message)
            case Look() if self._group is not None and (self._looking is None or self._looking.done()):
                self._looking = self._group.create_task(be_seen(message, self._tracker))
            case Reached():
                await self._whereabouts.tested(message)
            case Acts(entries=entries):
                tracker = self.connection
                for text in moderation.news(entries, tracker.root, tracker.rules, tracker.serving):
                    self._tell_news(News("moderation", text))
            case Taken(documents=documents):
                self._jobs.taken(documents)
                self._showing.taken(documents)
            case Account(number=0):
                self._is_announced, self._lost_account = False, True
                self._tell_news(News("account", "none any more: nothing new comes until this key acts for one again"))
            case Account(number=number, notice=notice):  # also if what it may do for that account has changed
                self._check_owner(number)
                self._lost_account = False
                self._tell_news(News("account", f"{number}. {notice}"))
                await self._announce()
            case Refused(code=code, text=text):
                self._showing.refused(message.about, code)
                if code in (NotRegistered.code, BadInvite.code):
                    raise CannotJoin(refusal(code, text))
                self._tell_news(News("refused", f"{code}: {text}"))
                self._carry_out(self._jobs.refused(message))
            case _:
                pass

    def _check_owner(self, account: int) -> None:
        """Work for nobody but who was agreed to: a key that lost its account could be delegated to by a stranger."""
        if account and self._owner and account != self._owner:
            raise CannotJoin(
                NotRegistered(
                    f"this key acts for account {account} here now, and was to work for account {self._owner}: if that"
                    " is meant, say so with `potluck delegate use`"
                )
            )

    async def received_document(self, envelope: Envelope) -> None:
        """Leases come, settlements end them."""
        if envelope.kind == "lease":
            self._carry_out(self._jobs.leased(envelope, self.connection.now()))
        elif envelope.kind == "settlement":
            paid = open_document(envelope, Settlement)
            attempt = Attempt(paid.job, paid.attempt)
            self._keep(attempt, envelope)
            self._shown.of_settlement(envelope, self._clock())
            if effects := self._jobs.settled(attempt):  # it comes again after a loss, and counts once
                self._tell_news(News("settled", attempt=attempt, earned=paid.paid + paid.minted))
                self._carry_out(effects)
        elif envelope.kind == "checkpoint":
            self._shown.came(envelope.raw, self._clock())
        elif envelope.kind == "rules":
            self._tell_news(News("rules", self.connection.rules_news))

    def _keep(self, attempt: Attempt, settlement: Envelope) -> None:
        """Keep a settlement for some days, should the tracker lose it."""
        job = self._jobs.jobs.get(attempt)
        if job is None or job.receipt is None:
            return
        kept = Kept(settlement=settlement.raw, lease=job.envelope.raw, receipt=job.receipt.raw)
        try:
            self._keeping.keep(kept)
        except OSError as error:
            log.warning("a settlement could not be kept: %s", error)

    async def lost(self) -> None:
        """Work goes on; what it brings is handed over on return."""
        self._whereabouts.lost()
        self._tell_news(News("lost"))

    async def limit(self, limits: Limits) -> None:
        """Go by other limits from now on. What was accepted is made all the same."""
        self._jobs.limits = limits
        if self._is_announced:
            await self._say_offers()

    async def _announce(self) -> None:
        assert self._certificate is not None  # noqa: S101 (made before the connection)
        assert self._server is not None  # noqa: S101
        await self._flush_outbox()  # receipts first: a job whose result is whole here is not to be leased anew
        addresses = await self._whereabouts.say()
        await self._say_offers()
        self._tell_news(News("joined", f"account {self.connection.account}, reached at {', '.join(addresses)}"))
        if self._relaying is not None:
            offer = self._relaying.offer(self._server.port, self._certificate.digest)
            await self.connection.say(offer)

    async def _say_offers(self) -> None:
        limits, rules = self._jobs.limits, self.connection.rules
        offers = tuple(one for one in _distinct(self._jobs.offers) if self._models.may(one, rules))
        announce = limits.announce(offers, slots=max(1, self._jobs.slots), ahead=self._settings.ahead)
        self._is_announced = await self.connection.say(announce) is not None

    def _reoffer(self, engine: int, text: str) -> None:
        """What this engine serves has changed: first of all, no more of what it does not serve any more."""
        offers = tuple(self._engines[engine].offers)
        self._reoffered.set()
        self._tell_news(News("offers", ", ".join(offer.model for offer in offers) or f"none for now: {text}"))
        self._carry_out(self._jobs.reoffered(engine, offers, "what this worker's engine works with does not answer"))

    async def _announce_anew(self) -> None:
        """Say at once what is served now, but not more often than the clock ticks."""
        while True:
            await self._reoffered.wait()
            self._reoffered.clear()
            if self._is_announced:
                await self._say_offers()
            await asyncio.sleep(TICK_SECONDS)

    # Effects

    def _carry_out(self, effects: Sequence[Effect]) -> None:
        waiting = deque(effects)
        while waiting:
            match waiting.popleft():
                case Tell(progress):
                    attempt = Attempt(progress.job, progress.attempt)
                    self._tell_news(News(progress.state, progress.text or self._asker(attempt), attempt))
                    self._post(progress)
                case Hand(receipt):
                    self._post(receipt)
                case Prepare(attempt):
                    waiting.extendleft(reversed(self._prepare(attempt)))
                case Start(attempt, engine):
                    self._start(attempt, engine)
                case Stop(attempt):
                    self._runs[attempt].stop.set()
                case Discard(attempt, code, text):
                    self._discard(attempt, code, text)

    def _asker(self, attempt: Attempt) -> str:
        """Who asked, as far as it is known, when an attempt begins."""
        job = self._jobs.jobs.get(attempt)
        return shown_asker(job.lease.asker) if job is not None and job.state is State.ACCEPTED else ""

    def _prepare(self, attempt: Attempt) -> list[Effect]:
        job = self._jobs.jobs[attempt]
        try:
            self._outputs[attempt] = Output(Spool.create(self._spools, job.envelope, job.prefix))
        except OSError as error:
            return self._jobs.failed(attempt, "failed", f"the worker cannot write its spool: {error.strerror}")
        return []

    def _start(self, attempt: Attempt, engine: int) -> None:
        if self._is_ending or attempt not in self._outputs:
            self._jobs.engine_free(engine)
            return
        assert self._group is not None  # noqa: S101 (streams are served within its life only)
        stop = asyncio.Event()
        # Of the engine as it is now: what it offers can change while it makes this.
        engine_class = _offer_for(self._jobs.jobs[attempt], self._jobs.offers[engine]).engine
        task = self._group.create_task(self._make(attempt, engine, engine_class, stop))
        self._runs[attempt] = _Run(task, stop, engine)
        task.add_done_callback(lambda _: self._run_ended(attempt))
        self._tell_news(News("started", attempt=attempt))

    def _run_ended(self, attempt: Attempt) -> None:
        """A run is over, however that came out; also if it had not begun."""
        run = self._runs.pop(attempt)
        if run.spool_to_remove is not None:
            run.spool_to_remove.remove()
        self._free_engine(run)

    def _free_engine(self, run: _Run) -> None:
        """The engine has done its part: the next job need not wait until the disk has done its own."""
        engine, run.engine = run.engine, None
        if engine is not None and not self._is_ending:
            self._carry_out(self._jobs.engine_free(engine))

    def _discard(self, attempt: Attempt, code: str, text: str) -> None:
        output = self._outputs.pop(attempt, None)
        if output is not None:
            output.fail(code, text)
        run = self._runs.get(attempt)
        if run is not None:
            run.spool_to_remove = output.spool if output is not None else None
            run.task.cancel()  # its spool goes when nobody writes into it any more
        elif output is not None:
            output.spool.remove()
        if code != SETTLED:
            self._tell_news(News("dropped", f"{code}: {text}", attempt))

    def _post(self, item: Progress | Envelope) -> None:
        self._outbox.append(item)
        self._outbox_filled.set()

    async def _send_outbox(self) -> None:
        """One way out for reports and receipts keeps them in order, and puts what falls together into one report.
        What cannot be sent now is said again after the next welcome."""
        while True:
            await self._outbox_filled.wait()
            await self._flush_outbox()

    async def _flush_outbox(self) -> None:
        async with self._sending:
            self._outbox_filled.clear()
            items, self._outbox = self._outbox, []
            for item in batches(items):
                if isinstance(item, Report):
                    await self.connection.say(item)
                else:
                    await self.connection.send_document(item)

    async def _watch_deadlines(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self._carry_out(self._jobs.tick(self.connection.now()))

    def _restore(self, spool: Spool) -> None:
        assert spool.receipt is not None  # noqa: S101 (only whole ones are reopened)
        self._outputs[spool.attempt] = Output(spool)
        self._jobs.restored(spool.lease, spool.receipt)

    def _end_outputs(self) -> None:
        """Tell the readers of what is not whole; what is whole stays on disk for the next start."""
        for output in self._outputs.values():
            if not output.spool.is_whole:
                output.fail("stopping", "the worker is shutting down")
                output.spool.remove()

    def _tell_news(self, news: News) -> None:
        log.debug("%s %s %s", news.kind, news.attempt or "", news.text)
        self._on_news(news)

    # Engines

    async def _make(self, attempt: Attempt, engine: int, engine_class: str, stop: asyncio.Event) -> None:
        job, output = self._jobs.jobs[attempt], self._outputs[attempt]
        try:
            made = Making(job, output, self._key, self.connection, self._progressed)
            done = await made.run(self._engines[engine], stop)
            self._free_engine(self._runs[attempt])
            receipt = await made.sign(done, engine_class, is_stopped=stop.is_set())
        except EngineError as error:
            self._carry_out(self._jobs.failed(attempt, error.code[:40], str(error)))
        except (OSError, SpoolError) as error:
            self._carry_out(self._jobs.failed(attempt, "failed", f"the worker cannot keep the result: {error}"))
        else:
            self._tell_news(News("made", attempt=attempt))
            self._carry_out(self._jobs.finished(attempt, receipt))

    def _progressed(self, attempt: Attempt, done: int, total: int) -> None:
        self._jobs.progressed(attempt, done)
        self._tell_news(News("progress", attempt=attempt, done=done, total=total))


def _offer_for(job: Job, offers: Sequence[Offer]) -> Offer:
    kind = kind_of(job.lease.public.work)
    return next(offer for offer in offers if (offer.kind, offer.model) == (kind, job.lease.model))


def _distinct(offers: Sequence[Sequence[Offer]]) -> Iterator[Offer]:
    """Every offer once, though several engines may serve the same model."""
    seen: set[Offer] = set()
    for offer in (offer for mine in offers for offer in mine):
        if offer not in seen:
            seen.add(offer)
            yield offer
