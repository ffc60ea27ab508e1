"""Peers that are as light as peers can be that sign and check everything: the load, without the direct stream.

A worker's receipt names the digest of a constant, and reaches the requester within this process or over a socket to
the other one; all else is as real peers do it. A document that came before byte for byte is not checked again.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from protocol import codec
from protocol.digests import new_salt, private_digest
from protocol.documents import Acknowledgement, Lease, PeerRecord, Receipt, Request, Serving, Settlement, sign
from protocol.envelope import (
    Envelope,
    Inbound,
    Outbound,
    check_delegation,
    check_document_context,
    decode_challenge,
    parse,
)
from protocol.keys import SigningKey
from protocol.links import Link
from protocol.messages import (
    FROM_TRACKER,
    Announce,
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
)
from protocol.work import ImagePrivate, ImageWork, PublicPart

ENGINE = "bench 1"
DIGEST = hashlib.sha256(b"a constant").digest()
VALID_MS = 30 * 60 * 1000
#: A report has at most so many entries.
REPORT = 256

Name = tuple[bytes, int]


class Broken(Exception):
    """Somebody broke the standard, so that nothing that is measured would mean anything."""


def now_ms() -> int:
    """The real time: a real tracker listens."""
    return time.time_ns() // 1_000_000


@dataclass
class Seen:
    """What all peers of this process have seen. samples: the bytes of one message of each kind."""

    sent: Counter[str] = field(default_factory=Counter)
    heard: Counter[str] = field(default_factory=Counter)
    samples: dict[str, bytes] = field(default_factory=dict)
    settled: int = 0
    minted: int = 0
    requeued: int = 0
    to_lease_ms: list[float] = field(default_factory=list)
    documents: set[bytes] = field(default_factory=set)  # that were checked and come again
    fault: str = ""

    def check(self) -> None:
        """Raise if anything went wrong."""
        if self.fault:
            raise Broken(self.fault)


class Line:
    """One connection of one key."""

    def __init__(self, link: Link, key: SigningKey, seen: Seen) -> None:
        self.key = key
        self.root = link.root
        self.seen = seen
        self._url = f"{link.url}/peer"
        self._inbound = Inbound(link.root, secrets.token_bytes(16))
        self._outbound = Outbound(link.root, bytes(16), key)
        self._serving = b""
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._outbox: deque[bytes] = deque()
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._awaited: dict[str, asyncio.Future[Envelope]] = {}

    async def open(self, session: aiohttp.ClientSession) -> None:
        """Connect, say hello, say that nothing is held, hear the same."""
        socket = self._socket = await session.ws_connect(self._url, max_msg_size=512 * 1024)
        challenge = decode_challenge(await socket.receive_bytes())
        delegation = parse(challenge.delegation)
        check_delegation(delegation, self.root)
        self._serving = delegation.open(Serving).serving
        self._outbound = Outbound(self.root, challenge.session, self.key)
        self.say(Hello(session=self._inbound.session_id, software="bench"))
        self.say(Holding(entries=(), last=True))
        held = self.awaited("holding")
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._write())]
        await held

    async def close(self) -> None:
        """Hang up."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._socket is not None:
            await self._socket.close()

    def say(self, message: SessionMessage) -> Envelope:
        """The next message of our session."""
        envelope = self._outbound.seal(message.KIND, codec.encode(message))
        self.send(envelope)
        return envelope

    def send(self, envelope: Envelope) -> None:
        """Something signed."""
        self.seen.sent[envelope.kind] += 1
        self.seen.samples.setdefault(f"sent {envelope.kind}", envelope.raw)
        self._outbox.append(envelope.raw)
        self._wake.set()

    def awaited(self, kind: str) -> asyncio.Future[Envelope]:
        """The next thing of this kind; ask before saying what brings it about."""
        return self._awaited.setdefault(kind, asyncio.get_running_loop().create_future())

    async def register(self) -> None:
        """Be an account."""
        answer = self.awaited("account")
        self.say(Register())
        await answer

    async def _write(self) -> None:
        assert self._socket is not None
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._outbox:
                await self._socket.send_bytes(self._outbox.popleft())

    async def _read(self) -> None:
        assert self._socket is not None
        try:
            async for message in self._socket:
                self._hear(message.data)
        except Exception as error:
            self.seen.fault = self.seen.fault or f"{type(error).__name__}: {error}"
            raise
        finally:
            for future in self._awaited.values():
                future.cancel()

    def _hear(self, raw: bytes) -> None:
        envelope = parse(raw)
        if envelope.is_document:
            self._check_document(envelope)
        else:
            self._inbound.check(envelope, self._serving)
        self.seen.heard[envelope.kind] += 1
        self.seen.samples.setdefault(f"heard {envelope.kind}", raw)
        if envelope.kind == "refused":
            refused = envelope.open(Refused)
            self.seen.fault = self.seen.fault or f"refused: {refused.code}: {refused.text}"
        self.take(envelope)
        future = self._awaited.pop(envelope.kind, None)
        if future is not None and not future.done():
            future.set_result(envelope)

    def _check_document(self, envelope: Envelope) -> None:
        check_document_context(envelope, self.root)
        if envelope.kind == "peer_record":
            if envelope.raw not in self.seen.documents:
                envelope.verify()
                self.seen.documents.add(envelope.raw)
            return
        if envelope.key != self._serving:
            raise Broken(f"a {envelope.kind} by another key than the tracker's")
        envelope.verify()

    def take(self, envelope: Envelope) -> None:
        """What came, checked. Session messages that nobody looks at are decoded all the same."""
        kind = FROM_TRACKER.get(envelope.kind)
        if kind is not None:
            envelope.open(kind)


