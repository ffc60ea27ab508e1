"""Proofs over a tree whose leaves lie in a database: the roots of whole blocks are remembered, the rest is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from protocol.merkle import node_hash, root_of

#: Leaves of a block: a proof reads and hashes two blocks at most, whatever the size of the ledger.
BLOCK_BITS = 10
BLOCK = 1 << BLOCK_BITS

#: Hashes of the leaves from one number up to another, which is not among them.
Read = Callable[[int, int], Sequence[bytes]]


class Nodes:
    """The upper part of one append-only tree. All that is asked for lies below a size that it has grown to."""

    def __init__(self) -> None:
        self._levels: list[list[bytes]] = [[]]

    def grow(self, size: int, read: Read) -> None:
        """Learn of all whole blocks among the first `size` leaves."""
        for block in range(len(self._levels[0]), size >> BLOCK_BITS):
            self._add(root_of(read(block << BLOCK_BITS, (block + 1) << BLOCK_BITS)))

    def _add(self, node: bytes) -> None:
        for level in self._levels:
            level.append(node)
            if len(level) % 2:
                return
            node = node_hash(level[-2], node)
        self._levels.append([node])

    def root(self, start: int, stop: int, read: Read) -> bytes:
        """The root over these leaves, of which there are some; `start` is where a subtree of a tree begins."""
        count = stop - start
        level = count.bit_length() - 1 - BLOCK_BITS
        if level >= 0 and count == 1 << (level + BLOCK_BITS):
            return self._levels[level][start // count]
        if count <= BLOCK:
            return root_of(read(start, stop))
        middle = start + _split(count)
        return node_hash(self.root(start, middle, read), self.root(middle, stop, read))

    def peaks(self, size: int, read: Read) -> list[bytes]:
        """The roots of the perfect subtrees that make up the tree of the first `size` leaves, the largest first."""
        found, start = [], 0
        for level in reversed(range(size.bit_length())):
            count = 1 << level
            if size & count:
                found.append(self.root(start, start + count, read))
                start += count
        return found

    def inclusion(self, index: int, size: int, read: Read) -> list[bytes]:
        """The audit path of a leaf (RFC 9162, 2.1.3), from the leaf up; raises `IndexError` if there is none."""
        if not 0 <= index < size:
            raise IndexError(f"leaf {index} of a tree of {size}")
        path, start, stop = [], 0, size
        while stop - start > 1:
            middle = start + _split(stop - start)
            if index < middle:
                path.append(self.root(middle, stop, read))
                stop = middle
            else:
                path.append(self.root(start, middle, read))
                start = middle
        return path[::-1]

    def consistency(self, earlier: int, size: int, read: Read) -> list[bytes]:
        """The proof that the first `earlier` leaves are a prefix of the first `size` (RFC 9162, 2.1.4)."""
        if not 0 < earlier < size:
            return []
        path, start, stop, whole = [], 0, size, True
        while stop != earlier:
            middle = start + _split(stop - start)
            if earlier <= middle:
                path.append(self.root(middle, stop, read))
                stop = middle
            else:
                path.append(self.root(start, middle, read))
                start, whole = middle, False
        if not whole:
            path.append(self.root(start, stop, read))
        return path[::-1]


def _split(count: int) -> int:
    """The largest power of two below `count`."""
    return 1 << ((count - 1).bit_length() - 1)
