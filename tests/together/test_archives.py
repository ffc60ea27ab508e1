"""A horde that has worked for months is archived while it works: real processes over real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from peer.events import Settled
from protocol.keyfiles import save_key
from tests.support.builders import DAY, ROOT, SERVING
from tests.support.builders import a_delegation as the_roots
from tests.support.following import Following, followed
from tests.support.history import ANN, BEN, CARL, History, live_through_everything
from tests.support.horde import Horde
from tests.support.rules import PLAIN_RULES

RULES = "ledger.delay_days = 0\n"


async def of_the_past(horde: Horde) -> None:
    """A horde's folder, in which much has happened in two months of the past."""
    folder = horde.tracker_folder
    await horde.run("tracker", "init", str(folder), "--listen", "127.0.0.1:0", "--name", "a test")
    horde.add_rules(PLAIN_RULES + RULES)
    for name in ("root.key", "serving.key", "serving.delegation", "horde.db"):
        (folder / name).unlink()
    save_key(folder / "root.key", ROOT)
    save_key(folder / "serving.key", SERVING)
    (folder / "serving.delegation").write_bytes(the_roots().raw)
    async with History.open(folder / "horde.db") as history:
        await live_through_everything(history)
        history.tick(30 * DAY)
        for _ in range(20):
            await history.serve(ANN, BEN)
            await history.serve(CARL, ANN)
        await history.store.seal(history.tick())


async def picture(horde: Horde) -> Following:
    async with horde.client() as client:
        return await followed(client.image("a red circle", width=64, height=64, steps=3))


async def archive(horde: Horde, *arguments: str) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(
        await horde.run("tracker", "archive", str(horde.tracker_folder), "--json", *arguments)
    )
    return made


async def public_audit(horde: Horde, *arguments: str) -> dict[str, Any]:
    home = str(horde.folder / "stranger")
    report: dict[str, Any] = json.loads(
        await horde.run("peer", "audit", str(horde.link), *arguments, "--home", home, "--json")
    )
    return report


def settled(following: Following) -> bool:
    return any(isinstance(event, Settled) for event in following.events)


@asynccontextmanager
async def with_a_past(folder: Path) -> AsyncIterator[Horde]:
    """Such a horde, served, with a worker."""
    horde = Horde(folder)
    await of_the_past(horde)
    try:
        await horde.serve()
        await horde.worker("worker", "--dry-run", "image")
        yield horde
    finally:
        await asyncio.gather(*(process.end() for process in horde.processes))


@pytest.mark.ci_slow
@pytest.mark.timeout(300)
async def test_a_horde_is_archived_while_it_works_and_every_audit_passes_from_wherever_it_begins(
    tmp_path: Path,
) -> None:
    async with with_a_past(tmp_path) as horde:
        first, following = await asyncio.gather(archive(horde, "--before", "2026-01-15"), picture(horde))
        assert settled(following)
        second = await archive(horde)
        assert (first["number"], second["number"], second["begin"]) == (1, 2, first["end"])
        assert (first["stayed"], second["stayed"]) == (0, 0)
        assert second["after"] < first["before"]
        assert settled(await picture(horde))

        rest = await horde.audit()
        assert (rest["begins"], rest["archives"]) == (second["end"], [first["name"], second["name"]])
        whole = await horde.audit("--archives", "all")
        assert (whole["begins"], whole["put_back"]) == (0, [first["name"], second["name"]])
        assert whole["jobs"] > rest["jobs"] + 40
        assert (await public_audit(horde))["begins"] == 0
        assert (await public_audit(horde, "--from", "2026-01-20"))["begins"] == first["end"]


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_backups_exports_and_restores_go_on_with_archives_and_say_which_are_missing(tmp_path: Path) -> None:
    async with with_a_past(tmp_path) as horde:
        folder = str(horde.tracker_folder)
        first, second = await archive(horde, "--before", "2026-01-15"), await archive(horde)
        assert (await horde.audit("--archives", "all", "--from", str(first["end"])))["begins"] == first["end"]
        assert (await public_audit(horde, "--from", str(10**6)))["begins"] == second["end"]
        backup, exported = tmp_path / "backup.db", str(tmp_path / "exported")
        made = json.loads(await horde.run("tracker", "backup", folder, str(backup), "--json"))
        assert made["archives"] == [first["name"], second["name"]]
        await horde.run("tracker", "export", folder, exported)
        arguments = (
            "peer",
            "audit",
            exported,
            "--from",
            str(first["end"]),
            "--home",
            str(tmp_path / "reader"),
            "--json",
        )
        assert json.loads(await horde.run(*arguments))["begins"] == first["end"]
        assert settled(await picture(horde))

        # One archive is lost; the horde goes on from the backup all the same, and says what is missing.
        assert horde.tracker is not None
        assert await horde.tracker.stop() == 0
        lost = horde.tracker_folder / "archives" / first["name"]
        lost.rename(tmp_path / "found again")
        done = json.loads(await horde.run("tracker", "restore", folder, str(backup), "--json"))
        [missing] = done["missing_archives"]
        assert f"{first['name']}: the archive is not there" in missing
        await horde.serve()
        await horde.workers(1)
        assert settled(await picture(horde))
        assert (await horde.audit())["epoch"] == 1
        assert (await horde.audit("--archives", "all", "--from", str(first["end"])))["begins"] == first["end"]
        await horde.run("tracker", "audit", folder, "--archives", "all", code=4)
        (tmp_path / "found again").rename(lost)
        assert (await horde.audit("--archives", "all"))["epoch"] == 1
        assert (await archive(horde))["number"] == 0
