"""Is this file what its worker signed for? Re-computes the signed digest from the file and the proofs kept of it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from peer.evidence import Evidence, Proof
from protocol.digests import Artifact, output_digest
from protocol.documents import (
    Acknowledgement,
    Document,
    Lease,
    Receipt,
    Serving,
    Settlement,
    open_document,
    parse_document,
)
from protocol.envelope import Envelope, check_delegation, check_document_context
from protocol.errors import Refusal
from protocol.keys import show_key

D = TypeVar("D", bound=Document)


class NotVerified(Exception):
    """The file is not shown to be what somebody signed for. reason: `unknown` (nothing is kept about it), `changed`
    (another content was saved under this path) or `mismatch` (what is kept does not fit)."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True)
class Verified:
    """A file that its worker signed for. output_digest: as signed and as computed; settlement: None until it came."""

    sha256: bytes
    output_digest: bytes
    root: bytes
    lease: Lease
    receipt: Receipt
    settlement: Settlement | None


def verify_file(path: Path, evidence: Evidence) -> Verified:
    """What the file at `path` is; raises `NotVerified`, or `OSError` for a file that cannot be read."""
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).digest()
    proofs = evidence.proofs(sha256)
    if proofs:
        return verify_content(content, proofs)
    saved = evidence.saved_as(path)
    if saved is not None:
        raise NotVerified(
            "changed",
            f"{path} was changed after it was saved: its SHA-256 is {sha256.hex()}, and what came had {saved.hex()}",
        )
    raise NotVerified(
        "unknown",
        f"nothing is kept here about a content with SHA-256 {sha256.hex()}: either it never came to this peer (is this "
        "its folder? see --home), or it was changed since",
    )


def verify_content(content: bytes, proofs: Sequence[Proof]) -> Verified:
    """Which of the proofs holds for `content`; raises `NotVerified` with the reason of the last one if none does."""
    failure = NotVerified("unknown", "there are no proofs")
    for proof in proofs:
        try:
            return _verify(content, proof)
        except NotVerified as error:
            failure = error
        except Refusal as error:
            failure = NotVerified("mismatch", f"a document that is kept beside it is not valid: {error}")
    raise failure


def _verify(content: bytes, proof: Proof) -> Verified:
    sha256 = hashlib.sha256(content).digest()
    lease, lease_envelope = _open(proof.lease, Lease, proof.root)
    receipt, receipt_envelope = _open(proof.receipt, Receipt, proof.root, lease.worker)
    acknowledgement, _ = _open(proof.acknowledgement, Acknowledgement, proof.root, lease.job_key)
    # The digest is computed from this content, in the place of the artifact that has its hash.
    artifacts = [
        Artifact.of(artifact.media_type, content) if artifact.sha256 == sha256 else artifact
        for artifact in proof.artifacts
    ]
    computed = output_digest(proof.salt, artifacts)
    if all(artifact.sha256 != sha256 for artifact in proof.artifacts) or computed != receipt.output_digest:
        raise NotVerified("mismatch", f"the worker signed for {receipt.output_digest.hex()}, not {computed.hex()}")
    if acknowledgement.output_digest != computed or acknowledgement.receipt != receipt_envelope.raw:
        raise NotVerified("mismatch", "what was acknowledged is not what the worker signed for")
    statements: list[Receipt | Acknowledgement | Settlement] = [receipt, acknowledgement]
    settlement = None
    if proof.settlement:
        settlement, envelope = _open(proof.settlement, Settlement, proof.root)
        if envelope.key != lease_envelope.key:
            _check_succession(proof, lease_envelope.key, envelope.key)
        statements.append(settlement)
    if any((one.job, one.attempt) != (lease.job, lease.attempt) for one in statements):
        raise NotVerified("mismatch", "the documents kept beside it speak of different jobs")
    return Verified(sha256, computed, proof.root, lease, receipt, settlement)


def _check_succession(proof: Proof, before: bytes, after: bytes) -> None:
    """Another serving key signed the settlement than the lease: the root has to say that both served."""
    served: set[bytes] = set()
    if proof.delegation:
        envelope = parse_document(proof.delegation, Serving)
        check_delegation(envelope, proof.root)
        said = open_document(envelope, Serving)
        served = {said.serving, *(former.key for former in said.former)}
    if not {before, after} <= served:
        raise NotVerified(
            "mismatch", f"the settlement is signed by {show_key(after)}, and should be by {show_key(before)}"
        )


def _open(raw: bytes, of: type[D], root: bytes, key: bytes | None = None) -> tuple[D, Envelope]:
    envelope = parse_document(raw, of)
    check_document_context(envelope, root)
    envelope.verify()
    if key is not None and envelope.key != key:
        signer = show_key(envelope.key)
        raise NotVerified("mismatch", f"the {of.KIND} is signed by {signer}, and should be by {show_key(key)}")
    return open_document(envelope, of), envelope
