"""Frames of the direct stream: the same whatever the pieces in which the bytes come."""

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import codec
from protocol.errors import Malformed, TooLarge
from protocol.frames import (
    CHUNK_BYTES,
    MAX_FRAME_BYTES,
    Alive,
    Chunk,
    Failed,
    Final,
    Frame,
    FrameReader,
    OpenBody,
    Preview,
    Progressed,
    Start,
    Text,
    decode_frame,
    encode_frame,
)

numbers = st.integers(0, 2**40)
frames = st.one_of(
    st.builds(Text, numbers, st.text()),
    st.builds(Start, numbers, st.text(), numbers),
    st.builds(Chunk, numbers, st.binary()),
    st.builds(Final, numbers, st.binary(), st.sampled_from(["stop", "length", "cancelled"]), st.binary()),
    st.builds(Progressed, numbers, numbers),
    st.builds(Preview, st.binary()),
    st.builds(Failed, st.text(), st.text()),
    st.just(Alive()),
)


@given(sent=st.lists(frames, max_size=8), data=st.data())
def test_any_split_of_the_bytes_gives_the_same_frames(sent: list[Frame], data: st.DataObject) -> None:
    raw = b"".join(encode_frame(frame) for frame in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=12)))
    reader = FrameReader()

    got = [
        frame for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True) for frame in reader.feed(raw[start:end])
    ]

    assert got == sent


@given(frame=frames)
def test_a_frame_that_has_not_come_whole_is_not_given_out(frame: Frame) -> None:
    raw = encode_frame(frame)
    reader = FrameReader()

    for place in range(len(raw) - 1):
        assert list(reader.feed(raw[place : place + 1])) == []
    assert list(reader.feed(raw[-1:])) == [frame]


def test_a_reader_that_stops_half_way_goes_on_where_it_stopped() -> None:
    sent: list[Frame] = [Text(0, "a"), Text(1, "b"), Text(2, "c")]
    reader = FrameReader()
    feed = reader.feed(b"".join(encode_frame(frame) for frame in sent))

    assert next(feed) == sent[0]
    feed.close()  # type: ignore[attr-defined]
    assert list(reader.feed(b"")) == sent[1:]


def test_a_frame_of_the_largest_size_passes_and_one_byte_more_does_not() -> None:
    overhead = len(codec.encode(Chunk(0, bytes(CHUNK_BYTES)))) - CHUNK_BYTES
    largest = Chunk(0, bytes(MAX_FRAME_BYTES - overhead))

    assert list(FrameReader().feed(encode_frame(largest))) == [largest]
    with pytest.raises(TooLarge):
        encode_frame(Chunk(0, largest.content + b"x"))


def test_an_oversize_frame_is_refused_by_its_length_alone() -> None:
    with pytest.raises(TooLarge):
        list(FrameReader().feed((MAX_FRAME_BYTES + 1).to_bytes(4, "big")))


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        "text",
        ["unknown", 0],
        ["text"],
        ["text", 0],
        ["text", "0", "a"],
        ["chunk", 0, "text"],
        ["final", 0, b"", "stop"],
        ["progress", 1, None],
    ],
    ids=str,
)
def test_what_is_no_frame_is_malformed(value: object) -> None:
    with pytest.raises(Malformed):
        decode_frame(msgpack.packb(value))


@pytest.mark.parametrize(
    "value",
    [
        ["chunk", 2**63, b"a"],
        ["chunk", 1.0, b"a"],
        ["chunk", True, b"a"],
        ["chunk", 0, "a"],
        ["chunk", 0, b"a", 0.5],
        ["chunk", 0, b"a", {"news": 1.5}],
        ["chunk", 0, b"a", msgpack.ExtType(5, b"x")],
    ],
    ids=str,
)
def test_a_chunk_is_held_to_the_strict_form_like_all_frames(value: object) -> None:
    with pytest.raises(Malformed):
        decode_frame(msgpack.packb(value))


@given(frame=st.builds(Chunk, st.integers(-(2**63), 2**64 - 1), st.binary(max_size=40)), data=st.data())
def test_a_chunk_is_taken_only_if_the_strict_check_takes_it(frame: Chunk, data: st.DataObject) -> None:
    raw = bytearray(msgpack.packb(["chunk", frame.number, frame.content]))
    place = data.draw(st.integers(0, len(raw)))
    raw[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    try:
        decode_frame(bytes(raw))
    except Malformed:
        return

    codec.check_strict(bytes(raw))


def test_elements_of_a_later_version_are_ignored() -> None:
    assert decode_frame(msgpack.packb(["text", 0, "a", "news"])) == Text(0, "a")
    assert codec.decode(msgpack.packb([b"o", b"p", "q", "news"]), OpenBody) == OpenBody(b"o", b"p", "q")


def test_an_opening_may_leave_out_private_part_and_prefix() -> None:
    assert codec.decode(msgpack.packb([b"o"]), OpenBody) == OpenBody(b"o")
