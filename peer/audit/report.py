"""What an audit of a public ledger found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

#: More than this many findings say nothing new; the rest is counted.
MAX_FINDINGS = 200


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is not as it must be.

    kind: `rewritten` (what this peer was told is not in the ledger), `two_histories` (what somebody else was told is
    not), `unproven` (the tracker does not show that it is), `tree`, `leaf`, `postings`, `balance`, `document` or
    `rules`. entry: the entry that it concerns, if it is one. evidence: the file that shows it to anybody, if there is
    one.
    """

    kind: str
    text: str
    entry: int | None = None
    evidence: str = ""


@dataclass
class Findings:
    """Findings as they come in."""

    kept: list[Finding] = field(default_factory=list)
    count: int = 0

    def add(self, kind: str, text: str, entry: int | None = None, evidence: str = "") -> None:
        """Note a finding."""
        self.count += 1
        if len(self.kept) < MAX_FINDINGS:
            self.kept.append(Finding(kind=kind, text=text, entry=entry, evidence=evidence))


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The result.

    root: the horde's id; known: whether it is known from a link, and not only from the tracker's word. place: what was
    read. size, time, tree: of the checkpoint to which proofs lead. read: entries that were read and added up, None if
    none were to be. accounts: people among them; minted, burned: in thousandths. epoch: how often the ledger was
    restored. rules: versions. shown: checkpoints that were compared; of others: those that somebody else was shown.
    own: settlements of this peer that are in the ledger; pending: not covered by a checkpoint yet. cut: checkpoints
    and settlements that a restore has cut openly. in_debt: accounts below zero since they were charged after a restore.
    """

    ok: bool
    root: str
    known: bool
    place: str
    size: int
    time: int
    tree: str
    epoch: int
    read: int | None = None
    accounts: int = 0
    minted: int = 0
    burned: int = 0
    rules: int = 0
    shown: int = 0
    of_others: int = 0
    own: int = 0
    pending: int = 0
    cut: int = 0
    in_debt: int = 0
    findings: tuple[Finding, ...] = ()
    more: int = 0

    def lines(self) -> Iterator[str]:
        """For people."""
        from peer.commands.common import show_kudos

        yield f"horde {self.root}{'' if self.known else ' (by its own word: no link to it was joined here)'}"
        yield f"{self.place} shows {self.size:,} entries; the tree's root is {self.tree}"
        if self.read is not None:
            yield (
                f"{self.read:,} of them can be read: {self.accounts:,} accounts, {show_kudos(self.minted)} kudos"
                f" minted, {show_kudos(self.burned)} burned, {self.rules} versions of the rules"
            )
        if self.epoch:
            yield f"the root has signed for {self.epoch} restores, which cut {self.cut} things that this peer knew"
        yield f"compared with {self.shown} checkpoints that this peer was shown"
        if self.of_others:
            yield f"and with {self.of_others} that somebody else was shown"
        yield f"{self.own} settlements of this peer are in it{self._pending()}"
        if self.in_debt:
            yield f"NOTE {self.in_debt} accounts are below zero: they were charged anew after a restore"
        for finding in self.findings:
            where = f"entry {finding.entry}: " if finding.entry is not None else ""
            yield f"FAULT {finding.kind}: {where}{finding.text}"
            if finding.evidence:
                yield f"      shown to anybody by: potluck audit --check {finding.evidence}"
        if self.more:
            yield f"FAULT and {self.more} more"
        yield "all that can be checked is right" if self.ok else "NOT right"

    def _pending(self) -> str:
        return f", {self.pending} are not covered by this checkpoint yet" if self.pending else ""
