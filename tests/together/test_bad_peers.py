"""Peers that do not keep their word: the other side finds out, nobody pays, and the horde goes on."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from peer.client import Client
from peer.events import Denied, Leased, Picture, Received, Requeued, Settled
from protocol import codec
from protocol.documents import Lease, Opening, Receipt, parse_document, sign
from protocol.envelope import Envelope
from protocol.frames import Failed, Final
from protocol.keys import SigningKey
from protocol.messages import Withdrawn
from protocol.prices import tax
from tests.support.builders import a_salt, but
from tests.support.door import Door
from tests.support.following import Following, balance, followed
from tests.support.horde import Horde
from tests.support.raw_peer import RawPeer, a_picture, fund
from tests.support.raw_worker import PLAIN, Answer, Make, RawWorker, signed_for

pytestmark = pytest.mark.asyncio(loop_scope="module")

STRANGER = SigningKey.generate()
PICTURE, OTHER = b"\x89PNG what was made", b"\x89PNG something else"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def horde(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Horde]:
    folder: Path = tmp_path_factory.mktemp("horde")
    async with Horde.open(folder) as horde:
        horde.join("real")
        await horde.worker("real", "--dry-run", "image:model=real", "--dry-run", "image:model=second")
        yield horde
        assert (await horde.audit())["ok"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def payer(horde: Horde) -> AsyncIterator[Client]:
    assert horde.link is not None
    await fund(horde.link, horde.join("payer").key())
    async with horde.client("payer") as client:
        yield client


async def earned(horde: Horde, worker: RawWorker) -> int:
    assert horde.link is not None
    async with RawPeer.open(horde.link, worker.peer.key) as peer:
        return (await peer.register()).balance


# Workers


def with_another_key(peer: RawPeer, lease: Lease) -> Answer:
    answer = signed_for(PICTURE)(peer, lease)
    return replace(answer, receipt=sign(answer.receipt.open(Receipt), STRANGER, peer.root))


def with_another_salt(peer: RawPeer, lease: Lease) -> Answer:
    return replace(signed_for(PICTURE)(peer, lease), salt=a_salt(99))


def with_another_type(peer: RawPeer, lease: Lease) -> Answer:
    return replace(signed_for(PICTURE)(peer, lease), media_type="image/webp")


#: Why it is denied, whether the tracker takes the receipt, and what is answered to the opening.
BAD: dict[str, tuple[str, bool, Make]] = {
    "tampered": ("digest_mismatch", True, signed_for(PICTURE, OTHER)),
    "tampered, receipt kept back": ("digest_mismatch", False, signed_for(PICTURE, OTHER)),
    "cut": ("digest_mismatch", True, signed_for(PICTURE, PICTURE[:-1])),
    "another type": ("digest_mismatch", True, with_another_type),
    "another salt": ("digest_mismatch", True, with_another_salt),
    "another key": ("bad_receipt", False, with_another_key),
    "another attempt": ("bad_receipt", False, signed_for(PICTURE, attempt=2)),
    "over the lease": ("over_lease", False, signed_for(PICTURE, used=31)),
}


@pytest.mark.parametrize("what", BAD)
async def test_a_picture_that_is_not_what_was_signed_for_is_denied(
    horde: Horde, payer: Client, tmp_path: Path, what: str
) -> None:
    assert horde.link is not None
    reason, delivers, make = BAD[what]
    model = f"bad {what}"
    before = await balance(payer)
    async with RawWorker.open(horde.link, model, tmp_path, make, delivers=delivers) as worker:
        job = Following()
        with pytest.raises(Denied) as denied:
            await job.until_done(payer.image("a red circle", models=[model], width=64, height=64))
        assert denied.value.reason == reason
        assert denied.value.released > 0
        assert not job.all(Picture)
        assert not job.all(Received)
        assert not job.all(Settled)
        assert (await worker.peer.expect(Withdrawn)).reason == "refunded"
        assert await balance(payer) == before
        assert await earned(horde, worker) == 0


async def test_a_text_that_is_not_what_was_signed_for_is_denied(horde: Horde, payer: Client, tmp_path: Path) -> None:
    assert horde.link is not None
    before = await balance(payer)
    make = signed_for(b"what was written", b"something else", PLAIN)
    async with RawWorker.open(horde.link, "bad text", tmp_path, make, kind="text") as worker:
        with pytest.raises(Denied) as denied:
            await followed(payer.text("say something", models=["bad text"], max_tokens=16, context=64))
        assert denied.value.reason == "digest_mismatch"
        assert (await worker.peer.expect(Withdrawn)).reason == "refunded"
        assert await balance(payer) == before
        assert await earned(horde, worker) == 0


async def test_a_picture_that_is_what_was_signed_for_is_paid(horde: Horde, payer: Client, tmp_path: Path) -> None:
    """The control: the same worker with a true answer."""
    assert horde.link is not None
    before = await balance(payer)
    async with RawWorker.open(horde.link, "good", tmp_path, signed_for(PICTURE)) as worker:
        job = await followed(payer.image("a red circle", models=["good"], width=64, height=64))
        assert job.shown == PICTURE
        settled = job.one(Settled)
        assert await balance(payer) == before - settled.paid - tax(payer.rules)
        assert await earned(horde, worker) == settled.paid


@pytest.mark.slow
async def test_who_shows_another_certificate_gets_nothing_and_another_worker_the_job(
    horde: Horde, payer: Client, tmp_path: Path
) -> None:
    assert horde.link is not None
    before = await balance(payer)
    false = secrets.token_bytes(32)
    async with RawWorker.open(horde.link, "twice", tmp_path, signed_for(PICTURE), certificate=false) as worker:
        job = Following()
        coming = payer.image("a red circle", models=["twice"], width=64, height=64, steps=2)
        first = await job.until(coming, 1, Leased)
        assert first.worker == worker.peer.key.public
        # It takes the job and comes to no other path either: relays are tried until the race for one is over.
        await worker.peer.report((await worker.peer.envelope("lease")).open(Lease), "accepted")
        assert (await job.until(coming, 1, Requeued)).reason == "unreachable"
        assert (await worker.peer.expect(Withdrawn)).reason == "unreachable"
        async with RawWorker.open(horde.link, "twice", tmp_path / "second", signed_for(OTHER)) as second:
            await job.until_done(coming)
            assert job.all(Leased)[-1].worker == second.peer.key.public
        assert not worker.opened  # neither the private part nor anything else was said to it
        assert await earned(horde, worker) == 0
    job.check_acknowledged()
    assert job.shown == OTHER
    settled = job.one(Settled)
    assert await balance(payer) == before - settled.paid - settled.burned


# Requesters, at a real worker's door


def forged(envelope: Envelope) -> bytes:
    return codec.encode([1, envelope.kind, envelope.key, envelope.context, envelope.body, bytes(64)])


def longer(lease: Envelope) -> bytes:
    """The lease with a later deadline under its old signature."""
    body = codec.encode(but(lease.open(Lease), deadline=lease.open(Lease).deadline + 1))
    return codec.encode([1, lease.kind, lease.key, lease.context, body, lease.signature])


def by(key: SigningKey, door: Door, root: bytes | None = None) -> bytes:
    return sign(door.opening().open(Opening), key, root or door.root).raw


def lease_by(key: SigningKey, door: Door) -> bytes:
    return door.opening(lease=sign(door.lease.open(Lease), key, door.root).raw).raw


KNOCKS: dict[str, tuple[int, str, Callable[[Door], bytes]]] = {
    "forged": (403, "bad_signature", lambda door: forged(door.opening())),
    "for another certificate": (403, "wrong_certificate", lambda door: door.opening(certificate=bytes(32)).raw),
    "by another key": (403, "wrong_lease", lambda door: by(STRANGER, door)),
    "of another horde": (403, "wrong_horde", lambda door: by(door.asked.job_key, door, STRANGER.public)),
    "with a lease that was changed": (403, "bad_signature", lambda door: door.opening(lease=longer(door.lease)).raw),
    "with a lease by a stranger": (403, "wrong_lease", lambda door: lease_by(STRANGER, door)),
    "for another attempt": (403, "wrong_lease", lambda door: door.opening(attempt=2).raw),
    "no opening": (400, "malformed", lambda door: b"\x01"),
}


async def test_a_worker_opens_to_its_requester_only(horde: Horde) -> None:
    assert horde.link is not None
    async with RawPeer.open(horde.link) as requester:
        asked = await requester.ask(*a_picture("real", steps=2))
        door = await Door.found(requester, asked)
        refused = {what: await door.post(make(door)) for what, (_, _, make) in KNOCKS.items()}
        other_private = codec.encode(a_picture("real")[1])
        refused["with another private part"] = await door.post(door.opening().raw, other_private)
        refused["without the private part"] = await door.post(door.opening().raw, b"")
        found = {
            what: (status, *(frame.code for frame in frames if isinstance(frame, Failed)))
            for what, (status, frames) in refused.items()
        }
        assert found == {what: (status, code) for what, (status, code, _) in KNOCKS.items()} | {
            "with another private part": (400, "private_part_mismatch"),
            "without the private part": (400, "private_part_missing"),
        }

        status, frames = await door.post(door.opening().raw)
        assert status == 200
        final = frames[-1]
        assert isinstance(final, Final)
        receipt = parse_document(final.receipt, Receipt)
        receipt.verify()
        await requester.send(asked.acknowledgement(requester.root, receipt).raw)
        await requester.envelope("settlement")
