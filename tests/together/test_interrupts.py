"""Ctrl+C: what was asked for is called off at tracker and worker, paid as far as it was made; nothing stays behind."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from peer.commands.exits import Exit
from protocol.keys import SigningKey
from protocol.prices import price, tax
from protocol.rules import Rules
from protocol.work import ImageWork
from tests.support.database import job_states
from tests.support.horde import Horde, Process, until
from tests.support.marked import marked, new_mark
from tests.support.raw_peer import RawPeer, fund

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(sys.platform == "win32", reason="SIGINT cannot be sent to one process there"),
]

STEPS = 300


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def horde(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Horde]:
    folder: Path = tmp_path_factory.mktemp("horde")
    async with Horde.open(folder, f"limits.max_steps = {STEPS}") as horde:
        horde.join("ann")
        await horde.worker("ann", "--dry-run", "image:model=slow,step_ms=60")
        assert horde.link is not None
        for _ in range(2):
            await fund(horde.link, horde.join("bob").key())
        yield horde
        assert (await horde.audit())["ok"]


async def balance(horde: Horde, key: SigningKey) -> int:
    assert horde.link is not None
    async with RawPeer.open(horde.link, key) as peer:
        return (await peer.register()).balance


async def asking(horde: Horde, folder: Path, model: str, mark: dict[str, str]) -> Process:
    """`potluck image`, as a terminal starts it: in a process group of its own."""
    measures = ("--width", "64", "--height", "64", "--steps", str(STEPS), "--model", model, "--json")
    home = str(horde.home("bob").folder)
    words = ("peer", "image", "a red circle", "-o", str(folder / "red.png"), "--home", home, *measures)
    return await Process.start("asking", folder, *words, env=mark)


async def ctrl_c(process: Process) -> int:
    """To the whole group, as a terminal does it; the exit code."""
    if sys.platform != "win32":  # for the type checker: these tests do not run there
        os.killpg(process.process.pid, signal.SIGINT)
    return await process.process.wait()


async def test_a_picture_under_way_is_stopped_and_paid_in_part(horde: Horde, tmp_path: Path) -> None:
    ann, bob = (horde.home(name).key() for name in ("ann", "bob"))
    before, mark = await balance(horde, bob), new_mark()
    process = await asking(horde, tmp_path, "slow", mark)
    queued = await process.line(lambda line: line.get("event") == "queued")
    await process.line(lambda line: line.get("event") == "progress")

    assert await ctrl_c(process) == Exit.INTERRUPTED
    assert marked(mark) == []
    worker = next(process for process in horde.processes if process.name == "ann")
    paid = await worker.line(lambda line: line.get("event") == "settled" and line["job"] == queued["job"])
    assert 0 < paid["earned"] < price(Rules(), ImageWork(width=64, height=64, steps=STEPS), "slow")
    assert await balance(horde, ann) == paid["earned"]
    assert await balance(horde, bob) == before - paid["earned"] - tax(Rules())
    assert job_states(horde.tracker_folder)[queued["job"]] == "settled"
    # The engine is free at once: the next job does not wait for what nobody wants any more.
    size = ("--width", "64", "--height", "64", "--steps", "2", "--model", "slow")
    await horde.run("peer", "image", "x", "-o", str(tmp_path / "x.png"), "--home", str(horde.home("bob").folder), *size)


async def test_a_picture_that_waits_is_taken_back(horde: Horde, tmp_path: Path) -> None:
    bob = horde.home("bob").key()
    before, mark = await balance(horde, bob), new_mark()
    process = await asking(horde, tmp_path, "nobody", mark)
    queued = await process.line(lambda line: line.get("event") == "queued")
    assert await balance(horde, bob) == before - queued["held"]

    assert await ctrl_c(process) == Exit.INTERRUPTED
    assert marked(mark) == []
    assert job_states(horde.tracker_folder)[queued["job"]] == "cancelled"
    assert await balance(horde, bob) == before
    assert not (tmp_path / "red.png").exists()


async def test_a_worker_ends_with_its_engines(horde: Horde, tmp_path: Path) -> None:
    mark, home = new_mark(), horde.join("cid").folder
    worker = await Process.start(
        "cid", tmp_path, "peer", "worker", "--home", str(home), "--json", "--dry-run", "text", env=mark
    )
    await worker.line(lambda line: line.get("event") == "joined")
    assert len(marked(mark)) >= 2

    assert await ctrl_c(worker) == Exit.INTERRUPTED
    await until(lambda: not marked(mark), "processes are left")
    assert "Traceback" not in worker.text()
