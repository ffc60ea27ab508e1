"""The append-only Merkle tree of RFC 6962 (and 9162): leaves and nodes hashed apart, proofs made and checked.

A tree of n leaves is kept as its frontier: the roots of the perfect subtrees that make it up, largest first. So an
append costs O(log n) and the root of a million entries needs twenty hashes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(leaf: bytes) -> bytes:
    """SHA-256 of 0x00 and the leaf's bytes."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256 of 0x01 and both children's hashes."""
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True)
class Frontier:
    """A tree by its size and the roots of its perfect subtrees, largest first."""

    size: int = 0
    peaks: tuple[bytes, ...] = ()

    def append(self, leaf: bytes) -> Frontier:
        """The tree with one more leaf, given by its hash."""
        peaks = [*self.peaks, leaf]
        size = self.size
        while size & 1:
            right = peaks.pop()
            peaks.append(node_hash(peaks.pop(), right))
            size >>= 1
        return Frontier(self.size + 1, tuple(peaks))

    def root(self) -> bytes:
        """The tree's root hash."""
        if not self.peaks:
            return EMPTY_ROOT
        root = self.peaks[-1]
        for peak in reversed(self.peaks[:-1]):
            root = node_hash(peak, root)
        return root


def root_of(leaves: Sequence[bytes]) -> bytes:
    """The root over leaf hashes."""
    level = list(leaves)
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)
        above = [hashlib.sha256(b"\x01" + left + right).digest() for left, right in pairs]
        # The one without a neighbour is the root of the smaller side further up.
        level = above if len(level) % 2 == 0 else [*above, level[-1]]
    return level[0] if level else EMPTY_ROOT


def _split(size: int) -> int:
    """The largest power of two below `size`."""
    return 1 << ((size - 1).bit_length() - 1)


def inclusion_proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The audit path of leaf `index` (RFC 6962, 2.1.1), from the leaf up; raises `IndexError` if there is none."""
    if not 0 <= index < len(leaves):
        raise IndexError(f"leaf {index} of a tree of {len(leaves)}")
    if len(leaves) == 1:
        return []
    middle = _split(len(leaves))
    if index < middle:
        return [*inclusion_proof(leaves[:middle], index), root_of(leaves[middle:])]
    return [*inclusion_proof(leaves[middle:], index - middle), root_of(leaves[:middle])]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether `proof` shows leaf hash `leaf` at `index` of the tree of `size` leaves (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    node, last, hashed = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            hashed = node_hash(sibling, hashed)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            hashed = node_hash(hashed, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and hashed == root


def consistency_proof(leaves: Sequence[bytes], earlier: int) -> list[bytes]:
    """The proof that the first `earlier` leaves are a prefix of this tree (RFC 6962, 2.1.2)."""
    return _subproof(leaves, earlier, whole=True) if 0 < earlier < len(leaves) else []


def _subproof(leaves: Sequence[bytes], earlier: int, *, whole: bool) -> list[bytes]:
    if earlier == len(leaves):
        return [] if whole else [root_of(leaves)]
    middle = _split(len(leaves))
    if earlier <= middle:
        return [*_subproof(leaves[:middle], earlier, whole=whole), root_of(leaves[middle:])]
    return [*_subproof(leaves[middle:], earlier - middle, whole=False), root_of(leaves[:middle])]


def verify_consistency(earlier: int, earlier_root: bytes, size: int, root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether `proof` shows that the tree of `size` continues the one of `earlier` leaves (RFC 9162, 2.1.4.2)."""
    if not 0 <= earlier <= size:
        return False
    if earlier in (0, size):
        return not proof and earlier_root == (root if earlier else EMPTY_ROOT)
    if not proof:
        return False
    path = list(proof)
    if earlier & (earlier - 1) == 0:
        path.insert(0, earlier_root)
    node, last = earlier - 1, size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and old == earlier_root and new == root
