"""A tracker without sockets, and scripted peers that speak with it through `protocol` alone.

The store is the real one, the clock is the test's, and whatever is waited for is a condition.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from protocol import codec
from protocol.documents import (
    Acknowledgement,
    Document,
    Lease,
    PeerRecord,
    Receipt,
    Request,
    open_document,
    sign,
)
from protocol.envelope import Envelope, Inbound, Outbound, decode_challenge, parse
from protocol.keys import SigningKey
from protocol.kinds import DOCUMENTS
from protocol.messages import (
    FROM_TRACKER,
    Account,
    Announce,
    Held,
    Hello,
    Holding,
    Offer,
    Private,
    Progress,
    Queued,
    Refused,
    Register,
    Report,
    SessionMessage,
    Taken,
    Welcome,
)
from protocol.rules import Rules
from protocol.work import PrivatePart, PublicPart
from tests.support.builders import (
    HOUR,
    IMAGE_MODEL,
    NOW,
    ROOT,
    SECOND,
    SERVING,
    TEXT_MODEL,
    a_cancel,
    a_delegation,
    a_denial,
    a_key,
    a_peer_record,
    a_private_part,
    a_public_part,
    a_receipt,
    a_request,
    an_acknowledgement,
    but,
    some_bytes,
)
from tests.support.rules import plain
from tracker.content_filter import ContentFilter
from tracker.conversation import Conversation
from tracker.coordinator import Coordinator
from tracker.store.base import Store
from tracker.store.sqlite import SqliteStore

T = TypeVar("T", bound=SessionMessage | Document)

AN_OFFER = Offer(kind="image", model=IMAGE_MODEL, engine="dry-run", max_pixels=1024 * 1024, max_steps=100)
A_TEXT_OFFER = Offer(kind="text", model=TEXT_MODEL, engine="dry-run", max_tokens=512, max_context=8192)


@dataclass
class FakeClock:
    """A time that passes when the test says so."""

    now: int = NOW

    def __call__(self) -> int:
        return self.now


class Desk:
    """A tracker in memory over a real store, and the peers that are connected with it."""

    def __init__(self, store: Store, coordinator: Coordinator, clock: FakeClock, path: Path) -> None:
        self.store = store
        self.coordinator = coordinator
        self.clock = clock
        self.path = path
        self.conversations: list[Conversation] = []

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        path: Path,
        rules: Rules | None = None,
        *,
        clock: FakeClock | None = None,
        content_filter: ContentFilter | None = None,
        seed: int = 1,
        wrap: Callable[[SqliteStore], Store] = lambda store: store,
    ) -> AsyncIterator[Desk]:
        """Start a tracker on the horde in `path`, which is made if it is not there."""
        clock = clock or FakeClock()
        if not path.exists():
            SqliteStore.create(path, a_delegation(), plain(rules), SERVING, clock.now)
        async with SqliteStore.open(path, SERVING) as sqlite:
            store = wrap(sqlite)
            async with Coordinator.start(
                store,
                root=ROOT.public,
                key=SERVING,
                delegation=a_delegation().raw,
                clock=clock,
                chance=random.Random(seed),
                content_filter=content_filter,
            ) as coordinator:
                yield cls(store, coordinator, clock, path)

    async def quiet(self) -> None:
        """Wait until nothing is being carried out."""
        while tasks := [
            task
            for tasks in (self.coordinator._jobs._tasks, *(each._tasks for each in self.conversations))
            for task in tasks
        ]:
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(0)

    async def later(self, seconds: float) -> None:
        """Let time pass, and what is due then be carried out."""
        self.clock.now += round(seconds * SECOND)
        await self.coordinator.tick(self.clock.now)
        await self.quiet()

    async def peer(self, number: int, **more: Any) -> Peer:
        """The peer of that number, connected."""
        peer = Peer(self, a_key(2_000 + number), **more)
        await peer.connect()
        return peer

    async def worker(self, number: int = 0, *offers: Offer, **announce: Any) -> Peer:
        """The worker of that number, with an account, ready to serve."""
        worker = await self.peer(number)
        await worker.serve(*offers, **announce)
        return worker

    async def requester(self, number: int = 100, *, account: bool = False) -> Peer:
        """The requester of that number."""
        requester = await self.peer(number)
        if account:
            await requester.register()
        return requester

    async def rich(self, number: int = 100, jobs: int = 8) -> Peer:
        """A requester that has earned by serving so many free pictures of 64x64."""
        peer = await self.worker(number)
        asker = await self.requester(5_000 + number)
        for _ in range(jobs):
            await asker.ask()
            lease = await peer.hear(Lease)
            await asker.hear(Lease)
            await peer.deliver(lease)
            await asker.acknowledge(peer.receipts[lease.job, lease.attempt])
        await self.quiet()
        asker.hang_up()
        await peer.say(Announce(offers=()))
        await self.quiet()
        peer.forget()
        return peer


@dataclass
class Line:
    """The tracker's end of a connection: what it says is heard at once by the peer."""

    hear: Callable[[bytes], None]
    closed: str | None = None
    is_cut: bool = False

    def send(self, raw: bytes) -> None:
        assert self.closed is None, "nothing is sent after the end"
        if not self.is_cut:
            self.hear(raw)

    def close(self, reason: str) -> None:
        self.closed = reason


