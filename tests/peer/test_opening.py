"""Who may open a stream: every way in which an opening can be wrong, each with its own code."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.opening import check_opening
from peer.spool import Attempt
from protocol import codec
from protocol.documents import Lease, Opening, sign
from protocol.envelope import Envelope, seal, session_context
from protocol.errors import Refusal
from protocol.frames import OpenBody
from protocol.keys import SigningKey
from tests.support.builders import (
    JOB_KEY,
    ROOT,
    SERVING,
    WORKER,
    a_digest,
    a_handle,
    a_key,
    a_lease,
    an_opening,
    but,
    signed,
)

CERTIFICATE = a_digest("certificate")
STRANGER = a_key(50)


def a_body(opening: Envelope | None = None, private: bytes = b"private", prefix: str = "") -> bytes:
    return codec.encode(OpenBody((opening or signed(an_opening())).raw, private, prefix))


def opened_with(lease: Envelope, key: SigningKey = JOB_KEY, **changes: object) -> bytes:
    opening: Opening = but(an_opening(), lease=lease.raw, **changes)
    return a_body(signed(opening, key))


def check(
    raw: bytes, *, serving: bytes | None = SERVING.public, known: Callable[[Attempt], bytes | None] | None = None
):
    return check_opening(
        raw,
        root=ROOT.public,
        serving=serving,
        worker=WORKER.public,
        certificate=CERTIFICATE,
        known_lease=known or (lambda attempt: None),
    )


def code_of(raw: bytes, **options) -> str:
    with pytest.raises(Refusal) as caught:
        check(raw, **options)
    return caught.value.code


def test_the_holder_of_the_job_key_gets_in() -> None:
    opened = check(a_body(prefix="Once"))

    assert opened.attempt == (a_handle(), 1)
    assert (opened.lease, opened.envelope.raw) == (a_lease(), signed(a_lease()).raw)
    assert (opened.private, opened.prefix) == (b"private", "Once")


OPENING = signed(an_opening())
LEASE = signed(a_lease())
OTHER_HORDE = a_key(40)
WRONG: dict[str, tuple[bytes, str]] = {
    "no msgpack": (b"\xc1", "malformed"),
    "not an opening": (codec.encode([1, 2]), "bad_body"),
    "another document": (a_body(signed(a_lease())), "unknown_kind"),
    "too large": (codec.encode(OpenBody(seal("opening", bytes(33_000), JOB_KEY, ROOT.public).raw)), "too_large"),
    "for another horde": (a_body(sign(an_opening(), JOB_KEY, OTHER_HORDE.public)), "wrong_horde"),
    "a session message": (
        a_body(seal("opening", OPENING.body, JOB_KEY, session_context(ROOT.public, b"s" * 16, 0))),
        "unknown_kind",
    ),
    "forged": (codec.encode(OpenBody(OPENING.raw[:-1] + bytes([OPENING.raw[-1] ^ 1]))), "bad_signature"),
    "of the wrong shape": (a_body(seal("opening", b"\x80", JOB_KEY, ROOT.public)), "bad_body"),
    "by another key": (a_body(signed(an_opening(), STRANGER)), "wrong_lease"),
    "for another job": (opened_with(signed(a_lease()), job=a_handle(9)), "wrong_lease"),
    "for another attempt": (opened_with(signed(a_lease()), attempt=2), "wrong_lease"),
    "for another worker": (opened_with(signed(a_lease(worker=STRANGER))), "wrong_lease"),
    "for another certificate": (a_body(signed(an_opening(certificate=a_digest("other")))), "wrong_certificate"),
    "a lease by another key": (opened_with(signed(a_lease(), STRANGER)), "wrong_lease"),
    "a lease of another horde": (opened_with(sign(a_lease(), SERVING, OTHER_HORDE.public)), "wrong_horde"),
    "a forged lease": (
        a_body(signed(but(an_opening(), lease=LEASE.raw[:-1] + bytes([LEASE.raw[-1] ^ 1])))),
        "bad_signature",
    ),
    "no lease at all": (a_body(signed(but(an_opening(), lease=b""))), "malformed"),
}


@pytest.mark.parametrize("raw, code", WRONG.values(), ids=WRONG)
def test_every_other_opening_is_refused_with_its_code(raw: bytes, code: str) -> None:
    assert code_of(raw) == code


def test_before_the_tracker_is_reached_only_leases_known_from_before_can_be_opened() -> None:
    assert code_of(a_body(), serving=None) == "busy"
    assert check(a_body(), serving=None, known=lambda attempt: LEASE.digest).attempt == Attempt(a_handle(), 1)


def test_a_lease_by_a_serving_key_of_the_past_still_opens_what_is_held() -> None:
    assert code_of(a_body(), serving=STRANGER.public) == "wrong_lease"
    assert check(a_body(), serving=STRANGER.public, known=lambda attempt: LEASE.digest).lease == a_lease()


def test_another_lease_than_the_one_held_is_checked_in_full() -> None:
    other: Lease = but(a_lease(), deadline=a_lease().deadline + 1)

    assert code_of(opened_with(signed(other, STRANGER)), known=lambda attempt: LEASE.digest) == "wrong_lease"


@given(st.binary(max_size=400))
def test_no_bytes_raise_anything_but_a_refusal(raw: bytes) -> None:
    code_of(raw)


@given(st.integers(0, len(a_body()) - 1), st.integers(1, 255))
def test_no_changed_byte_gets_in_unnoticed(at: int, change: int) -> None:
    raw = bytearray(a_body(private=b""))
    at %= len(raw)
    raw[at] ^= change
    try:
        opened = check(bytes(raw))
    except Refusal:
        return
    assert opened.envelope.raw == LEASE.raw
    assert opened.attempt == Attempt(a_handle(), 1)
