"""An audit from its beginning to its report: head, comparison with what is known, and, if wanted, every entry."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from peer.audit.acts import Acts
from peer.audit.histories import Broken, Comparison, Signed, is_cut
from peer.audit.horde import Horde
from peer.audit.mine import Known
from peer.audit.report import Findings, Report
from peer.audit.source import BadSource, Source
from peer.audit.walk import Walk
from peer.home import write_file
from protocol import codec
from protocol.documents import Checkpoint, RulesDocument, Settlement
from protocol.errors import Refusal
from protocol.keys import parse_key, show_key
from protocol.public import PART_ENTRIES, Head, Part, Row, part_name
from protocol.rules import Rules, from_json

Told = Callable[[int, int], None]


@dataclass(frozen=True)
class Options:
    """root: the horde's id, if it is known. version: of the newest delegation seen before. full: whether all entries
    are read. folder: where parts that were read and evidence are kept. others: checkpoints somebody else was shown."""

    root: bytes | None
    version: int
    full: bool
    folder: Path
    others: Sequence[bytes] = ()


@dataclass
class Counts:
    """What was compared."""

    shown: int = 0
    of_others: int = 0
    own: int = 0
    pending: int = 0
    cut: int = 0


async def audit(source: Source, options: Options, known: Callable[[bytes], Known], told: Told) -> tuple[Report, bytes]:
    """The report, and the checkpoint to which it was made, to be kept; raises what `Source` raises.

    known: what this peer knows of a horde. told: how many of how many entries have been read.
    """
    head = await source.head()
    auditor = _Audit(source, options, head, told)
    await auditor.compare(known(auditor.horde.root))
    if options.full:
        await auditor.read_all()
    return auditor.report(), auditor.target.envelope.raw


class _Audit:
    """One audit. Raises `BadSource` where nothing can be compared at all."""

    def __init__(self, source: Source, options: Options, head: Head, told: Told) -> None:
        self._source = source
        self._options = options
        self._head = head
        self._told = told
        self._findings = Findings()
        self._counts = Counts()
        self._walk: Walk | None = None
        try:
            root = options.root or parse_key(head.root)
            self.horde = Horde.of(head.delegation, root)
            newest = Signed(*self.horde.open(head.checkpoint, Checkpoint))
            self._public = Signed(*self.horde.open(head.public, Checkpoint))
        except Refusal as error:
            raise BadSource(f"{source.name}: is not the ledger of this horde: {error}") from error
        self.target = newest if source.is_live else self._public
        self._check_head(newest)

    def _check_head(self, newest: Signed) -> None:
        if self.horde.version < self._options.version:
            text = f"delegation {self.horde.version} is shown, and {self._options.version} was seen before"
            self._findings.add("document", text)
        for checkpoint in (newest, self._public):
            said = checkpoint.said
            if is_cut(self.horde, checkpoint) or (checkpoint is newest and said.epoch != self.horde.epoch):
                text = f"checkpoint {said.size} of epoch {said.epoch}: the root speaks of epoch {self.horde.epoch}"
                self._findings.add("document", text)

    # What was known before

    async def compare(self, known: Known) -> None:
        """Hold what is shown against all that is known."""
        comparison = Comparison(self._source, self.horde, self.target)
        if self._public != self.target:
            self._broken("two_histories", await comparison.checkpoint(self._public))
        self._counts.shown = await self._compare_checkpoints(comparison, known.checkpoints, "rewritten")
        self._counts.of_others = await self._compare_checkpoints(comparison, self._options.others, "two_histories")
        for raw in known.settlements:
            await self._compare_settlement(comparison, raw)

    async def _compare_checkpoints(
        self, comparison: Comparison, shown: Sequence[bytes], kind: Literal["rewritten", "two_histories"]
    ) -> int:
        compared = 0
        for raw in shown:
            try:
                checkpoint = Signed(*self.horde.open(raw, Checkpoint))
            except Refusal as error:
                self._findings.add("document", f"a checkpoint that was shown before: {error}")
                continue
            if is_cut(self.horde, checkpoint):
                self._counts.cut += 1
                continue
            compared += 1
            self._broken(kind, await comparison.checkpoint(checkpoint))
        return compared

    async def _compare_settlement(self, comparison: Comparison, raw: bytes) -> None:
        try:
            envelope, said = self.horde.open(raw, Settlement)
        except Refusal as error:
            self._findings.add("document", f"a settlement of this peer: {error}")
            return
        if self.horde.is_cut(envelope.key, said.entry):
            self._counts.cut += 1
            return
        match await comparison.settlement(envelope, said):
            case Broken() as broken:
                self._broken("rewritten", broken)
            case True:
                self._counts.own += 1
            case False:
                self._counts.pending += 1

    def _broken(self, kind: str, broken: Broken | None) -> None:
        if broken is None:
            return
        path = ""
        if broken.proof is not None:
            content = msgspec.json.format(msgspec.json.encode(broken.proof), indent=2) + b"\n"
            name = f"two-histories-{hashlib.sha256(content).hexdigest()[:12]}.json"
            write_file(self._options.folder / name, content)
            path = str(self._options.folder / name)
        self._findings.add("unproven" if broken.is_silent else kind, broken.text, broken.entry, path)

    # Every entry

    async def read_all(self) -> None:
        """Read every public entry, and compute tree and balances from them."""
        rules = await self._read_rules()
        cache = _Cache(self._options.folder / "entries" / str(self.horde.epoch), self._source, self.horde.epoch)
        size, root = self._public.said.size, self._public.said.root
        walk, findings = await self._walk_along(cache, size, rules)
        if walk.tree.root() != root and cache.used:
            changed = await cache.renew(size)
            walk, findings = await self._walk_along(cache, size, rules)
            if changed is not None:
                text = "it is another one than when this peer read it before: no restore says so"
                self._findings.add("rewritten", text, changed)
        for finding in findings.kept:
            self._findings.add(finding.kind, finding.text, finding.entry)
        self._findings.count += findings.count - len(findings.kept)
        if walk.tree.root() != root:
            text = f"the entries give the root {walk.tree.root().hex()}, and {root.hex()} was signed for"
            self._findings.add("tree", text)
        if walk.acts.epoch != self._public.said.epoch:
            text = f"the entries tell of epoch {walk.acts.epoch}, and epoch {self._public.said.epoch} was signed for"
            self._findings.add("document", text)
        self._walk = walk

    async def _walk_along(self, cache: _Cache, size: int, rules: dict[int, Rules]) -> tuple[Walk, Findings]:
        findings = Findings()
        walk = Walk(Acts(self.horde, rules), findings)
        for first in range(0, size, PART_ENTRIES):
            rows = await cache.rows(first, min(PART_ENTRIES, size - first))
            for row in rows:
                walk.enter(row)
            self._told(walk.tree.size, size)
        return walk, findings

    async def _read_rules(self) -> dict[int, Rules]:
        """Every version of the rules that is signed as it should be."""
        found, previous = {}, b""
        for version in range(1, self._head.rules + 1):
            try:
                envelope, said = self.horde.open(await self._source.rules(version), RulesDocument)
                found[version] = from_json(said.rules)
            except (Refusal, msgspec.DecodeError) as error:
                self._findings.add("rules", f"version {version}: {error}")
                previous = b""
                continue
            if said.version != version or (version > 1 and said.previous != previous):
                self._findings.add("rules", f"version {version} does not name the one before it")
            previous = envelope.digest
        return found

    def report(self) -> Report:
        """What was found."""
        walk, counts, now = self._walk, self._counts, self.target.said
        return Report(
            ok=not self._findings.count,
            root=show_key(self.horde.root),
            known=self._options.root is not None,
            place=self._source.name,
            size=now.size,
            time=now.time,
            tree=now.root.hex(),
            epoch=self.horde.epoch,
            read=walk.tree.size if walk else None,
            accounts=walk.people if walk else 0,
            minted=walk.minted if walk else 0,
            burned=walk.burned if walk else 0,
            rules=self._head.rules,
            shown=counts.shown,
            of_others=counts.of_others,
            own=counts.own,
            pending=counts.pending,
            cut=counts.cut,
            in_debt=walk.in_debt if walk else 0,
            findings=tuple(self._findings.kept),
            more=self._findings.count - len(self._findings.kept),
        )


class _Cache:
    """Whole parts that were read before, so that an audit that was broken off, or the next one, goes on from there."""

    def __init__(self, folder: Path, source: Source, epoch: int) -> None:
        self._folder = folder
        self._source = source
        self._epoch = epoch
        self.used = False

    async def rows(self, first: int, count: int) -> Sequence[Row]:
        """So many entries from `first` on; raises `BadSource` if there are fewer."""
        if (kept := self._kept(first)) is not None:
            self.used = True
            return kept
        part = await self._read(first, count)
        return part.rows[:count]

    async def renew(self, size: int) -> int | None:
        """Read all that was kept again; the first entry that is another one than before."""
        changed = None
        for first in range(0, size, PART_ENTRIES):
            before = self._kept(first)
            if before is None:
                continue
            now = (await self._read(first, min(PART_ENTRIES, size - first))).rows
            if changed is None:
                pairs = enumerate(zip(before, now, strict=False), first)
                changed = next((entry for entry, (old, new) in pairs if old != new), None)
        return changed

    async def _read(self, first: int, count: int) -> Part:
        part = await self._source.part(first, self._epoch)
        if part.first != first or len(part.rows) < count:
            raise BadSource(f"{self._source.name}: part {first} has {len(part.rows)} entries: wanted {count}")
        if len(part.rows) == PART_ENTRIES and self._source.is_live:
            write_file(self._folder / part_name(first), codec.encode(part))
        return part

    def _kept(self, first: int) -> Sequence[Row] | None:
        if not self._source.is_live:
            return None
        try:
            part = codec.decode((self._folder / part_name(first)).read_bytes(), Part)
        except (OSError, Refusal):
            return None  # it is a copy, and is read again
        return part.rows if part.first == first and len(part.rows) == PART_ENTRIES else None
