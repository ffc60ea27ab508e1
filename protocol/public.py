"""What a tracker publishes of its ledger, and what it discloses to the two parties of a job: bodies of HTTP answers.

They are read by `potluck audit` as they come, and from the folder that `potluck-tracker export` writes.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from protocol.codec import Body
from protocol.documents import Count, Document, Leaf
from protocol.work import Digest, Thousandths

#: Entries in one part. Parts begin at its multiples, so that a whole part never changes but by a restore.
PART_ENTRIES = 1000
#: An answer that is larger is not read.
MAX_PART_BYTES = PART_ENTRIES * (Document.MAX_BYTES + 1024)
MAX_HEAD_BYTES = 64 * 1024
MAX_PROOF_BYTES = 16 * 1024
MAX_PROPOSALS_BYTES = 4 * 1024 * 1024
MAX_PROPOSALS_FILE = 64 * 1024 * 1024
MAX_OPENED_BYTES = 256 * 1024
#: Services in one answer.
SERVICES_SHOWN = 1000
#: More than this are not listed; anybody can be one.
MAX_SERVICES = 100_000
MAX_SERVICES_BYTES = 1024 * 1024
MAX_SERVICES_FILE = 16 * 1024 * 1024
MAX_BALANCES_BYTES = 32 * 1024 * 1024

#: An exported ledger's files: its head in JSON, parts by their first entry, rules by their version, balances by size.
HEAD_FILE = "ledger.json"
ENTRIES_FOLDER = "entries"
RULES_FOLDER = "rules"
#: What was proposed, with outcomes and answers, as `/proposals` shows it: JSON.
PROPOSALS_FILE = "proposals.json"
BALANCES_FOLDER = "balances"
#: Which accounts are services: JSON.
SERVICES_FILE = "services.json"

#: Events whose evidence is public: acts of the root, of operators and of moderators, which concern everybody.
OPEN_EVENTS = ("award", "epoch", "act", "return", "trust")


class Row(Body, frozen=True, kw_only=True):
    """One entry as anybody may see it. leaf: its bytes. evidence, document: of `OPEN_EVENTS`, else empty."""

    leaf: bytes
    evidence: bytes = b""
    document: bytes = b""


class Part(Body, frozen=True, kw_only=True):
    """Entries from number `first` on."""

    first: Count
    rows: Annotated[tuple[Row, ...], Meta(max_length=PART_ENTRIES)]


class End(msgspec.Struct, frozen=True, kw_only=True):
    """Where an archive ends, so that an audit can begin there. size: entries up to it. day: of the last of them."""

    size: int
    day: int


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """Where the ledger stands; JSON, with documents in base64.

    root: the horde's id as people see it. delegation: the root's to the serving key. checkpoint: the newest one, to
    which proofs lead. public: the one up to which entries can be read. rules: version in force. delay_days: how many
    days after its own an entry can be read. archives: where they end, the oldest first.
    """

    root: str
    delegation: bytes
    checkpoint: bytes
    public: bytes
    rules: int
    delay_days: int
    archives: tuple[End, ...] = ()


class Balances(Body, frozen=True, kw_only=True):
    """What an audit goes on from where an archive ends. document: the envelope of the signed `balances`. balances: all
    accounts that have not zero there. peaks: roots of the perfect subtrees of the tree there, the largest first."""

    document: bytes
    balances: tuple[tuple[int, Thousandths], ...]
    peaks: Annotated[tuple[Digest, ...], Meta(max_length=64)]


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """An account that asks for users of its own, and its name as people see it, by the tracker's word."""

    account: int
    name: str


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """Services by their accounts; JSON. after: what to ask on with, None if these are the last."""

    services: tuple[Service, ...]
    after: int | None = None


class Inclusion(msgspec.Struct, frozen=True, kw_only=True):
    """That an entry is in the tree of the first `size` entries; hashes in hex. leaf: the entry's hash."""

    entry: int
    size: int
    leaf: str
    proof: tuple[str, ...]


class Consistency(msgspec.Struct, frozen=True, kw_only=True):
    """That the tree of `later` entries continues that of `earlier`; hashes in hex. root: of the earlier one."""

    earlier: int
    later: int
    root: str
    proof: tuple[str, ...]


class AskDisclosure(Body, frozen=True, kw_only=True):
    """A party wants its commitments opened. settlement: its envelope. request: the envelope of the request, which only
    who asked has; it opens the hold and what came back of it too."""

    settlement: bytes
    request: bytes = b""


class OpenedEntry(Body, frozen=True, kw_only=True):
    """One entry with what its commitments hide. proof: that it is in the tree of the checkpoint beside it."""

    entry: Count
    leaf: bytes
    evidence: bytes
    proof: Annotated[tuple[Digest, ...], Meta(max_length=64)]


class Opened(Body, frozen=True, kw_only=True):
    """The answer: the entries of one job, and the checkpoint to which their proofs lead."""

    delegation: bytes
    checkpoint: bytes
    entries: Annotated[tuple[OpenedEntry, ...], Meta(max_length=8)]


def is_open(leaf: Leaf) -> bool:
    """Whether the evidence beside this leaf is public."""
    return leaf.event in OPEN_EVENTS


def part_of(entry: int) -> int:
    """The first entry of the part in which this one is."""
    return entry - entry % PART_ENTRIES


def part_name(first: int) -> str:
    """The name of a part's file: names are in the order of the entries."""
    return f"{first:012}"