@dataclass
class Asked:
    """One request of a peer. envelope: as sent; private: its private part's bytes."""

    request: Request
    envelope: Envelope
    private: bytes
    key: SigningKey


@dataclass
class Peer:
    """A peer that does what the test says. Everything that it hears is checked as the standard wants it."""

    desk: Desk
    key: SigningKey
    block: str = "203.0.113.0/24"
    inbox: list[SessionMessage | Document] = field(default_factory=list)
    heard: list[SessionMessage | Document] = field(default_factory=list)
    envelopes: dict[bytes, Envelope] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    receipts: dict[tuple[bytes, int], Envelope] = field(default_factory=dict)
    account: int = 0
    sessions: int = 0
    records: int = 0
    cancels: int = 0

    @property
    def origin(self) -> str:
        """What stands for its address block today."""
        return self.desk.coordinator._blocks.origin(self.block, self.desk.clock.now)

    # The connection

    async def connect(self, *held: Held) -> Welcome:
        """Connect, say hello, and list what is held."""
        welcome = await self.greet()
        await self.hold(*held)
        return welcome

    async def greet(self, rules: bytes = b"") -> Welcome:
        """Connect and say hello; the tracker's own `holding` is heard. rules: digest of those that the peer has."""
        self.sessions += 1
        session = some_bytes(16, f"session {self.key} {self.sessions}")
        self._arrived = asyncio.Event()
        self._challenge = b""
        self._inbound = Inbound(ROOT.public, session)
        self.line = Line(self._hear)
        self.conversation = self.desk.coordinator.open(self.line, self.block)
        self.desk.conversations.append(self.conversation)
        self.conversation.start()
        challenge = decode_challenge(self._challenge)
        self._outbound = Outbound(ROOT.public, challenge.session, self.key)
        await self.say(Hello(session=session, software="scripted 1", rules=rules))
        welcome = await self.hear(Welcome)
        self.tracker_holds = await self._hear_holding()
        return welcome

    async def _hear_holding(self) -> list[Held]:
        entries: list[Held] = []
        while True:
            part = await self.hear(Holding)
            entries += part.entries
            if part.last:
                return entries

    async def hold(self, *held: Held) -> None:
        """List what is held, in parts if need be."""
        for at in range(0, len(held) or 1, 256):
            await self.say(Holding(entries=tuple(held[at : at + 256]), last=at + 256 >= len(held)))

    def hang_up(self) -> None:
        """The connection is cut."""
        self.line.is_cut = True
        self.conversation.closed()

    async def move_to(self, desk: Desk, *held: Held) -> None:
        """Connect with the tracker as it has been started anew."""
        self.desk = desk
        self.forget()
        await self.connect(*held)

    async def come_back(self, *held: Held) -> None:
        """Be cut off, and connect again."""
        self.hang_up()
        self.forget()
        await self.connect(*held)

    # Saying and hearing

    async def say(self, message: SessionMessage) -> None:
        """Say something to the tracker."""
        await self.conversation.receive(self._outbound.seal(message.KIND, codec.encode(message)).raw)

    async def present(self, document: Document, key: SigningKey | None = None) -> Envelope:
        """Sign a document and send it."""
        envelope = sign(document, key or self.key, ROOT.public)
        await self.send(envelope)
        return envelope

    async def send(self, envelope: Envelope) -> None:
        """Send a document's bytes."""
        await self.conversation.receive(envelope.raw)

    def _hear(self, raw: bytes) -> None:
        if not self._challenge:
            self._challenge = raw
            return
        envelope = parse(raw)
        envelope.verify()
        body: SessionMessage | Document
        if envelope.is_document:
            assert envelope.context == ROOT.public
            body = envelope.open(DOCUMENTS[envelope.kind])
        else:
            self._inbound.check(envelope, SERVING.public)
            body = envelope.open(FROM_TRACKER[envelope.kind])
        self.inbox.append(body)
        self.heard.append(body)
        self.envelopes[codec.encode(body)] = envelope
        self._arrived.set()

    async def hear(self, kind: type[T], **wanted: object) -> T:
        """The first message of this kind (and with these values) that has not been heard out yet, when it comes."""
        while (found := self._find(kind, wanted)) is None:
            self._arrived.clear()
            await self._arrived.wait()
        self.inbox.remove(found)
        return found

    def _find(self, kind: type[T], wanted: dict[str, object]) -> T | None:
        for body in self.inbox:
            if isinstance(body, kind) and all(getattr(body, name) == value for name, value in wanted.items()):
                return body
        return None

    async def hears_nothing_of(self, *kinds: type[SessionMessage | Document]) -> None:
        """Assert that none of these has come, once nothing is being carried out any more."""
        await self.desk.quiet()
        assert not [body for body in self.inbox if isinstance(body, kinds)]

    async def refused(self) -> str:
        """The code of the next refusal."""
        return (await self.hear(Refused)).code

    def envelope_of(self, body: SessionMessage | Document) -> Envelope:
        """The envelope in which something came."""
        return self.envelopes[codec.encode(body)]

    def forget(self) -> None:
        """Do not mind what came so far."""
        self.inbox.clear()

    # As a worker

    async def register(self) -> int:
        """Ask for an account."""
        await self.say(Register())
        self.account = (await self.hear(Account)).number
        return self.account

    async def serve(self, *offers: Offer, **announce: Any) -> None:
        """Have an account, show the peer record, and announce."""
        await self.register()
        await self.show_record()
        await self.announce(*offers, **announce)

    async def show_record(self, version: int = 0) -> PeerRecord:
        """Send a peer record of the next version."""
        self.records = version or self.records + 1
        record = a_peer_record(version=self.records, certificate=some_bytes(32, f"certificate {self.records}"))
        await self.present(record)
        return record

    async def announce(self, *offers: Offer, slots: int = 1, ahead: int = 0, **more: Any) -> None:
        """Announce these offers, or the usual one."""
        await self.say(Announce(offers=offers or (AN_OFFER,), slots=slots, ahead=ahead, **more))
        await self.desk.quiet()

    async def report(self, lease: Lease, state: Any, reason: str = "") -> None:
        """Say what became of a lease."""
        await self.say(Report(leases=(Progress(job=lease.job, attempt=lease.attempt, state=state, reason=reason),)))
        await self.desk.quiet()

    def receipt(
        self, lease: Lease, *, used: int | None = None, partial: bool = False, output: bytes | None = None
    ) -> Envelope:
        """Sign a receipt for a lease, and remember it."""
        body = a_receipt(lease, used=used, partial=partial, output=output, finished=self.desk.clock.now)
        self.receipts[lease.job, lease.attempt] = sign(body, self.key, ROOT.public)
        return self.receipts[lease.job, lease.attempt]

    async def deliver(self, lease: Lease, *, used: int | None = None, partial: bool = False) -> Envelope:
        """Accept, be opened, and send the receipt, which the tracker takes."""
        await self.report(lease, "accepted")
        await self.report(lease, "opened")
        receipt = self.receipt(lease, used=used, partial=partial)
        await self.send(receipt)
        await self.hear(Taken, documents=(receipt.digest,))
        return receipt

    def held_lease(self, lease: Lease) -> Held:
        """A lease in a list of what is held."""
        return Held(kind="lease", job=lease.job, attempt=lease.attempt, digest=self.envelope_of(lease).digest)

    def held_receipt(self, lease: Lease) -> Held:
        """A receipt in such a list."""
        digest = self.receipts[lease.job, lease.attempt].digest
        return Held(kind="receipt", job=lease.job, attempt=lease.attempt, digest=digest)

    # As a requester

    def prepare(self, public: PublicPart | None = None, private: PrivatePart | None = None, **fields: object) -> Asked:
        """Make a fresh request, a millisecond after whatever was before."""
        self.desk.clock.now += 1
        public = public or a_public_part()
        private = private or a_private_part(public.work)
        label = f"{self.key} {len(self.asked)}"
        key = SigningKey(some_bytes(32, f"job key {label}"))
        request = a_request(
            public,
            private,
            nonce=some_bytes(16, f"request {label}"),
            job_key=key,
            valid_until=self.desk.clock.now + HOUR // 2,
        )
        request = but(request, **fields)
        asked = Asked(request, sign(request, self.key, ROOT.public), codec.encode(private), key)
        self.asked.append(asked)
        return asked

    async def ask(self, public: PublicPart | None = None, private: PrivatePart | None = None) -> Queued:
        """Send a fresh request in, its private part before it."""
        return await self.send_in(self.prepare(public, private))

    async def send_in(self, asked: Asked) -> Queued:
        """Send a request in, its private part before it; what the tracker answers."""
        await self.say(Private(private=asked.private))
        await self.send(asked.envelope)
        queued = await self.hear(Queued)
        await self.desk.quiet()
        return queued

    def held_request(self, asked: Asked | None = None) -> Held:
        """A request in a list of what is held."""
        asked = asked or self.asked[-1]
        return Held(kind="request", job=asked.request.nonce, digest=asked.envelope.digest)

    async def acknowledge(
        self, receipt: Envelope, *, said: Acknowledgement | None = None, key: SigningKey | None = None
    ) -> Envelope:
        """Acknowledge a receipt with the newest request's job key."""
        envelope = await self.present(said or an_acknowledgement(receipt), key or self.asked[-1].key)
        await self.desk.quiet()
        return envelope

    async def deny(self, lease: Lease, receipt: Envelope | None = None) -> Envelope:
        """Deny an attempt."""
        envelope = await self.present(a_denial(receipt, lease), self.asked[-1].key)
        await self.desk.quiet()
        return envelope

    async def cancel(self, job: bytes | None = None) -> Envelope:
        """Cancel one job, or all of the newest request."""
        self.cancels += 1
        cancel = a_cancel(
            job, some_bytes(16, f"cancel {self.key} {self.cancels}"), valid_until=self.desk.clock.now + HOUR // 2
        )
        envelope = await self.present(cancel, self.asked[-1].key)
        await self.desk.quiet()
        return envelope

    async def balance(self) -> int:
        """What the peer's account can spend."""
        return (await self.desk.store.account(self.account, self.desk.clock.now)).balance


