"""What one connection is waited for, and for how long: times are arguments here."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracker.pace import (
    GOODBYE_SECONDS,
    LOOK_SECONDS,
    MESSAGE_SECONDS,
    STALL_SECONDS,
    Heads,
    Pace,
)
from tracker.web import CLOSE_SECONDS, HEAD_SECONDS, HURRY_SECONDS

BINARY, CONTINUATION, PING = 0x2, 0x0, 0x9


def frame(size, *, opcode=BINARY, last=True, masked=True):
    head = bytes([opcode | (0x80 if last else 0)])
    mask = 0x80 if masked else 0
    if size < 126:
        head += bytes([mask | size])
    elif size < 2**16:
        head += bytes([mask | 126]) + size.to_bytes(2, "big")
    else:
        head += bytes([mask | 127]) + size.to_bytes(8, "big")
    return head + (b"mask" if masked else b"") + bytes(size)


def overdue(pace, now, *, waiting=0, reads=True, closing=False):
    return pace.overdue(now, waiting=waiting, reads=reads, closing=closing)


FRAMES = st.lists(
    st.tuples(st.sampled_from([0, 1, 125, 126, 127, 70_000]), st.booleans(), st.booleans(), st.booleans()), max_size=8
)


@given(frames=FRAMES, seed=st.integers(0, 2**32))
def test_messages_are_counted_however_their_bytes_are_cut(frames, seed):
    chance, heads, raw, largest, messages, size, more = random.Random(seed), Heads(), b"", 0, 0, 0, False
    for length, control, last, masked in frames:
        if control:
            raw += frame(min(length, 125), opcode=PING, masked=masked)
            continue
        raw += frame(length, opcode=CONTINUATION if more else BINARY, last=last, masked=masked)
        size = length + (size if more else 0)
        largest, messages, more = max(largest, size), messages + last, not last
    found = 0
    while raw:
        cut = chance.randint(1, len(raw))
        found = max(found, heads.feed(raw[:cut]))
        raw = raw[cut:]

    assert (found, heads.ended) == (largest, messages)
    assert heads.unfinished == more


@given(st.lists(st.binary(max_size=40)))
def test_anything_can_be_fed_and_nothing_is_kept_of_it(chunks):
    heads = Heads()
    for chunk in chunks:
        heads.feed(chunk)
        assert len(heads._head) < 14


def test_a_size_counts_as_soon_as_it_is_named():
    assert Heads().feed(frame(2**20)[:14]) == 2**20


def test_a_message_that_does_not_end_is_overdue_whatever_is_said_in_between():
    pace = Pace()
    pace.upgraded()
    pace.heard(frame(10, last=False), 0)
    for second in range(int(MESSAGE_SECONDS)):
        assert not overdue(pace, second)
        pace.heard(frame(0, opcode=PING), second)
        pace.heard(frame(1, opcode=CONTINUATION, last=False), second)
    assert "not complete" in overdue(pace, MESSAGE_SECONDS)


def test_a_message_has_its_time_from_the_first_byte_of_its_head():
    pace, raw = Pace(), frame(70_000)
    pace.upgraded()
    for second in range(int(MESSAGE_SECONDS)):
        pace.heard(raw[2 * second : 2 * second + 2], second)  # 14 bytes of it are the head
        assert not overdue(pace, second)
    assert "not complete" in overdue(pace, MESSAGE_SECONDS)


def test_a_message_has_no_more_time_for_its_last_frame():
    pace = Pace()
    pace.upgraded()
    pace.heard(frame(10, last=False), 0)
    pace.heard(frame(10, opcode=CONTINUATION)[:-1], MESSAGE_SECONDS - 1)
    assert "not complete" in overdue(pace, MESSAGE_SECONDS)


def test_messages_that_follow_each_other_without_a_pause_are_not_overdue():
    pace = Pace()
    pace.upgraded()
    pace.heard(frame(10)[:5], 0)
    for second in range(100):
        pace.heard(frame(10)[5:] + frame(10)[:5], second)
        assert not overdue(pace, second)
    assert overdue(pace, 99 + MESSAGE_SECONDS)


def test_what_we_do_not_read_is_not_held_against_the_peer():
    pace = Pace()
    pace.upgraded()
    pace.heard(frame(10)[:5], 0)
    assert not overdue(pace, 100, reads=False)
    assert not overdue(pace, 100 + MESSAGE_SECONDS - 1)
    assert overdue(pace, 100 + MESSAGE_SECONDS)


def test_before_the_upgrade_bytes_are_no_frames():
    pace = Pace()
    assert pace.heard(b"GET / HTTP/1.1", 0) == 0
    assert not overdue(pace, 1000)


def test_a_reader_is_cut_off_if_it_takes_nothing_and_not_if_it_is_slow():
    pace = Pace()
    pace.paused(100, 0)
    for second in range(50):
        assert not overdue(pace, second, waiting=99 - second)
    assert "took nothing" in overdue(pace, 49 + STALL_SECONDS, waiting=50)
    pace.resumed()
    assert not overdue(pace, 1000, waiting=50)


def test_a_connection_that_was_closed_has_to_go():
    pace = Pace()
    assert not overdue(pace, 5, closing=True)
    assert "did not go" in overdue(pace, 5 + GOODBYE_SECONDS, closing=True)


@pytest.mark.parametrize("seconds", [MESSAGE_SECONDS, STALL_SECONDS, HEAD_SECONDS, CLOSE_SECONDS])
def test_whatever_stands_still_is_gone_within_ten_seconds(seconds):
    assert seconds + LOOK_SECONDS <= 10
    assert HURRY_SECONDS < 1
