"""Everybody who is here is shown checkpoints: on coming, and newer ones every minute."""

from __future__ import annotations

from pathlib import Path

from protocol.documents import Checkpoint, Lease, Settlement
from tests.support.peers import Desk, Peer
from tracker.witnesses import EVERY_MS, Witnesses


class Door:
    def __init__(self) -> None:
        self.got: list[bytes] = []

    def hand(self, *envelopes: bytes) -> None:
        self.got += envelopes


def test_each_is_shown_the_newest_on_coming_and_a_newer_one_every_minute() -> None:
    witnesses = Witnesses(b"one")
    early, late = Door(), Door()
    witnesses.greet(early, 0)
    witnesses.greet(late, EVERY_MS // 2)
    assert early.got == late.got == [b"one"]

    witnesses.tick(EVERY_MS)
    assert early.got == [b"one"]  # there is no newer one
    witnesses.newest = b"two"
    for now in range(EVERY_MS + 1, 4 * EVERY_MS, 100):
        witnesses.tick(now)

    assert early.got == late.got == [b"one", b"two"]


def test_who_has_left_is_shown_nothing_and_a_clock_that_was_set_back_stops_nothing() -> None:
    witnesses = Witnesses(b"one")
    here, gone = Door(), Door()
    witnesses.greet(here, 1000 * EVERY_MS)
    witnesses.greet(gone, 1000 * EVERY_MS)
    witnesses.leave(gone)
    witnesses.leave(Door())  # who never said hello
    witnesses.newest = b"two"

    witnesses.tick(0)

    assert here.got == [b"one", b"two"]
    assert gone.got == [b"one"]


def shown(peer: Peer) -> list[Checkpoint]:
    return [heard for heard in peer.heard if isinstance(heard, Checkpoint)]


async def test_a_party_holds_a_checkpoint_over_its_own_entry_if_it_stays_a_minute_or_comes_again(
    tmp_path: Path,
) -> None:
    async with Desk.open(tmp_path / "horde.db") as desk:
        worker, requester = await desk.worker(), await desk.requester()
        await requester.ask()
        lease = await worker.hear(Lease)
        await requester.acknowledge(await worker.deliver(lease))
        settlement = await requester.hear(Settlement)
        assert all(one.size <= settlement.entry for one in (*shown(worker), *shown(requester)))

        await desk.later(2)  # a checkpoint is made
        await requester.come_back()
        await desk.quiet()
        assert shown(requester)[-1].size > settlement.entry
        assert len(shown(worker)) == 1

        await desk.later(60)
        await desk.later(60)
        assert [one.size > settlement.entry for one in shown(worker)] == [False, True]
        assert len(shown(requester)) == 2
