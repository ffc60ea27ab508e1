"""One conversation with one tracker, with no socket, clock or storage in it.

Raw messages go in, effects come out. Every message is checked in the order of the standard: size, shape, context,
key, signature, body; then whether it is its turn. What fails closes the session: a peer has no message by which to
refuse, and a tracker that breaks the protocol is best met afresh.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from protocol import codec
from protocol.documents import (
    Checkpoint,
    Document,
    Lease,
    PeerRecord,
    RulesDocument,
    Serving,
    Settlement,
    Shown,
    open_document,
    parse_document,
)
from protocol.envelope import (
    Challenge,
    Envelope,
    Inbound,
    Outbound,
    check_delegation,
    check_document_context,
    decode_challenge,
    parse,
)
from protocol.errors import (
    BadBody,
    BadDelegation,
    BadKey,
    OutOfTurn,
    Refusal,
    TooLarge,
    UnknownKind,
    UnknownVersion,
    WrongCertificate,
    WrongHorde,
    WrongSigner,
    refusal,
)
from protocol.keys import SigningKey, show_key
from protocol.kinds import DOCUMENTS
from protocol.messages import (
    DOCUMENTS_FROM_TRACKER,
    FROM_TRACKER,
    MAX_HOLDING_ENTRIES,
    Account,
    Acts,
    Appeals,
    Delegations,
    Ended,
    Held,
    Hello,
    Holding,
    Look,
    Meet,
    Paths,
    Position,
    Punch,
    Queued,
    Quote,
    Reached,
    Refused,
    Requeued,
    SessionMessage,
    Taken,
    Welcome,
    Why,
    Withdrawn,
)
from protocol.rules import Rules, from_json


class State(enum.Enum):
    """How far the conversation has come."""

    GREETING = "greeting"
    AWAITING_WELCOME = "awaiting_welcome"
    RECONCILING = "reconciling"
    OPEN = "open"
    CLOSED = "closed"


@dataclass(frozen=True)
class Send:
    """These bytes go to the tracker now."""

    raw: bytes


@dataclass(frozen=True)
class Welcomed:
    """The tracker is who it should be, and has let us in. What this side holds is to be said next (`hold`)."""

    welcome: Welcome
    clock_offset: int


@dataclass(frozen=True)
class NewRules:
    """The rules in force: those kept from before, or those that just came."""

    envelope: Envelope
    version: int
    rules: Rules


@dataclass(frozen=True)
class Deliver:
    """A message for whoever uses the connection."""

    message: SessionMessage


@dataclass(frozen=True)
class DeliverDocument:
    """A document whose context, signer, signature and body are right."""

    envelope: Envelope


@dataclass(frozen=True)
class Reconciled:
    """Both sides have said all that they hold; this is the tracker's list."""

    theirs: tuple[Held, ...]


@dataclass(frozen=True)
class HangUp:
    """The conversation is over. lasting: trying again will not help, somebody has to do something first."""

    refusal: Refusal
    lasting: bool


Effect = Send | Welcomed | NewRules | Deliver | DeliverDocument | Reconciled | HangUp

Heard = Challenge | SessionMessage | Document

_TALK: tuple[type[SessionMessage], ...] = (
    Refused,
    Queued,
    Position,
    Taken,
    Withdrawn,
    Requeued,
    Ended,
    Look,
    Reached,
    Meet,
    Punch,
    Paths,
    Account,
    Delegations,
    Quote,
    Why,
    Acts,
    Appeals,
)
_PAPERS = (Lease, PeerRecord, Settlement, Checkpoint, RulesDocument)

#: Every move that is allowed; whatever is missing here is out of turn. Two moves depend on more than what was heard:
#: from reconciling to open when both sides have marked their last `holding`, and to closed by a final `refused`.
NEXT: dict[State, dict[type[Heard], State]] = {
    State.GREETING: {Challenge: State.AWAITING_WELCOME},
    State.AWAITING_WELCOME: {Welcome: State.RECONCILING, Refused: State.AWAITING_WELCOME},
    State.RECONCILING: dict.fromkeys((Holding, *_TALK, *_PAPERS), State.RECONCILING),
    State.OPEN: dict.fromkeys((*_TALK, *_PAPERS), State.OPEN),
    State.CLOSED: {},
}

#: Entries that a tracker may list at most; more is no list of what one peer has under way.
MAX_THEIRS = 100_000


class UnreadableRules(BadBody):
    """Rules in force that this program cannot read."""


_NO_WORD = "the horde's serving key does not vouch for the certificate in the link: ask the operator for the link again"

