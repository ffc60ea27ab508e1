"""Checks of the opening with which a requester asks a worker for a stream: pure, in the order of the standard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from peer.spool import Attempt
from protocol import codec
from protocol.documents import Lease, Opening, open_document, parse_document
from protocol.envelope import Envelope, check_document_context
from protocol.errors import Busy, WrongCertificate, WrongLease
from protocol.frames import OpenBody
from protocol.keys import show_key
from protocol.work import MAX_PRIVATE_BYTES

#: The largest body of an opening: the private part, the opening itself, and text already shown.
MAX_BODY_BYTES = MAX_PRIVATE_BYTES + 64 * 1024


@dataclass(frozen=True)
class Opened:
    """A checked opening, with the lease that it contains. private: empty when a stream is resumed. prefix: text
    already shown."""

    attempt: Attempt
    lease: Lease
    envelope: Envelope
    private: bytes
    prefix: str


def check_opening(
    raw: bytes,
    *,
    root: bytes,
    serving: bytes | None,
    worker: bytes,
    certificate: bytes,
    known_lease: Callable[[Attempt], bytes | None],
) -> Opened:
    """The opening in `raw`; raises a `Refusal` unless it comes from the holder of the job key of a lease for `worker`.

    serving: the key that signs leases, None while that is not known. known_lease: the digest of the lease held for an
    attempt, which has been checked before, perhaps by a key that serves no more.
    """
    body = codec.decode(raw, OpenBody)
    envelope = parse_document(body.opening, Opening)
    check_document_context(envelope, root)
    envelope.verify()
    opening = open_document(envelope, Opening)
    attempt = Attempt(opening.job, opening.attempt)
    lease_envelope = parse_document(opening.lease, Lease)
    if lease_envelope.digest != known_lease(attempt):
        _check_lease(lease_envelope, root, serving)
    lease = open_document(lease_envelope, Lease)
    if envelope.key != lease.job_key:
        raise WrongLease(
            f"opened by key {show_key(envelope.key)[:8]}…, leased for job key {show_key(lease.job_key)[:8]}…"
        )
    if attempt != (lease.job, lease.attempt):
        raise WrongLease("the opening names one job or attempt and contains the lease of another")
    if lease.worker != worker:
        raise WrongLease(f"leased to worker {show_key(lease.worker)[:8]}…; this is {show_key(worker)[:8]}…")
    if opening.certificate != certificate:
        raise WrongCertificate(
            "the opening was made for another certificate: ask the tracker for this worker's newest peer record"
        )
    return Opened(attempt, lease, lease_envelope, body.private, body.prefix)


def _check_lease(envelope: Envelope, root: bytes, serving: bytes | None) -> None:
    check_document_context(envelope, root)
    if serving is None:
        raise Busy("this worker has not reached its tracker yet, so it cannot check the lease: try again in a moment")
    if envelope.key != serving:
        raise WrongLease(f"a lease by key {show_key(envelope.key)[:8]}…, which does not serve this horde")
    envelope.verify()
