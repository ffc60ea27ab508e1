"""Old evidence moves into archives, and nothing of it is lost, changed or believed that should not be."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from peer.keeping import KEEP_DAYS
from protocol import codec
from protocol.documents import MAX_VALIDITY_MS, Balances, open_document, sign
from protocol.envelope import parse
from protocol.keyfiles import save_key
from protocol.keys import parse_key
from tests.support.archiving import (
    STAGES,
    Killed,
    archive,
    archive_files,
    audited,
    audited_whole,
    change,
    checkpoints,
    evidence,
    killed_at,
    look,
    raw_file,
)
from tests.support.builders import DAY, NOW, ROOT, SERVING, a_key, a_public_part, a_receipt, but, signed
from tests.support.builders import a_delegation as the_roots
from tests.support.history import ANN, BEN, CARL, NOBODY, History, live_through_everything
from tests.support.rules import plain
from tests.tracker import test_audit_economy, test_audit_people, test_recovery
from tests.tracker.test_audit_damage import flipped
from tracker.__main__ import cli
from tracker.archives.making import NotSound
from tracker.archives.whole import listed, whole
from tracker.audit import audit
from tracker.audit.opening import Opening, digest_of
from tracker.commands import exits
from tracker.commands.archive import LEAST_DAYS
from tracker.commands.folder import take_archives
from tracker.commands.init import init
from tracker.store.base import StoreError
from tracker.store.sqlite import SqliteStore
from tracker.store.sqlite.copies import make_copy


async def everything(path: Path) -> None:
    async with History.open(path) as history:
        await live_through_everything(history)
        for _ in range(3):
            await history.serve(CARL, BEN)
        await history.store.seal(history.tick())


async def economy(path: Path) -> None:
    async with History.open(path, test_audit_economy.RULES) as history:
        await test_audit_economy.live(history)


async def people(path: Path) -> None:
    SqliteStore.create(path, the_roots(), plain(), SERVING, NOW)
    await test_audit_people.live(path)


LEDGERS = {"everything": everything, "economy": economy, "people": people}


@pytest.fixture(scope="module")
def lived(tmp_path_factory):
    """Databases, by what was lived through in them."""
    folder = tmp_path_factory.mktemp("lived")
    for name, live in LEDGERS.items():
        asyncio.run(live(folder / f"{name}.db"))
    return folder


@pytest.fixture
def database(lived, tmp_path):
    return Path(shutil.copy(lived / "everything.db", tmp_path / "horde.db"))


@pytest.fixture
async def history(tmp_path: Path) -> AsyncIterator[History]:
    async with History.open(tmp_path / "horde.db") as history:
        for _ in range(3):
            await history.serve(NOBODY, ANN)
        await history.store.seal(history.tick())
        yield history


def half(path: Path) -> int:
    """A moment in the middle."""
    found = checkpoints(path)
    return found[len(found) // 2].time + 1


# What moves, and what does not


@pytest.mark.parametrize("name", LEDGERS)
def test_wherever_a_ledger_is_cut_both_of_its_parts_pass_and_nothing_is_lost(lived, tmp_path, name):
    before = evidence(lived / f"{name}.db")
    report = audited(lived / f"{name}.db")
    for said in checkpoints(lived / f"{name}.db")[1::3]:
        folder = tmp_path / str(said.size)
        folder.mkdir()
        path = Path(shutil.copy(lived / f"{name}.db", folder / "horde.db"))

        made = archive(path, said.time + 1)

        assert made.end == said.size
        rest, all_ = audited(path), audited_whole(path)
        assert (rest.begins, all_.begins) == (said.size, 0)
        assert rest.archives == all_.put_back == (made.name,)
        assert (rest.tree, rest.minted, rest.burned) == (report.tree, report.minted, report.burned)
        assert (all_.documents, all_.jobs, all_.checkpoints) == (report.documents, report.jobs, report.checkpoints)
        assert evidence(path) == before


def test_one_archive_follows_another_and_an_audit_begins_at_the_end_of_any(database):
    before, report = evidence(database), audited(database)
    sizes = []
    for said in checkpoints(database)[2::3]:
        made = archive(database, said.time + 1)
        sizes.append(made.end)
        audited(database)

    assert len(sizes) >= 3
    assert evidence(database) == before
    assert audited_whole(database).tree == report.tree
    for end in sizes:
        assert audited_whole(database, end).begins == end
    with (
        pytest.raises(StoreError, match="no archive ends at entry 1"),
        whole(database, database.parent / "archives", 1),
    ):
        pass


def test_nothing_old_enough_moves_nothing(database):
    before = look(database, "SELECT * FROM jobs")
    made = archive(database, NOW - 1)

    assert (made.number, made.name, listed(database)) == (0, "", [])
    assert look(database, "SELECT * FROM jobs") == before


async def test_a_job_that_is_under_way_stays_with_its_hold_until_an_archive_behind_its_end(history, tmp_path):
    path = tmp_path / "horde.db"
    asked = await history.ask(ANN, served_by=BEN)
    await history.store.seal(history.tick())
    first = history.tick()
    receipt = await history.receipt(asked.admitted.leases[0].document, BEN)
    settlement = await history.acknowledge(asked, receipt)
    await history.store.seal(history.tick())

    archive(path, first, alone=False)
    assert look(path, "SELECT job FROM jobs WHERE job = ?", asked.job)
    audited(path)
    audited_whole(path)
    # Whoever asks again gets the same answer as before.
    assert await history.acknowledge(asked, receipt) == settlement
    archive(path, history.tick(), alone=False)
    assert not look(path, "SELECT job FROM jobs WHERE job = ?", asked.job)
    audited(path)
    audited_whole(path)


async def test_a_request_of_several_jobs_moves_when_all_of_them_are_over(history, tmp_path):
    path = tmp_path / "horde.db"
    asked = await history.ask(ANN, a_public_part(n=2), served_by=BEN)
    await history.acknowledge(asked, await history.receipt(asked.admitted.leases[0].document, BEN))
    await history.store.seal(history.tick())
    archive(path, history.tick(), alone=False)

    assert len(look(path, "SELECT job FROM jobs WHERE request = ?", asked.request.digest)) == 2
    audited(path)
    audited_whole(path)


async def test_a_refund_stays_while_it_stands_against_somebody_and_moves_when_it_is_forgotten(history, tmp_path):
    path = tmp_path / "horde.db"
    denied = await history.ask(ANN, served_by=BEN)
    await history.deny(denied, denied.admitted.leases[0].document)
    await history.store.seal(history.tick())
    archive(path, history.tick(), alone=False)
    assert look(path, "SELECT job FROM jobs WHERE job = ?", denied.job)
    audited(path)

    await history.serve(CARL, ANN)
    await history.store.tidy(history.tick(400 * DAY))
    await history.store.seal(history.tick())
    archive(path, history.tick(), alone=False)
    assert not look(path, "SELECT job FROM jobs WHERE job = ?", denied.job)
    audited(path)
    audited_whole(path)


async def test_a_proof_that_somebody_contradicted_itself_stays_with_what_it_contradicts(history, tmp_path):
    path = tmp_path / "horde.db"
    asked = await history.ask(ANN, served_by=BEN)
    receipt = await history.receipt(asked.admitted.leases[0].document, BEN)
    await history.deliver(receipt)
    with pytest.raises(Exception, match="different"):
        await history.deliver(signed(but(codec.decode(receipt.body, type(a_receipt())), used=1), BEN))
    await history.acknowledge(asked, receipt)
    await history.store.seal(history.tick())
    made = archive(path, history.tick(), alone=False)

    assert made.requests == 3
    assert look(path, "SELECT job FROM jobs WHERE job = ?", asked.job)
    audited(path)


async def test_what_a_restore_has_brought_back_stays(tmp_path):
    async with History.open(tmp_path / "horde.db") as history:
        await test_recovery.one(history, NOBODY, ANN)
        await history.store.seal(history.tick())
        copy = tmp_path / "copy.db"
        make_copy(tmp_path / "horde.db", copy)
        job = await test_recovery.one(history, ANN, BEN)
        async with test_recovery.restored(history, copy) as later:
            await later.show_both(job)
            await test_recovery.one(later.history, NOBODY, ANN)
            await later.history.store.seal(later.history.tick())
            made = archive(copy, later.history.tick(), alone=False, key=test_recovery.NEXT_SERVING)
            assert made.requests == 2
            await later.show_both(job)  # once more, and nothing comes of it
            await test_recovery.one(later.history, CARL, ANN)
            test_recovery.audited(copy, recovered=1, missing=0, lacking=0)
            audited_whole(copy)


async def test_what_was_paid_anew_after_a_restore_stays_so_that_nobody_is_paid_twice(tmp_path):
    async with History.open(tmp_path / "horde.db") as history:
        job = await test_recovery.begin(history, ANN, BEN)
        copy = tmp_path / "copy.db"
        make_copy(tmp_path / "horde.db", copy)
        await test_recovery.finish(history, job)
        async with test_recovery.restored(history, copy) as later:
            await later.history.store.seal(later.history.tick())
            await later.history.acknowledge(job.asked, job.receipt)
            await later.history.store.seal(later.history.tick())
            before = await later.accounts()
            made = archive(copy, later.history.tick(400 * DAY), alone=False, key=test_recovery.NEXT_SERVING)
            assert (made.number, made.requests) == (1, 0)
            shown = await later.show(job.kept(), BEN)
            assert not shown.entered
            assert await later.accounts() == before
            audited(copy)
            audited_whole(copy)


# While a tracker serves


async def test_a_store_goes_on_while_an_archive_is_made_of_it(history, tmp_path):
    path = tmp_path / "horde.db"
    for _ in range(20):
        await history.serve(ANN, BEN)
    await history.store.seal(history.tick())
    moving = asyncio.create_task(asyncio.to_thread(archive, path, history.tick(), alone=False))
    while not moving.done():
        await history.serve(CARL, ANN)
    await history.store.seal(history.tick())

    assert (await moving).requests == 23
    audited(path)
    audited_whole(path)
    assert (await history.store.account(history.accounts[ANN.public], history.now)).jobs_done > 3


async def test_a_tracker_that_starts_goes_on_from_what_is_left(history, tmp_path):
    path = tmp_path / "horde.db"
    archive(path, history.tick(), alone=False)
    head = await history.store.ledger_head()
    async with SqliteStore.open(path, SERVING) as store:
        assert await store.ledger_head() == head
        again = History(store, await store.rules_in_force())
        again.now, again.accounts = history.tick(), history.accounts
        again.number_from(500)
        await again.serve(CARL, ANN)
        await store.seal(again.tick())
    audited(path)
    audited_whole(path)


async def test_the_file_becomes_smaller_also_beside_a_tracker(history, tmp_path):
    path = tmp_path / "horde.db"
    for _ in range(40):
        await history.serve(ANN, BEN)
    await history.store.seal(history.tick())
    before = look(path, "PRAGMA page_count")[0][0]
    archive(path, history.tick(), alone=False)

    assert look(path, "PRAGMA page_count")[0][0] < before * 0.6
    assert look(path, "PRAGMA freelist_count") == [(0,)]


# Broken off


@pytest.mark.parametrize("stage", STAGES)
def test_whoever_is_killed_at_any_step_has_lost_nothing_and_goes_on_by_doing_it_again(database, stage):
    before, moment = evidence(database), half(database)
    with pytest.raises(Killed):
        archive(database, moment, stage=killed_at(stage))

    assert audited(database).entries
    archive(database, moment)

    assert [one.state for one in listed(database)] == ["moved"]
    assert evidence(database) == before
    assert {file.name for file in (database.parent / "archives").iterdir()} == {
        listed(database)[0].name,
        listed(database)[0].name.replace(".db", ".json"),
    }
    audited(database)
    audited_whole(database)


def test_whoever_is_killed_while_requests_move_has_some_here_and_some_there(database, monkeypatch):
    monkeypatch.setattr("tracker.archives.moving.MAX_SECONDS", 0)
    before, moment, jobs = evidence(database), half(database), len(look(database, "SELECT 1 FROM jobs"))
    for times in (2, 4):
        with pytest.raises(Killed):
            archive(database, moment, stage=killed_at("move", times))
        assert len(look(database, "SELECT 1 FROM jobs")) < jobs
        assert evidence(database) == before
        audited(database)
        audited_whole(database)
    archive(database, moment)
    assert evidence(database) == before
    audited_whole(database)


def test_what_changes_while_it_is_moved_stays(database):
    said = signed(a_receipt(), a_key(9))
    [(job,)] = look(database, "SELECT job FROM jobs WHERE state = 'settled' ORDER BY admitted LIMIT 1")

    def meanwhile(stage: str) -> None:
        if stage == "check":
            insert = "INSERT INTO documents (digest, signer, kind, identity, raw) VALUES (?, ?, 'receipt', ?, ?)"
            change(database, insert, said.digest, said.key, job + b"\0\0\0\1", said.raw)

    made = archive(database, half(database), stage=meanwhile)

    assert made.stayed == 1
    assert look(database, "SELECT 1 FROM jobs WHERE job = ?", job)


def test_a_ledger_with_faults_stays_as_it_is(database):
    change(database, "UPDATE accounts SET balance = balance + 1 WHERE account = 100")
    with pytest.raises(NotSound, match="account 100: stored balance"):
        archive(database, half(database))
    assert listed(database) == []
    assert not list((database.parent / "archives").iterdir())


def test_a_database_of_an_earlier_program_is_not_touched(database):
    change(database, "UPDATE horde SET shares_from = 0")
    look(database, "PRAGMA user_version = 6")
    with pytest.raises(StoreError, match="start the tracker with this program once"):
        archive(database, half(database))


def test_only_the_key_that_serves_makes_archives(database):
    with pytest.raises(StoreError, match="another serving key"):
        archive(database, half(database), key=a_key(9))


# Damage


@pytest.fixture(scope="module")
def cut_once(lived, tmp_path_factory):
    path = Path(shutil.copy(lived / "everything.db", tmp_path_factory.mktemp("cut") / "horde.db"))
    for said in (checkpoints(path)[4], checkpoints(path)[7]):
        archive(path, said.time + 1)
    return path.parent


@pytest.fixture
def cut(cut_once, tmp_path):
    """A database with two archives, which a test may damage."""
    return Path(shutil.copytree(cut_once, tmp_path / "cut")) / "horde.db"


def test_a_byte_that_is_flipped_anywhere_in_an_archive_is_found_and_the_file_is_named(cut):
    audited_whole(cut)
    chance = random.Random(7)
    for path in archive_files(cut) * 20:
        at, bit = chance.randrange(path.stat().st_size), 1 << chance.randrange(8)
        with raw_file(path) as content:
            content[at] ^= bit
        text = f"{path.name}: SHA-256 .* or it was damaged; bring it from where it is kept"
        with pytest.raises(StoreError, match=text), whole(cut, cut.parent / "archives", 0):
            pass
        with raw_file(path) as content:
            content[at] ^= bit
    audited_whole(cut)


def test_an_archive_that_is_missing_or_cut_short_is_named(cut):
    first, second = archive_files(cut)
    with raw_file(second) as content:
        del content[-1:]
    with pytest.raises(StoreError, match=f"{second.name}: .* bytes, and the archive that was signed for has"):
        audited_whole(cut)
    second.unlink()
    with pytest.raises(StoreError, match=f"{second.name}: the archive is not there: bring it"):
        audited_whole(cut)
    first.unlink()
    audited(cut)


def test_an_archive_in_the_place_of_another_one_is_found(cut, lived, tmp_path):
    """Also one of the same horde, of the same size, for the same entries."""
    (tmp_path / "other").mkdir()
    other = Path(shutil.copy(lived / "everything.db", tmp_path / "other" / "horde.db"))
    archive(other, checkpoints(other)[4].time + 1)
    [path] = archive_files(other)
    with raw_file(path) as content:
        content[-1] ^= 1
    place = archive_files(cut)[0]
    assert path.stat().st_size == place.stat().st_size
    shutil.copy(path, place)

    with pytest.raises(StoreError, match="this is another file"):
        audited_whole(cut)


def test_two_archives_that_changed_places_are_found(cut):
    first, second = archive_files(cut)
    first.rename(first.with_suffix(".aside"))
    second.rename(first)
    first.with_suffix(".aside").rename(second)

    with pytest.raises(StoreError, match="archive that was signed for"):
        audited_whole(cut)


def resign(path: Path, place: int, *, key=SERVING, **changes: object) -> None:
    """The operator signs something else for an archive."""
    [(raw,)] = look(path, "SELECT document FROM archives WHERE number = ?", place)
    said = but(open_document(parse(raw), Balances), **changes)
    change(path, "UPDATE archives SET document = ? WHERE number = ?", sign(said, key, ROOT.public).raw, place)


def change_books(path: Path, number: int) -> bytes:
    """Somebody has a thousandth more in the books of an archive's end."""
    [(raw,)] = look(path, "SELECT books FROM archives WHERE number = ?", number)
    opening = codec.decode(raw, Opening)
    account, sums = opening.accounts[-1]
    changed = codec.encode(but(opening, accounts=(*opening.accounts[:-1], (account, (sums[0] + 1, *sums[1:])))))
    change(path, "UPDATE archives SET books = ? WHERE number = ?", changed, number)
    return digest_of(changed)


