"""What peers show after a restore: settlements by keys that served before, checked in themselves."""

from __future__ import annotations

from typing import TypeVar

from protocol import documents
from protocol.documents import Document, Lease, Receipt, Request, Serving, Settlement
from protocol.envelope import Envelope, check_document_context
from protocol.errors import ReceiptMismatch, WrongSigner
from protocol.messages import Kept
from tracker.store.base import Shown

D = TypeVar("D", bound=Document)


def read_kept(said: Kept, root: bytes, delegation: Serving, sender: bytes) -> Shown:
    """What `sender` shows, every signature and every relation between the documents checked; raises a `Refusal`.

    Whether the entry was cut, and what of it is entered already, is the ledger's matter (`Store.recover`).
    """
    former = {known.key for known in delegation.former}
    settlement = _open(said.settlement, Settlement, root)
    _check_signer(settlement[0], former)
    lease = _open(said.lease, Lease, root)
    _check_signer(lease[0], former | {delegation.serving})
    receipt = _open(said.receipt, Receipt, root)
    request = _open(said.request, Request, root) if said.request else None
    check_relations(settlement[1], lease[1], receipt)
    if request is not None:
        _check_request(*request, lease[1], sender)
    elif sender != lease[1].worker:
        raise WrongSigner("a settlement is shown by its worker, or by the requester together with the request")
    return Shown(settlement, lease, receipt, request)


def uncovered(lease: Lease, settlement: Settlement) -> int:
    """Which part of the price nobody paid, as far as these two tell; the receipt's use counts only where it shows."""
    if settlement.paid < lease.paid:
        return 0
    rest = lease.price - lease.paid
    return rest * settlement.minted // lease.free if lease.free else rest


def _open(raw: bytes, of: type[D], root: bytes) -> tuple[Envelope, D]:
    envelope = documents.parse_document(raw, of)
    check_document_context(envelope, root)
    envelope.verify()
    return envelope, documents.open_document(envelope, of)


def _check_signer(envelope: Envelope, keys: set[bytes]) -> None:
    if envelope.key not in keys:
        raise WrongSigner(f"a {envelope.kind} by a key that has not served this horde before")


def check_relations(settlement: Settlement, lease: Lease, receipt: tuple[Envelope, Receipt]) -> None:
    """Refuse documents that do not belong together."""
    envelope, made = receipt
    if not (settlement.job, settlement.attempt) == (lease.job, lease.attempt) == (made.job, made.attempt):
        raise ReceiptMismatch("settlement, lease and receipt speak of different attempts")
    if envelope.key != lease.worker:
        raise WrongSigner("the receipt is by another worker than the one that the lease names")
    too_much = settlement.paid > lease.paid or settlement.minted > lease.free
    if too_much or settlement.withheld > settlement.paid + settlement.minted or settlement.partial != made.partial:
        raise ReceiptMismatch("the settlement pays more than its lease, or for another receipt")


def _check_request(envelope: Envelope, request: Request, lease: Lease, sender: bytes) -> None:
    if envelope.key != sender:
        raise WrongSigner("a request by another key than this session's")
    if (request.job_key, request.private_digest) != (lease.job_key, lease.private_digest):
        raise WrongSigner("the lease is of another request")
