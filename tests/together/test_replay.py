"""Nothing that was said once can be said again to any effect: not to the same tracker, not to a restarted one, not to
another horde; in order, shuffled, on fresh connections, and inside sessions that are as true as can be."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from peer.events import Picture
from protocol.documents import Denial, Lease, Request, sign
from protocol.envelope import Envelope, parse
from protocol.keys import SigningKey
from protocol.links import Link
from protocol.messages import AskAccount, Ended, Refused
from tests.support.builders import a_cancel
from tests.support.database import count, tables
from tests.support.horde import Horde, until
from tests.support.raw_peer import PATIENCE_S, Asked, RawPeer, a_picture, now_ms
from tests.support.tap import Tap, tapped

pytestmark = pytest.mark.asyncio(loop_scope="module")

SEEDS = (1, 2)


@dataclass
class Run:
    """What was recorded, and by whom it was said. documents: each once, in the order in which they came."""

    horde: Horde
    said: list[bytes]
    heard: list[bytes]
    worker: SigningKey
    requester: SigningKey
    documents: list[Envelope] = field(default_factory=list)

    @property
    def link(self) -> Link:
        assert self.horde.door is not None
        return self.horde.door

    @property
    def state(self) -> tuple[dict[str, str], int]:
        """All tables, and how many proofs of equivocation there are."""
        return state_of(self.horde)


def state_of(horde: Horde) -> tuple[dict[str, str], int]:
    (path,) = horde.tracker_folder.glob("*.db")
    return tables(path), count(path, "equivocations")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def run(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Run]:
    async with Horde.open(tmp_path_factory.mktemp("horde")) as horde:
        assert horde.link is not None
        async with tapped(horde.link) as tap:
            horde.link = tap.link
            worker, requester = SigningKey.generate(), SigningKey.generate()
            await real_peers(horde)
            await scripted_peers(tap, worker, requester)
            await until(lambda: said_all(tap), "the tap has not passed on what was said last")
        recorded = Run(horde, list(tap.to_tracker), list(tap.from_tracker), worker, requester)
        seen = {envelope.digest: envelope for raw in recorded.said if (envelope := parse(raw)).is_document}
        recorded.documents = list(seen.values())
        yield recorded
        assert (await horde.audit())["ok"]


async def real_peers(horde: Horde) -> None:
    """A worker earns, and spends what it earned."""
    ann = await horde.worker("ann", "--dry-run", "image")
    async with horde.client() as anonymous:
        assert [event async for event in anonymous.image("a circle", width=64, height=64, steps=3)]
    async with horde.client("ann") as requester:
        events = [event async for event in requester.image("a square", width=64, height=64, steps=3)]
    assert any(isinstance(event, Picture) for event in events)
    assert await ann.stop() == 0


async def scripted_peers(tap: Tap, worker_key: SigningKey, requester_key: SigningKey) -> None:
    """A job is paid, one denied, one cancelled while it waits and one while it is made: all documents there are."""
    model = "replayed"
    async with RawPeer.open(tap.link, worker_key) as worker, RawPeer.open(tap.link, requester_key) as requester:
        await requester.register()
        await worker.serve(model)
        asked, lease = await leased(worker, requester, model)
        receipt = worker.receipt(lease)
        await worker.deliver(receipt)
        await requester.send(asked.acknowledgement(requester.root, receipt).raw)
        await requester.envelope("settlement")

        asked, lease = await leased(worker, requester, model)
        receipt = worker.receipt(lease)
        await worker.deliver(receipt)
        denial = Denial(job=lease.job, attempt=lease.attempt, reason="digest_mismatch", receipt=receipt.raw)
        await requester.send(sign(denial, asked.job_key, requester.root).raw)
        await requester.expect(Ended)

        waiting = await requester.ask(*a_picture("served by nobody"))
        cancel = a_cancel(nonce=bytes(16), valid_until=now_ms() + 60_000)
        await requester.send(sign(cancel, waiting.job_key, requester.root).raw)
        await requester.expect(Ended)


async def leased(worker: RawPeer, requester: RawPeer, model: str) -> tuple[Asked, Lease]:
    asked = await requester.ask(*a_picture(model))
    lease, _ = await worker.lease()
    await worker.report(lease, "opened")
    return asked, lease


def said_all(tap: Tap) -> bool:
    return {"request", "receipt", "acknowledgement", "denial", "cancel", "peer_record"} <= {
        parse(raw).kind for raw in tap.to_tracker
    }


async def answered(peer: RawPeer, raw: bytes) -> list[Envelope]:
    """What comes of one message in an open session: at least one answer, or the end."""
    peer.heard.clear()
    await peer.send(raw)
    async with asyncio.timeout(PATIENCE_S):
        while not answers_of(peer) and not peer._socket.closed:
            peer._changed.clear()
            await peer._changed.wait()
    return answers_of(peer)


def answers_of(peer: RawPeer) -> list[Envelope]:
    """What it heard, but for checkpoints, which come to everybody unasked."""
    return [envelope for envelope in peer.heard if envelope.kind != "checkpoint"]


async def replayed(link: Link, messages: list[bytes]) -> Counter[str]:
    """Say each as the first words of a connection, and in the open session of a stranger; the codes of the refusals."""
    codes: Counter[str] = Counter()
    for raw in messages:
        async with RawPeer.connect(link) as peer:
            await peer.send(raw)
            codes[(await peer.closed()).split(":")[0]] += 1
            assert not peer.heard
    left = list(messages)
    while left:
        async with RawPeer.open(link) as peer:
            while left and not peer._socket.closed:
                raw = left.pop(0)
                for envelope in await answered(peer, raw):
                    assert envelope.kind == "refused", envelope.kind
                    codes[envelope.open(Refused).code] += 1
                if not parse(raw).is_document:
                    await peer.closed()
    assert "internal" not in codes
    return codes


def orders(said: list[bytes]) -> list[list[bytes]]:
    """As it was, and shuffled."""
    shuffled = [list(said) for _ in SEEDS]
    for seed, messages in zip(SEEDS, shuffled, strict=True):
        random.Random(seed).shuffle(messages)
    return [said, *shuffled]


async def test_a_recorded_run_has_no_effect_on_the_same_tracker(run: Run) -> None:
    assert len(run.said) > 30
    before = run.state
    for messages in orders(run.said):
        codes = await replayed(run.link, messages)
        assert codes["wrong_session"] >= len(run.said) - len(run.documents)
    assert run.state == before


async def test_what_a_tracker_said_has_no_effect_on_it(run: Run) -> None:
    before = run.state
    await replayed(run.link, [raw for raw in run.heard if is_envelope(raw)])
    assert run.state == before


def is_envelope(raw: bytes) -> bool:
    """And no challenge."""
    return raw[0] == 0x96


async def test_a_recorded_run_has_no_effect_on_a_restarted_tracker(run: Run) -> None:
    assert run.horde.tracker is not None
    assert await run.horde.tracker.stop() == 0
    before = run.state
    await run.horde.serve()
    for messages in orders(run.said):
        await replayed(run.link, messages)
    assert run.state == before


@pytest.mark.slow
async def test_a_recorded_run_has_no_effect_on_another_horde(run: Run, tmp_path: Path) -> None:
    async with Horde.open(tmp_path) as other:
        assert other.link is not None
        before = state_of(other)
        for messages in orders(run.said):
            codes = await replayed(other.link, messages)
            assert codes["wrong_horde"] >= len(run.said)
        assert state_of(other) == before


async def test_documents_again_in_a_new_session_of_who_sent_them_are_answered_and_change_nothing(run: Run) -> None:
    before = run.state
    first = {parse(raw).digest for raw in run.heard if is_envelope(raw)}
    for key, kinds in (
        (run.worker, {"receipt", "peer_record"}),
        (run.requester, {"request", "acknowledgement", "denial", "cancel"}),
    ):
        own = [envelope for envelope in run.documents if envelope.kind in kinds and belongs(run, envelope, key)]
        assert {envelope.kind for envelope in own} == kinds
        for _ in range(2):
            async with RawPeer.open(run.link, key) as peer:
                for envelope in own:
                    if envelope.kind == "peer_record":  # taken without a word
                        await peer.send(envelope.raw)
                        continue
                    for answer in await answered(peer, envelope.raw):
                        if answer.is_document:
                            assert answer.digest in first, f"another {answer.kind} than the first time"
                        assert answer.kind != "refused", (envelope.kind, answer.open(Refused))
                await peer.say(AskAccount())
                await peer.envelope("account")
    assert run.state == before


def belongs(run: Run, envelope: Envelope, key: SigningKey) -> bool:
    """Whether `key` sent this: it signed it, or the request that names the job key which did."""
    own = {key.public} | {
        document.open(Request).job_key
        for document in run.documents
        if document.kind == "request" and document.key == key.public
    }
    return envelope.key in own


async def test_documents_again_in_a_session_of_somebody_else_are_refused_and_change_nothing(run: Run) -> None:
    before = run.state
    for key in (run.requester, run.worker, SigningKey.generate()):
        async with RawPeer.open(run.link, key) as peer:
            for envelope in run.documents:
                if not belongs(run, envelope, key):
                    found = await answered(peer, envelope.raw)
                    assert {answer.kind for answer in found} == {"refused"}, envelope.kind
    assert run.state == before


async def test_an_effect_would_be_noticed(run: Run) -> None:
    """The control; the last, for it leaves its mark."""
    before = run.state
    async with RawPeer.open(run.link) as peer:
        await peer.register()
    assert run.state != before
