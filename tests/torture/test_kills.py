"""Tracker, worker, engine and requester are killed at every place that has a name, and whenever it comes."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.support.horde import until
from tests.torture.campaign import ROUND, Campaign, Failed, plan
from tests.torture.places import CELLS, RANDOM, RANDOM_CELLS, TRACKER, WORKER, Cell, table, too_few
from tests.torture.trap import LAUNCH

#: The kills of every run are the same, so that a change does not fail by what chance brought in; `make torture` draws.
SEED = 3
EACH, AT_RANDOM = 3, 50


Record = Callable[[str, object], None]


async def killed(folder: Path, record: Record, count: int, cells: tuple[Cell, ...]) -> Campaign:
    """A whole campaign; its table is shown at the end of the run."""
    campaign = Campaign(folder)
    try:
        await campaign.run(plan(SEED, count, cells), hordes=2)
    finally:
        record("table", table(campaign.kills, dict.fromkeys(cells)))
    return campaign


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_nothing_is_lost_wherever_a_process_is_killed(tmp_path: Path, record_property: Record) -> None:
    campaign = await killed(tmp_path, record_property, EACH * len(ROUND), ROUND)
    assert too_few(campaign.kills, ROUND, EACH) == []
    assert sum(campaign.kills[cell] for cell in RANDOM_CELLS) >= AT_RANDOM
    check_outcomes(campaign)


@pytest.mark.ci_slow
@pytest.mark.timeout(900)
async def test_nothing_is_lost_at_every_other_place(tmp_path: Path, record_property: Record) -> None:
    cells = (*CELLS[::2], *RANDOM_CELLS)
    campaign = await killed(tmp_path, record_property, len(cells), cells)
    assert too_few(campaign.kills, cells, 1) == []
    check_outcomes(campaign)


def check_outcomes(campaign: Campaign) -> None:
    """Requests of people who stayed came to their end, and those who wanted a result got it."""
    assert set(campaign.outcomes) <= {
        "text: settled",
        "picture: settled",
        "shaky: settled",
        "denied: refunded",
        "registered: registered",
        "cancelled: left",
        "waiting: left",
    }


# That these checks can fail


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_tracker_that_speaks_before_it_stores_is_caught(tmp_path: Path) -> None:
    cells = (Cell(TRACKER, "after sending settlement"),)
    with pytest.raises(Failed, match="confirmed, and not in the database"):
        await Campaign(tmp_path, fault="lazy").run(plan(SEED, 3, cells))


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_engines_that_outlive_their_worker_are_caught(tmp_path: Path) -> None:
    cells = (Cell(WORKER, "making"),)
    with pytest.raises(Failed, match="engines outlive their worker"):
        await Campaign(tmp_path, fault="orphans").run(plan(SEED, 1, cells))


def test_an_empty_cell_is_found() -> None:
    kills = dict.fromkeys(CELLS, EACH) | {CELLS[5]: EACH - 1}
    assert too_few(kills, CELLS, EACH) == [CELLS[5]]
    assert f"{sum(kills.values())} in all" in table(kills, CELLS)
    del kills[CELLS[5]]
    assert too_few(kills, CELLS, EACH) == [CELLS[5]]


# The plan, and the command


def test_a_plan_is_repeated_by_its_seed_and_holds_every_cell_as_often_as_it_should() -> None:
    kills = plan(7, EACH * len(ROUND))
    assert kills == plan(7, 1000)[: len(kills)]
    assert kills != plan(8, len(kills))
    assert [kill.number for kill in kills] == list(range(len(kills)))
    counts = {cell: sum(kill.cell == cell for kill in kills) for cell in ROUND}
    assert all(counts[cell] == EACH for cell in CELLS)
    assert sum(count for cell, count in counts.items() if cell.place == RANDOM) >= AT_RANDOM


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_the_command_ends_cleanly_on_an_interrupt(tmp_path: Path) -> None:
    words = ("-m", "tests.torture", "--seed", "7", "--kills", "1000", "--hordes", "1")
    output = tmp_path / "output"
    with output.open("wb") as file:
        process = await asyncio.create_subprocess_exec(sys.executable, *words, stdout=file, stderr=file)
    await until(lambda: "kill    0:" in output.read_text() or process.returncode, "there was no kill")
    process.send_signal(signal.SIGINT)
    code = await process.wait()
    text = output.read_text()
    assert code == 130, text
    assert "seed 7: 1000 kills" in text
    assert "kills by place" in text
    folder = re.search(r"logs and databases are in (.*)", text)
    assert folder is not None
    assert not [found for found in psutil.process_iter() if folder[1] in launched(found)]


def launched(process: psutil.Process) -> str:
    """Which start of a program of ours a process is."""
    try:
        return str(process.environ().get(LAUNCH, ""))
    except (psutil.Error, OSError):
        return ""
