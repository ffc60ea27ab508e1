"""An engine of somebody else's making, installed as a package, serves a real horde."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from peer.events import Received
from tests.support.examples import install_example
from tests.support.following import followed
from tests.support.horde import Horde, Process

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


async def test_an_installed_engine_is_served_by_its_name(tmp_path: Path) -> None:
    place = install_example("engine_plugin", tmp_path)
    async with Horde.open(tmp_path / "horde") as horde:
        for name in ("ann", "bob"):
            horde.join(name)
        words = ("peer", "worker", "--home", str(horde.folder / "ann"), "--json", "--engine")
        env = {"PYTHONPATH": str(place)}

        wrong = await Process.start("wrong", horde.folder / "logs", *words, "verses:model=verses,mood=dull", env=env)
        assert await wrong.process.wait() != 0
        [failure] = [line for line in wrong.lines() if "error" in line]
        assert failure["error"] == "unsupported"
        assert "wanted the option mood, merry or sad" in json.dumps(failure)

        worker = await Process.start("ann", horde.folder / "logs", *words, "verses:model=verses,mood=sad", env=env)
        horde.processes.append(worker)
        await horde.workers(1)
        async with horde.client("bob") as asker:
            one, again = [
                await followed(asker.text("Weather?", models=["verses"], max_tokens=12, context=64, seed=seed))
                for seed in (3, 3)
            ]
        assert one.shown == again.shown
        assert len(one.shown.split()) == one.one(Received).used == 12
        assert one.one(Received).engine == "verses 1.0"
        one.check_kept(horde.home("bob"))
        assert (await horde.audit())["ok"]
