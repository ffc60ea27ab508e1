"""One end of a relayed path: a WebSocket to the relay, and bytes between it and a local socket.

Whoever asked gets the other end of that socket, and uses it as if the other peer had connected to it: TLS goes through
it from end to end, and the relay sees nothing but its records.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias
from urllib.parse import urlsplit

import aiohttp

from peer.paths.addresses import NEXT_SECONDS, is_private, resolver
from peer.paths.first import first_of
from peer.paths.pin import Pin, Tls
from peer.tracker_tls import tls_of
from protocol.documents import RELAY_CHALLENGE_BYTES, RelayEntry, RelayTicket, open_document, parse_document, sign
from protocol.envelope import Envelope, check_document_context
from protocol.errors import BadTicket
from protocol.keys import SigningKey, show_key
from protocol.links import Link
from protocol.relay import MAX_MESSAGE_BYTES

RELAY_PATH = "/relay"

#: From dialling to the relay's challenge, and from our entry to the other side's.
CONNECT_SECONDS = 5.0
MEET_SECONDS = 15.0
#: Between two signs of life, so that an end that has gone without a word is noticed.
HEARTBEAT_SECONDS = 15.0
#: What is on its way when one end goes has so long to arrive; and so long the local end may take to go.
CLOSING_SECONDS = 15.0
FAREWELL_SECONDS = 2.0
#: Relayed paths at once, of one peer.
MAX_ENDS = 128

Socket: TypeAlias = "aiohttp.ClientWebSocketResponse[bool]"

log = logging.getLogger(__name__)


class NotRelayed(Exception):
    """A relay that brought no path. reason: a code."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True)
class Ticket:
    """A checked ticket. name: of the relay, for people."""

    terms: RelayTicket
    envelope: Envelope

    @property
    def name(self) -> str:
        """Where it leads."""
        return urlsplit(self.terms.url).netloc


@dataclass(frozen=True)
class Tracker:
    """How the tracker is reached, which relays too. private_too: the horde is on a private address."""

    url: str
    tls: Tls
    private_too: bool


def tracker_of(link: Link) -> Tracker:
    """The tracker that a link leads to."""
    return Tracker(link.url, tls_of(link), link.is_private)


def check_ticket(
    raw: bytes, *, root: bytes, serving: bytes | None, me: bytes, attempt: tuple[bytes, int], now: int
) -> Ticket:
    """The ticket in `raw`, with which `me` can meet the other side of this attempt; raises `Refusal`."""
    envelope = parse_document(raw, RelayTicket)
    check_document_context(envelope, root)
    if envelope.key != serving:
        raise BadTicket(f"a ticket by key {show_key(envelope.key)[:8]}…, which does not serve this horde")
    envelope.verify()
    terms = open_document(envelope, RelayTicket)
    if (terms.job, terms.attempt) != attempt or me not in (terms.requester, terms.worker):
        raise BadTicket("a ticket for another attempt, or for others")
    if terms.relay in (terms.requester, terms.worker):
        # Nor would it hide the one from the other.
        raise BadTicket("a ticket for a relay that is one of the two which are to meet there")
    if terms.valid_until <= now:
        raise BadTicket(f"a ticket until {terms.valid_until}, and it is {now}")
    return Ticket(terms, envelope)


