"""Restores along the ledger: which epoch an entry belongs to, and which key served then."""

from __future__ import annotations

from collections.abc import Sequence

from protocol.documents import Epoch
from tracker.audit.entry import Entry
from tracker.audit.papers import Horde, Paper
from tracker.audit.report import Findings


class Epochs:
    """Goes along with the walk. number: the epoch that was reached. epochs: the root's words, in their order."""

    def __init__(self, epochs: Sequence[Paper[Epoch]], horde: Horde, findings: Findings) -> None:
        self.number = 0
        self._horde = horde
        self._findings = findings
        self._rest = list(epochs)

    @property
    def serving(self) -> bytes:
        """The key that served in this epoch."""
        return self._rest[0].body.former if self._rest else self._horde.serving

    def begins_at(self, index: int) -> bool:
        """Whether the next epoch begins with this entry."""
        return bool(self._rest) and self._rest[0].body.size == index

    def entered(self, entry: Entry, before: bytes) -> None:
        """An `epoch` entry; `before` is the root of the tree in front of it."""
        named = entry.evidence.documents
        if not self._rest or named != (self._rest[0].envelope.digest,):
            self._findings.add("an epoch", named, "the root's next word on a restore", entry.index)
            return
        said = self._rest.pop(0).body
        self._findings.expect("the epoch's size", said.size, entry.index, entry.index)
        self._findings.expect("the epoch's root of the tree", said.root, before, entry.index)
        self._findings.expect("the postings of an epoch", entry.moved, (), entry.index)
        self._findings.expect("the time of an epoch", entry.evidence.time, said.time, entry.index)
        if said.number <= self.number:
            self._findings.add("the epoch's number", said.number, f"more than {self.number}", entry.index)
        if self._horde.former.get(said.former, said.size + 1) > said.size:
            self._findings.add("the delegation", "leaves the epoch's former key out", "it, as cut here", entry.index)
        self.number = said.number

    def end(self) -> None:
        """The last entry was seen."""
        self._findings.expect("the newest epoch in the ledger", self.number, self._horde.epoch)
        for missing in self._rest:
            self._findings.add(f"epoch {missing.body.number}", "not in the ledger", f"entry {missing.body.size}")
