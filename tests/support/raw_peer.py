"""A peer that says whatever a test wants, over a real socket: the protocol without the peer program.

It keeps the order of a conversation and signs rightly unless told otherwise; what the tracker says waits in `heard`.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import aiohttp

from peer.tracker_tls import tls_of
from protocol import codec
from protocol.digests import private_digest
from protocol.documents import Acknowledgement, Lease, PeerRecord, Receipt, Request, Settlement, sign
from protocol.envelope import Challenge, Envelope, Inbound, Outbound, decode_challenge, parse
from protocol.keys import SigningKey
from protocol.links import Link
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
)
from protocol.work import ImagePrivate, ImageWork, PrivatePart, PublicPart
from tests.support.builders import an_output_digest

#: A guard against hanging, not a claim about speed.
PATIENCE_S = 60.0
ENGINE = "raw 1"

M = TypeVar("M", bound=SessionMessage)


def now_ms() -> int:
    """The real time: a real tracker listens."""
    return time.time_ns() // 1_000_000


class RawPeer:
    """One connection of one key; `outbound` signs and counts what this side says."""

    def __init__(self, key: SigningKey, root: bytes, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.key = key
        self.root = root
        self.heard: list[Envelope] = []
        self.close_reason = ""
        self.session_id = secrets.token_bytes(16)
        self._socket = socket
        self._changed = asyncio.Event()
        self._inbound = Inbound(root, self.session_id)
        self._serving: bytes | None = None
        self.outbound = Outbound(root, bytes(16), key)

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, link: Link, key: SigningKey | None = None, address: str = "", origin: str = ""
    ) -> AsyncIterator[RawPeer]:
        """A connection at which only the challenge was heard. address: from where a proxy says that it comes. origin:
        the web page that it belongs to, if it does."""
        headers = {name: value for name, value in (("X-Forwarded-For", address), ("Origin", origin)) if value}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.ws_connect(f"{link.url}/peer", ssl=tls_of(link)) as socket,
        ):
            peer = cls(key or SigningKey.generate(), link.root, socket)
            challenge = await peer._challenge()
            peer.outbound = Outbound(link.root, challenge.session, peer.key)
            reading = asyncio.create_task(peer._read())
            try:
                yield peer
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        link: Link,
        key: SigningKey | None = None,
        holding: tuple[Held, ...] = (),
        address: str = "",
        origin: str = "",
    ) -> AsyncIterator[RawPeer]:
        """A connection that was welcomed, and that has said what this side holds."""
        async with cls.connect(link, key, address, origin) as peer:
            await peer.say(peer.hello())
            await peer.envelope("welcome")
            await peer.say(Holding(entries=holding, last=True))
            await peer.expect(Holding)
            yield peer

    def hello(self) -> Hello:
        """Our first words."""
        return Hello(session=self.session_id, software="a test")

    async def say(self, message: SessionMessage) -> Envelope:
        """The next message of our session, signed and sent; what was signed."""
        envelope = self.outbound.seal(message.KIND, codec.encode(message))
        await self.send(envelope.raw)
        return envelope

    async def send(self, raw: bytes) -> None:
        """Any bytes."""
        await self._socket.send_bytes(raw)

    async def envelope(self, kind: str) -> Envelope:
        """The next thing of this kind that the tracker says, or said since the last time."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                for number, found in enumerate(self.heard):
                    if found.kind == kind:
                        return self.heard.pop(number)
                    assert found.kind != "refused", f"refused: {found.open(Refused)}"
                assert not self._socket.closed, f"closed: {self.close_reason}"
                self._changed.clear()
                await self._changed.wait()

    async def expect(self, of: type[M]) -> M:
        """The next message of this type."""
        assert of.KIND in FROM_TRACKER
        return (await self.envelope(of.KIND)).open(of)

    async def changed(self) -> None:
        """Wait until the tracker has said more."""
        async with asyncio.timeout(PATIENCE_S):
            self._changed.clear()
            await self._changed.wait()

    async def closed(self) -> str:
        """Wait for the end of the connection; the reason that the tracker gave."""
        async with asyncio.timeout(PATIENCE_S):
            while not self._socket.closed:
                self._changed.clear()
                await self._changed.wait()
        return self.close_reason

    async def _challenge(self) -> Challenge:
        return decode_challenge(await self._socket.receive_bytes())

    async def _read(self) -> None:
        while True:
            message = await self._socket.receive()
            if message.type is not aiohttp.WSMsgType.BINARY:
                self.close_reason = str(message.extra or "")
                if not self._socket.closed:
                    await self._socket.close()
                self._changed.set()
                return
            envelope = parse(message.data)
            if not envelope.is_document:
                self._inbound.check(envelope, self._serving)
                self._serving = envelope.key
            self.heard.append(envelope)
            self._changed.set()

    # As a worker

    async def register(self) -> Account:
        """Become an account."""
        await self.say(Register())
        return await self.expect(Account)

    async def serve(self, model: str, *, kind: str = "image", record: PeerRecord | None = None, ahead: int = 8) -> None:
        """Announce one model, as a registered worker whose stream is where `record` says (nowhere without one)."""
        await self.register()
        await self.serve_as(model, kind=kind, record=record, ahead=ahead)

    async def serve_as(
        self, model: str, *, kind: str = "image", record: PeerRecord | None = None, ahead: int = 8
    ) -> None:
        """The same, for whomever this key acts for."""
        record = record or PeerRecord(version=1, certificate=bytes(32), addresses=("127.0.0.1:9",))
        await self.send(sign(record, self.key, self.root).raw)
        sizes = {"max_pixels": 4096 * 4096, "max_steps": 500, "max_tokens": 4096, "max_context": 65_536}
        offer = Offer(kind=kind, model=model, engine=ENGINE, **sizes)  # type: ignore[arg-type]
        await self.say(Announce(offers=(offer,), slots=1, ahead=ahead))

    async def lease(self) -> tuple[Lease, Envelope]:
        """The next lease."""
        envelope = await self.envelope("lease")
        return envelope.open(Lease), envelope

    async def report(self, lease: Lease, state: str, reason: str = "") -> None:
        """What became of a lease."""
        progress = Progress(job=lease.job, attempt=lease.attempt, state=state, reason=reason)  # type: ignore[arg-type]
        await self.say(Report(leases=(progress,)))

    def receipt(self, lease: Lease, /, **fields: object) -> Envelope:
        """This worker's receipt for a lease, done in full unless `fields` say otherwise."""
        work = lease.public.work
        whole = work.steps if isinstance(work, ImageWork) else work.max_tokens
        body: dict[str, object] = {
            "job": lease.job,
            "attempt": lease.attempt,
            "output_digest": an_output_digest(),
            "used": whole,
            "context_used": 0 if isinstance(work, ImageWork) else whole,
            "engine": ENGINE,
            "finished": now_ms(),
        }
        return sign(Receipt(**body | fields), self.key, self.root)  # type: ignore[arg-type]

    async def deliver(self, receipt: Envelope) -> None:
        """Send a receipt, and wait until it is stored."""
        await self.send(receipt.raw)
        taken = await self.expect(Taken)
        assert taken.documents == (receipt.digest,)

    # As a requester

    async def ask(self, public: PublicPart, private: PrivatePart) -> Asked:
        """Send private part and request, and wait until it is queued."""
        raw, job_key = codec.encode(private), SigningKey.generate()
        document = Request(
            nonce=secrets.token_bytes(16),
            valid_until=now_ms() + 30 * 60 * 1000,
            public=public,
            private_digest=private_digest(raw),
            job_key=job_key.public,
        )
        envelope = sign(document, self.key, self.root)
        await self.say(Private(private=raw))
        await self.send(envelope.raw)
        queued = await self.expect(Queued)
        assert queued.request == envelope.digest
        return Asked(envelope, raw, job_key, queued.jobs)


