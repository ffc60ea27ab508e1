"""Is a file what its worker signed for? And what is kept to tell."""

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from peer.evidence import Evidence, Proof, Unsettled
from peer.verify import NotVerified, verify_content, verify_file
from protocol.digests import Artifact, output_digest
from protocol.documents import Former, Serving, sign
from protocol.keys import SigningKey
from tests.support.builders import (
    JOB_KEY,
    ROOT,
    SERVING,
    WORKER,
    a_handle,
    a_key,
    a_lease,
    a_receipt,
    a_salt,
    a_settlement,
    an_acknowledgement,
    but,
    signed,
)

CONTENT = b"a picture"
SHA256 = hashlib.sha256(CONTENT).digest()


def a_proof(content: bytes = CONTENT, *, attempt: int = 1, **changes: object) -> Proof:
    artifacts = (Artifact.of("image/png", content),)
    lease = a_lease(attempt=attempt)
    receipt = signed(a_receipt(lease, output=output_digest(a_salt(), artifacts)))
    proof = Proof(
        root=ROOT.public,
        job=lease.job,
        attempt=attempt,
        artifacts=artifacts,
        salt=a_salt(),
        lease=signed(lease).raw,
        receipt=receipt.raw,
        acknowledgement=signed(an_acknowledgement(receipt)).raw,
        settlement=signed(a_settlement(lease)).raw,
    )
    return msgspec.structs.replace(proof, **changes)


@pytest.fixture
def evidence(tmp_path: Path) -> Evidence:
    return Evidence(tmp_path / "results")


def test_a_saved_file_is_verified_by_what_is_kept_of_it(evidence: Evidence, tmp_path: Path) -> None:
    evidence.keep(a_proof())
    file = tmp_path / "picture.png"
    file.write_bytes(CONTENT)

    found = verify_file(file, evidence)

    assert found.sha256 == SHA256
    assert found.output_digest == found.receipt.output_digest
    assert found.lease.worker == WORKER.public
    assert found.settlement is not None


def test_a_copy_under_another_name_is_verified_too(evidence: Evidence, tmp_path: Path) -> None:
    evidence.keep(a_proof())
    evidence.saved(tmp_path / "picture.png", SHA256)
    copy = tmp_path / "copy"
    copy.write_bytes(CONTENT)

    assert verify_file(copy, evidence).sha256 == SHA256


def test_a_file_that_was_changed_is_told_from_one_that_never_came(evidence: Evidence, tmp_path: Path) -> None:
    evidence.keep(a_proof())
    file, other = tmp_path / "picture.png", tmp_path / "other.png"
    file.write_bytes(CONTENT + b"!")
    other.write_bytes(b"from elsewhere")
    evidence.saved(file, SHA256)

    with pytest.raises(NotVerified) as changed:
        verify_file(file, evidence)
    with pytest.raises(NotVerified) as unknown:
        verify_file(other, evidence)

    assert (changed.value.reason, unknown.value.reason) == ("changed", "unknown")
    assert SHA256.hex() in str(changed.value)


def test_without_a_settlement_it_is_verified_and_said_so(evidence: Evidence) -> None:
    assert verify_content(CONTENT, [a_proof(settlement=b"")]).settlement is None


OTHER = a_proof(b"another")


@pytest.mark.parametrize(
    "changes",
    [
        {"salt": a_salt(5)},
        {"root": a_key(40).public},
        {"artifacts": ()},
        {"artifacts": OTHER.artifacts},
        {"artifacts": (Artifact.of("image/webp", CONTENT),)},
        {"receipt": OTHER.receipt},
        {"acknowledgement": OTHER.acknowledgement},
        {"lease": signed(a_lease(worker=a_key(41))).raw},
        {"lease": signed(a_lease(attempt=2)).raw},
        {"lease": b""},
        {"settlement": signed(but(a_settlement(), job=a_handle(3))).raw},
        {"settlement": signed(a_settlement(), a_key(42)).raw},
        {"receipt": signed(a_receipt(), JOB_KEY).raw},
        {"acknowledgement": signed(an_acknowledgement(), SERVING).raw},
    ],
    ids="-".join,
)
def test_proofs_that_do_not_fit_are_no_proofs(changes: dict[str, Any]) -> None:
    with pytest.raises(NotVerified) as caught:
        verify_content(CONTENT, [a_proof(**changes)])

    assert caught.value.reason == "mismatch"


def test_content_that_is_not_the_proofs_is_a_mismatch() -> None:
    with pytest.raises(NotVerified):
        verify_content(b"something else", [a_proof()])


def test_one_proof_that_holds_is_enough() -> None:
    assert verify_content(CONTENT, [a_proof(salt=a_salt(5)), a_proof(attempt=2), OTHER]).lease.attempt == 2


def test_a_settlement_by_the_next_serving_key_needs_the_roots_word_that_both_served() -> None:
    after = a_key(70)
    settlement = signed(a_settlement(a_lease()), after).raw

    def by(*former: SigningKey, root: SigningKey = ROOT) -> bytes:
        named = tuple(Former(key=key.public, entries=0) for key in former)
        return sign(Serving(serving=after.public, version=2, former=named), root, ROOT.public).raw

    assert verify_content(CONTENT, [a_proof(settlement=settlement, delegation=by(SERVING))]).settlement
    for delegation in (b"", by(), by(a_key(71)), by(SERVING, root=a_key(72))):
        with pytest.raises(NotVerified) as refused:
            verify_content(CONTENT, [a_proof(settlement=settlement, delegation=delegation)])
        assert refused.value.reason == "mismatch"


def test_the_same_content_from_two_jobs_keeps_both_proofs(evidence: Evidence) -> None:
    evidence.keep(a_proof())
    evidence.keep(a_proof(attempt=2))

    assert {proof.attempt for proof in evidence.proofs(SHA256)} == {1, 2}


def test_a_settlement_comes_to_its_proof_and_ends_the_waiting(evidence: Evidence) -> None:
    proof = a_proof(settlement=b"")
    unsettled = Unsettled(job=proof.job, attempt=1, document=proof.acknowledgement, contents=(SHA256,))
    evidence.keep(proof)
    evidence.await_settlement(ROOT.public, unsettled)
    assert evidence.unsettled(ROOT.public) == [unsettled]
    assert evidence.unsettled(a_key(3).public) == []

    evidence.settle(ROOT.public, unsettled, b"the settlement")

    assert [kept.settlement for kept in evidence.proofs(SHA256)] == [b"the settlement"]
    assert evidence.unsettled(ROOT.public) == []


def test_files_that_nobody_can_read_are_passed_over(evidence: Evidence, tmp_path: Path) -> None:
    evidence.keep(a_proof())
    [path] = (tmp_path / "results" / "content" / SHA256.hex()).iterdir()
    path.write_bytes(b"{")

    assert evidence.proofs(SHA256) == []
