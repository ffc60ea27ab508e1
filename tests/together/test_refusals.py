"""What is not right is refused with its own code, and nothing has changed by it: at a real tracker, over sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import pytest_asyncio

from protocol import codec
from protocol.documents import Denial, Lease, Settlement, sign
from protocol.envelope import Envelope, parse, seal, session_context
from protocol.keys import SigningKey
from protocol.messages import AskAccount, Holding, Refused, Requeued, Withdrawn
from tests.support.builders import an_output_digest
from tests.support.database import count, tables
from tests.support.horde import Horde
from tests.support.raw_peer import Asked, RawPeer, a_picture

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: Nothing may happen by itself while a test looks whether something changed; what earlier tests left runs on.
RULES = """
limits.anonymous_running = 1000
times.accept = 120
times.open = 120
times.worker_grace = 600
"""
STRANGER = SigningKey.generate()
OTHER_ROOT = SigningKey.generate().public


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def horde(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Horde]:
    folder: Path = tmp_path_factory.mktemp("horde")
    async with Horde.open(folder, RULES) as horde:
        yield horde
        assert (await horde.audit())["ok"]


@dataclass
class Scene:
    """A job that is leased to a worker that has accepted it, and a second worker that serves the same."""

    horde: Horde
    worker: RawPeer
    second: RawPeer
    requester: RawPeer
    asked: Asked
    lease: Lease

    @property
    def root(self) -> bytes:
        return self.requester.root

    @property
    def database(self) -> Path:
        (path,) = self.horde.tracker_folder.glob("*.db")
        return path

    def acknowledgement(self, receipt: Envelope, /, **fields: object) -> Envelope:
        return self.asked.acknowledgement(self.root, receipt, **fields)

    async def refused(self, peer: RawPeer, raw: bytes, code: str) -> Refused:
        """Send something that must be refused with this code, and leave everything as it was."""
        before = tables(self.database)
        await peer.send(raw)
        refused = (await peer.envelope("refused")).open(Refused)
        assert refused.code == code, refused.text
        assert tables(self.database) == before
        return refused


MODELS = iter(range(1_000))


@pytest_asyncio.fixture(loop_scope="module")
async def scene(horde: Horde) -> AsyncIterator[Scene]:
    assert horde.link is not None
    model = f"raw-{next(MODELS)}"
    async with AsyncExitStack() as stack:
        worker, second, requester = [await stack.enter_async_context(RawPeer.open(horde.link)) for _ in range(3)]
        await worker.serve(model)
        asked = await requester.ask(*a_picture(model))
        lease, _ = await worker.lease()
        await worker.report(lease, "opened")
        await second.serve(model)
        await settled_down(worker, second)
        yield Scene(horde, worker, second, requester, asked, lease)


async def settled_down(*peers: RawPeer) -> None:
    """What these peers said before has been carried out: the tracker answers each one in order."""
    for peer in peers:
        await peer.register()


def forged(envelope: Envelope) -> bytes:
    """The same with another signature."""
    parts = [1, envelope.kind, envelope.key, envelope.context, envelope.body, bytes(64)]
    return codec.encode(parts)


def in_other_horde(envelope: Envelope, key: SigningKey) -> bytes:
    """The same, truly signed, for another horde."""
    return seal(envelope.kind, envelope.body, key, OTHER_ROOT + envelope.context[32:]).raw


# Documents: who sends what, and the code. A conversation goes on after each of them.

Wrong = Callable[[Scene], tuple[RawPeer, bytes]]

DOCUMENTS: dict[str, tuple[str, Wrong]] = {
    "forged receipt": ("bad_signature", lambda s: (s.worker, forged(s.worker.receipt(s.lease)))),
    "receipt of another horde": (
        "wrong_horde",
        lambda s: (s.worker, in_other_horde(s.worker.receipt(s.lease), s.worker.key)),
    ),
    "receipt by another worker": ("wrong_signer", lambda s: (s.second, s.second.receipt(s.lease).raw)),
    "receipt in another session": ("wrong_signer", lambda s: (s.second, s.worker.receipt(s.lease).raw)),
    "receipt over the lease": ("over_lease", lambda s: (s.worker, s.worker.receipt(s.lease, used=31).raw)),
    "partial receipt that nobody asked for": (
        "over_lease",
        lambda s: (s.worker, s.worker.receipt(s.lease, used=3, partial=True).raw),
    ),
    "receipt of an attempt that never was": (
        "unknown_job",
        lambda s: (s.worker, s.worker.receipt(s.lease, attempt=7).raw),
    ),
    "forged acknowledgement": (
        "bad_signature",
        lambda s: (s.requester, forged(s.acknowledgement(s.worker.receipt(s.lease)))),
    ),
    "acknowledgement of another horde": (
        "wrong_horde",
        lambda s: (s.requester, in_other_horde(s.acknowledgement(s.worker.receipt(s.lease)), s.asked.job_key)),
    ),
    "acknowledgement by another key": (
        "wrong_signer",
        lambda s: (
            s.requester,
            replace(s.asked, job_key=STRANGER).acknowledgement(s.root, s.worker.receipt(s.lease)).raw,
        ),
    ),
    "acknowledgement in another session": (
        "wrong_signer",
        lambda s: (s.second, s.acknowledgement(s.worker.receipt(s.lease)).raw),
    ),
    "acknowledgement of something else": (
        "receipt_mismatch",
        lambda s: (
            s.requester,
            s.acknowledgement(s.worker.receipt(s.lease), output_digest=an_output_digest(b"else")).raw,
        ),
    ),
    "acknowledgement with a forged receipt": (
        "bad_signature",
        lambda s: (
            s.requester,
            s.acknowledgement(s.worker.receipt(s.lease), receipt=forged(s.worker.receipt(s.lease))).raw,
        ),
    ),
    "acknowledgement with another worker's receipt": (
        "wrong_signer",
        lambda s: (s.requester, s.acknowledgement(s.second.receipt(s.lease)).raw),
    ),
    "acknowledgement with a receipt over the lease": (
        "over_lease",
        lambda s: (s.requester, s.acknowledgement(s.worker.receipt(s.lease, used=31)).raw),
    ),
    "lease from a peer": (
        "unknown_kind",
        lambda s: (s.requester, sign(s.lease, s.requester.key, s.root).raw),
    ),
}


@pytest.mark.parametrize("what", DOCUMENTS)
async def test_a_document_that_is_not_right_changes_nothing(scene: Scene, what: str) -> None:
    code, make = DOCUMENTS[what]
    peer, raw = make(scene)
    refused = await scene.refused(peer, raw, code)
    assert refused.about == parse(raw).digest
    assert not refused.final
    # The conversation goes on, and what is right is taken.
    receipt = scene.worker.receipt(scene.lease)
    await scene.worker.deliver(receipt)
    await scene.requester.send(scene.acknowledgement(receipt).raw)
    settlement = (await scene.requester.envelope("settlement")).open(Settlement)
    assert settlement.minted == scene.lease.price


# Session messages: whatever is wrong with one ends the conversation, for nobody can say what comes next.

SESSION: dict[str, tuple[str, Callable[[RawPeer], bytes]]] = {
    "forged": ("bad_signature", lambda p: forged(p.outbound.seal("ask_account", codec.encode(AskAccount())))),
    "left out": ("out_of_sequence", lambda p: _later(p, 1)),
    "of another session": (
        "wrong_session",
        lambda p: (
            seal(
                "ask_account",
                codec.encode(AskAccount()),
                p.key,
                session_context(p.root, bytes(16), p.outbound.sequence),
            ).raw
        ),
    ),
    "of another horde": (
        "wrong_horde",
        lambda p: in_other_horde(p.outbound.seal("ask_account", codec.encode(AskAccount())), p.key),
    ),
    "by another key": (
        "wrong_signer",
        lambda p: seal("ask_account", codec.encode(AskAccount()), STRANGER, _context(p)).raw,
    ),
    "no envelope": ("malformed", lambda p: b"\x93\x01\x02\x03"),
}


def _context(peer: RawPeer, ahead: int = 0) -> bytes:
    outbound = peer.outbound
    return session_context(peer.root, outbound.session_id, outbound.sequence + ahead)


def _later(peer: RawPeer, ahead: int) -> bytes:
    return seal("ask_account", codec.encode(AskAccount()), peer.key, _context(peer, ahead)).raw


@pytest.mark.parametrize("what", SESSION)
async def test_a_session_message_that_is_not_right_ends_the_session(scene: Scene, what: str) -> None:
    code, make = SESSION[what]
    refused = await scene.refused(scene.worker, make(scene.worker), code)
    assert refused.final
    assert (await scene.worker.closed()).startswith(code)


async def test_a_replayed_message_is_refused(scene: Scene) -> None:
    said = await scene.requester.say(AskAccount())
    await scene.requester.envelope("account")
    refused = await scene.refused(scene.requester, said.raw, "out_of_sequence")
    assert refused.final


async def test_two_messages_in_the_wrong_order_are_refused(scene: Scene) -> None:
    outbound = scene.requester.outbound
    first, second = (outbound.seal("ask_account", codec.encode(AskAccount())) for _ in range(2))
    refused = await scene.refused(scene.requester, second.raw, "out_of_sequence")
    assert refused.about == second.digest
    assert refused.final
    await scene.requester.closed()
    assert first.digest not in {envelope.digest for envelope in scene.requester.heard}


async def test_a_message_of_one_session_is_refused_in_the_next(scene: Scene) -> None:
    said = await scene.requester.say(AskAccount())
    await scene.requester.envelope("account")
    assert scene.horde.link is not None
    async with RawPeer.open(scene.horde.link, scene.requester.key) as again:
        await scene.refused(again, said.raw, "wrong_session")


@pytest.mark.parametrize(
    ("code", "spoil"),
    [
        ("bad_signature", lambda hello, key: forged(hello)),
        ("wrong_horde", in_other_horde),
        (
            "out_of_turn",
            lambda hello, key: seal("holding", codec.encode(Holding(entries=(), last=True)), key, hello.context).raw,
        ),
    ],
)
async def test_who_does_not_show_who_it_is_does_not_get_in(
    horde: Horde, code: str, spoil: Callable[[Envelope, SigningKey], bytes]
) -> None:
    assert horde.link is not None
    async with RawPeer.connect(horde.link) as peer:
        hello = peer.outbound.seal("hello", codec.encode(peer.hello()))
        await peer.send(spoil(hello, peer.key))
        assert (await peer.closed()).startswith(code)
        assert not peer.heard


# Attempts


async def next_attempt(scene: Scene) -> Lease:
    """The first worker fails, and the second one has the job."""
    await scene.worker.report(scene.lease, "failed", "crashed")
    assert (await scene.requester.expect(Requeued)).attempt == 1
    lease, _ = await scene.second.lease()
    assert lease.attempt == 2
    await scene.second.report(lease, "opened")
    await settled_down(scene.second)
    return lease


async def test_a_late_receipt_of_an_old_attempt_is_fenced(scene: Scene) -> None:
    newer = await next_attempt(scene)
    late = scene.worker.receipt(scene.lease)
    await scene.refused(scene.worker, late.raw, "fenced")

    receipt = scene.second.receipt(newer)
    await scene.second.deliver(receipt)
    await scene.refused(scene.requester, scene.acknowledgement(late).raw, "fenced")
    await scene.requester.send(scene.acknowledgement(receipt).raw)
    assert (await scene.requester.envelope("settlement")).open(Settlement).attempt == 2


async def test_receipt_and_acknowledgement_of_an_old_attempt_settle_it(scene: Scene) -> None:
    newer = await next_attempt(scene)
    late = scene.worker.receipt(scene.lease)
    await scene.requester.send(scene.acknowledgement(late).raw)

    settlement = await scene.requester.envelope("settlement")
    assert settlement.open(Settlement).attempt == 1
    assert (await scene.worker.envelope("settlement")).raw == settlement.raw
    withdrawn = await scene.second.expect(Withdrawn)
    assert (withdrawn.job, withdrawn.attempt, withdrawn.reason) == (newer.job, 2, "settled")
    await scene.refused(scene.second, scene.second.receipt(newer).raw, "too_late")


# Twice


async def test_the_same_acknowledgement_again_is_answered_as_the_first_time(scene: Scene) -> None:
    receipt = scene.worker.receipt(scene.lease)
    await scene.worker.deliver(receipt)
    acknowledgement = scene.acknowledgement(receipt)
    await scene.requester.send(acknowledgement.raw)
    settlement = await scene.requester.envelope("settlement")
    before = tables(scene.database)
    for _ in range(3):
        await scene.requester.send(acknowledgement.raw)
        assert (await scene.requester.envelope("settlement")).raw == settlement.raw
    assert tables(scene.database) == before


async def test_the_same_receipt_again_is_answered_as_the_first_time(scene: Scene) -> None:
    receipt = scene.worker.receipt(scene.lease)
    await scene.worker.deliver(receipt)
    before = tables(scene.database)
    await scene.worker.deliver(receipt)
    assert tables(scene.database) == before
    await scene.requester.send(scene.acknowledgement(receipt).raw)
    settlement = await scene.worker.envelope("settlement")
    await scene.worker.deliver(receipt)
    assert (await scene.worker.envelope("settlement")).raw == settlement.raw


async def test_a_second_and_different_acknowledgement_is_kept_as_proof_and_changes_nothing(scene: Scene) -> None:
    receipt = scene.worker.receipt(scene.lease)
    await scene.worker.deliver(receipt)
    first = scene.acknowledgement(receipt)
    await scene.requester.send(first.raw)
    settlement = await scene.requester.envelope("settlement")
    proofs = count(scene.database, "equivocations")
    second = scene.acknowledgement(receipt, output_digest=an_output_digest(b"something else"))
    await scene.refused(scene.requester, second.raw, "equivocation")
    assert count(scene.database, "equivocations") == proofs + 1
    # Nor does it change what the first one is answered with.
    await scene.requester.send(first.raw)
    assert (await scene.requester.envelope("settlement")).raw == settlement.raw


async def test_a_second_and_different_receipt_is_kept_as_proof_and_changes_nothing(scene: Scene) -> None:
    await scene.worker.deliver(scene.worker.receipt(scene.lease))
    other = scene.worker.receipt(scene.lease, output_digest=an_output_digest(b"something else"))
    proofs = count(scene.database, "equivocations")
    await scene.refused(scene.worker, other.raw, "equivocation")
    assert count(scene.database, "equivocations") == proofs + 1
    await scene.refused(scene.requester, scene.acknowledgement(other).raw, "equivocation")


async def test_a_denial_after_an_acknowledgement_comes_too_late(scene: Scene) -> None:
    receipt = scene.worker.receipt(scene.lease)
    await scene.requester.send(scene.acknowledgement(receipt).raw)
    await scene.requester.envelope("settlement")
    denial = Denial(job=scene.lease.job, attempt=1, reason="digest_mismatch", receipt=receipt.raw)
    await scene.refused(scene.requester, sign(denial, scene.asked.job_key, scene.root).raw, "too_late")


async def test_the_digest_of_the_tables_notices_a_change(scene: Scene) -> None:
    """The control of all that is compared above."""
    before = tables(scene.database)
    await scene.worker.deliver(scene.worker.receipt(scene.lease))
    changed = {name for name, digest in tables(scene.database).items() if digest != before[name]}
    assert changed == {"attempts", "documents", "jobs"}
