"""One entry of the ledger, as the passes of an audit hand it on."""

from __future__ import annotations

from dataclasses import dataclass

from protocol.documents import Evidence
from protocol.postings import Postings


@dataclass(frozen=True)
class Entry:
    """An entry as the ledger has it: index, hash of the leaf, postings, opened evidence."""

    index: int
    hash: bytes
    moved: Postings
    evidence: Evidence
