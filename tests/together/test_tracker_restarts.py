"""The tracker ends, well or badly, and is started again: everybody returns without being told, and every job ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from peer.client import Client
from peer.events import Progress, Queued, Received, Requeued, Settled, TextPiece
from protocol.documents import Settlement
from protocol.messages import Held
from protocol.prices import price, tax
from protocol.work import ImageWork, TextWork
from tests.support.following import Following, balance
from tests.support.horde import Horde
from tests.support.raw_peer import RawPeer, a_picture, fund

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: A step takes so long that the tracker is back, or nearly, before the job is done; either way it has to end well.
SLOW = "step_ms=60"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def horde(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Horde]:
    folder: Path = tmp_path_factory.mktemp("horde")
    async with Horde.open(folder) as horde:
        horde.join("ann")
        await horde.worker("ann", "--dry-run", f"image:{SLOW}", "--dry-run", f"text:{SLOW}")
        yield horde
        assert (await horde.audit())["ok"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def payer(horde: Horde) -> AsyncIterator[Client]:
    assert horde.link is not None
    for _ in range(3):
        await fund(horde.link, horde.join("payer").key())
    async with horde.client("payer") as client:
        yield client


async def end_tracker(horde: Horde, *, cleanly: bool) -> None:
    assert horde.tracker is not None
    if cleanly:
        assert await horde.tracker.stop() == 0
    else:
        await horde.tracker.kill()


def check_paid(job: Following, payer: Client, before: int, after: int, cost: int) -> None:
    settled = job.one(Settled)
    assert (settled.paid, settled.minted, settled.burned) == (cost, 0, tax(payer.rules))
    assert after == before - cost - settled.burned
    assert not job.all(Requeued)
    job.check_acknowledged()


@pytest.mark.parametrize("cleanly", [True, False], ids=["SIGTERM", "SIGKILL"])
async def test_a_picture_under_way_comes_and_is_paid_once(horde: Horde, payer: Client, cleanly: bool) -> None:
    before = await balance(payer)
    job = Following()
    coming = payer.image("a red circle", width=64, height=64, steps=40)
    await job.until(coming, 1, Progress)
    await end_tracker(horde, cleanly=cleanly)
    await horde.serve()
    await job.until_done(coming)

    cost = price(payer.rules, ImageWork(width=64, height=64, steps=40), "dry-run-image")
    check_paid(job, payer, before, await balance(payer), cost)
    job.check_kept(horde.home("payer"))


async def test_a_text_under_way_comes_and_is_paid_once(horde: Horde, payer: Client) -> None:
    before = await balance(payer)
    job = Following()
    coming = payer.text("say something", max_tokens=40, context=64)
    await job.until(coming, 2, TextPiece)
    await end_tracker(horde, cleanly=False)
    await horde.serve()
    await job.until_done(coming)

    check_paid(
        job, payer, before, await balance(payer), price(payer.rules, TextWork(max_tokens=40, context_tokens=64), "")
    )
    assert len(job.shown.split()) == 40


async def test_a_result_that_came_while_the_tracker_was_away_is_paid(horde: Horde, payer: Client) -> None:
    """Receipt and acknowledgement wait on both sides until somebody takes them."""
    before = await balance(payer)
    job = Following()
    coming = payer.text("say something", max_tokens=5, context=64)
    await job.until(coming, 1, TextPiece)
    await end_tracker(horde, cleanly=False)
    async for event in coming:
        job.take(event)
        if isinstance(event, Received):
            break
    assert not job.all(Settled)
    await horde.serve()
    await job.until_done(coming)

    check_paid(
        job, payer, before, await balance(payer), price(payer.rules, TextWork(max_tokens=5, context_tokens=64), "")
    )


@pytest.mark.slow
async def test_a_job_that_waits_goes_on_waiting(horde: Horde, payer: Client) -> None:
    before = await balance(payer)
    job = Following()
    coming = payer.image("a red circle", models=["later"], width=64, height=64, steps=2)
    await job.until(coming, 1, Queued)
    await end_tracker(horde, cleanly=False)
    await horde.serve()
    horde.join("later")
    later = await horde.worker("later", "--dry-run", "image:model=later", ready=0)
    await job.until_done(coming)
    await later.stop()

    check_paid(
        job, payer, before, await balance(payer), price(payer.rules, ImageWork(width=64, height=64, steps=2), "later")
    )


async def test_what_was_asked_while_the_tracker_was_away_is_asked_when_it_is_back(horde: Horde, payer: Client) -> None:
    before = await balance(payer)
    await end_tracker(horde, cleanly=False)
    coming = payer.text("say something", max_tokens=3, context=64)
    job = Following()
    asked = job.until(coming, 1, Queued)
    _, queued = await asyncio.gather(horde.serve(), asked)
    assert queued.held
    await job.until_done(coming)

    check_paid(
        job, payer, before, await balance(payer), price(payer.rules, TextWork(max_tokens=3, context_tokens=64), "")
    )


async def test_a_result_that_was_delivered_before_can_be_acknowledged_after(horde: Horde) -> None:
    """Also by a session that follows no request: a later program that found the statement on its disk."""
    assert horde.link is not None
    link = horde.link
    async with RawPeer.open(link) as worker, RawPeer.open(link) as requester:
        await worker.serve("delivered")
        asked = await requester.ask(*a_picture("delivered"))
        lease, _ = await worker.lease()
        receipt = worker.receipt(lease)
        await worker.deliver(receipt)
        await end_tracker(horde, cleanly=False)
    await horde.serve()
    held = Held(kind="receipt", job=lease.job, attempt=lease.attempt, digest=receipt.digest)
    async with RawPeer.open(link, worker.key, (held,)) as worker, RawPeer.open(link, requester.key) as requester:
        await worker.serve("delivered")
        await requester.send(asked.acknowledgement(link.root, receipt).raw)
        ours = await requester.envelope("settlement")
        assert ours.raw == (await worker.envelope("settlement")).raw
        assert ours.open(Settlement).minted == lease.price
