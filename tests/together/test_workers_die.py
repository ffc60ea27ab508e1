"""A worker is killed in the middle of a job: another one makes the result, and it is paid for once.

The first worker's engine stops for good at a certain step, so that the moment of the killing is no matter of luck.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from peer.client import Client
from peer.events import Leased, Progress, Received, Requeued, Restarted, Settled, TextPiece
from protocol.documents import Receipt, Settlement, parse_document
from protocol.frames import Chunk, Final, Frame, Start
from protocol.prices import price, tax
from protocol.work import ImageWork, TextWork
from tests.support.door import Door
from tests.support.following import Following, balance, followed
from tests.support.horde import Horde, Process, until
from tests.support.raw_peer import RawPeer, a_picture, fund

pytestmark = pytest.mark.asyncio(loop_scope="module")

RULES = """
times.worker_grace = 1
times.restart_grace = 1
"""
#: The first worker makes so many steps or tokens before its engine stops for good.
MADE = 3
CLASSES = [
    pytest.param("", id="same_class", marks=pytest.mark.slow),
    pytest.param(",suffix=other", id="other_class"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def horde(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Horde]:
    folder: Path = tmp_path_factory.mktemp("horde")
    async with Horde.open(folder, RULES) as horde:
        yield horde
        assert (await horde.audit())["ok"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def payer(horde: Horde) -> AsyncIterator[Client]:
    """A requester who earned enough to pay for everything here."""
    assert horde.link is not None
    for _ in range(3):
        await fund(horde.link, horde.join("payer").key())
    async with horde.client("payer") as client:
        yield client


async def stuck(horde: Horde, model: str, dry_run: str) -> Process:
    """A worker whose engine stops for good after `MADE` steps."""
    horde.join(f"{model}-first")
    return await horde.worker(f"{model}-first", "--dry-run", f"{dry_run},model={model},hang_at={MADE + 1}")


async def other(horde: Horde, model: str, dry_run: str) -> Process:
    """A worker that makes what the first one did not."""
    horde.join(f"{model}-second")
    return await horde.worker(f"{model}-second", "--dry-run", f"{dry_run},model={model}", ready=0)


async def earned(horde: Horde, name: str) -> int:
    async with horde.client(name) as client:
        return await balance(client)


async def check_one_charge(horde: Horde, model: str, job: Following, before: int, payer: Client, cost: int) -> None:
    """The requester paid price and tax once, the worker that finished got the price, the dead one nothing."""
    settled = job.one(Settled)
    assert (settled.paid, settled.minted, settled.burned) == (cost, 0, tax(payer.rules))
    assert await balance(payer) == before - cost - settled.burned
    assert await earned(horde, f"{model}-first") == 0
    assert await earned(horde, f"{model}-second") == cost


def check_two_attempts(horde: Horde, model: str, job: Following) -> None:
    workers = [leased.worker for leased in job.all(Leased)]
    assert workers == [horde.home(f"{model}-{which}").key().public for which in ("first", "second")]
    assert [leased.attempt for leased in job.all(Leased)] == [1, 2]
    assert job.one(Settled).attempt == 2
    assert len(job.all(Requeued)) == 1


@pytest.mark.parametrize("suffix", CLASSES)
async def test_a_picture_comes_from_the_next_worker(horde: Horde, payer: Client, suffix: str) -> None:
    model = f"picture-{suffix.removeprefix(',suffix=') or 'same'}"
    before = await balance(payer)
    first = await stuck(horde, model, "image:step_ms=1")
    job = Following()
    coming = payer.image("a red circle", models=[model], width=64, height=64, steps=8, seed=5)
    async for event in coming:
        job.take(event)
        if isinstance(event, Progress) and event.done == MADE:
            break
    await first.kill()
    second = await other(horde, model, f"image:step_ms=1{suffix}")
    await job.until_done(coming)

    check_two_attempts(horde, model, job)
    job.check_acknowledged()
    assert job.check_kept(horde.home("payer")).receipt.engine == f"dry-run 1 {suffix[8:]}".strip()
    cost = price(payer.rules, ImageWork(width=64, height=64, steps=8), model)
    await check_one_charge(horde, model, job, before, payer, cost)
    again = await followed(payer.image("a red circle", models=[model], width=64, height=64, steps=8, seed=5))
    assert again.shown == job.shown
    await second.stop()


@pytest.mark.parametrize("suffix", CLASSES)
async def test_a_text_is_continued_by_the_next_worker(horde: Horde, payer: Client, suffix: str) -> None:
    model = f"text-{suffix.removeprefix(',suffix=') or 'same'}"
    before = await balance(payer)
    first = await stuck(horde, model, "text:step_ms=1")
    job = Following()
    coming = payer.text("say something", models=[model], max_tokens=12, context=64, seed=5)
    await job.until(coming, MADE, TextPiece)
    shown = job.shown
    await first.kill()
    second = await other(horde, model, f"text:step_ms=1{suffix}")
    await job.until_done(coming)

    check_two_attempts(horde, model, job)
    assert not job.all(Restarted)
    assert len(shown.split()) == MADE
    assert job.shown.startswith(shown)
    assert len(job.shown.split()) == 12
    job.check_acknowledged()
    assert job.check_kept(horde.home("payer")).receipt.engine == f"dry-run 1 {suffix[8:]}".strip()
    assert job.one(Received).used == 12 - MADE  # what the dead worker made is nobody's earning
    cost = price(payer.rules, TextWork(max_tokens=12 - MADE, context_tokens=64), model)
    await check_one_charge(horde, model, job, before, payer, cost)
    await second.stop()


async def test_a_text_begins_anew_where_no_engine_continues(horde: Horde, payer: Client) -> None:
    model = "text-anew"
    before = await balance(payer)
    first = await stuck(horde, model, "text:step_ms=1,continues=false")
    job = Following()
    coming = payer.text("say something", models=[model], max_tokens=12, context=64, seed=5)
    await job.until(coming, MADE, TextPiece)
    await first.kill()
    second = await other(horde, model, "text:step_ms=1,continues=false")
    await job.until_done(coming)

    check_two_attempts(horde, model, job)
    assert len(job.all(Restarted)) == 1
    assert len(job.shown.split()) == 12
    job.check_acknowledged()
    job.check_kept(horde.home("payer"))
    cost = price(payer.rules, TextWork(max_tokens=12, context_tokens=64), model)
    await check_one_charge(horde, model, job, before, payer, cost)
    await second.stop()


async def test_a_result_that_was_whole_survives_its_worker(horde: Horde) -> None:
    """It lies on the worker's disk, and the requester hears where the worker is now."""
    assert horde.link is not None
    home = horde.join("phoenix")
    words = ("phoenix", "--dry-run", "image:model=phoenix")
    first = await horde.worker(*words, ready=0)
    async with RawPeer.open(horde.link) as requester:
        asked = await requester.ask(*a_picture("phoenix", steps=2))
        door = await Door.found(requester, asked)
        status, before = await door.post(door.opening().raw)
        assert status == 200
        await first.line(lambda line: line.get("event") == "made")
        await first.kill()
        assert list(home.worker_folder.rglob("*.pem")) == []

        second = await horde.worker(*words, ready=0)
        again = await Door.found(requester, asked)
        assert again.lease.raw == door.lease.raw
        assert again.record.version > door.record.version
        status, after = await again.post(again.opening().raw, b"")
        assert status == 200
        assert numbered(after) == numbered(before)
        final = after[-1]
        assert isinstance(final, Final)
        receipt = parse_document(final.receipt, Receipt)
        await requester.send(asked.acknowledgement(requester.root, receipt).raw)
        settlement = await requester.envelope("settlement")
        assert settlement.open(Settlement).attempt == 1
        await second.line(lambda line: line.get("event") == "settled")
    await second.stop()


def numbered(frames: list[Frame]) -> list[Frame]:
    """The result, without what exists in its moment only."""
    return [frame for frame in frames if isinstance(frame, Start | Chunk | Final)]


async def test_the_engines_of_a_killed_worker_end(horde: Horde) -> None:
    worker = await horde.worker("doomed", "--dry-run", "image:model=a", "--dry-run", "text:model=b")
    children = psutil.Process(worker.process.pid).children(recursive=True)
    assert len(children) >= 2
    await worker.kill()
    await until(lambda: not any(map(alive, children)), "engines outlive their worker")


async def test_an_engine_in_the_middle_of_a_job_ends_with_its_worker(horde: Horde, payer: Client) -> None:
    model = "text-stuck"
    worker = await stuck(horde, model, "text:step_ms=1")
    job = Following()
    coming = payer.text("say something", models=[model], max_tokens=12, context=64)
    await job.until(coming, MADE, TextPiece)
    children = psutil.Process(worker.process.pid).children(recursive=True)
    assert children
    await worker.kill()
    await until(lambda: not any(map(alive, children)), "engines outlive their worker")
    await coming.aclose()


def alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
