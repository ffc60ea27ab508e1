"""Documents as they are kept: byte for byte, one under each identity."""

from __future__ import annotations

import sqlite3

from protocol.documents import check_validity
from protocol.envelope import Envelope
from protocol.errors import Equivocation


class Conflict(Equivocation):
    """Another document stands under this identity; whoever catches this keeps proof of it."""

    def __init__(self, envelope: Envelope, first: bytes) -> None:
        super().__init__(
            f"a different {envelope.kind} under the same identity was taken before: it is kept as proof, with the first"
            " that contradicts it"
        )
        self.envelope = envelope
        self.first = first


def job_identity(handle: bytes, attempt: int) -> bytes:
    """The identity of what is said about an attempt."""
    return handle + attempt.to_bytes(4, "big")


def epoch_identity(number: int) -> bytes:
    """The identity of the root's word on a restore."""
    return number.to_bytes(8, "big")


def version_identity(version: int) -> bytes:
    """The identity of what a higher version of replaces."""
    return version.to_bytes(8, "big")


def vote_identity(proposal: bytes, version: int) -> bytes:
    """The identity of a vote: another one of the same version contradicts it."""
    return proposal + version.to_bytes(8, "big")


def take(connection: sqlite3.Connection, envelope: Envelope, identity: bytes) -> bool:
    """Keep a document; False if it is there already. Raises `Conflict`."""
    kept = connection.execute(
        "INSERT INTO documents (digest, signer, kind, identity, raw) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (envelope.digest, envelope.key, envelope.kind, identity, envelope.raw),
    )
    if kept.rowcount:
        return True
    first = digest_of(connection, envelope.key, envelope.kind, identity)
    if first != envelope.digest:
        raise Conflict(envelope, first)
    return False


def find(connection: sqlite3.Connection, digest: bytes, identity: bytes) -> bytes:
    """The bytes of a document of that digest and identity, empty if there is none."""
    row = connection.execute(
        "SELECT raw FROM documents WHERE identity = ? AND digest = ?", (identity, digest)
    ).fetchone()
    return row[0] if row else b""


def digest_of(connection: sqlite3.Connection, signer: bytes, kind: str, identity: bytes) -> bytes:
    """The digest of the document under an identity, empty if there is none."""
    row = connection.execute(
        "SELECT digest FROM documents WHERE signer = ? AND kind = ? AND identity = ?", (signer, kind, identity)
    ).fetchone()
    return row[0] if row else b""


def find_by_identity(connection: sqlite3.Connection, signer: bytes, kind: str, identity: bytes) -> bytes:
    """The bytes of the document under an identity, empty if there is none."""
    row = connection.execute(
        "SELECT raw FROM documents WHERE signer = ? AND kind = ? AND identity = ?", (signer, kind, identity)
    ).fetchone()
    return row[0] if row else b""


def is_known(connection: sqlite3.Connection, envelope: Envelope, nonce: bytes, valid_until: int, now: int) -> bool:
    """Whether this very document was taken before, so that it changes nothing. Raises `Conflict` where another one was,
    and what `check_validity` does for one that comes too late. So a refusal writes nothing."""
    first = digest_of(connection, envelope.key, envelope.kind, nonce)
    if first and first != envelope.digest:
        raise Conflict(envelope, first)
    if not first:
        check_validity(valid_until, now)
    return bool(first)


def forget(connection: sqlite3.Connection, signer: bytes, kind: str, identity: bytes) -> None:
    """Keep a document no more, unless another one contradicts it and it is proof of that."""
    connection.execute(
        "DELETE FROM documents WHERE signer = ? AND kind = ? AND identity = ?"
        " AND digest NOT IN (SELECT first FROM equivocations)",
        (signer, kind, identity),
    )


def keep_proof(connection: sqlite3.Connection, conflict: Conflict, now: int) -> None:
    """Keep the second of two documents that contradict each other; a third proves nothing more."""
    envelope = conflict.envelope
    connection.execute(
        "INSERT OR IGNORE INTO equivocations (digest, first, taken, raw) VALUES (?, ?, ?, ?)",
        (envelope.digest, conflict.first, now, envelope.raw),
    )
