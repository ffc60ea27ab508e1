"""The signed papers of a horde: who may sign for it, its rules, and every document that is kept as evidence."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from protocol import codec, documents
from protocol.documents import (
    Acknowledgement,
    Award,
    Balances,
    Cancel,
    Checkpoint,
    Delegation,
    Denial,
    Document,
    Epoch,
    Evidence,
    Lease,
    Leaving,
    Profile,
    Receipt,
    Recovery,
    Request,
    Revocation,
    Rotation,
    RulesDocument,
    Serving,
    Settlement,
    Transfer,
)
from protocol.envelope import Envelope, check_delegation, check_document_context, parse
from protocol.errors import Refusal
from protocol.governing import Act, Answer, Appeal, Outcome, Proposal, Vote
from protocol.kinds import DOCUMENTS
from protocol.rules import Rules, from_json
from tracker.audit.report import Findings
from tracker.store.base import StoreError
from tracker.store.sqlite.papers import epoch_identity, job_identity, version_identity, vote_identity

#: What the serving key alone may say.
OF_THE_HORDE = frozenset(
    {Lease.KIND, Settlement.KIND, Checkpoint.KIND, Balances.KIND, RulesDocument.KIND, Outcome.KIND}
)

D = TypeVar("D", bound=Document)


@dataclass(frozen=True)
class Version:
    """One version of the rules. issued: milliseconds."""

    rules: Rules
    issued: int


@dataclass(frozen=True)
class Horde:
    """Who may sign. root: the horde's id; serving: the key that it appointed. epoch: raised by each restore. former:
    keys that served before, each with the number of the first entry that a restore has cut."""

    root: bytes
    serving: bytes
    epoch: int
    former: dict[bytes, int]

    @property
    def keys(self) -> tuple[bytes, ...]:
        """Every key that served, the newest first."""
        return self.serving, *reversed(self.former)

    def is_cut(self, signer: bytes, entry: int) -> bool:
        """Whether a restore cut this entry of that key."""
        return signer in self.former and entry >= self.former[signer]


@dataclass(frozen=True)
class Paper(Generic[D]):
    """One document as it is kept."""

    envelope: Envelope
    body: D


def read_horde(connection: sqlite3.Connection, root: bytes | None, findings: Findings) -> Horde:
    """Whose ledger this is; raises `StoreError` if nothing can be checked for want of that."""
    row = connection.execute("SELECT root, delegation, epoch FROM horde").fetchone()
    if row is None:
        raise StoreError("the database holds no horde: nothing has been made in it")
    claimed, delegation, epoch = row
    findings.expect("the horde's root key", claimed, root or claimed)
    try:
        envelope = parse(delegation)
        check_delegation(envelope, root or claimed)
        said = documents.open_document(envelope, Serving)
    except Refusal as refusal:
        raise StoreError(f"the root's delegation in the database is not one ({refusal}): restore a backup") from refusal
    findings.expect("the stored epoch", epoch, said.epoch)
    former = {known.key: known.entries for known in said.former}
    return Horde(root or claimed, said.serving, said.epoch, former)


def read_epochs(connection: sqlite3.Connection, horde: Horde) -> list[Paper[Epoch]]:
    """The root's word on each restore, in their order; what cannot be read is `check_documents`' matter."""
    rows = connection.execute(
        "SELECT d.raw FROM papers p JOIN documents d ON d.rowid = p.place WHERE p.signer = ? AND p.kind = ?"
        " ORDER BY d.identity",
        (horde.root, Epoch.KIND),
    )
    found = []
    for (raw,) in rows:
        with suppress(Refusal):
            found.append(Paper(*open_kept(raw, Epoch)))
    return found


def read_rules(connection: sqlite3.Connection, horde: Horde, findings: Findings) -> dict[int, Version]:
    """Every version of the rules by its number, each signed and naming the one before."""
    versions: dict[int, Version] = {}
    previous = b""
    rows = connection.execute("SELECT version, digest, document FROM rules ORDER BY version")
    for expected, (version, digest, raw) in enumerate(rows, 1):
        what = f"rules version {version}"
        try:
            envelope = _checked(raw, horde, RulesDocument)
            body = documents.open_document(envelope, RulesDocument)
            versions[version] = Version(from_json(body.rules), body.issued)
        except (Refusal, msgspec.DecodeError) as error:
            findings.add(what, error, "a document of the serving key")
            continue
        findings.expect("the rules' numbers", version, expected)
        findings.expect(f"{what}: number in the document", body.version, version)
        findings.expect(f"{what}: digest", digest, envelope.digest)
        findings.expect(f"{what}: the version before", body.previous, previous)
        previous = envelope.digest
    if not versions:
        findings.add("the rules", None, "at least one version")
    return versions


def version_at(versions: dict[int, Version], time: int) -> int:
    """The number of the version that was in force at that time, 0 if none was."""
    return max((number for number, version in versions.items() if version.issued <= time), default=0)


def index_documents(connection: sqlite3.Connection) -> None:
    """Lay out, beside the database, where documents are by digest and by signer: a tracker never asks that."""
    connection.execute("CREATE TEMP TABLE papers AS SELECT digest, signer, kind, rowid AS place FROM documents")
    connection.execute("CREATE INDEX temp.papers_by_digest ON papers (digest)")
    connection.execute("CREATE INDEX temp.papers_by_signer ON papers (signer, kind)")


def check_documents(connection: sqlite3.Connection, horde: Horde, findings: Findings) -> int:
    """Signature, context, kind, digest and identity of every document; how many there are. What is wrong with one
    that an entry rests on is that entry's fault."""
    count = 0
    resting = _Resting(connection)
    for digest, signer, kind, identity, raw in connection.execute(
        "SELECT digest, signer, kind, identity, raw FROM documents"
    ):
        count += 1
        what = f"document {digest[:8].hex()}… ({kind})"
        try:
            envelope = _checked(raw, horde, DOCUMENTS.get(kind, Document))
            body = codec.decode(envelope.body, DOCUMENTS[envelope.kind])
        except (Refusal, KeyError) as error:
            findings.add(what, error, "a signed document of its kind", resting.entry(digest))
            continue
        right = (envelope.digest, envelope.kind, envelope.key, _identity_of(body) or identity)
        for name, found, wanted in zip(
            ("digest", "kind", "signer", "identity"), (digest, kind, signer, identity), right, strict=True
        ):
            if found != wanted:
                findings.add(f"{what}: {name}", found, wanted, resting.entry(digest, envelope.digest))
    return count