def findings(path: Path) -> str:
    return "\n".join(str(finding) for finding in audit(path, root=ROOT.public).findings)


def test_balances_that_were_changed_are_found(cut):
    digest = change_books(cut, 2)
    assert "digest of its books" in findings(cut)
    # Also if the operator signs for them: the leaves say something else.
    resign(cut, 2, books=digest)
    assert "digest of its balances" in findings(cut)
    assert "balances: found" in findings(cut)


def test_books_that_were_changed_and_signed_for_are_found_with_the_archives(cut):
    """What only evidence shows, as what somebody has earned."""
    [(raw,)] = look(cut, "SELECT books FROM archives WHERE number = 1")
    opening = codec.decode(raw, Opening)
    account, sums = opening.accounts[-1]
    changed = codec.encode(
        but(opening, accounts=(*opening.accounts[:-1], (account, (*sums[:2], sums[2] + 1, *sums[3:]))))
    )
    change(cut, "UPDATE archives SET books = ? WHERE number = 1", changed)
    resign(cut, 1, books=digest_of(changed))
    with whole(cut, cut.parent / "archives", 0) as copy:
        assert "archive-000001" in findings(copy)
        assert ": accounts: found" in findings(copy)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"root": bytes(32)}, "root of the tree"),
        ({"epoch": 1}, "epoch"),
        ({"size": 3}, "end"),
        ({"start": 1}, "beginning"),
        ({"number": 7}, "number that was signed for"),
        ({"previous": bytes(32)}, "the archive before"),
        ({"key": a_key(9)}, "by another key than the serving key"),
    ],
)
def test_whatever_else_is_signed_for_an_archive_is_compared(cut, changes, found):
    resign(cut, 2, **changes)
    assert found in findings(cut)


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("UPDATE entries SET evidence = x'' WHERE entry = (SELECT max(entry) FROM entries)", "leaf or evidence"),
        ("UPDATE entries SET leaf = CAST(leaf || 'x' AS BLOB) WHERE entry = 2", "stored hash of the leaf"),
        ("UPDATE entries SET hash = zeroblob(32) WHERE entry = 2", "stored hash of the leaf"),
        ("DELETE FROM entries WHERE entry = 2", "the entry's number"),
        ("UPDATE accounts SET earned = earned + 1 WHERE account = 100", "stored earned"),
        ("UPDATE mint_days SET minted = minted + 1", "stored mint"),
        ("DELETE FROM archives WHERE number = 1", "number"),
        ("DELETE FROM archives", "leaf or evidence"),
        ("UPDATE archives SET state = 'back'", "leaf or evidence"),
        ("UPDATE archives SET size = size + 1 WHERE number = 2", "end"),
    ],
)
def test_damage_in_what_is_left_is_found_as_ever(cut, statement, found):
    change(cut, statement)
    assert found in findings(cut)


