"""The one form in which signed messages travel, and the order in which one is checked.

An envelope is the msgpack array `[1, kind, key, context, body, signature]`. The signature covers a tag, kind, key,
context and body as received, each behind its length. There are two families:

- *session messages* belong to one direction of one connection: their context is root key, the receiver's session id
  and a sequence number (8 bytes, big-endian) that must be exactly the next;
- *documents* are evidence that outlives connections: their context is the root key alone.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar, cast

import msgspec

from protocol import codec
from protocol.errors import (
    BadDelegation,
    Malformed,
    OutOfSequence,
    TooLarge,
    UnknownKind,
    UnknownVersion,
    WrongHorde,
    WrongSession,
    WrongSigner,
)
from protocol.keys import KEY_BYTES, SIGNATURE_BYTES, SigningKey, check_key, show_key, verify

VERSION = 1
TAG = b"potluck/1"
SESSION_ID_BYTES = 16
MAX_ENVELOPE_BYTES = 512 * 1024
#: Until hello is done nothing larger is read.
MAX_BEFORE_HELLO_BYTES = 4096

_SESSION_CONTEXT_BYTES = KEY_BYTES + SESSION_ID_BYTES + 8

T = TypeVar("T")


class _Wire(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    version: int
    kind: str
    key: bytes
    context: bytes
    body: bytes
    signature: bytes


@dataclass(frozen=True)
class Envelope:
    """One envelope, as received or as just signed; `raw` are its bytes, which are what is stored and sent again."""

    kind: str
    key: bytes
    context: bytes
    body: bytes
    signature: bytes
    raw: bytes

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the signed bytes: the name by which documents refer to each other."""
        return hashlib.sha256(self.signed_bytes).digest()

    @cached_property
    def signed_bytes(self) -> bytes:
        """What the signature covers."""
        return signed_bytes(self.kind, self.key, self.context, self.body)

    @property
    def is_document(self) -> bool:
        """Whether the context is that of a document (a root key alone)."""
        return len(self.context) == KEY_BYTES

    def verify(self) -> None:
        """Check the key, then the signature."""
        verify(self.key, self.signed_bytes, self.signature)

    def open(self, of: type[T]) -> T:
        """The body, typed. Check the signature first."""
        return codec.decode(self.body, of)


def signed_bytes(kind: str, key: bytes, context: bytes, body: bytes) -> bytes:
    """The tag, then kind, key, context and body, each behind its length in 4 bytes (big-endian)."""
    name = kind.encode()
    lengths = _LENGTHS.pack(len(name), len(key), len(context), len(body))
    return b"".join((_TAG, lengths[:4], name, lengths[4:8], key, lengths[8:12], context, lengths[12:], body))


_TAG = len(TAG).to_bytes(4, "big") + TAG
_LENGTHS = struct.Struct(">4I")


def parse(raw: bytes, *, limit: int = MAX_ENVELOPE_BYTES) -> Envelope:
    """The envelope in `raw`, its size and shape checked and nothing else."""
    if len(raw) > limit:
        raise TooLarge(f"a message of {len(raw)} bytes: at most {limit} are read here")
    codec.check_strict(raw)
    try:
        wire = _WIRE.decode(raw)
    except msgspec.DecodeError as error:
        _check_version(raw)
        raise Malformed(f"not an envelope [1, kind, key, context, body, signature]: {error}") from error
    _check_version(raw)
    if len(wire.key) != KEY_BYTES or len(wire.signature) != SIGNATURE_BYTES:
        raise Malformed(f"a key has {KEY_BYTES} bytes and a signature {SIGNATURE_BYTES}")
    if len(wire.context) not in (KEY_BYTES, _SESSION_CONTEXT_BYTES):
        raise Malformed(f"a context of {len(wire.context)} bytes: wanted {KEY_BYTES} or {_SESSION_CONTEXT_BYTES}")
    return Envelope(wire.kind, wire.key, wire.context, wire.body, wire.signature, raw)


_WIRE = msgspec.msgpack.Decoder(_Wire)


def _check_version(raw: bytes) -> None:
    """Refuse another version by name, whatever shape it gives to what follows its number."""
    try:
        first = _FIRST.decode(raw)
    except msgspec.DecodeError:
        return
    if first.version != VERSION:
        raise UnknownVersion(f"protocol version {first.version}: this program speaks {VERSION}; update the older side")


class _First(msgspec.Struct, frozen=True, array_like=True):
    version: int


_FIRST = msgspec.msgpack.Decoder(_First)


