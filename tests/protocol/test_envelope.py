"""Envelopes: what is signed, in which order one is checked, and when a sequence number is used up."""

import hashlib

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import codec
from protocol.documents import (
    Lease,
    Receipt,
    Request,
    check_validity,
    open_document,
    parse_document,
)
from protocol.envelope import (
    MAX_ENVELOPE_BYTES,
    Envelope,
    Inbound,
    Outbound,
    check_delegation,
    check_document_context,
    parse,
    seal,
    session_context,
    signed_bytes,
)
from protocol.errors import (
    BadBody,
    BadDelegation,
    BadKey,
    BadSignature,
    Late,
    Malformed,
    OutOfSequence,
    Refusal,
    TooFarAhead,
    TooLarge,
    UnknownKind,
    UnknownVersion,
    WrongHorde,
    WrongSession,
    WrongSigner,
)
from protocol.messages import AskAccount
from tests.support.builders import (
    HOUR,
    NOW,
    REQUESTER,
    ROOT,
    SERVING,
    WORKER,
    a_delegation,
    a_key,
    a_nonce,
    a_receipt,
    a_request,
    signed,
)

BODY = codec.encode(AskAccount())
SESSION = a_nonce(1)


def inbound(sequence: int = 0) -> Inbound:
    return Inbound(ROOT.public, SESSION, sequence)


def a_message(sequence: int = 0, root: bytes = ROOT.public, session: bytes = SESSION, body: bytes = BODY) -> Envelope:
    return seal("ask_account", body, REQUESTER, session_context(root, session, sequence))


def wire(envelope: Envelope, **changes: object) -> bytes:
    """The envelope's bytes with parts replaced and nothing signed anew."""
    parts = {
        "version": 1,
        "kind": envelope.kind,
        "key": envelope.key,
        "context": envelope.context,
        "body": envelope.body,
        "signature": envelope.signature,
    }
    raw: bytes = msgpack.packb(list((parts | changes).values()))
    return raw


def check(raw: bytes, receiver: Inbound, key: bytes | None = REQUESTER.public) -> AskAccount:
    """All that a receiver does with a session message, in the order of the standard."""
    envelope = parse(raw, limit=4096)
    receiver.check(envelope, key)
    return envelope.open(AskAccount)


def test_the_signed_bytes_are_tag_kind_key_context_and_body_each_behind_its_length() -> None:
    envelope = signed(a_receipt())
    parts = [b"potluck/1", b"receipt", WORKER.public, ROOT.public, envelope.body]

    assert envelope.signed_bytes == b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    assert envelope.digest == hashlib.sha256(envelope.signed_bytes).digest()
    assert WORKER.sign(envelope.signed_bytes) == envelope.signature


parts = st.tuples(st.text(), st.binary(max_size=6), st.binary(max_size=6), st.binary(max_size=6))


@given(one=parts, other=parts)
def test_no_two_messages_share_their_signed_bytes(
    one: tuple[str, bytes, bytes, bytes], other: tuple[str, bytes, bytes, bytes]
) -> None:
    assert (signed_bytes(*one) == signed_bytes(*other)) == (one == other)


def test_what_is_sealed_is_parsed_equal() -> None:
    for envelope in (a_message(7), signed(a_request())):
        assert parse(envelope.raw) == envelope
        parse(envelope.raw).verify()


def test_an_envelope_in_another_msgpack_form_is_the_same_document() -> None:
    """Not the envelope but what is signed makes the digest, so that nobody makes a second document of one."""
    envelope = signed(a_receipt())
    wider = b"\xdc\x00\x06" + envelope.raw[1:]

    again = parse(wider)
    again.verify()
    assert again.digest == envelope.digest
    assert again.raw == wider != envelope.raw


def test_a_conversation_counts_from_zero_and_each_message_once() -> None:
    sender, receiver = Outbound(ROOT.public, SESSION, REQUESTER), inbound()

    for number in range(5):
        envelope = sender.seal("ask_account", BODY)
        assert int.from_bytes(envelope.context[-8:], "big") == number
        check(envelope.raw, receiver)
        assert receiver.sequence == number + 1
        with pytest.raises(OutOfSequence):
            check(envelope.raw, receiver)


# Each case is wrong in its own way and in all ways that are checked later, so that what is refused first shows.
BAD_BODY = b"\x81\xa1\xff\x01"
SMALL_ORDER = bytes(32)
ORDER_OF_CHECKS = [
    (wire(a_message(), version=2, body=bytes(5000)), TooLarge),
    (b"\x96\x01\x80", Malformed),
    (wire(a_message(), kind=7), Malformed),
    (wire(a_message(), key=bytes(31)), Malformed),
    (wire(a_message(), signature=bytes(65)), Malformed),
    (wire(a_message(), context=bytes(48)), Malformed),
    (wire(a_message(), version=2, context=bytes(32), key=SMALL_ORDER, body=BAD_BODY), UnknownVersion),
    (wire(a_message(), context=ROOT.public, key=SMALL_ORDER, body=BAD_BODY), UnknownKind),
    (wire(a_message(3, a_key(9).public, a_nonce(9)), key=SMALL_ORDER, body=BAD_BODY), WrongHorde),
    (wire(a_message(3, session=a_nonce(9)), key=SMALL_ORDER, body=BAD_BODY), WrongSession),
    (wire(a_message(3), key=SMALL_ORDER, body=BAD_BODY), OutOfSequence),
    (wire(a_message(), key=WORKER.public, body=BAD_BODY), WrongSigner),
    (wire(a_message(), signature=bytes(64), body=BAD_BODY), BadSignature),
    (a_message(body=b"\x90").raw, BadBody),
    (a_message(body=BAD_BODY).raw, Malformed),
]


