"""Where an audit can begin but at the first entry: at an archive's end, by the balances that the horde signed there."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

import msgspec

from peer.audit.horde import Horde
from peer.audit.source import Source
from protocol import documents
from protocol.errors import Refusal
from protocol.merkle import Frontier
from protocol.public import End

DAY_SECONDS = 86_400


class BadOpening(Exception):
    """What is shown is not what the horde signed for, or not by the horde; the text says what."""


@dataclass(frozen=True)
class Opening:
    """Tree, balances, epoch and day at the end of an archive. They are what the horde signed for; what made them so
    was not read."""

    tree: Frontier
    balances: tuple[tuple[int, int], ...]
    epoch: int
    day: int


def choose(ends: Sequence[End], wanted: int | date | None) -> int:
    """The last end of an archive that is not behind an entry, or was on or before a day (UTC); 0 if there is none."""
    if wanted is None:
        return 0
    if isinstance(wanted, int):
        return max((end.size for end in ends if end.size <= wanted), default=0)
    day = int(datetime(wanted.year, wanted.month, wanted.day, tzinfo=UTC).timestamp()) // DAY_SECONDS
    return max((end.size for end in ends if end.day <= day), default=0)


async def read_opening(source: Source, horde: Horde, size: int) -> Opening:
    """What stands at the end of the archive there; raises `BadOpening` if it is not what the horde signed for."""
    shown = await source.balances(size)
    what = f"the balances at entry {size}"
    try:
        envelope, said = horde.open(shown.document, documents.Balances)
    except Refusal as error:
        raise BadOpening(f"{what} are not signed by this horde: {error}") from error
    tree = Frontier(said.size, shown.peaks)
    if hashlib.sha256(msgspec.msgpack.encode(shown.balances)).digest() != said.balances:
        raise BadOpening(f"{what} are others than those that were signed for")
    if said.size != size or len(shown.peaks) != size.bit_count() or tree.root() != said.root:
        raise BadOpening(f"{what} are shown with another tree than the one that was signed for")
    if horde.is_cut(envelope.key, said.size - 1):
        raise BadOpening(f"{what} are of before a restore, which cut them")
    return Opening(tree, shown.balances, said.epoch, said.time // (DAY_SECONDS * 1000))
