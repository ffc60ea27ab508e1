"""Keeps one peer connected to its tracker: the socket under `peer.session`.

Whoever uses a connection is its `Handler`, told of everything that comes. Handlers are called one after the other
from the loop that reads the socket, so they must not wait for an answer of the tracker.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import random
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import aiohttp

from peer.ruling import changed
from peer.session import (
    Deliver,
    DeliverDocument,
    Effect,
    HangUp,
    NewRules,
    Reconciled,
    Send,
    Session,
    Welcomed,
)
from peer.tracker_tls import other_certificate, tls_of
from protocol.changes import Change, told
from protocol.envelope import MAX_ENVELOPE_BYTES, SESSION_ID_BYTES, Envelope
from protocol.errors import Malformed, Refusal, TooLarge, TooSlow, WrongCertificate
from protocol.keys import SigningKey
from protocol.links import Link
from protocol.messages import Account, Held, SessionMessage, Welcome
from protocol.rules import Rules

SOFTWARE = "potluck/0.1.0"
PEER_PATH = "/peer"

#: Seconds from connecting to the welcome, and between two signs of life on a quiet connection.
GREETING_SECONDS = 30
HEARTBEAT_SECONDS = 15
CLOSING_SECONDS = 2

#: How much of a refusal's text fits into the reason of a closing WebSocket frame.
_REASON_BYTES = 123

Socket: TypeAlias = "aiohttp.ClientWebSocketResponse[bool]"

log = logging.getLogger(__name__)


class CannotJoin(Exception):
    """This tracker cannot be joined, and trying again would not change it. `refusal` holds the code, the text says
    what to do."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.text)
        self.refusal = refusal


class _Broken(Exception):
    """The socket could not be opened, or has ended; the text says why."""


def _why_unreachable(error: aiohttp.ClientError | OSError) -> str:
    """Why no socket could be opened, and what to look at, for somebody who knows neither sockets nor aiohttp."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            return "no machine of this name is found: is the address right, is there a network?"
        case aiohttp.ClientConnectorCertificateError():
            reason = getattr(error.certificate_error, "verify_message", None) or error.certificate_error
            return f"its certificate is not valid ({reason}): tell whoever runs the horde"
        case aiohttp.ClientSSLError():
            reason = getattr(error.os_error, "reason", None) or error.os_error
            return f"no TLS with what answers ({str(reason).replace('_', ' ').lower()}): is `wss` right in the link?"
        case aiohttp.WSServerHandshakeError(status=429):
            return "it takes no more connections from this address for now (HTTP status 429)"
        case aiohttp.WSServerHandshakeError():
            return f"something else than a tracker answers (HTTP status {error.status}): is the address right?"
        case aiohttp.ClientConnectorError():
            return f"nothing answers ({_reason(error.os_error)}): is it running, is the address right?"
        case _:
            return str(error) or type(error).__name__


def _reason(error: OSError) -> str:
    # asyncio puts the address where the system's words for it belong; those are not known for numbers of Windows.
    words = os.strerror(error.errno).lower() if error.errno else str(error)
    return words if "unknown error" not in words else errno.errorcode.get(error.errno or 0, words)


class InsecureLink(Refusal):
    """A link that leads over the internet without TLS."""

    code = "insecure_link"


@dataclass(frozen=True)
class Backoff:
    """Full jitter: before each try a random wait below a bound, which doubles with every failure.

    The bound stays within the grace that trackers give by default to workers that went away.
    """

    first_seconds: float = 0.5
    most_seconds: float = 10.0

    def delay(self, failures: int, random: random.Random) -> float:
        """Seconds to wait after so many failures in a row (from 1)."""
        return random.uniform(0, min(self.most_seconds, self.first_seconds * 2 ** min(failures - 1, 30)))


BACKOFF = Backoff()


class Handler(Protocol):
    """Whoever uses a connection. A `Refusal` that one of these raises ends the connection, and it is made anew."""

    def holding(self) -> Sequence[Held]:
        """What this side holds that has not ended; asked for after each welcome."""

    async def welcomed(self, welcome: Welcome) -> None:
        """The tracker has let us in. Nothing can be said yet: our holding comes first."""

    async def reconciled(self, theirs: Sequence[Held]) -> None:
        """Both holdings are complete: send again what the tracker lacks."""

    async def received(self, message: SessionMessage) -> None:
        """A session message came; also `Refused`."""

    async def received_document(self, envelope: Envelope) -> None:
        """A document came; context, signer, signature and the shape of its body are right. A peer record is signed by
        the worker that it describes, all others by the horde's serving key."""

    async def lost(self) -> None:
        """A connection that was welcomed has ended."""


