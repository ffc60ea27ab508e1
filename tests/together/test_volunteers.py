"""`potluck relay` and `potluck worker --relay`: real programs, a real tracker, and people who meet there."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
import pytest_asyncio

from peer import events
from tests.support.following import followed
from tests.support.horde import Horde, Process, until

pytestmark = pytest.mark.ci_slow

#: Only volunteers are to help.
RULES = "relays.tracker = false\nmeet.punching = false\n"


@pytest_asyncio.fixture
async def horde(tmp_path: Path) -> AsyncIterator[Horde]:
    async with Horde.open(tmp_path, RULES) as horde:
        yield horde


async def relay(horde: Horde, name: str) -> Process:
    home = horde.join(name)
    process = await Process.start(
        name, horde.folder / "logs", "peer", "relay", "--home", str(home.folder), "--json", "--listen", "127.0.0.1:0"
    )
    horde.processes.append(process)
    await process.line(lambda line: line.get("event") == "reached")
    return process


async def test_a_volunteer_carries_a_picture_and_says_how_much_it_gave(horde: Horde) -> None:
    volunteer = await relay(horde, "volunteer")
    await horde.worker("worker", "--dry-run", "image", "--address", "127.0.0.1:1")

    async with horde.client() as client:
        found = await followed(client.image("anything", width=64, height=64, steps=2))

    assert found.one(events.Path).path == "relayed"
    found.one(events.Picture)
    carried = await volunteer.line(lambda line: line.get("event") == "relayed" and "1 paths" in line["text"])
    assert "a gift" in carried["text"]
    assert await volunteer.stop() == 0


async def test_a_worker_relays_for_another_one(horde: Horde) -> None:
    helper = await horde.worker("helper", "--dry-run", "text", "--relay", "4", "--listen", "127.0.0.1:0")
    await until(lambda: sum(line.get("event") == "reached" for line in helper.lines()) >= 2, "not reached as a relay")
    await horde.worker("worker", "--dry-run", "image", "--address", "127.0.0.1:1")

    async with horde.client() as client:
        found = await followed(client.image("anything", width=64, height=64, steps=2))

    assert found.one(events.Path).path == "relayed"
    await helper.line(lambda line: line.get("event") == "relayed")


async def test_nobody_is_reached_where_no_relay_and_no_direct_path_is(horde: Horde) -> None:
    await horde.worker("worker", "--dry-run", "image", "--address", "127.0.0.1:1")

    async with horde.client(relays_only=True) as client:
        stream = client.image("anything", width=64, height=64, steps=2)
        requeued = [event async for event in _until_requeued(stream)][-1]

    assert requeued.reason == "unreachable"
    assert "relay" in requeued.text


async def _until_requeued(stream: AsyncGenerator[events.Event, None]) -> AsyncIterator[events.Requeued]:
    async with aclosing(stream):
        async for event in stream:
            if isinstance(event, events.Requeued):
                yield event
                return
