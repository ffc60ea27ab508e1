"""Who is here is shown the newest checkpoint on coming, and a newer one every minute. Whoever keeps it can tell later
whether the ledger still goes on from it, and what the peer was paid before that is covered by it.

The same bytes go to everybody, as they were signed: no job costs more by it.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

EVERY_MS = 60_000


class Witness(Protocol):
    """A connection, as far as it is shown checkpoints."""

    def hand(self, *envelopes: bytes) -> None:
        """Give documents to the peer."""


class Witnesses:
    """Everybody who is here, in the order in which it is their turn. newest: the checkpoint to be shown."""

    def __init__(self, newest: bytes) -> None:
        self.newest = newest
        self._turns: OrderedDict[Witness, tuple[int, bytes]] = OrderedDict()

    def greet(self, witness: Witness, now: int) -> None:
        """Somebody has come."""
        witness.hand(self.newest)
        self._turns[witness] = now + EVERY_MS, self.newest

    def leave(self, witness: Witness) -> None:
        """Somebody has left, or never said who it is."""
        self._turns.pop(witness, None)

    def tick(self, now: int) -> None:
        """Show a newer checkpoint to those whose turn it is."""
        while self._turns:
            witness, (turn, seen) = next(iter(self._turns.items()))
            if now < turn <= now + EVERY_MS:  # else the clock was set back
                return
            if seen != self.newest:
                witness.hand(self.newest)
            self._turns[witness] = now + EVERY_MS, self.newest
            self._turns.move_to_end(witness)
