"""Requests: the private part is bound by its digest and has to fit what is public."""

from typing import Any

import msgpack
import pytest

from protocol import codec
from protocol.digests import Artifact, commitment, new_salt, output_digest, private_digest
from protocol.envelope import seal, session_context
from protocol.errors import BadBody, BadValue, PrivatePartMismatch, Refusal, TooLarge
from protocol.messages import Private
from protocol.work import (
    MAX_PRIVATE_BYTES,
    ImagePrivate,
    ImageWork,
    PublicPart,
    TextPrivate,
    TextWork,
    Work,
    check_private,
    kind_of,
    open_private,
    read_private,
    texts_of,
)
from tests.protocol.examples import PRIVATE_PARTS
from tests.support.builders import REQUESTER, ROOT, a_nonce, a_salt, a_text_private, an_image_private, but


def test_a_private_part_opens_with_its_own_digest_only() -> None:
    raw = codec.encode(an_image_private())

    assert open_private(raw, private_digest(raw), ImageWork()) == an_image_private()
    with pytest.raises(PrivatePartMismatch):
        open_private(raw, private_digest(raw + b"x"), ImageWork())
    with pytest.raises(PrivatePartMismatch):
        open_private(codec.encode(an_image_private("another")), private_digest(raw), ImageWork())


FITTING = [(7_500, 2), (1_001, 2), (1_000, 1), (0, 1)]
UNFITTING = [(7_500, 1), (1_001, 1), (1_000, 2), (0, 2)]


@pytest.mark.parametrize(
    ("guidance", "passes", "fits"), [(*pair, True) for pair in FITTING] + [(*pair, False) for pair in UNFITTING]
)
def test_guidance_takes_the_passes_that_are_paid_for(guidance: int, passes: int, fits: bool) -> None:
    raw = codec.encode(but(an_image_private(), guidance=guidance))
    work = ImageWork(guidance_passes=passes)

    if fits:
        check_private(raw, work)
    else:
        with pytest.raises(PrivatePartMismatch):
            check_private(raw, work)


def test_a_text_has_messages_or_a_prompt_and_not_both() -> None:
    check_private(codec.encode(a_text_private()), TextWork())
    check_private(codec.encode(TextPrivate(prompt="Once", salt=a_salt())), TextWork())

    for wrong in (TextPrivate(salt=a_salt()), but(a_text_private(), prompt="Once")):
        with pytest.raises(BadValue):
            check_private(codec.encode(wrong), TextWork())
        with pytest.raises(BadValue):
            read_private(codec.encode(wrong))


@pytest.mark.parametrize(("private", "work"), [(an_image_private(), TextWork()), (a_text_private(), ImageWork())])
def test_a_private_part_of_another_kind_is_refused(private: Any, work: Work) -> None:
    with pytest.raises(BadBody):
        check_private(codec.encode(private), work)


def test_a_private_part_larger_than_the_standard_allows_is_refused_unread() -> None:
    with pytest.raises(TooLarge):
        check_private(b"\xc1" * (MAX_PRIVATE_BYTES + 1), ImageWork())


def test_a_private_part_of_the_largest_size_fits_its_message_and_a_larger_one_has_none() -> None:
    largest = Private(private=bytes(MAX_PRIVATE_BYTES))
    context = session_context(ROOT.public, a_nonce(), 2**64 - 1)

    assert len(seal("private", codec.encode(largest), REQUESTER, context).raw) <= Private.MAX_BYTES
    assert codec.decode(codec.encode(largest), Private) == largest
    with pytest.raises(BadBody):
        codec.decode(codec.encode(Private(private=bytes(MAX_PRIVATE_BYTES + 1))), Private)


def test_a_private_part_is_read_as_the_kind_that_it_says() -> None:
    for private in PRIVATE_PARTS.values():
        assert read_private(codec.encode(private)) == private
    wrong: list[Any] = [{}, {"kind": "sound"}, {"kind": "text"}, []]
    for value in wrong:
        with pytest.raises(BadBody):
            read_private(msgpack.packb(value))


SALT = bytes(32)
IMAGE_WORK: dict[str, Any] = {"kind": "image"}
TEXT_WORK: dict[str, Any] = {"kind": "text"}
PUBLIC: dict[str, Any] = {"work": IMAGE_WORK}
IMAGE: dict[str, Any] = {"kind": "image", "prompt": "", "salt": SALT}
TEXT: dict[str, Any] = {"kind": "text", "prompt": "x", "salt": SALT}

