"""SHA-256 of a file while it comes: in a thread of its own, since the one that decrypts the stream has no time left.

OpenSSL lets go of the interpreter's lock meanwhile, so that on a machine with a second core the digest costs a stream
next to nothing.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

#: So much is handed over at once, or so many pieces, however small. A file that never reaches either is done here and
#: now, which is quicker than handing over.
PART_BYTES = 1024 * 1024
PART_PIECES = 64
#: So many parts may wait, or be under way; beyond that whoever brings more waits too, and memory stays bounded.
MAX_PARTS = 8

#: One thread, begun with the first part, for all files: it does more than a gigabyte a second, and keeps their order.
_THREAD = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sha256")


class FileDigest:
    """The SHA-256 of all that `add` was given, in its order."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self._pieces: list[bytes] = []
        self._bytes = 0
        self._parts: deque[Future[None]] = deque()

    def add(self, piece: bytes) -> None:
        """The next bytes; they are looked at later, and must not change."""
        self._pieces.append(piece)
        self._bytes += len(piece)
        if self._bytes < PART_BYTES and len(self._pieces) < PART_PIECES:
            return
        if len(self._parts) >= MAX_PARTS:
            self._parts.popleft().result()
        self._parts.append(_THREAD.submit(self._update, self._pieces))
        self._pieces, self._bytes = [], 0

    def digest(self) -> bytes:
        """Wait for what is still under way; at most `MAX_PARTS` parts."""
        while self._parts:
            self._parts.popleft().result()
        self._update(self._pieces)
        self._pieces, self._bytes = [], 0
        return self._sha256.digest()

    def _update(self, pieces: Sequence[bytes]) -> None:
        for piece in pieces:
            self._sha256.update(piece)
