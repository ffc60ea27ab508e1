"""What an audit of a public ledger found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

#: More than this many findings say nothing new; the rest is counted.
MAX_FINDINGS = 200
#: People are told of so many services, those that took most.
MAX_SERVICES_TOLD = 20


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is not as it must be.

    kind: `rewritten` (what this peer was told is not in the ledger), `two_histories` (what somebody else was told is
    not), `unproven` (the tracker does not show that it is), `held_back` (entries that everybody could read by now),
    `tree`, `leaf`, `postings`, `balance`, `document`, `rules` or `votes`. entry: the entry that it concerns, if it is
    one. evidence: the file that shows it to anybody, if there is one.
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


class ServiceFound(msgspec.Struct, frozen=True, kw_only=True):
    """A service, by the tracker's word; gave, took: its account by the entries that were read, in thousandths."""

    account: int
    name: str
    gave: int
    took: int


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The result.

    root: the horde's id; known: whether it is known from a link, and not only from the tracker's word. place: what
    was read. size, time, tree: of the checkpoint to which proofs lead. read: entries that were read and added up,
    None if none were to be; until: how far they go, milliseconds. accounts: people among them; minted, burned: in
    thousandths. epoch: how often the ledger was restored. rules: versions. shown: checkpoints that were compared;
    of_others: those that somebody else was shown. own: settlements of this peer that are in the ledger; pending: not
    covered by a checkpoint yet. cut: checkpoints and settlements that a restore has cut openly; cut_until: when the
    last of them was signed. in_debt: accounts below zero since they were charged after a restore. begins: the first
    entry that was read, with balances taken from the horde; unknown_acts: acts that speak of earlier ones. proposals:
    that were looked at; votes: of this peer that are among those counted. services: what each gave and took.
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
    cut_until: int = 0
    until: int = 0
    services: tuple[ServiceFound, ...] = ()
    in_debt: int = 0
    begins: int = 0
    unknown_acts: int = 0
    proposals: int = 0
    votes: int = 0
    findings: tuple[Finding, ...] = ()
    more: int = 0

    def lines(self) -> Iterator[str]:
        """For people."""
        from peer.commands.common import show_kudos

        yield f"horde {self.root}{'' if self.known else ' (by its own word: no link to it was joined here)'}"
        yield f"{self.place} shows {self.size:,} entries at {_when(self.time)}; the tree's root is {self.tree}"
        if self.read is not None:
            yield (
                f"{self.read:,} of them can be read, up to {_when(self.until)}: {self.accounts:,} accounts,"
                f" {show_kudos(self.minted)} kudos minted, {show_kudos(self.burned)} burned, {self.rules} versions of"
                " the rules"
            )
            if self.size and not self.read:
                yield "entries can be read when their day is over (rule ledger.delay_days); proofs are given at once"
        if self.epoch:
            newest = f", signed until {_when(self.cut_until)}" if self.cut else ""
            cut = f"{self.cut} things that this peer knew{newest}"
            yield f"the root has signed for {self.epoch} restores, which cut {cut}"
        yield f"compared with {self.shown} checkpoints that this peer was shown"
        if self.of_others:
            yield f"and with {self.of_others} that somebody else was shown"
        yield f"{self.own} settlements of this peer are in it{self._pending()}"
        if self.proposals:
            proposals = f"{self.proposals} proposal{'' if self.proposals == 1 else 's'}"
            yield f"{proposals}; {self.votes} votes of this peer are among those that were counted"
        if self.begins:
            yield (
                f"NOTE it was read from entry {self.begins:,} on: the balances there were taken as the horde signed"
                f" them, and what is before was not added up{self._unknown()}"
            )
        for one in sorted(self.services, key=lambda one: -one.took)[:MAX_SERVICES_TOLD]:
            yield f"service {one.name} gave {show_kudos(one.gave)} kudos and took {show_kudos(one.took)}"
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

    def _unknown(self) -> str:
        return f"; {self.unknown_acts} acts speak of earlier ones, and were not followed" if self.unknown_acts else ""

    def _pending(self) -> str:
        return f", {self.pending} are not covered by this checkpoint yet" if self.pending else ""


def _when(time: int) -> str:
    """A moment in UTC, for people."""
    try:
        return datetime.fromtimestamp(time // 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{time} ms"  # of no year that this machine knows