#: Refusals that do not get better by trying again.
_LASTING = (WrongHorde, BadDelegation, BadKey, UnknownVersion, UnreadableRules, WrongCertificate)


class Session:
    """One peer's side of one connection.

    root: the horde that is meant. software: name and version. session_id: 16 random bytes of this connection. rules:
    the rules document kept from before, if any. delegation_seen: the highest delegation version seen so far; an older
    one is refused, for its serving key may be the one that was stolen. certificate: the digest of the one that the
    link names, and TLS has seen; the serving key has to vouch for it. Empty where the link names none.
    """

    def __init__(
        self,
        root: bytes,
        key: SigningKey,
        software: str,
        session_id: bytes,
        rules: Envelope | None = None,
        delegation_seen: int = 0,
        certificate: bytes = b"",
    ) -> None:
        self.state = State.GREETING
        self.serving: bytes | None = None
        self.delegation: Envelope | None = None
        self.former: frozenset[bytes] = frozenset()
        self.delegation_version = delegation_seen
        self._root = root
        self._key = key
        self._software = software
        self._session_id = session_id
        self._rules = rules
        self._certificate = certificate
        self._inbound = Inbound(root, session_id)
        self._outbound: Outbound | None = None
        self._greeted = 0
        self._theirs: list[Held] = []
        self._theirs_complete = False
        self._ours_complete = False

    def receive(self, raw: bytes, now: int) -> list[Effect]:
        """What one message of the tracker leads to, in order; `now` is this machine's clock."""
        try:
            if self.state is State.CLOSED:
                raise OutOfTurn("a message after the end of the conversation")
            if self.state is State.GREETING:
                return self._greet(decode_challenge(raw), now)
            return self._hear(parse(raw), now)
        except Refusal as error:
            return [self._hang_up(error)]

    def say(self, message: SessionMessage) -> Envelope:
        """The next session message, signed and numbered: it has to be sent, before any later one. Raises `OutOfTurn`
        unless `can_speak`."""
        if self._outbound is None or not self.can_speak:
            raise OutOfTurn(f"nothing can be said while {self.state.value}")
        return self._seal(self._outbound, message)

    @property
    def can_speak(self) -> bool:
        """Whether messages and documents may be sent: once our last holding is, and until the end."""
        return self._ours_complete and self.state is not State.CLOSED

    def hold(self, entries: Sequence[Held]) -> list[Effect]:
        """Say what this side holds, in parts; once after each welcome."""
        if self._outbound is None or self._ours_complete or self.state is not State.RECONCILING:
            raise OutOfTurn("our holding is said once, right after the welcome")
        parts = [
            tuple(entries[start : start + MAX_HOLDING_ENTRIES])
            for start in range(0, max(1, len(entries)), MAX_HOLDING_ENTRIES)
        ]
        effects: list[Effect] = []
        for part in parts:
            message = Holding(entries=part, last=part is parts[-1])
            effects.append(Send(self._seal(self._outbound, message).raw))
        self._ours_complete = True
        return effects + self._open_if_complete()

    def _greet(self, challenge: Challenge, now: int) -> list[Effect]:
        if challenge.root != self._root:
            raise WrongHorde(
                f"the tracker is of horde {show_key(challenge.root)[:8]}…, the link of {show_key(self._root)[:8]}…: "
                "ask whoever runs the horde for its new link"
            )
        self.serving = self._check_serving(challenge.delegation, now)
        if self._certificate:
            self._check_shown(challenge.shown, self.serving)
        self._outbound = Outbound(self._root, challenge.session, self._key)
        self._greeted = now
        self.state = NEXT[self.state][Challenge]
        rules = self._rules.digest if self._rules else b""
        hello = Hello(session=self._session_id, software=self._software, rules=rules)
        return [Send(self._seal(self._outbound, hello).raw)]

    def _check_serving(self, raw: bytes, now: int) -> bytes:
        envelope = parse_document(raw, Serving)
        check_delegation(envelope, self._root)
        delegation = open_document(envelope, Serving)
        if delegation.expires and delegation.expires <= now:
            raise BadDelegation(
                f"the root's delegation to the serving key ended at {delegation.expires}, and it is {now}: "
                "check this machine's clock, or ask the operator to sign a new one"
            )
        if delegation.version < self.delegation_version:
            raise BadDelegation(
                f"delegation {delegation.version} of a tracker that has shown {self.delegation_version} before: "
                "an older serving key may be a stolen one; ask the operator"
            )
        self.delegation_version = delegation.version
        self.delegation = envelope
        self.former = frozenset(former.key for former in delegation.former)
        return delegation.serving

    def _check_shown(self, raw: bytes, serving: bytes) -> None:
        """Without this, whoever wrote another certificate into a link would be taken for the tracker."""
        try:
            envelope = parse_document(raw, Shown)
            check_document_context(envelope, self._root)
            envelope.verify()
            shown = open_document(envelope, Shown)
        except Refusal as error:
            raise WrongCertificate(f"{_NO_WORD} ({error})") from error
        if envelope.key != serving or shown.digest != self._certificate:
            raise WrongCertificate(_NO_WORD)

    def _hear(self, envelope: Envelope, now: int) -> list[Effect]:
        if (kind := FROM_TRACKER.get(envelope.kind)) is not None:
            _check_size(envelope, kind.MAX_BYTES)
            self._inbound.check(envelope, self.serving)
            message = envelope.open(kind)
            self._move(kind)
            return self._take_message(message, now)
        if envelope.kind in DOCUMENTS_FROM_TRACKER:
            document = self._check_document(envelope)
            self._move(type(document))
            return self._take_document(envelope, document)
        raise UnknownKind(f"{envelope.kind[:40]!r} is nothing that this program hears from a tracker: update it")

    def _check_document(self, envelope: Envelope) -> Document:
        kind = DOCUMENTS[envelope.kind]
        _check_size(envelope, kind.MAX_BYTES)
        check_document_context(envelope, self._root)
        # A peer record is signed by its own worker; what a former serving key signed still counts.
        if envelope.key != self.serving and envelope.key not in self.former and kind is not PeerRecord:
            raise WrongSigner(
                f"a {envelope.kind} of key {show_key(envelope.key)[:8]}…, which does not serve this horde"
            )
        envelope.verify()
        return open_document(envelope, kind)

    def _move(self, kind: type[Heard]) -> None:
        following = NEXT[self.state].get(kind)
        if following is None:
            raise OutOfTurn(f"{kind.__name__} while {self.state.value}")
        self.state = following

    def _take_message(self, message: SessionMessage, now: int) -> list[Effect]:
        match message:
            case Welcome():
                # The tracker read its clock somewhere between our hello and now.
                offset = message.clock - (self._greeted + now) // 2
                return [Welcomed(message, offset), *self._rules_kept(message)]
            case Holding():
                return self._take_holding(message)
            case Refused(final=True):
                return [Deliver(message), self._hang_up(refusal(message.code, message.text))]
            case _:
                return [Deliver(message)]

    def _take_holding(self, holding: Holding) -> list[Effect]:
        if self._theirs_complete:
            raise OutOfTurn("holding after the last holding")
        if len(self._theirs) + len(holding.entries) > MAX_THEIRS:
            raise TooLarge(f"a tracker that lists more than {MAX_THEIRS} things for one peer")
        self._theirs += holding.entries
        self._theirs_complete = holding.last
        return self._open_if_complete()

    def _open_if_complete(self) -> list[Effect]:
        if not (self._ours_complete and self._theirs_complete):
            return []
        self.state = State.OPEN
        return [Reconciled(tuple(self._theirs))]

    def _take_document(self, envelope: Envelope, document: Document) -> list[Effect]:
        if isinstance(document, RulesDocument):
            return [_new_rules(envelope, document), DeliverDocument(envelope)]
        return [DeliverDocument(envelope)]

    def _rules_kept(self, welcome: Welcome) -> list[Effect]:
        """The digest in the signed welcome vouches for the rules kept, whichever serving key signed them."""
        if self._rules is None or self._rules.digest != welcome.rules:
            return []
        return [_new_rules(self._rules, open_document(self._rules, RulesDocument))]

    def _seal(self, outbound: Outbound, message: SessionMessage) -> Envelope:
        return outbound.seal(message.KIND, codec.encode(message))

    def _hang_up(self, error: Refusal) -> HangUp:
        self.state = State.CLOSED
        return HangUp(error, isinstance(error, _LASTING))


def _check_size(envelope: Envelope, limit: int) -> None:
    if len(envelope.raw) > limit:
        raise TooLarge(f"a {envelope.kind} of {len(envelope.raw)} bytes: at most {limit} are read")


def _new_rules(envelope: Envelope, document: RulesDocument) -> NewRules:
    try:
        return NewRules(envelope, document.version, from_json(document.rules))
    except msgspec.ValidationError as error:
        raise UnreadableRules(
            f"rules that this program does not understand, perhaps newer than it: update it ({error})"
        ) from error
    except msgspec.DecodeError as error:
        raise UnreadableRules(f"rules that are no JSON: {error}") from error