class _Resting:
    """Which entry rests on a document; the evidence is read when something is wrong for the first time."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._entries: dict[bytes, int] | None = None

    def entry(self, *digests: bytes) -> int | None:
        """The first entry that rests on a document with one of these digests."""
        if self._entries is None:
            self._entries = {}
            for index, raw in self._connection.execute("SELECT entry, evidence FROM entries ORDER BY entry"):
                with suppress(Refusal):
                    for digest in codec.decode(raw, Evidence).documents:
                        self._entries.setdefault(digest, index)
        return next((self._entries[digest] for digest in digests if digest in self._entries), None)


def check_equivocations(connection: sqlite3.Connection, horde: Horde, findings: Findings) -> None:
    """Each proof is two different documents of one key and kind."""
    for digest, first, raw in connection.execute("SELECT digest, first, raw FROM equivocations"):
        what = f"equivocation {digest[:8].hex()}…"
        row = connection.execute("SELECT signer, kind FROM papers WHERE digest = ?", (first,)).fetchone()
        try:
            envelope = _checked(raw, horde, Document)
        except Refusal as refusal:
            findings.add(what, refusal, "a signed document")
            continue
        findings.expect(f"{what}: digest", digest, envelope.digest)
        findings.expect(
            f"{what}: signer and kind of the document that it contradicts", row, (envelope.key, envelope.kind)
        )


class Papers:
    """Documents by their digest; their signatures are `check_documents`' matter."""

    def __init__(self, connection: sqlite3.Connection, findings: Findings) -> None:
        self._connection = connection
        self._findings = findings

    def find(self, digest: bytes, of: type[D], entry: int) -> Paper[D] | None:
        """The document that an entry's evidence names; a finding if there is none of this kind."""
        row = self._connection.execute(
            "SELECT raw FROM documents WHERE rowid = (SELECT place FROM papers WHERE digest = ?)", (digest,)
        ).fetchone()
        return self._open(row, of, entry, digest)

    def find_by_identity(self, signer: bytes, of: type[D], identity: bytes, entry: int) -> Paper[D] | None:
        """The document that stands under an identity; a finding if there is none."""
        row = self._connection.execute(
            "SELECT raw FROM documents WHERE signer = ? AND kind = ? AND identity = ?",
            (signer, of.KIND, identity),
        ).fetchone()
        return self._open(row, of, entry, identity)

    def _open(self, row: tuple[bytes] | None, of: type[D], entry: int, name: bytes) -> Paper[D] | None:
        if row is None:
            self._findings.add(f"the {of.KIND} of the evidence", None, f"document {name[:8].hex()}…", entry)
            return None
        try:
            return Paper(*open_kept(row[0], of))
        except Refusal as refusal:
            self._findings.add(f"the {of.KIND} of the evidence", refusal, f"a {of.KIND}", entry)
            return None


def check_signed(raw: bytes, horde: Horde, of: type[D]) -> tuple[Envelope, D]:
    """The document in `raw`, all of it checked; raises a `Refusal`."""
    envelope = _checked(raw, horde, of)
    return envelope, documents.open_document(envelope, of)


def open_kept(raw: bytes | None, of: type[D]) -> tuple[Envelope, D]:
    """The document in `raw`, whose signature is `check_documents`' matter; raises a `Refusal`."""
    envelope = documents.parse_document(raw or b"", of)
    return envelope, documents.open_document(envelope, of)


def _checked(raw: bytes, horde: Horde, of: type[Document]) -> Envelope:
    envelope = parse(raw, limit=max(of.MAX_BYTES, RulesDocument.MAX_BYTES))
    check_document_context(envelope, horde.root)
    envelope.verify()
    if envelope.kind in OF_THE_HORDE and envelope.key not in horde.keys:
        raise Refusal(f"a {envelope.kind} by another key than the serving key and those that served before")
    if envelope.kind == Epoch.KIND and envelope.key != horde.root:
        raise Refusal("an epoch by another key than the root key")
    return envelope


def _identity_of(body: Document) -> bytes | None:
    match body:
        case Request() | Cancel() | Transfer() | Award() | Delegation() | Revocation() | Rotation() | Leaving():
            return body.nonce
        case Act() | Appeal() | Proposal() | Answer():
            return body.nonce
        case Vote():
            return vote_identity(body.proposal, body.version)
        case Outcome():
            return body.proposal
        case Profile() | Recovery():
            return version_identity(body.version)
        case Lease() | Receipt() | Acknowledgement() | Denial() | Settlement():
            return job_identity(body.job, body.attempt)
        case Epoch():
            return epoch_identity(body.number)
        case _:
            return None
