"""The digest taken beside the stream: of the same bytes, whatever the pieces."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from peer.hashing import MAX_PARTS, PART_BYTES, PART_PIECES, FileDigest


@given(pieces=st.lists(st.binary(max_size=8), max_size=3 * PART_PIECES))
def test_the_pieces_make_one_digest_in_their_order(pieces: list[bytes]) -> None:
    digest = FileDigest()
    for piece in pieces:
        digest.add(piece)

    assert digest.digest() == hashlib.sha256(b"".join(pieces)).digest()


def test_more_parts_than_may_wait_are_taken_too() -> None:
    pieces = [bytes([number]) * (PART_BYTES // 2 + 1) for number in range(4 * MAX_PARTS)]
    digest = FileDigest()
    for piece in pieces:
        digest.add(piece)

    assert digest.digest() == hashlib.sha256(b"".join(pieces)).digest()


def test_two_files_at_once_do_not_mix() -> None:
    one, other = FileDigest(), FileDigest()
    for _ in range(3):
        one.add(b"1" * PART_BYTES)
        other.add(b"2" * PART_BYTES)

    assert one.digest() == hashlib.sha256(b"1" * 3 * PART_BYTES).digest()
    assert other.digest() == hashlib.sha256(b"2" * 3 * PART_BYTES).digest()
