"""Anybody's audit of a ledger of which evidence lies in archives, and one that begins at an archive's end."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from peer.audit.mine import Known
from peer.audit.opening import choose
from peer.audit.source import FromFolder
from protocol import codec
from protocol.documents import Balances as Word
from protocol.documents import Settlement, open_document, sign
from protocol.envelope import parse
from protocol.public import AskDisclosure, Balances, End
from tests.support.archiving import archive, checkpoints, look
from tests.support.auditing import FromDatabase, evidence_of, found_in, kinds, lived
from tests.support.builders import DAY, ROOT, SERVING, a_key, but
from tests.support.history import ANN, BEN, CARL, History
from tests.support.rewriting import dearer, rewrite
from tracker.commands.export import export
from tracker.commands.init import init
from tracker.public.reader import PublicLedger
from tracker.store.sqlite.copies import make_copy

NOTHING = Known([], [])
Cut = tuple[History, Known, int]


@pytest.fixture
async def cut(tmp_path: Path) -> AsyncIterator[Cut]:
    """A ledger with an archive, what those who lived through it know, and where the archive ends."""
    async with lived(tmp_path / "horde.db") as (history, known):
        said = checkpoints(tmp_path / "horde.db")[9]
        archive(tmp_path / "horde.db", said.time + 1, alone=False)
        await history.serve(CARL, BEN)
        await history.store.seal(history.tick())
        yield history, known, said.size


class Beginning(FromDatabase):
    """A public ledger, of which a test may change the balances that are shown."""

    def __init__(self, path: Path, now: int, change: Callable[[Balances], Balances]) -> None:
        super().__init__(path, now)
        self._change = change

    async def balances(self, size: int) -> Balances:
        return self._change(await super().balances(size))


async def test_a_ledger_with_archives_passes_from_its_first_entry_on(cut: Cut, tmp_path: Path) -> None:
    history, known, _ = cut
    report = await found_in(FromDatabase(tmp_path / "horde.db", history.now), tmp_path / "audit", known, history.now)

    assert report.ok, report.findings
    assert report.begins == 0
    assert report.own == len(known.settlements)


async def test_an_audit_begins_where_an_archive_ends_and_says_what_it_takes_on_trust(cut: Cut, tmp_path: Path) -> None:
    history, known, end = cut
    source = FromDatabase(tmp_path / "horde.db", history.now)
    whole = await found_in(source, tmp_path / "audit", known, history.now)
    for wanted in (end, end + 1, dt.datetime.fromtimestamp(history.now / 1000, dt.UTC).date()):
        report = await found_in(source, tmp_path / "audit", known, history.now, begin=wanted)
        assert report.ok, report.findings
        assert report.begins == end
        assert (report.minted, report.burned) == (whole.minted, whole.burned)
        assert any(f"read from entry {end} on: the balances there were taken" in line for line in report.lines())
    early = await found_in(source, tmp_path / "audit", known, history.now, begin=end - 1)
    assert (early.ok, early.begins) == (True, 0)


def test_it_begins_at_the_last_end_that_is_not_behind_what_was_wanted() -> None:
    ends = [End(size=10, day=20_000), End(size=25, day=20_030)]
    day = dt.date.fromisoformat
    wanted = (None, 9, 10, 24, 25, 99, day("2024-10-03"), day("2024-10-04"), day("2024-11-02"), day("2024-11-03"))
    assert [choose(ends, one) for one in wanted] == [0, 0, 10, 10, 25, 25, 0, 10, 10, 25]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda shown: but(shown, balances=shown.balances[:-1]), "others than those that were signed for"),
        (lambda shown: but(shown, peaks=shown.peaks[:-1]), "another tree"),
        (lambda shown: but(shown, peaks=tuple(reversed(shown.peaks))), "another tree"),
        (lambda shown: but(shown, document=b"x"), "not signed by this horde"),
        (
            lambda shown: but(
                shown, document=sign(open_document(parse(shown.document), Word), a_key(9), ROOT.public).raw
            ),
            "not signed by this horde",
        ),
    ],
)
async def test_balances_that_the_horde_has_not_signed_for_begin_nothing(
    cut: Cut, tmp_path: Path, change: Any, told: str
) -> None:
    history, known, end = cut
    source = Beginning(tmp_path / "horde.db", history.now, change)
    report = await found_in(source, tmp_path / "audit", known, history.now, begin=end)
    assert [finding.kind for finding in report.findings] == ["document"]
    assert told in report.findings[0].text
    assert report.begins == 0


async def test_signed_balances_that_are_not_true_are_believed_and_the_report_says_so(cut: Cut, tmp_path: Path) -> None:
    """Whoever wants to know adds up all entries: what these give is in the same report."""
    history, known, end = cut

    def richer(shown: Balances) -> Balances:
        (first, one), (second, other), *rest = shown.balances
        balances = ((first, one - 7), (second, other + 7), *rest)
        digest = hashlib.sha256(msgspec.msgpack.encode(balances)).digest()
        said = but(open_document(parse(shown.document), Word), balances=digest)
        return but(shown, balances=balances, document=sign(said, SERVING, ROOT.public).raw)

    source = Beginning(tmp_path / "horde.db", history.now, richer)
    trusting = await found_in(source, tmp_path / "audit", known, history.now, begin=end)
    whole = await found_in(source, tmp_path / "audit", known, history.now)
    assert (trusting.ok, trusting.begins) == (True, end)
    assert trusting.minted == whole.minted + 7


async def test_a_past_that_was_rewritten_before_the_beginning_is_found(cut: Cut, tmp_path: Path) -> None:
    """By the balances' own root, and by whoever knew better."""
    history, known, end = cut
    settled = min(open_document(parse(raw), Settlement).entry for raw in known.settlements)
    assert settled < end
    rewrite(tmp_path / "horde.db", SERVING, settled, dearer)
    source = FromDatabase(tmp_path / "horde.db", history.now)
    report = await found_in(source, tmp_path / "audit", known, history.now, begin=end)
    assert kinds(report) >= {"rewritten", "document"}
    assert evidence_of(report)
    stranger = await found_in(source, tmp_path / "stranger", NOTHING, history.now, begin=end)
    assert kinds(stranger) == {"document"}


