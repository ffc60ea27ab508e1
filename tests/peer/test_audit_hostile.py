"""Trackers that try to get round an audit, and what must never be held against one that is honest."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path

import msgspec
import pytest

from peer.audit.histories import NotShown, check_contradiction, does_leave_out
from peer.audit.mine import Known, known, shown_by
from peer.audit.source import BadSource
from peer.audit.votes import Row
from peer.events import Refused, Unreachable
from peer.home import Home
from peer.keeping import Keeping
from protocol import codec, documents
from protocol.documents import Checkpoint, Serving, Settlement, open_document
from protocol.envelope import parse
from protocol.keys import SigningKey, show_key
from protocol.messages import Kept
from protocol.public import Head, Part, part_name
from protocol.rules import LedgerSection, Rules
from tests.support.auditing import AT_ONCE, FromDatabase, audited, entry_of, evidence_of, found_in, kinds, lived
from tests.support.builders import DAY, NOW, ROOT, SERVING, a_key
from tests.support.history import ANN, BEN, History
from tests.support.rewriting import cut, dearer, fill, rewrite
from tracker.store.sqlite import SqliteStore

HOUR = 3_600_000
replace = msgspec.structs.replace


def a_checkpoint(size: int, time: int, key: SigningKey = SERVING) -> bytes:
    said = Checkpoint(size=size, root=size.to_bytes(32, "big"), time=time)
    return documents.sign(said, key, ROOT.public).raw


@asynccontextmanager
async def paid(path: Path) -> AsyncIterator[tuple[History, bytes]]:
    """A ledger whose last entry is a settlement that no checkpoint covers."""
    async with History.open(path, AT_ONCE) as history:
        await history.award(history.accounts[ANN.public], 50_000)
        asked = await history.ask(ANN, served_by=BEN)
        receipt = await history.receipt(asked.admitted.leases[0].document, BEN)
        await history.deliver(receipt)
        await history.store.seal(history.tick())
        await history.award(history.accounts[ANN.public], 1)
        yield history, await history.acknowledge(asked, receipt)


# What it leaves out


async def test_an_entry_that_is_not_covered_yet_is_no_finding_and_one_that_never_will_be_is(tmp_path: Path) -> None:
    path = tmp_path / "horde.db"
    async with paid(path) as (history, settlement):
        mine = Known([settlement])
        at_once = await audited(path, mine, history.now)
        still = await audited(path, mine, history.now + 2 * HOUR)
        await history.store.seal(history.tick())
        covered = await audited(path, mine, history.now + 2 * HOUR)

    assert at_once.ok
    assert at_once.pending == 1
    assert kinds(still) == {"unproven"}
    assert covered.ok
    assert covered.own == 1


async def test_a_ledger_that_goes_on_without_an_entry_convicts_itself_whatever_its_clock_says(tmp_path: Path) -> None:
    path = tmp_path / "horde.db"
    async with paid(path) as (history, settlement):
        named = parse(open_document(parse(settlement), Settlement).checkpoint)
        size = open_document(named, Checkpoint).size
        cut(path, SERVING, 1)
        mine = Known([settlement])

        found = await audited(path, mine, history.now)

    said = open_document(parse(settlement), Settlement)
    assert size < said.entry
    assert not does_leave_out(said, open_document(named, Checkpoint))
    assert kinds(found) == {"rewritten"}
    [shown] = evidence_of(found)
    assert "later a ledger that ends" in shown


async def test_an_honest_ledger_cannot_be_framed_by_a_settlement_and_an_older_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "horde.db"
    async with paid(path) as (history, settlement):
        older = open_document(parse(settlement), Settlement).checkpoint
        await history.store.seal(history.tick())
        newest = FromDatabase(path, history.now)
        head = await newest.head()
        cut(path, SERVING, 1)
        [evidence] = [one.evidence for one in (await audited(path, Known([settlement]), history.now)).findings]

    from peer.audit.histories import Contradiction

    found = msgspec.json.decode(Path(evidence).read_bytes(), type=Contradiction)
    assert check_contradiction(found)
    for wrong in (older, head.checkpoint, a_checkpoint(5, NOW, a_key(7))):
        with pytest.raises(NotShown):
            check_contradiction(replace(found, second=wrong))


class HoldsBack(FromDatabase):
    """Shows entries up to an older checkpoint than it should."""

    older = b""

    async def head(self) -> Head:
        return replace(await super().head(), public=self.older, delay_days=1)


async def test_days_that_are_over_cannot_be_held_back_from_who_knows_of_them(tmp_path: Path) -> None:
    path = tmp_path / "horde.db"
    async with History.open(path, Rules(ledger=LedgerSection(delay_days=1))) as history:
        first = await history.store.seal(history.tick()) or b""
        await history.award(history.accounts[ANN.public], 1000)
        second = await history.store.seal(history.tick()) or b""
        history.tick(3 * DAY)
        await history.award(history.accounts[ANN.public], 1000)
        await history.store.seal(history.tick())
        honest = FromDatabase(path, history.now)
        hostile = HoldsBack(path, history.now)
        hostile.older = first or FromDatabase(path, NOW)._ledger.head(NOW).public

        right = await found_in(honest, tmp_path / "audit", Known(checkpoints=[second]), history.now)
        stranger = await found_in(hostile, tmp_path / "audit", Known(), history.now)
        knows = await found_in(hostile, tmp_path / "audit", Known(checkpoints=[second]), history.now)
        later = await found_in(hostile, tmp_path / "audit", Known(), history.now + 3 * DAY)

    assert right.ok
    assert stranger.until < right.until
    assert kinds(knows) == {"held_back"}
    assert kinds(later) == {"held_back"}


# Rules


class OtherRules(FromDatabase):
    """Changes what it says of its rules."""

    shown: bytes | None = None
    head_with: dict[str, int]

    async def head(self) -> Head:
        return replace(await super().head(), **self.head_with)

    async def rules(self, version: int) -> bytes:
        if self.shown is None:
            raise Refused("bad_value", "there is no such version")
        return self.shown


async def test_rules_that_are_not_shown_or_not_as_they_were_are_findings(tmp_path: Path) -> None:
    path = tmp_path / "horde.db"
    async with History.open(path, AT_ONCE) as history:
        [kept] = [history.rules.document]
        now = history.now
    source = OtherRules(path, now)
    source.head_with = {}
    mine = Known(rules=kept)

    hidden = await found_in(source, tmp_path / "audit", mine, now, full=False)
    hidden_from_all = await found_in(source, tmp_path / "audit", Known(), now)
    source.shown = kept
    right = await found_in(source, tmp_path / "audit", mine, now)
    source.head_with = {"delay_days": 9}
    slower = await found_in(source, tmp_path / "audit", Known(), now)
    source.head_with = {"rules": 0}
    fewer = await found_in(source, tmp_path / "audit", mine, now)

    assert right.ok
    for found in (hidden, hidden_from_all, slower, fewer):
        assert kinds(found) == {"rules"}


async def test_rules_of_before_a_restore_are_not_held_against_those_after_it(tmp_path: Path) -> None:
    path = tmp_path / "horde.db"
    async with History.open(path, AT_ONCE) as history:
        other = documents.sign(
            open_document(parse(history.rules.document), documents.RulesDocument), a_key(9), ROOT.public
        )
        report = await audited(path, Known(rules=other.raw), history.now)

    assert report.ok


class HidesProposals(FromDatabase):
    """Does not show what was proposed."""

    async def proposals(self) -> Sequence[Row]:
        raise Refused("refused", "there is nothing here")


async def test_whoever_hides_one_thing_does_not_hide_the_rest_by_that(tmp_path: Path) -> None:
    path = tmp_path / "horde.db"
    async with lived(path) as (history, mine):
        rewrite(path, SERVING, entry_of(path, "settle"), dearer)
        found = await found_in(HidesProposals(path, history.now), tmp_path / "audit", mine, history.now)

    assert {"unproven", "rewritten"} <= kinds(found)


# Keys


class Appointed(FromDatabase):
    """Shows another delegation of the root. later: the one that it shows when it is asked again."""

    delegation = b""
    later = b""

    async def head(self) -> Head:
        shown, self.delegation = self.delegation, self.later or self.delegation
        return replace(await super().head(), delegation=shown)


def delegation(version: int = 1, expires: int = 0, by: SigningKey = ROOT) -> bytes:
    said = Serving(serving=SERVING.public, version=version, expires=expires)
    return documents.sign(said, by, ROOT.public).raw


async def test_a_key_whose_time_is_over_signs_for_nobody(tmp_path: Path) -> None:
    path = tmp_path / "horde.db"
    async with lived(path) as (history, mine):
        source = Appointed(path, history.now)
        source.delegation = delegation(expires=history.now + HOUR)
        right = await found_in(source, tmp_path / "audit", mine, history.now)

        with pytest.raises(BadSource, match="ended"):
            await found_in(source, tmp_path / "audit", mine, history.now + HOUR)
        source.delegation = delegation(expires=NOW)
        with pytest.raises(
            BadSource, match="ended"
        ):  # by its own checkpoint's time, whatever this machine's clock says
            await found_in(source, tmp_path / "audit", mine, 0)

    assert right.ok


async def test_findings_are_not_got_rid_of_by_another_word_at_the_end_but_by_the_roots(tmp_path: Path) -> None:
    path = tmp_path / "horde.db"
    async with lived(path) as (history, mine):
        rewrite(path, SERVING, entry_of(path, "settle"), dearer)
        source = Appointed(path, history.now)
        for later in (delegation(2, by=SERVING), delegation(1), b"\x00", b""):
            source.delegation, source.later = delegation(), later
            assert "rewritten" in kinds(await found_in(source, tmp_path / "audit", mine, history.now))

        source.delegation, source.later = delegation(), delegation(2)
        with pytest.raises(BadSource, match="restored"):
            await found_in(source, tmp_path / "audit", mine, history.now)


# What a disk does


async def test_a_copy_that_the_disk_has_spoilt_is_not_held_against_the_tracker(tmp_path: Path) -> None:
    path, home = tmp_path / "horde.db", Home(tmp_path / "home")
    async with lived(path) as (history, mine):
        for raw in mine.checkpoints:
            shown_by(home, ROOT.public).keep(raw, history.now)
        keeping = Keeping(home.results_folder / "settled", ROOT.public)
        for raw in mine.settlements:
            keeping.keep(Kept(settlement=raw, lease=b"", receipt=b""))
        whole = known(home, ROOT.public)
        for file in (home.results_folder / "checkpoints").rglob("*-*"):
            content = file.read_bytes()
            file.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
        day, *_ = sorted((home.results_folder / "settled").rglob("[0-9]*"))
        content = day.read_bytes()
        spoil = next(raw for raw in mine.settlements if raw in content)
        day.write_bytes(content.replace(spoil, spoil[:-1] + bytes([spoil[-1] ^ 1])))
        spoilt = known(home, ROOT.public)

        report = await audited(path, spoilt, history.now)

    assert len(whole.settlements) == len(mine.settlements)
    assert len(spoilt.settlements) == len(whole.settlements) - 1
    assert report.ok
    assert report.own == len(spoilt.settlements)


async def filled(path: Path, count: int = 1100) -> None:
    async with History.open(path, AT_ONCE):
        pass
    fill(path, count)
    async with SqliteStore.open(path, SERVING) as store:
        await store.seal(NOW)


class BrokenOff(FromDatabase):
    """Ends after one part."""

    async def part(self, first: int, epoch: int) -> Part:
        if self.parts:
            raise Unreachable("the network is gone")
        return await super().part(first, epoch)


async def test_an_audit_that_was_broken_off_goes_on_and_believes_only_whole_copies(tmp_path: Path) -> None:
    path, folder = tmp_path / "horde.db", tmp_path / "audit"
    await filled(path)
    with pytest.raises(Unreachable):
        await found_in(BrokenOff(path, NOW), folder, Known(), NOW)
    again = FromDatabase(path, NOW)
    assert (await found_in(again, folder, Known(), NOW)).ok
    assert again.parts == 1

    kept = folder / "entries" / "0" / part_name(0)
    content = kept.read_bytes()
    kept.write_bytes(content[:500] + bytes([content[500] ^ 1]) + content[501:])
    third = FromDatabase(path, NOW)
    report = await found_in(third, folder, Known(), NOW)

    assert report.ok
    assert third.parts == 2
    assert kept.read_bytes() == content


async def test_entries_that_no_signed_root_has_confirmed_convict_nobody(tmp_path: Path) -> None:
    """Somebody in between, or a cache, can show other entries: they give no root that was signed for."""
    path, folder = tmp_path / "horde.db", tmp_path / "audit"
    await filled(path)
    part = (await FromDatabase(path, NOW).part(0, 0)).rows
    kept = folder / "entries" / "0" / part_name(0)
    kept.parent.mkdir(parents=True)
    content = codec.encode(Part(first=0, rows=(part[1], part[0], *part[2:])))
    kept.write_bytes(hashlib.sha256(content).digest() + content)

    report = await found_in(FromDatabase(path, NOW), folder, Known(), NOW)
    assert report.ok  # read anew, and right

    kept.write_bytes(hashlib.sha256(content).digest() + content)
    told = await found_in(FromDatabase(path, NOW), folder, Known(), NOW)
    assert kinds(told) == {"rewritten"}  # it did confirm entries by now, and these are others


async def test_a_full_disk_ends_no_audit_and_hides_nothing(tmp_path: Path) -> None:
    path = tmp_path / "horde.db"
    nowhere = tmp_path / "nowhere"
    nowhere.write_text("a file where the folder should be")
    async with lived(path) as (history, mine):
        right = await found_in(FromDatabase(path, history.now), nowhere, mine, history.now)
        rewrite(path, SERVING, entry_of(path, "settle"), dearer)
        wrong = await found_in(FromDatabase(path, history.now), nowhere, mine, history.now)

    assert right.ok
    assert "rewritten" in kinds(wrong)
    assert any("could not be written" in finding.text for finding in wrong.findings)
    assert all(not finding.evidence for finding in wrong.findings)


async def test_two_programs_may_use_what_a_peer_keeps_at_once(tmp_path: Path) -> None:
    """What one forgets while the other one reads is skipped."""
    shown = shown_by(Home(tmp_path), ROOT.public)
    shown.keep(a_checkpoint(5, 1), NOW)
    shown.keep(a_checkpoint(6, 1), NOW)
    first, _ = sorted((tmp_path / "results" / "checkpoints" / show_key(ROOT.public)).iterdir())
    names = shown._names()
    first.unlink()
    shown._names = lambda: names  # type: ignore[method-assign]

    assert len(shown.all()) == 1


# The tracker's own clock


async def test_a_clock_that_was_set_back_makes_no_later_checkpoint_look_like_an_earlier_one(tmp_path: Path) -> None:
    path = tmp_path / "horde.db"
    async with lived(path) as (history, mine):
        before = (await FromDatabase(path, history.now).head()).checkpoint
        history.now -= DAY
        await history.award(history.accounts[ANN.public], 1)
        raw = await history.store.seal(history.tick())
        times = [open_document(parse(one), Checkpoint).time for one in (before, raw or b"")]
        report = await audited(path, mine, history.now)
    with closing(sqlite3.connect(path)) as connection:
        [entries] = connection.execute("SELECT count(*) FROM entries").fetchone()

    assert times[1] >= times[0]
    assert report.ok
    assert report.size == entries
