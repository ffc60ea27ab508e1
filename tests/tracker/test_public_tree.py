"""Proofs from remembered blocks are those of the plain tree."""

import random

import pytest

from protocol import merkle
from tracker.public.tree import BLOCK, Nodes

SIZE = 3 * BLOCK + 77
LEAVES = [merkle.leaf_hash(number.to_bytes(4, "big")) for number in range(SIZE)]


def read(start: int, stop: int) -> list[bytes]:
    return LEAVES[start:stop]


@pytest.fixture(scope="module")
def nodes() -> Nodes:
    found = Nodes()
    for size in (0, BLOCK - 1, 2 * BLOCK + 1, SIZE):
        found.grow(size, read)
    return found


SIZES = (1, 2, 3, 7, 8, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 500, 3 * BLOCK, SIZE)


@pytest.mark.parametrize("size", SIZES)
def test_roots_and_proofs_are_those_of_the_plain_tree(nodes: Nodes, size: int) -> None:
    root = merkle.root_of(LEAVES[:size])
    some = random.Random(size)

    assert nodes.root(0, size, read) == root
    for index in {0, size - 1, size // 2, some.randrange(size)}:
        assert nodes.inclusion(index, size, read) == merkle.inclusion_proof(LEAVES[:size], index)
    for earlier in {0, 1, size // 2, size - 1, size, some.randrange(size)}:
        proof = nodes.consistency(earlier, size, read)
        assert proof == merkle.consistency_proof(LEAVES[:size], earlier)
        assert merkle.verify_consistency(earlier, merkle.root_of(LEAVES[:earlier]), size, root, proof)


def test_a_proof_reads_two_blocks_at_most(nodes: Nodes) -> None:
    for index in (0, BLOCK + 3, SIZE - 1):
        seen = 0

        def counted(start: int, stop: int) -> list[bytes]:
            nonlocal seen
            seen += stop - start
            return LEAVES[start:stop]

        nodes.inclusion(index, SIZE, counted)
        nodes.consistency(index, SIZE, counted)
        assert seen <= 4 * BLOCK


def test_there_is_no_proof_of_what_is_not_there(nodes: Nodes) -> None:
    with pytest.raises(IndexError):
        nodes.inclusion(5, 5, read)
