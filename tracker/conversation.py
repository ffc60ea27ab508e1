"""One peer's connection: the session's effects carried out, each message handed to the coordinator's business.

Messages are taken up in the order in which they come, each in a task of its own, so that many steps of one peer can
share a commit; the store carries steps out in the order in which they were asked for.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Protocol

from protocol.digests import private_digest
from protocol.documents import (
    Acknowledgement,
    Cancel,
    Denial,
    Document,
    PeerRecord,
    Receipt,
    Request,
)
from protocol.envelope import Envelope
from protocol.errors import Busy, Internal, OutOfTurn, PrivatePartMismatch, PrivatePartMissing, Refusal
from protocol.filter.verdict import Verdict
from protocol.governing import Act, Answer, Appeal, Proposal, Vote
from protocol.keys import show_key
from protocol.messages import (
    MAX_HOLDING_ENTRIES,
    Announce,
    AskAccount,
    AskActs,
    AskAppeals,
    AskDelegations,
    AskPaths,
    AskQuote,
    AskWhy,
    Hello,
    Holding,
    Kept,
    OfferRelay,
    Private,
    Register,
    Report,
    SessionMessage,
    Unreachable,
    Welcome,
)
from protocol.work import ImagePrivate, ImageWork, Kind, PrivatePart, PublicPart, kind_of, read_private
from tracker.accounts import NOBODY
from tracker.forwarded import IPAddress
from tracker.session import Effect, Greeted, HangUp, Heard, Presented, Reconciled, Send, Session, State
from tracker.store.base import StoreError, StoreFull

if TYPE_CHECKING:
    from tracker.coordinator import Coordinator

log = logging.getLogger(__name__)

#: Messages of one peer that are being carried out at once; beyond that its socket is not read.
MAX_AT_ONCE = 128
#: From this size on a private part is filtered in a thread, so that nobody has to wait for it.
LARGE_BYTES = 16 * 1024
#: Private parts that may wait for their request.
MAX_VISITS = 64

#: One for all: an empty set is larger than one would think.
NOTHING: frozenset[tuple[bytes, int]] = frozenset()


class Outlet(Protocol):
    """The socket, as far as a conversation needs it."""

    def send(self, raw: bytes) -> None:
        """Queue bytes for the peer."""

    def close(self, reason: str) -> None:
        """Send what is queued, then hang up."""


class Visit:
    """What stays of a private part after its visit: the filter's verdict, and what the public part must agree with."""

    def __init__(self, private: PrivatePart, verdict: Verdict) -> None:
        self.verdict = verdict
        self.kind: Kind = "image" if isinstance(private, ImagePrivate) else "text"
        self.guided = isinstance(private, ImagePrivate) and private.guidance > 1000

    def check(self, public: PublicPart) -> None:
        """Refuse a public part that does not agree with this, as far as the tracker can know."""
        kind = kind_of(public.work)
        if self.kind != kind:
            raise PrivatePartMismatch(f"the private part is of kind {self.kind}, the public part of kind {kind}")
        if isinstance(public.work, ImageWork) and self.guided != (public.work.guidance_passes == 2):
            raise PrivatePartMismatch("guidance above 1000 takes 2 guidance passes, else 1")


