"""Two scripted peers with a job between them, and what they say at a relay."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from protocol.documents import Lease, RelayEntry, RelayTicket, open_document, parse_document, sign
from protocol.envelope import Envelope
from protocol.keys import SigningKey
from protocol.links import Link
from protocol.messages import AskPaths
from tests.support.raw_peer import PATIENCE_S, Asked, RawPeer, a_picture


@dataclass(frozen=True)
class Two:
    """A worker and a requester of its lease, both connected to the tracker."""

    worker: RawPeer
    requester: RawPeer
    lease: Lease
    asked: Asked

    @classmethod
    @asynccontextmanager
    async def open(cls, link: Link, worker_address: str = "", address: str = "") -> AsyncIterator[Two]:
        """They come from these addresses, if a proxy says so."""
        model = f"model {secrets.token_hex(8)}"
        async with (
            RawPeer.open(link, address=worker_address) as worker,
            RawPeer.open(link, address=address) as requester,
        ):
            await worker.serve(model)
            asked = await requester.ask(*a_picture(model))
            lease, _ = await worker.lease()
            await worker.report(lease, "accepted")
            await requester.lease()
            yield cls(worker, requester, lease, asked)

    async def ask(self, *, relays_only: bool = False, reason: str = "timeout") -> None:
        """The requester needs help."""
        lease = self.lease
        await self.requester.say(AskPaths(job=lease.job, attempt=lease.attempt, relays_only=relays_only, reason=reason))

    def key(self, side: str) -> SigningKey:
        """The key with which a side comes to a relay."""
        return self.worker.key if side == "worker" else self.asked.job_key


def terms_of(raw: bytes) -> RelayTicket:
    """What a ticket says."""
    return open_document(parse_document(raw, RelayTicket), RelayTicket)


@dataclass
class AtRelay:
    """A connection to a relay. challenge: what it said first."""

    socket: aiohttp.ClientWebSocketResponse
    challenge: bytes
    root: bytes

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, root: bytes) -> AsyncIterator[AtRelay]:
        """Nothing is shown yet."""
        async with aiohttp.ClientSession() as session, session.ws_connect(f"{url}/relay", max_msg_size=0) as socket:
            yield cls(socket, await socket.receive_bytes(), root)

    def entry(self, ticket: bytes, key: SigningKey) -> Envelope:
        """What this connection is to be shown."""
        return sign(RelayEntry(ticket=ticket, challenge=self.challenge), key, self.root)

    async def enter(self, ticket: bytes, key: SigningKey) -> None:
        """Show a ticket."""
        await self.socket.send_bytes(self.entry(ticket, key).raw)

    async def hear(self) -> bytes:
        """The next message."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.socket.receive_bytes()

    async def hear_all(self, size: int) -> bytes:
        """So many bytes, whatever messages they come in."""
        found = b""
        while len(found) < size:
            found += await self.hear()
        return found

    async def end(self) -> str:
        """Wait for the end, past all that comes; the reason given."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                message = await self.socket.receive()
                if message.type is not aiohttp.WSMsgType.BINARY:
                    return str(message.extra or "")


@asynccontextmanager
async def met(link: Link, two: Two, ticket: bytes) -> AsyncIterator[tuple[AtRelay, AtRelay]]:
    """Requester and worker at the tracker's relay, told that the other one is there."""
    async with AtRelay.open(link.url, link.root) as requester, AtRelay.open(link.url, link.root) as worker:
        await worker.enter(ticket, two.key("worker"))
        await requester.enter(ticket, two.key("requester"))
        assert await requester.hear() == await worker.hear() == b""
        yield requester, worker
