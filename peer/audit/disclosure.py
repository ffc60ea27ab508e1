"""The disclosure of a job: its commitments opened, in a document by which a party shows anybody what it paid or was
paid, and that the ledger holds it.

It is made of what the tracker discloses to the party and of what the party keeps. Whoever gets it learns what it says:
the exact times, the job's handle, the documents in it. Nothing else in the ledger is opened by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from peer.audit.histories import NotShown
from peer.audit.horde import Horde
from peer.audit.mine import Party
from protocol import codec, merkle
from protocol.digests import commitment
from protocol.documents import (
    Checkpoint,
    Evidence,
    Leaf,
    Lease,
    Receipt,
    Request,
    Settlement,
    open_document,
    parse_document,
)
from protocol.envelope import Envelope, check_document_context, parse
from protocol.errors import Refusal
from protocol.keys import parse_key, show_key
from protocol.public import Opened, OpenedEntry


class Disclosure(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="disclosure"):
    """JSON; bytes in base64. horde: its id. delegation, checkpoint: envelopes. entries: those of one job, with their
    evidence and their proofs. documents: envelopes that the evidence names, and the settlement."""

    horde: str
    delegation: bytes
    checkpoint: bytes
    entries: tuple[OpenedEntry, ...]
    documents: tuple[bytes, ...]


@dataclass(frozen=True)
class Shows:
    """What one entry shows. signers: kind and key of each document behind it; missing: how many are not here."""

    entry: int
    event: str
    time: int
    job: bytes
    postings: tuple[tuple[int, int], ...]
    signers: tuple[tuple[str, bytes], ...]
    missing: int

    def lines(self) -> Iterator[str]:
        """For people."""
        from peer.commands.common import show_kudos

        moved = ", ".join(f"account {account} {show_kudos(amount)}" for account, amount in self.postings)
        yield f"entry {self.entry}: {self.event} of job {self.job.hex()} at {self.time}: {moved or 'nothing moved'}"
        for kind, key in self.signers:
            yield f"  {kind} signed by {show_key(key)}"
        if self.missing:
            yield f"  {self.missing} documents behind it are not shown"


def make_disclosure(party: Party, opened: Opened, root: bytes) -> Disclosure:
    """The document for a party, from what the tracker opened to it; raises `NotShown` if that is not right."""
    made = Disclosure(
        horde=show_key(root),
        delegation=opened.delegation,
        checkpoint=opened.checkpoint,
        entries=opened.entries,
        documents=tuple(raw for raw in (party.settlement, party.lease, party.receipt, party.request) if raw),
    )
    check_disclosure(made)
    return made


def check_disclosure(made: Disclosure) -> Sequence[Shows]:
    """What it shows, entry by entry; raises `NotShown`."""
    try:
        horde = Horde.of(made.delegation, parse_key(made.horde))
        signed, checkpoint = horde.open(made.checkpoint, Checkpoint)
        papers = {envelope.digest: envelope for envelope in _papers(made, horde)}
        shows = [_entry(entry, checkpoint, papers) for entry in made.entries]
    except (Refusal, ValueError) as error:
        raise NotShown(f"something in it is not what it should be: {error}") from error
    if not shows:
        raise NotShown("it opens no entry")
    if any(horde.is_cut(signed.key, one.entry) for one in shows):
        raise NotShown("the root has signed that a restore cut an entry in it")
    if len({one.job for one in shows}) != 1:
        raise NotShown("its entries are of different jobs")
    for envelope in papers.values():
        if envelope.kind == Settlement.KIND:
            _check_settlement(open_document(envelope, Settlement), shows, made.entries)
    return shows


def _papers(made: Disclosure, horde: Horde) -> Iterator[Envelope]:
    """The documents, each with a signature that holds; those of the horde by a key of the horde."""
    for raw in made.documents:
        kind = parse(raw).kind
        if kind in (Request.KIND, Receipt.KIND):
            envelope = parse_document(raw, Request if kind == Request.KIND else Receipt)
            check_document_context(envelope, horde.root)
            envelope.verify()
            yield envelope
        else:
            yield horde.open(raw, Settlement if kind == Settlement.KIND else Lease)[0]


def _entry(opened: OpenedEntry, checkpoint: Checkpoint, papers: dict[bytes, Envelope]) -> Shows:
    hashed = merkle.leaf_hash(opened.leaf)
    if not merkle.verify_inclusion(hashed, opened.entry, checkpoint.size, opened.proof, checkpoint.root):
        raise NotShown(f"entry {opened.entry}: the proof does not lead to the checkpoint")
    leaf, evidence = codec.decode(opened.leaf, Leaf), codec.decode(opened.evidence, Evidence)
    if leaf.evidence != commitment(evidence.salt, opened.evidence):
        raise NotShown(f"entry {opened.entry}: the evidence is not what the leaf commits to")
    if evidence.job is None or leaf.hold != commitment(evidence.salt, evidence.job):
        raise NotShown(f"entry {opened.entry}: the job is not what the leaf commits to")
    here = [papers[digest] for digest in evidence.documents if digest in papers]
    return Shows(
        entry=opened.entry,
        event=leaf.event,
        time=evidence.time,
        job=evidence.job,
        postings=leaf.postings,
        signers=tuple((envelope.kind, envelope.key) for envelope in here),
        missing=len(evidence.documents) - len(here),
    )


def _check_settlement(said: Settlement, shows: Sequence[Shows], entries: Sequence[OpenedEntry]) -> None:
    """The settlement in it speaks of this job, and of an entry that is opened."""
    if any(one.job != said.job for one in shows):
        raise NotShown("the settlement in it is of another job")
    named = [entry for entry in entries if entry.entry == said.entry]
    if not named or merkle.leaf_hash(named[0].leaf) != said.leaf:
        raise NotShown("the settlement in it names an entry that is not opened")