@dataclass(frozen=True)
class Asked:
    """A request that was taken in. envelope: of the request; private: bytes; jobs: handles."""

    envelope: Envelope
    private: bytes
    job_key: SigningKey
    jobs: tuple[bytes, ...]

    def acknowledgement(self, root: bytes, receipt: Envelope, /, **fields: object) -> Envelope:
        """The acknowledgement of a receipt."""
        said = receipt.open(Receipt)
        body: dict[str, object] = {
            "job": said.job,
            "attempt": said.attempt,
            "output_digest": said.output_digest,
            "receipt": receipt.raw,
        }
        return sign(Acknowledgement(**body | fields), self.job_key, root)  # type: ignore[arg-type]


def a_picture(model: str, *, side: int = 64, steps: int = 30) -> tuple[PublicPart, ImagePrivate]:
    """Both parts of a request for one picture by `model`."""
    work = ImageWork(width=side, height=side, steps=steps)
    return PublicPart(work=work, models=(model,)), ImagePrivate(prompt="a red circle", salt=secrets.token_bytes(32))


async def fund(link: Link, key: SigningKey) -> int:
    """Let `key` earn some 33 kudos by one large picture for somebody without an account; the thousandths earned."""
    model = f"fund {secrets.token_hex(8)}"
    async with RawPeer.open(link, key) as worker, RawPeer.open(link) as requester:
        await worker.serve(model)
        asked = await requester.ask(*a_picture(model, side=1024, steps=50))
        lease, _ = await worker.lease()
        receipt = worker.receipt(lease)
        await worker.deliver(receipt)
        await requester.send(asked.acknowledgement(link.root, receipt).raw)
        settlement = (await requester.envelope("settlement")).open(Settlement)
        assert settlement.minted == lease.price
        return settlement.minted