@pytest.mark.parametrize(("raw", "refusal"), ORDER_OF_CHECKS, ids=lambda case: getattr(case, "code", None))
def test_checks_come_in_the_order_of_the_standard(raw: bytes, refusal: type[Refusal]) -> None:
    with pytest.raises(refusal):
        check(raw, inbound())


def test_of_a_key_that_is_not_known_yet_the_form_is_checked_before_the_signature() -> None:
    with pytest.raises(BadKey):
        check(wire(a_message(), key=SMALL_ORDER, body=BAD_BODY), inbound(), key=None)


@pytest.mark.parametrize(("raw", "refusal"), ORDER_OF_CHECKS[:-2], ids=lambda case: getattr(case, "code", None))
def test_a_refused_envelope_uses_up_no_number(raw: bytes, refusal: type[Refusal]) -> None:
    receiver = inbound()
    with pytest.raises(refusal):
        check(raw, receiver)

    assert receiver.sequence == 0
    check(a_message().raw, receiver)


def test_a_true_signature_uses_up_its_number_even_over_a_bad_body() -> None:
    receiver = inbound()
    with pytest.raises(BadBody):
        check(a_message(body=b"\x90").raw, receiver)

    assert receiver.sequence == 1


def test_another_shape_under_another_version_is_refused_as_that_version() -> None:
    with pytest.raises(UnknownVersion, match="version 2"):
        parse(msgpack.packb([2, "kind", {"all": "different"}]))


def test_size_is_checked_before_anything_is_read() -> None:
    with pytest.raises(TooLarge):
        parse(b"\xc1" * (MAX_ENVELOPE_BYTES + 1))
    with pytest.raises(Malformed):
        parse(b"\xc1" * MAX_ENVELOPE_BYTES)


@given(number=st.integers(0, 2**64 - 1))
def test_only_the_very_next_number_is_taken(number: int) -> None:
    receiver = inbound(5)
    if number == 5:
        check(a_message(number).raw, receiver)
    else:
        with pytest.raises(OutOfSequence):
            check(a_message(number).raw, receiver)


def test_a_document_of_another_horde_is_refused_and_so_is_a_session_message_in_its_place() -> None:
    check_document_context(signed(a_request()), ROOT.public)

    with pytest.raises(WrongHorde):
        check_document_context(signed(a_request(), root=a_key(9)), ROOT.public)
    with pytest.raises(UnknownKind):
        check_document_context(a_message(), ROOT.public)


def test_a_document_is_parsed_as_the_kind_that_is_wanted_and_in_its_size() -> None:
    envelope = signed(a_receipt())

    assert open_document(parse_document(envelope.raw, Receipt), Receipt) == a_receipt()
    with pytest.raises(UnknownKind):
        parse_document(envelope.raw, Request)
    with pytest.raises(UnknownKind):
        open_document(envelope, Lease)
    with pytest.raises(TooLarge):
        parse_document(envelope.raw + bytes(Receipt.MAX_BYTES), Receipt)


def test_a_document_says_no_more_than_its_signer_signed() -> None:
    envelope = signed(a_receipt())
    other = codec.encode(a_receipt(used=1))

    with pytest.raises(BadSignature):
        parse(wire(envelope, body=other)).verify()
    with pytest.raises(BadSignature):
        parse(wire(envelope, kind="request")).verify()
    with pytest.raises(BadSignature):
        parse(wire(envelope, context=a_key(9).public)).verify()


def test_the_delegation_is_the_roots_own_word_for_this_horde() -> None:
    check_delegation(a_delegation(), ROOT.public)

    with pytest.raises(WrongHorde):
        check_delegation(a_delegation(root=a_key(9)), ROOT.public)
    with pytest.raises(BadDelegation):
        check_delegation(signed(a_receipt()), ROOT.public)
    with pytest.raises(BadDelegation):
        check_delegation(parse(wire(a_delegation(), key=SERVING.public)), ROOT.public)
    with pytest.raises(BadSignature):
        check_delegation(parse(wire(a_delegation(), body=b"\x80")), ROOT.public)


@pytest.mark.parametrize(
    ("valid_until", "refusal"),
    [(NOW, None), (NOW + HOUR, None), (NOW - 1, Late), (NOW + HOUR + 1, TooFarAhead), (0, Late)],
)
def test_a_document_is_taken_in_from_now_to_an_hour_ahead(valid_until: int, refusal: type[Refusal] | None) -> None:
    if refusal is None:
        check_validity(valid_until, NOW)
    else:
        with pytest.raises(refusal):
            check_validity(valid_until, NOW)
