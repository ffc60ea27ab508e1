"""A restore, as far as it is decided without files: whom the root appoints, and what it says of the ledger."""

from __future__ import annotations

from collections.abc import Sequence

from protocol import documents
from protocol.documents import MAX_FORMER, Epoch, Former, Serving
from protocol.envelope import Envelope
from protocol.keys import SigningKey


class TooManyEpochs(Exception):
    """A horde that was restored so often that a delegation cannot name all keys that served."""


def appoint(
    root: SigningKey, serving: bytes, copy: Serving, seen: Sequence[Serving], *, size: int, tree: bytes, now: int
) -> tuple[Envelope, Envelope]:
    """The root's delegation to the new serving key, and its word on the epoch that begins.

    copy: the delegation in the copy, whose ledger has `size` entries and the root hash `tree`. seen: every other one
    that is at hand, for the ledger may have been restored since the copy was made. Versions also follow the clock, so
    that peers take the new one even where those before it are lost.
    """
    known = sorted((copy, *seen), key=lambda one: (one.epoch, one.version))
    number = known[-1].epoch + 1
    version = max(now // 1000, 1 + max(one.version for one in known))
    former = _former(known, size)
    if len(former) > MAX_FORMER:
        raise TooManyEpochs(f"restored more than {MAX_FORMER} times: a delegation names no more former keys")
    delegation = Serving(serving=serving, version=version, epoch=number, former=former)
    epoch = Epoch(number=number, size=size, root=tree, former=copy.serving, time=now)
    return documents.sign(delegation, root, root.public), documents.sign(epoch, root, root.public)


def _former(known: Sequence[Serving], size: int) -> tuple[Former, ...]:
    """Every key that served, in order; of what each entered, a restore has left the least."""
    left: dict[bytes, int] = {}
    for one in known:
        for before in one.former:
            left[before.key] = min(before.entries, left.get(before.key, size))
        left[one.serving] = min(size, left.get(one.serving, size))
    return tuple(Former(key=key, entries=min(entries, size)) for key, entries in left.items())