OUT_OF_RANGE_WORK: list[tuple[dict[str, Any], str, list[Any]]] = [
    (IMAGE_WORK, "width", [8, 20, 4104, -8, "512"]),
    (IMAGE_WORK, "height", [0, 4104]),
    (IMAGE_WORK, "steps", [0, 501]),
    (IMAGE_WORK, "guidance_passes", [0, 3]),
    (IMAGE_WORK, "extras", [[""], ["x"] * 17, ["x" * 41], "x"]),
    (IMAGE_WORK, "kind", ["sound", 1]),
    (TEXT_WORK, "max_tokens", [0, 32_769]),
    (TEXT_WORK, "context_tokens", [15, 1_048_577]),
]
OUT_OF_RANGE: list[tuple[type[Any], dict[str, Any], str, list[Any]]] = [
    (PublicPart, PUBLIC, "n", [0, 65, True]),
    (PublicPart, PUBLIC, "models", [[""], ["x"] * 33, ["x" * 121], None]),
    (PublicPart, PUBLIC, "share", [1, "yes"]),
    (PublicPart, PUBLIC, "flags", [["x"] * 17, [""]]),
    (PublicPart, PUBLIC, "max_price", [-1]),
    (ImagePrivate, IMAGE, "prompt", ["x" * 100_001, b"x"]),
    (ImagePrivate, IMAGE, "seed", [-1, 2**53]),
    (ImagePrivate, IMAGE, "guidance", [-1, 100_001]),
    (ImagePrivate, IMAGE, "sampler", ["x" * 41]),
    (ImagePrivate, IMAGE, "salt", [bytes(31), bytes(33)]),
    (TextPrivate, TEXT, "stop", [[""], ["x"] * 17, ["x" * 201]]),
    (TextPrivate, TEXT, "temperature", [-1, 5_001]),
    (TextPrivate, TEXT, "top_p", [-1, 1_001]),
    (TextPrivate, TEXT, "top_k", [-1, 1_001]),
    (TextPrivate, TEXT, "min_p", [-1, 1_001]),
    (TextPrivate, TEXT, "repeat_penalty", [-1, 5_001]),
    (TextPrivate, TEXT, "seed", [-1, 2**53]),
    (TextPrivate, TEXT, "messages", [[{"role": "tool", "content": ""}], [{"role": "user"}]]),
]
CASES = [
    *((PublicPart, {"work": work | {name: value}}) for work, name, values in OUT_OF_RANGE_WORK for value in values),
    *((of, fields | {name: value}) for of, fields, name, values in OUT_OF_RANGE for value in values),
]


@pytest.mark.parametrize(("of", "fields"), CASES, ids=range(len(CASES)))
def test_a_value_outside_its_range_is_refused(of: type[Any], fields: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as caught:
        codec.decode(msgpack.packb(fields), of)

    assert caught.value.code == "bad_body"


def test_the_filter_reads_every_field_through_which_words_can_come() -> None:
    for private in PRIVATE_PARTS.values():
        words = list(texts_of(private))
        numbers_and_names = {"salt", "sampler"}
        for name in private.__struct_fields__:
            value = getattr(private, name)
            if isinstance(value, str) and name not in numbers_and_names:
                assert value in words
            for item in value if isinstance(value, tuple) else ():
                assert (item if isinstance(item, str) else item.content) in words


def test_a_kind_is_named() -> None:
    assert [kind_of(work) for work in (ImageWork(), TextWork())] == ["image", "text"]


def test_the_output_digest_binds_salt_order_type_and_content() -> None:
    one, other = Artifact.of("image/png", b"1"), Artifact.of("image/png", b"2")
    digests = [
        output_digest(a_salt(), [one, other]),
        output_digest(a_salt(), [other, one]),
        output_digest(a_salt(), [one]),
        output_digest(a_salt(), []),
        output_digest(a_salt(9), [one, other]),
        output_digest(a_salt(), [Artifact.of("image/jpeg", b"1"), other]),
    ]

    assert len(set(digests)) == len(digests)


def test_a_commitment_binds_where_its_parts_begin() -> None:
    assert commitment(a_salt(), b"ab", b"c") != commitment(a_salt(), b"a", b"bc")
    assert commitment(a_salt(), b"abc") != commitment(a_salt(), b"abc", b"")


def test_salts_are_fresh() -> None:
    assert new_salt() != new_salt()
    assert len(new_salt()) == 32
