"""Old evidence moves into archives, and nothing of it is lost, changed or believed that should not be."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from protocol import codec
from tests.support.archiving import (
    STAGES,
    Killed,
    archive,
    audited,
    audited_whole,
    change,
    checkpoints,
    evidence,
    killed_at,
    look,
)
from tests.support.builders import DAY, NOW, SERVING, a_key, a_public_part, a_receipt, but, signed
from tests.support.builders import a_delegation as the_roots
from tests.support.history import ANN, BEN, CARL, NOBODY, History, live_through_everything
from tests.support.rules import plain
from tests.tracker import test_audit_economy, test_audit_people, test_recovery
from tracker.archives.making import NotSound
from tracker.archives.whole import listed, whole
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
