"""The Merkle tree against the plain recursion of RFC 6962, and proofs against everything that is almost one."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.merkle import (
    EMPTY_ROOT,
    Frontier,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)

trees = st.integers(1, 70).map(lambda size: [leaf_hash(number.to_bytes(2, "big")) for number in range(size)])


def naive_root(entries: list[bytes]) -> bytes:
    """MTH of RFC 6962, 2.1, word by word, over the entries themselves."""
    if not entries:
        return hashlib.sha256().digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    middle = 1
    while middle * 2 < len(entries):
        middle *= 2
    return hashlib.sha256(b"\x01" + naive_root(entries[:middle]) + naive_root(entries[middle:])).digest()


def flipped(digest: bytes) -> bytes:
    return bytes([digest[0] ^ 1]) + digest[1:]


@given(entries=st.lists(st.binary(max_size=9), max_size=70))
def test_the_frontier_gives_the_root_of_the_plain_recursion(entries: list[bytes]) -> None:
    assert root_of([leaf_hash(entry) for entry in entries]) == naive_root(entries)


def test_an_empty_tree_has_the_hash_of_nothing() -> None:
    assert Frontier().root() == EMPTY_ROOT == hashlib.sha256(b"").digest()


def test_a_leaf_is_no_node() -> None:
    left, right = leaf_hash(b"1"), leaf_hash(b"2")

    assert leaf_hash(left + right) != node_hash(left, right)


@given(size=st.integers(0, 300))
def test_a_frontier_stays_small(size: int) -> None:
    frontier = Frontier()
    for number in range(size):
        frontier = frontier.append(leaf_hash(number.to_bytes(2, "big")))

    assert frontier.size == size
    assert len(frontier.peaks) == size.bit_count()


@given(leaves=trees, data=st.data())
def test_inclusion_is_proven_for_this_leaf_at_this_place_only(leaves: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(leaves) - 1))
    size, root = len(leaves), root_of(leaves)
    proof = inclusion_proof(leaves, index)

    assert verify_inclusion(leaves[index], index, size, proof, root)
    assert len(proof) <= (size - 1).bit_length()
    assert not verify_inclusion(flipped(leaves[index]), index, size, proof, root)
    assert not verify_inclusion(leaves[index], index, size, proof, flipped(root))
    assert not verify_inclusion(leaves[index], index, size, [*proof, root], root)
    for other in range(size):
        assert verify_inclusion(leaves[index], other, size, proof, root) == (other == index)
    for place in range(len(proof)):
        assert not verify_inclusion(leaves[index], index, size, proof[:place] + proof[place + 1 :], root)
        changed = [*proof[:place], flipped(proof[place]), *proof[place + 1 :]]
        assert not verify_inclusion(leaves[index], index, size, changed, root)


@pytest.mark.parametrize(("index", "size"), [(-1, 1), (1, 1), (0, 0), (5, 3), (0, -1)])
def test_no_place_outside_the_tree_is_proven(index: int, size: int) -> None:
    leaf = leaf_hash(b"")

    assert not verify_inclusion(leaf, index, size, [], leaf)


@pytest.mark.parametrize(("size", "index"), [(0, 0), (3, 3), (3, -1)])
def test_a_proof_for_no_leaf_is_not_made(size: int, index: int) -> None:
    with pytest.raises(IndexError):
        inclusion_proof([leaf_hash(b"")] * size, index)


@given(leaves=trees, data=st.data())
def test_consistency_is_proven_between_these_two_trees_only(leaves: list[bytes], data: st.DataObject) -> None:
    earlier = data.draw(st.integers(1, len(leaves)))
    size, root, old = len(leaves), root_of(leaves), root_of(leaves[:earlier])
    proof = consistency_proof(leaves, earlier)

    assert verify_consistency(earlier, old, size, root, proof)
    assert not verify_consistency(earlier, flipped(old), size, root, proof)
    assert not verify_consistency(earlier, old, size, flipped(root), proof)
    assert not verify_consistency(earlier, old, size, root, [*proof, root])
    for place in range(len(proof)):
        assert not verify_consistency(earlier, old, size, root, proof[:place] + proof[place + 1 :])
        changed = [*proof[:place], flipped(proof[place]), *proof[place + 1 :]]
        assert not verify_consistency(earlier, old, size, root, changed)


@given(leaves=trees, data=st.data())
def test_a_rewritten_past_has_no_proof(leaves: list[bytes], data: st.DataObject) -> None:
    earlier = data.draw(st.integers(1, len(leaves)))
    place = data.draw(st.integers(0, earlier - 1))
    rewritten = [*leaves[:place], flipped(leaves[place]), *leaves[place + 1 :]]
    proof = consistency_proof(rewritten, earlier)

    assert not verify_consistency(earlier, root_of(leaves[:earlier]), len(leaves), root_of(rewritten), proof)


def test_every_tree_continues_the_empty_one_and_itself() -> None:
    leaves = [leaf_hash(b"1"), leaf_hash(b"2"), leaf_hash(b"3")]
    root = root_of(leaves)

    assert verify_consistency(0, EMPTY_ROOT, 3, root, consistency_proof(leaves, 0))
    assert verify_consistency(3, root, 3, root, consistency_proof(leaves, 3))
    assert not verify_consistency(0, root, 3, root, [])
    assert not verify_consistency(-1, EMPTY_ROOT, 3, root, [])
    assert not verify_consistency(3, root, 2, root_of(leaves[:2]), [])
    assert not verify_consistency(2, root_of(leaves[:2]), 3, root, [])
