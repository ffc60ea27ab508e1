"""The audit of a public ledger: what is right passes, and each thing that a tracker could do to it is found."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from peer.audit.acts import Acts
from peer.audit.audit import Options, audit
from peer.audit.disclosure import Disclosure, check_disclosure, make_disclosure
from peer.audit.histories import Contradiction, NotShown, check_contradiction
from peer.audit.horde import Horde
from peer.audit.mine import BadHanded, Known, Party, hand_out, read_handed
from peer.audit.report import Findings
from peer.audit.shown import LATEST, Shown, superfluous
from peer.audit.walk import Walk
from protocol import documents
from protocol.documents import Checkpoint, Former, Leaf, Profile, Serving, open_document
from protocol.envelope import parse
from protocol.keys import SigningKey, show_key
from protocol.public import AskDisclosure
from protocol.rules import ModerationSection, RolesSection, Rules
from tests.support.auditing import AT_ONCE, FromDatabase, audited, entry_of, evidence_of, kinds, lived
from tests.support.builders import DAY, NOW, ROOT, SERVING, a_key, a_nonce, an_act, signed
from tests.support.history import ANN, BEN, History
from tests.support.rewriting import cut, dearer, fill, rewrite, same
from tracker.public.reader import PublicLedger
from tracker.store.sqlite import SqliteStore


async def test_a_ledger_as_it_was_lived_through_is_right(tmp_path: Path) -> None:
    path = tmp_path / "horde.db"
    async with lived(path) as (history, known):
        report = await audited(path, known, history.now)

        assert report.ok, list(report.lines())
        assert report.read == report.size > 0
        assert report.own == len(known.settlements) > 10
        assert report.shown == len(known.checkpoints) > 5
        assert report.accounts == 2  # Carl had no kudos, and served nobody
        assert report.minted > 5000
        assert all(isinstance(line, str) for line in report.lines())


async def test_own_entries_are_found_by_proof_without_reading_any(tmp_path: Path) -> None:
    path = tmp_path / "horde.db"
    async with lived(path) as (history, known):
        source = FromDatabase(path, history.now)
        options = Options(root=ROOT.public, version=0, full=False, folder=tmp_path / "audit", now=history.now)

        audited = await audit(source, options, known, lambda _, __: None)
        report = audited.report

        assert report.ok
        assert source.parts == 0
        assert report.read is None
        assert report.own == len(known.settlements)
        assert [open_document(parse(raw), Checkpoint).size for raw in audited.shown] == [report.size]


@pytest.mark.parametrize("event", ["hold", "settle", "release"])
async def test_a_ledger_that_was_rewritten_is_caught_and_shown_to_anybody(tmp_path: Path, event: str) -> None:
    path = tmp_path / "horde.db"
    async with lived(path) as (history, known):
        rewrite(path, SERVING, entry_of(path, event), same)
        assert (await audited(path, known, history.now)).ok

        rewrite(path, SERVING, entry_of(path, event), dearer)
        for full in (True, False):
            report = await audited(path, known, history.now, full=full)

            assert not report.ok
            assert "rewritten" in kinds(report)
            assert evidence_of(report)


async def test_whoever_knows_nothing_of_before_finds_a_rewritten_ledger_right(tmp_path: Path) -> None:
    """What the public cannot check: the first look takes the tracker at its word."""
    path = tmp_path / "horde.db"
    async with lived(path) as (history, known):
        rewrite(path, SERVING, entry_of(path, "award"), lambda leaf: leaf)
        rewrite(path, SERVING, entry_of(path, "settle"), dearer)

        assert "rewritten" not in kinds(await audited(path, Known(), history.now))
        assert "rewritten" in kinds(await audited(path, known, history.now))


async def test_a_tail_that_was_cut_is_caught(tmp_path: Path) -> None:
    path = tmp_path / "horde.db"
    async with lived(path) as (history, known):
        known.checkpoints.append(FromDatabase(path, history.now)._ledger.head(history.now).checkpoint)
        cut(path, SERVING, 5)

        report = await audited(path, known, history.now)

        assert "rewritten" in kinds(report)
        assert any("entries are gone" in text for text in evidence_of(report))


async def test_two_histories_are_caught_when_two_peers_compare(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "horde.db", tmp_path / "other" / "horde.db"
    theirs.parent.mkdir()
    async with lived(ours) as (history, known):
        await history.store.seal(history.tick())
        with closing(sqlite3.connect(ours)) as source, closing(sqlite3.connect(theirs)) as target:
            source.backup(target)
        rewrite(theirs, SERVING, entry_of(theirs, "settle"), dearer)
        shown_to_them = FromDatabase(theirs, history.now)._ledger.head(history.now).checkpoint
        file = tmp_path / "theirs.json"
        file.write_bytes(hand_out(Known(checkpoints=[shown_to_them]), ROOT.public))

        alone = await audited(ours, known, history.now)
        control = await audited(ours, known, history.now, others=tuple(known.checkpoints))
        compared = await audited(ours, known, history.now, others=tuple(read_handed(file, ROOT.public)))

        assert alone.ok
        assert control.ok
        assert control.of_others == len(known.checkpoints)
        assert kinds(compared) == {"two_histories"}
        assert len(evidence_of(compared)) == 1


def forge(change: Callable[[Contradiction], Contradiction], found: Contradiction) -> None:
    with pytest.raises(NotShown):
        check_contradiction(change(found))


async def test_evidence_that_shows_nothing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "horde.db"
    async with lived(path) as (history, known):
        rewrite(path, SERVING, entry_of(path, "hold"), dearer)
        report = await audited(path, known, history.now)
    files = [Path(finding.evidence) for finding in report.findings if finding.evidence]
    replace = msgspec.structs.replace
    tried = set()
    for file in files:
        found = msgspec.json.decode(file.read_bytes(), type=Contradiction)
        assert check_contradiction(found)
        tried.add(found.how)
        said = parse(found.second)
        stranger = documents.sign(open_document(said, Checkpoint), a_key(3), said.context)
        forge(partial(replace, second=stranger.raw), found)
        forge(lambda one: replace(one, first=one.second), found)
        forge(lambda one: replace(one, root="00" * 32), found)
        forge(lambda one: replace(one, root="zz"), found)
        forge(lambda one: replace(one, delegation=one.second), found)
        if found.proof:
            forge(lambda one: replace(one, proof=one.proof[1:]), found)
    assert "tree" in tried


# What the tracker itself could publish


@pytest.mark.parametrize(
    ("event", "postings", "kind"),
    [
        ("settle", ((100, 5), (101, -5)), "postings"),
        ("settle", ((3, -(10**12)), (100, 10**12)), "balance"),
        ("gift", ((1, -5), (100, 5)), "postings"),
        ("award", ((1, -9), (101, 9)), "document"),
        ("epoch", (), "document"),
        ("hold", ((100, -(10**12)), (3, 10**12)), "balance"),
    ],
)
async def test_entries_that_the_rules_do_not_allow_are_found(
    tmp_path: Path, event: str, postings: tuple[tuple[int, int], ...], kind: str
) -> None:
    path = tmp_path / "horde.db"
    async with lived(path) as (history, _):
        place = entry_of(path, "award" if event == "award" else "settle")

        def change(leaf: Leaf) -> Leaf:
            return msgspec.structs.replace(leaf, event=event, postings=postings)

        rewrite(path, SERVING, place, change)

        assert kind in kinds(await audited(path, Known(), history.now))


MODERATOR, SECOND = a_key(601), a_key(602)


async def act(history: History, number: int, what: str, key: SigningKey = MODERATOR, **fields: Any) -> bytes:
    now = history.tick()
    said = an_act(what, nonce=a_nonce(7_000 + number), valid_until=now + 1000, **fields)
    envelope = signed(said, key)
    await history.store.act(envelope, said, now)
    return envelope.digest


async def test_acts_of_moderators_are_checked_by_the_roles_that_the_rules_of_then_gave(tmp_path: Path) -> None:
    path = tmp_path / "horde.db"
    moderators = RolesSection(moderators=tuple(show_key(key.public) for key in (MODERATOR, SECOND)))
    async with History.open(
        path, msgspec.structs.replace(AT_ONCE, roles=moderators, moderation=ModerationSection(return_alone=1000))
    ) as history:
        ann, ben = (history.accounts[key.public] for key in (ANN, BEN))
        await history.award(ann, 50_000)
        await act(history, 1, "warn", account=ann)
        await act(history, 2, "return", account=ann, amount=900, to=ben)
        much = await act(history, 3, "return", account=ann, amount=9000)
        await act(history, 4, "agree", SECOND, about=much)
        await act(history, 5, "trust", account=ben)
        await history.store.seal(history.tick())
        now, part = history.now, PublicLedger(path).part(0, history.now)[0]

    report = await audited(path, Known(), now)
    rewrite(path, SERVING, entry_of(path, "return"), dearer)
    rewritten = await audited(path, Known(), now)

    assert report.ok, list(report.lines())
    assert report.burned == 9000
    assert kinds(rewritten) == {"document"}
    findings = Findings()
    horde = Horde(ROOT.public, b"", 1, SERVING.public, 0, {})
    walk = Walk(Acts(horde, {1: Rules()}), findings)
    for row in part.rows:
        walk.enter(row)
    assert [finding.entry for finding in findings.kept] == [1, 2, 3, 4, 5]
    assert all("no such role" in finding.text for finding in findings.kept)


async def test_parts_that_were_read_before_are_compared_with_what_is_shown_now(tmp_path: Path) -> None:
    path = tmp_path / "horde.db"
    async with History.open(path, AT_ONCE):
        pass
    fill(path, 1100)
    async with SqliteStore.open(path, SERVING) as store:
        await store.seal(NOW)
        first = FromDatabase(path, NOW)
        options = Options(root=ROOT.public, version=0, full=True, folder=tmp_path / "audit", now=NOW)
        again = FromDatabase(path, NOW)

        report = (await audit(first, options, Known(), lambda _, __: None)).report
        repeated = (await audit(again, options, Known(), lambda _, __: None)).report
        rewrite(path, SERVING, 7, lambda leaf: msgspec.structs.replace(leaf, day=leaf.day + 1))
        rewritten = (await audit(FromDatabase(path, NOW), options, Known(), lambda _, __: None)).report

        assert report.ok
        assert repeated.ok
        assert (first.parts, again.parts) == (2, 1)
        assert [finding.entry for finding in rewritten.findings if finding.kind == "rewritten"] == [7]


async def test_a_head_of_another_root_or_signed_by_another_key_is_refused(tmp_path: Path) -> None:
    from peer.audit.source import BadSource

    path = tmp_path / "horde.db"
    async with lived(path) as (history, known):
        options = Options(root=a_key(9).public, version=0, full=True, folder=tmp_path, now=history.now)
        with pytest.raises(BadSource):
            await audit(FromDatabase(path, history.now), options, known, lambda _, __: None)

        older = Options(root=ROOT.public, version=99, full=False, folder=tmp_path, now=history.now)
        report = (await audit(FromDatabase(path, history.now), older, known, lambda _, __: None)).report
        assert kinds(report) == {"document"}


# Services


async def test_services_are_shown_in_clear_with_what_the_entries_say_that_they_gave_and_took(tmp_path: Path) -> None:
    path = tmp_path / "horde.db"
    async with History.open(path, AT_ONCE) as history:
        for key, name, is_service in ((ANN, "Ink", True), (BEN, "Ben", False)):
            profile = Profile(version=1, name=name, service=is_service)
            await history.store.profile(signed(profile, key), profile, history.tick())
        await history.award(history.accounts[ANN.public], 50_000)
        await history.serve(ANN, BEN)
        await history.serve(BEN, ANN)
        await history.store.seal(history.tick())
        state = await history.store.account(history.accounts[ANN.public], history.now)

        report = await audited(path, Known(), history.now)

    [ink] = report.services
    assert report.ok
    assert ink.name == f"Ink#{ink.account}"
    assert (ink.gave, ink.took) == (state.earned - state.withheld, state.spent + state.held)
    assert ink.took > 0
    assert any("service Ink#" in line for line in report.lines())


# What a peer keeps


def a_checkpoint(size: int, time: int, key: SigningKey = SERVING) -> bytes:
    said = Checkpoint(size=size, root=size.to_bytes(32, "big"), time=time)
    return documents.sign(said, key, ROOT.public).raw


def test_of_each_day_and_of_each_hour_of_late_the_newest_checkpoint_stays_and_the_last_few(tmp_path: Path) -> None:
    shown = Shown(tmp_path, ROOT.public)
    for number in range(60):
        shown.keep(a_checkpoint(number, 1), number * DAY // 10)
    for number in range(60):
        shown.keep(a_checkpoint(number, 2), 100 * DAY)  # what came long ago stays, whatever comes at once

    kept = [open_document(parse(raw), Checkpoint) for raw in shown.all()]

    assert [one.size for one in kept if one.time == 1] == [9, 19, 29, 39, 49, 59]
    assert [one.size for one in kept if one.time == 2] == [*range(60 - LATEST, 60)]
    names = [f"{hour:07}-{hour:012}-{0:016x}" for hour in range(24 * 20)]
    assert superfluous(names) == [name for name in names[: 24 * 6] if int(name[:7]) % 24 != 23]


def test_two_checkpoints_of_one_size_stay_both(tmp_path: Path) -> None:
    shown = Shown(tmp_path, ROOT.public)
    other = documents.sign(Checkpoint(size=5, root=bytes(32), time=1), SERVING, ROOT.public).raw

    shown.keep(a_checkpoint(5, 1), NOW)
    shown.keep(other, NOW)
    shown.keep(other, NOW + DAY)

    assert len(shown.all()) == 2


def test_a_file_of_another_horde_or_of_nothing_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "shown.json"
    file.write_bytes(hand_out(Known(checkpoints=[a_checkpoint(5, 1)]), ROOT.public))

    assert len(read_handed(file, ROOT.public)) == 1
    with pytest.raises(BadHanded):
        read_handed(file, a_key(9).public)
    file.write_text("{}")
    with pytest.raises(BadHanded):
        read_handed(file, ROOT.public)


# The disclosure


def appointed(cut_at: int) -> bytes:
    """The root's word that another key serves, and from where on a restore has cut what the one before entered."""
    former = Former(key=SERVING.public, entries=cut_at)
    return documents.sign(Serving(serving=a_key(5).public, version=2, epoch=1, former=(former,)), ROOT, ROOT.public).raw


