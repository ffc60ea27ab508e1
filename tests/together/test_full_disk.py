"""The tracker's disk is full: what is new is refused with a reason, nothing is lost, and with room again it goes on."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import aiohttp
import pytest

from peer.events import Received, Settled
from protocol.envelope import Envelope
from protocol.errors import Busy
from protocol.messages import Refused
from tests.support.database import count, job_states
from tests.support.following import Following
from tests.support.horde import Horde, until
from tests.support.raw_peer import Asked, RawPeer, a_picture
from tests.support.small_disk import SmallDisk, can_mount, small_disk
from tracker.store.base import StoreError
from tracker.store.sqlite.database import connect

pytestmark = [
    pytest.mark.ci_slow,
    pytest.mark.skipif(not can_mount(), reason="no right to mount a small disk here"),
]

NO_ROOM = "no room to store"
#: More than a horde needs to begin with, and less than a few dozen jobs.
MIB, ENOUGH_MIB = 4, 64


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "tracker", MIB) as disk:
        yield disk


class Scene:
    """A worker and a requester that say just what is needed, and what the tracker has confirmed to them."""

    def __init__(self, worker: RawPeer, requester: RawPeer) -> None:
        self.worker = worker
        self.requester = requester
        self.asked: list[Asked] = []
        self.taken: list[bytes] = []
        self.settlements: list[Envelope] = []
        self._receipt: Envelope | None = None

    async def fill_the_disk(self) -> None:
        """Jobs, one after the other, until the tracker has no room for any of it."""

        async def ask_and_ask() -> None:
            while True:
                await self.job()

        with pytest.raises(AssertionError, match=NO_ROOM):
            await ask_and_ask()

    async def job(self) -> None:
        """From request to settlement."""
        self.asked.append(await self.requester.ask(*a_picture("small")))
        await self.finish()

    async def finish(self) -> None:
        """What is under way comes to its end; what the tracker has not confirmed is said again."""
        if len(self.asked) == len(self.settlements):
            return
        if self._receipt is None:
            lease, _ = await self.worker.lease()
            self._receipt = self.worker.receipt(lease)
        receipt = self._receipt
        if receipt.digest not in self.taken:
            await self.worker.deliver(receipt)
            self.taken.append(receipt.digest)
        await self.requester.send(self.asked[-1].acknowledgement(self.requester.root, receipt).raw)
        self.settlements.append(await self.requester.envelope("settlement"))
        await self.worker.envelope("settlement")
        self._receipt = None


async def refused(peer: RawPeer) -> Refused:
    """The next refusal."""
    await until(lambda: any(envelope.kind == Refused.KIND for envelope in peer.heard), "nothing was refused")
    return await peer.expect(Refused)


def clear_refusals(*peers: RawPeer) -> None:
    """What was refused so far has been looked at."""
    for peer in peers:
        peer.heard = [envelope for envelope in peer.heard if envelope.kind != Refused.KIND]


def stored(path: Path) -> tuple[set[bytes], set[bytes]]:
    """Digests of all documents, and all settlements."""
    with closing(sqlite3.connect(path)) as connection:
        digests = {row[0] for row in connection.execute("SELECT digest FROM documents")}
        settlements = {row[0] for row in connection.execute("SELECT raw FROM documents WHERE kind = 'settlement'")}
    return digests, settlements


async def health(horde: Horde) -> tuple[int, str]:
    """What the tracker says of itself."""
    assert horde.door is not None
    url = horde.door.url.replace("ws", "http", 1) + "/healthz"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.text()


async def test_a_full_disk_refuses_what_is_new_loses_nothing_and_goes_on_when_there_is_room(
    tmp_path: Path, disk: SmallDisk
) -> None:
    async with Horde.open(tmp_path) as horde:
        assert horde.link is not None
        await horde.worker("real", "--dry-run", "text:step_ms=50")
        async with (
            horde.client() as client,
            RawPeer.open(horde.link) as worker,
            RawPeer.open(horde.link) as requester,
        ):
            await worker.serve("small")
            waiting = await requester.ask(*a_picture("nobody's"))
            scene = Scene(worker, requester)
            await scene.job()
            # A real job is under way between the real peers when the disk gets full.
            job = Following()
            coming = client.text("say something", max_tokens=60, context=128)
            following = asyncio.create_task(job.until_done(coming))
            await until(lambda: job.shown, "no text came")
            await scene.fill_the_disk()
            disk.fill()
            clear_refusals(worker, requester)
            await check_refused(horde, requester)
            await until(lambda: job.all(Received), "the result did not come, which needs no tracker")
            assert not job.all(Settled)
            tracker = horde.tracker

            disk.make_room(ENOUGH_MIB)
            await following
            assert job.one(Settled).minted
            assert (await health(horde))[0] == 200
            clear_refusals(worker, requester)
            await scene.finish()
            await scene.job()
            await horde.run("peer", "text", "hello", "--max-tokens", "2", "--home", str(horde.folder / "real"))
            assert horde.tracker is tracker
            assert tracker is not None
            assert tracker.process.returncode is None
            check_nothing_is_lost(horde, scene, waiting)
            assert (await horde.audit())["ok"]


async def check_refused(horde: Horde, requester: RawPeer) -> None:
    """Everybody hears why nothing new is taken, and nothing of it is kept."""
    jobs = count(horde.tracker_folder / "horde.db", "jobs")
    with pytest.raises(AssertionError, match=NO_ROOM):
        await requester.ask(*a_picture("small"))
    answer = await refused(requester)
    assert (answer.code, answer.final) == (Busy.code, False)
    said = await horde.run("peer", "text", "hello", "--json", "--home", str(horde.folder / "real"), code=4)
    assert json.loads(said.splitlines()[-1])["error"] == Busy.code
    assert NO_ROOM in said
    status, text = await health(horde)
    assert status == 503
    assert "disk" in text
    assert horde.tracker is not None
    complaints = [line for line in horde.tracker.lines() if line.get("level") == "error"]
    assert any("make room on its disk" in json.dumps(line) for line in complaints)
    assert count(horde.tracker_folder / "horde.db", "jobs") == jobs


def check_nothing_is_lost(horde: Horde, scene: Scene, waiting: Asked) -> None:
    """Whatever was confirmed to anybody is in the database, byte for byte."""
    states = job_states(horde.tracker_folder)
    assert states[waiting.jobs[0].hex()] == "waiting"
    assert {handle.hex() for asked in scene.asked for handle in asked.jobs} <= states.keys()
    digests, settlements = stored(horde.tracker_folder / "horde.db")
    assert digests >= {asked.envelope.digest for asked in scene.asked} | set(scene.taken)
    assert settlements >= {envelope.raw for envelope in scene.settlements}


async def test_a_tracker_that_is_started_on_a_full_disk_says_so_and_starts_when_there_is_room(
    tmp_path: Path, disk: SmallDisk
) -> None:
    async with Horde.open(tmp_path) as horde:
        assert horde.tracker is not None
        await horde.tracker.stop()
        disk.fill()
        with pytest.raises(AssertionError, match="make room on its disk"):
            await horde.serve()
        with pytest.raises(StoreError, match="make room on its disk"):
            connect(horde.tracker_folder / "horde.db")
        disk.make_room(ENOUGH_MIB)
        await horde.serve()
        assert (await horde.audit())["ok"]
