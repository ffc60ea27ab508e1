"""One peer's conversation with the tracker, with no socket, clock or storage in it.

Bytes and the time go in, effects come out. The order of checks is: size, shape, context, key, signature, body; then
whether this state of the conversation allows the message at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from protocol import codec
from protocol.documents import Document, Receipt
from protocol.envelope import (
    MAX_BEFORE_HELLO_BYTES,
    MAX_ENVELOPE_BYTES,
    Challenge,
    Envelope,
    Inbound,
    Outbound,
    check_document_context,
    encode_challenge,
    parse,
)
from protocol.errors import OutOfTurn, Refusal, TooLarge, UnknownKind
from protocol.keys import SigningKey
from protocol.kinds import DOCUMENTS
from protocol.messages import (
    DOCUMENTS_FROM_PEER,
    FROM_PEER,
    MAX_HOLDING_ENTRIES,
    Announce,
    AskAccount,
    AskActs,
    AskAppeals,
    AskDelegations,
    AskPaths,
    AskQuote,
    AskWhy,
    Held,
    Hello,
    Holding,
    Kept,
    OfferRelay,
    Private,
    Refused,
    Register,
    Report,
    SessionMessage,
    Unreachable,
)
from tracker.checked import Checked

#: A peer that holds more than this at once is refused.
MAX_HELD = 16_384


class State(Enum):
    """How far the conversation has come."""

    GREETING = "greeting"
    RECONCILING = "reconciling"
    OPEN = "open"
    CLOSED = "closed"


#: Every message that is allowed; whatever is missing here is out of turn. Documents are allowed while OPEN.
ALLOWED: dict[State, frozenset[type[SessionMessage]]] = {
    State.GREETING: frozenset({Hello}),
    State.RECONCILING: frozenset({Holding}),
    State.OPEN: frozenset(
        {
            Register,
            Announce,
            Private,
            Report,
            Unreachable,
            AskPaths,
            OfferRelay,
            Kept,
            AskAccount,
            AskDelegations,
            AskQuote,
            AskWhy,
            AskActs,
            AskAppeals,
        }
    ),
    State.CLOSED: frozenset(),
}


@dataclass(frozen=True)
class Send:
    """These bytes go to the peer."""

    raw: bytes


@dataclass(frozen=True)
class Greeted:
    """The peer has shown who it is: it is to be welcomed."""

    hello: Hello


@dataclass(frozen=True)
class Reconciled:
    """All that the peer holds."""

    held: tuple[Held, ...]


@dataclass(frozen=True)
class Heard:
    """A session message, checked."""

    message: SessionMessage
    digest: bytes


@dataclass(frozen=True)
class Presented:
    """A document, its context, key, signature and body checked."""

    envelope: Envelope
    document: Document


@dataclass(frozen=True)
class HangUp:
    """The connection is to be closed."""

    reason: str


Effect = Send | Greeted | Reconciled | Heard | Presented | HangUp


class Session:
    """The tracker's end of one connection."""

    __slots__ = ("_checked", "_delegation", "_held", "_inbound", "_key", "_outbound", "_root", "peer", "state")

    def __init__(
        self, root: bytes, key: SigningKey, delegation: bytes, session_id: bytes, checked: Checked | None = None
    ) -> None:
        self.state = State.GREETING
        self.peer: bytes | None = None
        self._root = root
        self._key = key
        self._delegation = delegation
        self._inbound = Inbound(root, session_id)
        self._outbound: Outbound | None = None
        self._held: list[Held] = []
        self._checked = Checked() if checked is None else checked  # an empty one counts as false

    def challenge(self, now: int, shown: bytes = b"") -> bytes:
        """The tracker's first words. shown: the serving key's word for the certificate, where it needs one."""
        return encode_challenge(
            Challenge(
                root=self._root,
                delegation=self._delegation,
                session=self._inbound.session_id,
                clock=now,
                shown=shown,
            )
        )

    def say(self, message: SessionMessage) -> bytes:
        """The next session message to the peer, signed and numbered. Only after hello."""
        if self._outbound is None:
            raise OutOfTurn("nothing can be said before the peer's hello")
        return self._outbound.seal(message.KIND, codec.encode(message)).raw

    def refuse(self, refusal: Refusal, about: bytes = b"", *, final: bool = False) -> list[Effect]:
        """Tell the peer, and hang up if that is final. Before hello there is no session to tell it in."""
        effects: list[Effect] = []
        if self._outbound is not None and self.state is not State.CLOSED:
            refused = Refused(code=refusal.code, text=refusal.text[:2000], about=about, final=final)
            effects.append(Send(self.say(refused)))
        if final or self._outbound is None:
            self.state = State.CLOSED
            effects.append(HangUp(f"{refusal.code}: {refusal.text}"))
        return effects

    def receive(self, raw: bytes) -> list[Effect]:
        """What one message brings about. Never raises for what a peer sends."""
        if self.state is State.CLOSED:
            return []
        about = b""
        goes_on = False
        try:
            limit = MAX_BEFORE_HELLO_BYTES if self.state is State.GREETING else MAX_ENVELOPE_BYTES
            envelope = parse(raw, limit=limit)
            about = envelope.digest
            if envelope.is_document:
                goes_on = True  # documents are not counted: the conversation stays in step whatever is wrong with one
                return self._document(envelope)
            self._inbound.check(envelope, self.peer)
            goes_on = True  # counted: what is wrong with it concerns this message alone
            return self._message(envelope)
        except Refusal as refusal:
            return self.refuse(refusal, about, final=not goes_on)

    def _message(self, envelope: Envelope) -> list[Effect]:
        kind = FROM_PEER.get(envelope.kind)
        if kind is None:
            raise UnknownKind(f"{envelope.kind[:40]!r} is no message from a peer to a tracker")
        if len(envelope.raw) > kind.MAX_BYTES:
            raise TooLarge(f"a {envelope.kind} of {len(envelope.raw)} bytes: at most {kind.MAX_BYTES}")
        message = envelope.open(kind)
        if kind not in ALLOWED[self.state]:
            raise OutOfTurn(f"{envelope.kind} while {self.state.value}")
        match message:
            case Hello():
                self.peer = envelope.key
                self._outbound = Outbound(self._root, message.session, self._key)
                self.state = State.RECONCILING
                return [Greeted(message)]
            case Holding():
                return self._hold(message)
            case _:
                return [Heard(message, envelope.digest)]

    def _hold(self, message: Holding) -> list[Effect]:
        if len(self._held) + len(message.entries) > MAX_HELD:
            raise TooLarge(f"more than {MAX_HELD} things held at once (in parts of {MAX_HOLDING_ENTRIES})")
        self._held += message.entries
        if not message.last:
            return []
        self.state = State.OPEN
        held, self._held = tuple(self._held), []
        return [Reconciled(held)]

    def _document(self, envelope: Envelope) -> list[Effect]:
        if self.state is not State.OPEN:
            raise OutOfTurn(f"{envelope.kind[:40]} while {self.state.value}: documents come after `holding`")
        if envelope.kind not in DOCUMENTS_FROM_PEER:
            raise UnknownKind(f"{envelope.kind[:40]!r} is no document from a peer to a tracker")
        kind = DOCUMENTS[envelope.kind]
        if len(envelope.raw) > kind.MAX_BYTES:
            raise TooLarge(f"a {envelope.kind} of {len(envelope.raw)} bytes: at most {kind.MAX_BYTES}")
        check_document_context(envelope, self._root)
        if envelope.kind == Receipt.KIND:
            self._checked.verify(envelope)
        else:
            envelope.verify()
        return [Presented(envelope, envelope.open(kind))]
