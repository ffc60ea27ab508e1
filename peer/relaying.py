"""A relay for other peers: `GET /relay`, a WebSocket for each end. What passes is TLS of theirs, which it cannot read.

The decisions are `protocol.relay`'s, the moving of bytes is `protocol.pump`'s; here are its sockets.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from aiohttp import WSCloseCode, WSMsgType, web

from peer.gate import household_of
from peer.news import News
from protocol.errors import Busy, Refusal
from protocol.messages import OfferRelay
from protocol.pump import attend
from protocol.relay import MAX_MESSAGE_BYTES, Admitted, Limits, Rooms, check_entry

#: Between two signs of life, so that an end that has gone without a word is noticed.
HEARTBEAT_SECONDS = 15.0
#: What is on its way to an end when the other one goes has so long to arrive.
CLOSING_SECONDS = 15.0
#: How often is told what was carried, if that has changed.
REPORT_SECONDS = 5.0
#: How much of a refusal fits into the reason of a closing frame.
_REASON_BYTES = 123

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Offering:
    """What somebody gives. streams: relayed at once. max_rate: bytes a second of each, 0 for no bound."""

    streams: int = 16
    max_rate: int = 0


OFFERING = Offering()


class Relaying:
    """One relay. relay: its key. serving: the key that signs tickets, None while that is not known. now: the tracker's
    clock. `rooms` counts what it carries."""

    def __init__(
        self,
        relay: bytes,
        root: bytes,
        offering: Offering,
        *,
        serving: Callable[[], bytes | None],
        now: Callable[[], int],
    ) -> None:
        limits = Limits(streams=offering.streams, of_one=max(1, offering.streams // 2), max_rate=offering.max_rate)
        self.rooms = Rooms(lambda: limits)
        self._offering = offering
        self._relay = relay
        self._root = root
        self._serving = serving
        self._now = now

    def routes(self) -> list[web.RouteDef]:
        """Where it answers."""
        return [web.get("/relay", self._attend)]

    def offer(self, port: int, certificate: bytes) -> OfferRelay:
        """What is said to the tracker."""
        offering = self._offering
        return OfferRelay(port=port, certificate=certificate, max_rate=offering.max_rate, streams=offering.streams)

    async def report(self, tell: Callable[[News], None]) -> None:
        """Tell what was carried, whenever that has changed, until cancelled."""
        told = (0, 0, 0)
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            now = (self.rooms.pairs, self.rooms.streams, self.rooms.carried)
            if now != told:
                told = now
                tell(self.news())

    def news(self) -> News:
        """What was carried so far."""
        rooms = self.rooms
        text = f"{rooms.pairs} paths so far, {rooms.streams} now; {show_bytes(rooms.carried)}, a gift"
        return News("relayed", text, done=rooms.carried)

    async def _attend(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(
            heartbeat=HEARTBEAT_SECONDS, max_msg_size=MAX_MESSAGE_BYTES + 1, compress=False, timeout=CLOSING_SECONDS
        )
        await socket.prepare(request)
        code, reason = WSCloseCode.OK, b""
        try:
            await attend(_SocketEnd(socket), self.rooms, household_of(request.remote or ""), self._admit, self._now)
        except Refusal as refusal:
            log.info("a relayed path ended: %s: %s", refusal.code, refusal.text)
            code, reason = WSCloseCode.POLICY_VIOLATION, f"{refusal.code}: {refusal.text}".encode()
        with suppress(ConnectionError):
            await socket.close(code=code, message=reason[:_REASON_BYTES].decode(errors="ignore").encode())
        return socket

    def _admit(self, raw: bytes, challenge: bytes) -> Admitted:
        serving = self._serving()
        if serving is None:
            raise Busy("this relay has not reached its tracker yet, so it cannot check tickets: try again in a moment")
        return check_entry(raw, challenge, root=self._root, serving=serving, relay=self._relay, now=self._now())


def show_bytes(count: int) -> str:
    """As people read it: `1.5 MB`."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


class _SocketEnd:
    """One end of a relayed path, as `protocol.relay` wants it."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    async def read(self) -> bytes:
        message = await self._socket.receive()
        return bytes(message.data) if message.type is WSMsgType.BINARY else b""

    async def write(self, data: bytes) -> None:
        await self._socket.send_bytes(data)