class RelayEnds:
    """All relayed paths of one peer. Whoever opens it closes it: use it as an async context manager."""

    def __init__(
        self,
        tracker: Tracker,
        *,
        connect_seconds: float = CONNECT_SECONDS,
        meet_seconds: float = MEET_SECONDS,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        max_ends: int = MAX_ENDS,
    ) -> None:
        self.carried = 0
        self._tracker = tracker
        self._connect_seconds = connect_seconds
        self._meet_seconds = meet_seconds
        self._heartbeat_seconds = heartbeat_seconds
        self._max_ends = max_ends
        self._joining = 0
        self._pumps: set[asyncio.Task[None]] = set()
        self._https: dict[bool, aiohttp.ClientSession] = {}

    async def __aenter__(self) -> RelayEnds:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in list(self._pumps):
            task.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        for http in self._https.values():
            await http.close()

    @property
    def ends(self) -> int:
        """How many there are."""
        return self._joining + len(self._pumps)

    async def join(self, ticket: Ticket, key: SigningKey, root: bytes) -> socket.socket:
        """Meet the other side that the ticket names, at its relay; a socket that leads to it. key: ours, which the
        ticket names. Raises `NotRelayed`."""
        if self.ends >= self._max_ends:
            raise NotRelayed("busy", f"{self.ends} relayed paths are open, which is as many as there may be")
        self._joining += 1
        try:
            relay = await self._enter(ticket, key, root)
        finally:
            self._joining -= 1
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        pump = asyncio.get_running_loop().create_task(self._pump(relay, ours))
        self._pumps.add(pump)
        pump.add_done_callback(self._pumps.discard)
        pump.add_done_callback(lambda _: ours.close())  # also where it was cancelled before it began
        return theirs

    async def _enter(self, ticket: Ticket, key: SigningKey, root: bytes) -> Socket:
        relay: Socket | None = None
        try:
            async with asyncio.timeout(self._connect_seconds):
                relay = await self._connect(ticket)
                challenge = await _message(relay)
            if len(challenge) != RELAY_CHALLENGE_BYTES:
                raise NotRelayed("malformed", f"a challenge of {len(challenge)} bytes: is this a relay?")
            entry = RelayEntry(ticket=ticket.envelope.raw, challenge=challenge)
            async with asyncio.timeout(self._meet_seconds):
                await relay.send_bytes(sign(entry, key, root).raw)
                if await _message(relay):
                    raise NotRelayed("malformed", "the relay sent something before the other side was there")
        except BaseException as error:
            if relay is not None:
                await _close(relay)
            if isinstance(error, TimeoutError):
                where = "the relay does not answer" if relay is None else "the other side did not come"
                raise NotRelayed("timeout", where) from error
            if isinstance(error, aiohttp.ClientError | OSError):
                raise NotRelayed("no_connection", str(error) or type(error).__name__) from error
            raise
        return relay

    async def _connect(self, ticket: Ticket) -> Socket:
        """Who has one version of IP only gets there by one of the addresses; the other one gets a head start."""
        urls = [ticket.terms.url, *([ticket.terms.also] if ticket.terms.also else [])]
        ways = [_where(ticket.terms, url, self._tracker) for url in urls]
        return await first_of([partial(self._open, *way) for way in ways], NEXT_SECONDS, _close)

    async def _open(self, url: str, tls: Tls, private_too: bool) -> Socket:
        return await self._http(private_too=private_too).ws_connect(
            url + RELAY_PATH,
            ssl=tls,
            heartbeat=self._heartbeat_seconds,
            max_msg_size=MAX_MESSAGE_BYTES + 1,
            compress=0,
            timeout=aiohttp.ClientWSTimeout(ws_close=CLOSING_SECONDS),
        )

    def _http(self, *, private_too: bool) -> aiohttp.ClientSession:
        if private_too not in self._https:
            trace = aiohttp.TraceConfig()
            trace.on_request_redirect.append(_refuse_redirect)
            connector = aiohttp.TCPConnector(limit=0, resolver=resolver(private_too=private_too))
            self._https[private_too] = aiohttp.ClientSession(
                connector=connector, trace_configs=[trace], cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._https[private_too]

    async def _pump(self, relay: Socket, ours: socket.socket) -> None:
        """Move bytes both ways until one end goes; each direction holds one message. What was sent before that still
        arrives: the other end may be slower than this one."""
        up = asyncio.ensure_future(self._up(relay, ours))
        down = asyncio.ensure_future(self._down(relay, ours))
        try:
            await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
            if down.done():
                await _last_words(ours)
        finally:
            for way in (up, down):
                way.cancel()
            for outcome in await asyncio.gather(up, down, return_exceptions=True):
                if isinstance(outcome, Exception):
                    log.debug("a relayed path ended: %s", outcome)
            ours.close()
            await _close(relay)

    async def _up(self, relay: Socket, ours: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(ours, MAX_MESSAGE_BYTES):
            await relay.send_bytes(data)
            self.carried += len(data)

    async def _down(self, relay: Socket, ours: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while data := await _message(relay):
            await loop.sock_sendall(ours, data)
            self.carried += len(data)


def _where(terms: RelayTicket, url: str, tracker: Tracker) -> tuple[str, Tls, bool]:
    """Where the relay is, by one of its addresses, how its certificate is checked, and whether its name may lead to a
    private address."""
    if not terms.certificate:
        # The tracker itself: the link says where that is, which the user trusts, and nobody else's word is needed.
        return tracker.url, tracker.tls, True
    if urlsplit(url).scheme != "wss":
        raise NotRelayed("bad_ticket", f"{url[:80]}: a certificate, and no TLS to show it in")
    if is_private(urlsplit(url).hostname or "") and not tracker.private_too:
        raise NotRelayed("bad_ticket", f"{url[:80]}: a private address in a horde that is not on one")
    return url.rstrip("/"), Pin(terms.certificate), tracker.private_too


async def _message(relay: Socket) -> bytes:
    """The next message; raises `NotRelayed` at the end, with what the relay says about it."""
    message = await relay.receive()
    if message.type is aiohttp.WSMsgType.BINARY:
        return bytes(message.data)
    why = str(message.extra or "") if message.type is aiohttp.WSMsgType.CLOSE else ""
    code, _, text = why.partition(": ")
    raise NotRelayed((code if text else "cut")[:40] or "cut", why or "the relay ended the connection")


async def _last_words(ours: socket.socket) -> None:
    """Nothing more comes for whoever has the other end: let it read what is there, and go."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):
        ours.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(FAREWELL_SECONDS):
            while await loop.sock_recv(ours, MAX_MESSAGE_BYTES):
                pass


async def _close(relay: Socket) -> None:
    """Say goodbye, and give what was said before the time to arrive: the relay answers when it has read that far."""
    with contextlib.suppress(aiohttp.ClientError, OSError):
        async with asyncio.timeout(CLOSING_SECONDS):
            await relay.close()


async def _refuse_redirect(
    _session: aiohttp.ClientSession, _context: object, _params: aiohttp.TraceRequestRedirectParams
) -> None:
    raise aiohttp.ClientConnectionError("the relay's address sends elsewhere")
