"""Digests that bind without showing: SHA-256 over what a fresh salt makes unguessable."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence

import msgspec

from protocol.codec import encode

SALT_BYTES = 32


class Artifact(msgspec.Struct, frozen=True, array_like=True):
    """One file of a result as the output digest binds it: media type, size in bytes, SHA-256 of the content."""

    media_type: str
    size: int
    sha256: bytes

    @classmethod
    def of(cls, media_type: str, content: bytes) -> Artifact:
        """The artifact that holds `content`."""
        return cls(media_type, len(content), hashlib.sha256(content).digest())


def new_salt() -> bytes:
    """32 fresh random bytes."""
    return secrets.token_bytes(SALT_BYTES)


def output_digest(salt: bytes, artifacts: Sequence[Artifact]) -> bytes:
    """SHA-256 of msgpack `[salt, [[media type, size, SHA-256], ...]]`, the artifacts in their order."""
    return hashlib.sha256(encode([salt, list(artifacts)])).digest()


def private_digest(private: bytes) -> bytes:
    """SHA-256 of the private part's bytes as sent; the salt inside them makes it unguessable."""
    return hashlib.sha256(b"potluck/1 private\x00" + private).digest()


def commitment(salt: bytes, *parts: bytes) -> bytes:
    """SHA-256 of salt and parts, each part behind its length in 4 bytes (big-endian)."""
    return hashlib.sha256(salt + b"".join(len(part).to_bytes(4, "big") + part for part in parts)).digest()
