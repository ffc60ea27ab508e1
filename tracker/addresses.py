"""Whom limits and fairness count where there is no account: address blocks, known by a hash that nobody can undo.

A block of addresses is hashed with a key that is drawn at random by each process for each day (UTC) and is never
written down. What is stored or logged is that hash, so that neither the tracker's files nor its operator can tell from
where anybody asked, nor whether two days' visitors are one. Jobs under way keep the hash that they came with.
"""

from __future__ import annotations

import secrets
from hashlib import blake2b

from tracker.ledger import day_of

KEY_BYTES = 32
HASH_BYTES = 12

#: So every such origin begins, and no account's number does.
MARK = "~"


class Blocks:
    """Hashes of address blocks, of one process."""

    def __init__(self) -> None:
        self._day = -1
        self._key = b""

    def origin(self, block: str, now: int) -> str:
        """What stands for this block today."""
        if (day := day_of(now)) != self._day:
            self._day, self._key = day, secrets.token_bytes(KEY_BYTES)
        return MARK + blake2b(block.encode(), key=self._key, digest_size=HASH_BYTES).hexdigest()
