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
    """Findings as they come in."""

    kept: list[Finding] = field(default_factory=list)
    count: int = 0

    def add(self, what: str, found: object, wanted: object, entry: int | None = None) -> None:
        """Note a finding."""
        self.count += 1
        if len(self.kept) < MAX_FINDINGS:
            self.kept.append(Finding(entry=entry, what=what, found=shown(found), wanted=shown(wanted)))

    def expect(self, what: str, found: object, wanted: object, entry: int | None = None) -> bool:
        """Note a finding unless both are equal; whether they are."""
        if found == wanted:
            return True
        self.add(what, found, wanted, entry)
        return False


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The result.

    root: the horde's id. entries: of the ledger. sum: of all balances, computed from the entries. minted, burned: all
    kudos ever made and destroyed, in thousandths. size, tree: of the whole ledger's Merkle tree. head: whether a kept
    settlement was compared. more: findings beyond those that are listed.
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

    def lines(self) -> Iterator[str]:
        """The report for people."""
        yield f"horde {self.root}"
        yield (
            f"{self.entries} entries, {self.checkpoints} checkpoints, {self.documents} documents, {self.jobs} jobs,"
            f" {self.accounts} accounts"
        )
        yield f"minted {kudos(self.minted)}, burned {kudos(self.burned)} kudos; all balances sum to {kudos(self.sum)}"
        yield f"the tree's root is {self.tree}"
        if self.head:
            yield "the settlement that was kept has been compared"
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
