"""One world, one seed, perhaps somebody who wants too much: played to its end, and what came of it."""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from protocol.postings import BURN, MINT
from protocol.rules import Rules
from tests.simulate.attacks import Attack
from tests.simulate.crowd import Crowd, waits
from tests.simulate.stage import BEGIN, DAY, HOUR, Stage
from tests.simulate.town import Town
from tests.simulate.world import GROUPS, World
from tracker.store.sqlite.database import connect
from tracker.waits import percentile

#: After the last request so much more is played, in which all that can be served is.
AFTER = 2 * HOUR


def play(
    world: World,
    seed: int,
    rules: Rules | None = None,
    attack: Callable[[Town], Attack] | None = None,
    say: Callable[[str], None] = lambda _: None,
    look: Callable[[Path], None] = lambda _: None,
) -> dict[str, Any]:
    """Play it; the figures by name. The same arguments give the same figures, but for `cpu`.

    look: at the database, when all is over."""
    with _quiet(), tempfile.TemporaryDirectory(prefix="simulate-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "horde.db"
        found = asyncio.run(_play(path, world, seed, rules or Rules(), attack, say))
        look(path)
        return found


@contextmanager
def _quiet() -> Iterator[None]:
    """What the tracker logs of each peer is not wanted here."""
    log = logging.getLogger("tracker")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


async def _play(
    path: Path,
    world: World,
    seed: int,
    rules: Rules,
    attack: Callable[[Town], Attack] | None,
    say: Callable[[str], None],
) -> dict[str, Any]:
    began = time.process_time()
    stage = Stage(path, rules, seed)
    async with stage.open():
        town = Town(stage, world)
        rival = attack(town) if attack else None
        capacity = world.capacity + (sum(machine.speed for machine in rival.machines) if rival else 0.0)
        crowd = Crowd(town, capacity)
        crowd.come()
        if rival is not None:
            rival.until = crowd.until
            rival.come()
        step = max(HOUR, round(world.days * DAY / 20))
        for moment in range(BEGIN, crowd.until, step):
            await stage.run(min(moment + step, crowd.until))
            say(f"day {(stage.now - BEGIN) / DAY:.1f}, {len(town.jobs)} jobs")
        found = await _measure(town, crowd, rival, capacity)
        await stage.run(crowd.until + AFTER)
    found |= _waits(town)
    found["cpu"] = round(time.process_time() - began, 2)
    found["cpu_ms_a_job"] = round(1000 * found["cpu"] / max(1, len(town.jobs)), 2)
    return found


async def _measure(town: Town, crowd: Crowd, rival: Attack | None, capacity: float) -> dict[str, Any]:
    """Kudos, as they stand when the last request has come."""
    stage = town.stage
    seconds = (stage.now - BEGIN) / 1000
    honest: list[float] = []
    for worker in crowd.workers[len(town.world.speeds) :]:
        state = await stage.store.account(worker.account, stage.now)
        honest.append(state.earned / 1000 / seconds)
    stage.writer.commit()
    balances = _balances(stage.path)
    offered = sum(town.world.seconds(job.public) for job in town.jobs if job.group in GROUPS)
    found: dict[str, Any] = {
        "jobs": len(town.jobs),
        "capacity": round(capacity, 3),
        "load": round(offered / seconds / capacity, 4),
        "busy": round(sum(w.machine.busy_ms / 1000 for w in crowd.workers) / seconds / len(crowd.workers), 4),
        "awarded": town.awarded / 1000,
        "minted": (-balances.get(MINT, 0) - town.awarded) / 1000,
        "burned": balances.get(BURN, 0) / 1000,
        "honest": sum(honest) / len(honest),
        "honest_least": min(honest),
        "honest_most": max(honest),
    }
    found["inflation"] = round((found["minted"] - found["burned"]) / max(1.0, found["minted"]), 4)
    found["of_mint"], found["owner_of_mint"] = _of_mint(stage)
    if rival is not None:
        spendable, withheld = await rival.kudos()
        stood = rival.gpu_seconds(stage.now)
        found["rival"] = spendable / stood
        found["rival_withheld"] = withheld / stood
        found["ratio"] = (spendable + withheld) / stood / max(1e-9, found["honest"])
        found |= rival.notes()
        earned = [(await stage.store.account(one.account, stage.now)).earned for one in rival.owners]
        found["rival_kept"] = 1000 * spendable / max(1, sum(earned))
        found["busy_ratio"] = found.get("rival_busy", 0.0) / max(1e-9, found["busy"])
    return found


def _balances(path: Path) -> dict[int, int]:
    with closing(connect(path)) as connection:
        return dict(connection.execute("SELECT account, balance FROM accounts WHERE account < 100"))


def _of_mint(stage: Stage) -> tuple[float, float]:
    """What part of a day's mint was used, and one owner got: on the day, and by the owner, where it was most."""
    with closing(connect(stage.path)) as connection:
        [[day]] = connection.execute("SELECT max(minted) FROM mint_days")
        [[owner]] = connection.execute("SELECT max(minted) FROM mint_shares WHERE whose LIKE 'owner %'")
    daily = max(1, stage.rules.mint.daily)
    return (day or 0) / daily, (owner or 0) / daily


def _waits(town: Town) -> dict[str, Any]:
    """Seconds until the result, by group."""
    found: dict[str, Any] = {}
    honest = [job for job in town.jobs if job.group in GROUPS]
    for group in ("all", *GROUPS):
        ordered = waits([job for job in honest if group in ("all", job.group)])
        if ordered:
            found[f"median_{group}"] = percentile(ordered, 50)
            found[f"p99_{group}"] = percentile(ordered, 99)
            found[f"unserved_{group}"] = sum(one == float("inf") for one in ordered) / len(ordered)
    found["ends"] = dict(Counter(job.how for job in honest if job.how))
    found["anonymous_over_median"] = found["p99_anonymous"] / found["median_all"]
    return found