def open_receipt(envelope: Envelope) -> Receipt:
    """The body of a receipt."""
    return open_document(envelope, Receipt)


async def leased(desk: Desk, worker: int = 0, requester: int = 100, *, stage: str = "opened") -> Leased:
    """A worker, a requester, and a lease between them that has come so far."""
    serving, asking = await desk.worker(worker), await desk.requester(requester)
    await asking.ask()
    lease = await serving.hear(Lease)
    assert await asking.hear(Lease) == lease
    for state in {"pushed": (), "accepted": ("accepted",), "opened": ("accepted", "opened")}[stage]:
        await serving.report(lease, state)
    return Leased(serving, asking, lease)


async def delivered(desk: Desk) -> tuple[Peer, Peer, Lease, Envelope]:
    """The same, and the receipt that the worker has delivered."""
    serving, asking, lease = await leased(desk)
    return serving, asking, lease, await serving.deliver(lease)


class Leased(NamedTuple):
    """Who has a lease to do with each other."""

    worker: Peer
    requester: Peer
    lease: Lease


def states(desk: Desk) -> list[str]:
    """Where all jobs stand, in the order in which they were asked for."""
    with closing(sqlite3.connect(desk.path)) as connection:
        return [row[0] for row in connection.execute("SELECT state FROM jobs ORDER BY admitted, number")]
