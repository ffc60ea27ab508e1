"""Backups made while a real tracker works, and a horde that goes on from one that is older than what it has paid."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sqlite3
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from peer.client import Client
from peer.events import Received, Restarted, Settled, TextPiece
from protocol.keys import show_key
from protocol.messages import Account
from tests.support.following import Following, followed
from tests.support.horde import PATIENCE_S, POLL_S, Horde
from tests.support.raw_peer import fund


async def backup(horde: Horde, name: str, *more: str, code: int = 0) -> Path:
    file = horde.folder / name
    await horde.run("tracker", "backup", str(horde.tracker_folder), str(file), *more, code=code)
    return file


async def restore(horde: Horde, file: Path) -> dict[str, Any]:
    text = await horde.run("tracker", "restore", str(horde.tracker_folder), str(file), "--json")
    done: dict[str, Any] = json.loads(text)
    return done


async def text(client: Client, tokens: int = 8) -> Following:
    return await followed(client.text("say something", max_tokens=tokens, context=64))


async def picture(client: Client) -> Following:
    return await followed(client.image("a red circle", width=64, height=64, steps=3))


async def standing(horde: Horde, name: str) -> Account:
    async with horde.client(name) as client:
        return await client.account()


async def until_audit(horde: Horde, **wanted: int) -> dict[str, Any]:
    """Audit until the only gap is as wanted; peers come back in their own time."""
    gap: dict[str, Any] = {}
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                report = await horde.audit()
                [gap] = report["gaps"]
                if all(gap[name] == value for name, value in wanted.items()):
                    assert report["ok"]
                    return report
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise AssertionError(f"{gap} does not become {wanted}") from None


@contextlib.asynccontextmanager
async def asking_all_the_time(horde: Horde, requesters: int) -> AsyncIterator[list[Settled]]:
    """Anonymous people who ask for one text after the other."""
    settled: list[Settled] = []

    async def ask() -> None:
        async with horde.client() as client:
            while True:
                settled.append((await text(client, 2)).one(Settled))

    tasks = [asyncio.create_task(ask()) for _ in range(requesters)]
    try:
        yield settled
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.slow
async def test_a_backup_under_load_is_a_sound_ledger_of_one_moment(tmp_path: Path) -> None:
    async with Horde.open(tmp_path) as horde:
        await horde.worker("ann", "--dry-run", "text", "--dry-run", "text")
        entries = []
        async with asking_all_the_time(horde, 4) as settled:
            for number in range(3):
                wanted = len(settled) + 5
                async with asyncio.timeout(PATIENCE_S):
                    while len(settled) < wanted:  # noqa: ASYNC110 (what counts is that work goes on)
                        await asyncio.sleep(POLL_S)
                file = await backup(horde, f"{number}.db")
                report = json.loads(await horde.run("tracker", "audit", str(file), "--json"))
                assert report["ok"]
                entries.append(report["entries"])
                if os.name == "posix":
                    assert file.stat().st_mode & 0o777 == 0o600
        assert entries == sorted(entries)
        assert entries[0] < entries[2]
        assert sorted(path.name for path in tmp_path.glob("*.db*")) == ["0.db", "1.db", "2.db"]
        await backup(horde, "2.db", code=4)
        await backup(horde, "2.db", "--force")


async def a_horde_that_pays(horde: Horde) -> None:
    await horde.worker("ann", "--dry-run", "image")
    await horde.worker("bob", "--dry-run", "text:step_ms=150")  # 40 tokens outlast a backup
    horde.join("payer")
    assert horde.link is not None
    await fund(horde.link, horde.home("payer").key())


@pytest.mark.ci_slow
async def test_what_was_paid_after_the_copy_is_entered_again_when_peers_come_back(tmp_path: Path) -> None:
    async with Horde.open(tmp_path) as horde:
        await a_horde_that_pays(horde)
        async with horde.client("payer") as payer, horde.client() as nobody:
            await picture(nobody)
            under_way = Following()
            coming = payer.text("say something", max_tokens=40, context=64)
            await under_way.until(coming, 3, TextPiece)
            copy = await backup(horde, "copy.db")
            await under_way.until_done(coming)
            paid = await text(payer)
            await picture(nobody)
            again = await text(payer)
        # Somebody who comes only after the copy: the account, too, is gone with it.
        await horde.worker("late", "--dry-run", "image:model=late")
        async with horde.client() as nobody:
            await followed(nobody.image("x", models=["late"], width=64, height=64, steps=2))
        before = {name: await standing(horde, name) for name in ("ann", "bob", "payer", "late")}
        assert paid.one(Settled).paid
        assert again.one(Settled).paid
        assert horde.tracker is not None
        await horde.tracker.kill()

        done = await restore(horde, copy)
        assert done["epoch"] == 1
        assert len(done["aside"]) >= 3
        assert all(Path(path).exists() for path in done["aside"])
        await horde.serve()
        await horde.workers(3)
        await until_audit(horde, missing=0, recovered=5, lacking=sum_of(under_way, paid, again) - sum_of(under_way))
        after = {name: await standing(horde, name) for name in ("payer", "ann", "bob", "late")}
        report = await until_audit(horde, missing=0, recovered=5, lacking=0)
        assert report["epoch"] == 1
        assert {name: amounts(account) for name, account in after.items()} == {
            name: amounts(account) for name, account in before.items()
        }

        # A second time nothing is entered, and what was kept says what became of it.
        assert amounts(await standing(horde, "payer")) == amounts(before["payer"])
        assert (await horde.audit())["entries"] == report["entries"]
        [file] = kept_files(horde, paid)
        head = await horde.audit("--head", str(file))
        assert head["ok"]
        assert "entered again as entry" in head["head_cut"]

        # Life goes on by the same link, and everything is paid once.
        async with horde.client("payer") as payer:
            job = await text(payer)
            job.check_acknowledged()
            job.check_kept(horde.home("payer"))
        assert (await horde.audit())["ok"]


def sum_of(*jobs: Following) -> int:
    return sum(job.one(Settled).paid + job.one(Settled).burned for job in jobs)


def amounts(account: Account) -> tuple[int, ...]:
    """All but the number, which one who came after the copy gets anew."""
    return (
        account.balance,
        account.held,
        account.earned,
        account.spent,
        account.taken_free,
        account.jobs_done,
        account.jobs_received,
    )


def kept_files(horde: Horde, job: Following) -> list[Path]:
    [artifact] = job.one(Received).artifacts
    return sorted((horde.home("payer").results_folder / "content" / artifact.sha256.hex()).glob("*.json"))


@pytest.mark.slow
async def test_what_nobody_shows_is_a_gap_that_audit_prints(tmp_path: Path) -> None:
    async with Horde.open(tmp_path) as horde:
        await a_horde_that_pays(horde)
        gone = await horde.worker("gone", "--dry-run", "image:model=gone")
        copy = await backup(horde, "copy.db")
        async with horde.client("payer") as payer, horde.client() as nobody:
            await followed(nobody.image("x", models=["gone"], width=64, height=64, steps=2))
            job = await text(payer)
        owed = sum_of(job)
        await gone.stop()
        assert horde.tracker is not None
        await horde.tracker.kill()
        await restore(horde, copy)
        await horde.serve()

        await until_audit(horde, recovered=1, missing=1, lacking=owed)
        lines = await horde.run("tracker", "audit", str(horde.tracker_folder))
        assert "GAP 1 more settlement" in lines
        assert "GAP held lacks" in lines
        await standing(horde, "payer")
        await until_audit(horde, recovered=1, missing=1, lacking=0)
        await horde.worker("gone", "--dry-run", "image:model=gone")
        await until_audit(horde, recovered=2, missing=0, lacking=0)
        assert "no gap is known of" in await horde.run("tracker", "audit", str(horde.tracker_folder))


@pytest.mark.slow
async def test_a_delegate_of_whom_the_copy_does_not_know_waits_for_its_owner(tmp_path: Path) -> None:
    """It shows what it was paid for when it acts for that account again; else it would be paid to one of its own."""
    async with Horde.open(tmp_path) as horde:
        owner, machine = str(horde.join("owner").folder), horde.join("machine")
        await horde.run("peer", "account", "--register", "--home", owner)
        copy = await backup(horde, "copy.db")
        delegate = ("peer", "delegate", "make", show_key(machine.key().public), "--work", "--home", owner)
        await horde.run(*delegate)
        await horde.run("peer", "delegate", "use", "--home", str(machine.folder))
        worker = await horde.worker("machine", "--dry-run", "image")
        async with horde.client() as nobody:
            await picture(nobody)
        before = await standing(horde, "owner")
        assert before.earned
        assert horde.tracker is not None
        await horde.tracker.kill()
        await restore(horde, copy)
        await horde.serve()
        async with asyncio.timeout(PATIENCE_S):
            assert await worker.process.wait() == 4
        horde.processes.remove(worker)

        await horde.run(*delegate)
        await horde.worker("machine", "--dry-run", "image")
        await until_audit(horde, recovered=1, missing=0)
        assert amounts(await standing(horde, "owner")) == amounts(before)


@pytest.mark.slow
async def test_a_job_under_way_that_the_copy_does_not_know_begins_anew(tmp_path: Path) -> None:
    async with Horde.open(tmp_path) as horde:
        await a_horde_that_pays(horde)
        copy = await backup(horde, "copy.db")
        async with horde.client("payer") as payer:
            long, short = Following(), Following()
            short_coming = payer.text("say something", models=["dry-run-text"], max_tokens=20, context=64)
            await short.until(short_coming, 2, TextPiece)
            assert horde.tracker is not None
            await horde.tracker.kill()
            async for event in short_coming:  # whole before the tracker is back
                short.take(event)
                if isinstance(event, Received):
                    break
            await restore(horde, copy)
            await horde.serve()
            await short.until_done(short_coming)

            coming = payer.text("say something", max_tokens=2_000, context=4_096)
            await long.until(coming, 2, TextPiece)
            await horde.tracker.kill()
            await restore(horde, copy)
            await horde.serve()
            await long.until(coming, 1, Restarted)
            await long.until(coming, len(long.all(TextPiece)) + 2, TextPiece)
            await coming.aclose()
        assert not short.all(Settled)
        assert (await horde.audit())["ok"]


@pytest.mark.slow
async def test_a_second_restore_from_a_still_older_copy(tmp_path: Path) -> None:
    async with Horde.open(tmp_path) as horde:
        await a_horde_that_pays(horde)
        oldest = await backup(horde, "oldest.db")
        async with horde.client("payer") as payer:
            await text(payer)
            later = await backup(horde, "later.db")
            await text(payer)
        for number, copy in enumerate((later, oldest), 1):
            before = await standing(horde, "payer")
            assert horde.tracker is not None
            await horde.tracker.kill()
            assert (await restore(horde, copy))["epoch"] == number
            await horde.serve()
            await horde.workers(2)
            async with horde.client("payer") as payer:
                async with asyncio.timeout(PATIENCE_S):
                    while amounts(await payer.account()) != amounts(before):  # noqa: ASYNC110 (peers return)
                        await asyncio.sleep(POLL_S)
                await text(payer)
        report = await horde.audit()
        assert report["ok"]
        assert [(gap["missing"], gap["lacking"]) for gap in report["gaps"]] == [(0, 0), (0, 0)]
        assert sum(gap["recovered"] for gap in report["gaps"]) == 3


@pytest.mark.slow
async def test_what_cannot_be_restored_is_refused_with_what_to_do(tmp_path: Path) -> None:
    async with Horde.open(tmp_path) as horde:
        await horde.worker("ann", "--dry-run", "image")
        async with horde.client() as nobody:
            await picture(nobody)
        good = await backup(horde, "good.db")
        assert horde.tracker is not None

        await refused(horde, good, "end that one first")
        await horde.tracker.stop()
        before = sorted(path.name for path in horde.tracker_folder.iterdir())
        for name, change, said in DAMAGES:
            bad = tmp_path / f"{name}.db"
            shutil.copy(good, bad)
            change(bad)
            await refused(horde, bad, said)
        root_key = horde.tracker_folder / "root.key"
        root_key.rename(tmp_path / "root.key")
        await refused(horde, good, "--root-key")
        other = tmp_path / "other"
        await horde.run("tracker", "init", str(other), "--listen", "127.0.0.1:0")
        await refused(horde, good, "root key", "--root-key", str(other / "root.key"))
        assert sorted({*(path.name for path in horde.tracker_folder.iterdir()), "root.key"}) == before

        arguments = (str(horde.tracker_folder), str(good), "--root-key", str(tmp_path / "root.key"))
        await horde.run("tracker", "restore", *arguments)
        assert (await horde.audit())["ok"]


async def refused(horde: Horde, file: Path, said: str, *more: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tracker", "restore", str(horde.tracker_folder), str(file), *more),
        stderr=asyncio.subprocess.PIPE,
    )
    _, error = await process.communicate()
    assert process.returncode == 4, error.decode()
    assert said in error.decode()


def execute(path: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
        connection.commit()


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def flip_in_a_signature(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        [raw] = connection.execute("SELECT raw FROM documents WHERE kind = 'settlement'").fetchone()
    flip(path, path.read_bytes().index(raw[-100:]) + 99)


def be_anothers(path: Path) -> None:
    path.unlink()
    execute(path, "CREATE TABLE bookmarks (url TEXT)")


DAMAGES = [
    ("newer", lambda path: execute(path, "PRAGMA user_version = 99"), "update it first"),
    ("head", lambda path: flip(path, 3), "take another backup"),
    ("page", lambda path: flip(path, 4096 * 5 + 1), "take another backup"),
    ("content", flip_in_a_signature, "--force"),
    ("another", be_anothers, "another program's database"),
    ("no_database", lambda path: path.write_text("hello"), "take another backup"),
]