def test_a_flipped_byte_in_what_is_kept_of_an_archive_is_found(cut):
    """Where its file is, and how large, decides nothing: the digest that was signed for does."""
    chance = random.Random(5)
    columns = {name for (_, name, *_) in look(cut, "PRAGMA table_info(archives)")}
    assert columns == {"number", "size", "name", "bytes", "document", "books", "state"}
    for column in ("number", "size", "document", "books"):
        [(value,)] = look(cut, f"SELECT {column} FROM archives WHERE number = 2")
        damaged = flipped(value, chance.randrange(1000), chance.randrange(7))
        change(cut, f"UPDATE archives SET {column} = ? WHERE number = 2", damaged)
        assert findings(cut), column
        change(cut, f"UPDATE archives SET {column} = ? WHERE {column} = ?", value, damaged)
    for column in ("name", "bytes"):
        [(value,)] = look(cut, f"SELECT {column} FROM archives WHERE number = 2")
        change(cut, f"UPDATE archives SET {column} = ? WHERE number = 2", flipped(value, 3))
        with pytest.raises(StoreError), whole(cut, cut.parent / "archives", 0):
            pass
        change(cut, f"UPDATE archives SET {column} = ? WHERE number = 2", value)
    audited_whole(cut)


def test_a_manifest_lies_beside_each_archive(cut):
    for number, path in enumerate(archive_files(cut), 1):
        said = json.loads(path.with_suffix(".json").read_text())
        assert parse_key(said["horde"]) == ROOT.public
        assert said["archive"] == path.name
        assert said["bytes"] == path.stat().st_size
        balances = dict(look(cut, "SELECT account, balance FROM accounts"))
        assert sum(amount for _, amount in said["balances"]) == 0
        assert {account for account, _ in said["balances"]} <= balances.keys()
        assert number == listed(cut)[number - 1].number


