"""Receipts come twice: from the worker, and inside the acknowledgement, in either order. Each is checked once."""

from __future__ import annotations

from protocol.envelope import Envelope

#: Receipts that are remembered; the second of a pair comes soon after the first, if at all.
KEPT = 1024


class Checked:
    """Envelopes whose signature held, by all their bytes: nothing less says that it holds again."""

    def __init__(self) -> None:
        self._known: dict[bytes, None] = {}

    def __len__(self) -> int:
        return len(self._known)

    def verify(self, envelope: Envelope) -> None:
        """Check key and signature, unless that was done before for the same bytes; then they are forgotten."""
        if envelope.raw in self._known:
            del self._known[envelope.raw]
            return
        envelope.verify()
        if len(self._known) >= KEPT:
            del self._known[next(iter(self._known))]
        self._known[envelope.raw] = None