class Conversation:
    """The tracker's end of one connection, and what it knows of the peer at the other."""

    __slots__ = (
        "__weakref__",
        "_outlet",
        "_room",
        "_session",
        "_tasks",
        "account",
        "acting",
        "address",
        "announced",
        "block",
        "coordinator",
        "has_moved",
        "held",
        "is_closed",
        "is_registering",
        "record",
        "requests",
        "visits",
    )

    def __init__(self, coordinator: Coordinator, outlet: Outlet, block: str, address: IPAddress | None = None) -> None:
        self.coordinator = coordinator
        self.block = block  # of addresses; it goes no further than `Blocks` makes a hash of it
        self.address = address  # to be tested, if this peer wants to be reached there
        self.account = 0
        self.acting = NOBODY
        self.requests: set[bytes] = set()
        self.is_registering = False
        self.held = NOTHING  # attempts, by lease or receipt
        self.record: PeerRecord | None = None
        self.announced: Announce | None = None
        self.has_moved = False  # requesters have yet to hear where it is now
        self.visits: dict[bytes, asyncio.Future[Visit]] = {}
        self._outlet = outlet
        self._session = Session(
            coordinator.root, coordinator.key, coordinator.delegation, secrets.token_bytes(16), coordinator.checked
        )
        self._tasks: dict[asyncio.Task[None], None] = {}  # a third of an empty set
        self._room: asyncio.Event | None = None  # while there is none for one more
        self.is_closed = False

    @property
    def key(self) -> bytes:
        """The peer's key. Only after hello."""
        if self._session.peer is None:
            raise OutOfTurn("the peer has not said who it is")
        return self._session.peer

    @property
    def is_open(self) -> bool:
        """Whether hello is done."""
        return self._session.peer is not None

    @property
    def who(self) -> str:
        """The peer in a log line."""
        return show_key(self._session.peer)[:8] if self._session.peer else "unknown"

    def start(self) -> None:
        """Send the challenge."""
        self._outlet.send(self._session.challenge(self.coordinator.clock(), self.coordinator.shown))

    async def finish(self) -> None:
        """Wait for what is being carried out."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def closed(self) -> None:
        """The socket is gone."""
        if not self.is_closed:
            self.is_closed = True
            self.coordinator.leave(self)

    def hang_up(self, refusal: Refusal) -> None:
        """End this connection, saying why."""
        self._carry_out_now(self._session.refuse(refusal, final=True))

    def tell(self, *messages: SessionMessage) -> None:
        """Say something to the peer."""
        if not self.is_closed and self._session.state is not State.CLOSED:
            for message in messages:
                self._outlet.send(self._session.say(message))

    def hand(self, *envelopes: bytes) -> None:
        """Give documents to the peer."""
        if not self.is_closed and self._session.state is not State.CLOSED:
            for raw in envelopes:
                self._outlet.send(raw)

    async def judge_again(self) -> None:
        """Take what this worker has announced by the rules as they are now."""
        if self.announced is not None and not self.is_closed:
            await self._guarded(self.coordinator.announce(self, self.announced), b"")

    def unfollow(self, request: bytes) -> None:
        """A request that this peer follows has ended."""
        self.requests.discard(request)

    async def receive(self, raw: bytes) -> None:
        """Take up one message. Returns when the next may come; never raises for what a peer sends."""
        for effect in self._session.receive(raw):
            match effect:
                case Greeted(hello):
                    await self._guarded(self._welcome(hello), b"")
                case Reconciled(held):
                    await self._guarded(self.coordinator.holdings.reconcile(self, held), b"")
                case Heard(message, digest):
                    await self._begin(self._hear(message), digest)
                case Presented(envelope, document):
                    await self._begin(self._take(envelope, document), envelope.digest)
                case _:
                    self._carry_out_now([effect])

    def _carry_out_now(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                self._outlet.send(effect.raw)
            elif isinstance(effect, HangUp):
                log.info("hangs up on %s: %s", self.who, effect.reason)
                self._outlet.close(effect.reason)

    async def _begin(self, work: Coroutine[Any, Any, None], about: bytes) -> None:
        while len(self._tasks) >= MAX_AT_ONCE:
            self._room = asyncio.Event()
            await self._room.wait()
        task = asyncio.create_task(self._guarded(work, about))
        self._tasks[task] = None
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        if self._room is not None:
            self._room.set()
            self._room = None

    async def _guarded(self, work: Coroutine[Any, Any, None], about: bytes) -> None:
        """What goes wrong with one message is told to its sender and touches nobody else."""
        try:
            await work
        except Refusal as refusal:
            log.debug("refuses %s: %s (%s)", self.who, refusal.code, refusal.text)
            self._carry_out_now(self._session.refuse(refusal, about))
        except StoreFull as error:
            log.error("%s", error)  # noqa: TRY400 (the text says it all)
            self._carry_out_now(self._session.refuse(Busy("the horde has no room to store this: try later"), about))
        except StoreError as error:
            log.error("%s", error)  # noqa: TRY400
            self._carry_out_now(self._session.refuse(Busy("the horde cannot store this now: try later"), about))
        except Exception:  # the edge: a fault of ours must not end other conversations
            reference = secrets.token_hex(4)
            log.exception("fault %s while answering %s", reference, self.who)
            fault = Internal(f"a fault of the tracker, number {reference} in its log: tell its operator")
            self._carry_out_now(self._session.refuse(fault, about))

    async def _welcome(self, hello: Hello) -> None:
        coordinator = self.coordinator
        await coordinator.registry.greet(self)
        rules = coordinator.rules
        self.tell(
            Welcome(clock=coordinator.clock(), rules=rules.digest, rules_version=rules.version, account=self.account)
        )
        if hello.rules != rules.digest:
            self.hand(rules.document)
        await coordinator.moderation.greet(self)
        held = await coordinator.holdings.of(self)
        if not self.is_closed:  # before the last holding, so that who stays but shortly has it too
            coordinator.witnesses.greet(self, coordinator.clock())
        for at in range(0, len(held) or 1, MAX_HOLDING_ENTRIES):
            part = tuple(held[at : at + MAX_HOLDING_ENTRIES])
            self.tell(Holding(entries=part, last=at + MAX_HOLDING_ENTRIES >= len(held)))
        log.info("%s is here (%s)", self.who, hello.software)

    async def _hear(self, message: SessionMessage) -> None:
        coordinator = self.coordinator
        match message:
            case Private():
                await self._visit(message.private)
            case Report():
                await coordinator.report(self, message)
            case Announce():
                await coordinator.announce(self, message)
            case Register():
                if not self.account:  # who has one is told it again, from wherever
                    coordinator.moderation.check_network(self)
                await coordinator.registry.register(self, message)
            case Unreachable():
                await coordinator.unreachable(self, message)
            case AskPaths():
                await coordinator.ways.ask(self, message)
            case OfferRelay():
                await coordinator.ways.offer(self, message)
            case Kept():
                await coordinator.recover(self, message)
            case AskAccount():
                await coordinator.registry.tell_account(self, message.worker)
            case AskDelegations():
                await coordinator.registry.tell_delegations(self)
            case AskWhy():
                coordinator.tell_why(self, message)
            case AskQuote():
                await coordinator.quote(self, message)
            case AskActs():
                await coordinator.registry.await_account(self)
                await coordinator.moderation.tell_acts(self)
            case AskAppeals():
                await coordinator.moderation.tell_appeals(self)

    async def _visit(self, raw: bytes) -> None:
        """The one visit of a private part: filtered in memory, and only the verdict stays.

        Its request may be taken up while a large one is still looked at, so that its place is there at once.
        """
        private = read_private(raw)
        coordinator = self.coordinator
        rules = coordinator.rules.rules.filter
        while len(self.visits) >= MAX_VISITS:
            del self.visits[next(iter(self.visits))]
        place = self.visits[private_digest(raw)] = asyncio.get_running_loop().create_future()
        try:
            if len(raw) < LARGE_BYTES:
                verdict = coordinator.content_filter.look(private, rules)
            else:
                verdict = await asyncio.to_thread(coordinator.content_filter.look, private, rules)
        except BaseException:
            place.set_exception(PrivatePartMissing("the private part could not be looked at: send it again"))
            place.exception()  # whoever waits hears of it; nobody needs to
            raise
        place.set_result(Visit(private, verdict))

    async def _take(self, envelope: Envelope, document: Document) -> None:
        coordinator = self.coordinator
        match document:
            case Request():
                await coordinator.request(self, envelope, document)
            case Receipt():
                await coordinator.receipt(self, envelope, document)
            case Acknowledgement() | Denial():
                await coordinator.answer(self, envelope, document)
            case Cancel():
                await coordinator.cancel(self, envelope, document)
            case PeerRecord():
                coordinator.peer_record(self, envelope, document)
            case Act() | Appeal():
                await coordinator.moderation.take(self, envelope, document)
            case Proposal() | Vote() | Answer():
                await coordinator.registry.await_account(self)
                await coordinator.votes.take(self, envelope, document, coordinator.clock())
            case _:
                await coordinator.registry.take(self, envelope, document)