def test_the_archives_hold_no_more_than_what_moved(cut):
    """Neither accounts nor keys, nor anything else that the live database is for."""
    for path in archive_files(cut):
        names = {name for (name,) in look(path, "SELECT name FROM sqlite_schema WHERE type = 'table'")}
        assert names == {"requests", "jobs", "attempts", "documents", "evidence", "checkpoints"}
        assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("number", [1, 2])
def test_an_archive_can_lie_somewhere_else(cut, tmp_path, number):
    elsewhere = tmp_path / "elsewhere"
    (cut.parent / "archives").rename(elsewhere)
    begin = listed(cut)[number - 1].said.start
    with whole(cut, elsewhere, begin) as copy:
        assert audited(copy).begins == begin
    assert not list(cut.parent.glob(".audit-*"))


def test_what_may_move_is_older_than_anything_that_peers_may_still_show() -> None:
    assert LEAST_DAYS * DAY > MAX_VALIDITY_MS
    assert LEAST_DAYS > KEEP_DAYS


# The commands


@pytest.fixture
def folder(cut, tmp_path):
    """A horde's folder whose database has two archives."""
    found = tmp_path / "horde"
    init(found, {"server.listen": "127.0.0.1:0", "horde.name": "a test"}, NOW)
    for name in ("root.key", "serving.key", "serving.delegation", "horde.db"):
        (found / name).unlink()
    save_key(found / "root.key", ROOT)
    save_key(found / "serving.key", SERVING)
    (found / "serving.delegation").write_bytes(the_roots().raw)
    shutil.copy(cut, found / "horde.db")
    shutil.copytree(cut.parent / "archives", found / "archives")
    return found


