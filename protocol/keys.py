"""Ed25519 keys: shown, parsed, checked; signing and verifying by libsodium.

A public key is 32 bytes. People see it in lower-case base32 without padding (RFC 4648, 52 characters).
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field

import nacl.bindings
import nacl.exceptions
import nacl.utils

from protocol.errors import BadKey, BadSignature

KEY_BYTES = 32
SIGNATURE_BYTES = 64

_FIELD_PRIME = 2**255 - 19
_SIGN_BIT = 1 << 255
_SHOWN = re.compile(r"[a-z2-7]{52}")

#: The y coordinates of all points of order 1, 2, 4 and 8. With such a key one signature fits many messages.
_SMALL_ORDER_Y = frozenset(
    {
        0,
        1,
        _FIELD_PRIME - 1,
        int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"),
        int.from_bytes(bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), "little"),
    }
)


def check_key(key: bytes) -> None:
    """Refuse what libsodium would: a wrong length, a y not below 2^255-19, a point of small order.

    Whether the point lies on the curve is found out by the first signature, which then fails.
    """
    if len(key) != KEY_BYTES:
        raise BadKey(f"a key of {len(key)} bytes: a public key has {KEY_BYTES}")
    y = int.from_bytes(key, "little") & ~_SIGN_BIT
    if y >= _FIELD_PRIME:
        raise BadKey("a key in non-canonical form: its y coordinate must be below 2^255-19")
    if y in _SMALL_ORDER_Y:
        raise BadKey("a key of small order fits many messages with one signature: make a new one")


def show_key(key: bytes) -> str:
    """The key as people see it: 52 characters of lower-case base32."""
    return base64.b32encode(key).decode("ascii").rstrip("=").lower()


def parse_key(shown: str) -> bytes:
    """The public key that `show_key` printed; refuses all that is not exactly such a text."""
    if not _SHOWN.fullmatch(shown):
        raise BadKey(f"{shown[:60]!r} is not a key: wanted 52 characters of a-z and 2-7")
    key = base64.b32decode(shown.upper() + "====")
    if show_key(key) != shown:
        raise BadKey(f"{shown!r} has stray bits in its last character: copy the key again")
    check_key(key)
    return key


def verify(key: bytes, message: bytes, signature: bytes) -> None:
    """Raise `BadSignature` unless `signature` is that of `key` over `message`; `BadKey` for a key to be refused."""
    check_key(key)
    try:
        nacl.bindings.crypto_sign_open(signature + message, key)
    except (nacl.exceptions.CryptoError, ValueError) as error:
        raise BadSignature(f"the signature does not fit key {show_key(key)[:8]}… and these bytes") from error


@dataclass(frozen=True)
class SigningKey:
    """A private key. Its seed is never shown: `repr` prints the public key only."""

    seed: bytes = field(repr=False)
    public: bytes = field(init=False)
    _secret: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        public, secret = nacl.bindings.crypto_sign_seed_keypair(self.seed)
        object.__setattr__(self, "public", public)
        object.__setattr__(self, "_secret", secret)

    @classmethod
    def generate(cls) -> SigningKey:
        """A fresh key from the system's randomness."""
        return cls(nacl.utils.random(KEY_BYTES))

    def sign(self, message: bytes) -> bytes:
        """The 64 bytes of the Ed25519 signature (RFC 8032)."""
        return nacl.bindings.crypto_sign(message, self._secret)[:SIGNATURE_BYTES]

    def __repr__(self) -> str:
        return f"SigningKey({show_key(self.public)})"
