"""What a tracker has confirmed is on the disk: the order of its system calls, as the kernel saw them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from peer.events import Settled
from protocol.envelope import Envelope, parse
from tests.support.following import followed
from tests.support.horde import Horde
from tests.support.raw_peer import RawPeer, a_picture
from tests.support.traced import TracedHorde, durable_from, frames, sends, strace

NO_STRACE = "no strace here"
JOBS = 6

traced = pytest.mark.skipif(strace() is None, reason=NO_STRACE)


class CarelessHorde(TracedHorde):
    """Its tracker does not wait for the disk."""

    tracker_module = "tests.support.careless_tracker"


async def settle(worker: RawPeer, requester: RawPeer, *, receipt_first: bool) -> Envelope:
    """One job from request to settlement."""
    asked = await requester.ask(*a_picture("traced"))
    lease, _ = await worker.lease()
    receipt = worker.receipt(lease)
    if receipt_first:
        await worker.deliver(receipt)
    await requester.send(asked.acknowledgement(requester.root, receipt).raw)
    settlement = await requester.envelope("settlement")
    assert (await worker.envelope("settlement")).raw == settlement.raw
    return settlement


async def settle_some(horde: Horde) -> list[bytes]:
    """Jobs between peers that say just what is needed; their settlements."""
    assert horde.link is not None
    async with RawPeer.open(horde.link) as worker, RawPeer.open(horde.link) as requester:
        await worker.serve("traced")
        settled = [await settle(worker, requester, receipt_first=number % 2 == 0) for number in range(JOBS)]
    return [envelope.raw for envelope in settled]


async def settle_a_real_one(horde: Horde) -> None:
    """A job between the real peers."""
    await horde.worker("real", "--dry-run", "text")
    async with horde.client() as client:
        job = await followed(client.text("say something", max_tokens=3, context=64))
    assert job.one(Settled).minted


def halves(envelope: Envelope) -> list[bytes]:
    """What nothing else contains, in two parts: a page of the log may end between them."""
    return [envelope.signature[:32], envelope.signature[32:]]


async def said_too_early(horde: TracedHorde) -> list[str]:
    """End the tracker; which settlements it sent before they were durable, each with whom it was sent to."""
    assert horde.tracker is not None
    await horde.tracker.stop()
    log = horde.tracker_folder / "horde.db-wal"
    calls = horde.calls()
    assert frames(calls, log), "the log was not seen"
    early = []
    for number, raw in enumerate(settlements(horde.tracker_folder / "horde.db")):
        parts = halves(parse(raw))
        sent = sends(calls, parts)
        # To the worker and to the requester; again to a worker whose receipt came after the settlement.
        assert len({call.file for call in sent}) == 2
        durable = durable_from(calls, log, parts)
        early += [f"settlement {number}, to {call.file}" for call in sent if durable is None or durable > call.begun]
    return early


def settlements(path: Path) -> list[bytes]:
    """Every settlement that a database holds."""
    with closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute("SELECT raw FROM documents WHERE kind = 'settlement'")]


@traced
async def test_a_settlement_is_sent_after_the_disk_has_taken_the_log_that_holds_it(tmp_path: Path) -> None:
    async with TracedHorde.open(tmp_path) as horde:
        assert isinstance(horde, TracedHorde)
        heard = await settle_some(horde)
        await settle_a_real_one(horde)
        assert not await said_too_early(horde)
        stored = settlements(horde.tracker_folder / "horde.db")
        assert len(stored) == JOBS + 1
        assert set(heard) < set(stored)


@traced
async def test_a_tracker_that_does_not_wait_for_the_disk_is_seen(tmp_path: Path) -> None:
    async with CarelessHorde.open(tmp_path) as horde:
        assert isinstance(horde, CarelessHorde)
        await settle_some(horde)
        assert len(await said_too_early(horde)) >= 2 * JOBS
