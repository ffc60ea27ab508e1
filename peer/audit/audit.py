"""An audit from its beginning to its report: head, comparison with what is known, and, if wanted, every entry."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal

import msgspec

from peer.audit.acts import Acts
from peer.audit.histories import Broken, Comparison, Signed, is_cut
from peer.audit.horde import Horde
from peer.audit.mine import Known
from peer.audit.opening import BadOpening, Opening, choose, read_opening
from peer.audit.parts import Parts
from peer.audit.report import Findings, Report, ServiceFound
from peer.audit.source import BadSource, Source
from peer.audit.votes import Rolls, Voted, Votes
from peer.audit.votes import Row as Proposed
from peer.audit.walk import Walk
from peer.events import Refused, Unreachable
from peer.home import write_file
from protocol.documents import Checkpoint, RulesDocument, Settlement, open_document, parse_document
from protocol.errors import Refusal
from protocol.keys import show_key
from protocol.public import PART_ENTRIES, Head, Service, part_of
from protocol.rules import Rules, from_json

Told = Callable[[int, int], None]

DAY_MS = 86_400_000


@dataclass(frozen=True)
class Options:
    """root: the horde's id; is_known: whether that is known from elsewhere than the ledger itself. version: of the
    newest delegation seen before. full: whether all entries are read. folder: where parts that were read and evidence
    are kept. now: this machine's clock. others: checkpoints somebody else was shown. begin: about which entry or day to
    begin; None: at the first entry."""

    root: bytes
    version: int
    full: bool
    folder: Path
    now: int
    others: Sequence[bytes] = ()
    is_known: bool = True
    begin: int | date | None = None


@dataclass
class Counts:
    """What was compared."""

    shown: int = 0
    of_others: int = 0
    own: int = 0
    pending: int = 0
    cut: int = 0
    cut_until: int = 0
    proposals: int = 0
    votes: int = 0

    def count_cut(self, time: int) -> None:
        """One more that a restore has cut, signed at this time."""
        self.cut += 1
        self.cut_until = max(self.cut_until, time)


@dataclass(frozen=True)
class Audited:
    """What came out. shown: checkpoints to be kept. version: of the delegation that the horde's root signed."""

    report: Report
    shown: Sequence[bytes]
    version: int