async def test_a_party_shows_anybody_what_it_paid_and_nothing_can_be_changed_in_it(tmp_path: Path) -> None:
    path = tmp_path / "horde.db"
    async with History.open(path, AT_ONCE) as history:
        await history.award(history.accounts[ANN.public], 50_000)
        asked = await history.ask(ANN, served_by=BEN)
        receipt = await history.receipt(asked.admitted.leases[0].document, BEN)
        await history.deliver(receipt)
        settlement = await history.acknowledge(asked, receipt)
        await history.store.seal(history.tick())
        party = Party(settlement, asked.admitted.leases[0].document, receipt.raw, asked.request.raw)
        opened = PublicLedger(path).opened(AskDisclosure(settlement=settlement, request=asked.request.raw))

    made = make_disclosure(party, opened, ROOT.public)
    again = msgspec.json.decode(msgspec.json.encode(made), type=Disclosure)
    shows = check_disclosure(again)
    assert check_disclosure(msgspec.structs.replace(made, delegation=appointed(cut_at=100)))

    assert [one.event for one in shows] == ["hold", "settle"]
    assert {one.job for one in shows} == {asked.job}
    assert dict(shows[0].signers) == {"request": ANN.public}
    assert dict(shows[1].signers) == {"lease": SERVING.public, "receipt": BEN.public}
    replace = msgspec.structs.replace
    hold, settle = made.entries
    for wrong in (
        replace(made, entries=(hold,)),
        replace(made, entries=()),
        replace(made, entries=(hold, replace(settle, evidence=hold.evidence))),
        replace(made, entries=(hold, replace(settle, entry=hold.entry))),
        replace(made, entries=(hold, replace(settle, proof=settle.proof[1:]))),
        replace(made, documents=(*made.documents[:1], a_checkpoint(3, 1, a_key(4)))),
        replace(made, delegation=appointed(cut_at=made.entries[1].entry)),
    ):
        with pytest.raises(NotShown):
            check_disclosure(wrong)
