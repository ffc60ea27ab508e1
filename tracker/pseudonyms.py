"""The names by which workers know accounts: for each worker another one, which only the tracker can read back.

A worker that shall serve somebody no more, or before others, has to name who that is without learning which account it
is, and two workers that compare notes shall not find that they served the same person. A keyed permutation of one block
does both: without the key it is as good as random, and with it the tracker reads a worker's list back into accounts,
however long, without trying all of them.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from functools import lru_cache
from hashlib import sha256

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

#: Account number and zeros that fill the block; by the zeros it is told from what was made up.
_NUMBER_BYTES = 8
_BLOCK = 16
#: Pseudonyms that are kept, since people ask for more than one job.
_KEPT = 4096


class Pseudonyms:
    """All of them, by the secret that the horde keeps beside its accounts."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self.of = lru_cache(_KEPT)(self._make)
        self._cipher = lru_cache(_KEPT)(self._make_cipher)

    def _make(self, worker: bytes, account: int) -> bytes:
        """By what this worker knows the account; nothing for account 0."""
        if not account:
            return b""
        encryptor = self._cipher(worker).encryptor()
        return encryptor.update(account.to_bytes(_NUMBER_BYTES, "big") + bytes(_BLOCK - _NUMBER_BYTES))

    def read(self, worker: bytes, pseudonyms: Iterable[bytes]) -> frozenset[int]:
        """The accounts that this worker names; what is no pseudonym at this worker is passed over."""
        whole = b"".join(one for one in pseudonyms if len(one) == _BLOCK)
        plain = self._cipher(worker).decryptor().update(whole)
        blocks = [plain[at : at + _BLOCK] for at in range(0, len(plain), _BLOCK)]
        return frozenset(
            int.from_bytes(block[:_NUMBER_BYTES], "big") for block in blocks if not any(block[_NUMBER_BYTES:])
        )

    def _make_cipher(self, worker: bytes) -> Cipher[modes.ECB]:
        key = hmac.digest(self._secret, b"potluck pseudonym " + worker, sha256)
        return Cipher(algorithms.AES(key), modes.ECB())  # noqa: S305 (one block, which is what is wanted)
