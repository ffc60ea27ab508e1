"""The tracker's half of a conversation, for tests of peers: keys, challenge, and a voice that signs and counts."""

from __future__ import annotations

from dataclasses import dataclass, field

from protocol import codec
from protocol.documents import Document, Former, Serving, sign
from protocol.envelope import Challenge, Envelope, Inbound, Outbound, encode_challenge, parse
from protocol.keys import SigningKey
from protocol.messages import Held, Hello, Holding, SessionMessage, Welcome
from protocol.rules import Rules
from tests.support.builders import NOW, ROOT, SERVING, a_rules_document


@dataclass
class Horde:
    """Root and serving key of a horde, and what it signs."""

    root_key: SigningKey = field(default_factory=lambda: ROOT)
    serving_key: SigningKey = field(default_factory=lambda: SERVING)
    rules: Rules = field(default_factory=Rules)
    former: tuple[SigningKey, ...] = ()

    @property
    def root(self) -> bytes:
        return self.root_key.public

    def delegation(self, *, version: int = 1, expires: int = 0) -> Envelope:
        former = tuple(Former(key=key.public, entries=0) for key in self.former)
        serving = Serving(serving=self.serving_key.public, version=version, expires=expires, former=former)
        return sign(serving, self.root_key, self.root)

    def sign(self, document: Document) -> Envelope:
        return sign(document, self.serving_key, self.root)

    def rules_document(self, version: int = 1) -> Envelope:
        return self.sign(a_rules_document(self.rules, version))


class TrackerSide:
    """What a tracker says in one session; `hears` takes what the peer says."""

    def __init__(self, horde: Horde, session_id: bytes = b"T" * 16) -> None:
        self.horde = horde
        self._session_id = session_id
        self._inbound = Inbound(horde.root, session_id)
        self._outbound: Outbound | None = None
        self.peer: bytes | None = None

    def challenge(self, *, version: int = 1, expires: int = 0, clock: int = NOW) -> bytes:
        delegation = self.horde.delegation(version=version, expires=expires).raw
        return encode_challenge(
            Challenge(root=self.horde.root, delegation=delegation, session=self._session_id, clock=clock)
        )

    def hears_hello(self, raw: bytes) -> Hello:
        envelope = parse(raw)
        self._inbound.check(envelope, None)
        assert envelope.kind == "hello"
        hello = envelope.open(Hello)
        self.peer = envelope.key
        self._outbound = Outbound(self.horde.root, hello.session, self.horde.serving_key)
        return hello

    def hears(self, raw: bytes) -> Envelope:
        """A session message or a document of the peer, its envelope checked."""
        envelope = parse(raw)
        if not envelope.is_document:
            self._inbound.check(envelope, self.peer)
        return envelope

    def says(self, message: SessionMessage) -> bytes:
        assert self._outbound is not None, "the tracker can speak after hello only"
        return self._outbound.seal(message.KIND, codec.encode(message)).raw

    def welcome(self, *, clock: int = NOW, account: int = 0) -> bytes:
        rules = self.horde.rules_document()
        return self.says(Welcome(clock=clock, rules=rules.digest, rules_version=1, account=account))

    def holding(self, *entries: Held, last: bool = True) -> bytes:
        return self.says(Holding(entries=entries, last=last))
