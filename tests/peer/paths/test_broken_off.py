"""Whatever is given up at whatever moment leaves nothing behind: no task, no file, no place."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from peer.output import Output
from peer.paths.choice import Timing
from peer.spool import Spool
from tests.support.builders import a_lease, a_public_part, a_receipt, a_request, a_salt, a_text_work, signed
from tests.support.horde import until
from tests.support.paths import Scene, a_scene

TRIES = 40
STEPS = 1_500
#: Everything at once: no head starts.
AT_ONCE = Timing(stagger=0, ask_after=0, head_start=0)


@pytest.fixture
def output(tmp_path: Path) -> Iterator[Output]:
    lease, receipt, salt = signed(a_lease(a_request(a_public_part(a_text_work())))), signed(a_receipt()), a_salt()
    made = Output(Spool.create(tmp_path / "spool", lease))
    made.spool.add_text("word")
    made.spool.keep_receipt(receipt, salt, "stop")
    made.spool.finish(receipt, salt, "stop")
    yield made
    made.spool.remove()


def open_files() -> int:
    """Of this process; 0 where the system does not show them."""
    gc.collect()
    shown = Path("/dev/fd")
    return len(list(shown.iterdir())) if shown.is_dir() else 0


async def read(scene: Scene, ports: list[int]) -> None:
    async for _ in scene.stream(*ports):
        pass


async def quiet(scene: Scene) -> None:
    """Wait until both sides have let go of every path."""
    await until(lambda: scene.requesters_ends.ends == scene.workers_ends.ends == 0, "a relayed path stays open")
    await until(lambda: scene.server.connections == 0, "a place at the worker was not given back")
    await until(lambda: not scene.approaches._tasks, "the worker waits on for somebody who has gone")


@pytest.mark.slow  # a worker waits some seconds for those who do not come
@pytest.mark.parametrize("seed", range(3))
async def test_a_race_that_is_broken_off_leaves_nothing_open(tmp_path: Path, output: Output, seed: int) -> None:
    chance = random.Random(seed)
    async with a_scene(tmp_path, output, timing=AT_ONCE, ends={"meet_seconds": 1.0}) as scene:
        scene.meets = True
        await scene.relay()
        await scene.relay()
        door = await scene.door()
        kinds = [[], [door.port], [scene.server.port], [door.port, scene.server.port]]
        await read(scene, [scene.server.port])
        tasks, files = len(asyncio.all_tasks()), open_files()
        for _ in range(TRIES):
            scene.guide.asked_at = None
            reading = asyncio.create_task(read(scene, chance.choice(kinds)))
            for _ in range(chance.randrange(STEPS)):
                await asyncio.sleep(0)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        assert scene.reader._ground is not None
        # The worker would end them after a while, so that their files alone do not show them.
        assert scene.reader._ground.connector._fresh == {}, "a connection that nobody took is kept"
        await quiet(scene)
        # The last ones are kept a while for the next stream.
        await until(lambda: open_files() <= files, "files stay open")
        await until(lambda: len(asyncio.all_tasks()) <= tasks, "tasks go on")