def seal(kind: str, body: bytes, key: SigningKey, context: bytes) -> Envelope:
    """Sign an encoded body."""
    signature = key.sign(signed_bytes(kind, key.public, context, body))
    raw = codec.encode([VERSION, kind, key.public, context, body, signature])
    return Envelope(kind, key.public, context, body, signature, raw)


def session_context(root: bytes, session_id: bytes, sequence: int) -> bytes:
    """The context of a session message: for whom, in which session, as which of its direction."""
    return root + session_id + sequence.to_bytes(8, "big")


def check_document_context(envelope: Envelope, root: bytes) -> None:
    """Refuse what is not a document of this horde."""
    if not envelope.is_document:
        raise UnknownKind(f"{envelope.kind} is a document and came with the context of a session message")
    if envelope.context != root:
        raise WrongHorde(f"a {envelope.kind} of horde {show_key(envelope.context)[:8]}…, not of {show_key(root)[:8]}…")


@dataclass(slots=True)
class Inbound:
    """The receiving half of a session: whose messages, for which horde and session, which number comes next."""

    root: bytes
    session_id: bytes
    sequence: int = 0

    def check(self, envelope: Envelope, key: bytes | None) -> None:
        """Context, key, signature of a session message; the count advances only after the signature holds.

        `key` is the peer's, or None as long as it is not known (hello).
        """
        self._check_context(envelope)
        if key is not None and envelope.key != key:
            raise WrongSigner(f"a {envelope.kind} of key {show_key(envelope.key)[:8]}… in another key's session")
        envelope.verify()
        self.sequence += 1

    def _check_context(self, envelope: Envelope) -> None:
        if envelope.is_document:
            raise UnknownKind(f"{envelope.kind} is a session message and came with the context of a document")
        root, rest = envelope.context[:KEY_BYTES], envelope.context[KEY_BYTES:]
        session_id, sequence = rest[:SESSION_ID_BYTES], int.from_bytes(rest[SESSION_ID_BYTES:], "big")
        if root != self.root:
            raise WrongHorde(f"a message for horde {show_key(root)[:8]}…: this is {show_key(self.root)[:8]}…")
        if session_id != self.session_id:
            raise WrongSession("a message of another session: connect again and sign for the session of the challenge")
        if sequence != self.sequence:
            raise OutOfSequence(f"message number {sequence}: the next is {self.sequence}")


@dataclass(slots=True)
class Outbound:
    """The sending half of a session: signs and counts."""

    root: bytes
    session_id: bytes
    key: SigningKey
    sequence: int = 0

    def seal(self, kind: str, body: bytes) -> Envelope:
        """The next session message of this direction."""
        envelope = seal(kind, body, self.key, session_context(self.root, self.session_id, self.sequence))
        self.sequence += 1
        return envelope


class Challenge(codec.Body, frozen=True, kw_only=True):
    """The tracker's first words, alone unsigned: `[1, "challenge", body]`; what they claim, the welcome shows by its
    signature.

    root: the horde's root key. delegation: a `serving` document of the root. session: the tracker's session id, 16
    random bytes. clock: the tracker's time in milliseconds. shown: a `shown` document of the serving key, where no
    authority vouches for the tracker's TLS certificate; else empty.
    """

    root: bytes
    delegation: bytes
    session: bytes
    clock: int
    shown: bytes = b""


def encode_challenge(challenge: Challenge) -> bytes:
    """`[1, "challenge", body]`."""
    return codec.encode([VERSION, "challenge", codec.encode(challenge)])


def decode_challenge(raw: bytes) -> Challenge:
    """The challenge in `raw`; raises `Malformed`, `UnknownVersion` or `BadBody`."""
    if len(raw) > MAX_BEFORE_HELLO_BYTES:
        raise TooLarge(f"a challenge of {len(raw)} bytes: at most {MAX_BEFORE_HELLO_BYTES} are read")
    wire = cast("list[object]", codec.decode(raw, list))
    _check_version(raw)
    match wire:
        case [1, "challenge", bytes(body)] if wire[0] is not True:
            pass
        case _:
            raise Malformed('not a challenge [1, "challenge", body]: is this the address of a tracker?')
    challenge = codec.decode(body, Challenge)
    if len(challenge.session) != SESSION_ID_BYTES:
        raise Malformed(f"a session id of {len(challenge.session)} bytes: wanted {SESSION_ID_BYTES}")
    check_key(challenge.root)
    return challenge


def check_delegation(envelope: Envelope, root: bytes) -> None:
    """Context, signer and signature of the root's delegation to its serving key."""
    check_document_context(envelope, root)
    if envelope.kind != "serving" or envelope.key != root:
        raise BadDelegation(
            f"a {envelope.kind} of {show_key(envelope.key)[:8]}… where the root's delegation was wanted"
        )
    envelope.verify()