def run(*words: object, code: int = exits.OK) -> str:
    """A command line; what it prints."""
    ended = CliRunner().invoke(cli, [str(word) for word in words])
    assert ended.exit_code == code, ended.output
    return ended.stdout + ended.stderr


def test_what_peers_may_still_ask_for_is_not_archived(folder):
    for words in (("--keep-days", 13), ("--before", "2999-01-01")):
        assert "wanted a day at least 14 days ago" in run("archive", folder, *words, code=exits.BAD_COMMAND_LINE)
    assert "wanted one of them" in run(
        "archive", folder, "--keep-days", 90, "--before", "2026-01-01", code=exits.BAD_COMMAND_LINE
    )


def test_the_commands_say_what_they_did_and_what_they_need(folder, tmp_path):
    text = run("archive", folder)
    assert "archive-000003" in text
    assert "Copy it and its .json to where your backups are" in text
    assert "Nothing is old enough to move." in run("archive", folder)
    text = run("audit", folder)
    assert "NOTE evidence was checked from entry" in text
    assert "(audit --archives)" in text
    assert "read with 3 archives" in run("audit", folder, "--archives", "all")
    assert "say by --archives where the archives are" in run("audit", folder, "--from", 1, code=exits.BAD_COMMAND_LINE)
    assert "no archive ends at entry 1" in run("audit", folder, "--archives", "all", "--from", 1, code=exits.BAD_HORDE)
    assert "keep a copy of each there too" in run("backup", folder, tmp_path / "copy.db")
    archive_files(folder / "horde.db")[0].unlink()
    assert "bring it from where it is kept" in run("audit", folder, "--archives", "all", code=exits.BAD_HORDE)
    assert "an audit from the beginning does not" in run("restore", folder, tmp_path / "copy.db")


