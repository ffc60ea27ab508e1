"""Hostile input over real sockets to a real tracker: it keeps no memory of it, nothing changes, and it serves after."""

import asyncio
import contextlib
import random

import psutil
import pytest

from protocol.documents import Settlement
from protocol.envelope import Envelope
from tests.fuzz.registry import corpus
from tests.fuzz.script import Script
from tests.fuzz.target import MIB
from tests.fuzz.test_fuzz_corpus import changed
from tests.support.database import count, tables
from tests.support.horde import Horde
from tests.support.raw_peer import RawPeer, a_picture

pytestmark = pytest.mark.ci_slow

#: One address makes more connections here than any honest one does.
RULES = "limits.connections = 10000"
SEED = 20_261_122
WARM_UP, INPUTS, AT_ONCE = 600, 4_000, 24
MAX_GROWTH = 16 * MIB
#: A guard against hanging, not a claim about speed.
PATIENCE_S = 60.0


async def http(place: tuple[str, int], raw: bytes) -> None:
    """One connection that sends the pieces of a script and goes."""
    script = Script(raw)
    reader, writer = await asyncio.open_connection(*place)
    with contextlib.suppress(OSError):  # the tracker may have had enough at any moment
        while script.more:
            writer.write(script.piece())
            await writer.drain()
        writer.write_eof()
        async with asyncio.timeout(PATIENCE_S):
            while await reader.read(65_536):
                pass
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def talk(link, chance: random.Random, kept: list[bytes]) -> None:
    """One peer that says hello, or does not, and then true messages of its own with bytes changed, or anything."""
    async with RawPeer.open(link) if chance.random() < 0.7 else RawPeer.connect(link) as peer:
        with contextlib.suppress(ConnectionError):
            for _ in range(chance.randint(1, 8)):
                whole: Envelope = peer.outbound.seal("ask_account", b"\x80")
                raw = changed(whole.raw, chance, kept) if chance.random() < 0.5 else chance.choice(kept)
                await peer.send(raw if raw != whole.raw else raw[:-1])


async def flood(horde: Horde, chance: random.Random, inputs: int) -> None:
    """So many connections, some at once."""
    assert horde.link is not None
    host, port = horde.link.url.removeprefix("ws://").split(":")
    pages, said = corpus("tracker-web"), corpus("envelope")
    places = asyncio.Semaphore(AT_ONCE)

    async def one() -> None:
        async with places:
            if chance.random() < 0.6:
                await http((host, int(port)), changed(chance.choice(pages), chance, pages))
            else:
                await talk(horde.link, chance, said)

    await asyncio.gather(*(one() for _ in range(inputs)))


def state_of(horde: Horde):
    (path,) = horde.tracker_folder.glob("*.db")
    return tables(path), count(path, "equivocations")


async def serves(horde: Horde) -> None:
    """A job is paid."""
    assert horde.link is not None
    async with RawPeer.open(horde.link) as worker, RawPeer.open(horde.link) as requester:
        await worker.serve("after")
        asked = await requester.ask(*a_picture("after"))
        lease, _ = await worker.lease()
        receipt = worker.receipt(lease)
        await worker.deliver(receipt)
        await requester.send(asked.acknowledgement(requester.root, receipt).raw)
        assert (await requester.envelope("settlement")).open(Settlement).job == lease.job


@pytest.mark.timeout(300)
async def test_a_flood_of_hostile_input_leaves_a_tracker_as_it_was(tmp_path):
    chance = random.Random(SEED)
    async with Horde.open(tmp_path, RULES) as horde:
        assert horde.tracker is not None
        before = state_of(horde)
        process = psutil.Process(horde.tracker.process.pid)
        await flood(horde, chance, WARM_UP)
        memory = process.memory_info().rss
        await flood(horde, chance, INPUTS)
        grown = process.memory_info().rss - memory
        assert grown < MAX_GROWTH, f"{INPUTS} connections, seed {SEED}: memory grew by {grown / MIB:.1f} MiB"
        assert state_of(horde) == before
        assert not [line for line in horde.tracker.lines() if line.get("level") in ("error", "critical")]
        await serves(horde)
        assert state_of(horde) != before  # the control: what is true does change something
        assert (await horde.audit())["ok"]
