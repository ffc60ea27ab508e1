"""The codec: what goes in comes out, and nothing hostile gets past it as anything but a refusal."""

from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from protocol import codec, documents, messages
from protocol.envelope import Challenge, decode_challenge, encode_challenge, parse
from protocol.errors import MAX_TEXT_CHARACTERS, BadBody, Malformed, Refusal, UnknownCriticalField, UnknownVersion
from protocol.frames import FrameReader, OpenBody, decode_frame
from protocol.work import ImagePrivate, PublicPart, TextPrivate, check_private
from tests.protocol import examples
from tests.support.builders import NOW, a_challenge, a_public_part, a_request, signed

BODIES = [
    *examples.LEAST_MESSAGES,
    *examples.FULL_MESSAGES,
    *examples.LEAST_DOCUMENTS,
    *examples.FULL_DOCUMENTS,
    *examples.PRIVATE_PARTS.values(),
    examples.LEAF,
    examples.EVIDENCE,
]
TYPES: list[type[Any]] = sorted(
    {type(body) for body in BODIES} | {PublicPart, Challenge}, key=lambda kind: kind.__name__
)

plain = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=20) | st.binary(max_size=20)
values = st.recursive(
    plain | st.floats() | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=9)),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.text(max_size=8) | st.binary(max_size=4) | st.integers(0, 9), inner, max_size=5)
    ),
    max_leaves=20,
)


def refused(raw: bytes) -> type[Refusal] | None:
    """What the strict check says of these bytes."""
    try:
        codec.check_strict(raw)
    except Refusal as refusal:
        return type(refusal)
    return None


@pytest.mark.parametrize("body", BODIES, ids=lambda body: type(body).__name__)
def test_every_body_comes_back_equal(body: Any) -> None:
    raw = codec.encode(body)

    again = codec.decode(raw, type(body))

    assert again == body
    assert codec.encode(again) == raw


@pytest.mark.parametrize("body", BODIES, ids=lambda body: type(body).__name__)
def test_an_unknown_field_is_ignored_and_a_critical_one_is_not(body: Any) -> None:
    fields = msgpack.unpackb(codec.encode(body))

    assert codec.decode(msgpack.packb(fields | {"news": [{"a": 1}]}), type(body)) == body
    with pytest.raises(UnknownCriticalField, match="!news"):
        codec.decode(msgpack.packb(fields | {"!news": 1}), type(body))


@pytest.mark.parametrize("body", BODIES, ids=lambda body: type(body).__name__)
def test_every_cut_of_a_body_is_refused(body: Any) -> None:
    raw = codec.encode(body)

    for size in range(len(raw)):
        with pytest.raises(Malformed):
            codec.decode(raw[:size], type(body))


@pytest.mark.parametrize("body", BODIES, ids=lambda body: type(body).__name__)
def test_each_required_field_is_missed(body: Any) -> None:
    fields = msgpack.unpackb(codec.encode(body))

    for field in msgspec.structs.fields(body):
        if field.required:
            rest = {name: value for name, value in fields.items() if name != field.encode_name}
            with pytest.raises(BadBody, match=field.encode_name):
                codec.decode(msgpack.packb(rest), type(body))


@given(raw=st.binary(max_size=300))
def test_arbitrary_bytes_raise_refusals_only(raw: bytes) -> None:
    assert all(len(refusal.text) <= MAX_TEXT_CHARACTERS for refusal in refusals_of(raw))


@given(value=values)
def test_arbitrary_msgpack_raises_refusals_only(value: object) -> None:
    raw = msgpack.packb(value)
    assert all(len(refusal.text) <= MAX_TEXT_CHARACTERS for refusal in refusals_of(raw))


@given(data=st.data())
def test_a_true_message_with_bytes_changed_raises_refusals_only(data: st.DataObject) -> None:
    raws = [encode_challenge(a_challenge()), signed(a_request()).raw, *(codec.encode(body) for body in BODIES)]
    raw = bytearray(data.draw(st.sampled_from(raws)))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    assert all(len(refusal.text) <= MAX_TEXT_CHARACTERS for refusal in refusals_of(bytes(raw)))


def refusals_of(raw: bytes) -> list[Refusal]:
    """What every reader of foreign bytes says to these; anything else that one raises fails the test."""
    refusals = []
    for read in readers():
        try:
            read(raw)
        except Refusal as refusal:
            refusals.append(refusal)
    return refusals


def readers() -> list[Any]:
    typed = [lambda raw, kind=kind: codec.decode(raw, kind) for kind in TYPES]
    work = a_public_part().work
    return [
        *typed,
        codec.check_strict,
        parse,
        decode_challenge,
        decode_frame,
        lambda raw: list(FrameReader().feed(raw)),
        lambda raw: codec.decode(raw, OpenBody),
        lambda raw: check_private(raw, work),
        lambda raw: documents.parse_document(raw, documents.Request),
    ]


@given(value=values)
def test_the_strict_check_agrees_with_a_plain_reading_of_the_standard(value: object) -> None:
    assert (refused(msgpack.packb(value)) is None) == allowed(value, 0)