class Connection:
    """One peer's connection to one tracker, made anew whenever it breaks.

    clock: this machine's time in milliseconds. rules: the rules document kept from an earlier session, so that it
    need not be sent again. delegation_seen: the highest version of the root's delegation seen before.
    """

    def __init__(
        self,
        link: Link,
        key: SigningKey,
        handler: Handler,
        *,
        clock: Callable[[], int],
        random: random.Random,
        insecure: bool = False,
        rules: Envelope | None = None,
        delegation_seen: int = 0,
        backoff: Backoff = BACKOFF,
        greeting_seconds: float = GREETING_SECONDS,
    ) -> None:
        self.root = link.root
        self.serving: bytes | None = None
        self.delegation: Envelope | None = None
        self.rules: Rules | None = None
        self.rules_version = 0
        self.rules_document = rules
        #: What the rules in force changed of those that were known before.
        self.rules_changes: list[Change] = []
        self.account = 0
        self.clock_offset = 0
        self.delegation_version = delegation_seen
        #: Why the last try failed, or the last connection broke; None while all is well.
        self.trouble: str | None = None
        self._link = link
        self._key = key
        self._handler = handler
        self._clock = clock
        self._random = random
        self._insecure = insecure
        self._backoff = backoff
        self._greeting_seconds = greeting_seconds
        self._tls = tls_of(link)
        self._session: Session | None = None
        self._socket: Socket | None = None
        self._failures = 0
        self._ready = asyncio.Event()

    @property
    def is_ready(self) -> bool:
        """Whether the connection stands and both sides have said what they hold."""
        return self._ready.is_set()

    async def wait_ready(self) -> None:
        """Return once the connection stands and both sides have said what they hold; `rules` are known then."""
        await self._ready.wait()

    @property
    def rules_news(self) -> str:
        """Which rules are in force, and what they changed, for people."""
        changes = told(self.rules_changes)
        return f"version {self.rules_version}{': ' if changes else ''}{changes}"

    @property
    def local_host(self) -> str | None:
        """The address of this machine from which the tracker is reached; None while it is not."""
        name = self._socket.get_extra_info("sockname") if self._socket is not None else None
        return str(name[0]) if isinstance(name, tuple) else None

    def now(self) -> int:
        """The tracker's clock in milliseconds, as far as it is known."""
        return self._clock() + self.clock_offset

    async def run(self) -> None:
        """Stay connected until cancelled. Raises `CannotJoin` for what does not get better by trying again."""
        if self._link.needs_insecure and not self._insecure:
            raise CannotJoin(
                InsecureLink(
                    f"{self._link.url} would send everything over the internet in the clear: ask for a wss link, "
                    "or allow it with --insecure"
                )
            )
        trace = aiohttp.TraceConfig()
        trace.on_request_redirect.append(_refuse_redirect)
        async with aiohttp.ClientSession(trace_configs=[trace], cookie_jar=aiohttp.DummyCookieJar()) as http:
            while True:
                before = self.trouble  # None again after a connection that stood
                try:
                    await self._connect_once(http)
                except _Broken as error:
                    self.trouble = str(error)
                except Refusal as error:
                    self.trouble = f"{error.code}: {error.text}"
                self._failures += 1
                delay = self._backoff.delay(self._failures, self._random)
                # A tracker can be away for long: what is said once is not said again with every try.
                level = logging.DEBUG if self.trouble == before else logging.WARNING
                log.log(level, "no connection to the tracker at %s: %s; trying again", self._link.url, self.trouble)
                await asyncio.sleep(delay)

    async def say(self, message: SessionMessage) -> bytes | None:
        """Send a session message; the digest of what was signed, by which a refusal names it.

        None while not connected, and before our holding is sent: state is said again on return, so nothing is kept
        for later.
        """
        if self._session is None or not self._session.can_speak:
            return None
        # Signed and written without a pause in between (aiohttp writes before its first await), so that numbers leave
        # in their order, whoever else speaks.
        envelope = self._session.say(message)
        return envelope.digest if await self._send(envelope.raw) else None

    async def send_document(self, envelope: Envelope) -> None:
        """Send a document, bare.

        Dropped without a word while not connected, and before our holding is sent: what is unconfirmed is listed and
        sent again after each welcome (`Handler.holding`, `Handler.reconciled`), so nothing is kept for later here.
        """
        if self._session is not None and self._session.can_speak:
            await self._send(envelope.raw)

    async def _send(self, raw: bytes) -> bool:
        if self._socket is None:
            return False
        try:
            await self._socket.send_bytes(raw)
        except (ConnectionError, aiohttp.ClientError) as error:
            log.debug("could not send: %s", error)  # the reading side finds out, and connects anew
            return False
        return True

    async def _connect_once(self, http: aiohttp.ClientSession) -> None:
        """One connection from its beginning to its end, which is always an exception."""
        greeting = asyncio.timeout(self._greeting_seconds)
        try:
            async with greeting, await self._open_socket(http) as socket:
                await self._converse(socket, greeting)
        except TimeoutError:
            if not greeting.expired():
                raise
            raise TooSlow(f"no welcome of the tracker within {self._greeting_seconds} seconds") from None

    async def _open_socket(self, http: aiohttp.ClientSession) -> Socket:
        try:
            return await http.ws_connect(
                self._link.url + PEER_PATH,
                heartbeat=HEARTBEAT_SECONDS,
                max_msg_size=MAX_ENVELOPE_BYTES,
                compress=0,
                ssl=self._tls,
                timeout=aiohttp.ClientWSTimeout(ws_close=CLOSING_SECONDS),
            )
        except aiohttp.ServerFingerprintMismatch as error:
            wrong = WrongCertificate(other_certificate(self._link))
            if self.serving is None:
                raise CannotJoin(wrong) from error
            # It was right before: a network that answers in everybody's place (a hotel's log-in page) goes away again.
            raise wrong from error
        except (aiohttp.ClientError, OSError) as error:
            raise _Broken(_why_unreachable(error)) from error

    async def _converse(self, socket: Socket, greeting: asyncio.Timeout) -> None:
        session_id = secrets.token_bytes(SESSION_ID_BYTES)
        session = Session(
            self.root,
            self._key,
            SOFTWARE,
            session_id,
            self.rules_document,
            self.delegation_version,
            self._link.certificate,
        )
        self._session, self._socket = session, socket
        welcomed = False
        try:
            while True:
                effects = session.receive(await self._next_message(socket), self._clock())
                self.delegation_version = session.delegation_version
                for effect in effects:
                    if isinstance(effect, Welcomed):
                        greeting.reschedule(None)
                        welcomed = True
                    await self._carry_out(session, effect)
        except Refusal as error:
            reason = f"{error.code}: {error.text}".encode()[:_REASON_BYTES].decode(errors="ignore")
            await socket.close(code=aiohttp.WSCloseCode.POLICY_VIOLATION, message=reason.encode())
            raise
        finally:
            self._session = self._socket = None
            self._ready.clear()
            if welcomed:
                await self._handler.lost()

    async def _next_message(self, socket: Socket) -> bytes:
        message = await socket.receive()
        match message.type:
            case aiohttp.WSMsgType.BINARY:
                return bytes(message.data)
            case aiohttp.WSMsgType.TEXT:
                raise Malformed("a text message: all messages of the protocol are binary")
            case aiohttp.WSMsgType.ERROR if socket.close_code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG:
                raise TooLarge(f"a message of more than {MAX_ENVELOPE_BYTES} bytes")
            case _:
                why = f": {message.extra}" if message.extra else ""
                raise _Broken(f"the tracker ended the connection ({socket.close_code}){why}")

    async def _carry_out(self, session: Session, effect: Effect) -> None:
        match effect:
            case Send(raw):
                await self._send(raw)
            case Welcomed(welcome, clock_offset):
                self.serving, self.delegation = session.serving, session.delegation
                self.account = welcome.account
                self.clock_offset = clock_offset
                self.trouble = None
                await self._handler.welcomed(welcome)
                for following in session.hold(self._handler.holding()):
                    await self._carry_out(session, following)
            case NewRules(envelope, version, rules):
                self.rules_changes = changed(self.rules_document, rules)
                self.rules_document, self.rules_version, self.rules = envelope, version, rules
            case Deliver(message):
                if isinstance(message, Account):
                    self.account = message.number
                await self._handler.received(message)
            case DeliverDocument(envelope):
                await self._handler.received_document(envelope)
            case Reconciled(theirs):
                await self._handler.reconciled(theirs)
                self._failures = 0
                self._ready.set()
            case HangUp(refusal, lasting):
                if lasting:
                    raise CannotJoin(refusal) from refusal
                raise refusal


async def _refuse_redirect(
    _session: aiohttp.ClientSession, _context: object, _params: aiohttp.TraceRequestRedirectParams
) -> None:
    # A redirect could lead from wss to ws, and nothing in the link speaks for the other address.
    raise Malformed("the tracker's address sends elsewhere: ask for a link to where the tracker really is")