async def audit(source: Source, options: Options, known: Known, told: Told) -> Audited:
    """Hold a ledger against all that is known of it; raises what `Source` raises.

    known: what this peer knew before it asks: what it is shown meanwhile may be newer than what it is answered. told:
    how many of how many entries have been read.
    """
    try:
        proposals = await source.proposals() if options.full else ()  # first: the rules by which votes went are older
        hidden = ""
    except Refused as error:
        proposals, hidden = (), f"what was proposed cannot be read: {error}"
    head = await source.head()
    auditor = _Audit(source, options, head, told)
    await auditor.compare(known, hidden)
    if options.full:
        await auditor.read_all(proposals, known.votes)
    report = auditor.report()
    if not report.ok and await auditor.was_restored():
        raise BadSource(f"{source.name}: the ledger was restored from a copy meanwhile: audit it again")
    shown = dict.fromkeys((auditor.target.envelope.raw, auditor.public.envelope.raw))
    return Audited(report, list(shown), auditor.horde.version)


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
        self._services: Sequence[Service] = ()
        self._opening: Opening | None = None
        self._issued: dict[int, int] = {}
        self._voted: list[Voted] = []
        try:
            self.horde = Horde.of(head.delegation, options.root)
            newest = Signed(*self.horde.open(head.checkpoint, Checkpoint))
            self.public = Signed(*self.horde.open(head.public, Checkpoint))
        except Refusal as error:
            raise BadSource(f"{source.name}: is not the ledger of this horde: {error}") from error
        if source.is_live and self.horde.has_ended(options.now):
            raise BadSource(
                f"{source.name}: the root's delegation to its key ended at {self.horde.expires}, and it is"
                f" {options.now}: check this machine's clock, or ask the operator to have a new one signed"
            )
        self.target = newest if source.is_live else self.public
        self._check_head(newest)

    def _check_head(self, newest: Signed) -> None:
        if self.horde.version < self._options.version:
            text = f"delegation {self.horde.version} is shown, and {self._options.version} was seen before"
            self._findings.add("document", text)
        for checkpoint in (newest, self.public):
            said = checkpoint.said
            if is_cut(self.horde, checkpoint) or (checkpoint is newest and said.epoch != self.horde.epoch):
                text = f"checkpoint {said.size} of epoch {said.epoch}: the root speaks of epoch {self.horde.epoch}"
                self._findings.add("document", text)

    async def was_restored(self) -> bool:
        """Whether the horde's root has appointed another key since the head was read."""
        try:
            return Horde.of((await self._source.head()).delegation, self.horde.root).version > self.horde.version
        except (Refusal, Refused, Unreachable, BadSource):
            return False  # nobody gets rid of findings by answering no more

    # What was known before

    async def compare(self, known: Known, hidden: str) -> None:
        """Hold what is shown against all that is known. hidden: what could not be read, and why; or nothing."""
        if hidden:
            self._findings.add("unproven", hidden)
        comparison = Comparison(self._source, self.horde, self.target, self._options.now)
        await self._compare_rules(known.rules)
        self._compare_public(known.checkpoints)
        if self.public != self.target:
            self._broken("two_histories", await comparison.checkpoint(self.public))
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
                self._counts.count_cut(checkpoint.said.time)
                continue
            compared += 1
            self._broken(kind, await comparison.checkpoint(checkpoint))
        return compared

    async def _compare_rules(self, kept: bytes) -> None:
        """The rules that this peer was sent are a version of those that everybody is shown."""
        envelope = parse_document(kept, RulesDocument) if kept else None
        if envelope is None or envelope.key != self.horde.serving:
            return  # of those that a former key has signed a restore has cut some
        said = open_document(envelope, RulesDocument)
        shown = b""
        if said.version <= self._head.rules:
            with suppress(Refused):
                shown = await self._source.rules(said.version)
        elif not self._source.is_live and said.issued > self.target.said.time:
            return  # an export of before
        if shown != kept:
            text = f"version {said.version} is not shown as this peer was sent it"
            self._findings.add("rules", text)

    def _compare_public(self, shown: Sequence[bytes]) -> None:
        """No day that is over is held back, as far as this peer knows of any checkpoint of that day's end."""
        days, newest = self._head.delay_days, self.target.said
        if not self._source.is_live or self.public.said.size == newest.size:
            return
        # By the tracker's own clock, and by this one with a day of grace, since it may be wrong.
        today = max(newest.time, self._options.now - DAY_MS) // DAY_MS
        before = (today - days + 1) * DAY_MS if days else newest.time + 1
        for raw in (*shown, self.target.envelope.raw):
            with suppress(Refusal):
                checkpoint = Signed(*self.horde.open(raw, Checkpoint))
                said = checkpoint.said
                if self.public.said.size < said.size and said.time < before and not is_cut(self.horde, checkpoint):
                    text = f"only {self.public.said.size:,} entries can be read, and {said.size:,} could be by now"
                    self._findings.add("held_back", text)
                    return

    async def _compare_settlement(self, comparison: Comparison, raw: bytes) -> None:
        try:
            envelope, said = self.horde.open(raw, Settlement)
        except Refusal as error:
            self._findings.add("document", f"a settlement of this peer: {error}")
            return
        if self.horde.is_cut(envelope.key, said.entry):
            self._counts.count_cut(said.settled)
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
        path, text = "", broken.text
        if broken.proof is not None:
            content = msgspec.json.format(msgspec.json.encode(broken.proof), indent=2) + b"\n"
            name = f"two-histories-{hashlib.sha256(content).hexdigest()[:12]}.json"
            try:
                write_file(self._options.folder / name, content)
                path = str(self._options.folder / name)
            except OSError as error:
                text += f" (what shows it to anybody could not be written: {error.strerror})"
        self._findings.add("unproven" if broken.is_silent else kind, text, broken.entry, path)

    # Every entry

    async def read_all(self, proposals: Sequence[Proposed], own: Sequence[bytes]) -> None:
        """Read every public entry, and compute tree and balances from them, and who had a voice in which vote. own:
        votes of this peer."""
        rules = await self._read_rules()
        votes = Votes(self.horde, rules, self._issued, self._findings)
        votes.read(proposals)
        self._voted = list(votes.voted.values())
        self._counts.proposals = len(proposals)
        parts = Parts(self._options.folder / "entries", self._source, self.horde.epoch)
        size, root = self.public.said.size, self.public.said.root
        begin = choose([end for end in self._head.archives if end.size <= size], self._options.begin)
        self._opening = await self._read_opening(begin) if begin else None
        walk, findings = await self._walk_along(parts, size, rules)
        if walk.tree.root() != root and parts.used:
            changed = await parts.renew(size)
            walk, findings = await self._walk_along(parts, size, rules)
            if changed is not None:
                text = "it is another one than when this peer read it before: no restore says so"
                self._findings.add("rewritten", text, changed)
        for finding in findings.kept:
            self._findings.add(finding.kind, finding.text, finding.entry)
        self._findings.count += findings.count - len(findings.kept)
        if walk.tree.root() == root:
            if self._opening is None:
                parts.confirm(size)
        else:
            parts.forget()
            text = f"the entries give the root {walk.tree.root().hex()}, and {root.hex()} was signed for"
            self._findings.add("tree", text)
        if walk.acts.epoch != self.public.said.epoch:
            text = f"the entries tell of epoch {walk.acts.epoch}, and epoch {self.public.said.epoch} was signed for"
            self._findings.add("document", text)
        self._walk = walk
        with suppress(Refused):
            self._services = await self._source.services()
        walk.rolls.end(size, self._findings)
        if self._source.is_live:
            await self._look_for_own(votes, own)

    async def _look_for_own(self, votes: Votes, own: Sequence[bytes]) -> None:
        for raw, voted in votes.ended(own):
            counted = None
            with suppress(Refused):
                counted = await self._source.counted(raw)
            self._counts.votes += votes.check_counted(raw, voted, counted)

    async def _read_opening(self, begin: int) -> Opening | None:
        """Where to begin; at the first entry if what is shown there is wrong."""
        try:
            return await read_opening(self._source, self.horde, begin)
        except BadOpening as error:
            self._findings.add("document", str(error))
            return None

    async def _walk_along(self, parts: Parts, size: int, rules: dict[int, Rules]) -> tuple[Walk, Findings]:
        findings = Findings()
        acts, rolls = Acts(self.horde, rules, self._issued), Rolls(self._voted)
        walk = Walk(acts, findings, rolls)
        if self._opening is not None:
            walk.begin(self._opening)
        for first in range(part_of(walk.tree.size), size, PART_ENTRIES):
            rows = await parts.rows(first, min(PART_ENTRIES, size - first))
            for row in rows[walk.tree.size - first :]:
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
                self._issued[version] = said.issued
            except Refused as error:
                self._findings.add("rules", f"version {version} and what follows cannot be read: {error}")
                break
            except (Refusal, msgspec.DecodeError) as error:
                self._findings.add("rules", f"version {version}: {error}")
                previous = b""
                continue
            if said.version != version or (version > 1 and said.previous != previous):
                self._findings.add("rules", f"version {version} does not name the one before it")
            previous = envelope.digest
        newest = found.get(self._head.rules)
        if newest is not None and newest.ledger.delay_days != self._head.delay_days:
            text = f"days pass before entries can be read: {self._head.delay_days}, and by the rules in force"
            self._findings.add("rules", f"{text} {newest.ledger.delay_days}")
        return found

    def _services_found(self, walk: Walk) -> Iterator[ServiceFound]:
        for one in self._services:
            gave, took = walk.gave[one.account], walk.took[one.account]
            yield ServiceFound(account=one.account, name=one.name, gave=gave, took=took)

    def report(self) -> Report:
        """What was found."""
        walk, counts, now = self._walk, self._counts, self.target.said
        return Report(
            ok=not self._findings.count,
            root=show_key(self.horde.root),
            known=self._options.is_known,
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
            cut_until=counts.cut_until,
            until=self.public.said.time,
            services=tuple(self._services_found(walk)) if walk else (),
            in_debt=walk.in_debt if walk else 0,
            begins=self._opening.tree.size if self._opening else 0,
            unknown_acts=walk.acts.unknown if walk else 0,
            proposals=counts.proposals,
            votes=counts.votes,
            findings=tuple(self._findings.kept),
            more=self._findings.count - len(self._findings.kept),
        )