def allowed(value: object, depth: int) -> bool:
    """The strict subset as the standard words it, for values (not for bytes)."""
    match value:
        case bool() | None | str() | bytes():
            return True
        case int():
            return True
        case list():
            return depth < codec.MAX_DEPTH and all(allowed(item, depth + 1) for item in value)
        case dict():
            texts = all(isinstance(name, str) and not name.startswith("!") for name in value)
            return depth < codec.MAX_DEPTH and texts and all(allowed(item, depth + 1) for item in value.values())
    return False


def nested(depth: int) -> bytes:
    return b"\x91" * (depth - 1) + b"\x90"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xc1",
        b"\x80\x80",
        b"\x80\xc0",
        b"\x81\x01\x01",
        b"\x81\xc4\x01a\x01",
        b"\x82\xa1a\x01\xa1a\x02",
        b"\x82\xa1a\x01\xd9\x01a\x02",
        b"\xca\x3f\x80\x00\x00",
        b"\xcb\x7f\xf8" + bytes(6),
        b"\xd4\x05\x00",
        b"\xd6\xff\x00\x00\x00\x00",
        b"\x91\xd6\xff\x00\x00\x00\x00",
        b"\xc7\x0c\xff" + bytes(12),
        b"\xa1\xff",
        b"\xa3\xed\xa0\x80",
        b"\x81\xa1\xff\x01",
        b"\xcf" + b"\x80" + bytes(7),
        b"\xcf" + b"\xff" * 8,
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        nested(17),
        nested(100_000),
    ],
    ids=lambda raw: raw[:9].hex() or "nothing",
)
def test_what_the_standard_forbids_is_malformed(raw: bytes) -> None:
    assert refused(raw) is Malformed


@pytest.mark.parametrize(
    "raw",
    [nested(16), b"\xcf\x7f" + b"\xff" * 7, b"\xd3\x80" + bytes(7), b"\xcd\x00\x01", b"\xd9\x01a", b"\x81\xa1a\xc0"],
    ids=lambda raw: raw[:9].hex(),
)
def test_what_the_standard_allows_is_taken(raw: bytes) -> None:
    assert refused(raw) is None


@pytest.mark.parametrize("raw", [b"\x81\xa2!x\x01", b"\x91\x81\xa1!\xc0", b"\x81\xa1a\x81\xa2!x\x01"])
def test_a_critical_field_is_found_at_any_depth(raw: bytes) -> None:
    assert refused(raw) is UnknownCriticalField


def test_a_refusal_that_quotes_a_long_value_still_travels() -> None:
    raw = msgpack.packb({"kind": "x" * 100_000, "prompt": "", "salt": bytes(32)})

    with pytest.raises(BadBody) as caught:
        codec.decode(raw, ImagePrivate)

    message = messages.Refused(code=caught.value.code, text=caught.value.text)
    assert codec.decode(codec.encode(message), messages.Refused) == message


def test_text_and_bytes_are_told_apart() -> None:
    with pytest.raises(BadBody):
        codec.decode(msgpack.packb({"session": "a" * 16, "software": "x"}), messages.Hello)
    with pytest.raises(BadBody):
        codec.decode(msgpack.packb({"session": b"a" * 16, "software": b"x"}), messages.Hello)


@given(seed=st.integers(), prompt=st.text())
@example(seed=2**53, prompt="")
@example(seed=-1, prompt="")
def test_a_range_is_checked_when_decoding(seed: int, prompt: str) -> None:
    if not -(2**63) <= seed < 2**63:
        return
    raw = msgpack.packb({"kind": "text", "prompt": prompt, "seed": seed, "salt": bytes(32)})
    if 0 <= seed < 2**53:
        assert codec.decode(raw, TextPrivate).seed == seed
    else:
        with pytest.raises(BadBody, match="seed"):
            codec.decode(raw, TextPrivate)


def test_a_challenge_comes_back_equal() -> None:
    assert decode_challenge(encode_challenge(a_challenge())) == a_challenge()


@pytest.mark.parametrize(
    ("wire", "refusal"),
    [
        ([2, "challenge", b""], UnknownVersion),
        ([2, {"another": "shape"}], UnknownVersion),
        ([True, "challenge", b""], Malformed),
        ([1, "hello", b""], Malformed),
        ([1, "challenge", "text"], Malformed),
        ([], Malformed),
        ({}, BadBody),
        ([1, "challenge", b"\x80"], BadBody),
    ],
)
def test_what_is_no_challenge_is_refused(wire: object, refusal: type[Refusal]) -> None:
    with pytest.raises(refusal):
        decode_challenge(msgpack.packb(wire))


def test_a_challenge_of_the_largest_size_is_read_and_one_byte_more_is_not() -> None:
    challenge = a_challenge(clock=NOW)
    room = 4096 - len(encode_challenge(challenge))
    # The growing delegation crosses no size class of msgpack's headers between these two.
    fits = Challenge(
        root=challenge.root,
        delegation=challenge.delegation + bytes(room - 1),
        session=challenge.session,
        clock=challenge.clock,
    )
    raw = encode_challenge(fits)
    assert 4090 <= len(raw) <= 4096
    assert decode_challenge(raw) == fits

    with pytest.raises(Refusal) as caught:
        decode_challenge(raw + bytes(4097 - len(raw)))
    assert caught.value.code == "too_large"