async def test_an_export_has_the_balances_too(cut: Cut, tmp_path: Path) -> None:
    history, known, end = cut
    folder = tmp_path / "horde"
    init(folder, {"server.listen": "127.0.0.1:0", "horde.name": "a test"}, history.now)
    (folder / "horde.db").unlink()
    make_copy(tmp_path / "horde.db", folder / "horde.db")
    export(folder, tmp_path / "out", begin=0, now=history.now, told=lambda done, all_: None)
    report = await found_in(FromFolder(tmp_path / "out"), tmp_path / "audit", known, history.now, begin=end)
    assert report.ok, report.findings
    assert report.begins == end


async def test_what_has_moved_is_opened_to_its_parties_while_the_archive_is_at_hand(cut: Cut, tmp_path: Path) -> None:
    _, known, end = cut
    path = tmp_path / "horde.db"
    settlement = known.settlements[6]
    said = open_document(parse(settlement), Settlement)
    assert said.entry < end
    [archive_file] = (tmp_path / "archives").glob("*.db")
    [(request,)] = look(
        archive_file,
        "SELECT d.raw FROM documents d JOIN jobs j ON j.request = d.of_request WHERE d.kind = 'request' AND j.job = ?",
        said.job,
    )
    ledger = PublicLedger(path)
    assert [one.entry for one in ledger.opened(AskDisclosure(settlement=settlement)).entries] == [said.entry]
    opened = ledger.opened(AskDisclosure(settlement=settlement, request=request)).entries
    assert {codec.decode(one.leaf, dict)["event"] for one in opened} >= {"hold", "settle"}
    archive_file.rename(tmp_path / "elsewhere")
    with pytest.raises(Exception, match="kept elsewhere: ask the operator to bring it"):
        ledger.opened(AskDisclosure(settlement=settlement))


@pytest.mark.parametrize("cut_at", ["before", "between"])
async def test_a_job_that_has_not_moved_is_opened_whole_wherever_an_archive_ends(cut_at: str, tmp_path: Path) -> None:
    path = tmp_path / "horde.db"
    async with lived(path) as (history, _):
        await history.store.seal(history.tick())
        if cut_at == "before":
            archive(path, history.tick(2 * DAY), alone=False)
        asked = await history.ask(BEN, served_by=ANN)
        await history.store.seal(history.tick())
        if cut_at == "between":
            archive(path, history.tick(), alone=False)
        receipt = await history.receipt(asked.admitted.leases[0].document, ANN)
        settlement = await history.acknowledge(asked, receipt)
        await history.store.seal(history.tick())

        [end] = PublicLedger(path).head(history.now).archives
        opened = PublicLedger(path).opened(AskDisclosure(settlement=settlement, request=asked.request.raw)).entries
        assert {codec.decode(one.leaf, dict)["event"] for one in opened} >= {"hold", "settle"}
        assert (opened[0].entry < end.size) == (cut_at == "between")
