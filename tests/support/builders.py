"""Builders of what the protocol speaks of: every argument has a sound default, so that a test shows only what matters.

All is deterministic: the same call gives the same bytes, keys and signatures included.
"""

from __future__ import annotations

import hashlib
from typing import Any, TypeVar

import msgspec

from protocol import codec
from protocol.digests import Artifact, output_digest, private_digest
from protocol.documents import (
    Acknowledgement,
    Asker,
    Award,
    Balances,
    Cancel,
    Checkpoint,
    Delegation,
    Denial,
    Document,
    Epoch,
    Lease,
    Leaving,
    Opening,
    PeerRecord,
    Profile,
    ReachProof,
    Receipt,
    Recovery,
    RelayEntry,
    RelayTicket,
    Request,
    Revocation,
    Rotation,
    RulesDocument,
    Serving,
    Settlement,
    Shown,
    Transfer,
    sign,
)
from protocol.envelope import Challenge, Envelope
from protocol.governing import Act, Answer, Appeal, Outcome, Proposal, Vote
from protocol.keys import SigningKey
from protocol.links import Link
from protocol.merkle import EMPTY_ROOT, leaf_hash
from protocol.rules import Rules, to_json
from protocol.work import ChatMessage, ImagePrivate, ImageWork, PrivatePart, PublicPart, TextPrivate, TextWork, Work

#: A moment, in milliseconds, at which all of these happen: 2026-01-01, 00:00 UTC.
NOW = 1_767_225_600_000
SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

IMAGE_MODEL = "potluck-shapes"
TEXT_MODEL = "smollm2-135m-instruct"

S = TypeVar("S", bound=msgspec.Struct)


def some_bytes(size: int, label: object = "") -> bytes:
    """Bytes that look random and are the same for the same label."""
    return hashlib.shake_256(f"potluck test {label}".encode()).digest(size)


def a_key(number: int = 0) -> SigningKey:
    """The key of that number."""
    return SigningKey(some_bytes(32, f"key {number}"))


#: Who signs in these examples.
ROOT = a_key(0)
SERVING = a_key(1)
WORKER = a_key(2)
REQUESTER = a_key(3)
JOB_KEY = a_key(4)
RECOVERY = a_key(7)
#: A key that acts for the requester's account, and one that takes its place.
DELEGATE = a_key(8)
SUCCESSOR = a_key(10)


def but(struct: S, **changes: object) -> S:
    """The same with some fields changed."""
    return msgspec.structs.replace(struct, **changes)


def a_handle(number: int = 0) -> bytes:
    """The 16-byte handle of a job."""
    return some_bytes(16, f"handle {number}")


def a_nonce(number: int = 0) -> bytes:
    """A nonce or session id of 16 bytes."""
    return some_bytes(16, f"nonce {number}")


def a_salt(number: int = 0) -> bytes:
    """A salt of 32 bytes."""
    return some_bytes(32, f"salt {number}")


def a_digest(label: object = 0) -> bytes:
    """A digest of something."""
    return hashlib.sha256(f"digest {label}".encode()).digest()


def a_link(url: str = "ws://127.0.0.1:8000", name: str = "a test horde", root: SigningKey = ROOT) -> Link:
    """A link that leads to the horde of `root`."""
    return Link(url, root.public, name)


def a_delegation(
    version: int = 1, expires: int = 0, serving: SigningKey = SERVING, root: SigningKey = ROOT
) -> Envelope:
    """The root's delegation to the serving key."""
    return sign(Serving(serving=serving.public, version=version, expires=expires), root, root.public)


def a_word_for(certificate: bytes, serving: SigningKey = SERVING, root: SigningKey = ROOT) -> Envelope:
    """The serving key's word for the certificate with this digest."""
    return sign(Shown(digest=certificate), serving, root.public)


def a_challenge(
    session: bytes | None = None, clock: int = NOW, root: SigningKey = ROOT, certificate: bytes = b""
) -> Challenge:
    """What a tracker says first, perhaps one whose certificate needs a word."""
    delegation = a_delegation(root=root).raw
    shown = a_word_for(certificate, root=root).raw if certificate else b""
    return Challenge(root=root.public, delegation=delegation, session=session or a_nonce(1), clock=clock, shown=shown)


def an_image_work(width: int = 64, height: int = 64, steps: int = 30, guidance_passes: int = 2) -> ImageWork:
    """The measures of a small picture."""
    return ImageWork(width=width, height=height, steps=steps, guidance_passes=guidance_passes)


def a_text_work(max_tokens: int = 74, context_tokens: int = 2048) -> TextWork:
    """The measures of a short text."""
    return TextWork(max_tokens=max_tokens, context_tokens=context_tokens)


def model_for(work: Work) -> str:
    """A model that makes such work."""
    return IMAGE_MODEL if isinstance(work, ImageWork) else TEXT_MODEL