class Office:
    """Where receipts and leases of one attempt meet: what the direct stream would have brought.

    mark: of this process; a job's steps, even or odd, say in which one its requester is. send_away: to the other.
    """

    def __init__(self, mark: int) -> None:
        self.mark = mark
        self.send_away: Callable[[bytes, int, bytes], None] = lambda *_: None
        self._receipts: dict[Name, bytes] = {}
        self._leases: dict[Name, tuple[Requester, Lease]] = {}

    def steps(self) -> int:
        """The steps of all jobs that are asked for here."""
        return 30 - self.mark

    def give(self, lease: Lease, receipt: bytes) -> None:
        """From a worker of this process."""
        assert isinstance(lease.public.work, ImageWork)
        if lease.public.work.steps % 2 == self.mark:
            self.arrive(lease.job, lease.attempt, receipt)
        else:
            self.send_away(lease.job, lease.attempt, receipt)

    def arrive(self, job: bytes, attempt: int, receipt: bytes) -> None:
        """A receipt for a requester of this process."""
        waiting = self._leases.pop((job, attempt), None)
        if waiting is None:
            self._receipts[job, attempt] = receipt
        else:
            waiting[0].acknowledge(waiting[1], receipt)

    def await_receipt(self, requester: Requester, lease: Lease) -> None:
        """A requester of this process has got a lease."""
        receipt = self._receipts.pop((lease.job, lease.attempt), None)
        if receipt is None:
            self._leases[lease.job, lease.attempt] = (requester, lease)
        else:
            requester.acknowledge(lease, receipt)


class Worker(Line):
    """Delivers each lease as soon as it comes."""

    def __init__(self, link: Link, key: SigningKey, seen: Seen, office: Office) -> None:
        super().__init__(link, key, seen)
        self._office = office
        self._leases: list[Lease] = []

    async def join(self) -> None:
        """Register, and say where we would be reached."""
        await self.register()
        record = PeerRecord(version=now_ms(), certificate=DIGEST, addresses=("127.0.0.1:9",))
        self.send(sign(record, self.key, self.root))

    def serve(self, models: list[str], slots: int) -> None:
        """From now on serve these models, and no others."""
        offers = tuple(
            Offer(kind="image", model=model, engine=ENGINE, max_pixels=256 * 256, max_steps=100) for model in models
        )
        self.say(Announce(offers=offers, slots=slots, ahead=0))

    def take(self, envelope: Envelope) -> None:
        match envelope.kind:
            case "lease":
                lease = envelope.open(Lease)
                if lease.worker != self.key.public:
                    raise Broken("a lease for another worker")
                if not self._leases:
                    asyncio.get_running_loop().call_soon(self._deliver)
                self._leases.append(lease)
            case "settlement":
                envelope.open(Settlement)
            case _:
                super().take(envelope)

    def _deliver(self) -> None:
        """All leases that came together: one report, then the receipts."""
        leases, self._leases = self._leases, []
        for at in range(0, len(leases), REPORT):
            part = leases[at : at + REPORT]
            opened = tuple(Progress(job=lease.job, attempt=lease.attempt, state="opened") for lease in part)
            self.say(Report(leases=opened))
        for lease in leases:
            assert isinstance(lease.public.work, ImageWork)
            receipt = Receipt(
                job=lease.job,
                attempt=lease.attempt,
                output_digest=DIGEST,
                used=lease.public.work.steps,
                engine=ENGINE,
                finished=now_ms(),
            )
            envelope = sign(receipt, self.key, self.root)
            self.send(envelope)
            self._office.give(lease, envelope.raw)


