"""What an audit found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from protocol.keys import KEY_BYTES, show_key

#: More than this many findings say nothing new; the rest is counted.
MAX_FINDINGS = 1000


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is not as it must be. entry: the ledger's entry that it concerns, if it is one."""

    entry: int | None = None
    what: str
    found: str
    wanted: str

    def __str__(self) -> str:
        place = f"entry {self.entry}: " if self.entry is not None else ""
        return f"{place}{self.what}: found {self.found}, wanted {self.wanted}"


@dataclass
class Findings:
    """Findings as they come in. muted: what is added now says nothing."""

    kept: list[Finding] = field(default_factory=list)
    count: int = 0
    muted: bool = False

    def add(self, what: str, found: object, wanted: object, entry: int | None = None) -> None:
        """Note a finding."""
        if self.muted:
            return
        self.count += 1
        if len(self.kept) < MAX_FINDINGS:
            self.kept.append(Finding(entry=entry, what=what, found=shown(found), wanted=shown(wanted)))

    def expect(self, what: str, found: object, wanted: object, entry: int | None = None) -> bool:
        """Note a finding unless both are equal; whether they are."""
        if found == wanted:
            return True
        self.add(what, found, wanted, entry)
        return False


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """What a restore cut of what one key had entered. key: that key. entries: the first number that was cut. shown:
    settlements of after it that peers have shown, of which so many were `recovered` (the others were paid anew).
    missing: settlements that there must have been and that nobody has shown. lacking: what `held` lacks, in
    thousandths, since payers have not come back."""

    key: str
    entries: int
    shown: int
    recovered: int
    missing: int
    lacking: int

    def lines(self) -> Iterator[str]:
        """For people."""
        yield (
            f"restored: what key {self.key[:8]}… had entered from entry {self.entries} on was cut;"
            f" {self.recovered} settlements of it have been entered again"
        )
        if self.missing:
            yield f"GAP {self.missing} more settlements were made and have not been shown by anybody"
        if self.lacking:
            yield f"GAP held lacks {kudos(self.lacking)} kudos: who asked for these jobs has not come back"
        if not self.missing and not self.lacking:
            yield "no gap is known of"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The result.

    root: the horde's id. entries: of the ledger. sum: of all balances, computed from the entries. minted, burned: all
    kudos ever made and destroyed, in thousandths. size, tree: of the whole ledger's Merkle tree. head: whether a kept
    settlement was compared; head_cut: what became of it if a restore had cut its entry. epoch: how often the ledger was
    restored; gaps: what is missing since. withheld: of owners who are not trusted yet. by_plugin: paid leases whose
    price only the operator's plug-in can compute, so that it was only checked against `max_price`. begins: the entry
    from which on evidence was checked; before it the books are taken as they were signed. archives: that hold what is
    before and were not read; put_back: those that were. more: findings beyond those that are listed.
    """

    ok: bool
    root: str
    entries: int
    sum: int
    minted: int
    burned: int
    accounts: int
    jobs: int
    documents: int
    checkpoints: int
    tree: str
    head: bool
    findings: tuple[Finding, ...]
    more: int = 0
    head_cut: str = ""
    epoch: int = 0
    gaps: tuple[Gap, ...] = ()
    withheld: int = 0
    by_plugin: int = 0
    begins: int = 0
    archives: tuple[str, ...] = ()
    put_back: tuple[str, ...] = ()

    def lines(self) -> Iterator[str]:
        """The report for people."""
        yield f"horde {self.root}"
        yield (
            f"{self.entries} entries, {self.checkpoints} checkpoints, {self.documents} documents, {self.jobs} jobs,"
            f" {self.accounts} accounts"
        )
        yield f"minted {kudos(self.minted)}, burned {kudos(self.burned)} kudos; all balances sum to {kudos(self.sum)}"
        if self.withheld:
            yield f"of that {kudos(self.withheld)} are withheld of owners who are not trusted yet"
        if self.by_plugin:
            yield (
                f"NOTE a plug-in made the price of {self.by_plugin} leases: it was only checked against max_price, and"
                " nobody but the operator can compute it"
            )
        yield f"the tree's root is {self.tree}"
        if self.put_back:
            yield f"read with {len(self.put_back)} archives: {', '.join(self.put_back)}"
        if self.begins:
            yield (
                f"NOTE evidence was checked from entry {self.begins} on, and the books of before taken as they were"
                f" signed; what they were made of is in {', '.join(self.archives)} (audit --archives)"
            )
        for gap in self.gaps:
            yield from gap.lines()
        if self.head:
            yield f"the settlement that was kept has been compared{self.head_cut and ': '}{self.head_cut}"
        for finding in self.findings:
            yield f"FAULT {finding}"
        if self.more:
            yield f"FAULT and {self.more} more"
        yield "everything is as the evidence says" if self.ok else "NOT as the evidence says"


def kudos(thousandths: int) -> str:
    """Thousandths as people write kudos."""
    sign = "-" if thousandths < 0 else ""
    return f"{sign}{abs(thousandths) // 1000:,}.{abs(thousandths) % 1000:03}"


def shown(value: object) -> str:
    """A value as a finding shows it: digests and handles by their beginning, keys as people see them."""
    match value:
        case bytes() if len(value) == KEY_BYTES:
            return f"{value[:8].hex()}… (as a key {show_key(value)[:8]}…)"
        case bytes():
            return f"{value[:16].hex()}{'…' if len(value) > 16 else ''}" or "nothing"
        case None:
            return "nothing"
        case tuple() | list():
            return f"[{', '.join(shown(item) for item in value)}]"
        case _:
            return str(value)[:300]