def a_public_part(work: Work | None = None, models: tuple[str, ...] | None = None, n: int = 1) -> PublicPart:
    """The public part of a request."""
    work = work or an_image_work()
    return PublicPart(work=work, models=(model_for(work),) if models is None else models, n=n)


def an_image_private(prompt: str = "a small red circle on blue", seed: int = 7) -> ImagePrivate:
    """What a picture shows."""
    return ImagePrivate(prompt=prompt, seed=seed, salt=a_salt(1))


def a_text_private(content: str = "Why is the sky blue?", seed: int = 7) -> TextPrivate:
    """What a text answers."""
    return TextPrivate(messages=(ChatMessage(role="user", content=content),), seed=seed, salt=a_salt(1))


def a_private_part(work: Work | None = None) -> PrivatePart:
    """A private part that fits the work."""
    return a_text_private() if isinstance(work, TextWork) else an_image_private()


def a_request(
    public: PublicPart | None = None,
    private: PrivatePart | None = None,
    *,
    nonce: bytes | None = None,
    valid_until: int = NOW + HOUR // 2,
    job_key: SigningKey = JOB_KEY,
) -> Request:
    """A request, and through `private` the digest that binds its private part."""
    public = public or a_public_part()
    private = private or a_private_part(public.work)
    return Request(
        nonce=nonce or a_nonce(2),
        valid_until=valid_until,
        public=public,
        private_digest=private_digest(codec.encode(private)),
        job_key=job_key.public,
    )


