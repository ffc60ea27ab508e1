"""Pictures and texts by real models over a real horde: what `potluck worker` serves when it is told nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from PIL import Image

from peer import shapes
from peer.client import Client
from peer.engines.spec import SMOLLM2_MODEL
from peer.events import Leased, Picture, Progress, Received, Requeued, Restarted, Settled, TextPiece
from tests.support.following import Following
from tests.support.horde import Horde

# The first of these tests waits until the engines' libraries and the models are loaded.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

LOADING_S = 250.0

PICTURE: dict[str, Any] = {
    "models": [shapes.NAME],
    "width": shapes.SIDE,
    "height": shapes.SIDE,
    "steps": shapes.STEPS,
    "guidance": shapes.GUIDANCE,
}
TEXT: dict[str, Any] = {"models": [SMOLLM2_MODEL], "max_tokens": 12, "context": 256}
LONG: dict[str, Any] = {"models": [SMOLLM2_MODEL], "max_tokens": 120, "context": 512, "seed": 11}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def horde(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Horde]:
    folder: Path = tmp_path_factory.mktemp("horde")
    async with Horde.open(folder, "times.worker_grace = 1") as horde:
        horde.join("ann")
        ann = await horde.worker("ann", ready=0)
        await ann.line(lambda line: line.get("event") == "joined", patience_s=LOADING_S)
        yield horde
        assert (await horde.audit())["ok"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def asker(horde: Horde) -> AsyncIterator[Client]:
    horde.join("bob")
    async with horde.client("bob") as client:
        yield client


async def pictures(asker: Client, **asked: Any) -> list[Following]:
    """Each picture of one request by itself."""
    return await each(asker.image("a large red circle on blue", **PICTURE | asked), asked.get("n", 1))


async def texts(asker: Client, **asked: Any) -> list[Following]:
    """Each text of one request by itself."""
    return await each(asker.text("Tell me of the sea.", **TEXT | asked), asked.get("n", 1))


async def each(coming: AsyncIterator[Any], n: int) -> list[Following]:
    found = [Following() for _ in range(n)]
    async for event in coming:
        found[event.index].take(event)
    for one in found:
        one.check_acknowledged()
        assert len(one.all(Settled)) == 1
    return found


async def test_a_picture_is_drawn_kept_and_settled(horde: Horde, asker: Client) -> None:
    (job,) = await pictures(asker, seed=5)
    picture = job.one(Picture)
    assert picture.media_type == "image/png"
    with Image.open(BytesIO(picture.content)) as image:
        assert image.size == (shapes.SIDE, shapes.SIDE)
    assert job.all(Progress)[-1].done == shapes.STEPS
    assert job.one(Received).used == shapes.STEPS
    assert job.check_kept(horde.home("bob")).lease.model == shapes.NAME


async def test_a_text_comes_in_pieces_is_kept_and_settled(horde: Horde, asker: Client) -> None:
    (job,) = await texts(asker, seed=5)
    assert len(job.all(TextPiece)) > 1
    assert 0 < job.one(Received).used <= TEXT["max_tokens"]
    assert job.check_kept(horde.home("bob")).lease.model == SMOLLM2_MODEL


@pytest.mark.parametrize("make", [pictures, texts])
async def test_the_same_seed_gives_the_same_bytes_alone_and_as_one_of_several(asker: Client, make: Any) -> None:
    together = await make(asker, seed=7, n=2)
    apart = [job for seed in (7, 8) for job in await make(asker, seed=seed)]
    assert [job.shown for job in together] == [job.shown for job in apart]
    assert together[0].shown != together[1].shown
    assert len({job.one(Received).engine for job in [*together, *apart]}) == 1


async def test_a_real_text_is_continued_when_its_worker_is_killed(horde: Horde, asker: Client) -> None:
    """Last in this file, for it takes the worker away from the others."""
    horde.join("cid")
    ann = next(process for process in horde.processes if process.name == "ann")
    job = Following()
    coming = asker.text("Tell me a long story of a ship, a storm and a far island.", **LONG)
    await job.until(coming, 5, TextPiece)
    shown = job.shown
    await ann.kill()
    await horde.worker("cid", "--text", SMOLLM2_MODEL, ready=0)
    await job.until_done(coming)

    assert [leased.attempt for leased in job.all(Leased)] == [1, 2]
    assert job.one(Requeued).attempt == 1
    assert not job.all(Restarted)
    assert job.shown.startswith(shown)
    assert len(job.shown) > len(shown)
    job.check_acknowledged()
    assert job.one(Settled).attempt == 2
    assert job.check_kept(horde.home("bob")).lease.worker == horde.home("cid").key().public