def test_what_is_half_moved_is_told_and_an_audit_waits_for_it(folder):
    database = folder / "horde.db"
    with pytest.raises(Killed):
        archive(database, checkpoints(database)[-1].time + 1, stage=killed_at("name"))
    assert "is half moved: give `potluck-tracker archive` once more" in run("check", folder)
    assert "is not whole yet" in run("audit", folder, "--archives", "all", code=exits.BAD_HORDE)
    assert "everything is as the evidence says" in run("audit", folder)
    assert "was half moved, and is whole now." in run("archive", folder)
    assert "3, up to entry" in run("check", folder)
    assert "read with 3 archives" in run("audit", folder, "--archives", "all")


def test_two_commands_do_not_archive_at_once(folder):
    with closing(take_archives(folder)):
        assert "wait for it to end" in run("archive", folder, code=exits.BAD_HORDE)


def test_a_ledger_with_faults_is_told_so_by_the_command(folder):
    change(folder / "horde.db", "UPDATE accounts SET balance = balance + 1 WHERE account = 100")
    text = run("archive", folder, code=exits.FOUND_FAULTS)
    assert "account 100: stored balance" in text
    assert "nothing was moved: look into it by potluck-tracker audit" in text


KILLED = """
import os, sys
from pathlib import Path
from tests.support.archiving import archive
left = int(sys.argv[4])
def stage(name):
    global left
    left -= name == sys.argv[3]
    if not left:
        os._exit(9)
archive(Path(sys.argv[1]), int(sys.argv[2]), stage=stage)
"""


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_process_that_is_killed_at_any_step_has_lost_nothing(database, stage):
    """The same as above with processes that end at once, and leave everything as it lies."""
    before, moment = evidence(database), half(database)
    words = [sys.executable, "-c", KILLED, str(database), str(moment), stage, "1"]
    assert subprocess.run(words, cwd=Path(__file__).parents[2], check=False).returncode == 9
    assert evidence(database) == before
    audited(database)
    archive(database, moment)
    assert evidence(database) == before
    audited_whole(database)