def a_cancel(job: bytes | None = None, nonce: bytes | None = None, valid_until: int = NOW + HOUR // 2) -> Cancel:
    """A cancel of one job, or of all of its job key."""
    return Cancel(nonce=nonce or a_nonce(3), valid_until=valid_until, job=job)


def a_lease(
    request: Request | None = None,
    *,
    job: bytes | None = None,
    attempt: int = 1,
    index: int = 0,
    worker: SigningKey = WORKER,
    asker: Asker | None = None,
    issued: int = NOW,
    deadline: int = NOW + 10 * MINUTE,
    price: int = 7_600,
    paid: int = 7_600,
) -> Lease:
    """A lease of one job of the request."""
    request = request or a_request()
    model = next(iter(request.public.models), model_for(request.public.work))
    return Lease(
        job=job or a_handle(),
        attempt=attempt,
        worker=worker.public,
        model=model,
        public=but(request.public, models=(model,), n=1),
        index=index,
        private_digest=request.private_digest,
        job_key=request.job_key,
        asker=asker or Asker(),
        issued=issued,
        deadline=deadline,
        rules=1,
        price=price,
        paid=paid,
        free=price - paid,
    )


def a_peer_record(
    addresses: tuple[str, ...] = ("127.0.0.1:8443",), version: int = 1, certificate: bytes | None = None
) -> PeerRecord:
    """Where a worker is reached."""
    return PeerRecord(version=version, certificate=certificate or a_digest("certificate"), addresses=addresses)


def an_opening(lease: Envelope | None = None, certificate: bytes | None = None) -> Opening:
    """The opening of the stream of a lease."""
    lease = lease or signed(a_lease())
    body = codec.decode(lease.body, Lease)
    return Opening(
        job=body.job, attempt=body.attempt, certificate=certificate or a_digest("certificate"), lease=lease.raw
    )


def an_output_digest(content: bytes = b"a picture", media_type: str = "image/png", salt: bytes | None = None) -> bytes:
    """The output digest of one artifact."""
    return output_digest(salt or a_salt(2), [Artifact.of(media_type, content)])


def a_receipt(
    lease: Lease | None = None,
    *,
    output: bytes | None = None,
    used: int | None = None,
    partial: bool = False,
    finished: int = NOW + MINUTE,
) -> Receipt:
    """The worker's receipt for a lease, done in full unless `used` says otherwise."""
    lease = lease or a_lease()
    work = lease.public.work
    whole = work.steps if isinstance(work, ImageWork) else work.max_tokens
    return Receipt(
        job=lease.job,
        attempt=lease.attempt,
        output_digest=output or an_output_digest(),
        used=whole if used is None else used,
        context_used=0 if isinstance(work, ImageWork) else 20 + whole,
        partial=partial,
        engine="dry-run 1; cpu",
        finished=finished,
    )


def an_acknowledgement(receipt: Envelope | None = None, output: bytes | None = None) -> Acknowledgement:
    """The requester's acknowledgement of a receipt."""
    receipt = receipt or signed(a_receipt())
    body = codec.decode(receipt.body, Receipt)
    return Acknowledgement(
        job=body.job, attempt=body.attempt, output_digest=output or body.output_digest, receipt=receipt.raw
    )


def a_denial(receipt: Envelope | None = None, lease: Lease | None = None, reason: str = "digest_mismatch") -> Denial:
    """The requester's denial of an attempt."""
    lease = lease or a_lease()
    raw = receipt.raw if receipt else b""
    return Denial(job=lease.job, attempt=lease.attempt, reason=reason, receipt=raw)


def a_checkpoint(size: int = 0, root: bytes = EMPTY_ROOT, time: int = NOW, epoch: int = 0) -> Checkpoint:
    """A checkpoint of the ledger's tree."""
    return Checkpoint(size=size, root=root, time=time, epoch=epoch)


def a_balances(number: int = 1, start: int = 0, size: int = 1, previous: bytes = b"") -> Balances:
    """The word on where an archive ends."""
    return Balances(
        number=number,
        start=start,
        size=size,
        root=leaf_hash(b"a leaf"),
        time=NOW,
        balances=a_digest("balances"),
        books=a_digest("books"),
        file=a_digest("file"),
        previous=previous,
    )


def a_settlement(lease: Lease | None = None, burned: int = 3_000, entry: int = 1) -> Settlement:
    """The settlement of a lease, paid in full."""
    lease = lease or a_lease()
    return Settlement(
        job=lease.job,
        attempt=lease.attempt,
        paid=lease.paid,
        minted=lease.free,
        burned=burned,
        number=1,
        entry=entry,
        leaf=leaf_hash(b"a leaf"),
        checkpoint=signed(a_checkpoint()).raw,
        settled=NOW + 2 * MINUTE,
    )


def an_epoch(number: int = 1, size: int = 0, root: bytes = EMPTY_ROOT, former: SigningKey = SERVING) -> Epoch:
    """The root's word that the ledger goes on from a copy."""
    return Epoch(number=number, size=size, root=root, former=former.public, time=NOW)


def a_profile(name: str = "Ada", version: int = 1, *, public: bool = False, service: bool = False) -> Profile:
    """How an account is shown."""
    return Profile(version=version, name=name, public=public, service=service)


def a_delegation_to(
    delegate: SigningKey = DELEGATE,
    *,
    nonce: bytes | None = None,
    valid_until: int = NOW + HOUR // 2,
    expires: int = 0,
    work: bool = False,
    ask: bool = False,
    kudos: int | None = None,
    max_pixels: int = 0,
    max_steps: int = 0,
    max_tokens: int = 0,
    max_context: int = 0,
    models: tuple[str, ...] = (),
    label: str = "",
) -> Delegation:
    """An account's delegation to another key."""
    return Delegation(
        nonce=nonce or a_nonce(7),
        valid_until=valid_until,
        delegate=delegate.public,
        expires=expires,
        work=work,
        ask=ask,
        kudos=kudos,
        max_pixels=max_pixels,
        max_steps=max_steps,
        max_tokens=max_tokens,
        max_context=max_context,
        models=models,
        label=label,
    )


def a_revocation(
    delegation: bytes | None = None, *, nonce: bytes | None = None, valid_until: int = NOW + HOUR // 2
) -> Revocation:
    """A delegation, by its digest, is taken back."""
    return Revocation(
        nonce=nonce or a_nonce(8), valid_until=valid_until, delegation=delegation or a_digest("delegation")
    )


def a_recovery(recovery: SigningKey = RECOVERY, version: int = 1) -> Recovery:
    """An account names its recovery key."""
    return Recovery(version=version, recovery=recovery.public)


def a_rotation(
    former: SigningKey = REQUESTER,
    key: SigningKey = SUCCESSOR,
    *,
    nonce: bytes | None = None,
    valid_until: int = NOW + HOUR // 2,
) -> Rotation:
    """An account gets another key."""
    return Rotation(nonce=nonce or a_nonce(9), valid_until=valid_until, former=former.public, key=key.public)


def a_leaving(nonce: bytes | None = None, valid_until: int = NOW + HOUR // 2) -> Leaving:
    """An account ends."""
    return Leaving(nonce=nonce or a_nonce(10), valid_until=valid_until)


def a_transfer(
    to: int = 101, amount: int = 1_000, *, nonce: bytes | None = None, valid_until: int = NOW + HOUR // 2
) -> Transfer:
    """An account gives kudos away."""
    return Transfer(nonce=nonce or a_nonce(11), valid_until=valid_until, to=to, amount=amount)


def an_award(
    account: int = 100,
    amount: int = 50_000,
    reason: str = "for the pictures of the summer fair",
    *,
    nonce: bytes | None = None,
    valid_until: int = NOW + HOUR // 2,
) -> Award:
    """The operator makes kudos for an account."""
    return Award(nonce=nonce or a_nonce(12), valid_until=valid_until, account=account, amount=amount, reason=reason)


def a_rules_document(rules: Rules | None = None, version: int = 1, previous: bytes = b"") -> RulesDocument:
    """One version of the horde's rules."""
    return RulesDocument(version=version, issued=NOW, rules=to_json(rules or Rules()), previous=previous)


def an_act(act: str = "warn", **fields: Any) -> Act:
    """A moderator's act; a warning of the first account unless `fields` say otherwise."""
    values: dict[str, Any] = {
        "nonce": a_nonce(40),
        "valid_until": NOW + HOUR,
        "act": act,
        "rule": "filter.hate",
        "reason": "prompts that name a neighbour",
    }
    if not {"account", "block", "about"} & fields.keys():
        values["account"] = 100
    return Act(**values | fields)


def an_appeal(about: bytes = b"", **fields: Any) -> Appeal:
    """An account's answer to an act."""
    values: dict[str, Any] = {"nonce": a_nonce(41), "valid_until": NOW + HOUR, "text": "that neighbour is a cat"}
    return Appeal(**values | {"about": about or a_digest("an act")} | fields)


def a_proposal(**fields: Any) -> Proposal:
    """A change of one rule."""
    values: dict[str, Any] = {"nonce": a_nonce(42), "valid_until": NOW + HOUR, "key": "limits.max_n", "value": "30"}
    return Proposal(**values | {"text": "sheets of thirty"} | fields)


def a_vote(proposal: bytes = b"", *, yes: bool = True, version: int = 1) -> Vote:
    """A voice."""
    return Vote(version=version, proposal=proposal or a_digest("a proposal"), yes=yes)


def an_outcome(**fields: Any) -> Outcome:
    """How a vote ended."""
    values: dict[str, Any] = {"proposal": a_digest("a proposal"), "yes": 3, "no": 1, "accepted": True}
    values |= {"ended": NOW + DAY, "root": a_digest("votes"), "opened": NOW, "rules": 1, "size": 20, "voices": 7}
    return Outcome(**values | fields)


def an_answer(**fields: Any) -> Answer:
    """What an operator says of an outcome."""
    values: dict[str, Any] = {"nonce": a_nonce(43), "valid_until": NOW + HOUR, "proposal": a_digest("a proposal")}
    return Answer(**values | {"text": "no worker could draw so many"} | fields)


def a_relay_ticket(
    lease: Lease | None = None,
    *,
    relay: SigningKey = SERVING,
    url: str = "ws://127.0.0.1:8000",
    also: str = "",
    certificate: bytes = b"",
    max_bytes: int = 1_000_000,
    max_rate: int = 4_194_304,
    valid_until: int = NOW + 10 * MINUTE,
) -> RelayTicket:
    """A ticket for both sides of a lease."""
    lease = lease or a_lease()
    return RelayTicket(
        job=lease.job,
        attempt=lease.attempt,
        relay=relay.public,
        url=url,
        also=also,
        certificate=certificate,
        requester=lease.job_key,
        worker=lease.worker,
        max_bytes=max_bytes,
        max_rate=max_rate,
        valid_until=valid_until,
    )


def a_relay_entry(ticket: Envelope | None = None, challenge: bytes | None = None) -> RelayEntry:
    """One side of a ticket comes to its relay."""
    return RelayEntry(ticket=(ticket or signed(a_relay_ticket())).raw, challenge=challenge or a_nonce(20))


def a_reach_proof(challenge: bytes | None = None, certificate: bytes | None = None) -> ReachProof:
    """A peer answers where it was tried."""
    return ReachProof(challenge=challenge or a_salt(20), certificate=certificate or a_digest("certificate"))


#: Whose key signs which document in these examples.
SIGNERS: dict[str, SigningKey] = {
    "serving": ROOT,
    "epoch": ROOT,
    "lease": SERVING,
    "settlement": SERVING,
    "checkpoint": SERVING,
    "rules": SERVING,
    "request": REQUESTER,
    "cancel": JOB_KEY,
    "opening": JOB_KEY,
    "acknowledgement": JOB_KEY,
    "denial": JOB_KEY,
    "peer_record": WORKER,
    "receipt": WORKER,
    "profile": REQUESTER,
    "delegation": REQUESTER,
    "revocation": REQUESTER,
    "recovery": REQUESTER,
    "rotation": REQUESTER,
    "leaving": REQUESTER,
    "transfer": REQUESTER,
    "award": SERVING,
    "relay_ticket": SERVING,
    "relay_entry": JOB_KEY,
    "reach_proof": WORKER,
    "act": SERVING,
    "appeal": REQUESTER,
    "proposal": REQUESTER,
    "vote": REQUESTER,
    "outcome": SERVING,
    "answer": SERVING,
}


def signed(document: Document, key: SigningKey | None = None, root: SigningKey = ROOT) -> Envelope:
    """The document's envelope, by the key that signs such in these examples unless another is given."""
    return sign(document, key or SIGNERS[document.KIND], root.public)