@dataclass(slots=True)
class Asked:
    """A request under way. sent: when, by the clock of this process."""

    job_key: SigningKey
    sent: float


@dataclass(frozen=True)
class Wish:
    """What jobs ask for. models: none means any."""

    models: tuple[str, ...]
    side: int = 64


class Requester(Line):
    """Asks, and acknowledges what it gets. refill: what it asks for whenever a job is settled."""

    def __init__(self, link: Link, key: SigningKey, seen: Seen, office: Office) -> None:
        super().__init__(link, key, seen)
        self.refill: Wish | None = None
        self.jobs: dict[bytes, Asked] = {}
        self.unanswered: dict[bytes, Asked] = {}
        self.changed = asyncio.Event()
        self._office = office

    def ask(self, wish: Wish, n: int = 1) -> None:
        """Send a request."""
        started = time.perf_counter()
        job_key = SigningKey.generate()
        private = codec.encode(ImagePrivate(prompt="a small red circle on blue", salt=new_salt()))
        self.say(Private(private=private))
        request = Request(
            nonce=secrets.token_bytes(16),
            valid_until=now_ms() + VALID_MS,
            public=PublicPart(
                work=ImageWork(width=wish.side, height=wish.side, steps=self._office.steps()), models=wish.models, n=n
            ),
            private_digest=private_digest(private),
            job_key=job_key.public,
        )
        envelope = sign(request, self.key, self.root)
        self.unanswered[envelope.digest] = Asked(job_key, started)
        self.send(envelope)

    def take(self, envelope: Envelope) -> None:
        match envelope.kind:
            case "queued":
                queued = envelope.open(Queued)
                asked = self.unanswered.pop(queued.request)
                for handle in queued.jobs:
                    self.jobs[handle] = asked
                self.changed.set()
            case "lease":
                lease = envelope.open(Lease)
                asked = self.jobs[lease.job]
                if lease.job_key != asked.job_key.public:
                    raise Broken("a lease for another job key")
                self.seen.to_lease_ms.append((time.perf_counter() - asked.sent) * 1000)
                self._office.await_receipt(self, lease)
            case "settlement":
                self._settled(envelope.open(Settlement))
            case "peer_record":
                envelope.open(PeerRecord)
            case "requeued":
                self.seen.requeued += 1
            case _:
                super().take(envelope)

    def acknowledge(self, lease: Lease, raw: bytes) -> None:
        """Check a receipt against its lease, and say so."""
        envelope = parse(raw)
        check_document_context(envelope, self.root)
        envelope.verify()
        receipt = envelope.open(Receipt)
        if envelope.key != lease.worker or (receipt.job, receipt.attempt) != (lease.job, lease.attempt):
            raise Broken("a receipt that is not this lease's")
        if receipt.output_digest != DIGEST:
            raise Broken("a receipt for something else")
        said = Acknowledgement(job=lease.job, attempt=lease.attempt, output_digest=DIGEST, receipt=raw)
        self.send(sign(said, self.jobs[lease.job].job_key, self.root))

    def _settled(self, settlement: Settlement) -> None:
        del self.jobs[settlement.job]
        self.seen.settled += 1
        self.seen.minted += settlement.minted
        self.changed.set()
        if self.refill is not None:
            self.ask(self.refill)


def counts(seen: Seen) -> dict[str, Any]:
    """What was seen so far, as it travels to whoever asks; raises `Broken` if anything went wrong."""
    seen.check()
    return {
        "settled": seen.settled,
        "minted": seen.minted,
        "requeued": seen.requeued,
        "sent": dict(seen.sent),
        "heard": dict(seen.heard),
    }
