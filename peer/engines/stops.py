"""Texts that end an answer and are no part of it, found however they fall over the pieces."""

from __future__ import annotations

from collections.abc import Sequence


class StopFilter:
    """Lets a text through piece by piece, holding back what may be the beginning of a stop text.

    shown: what came before and cannot be taken back; a stop text may begin in it.
    """

    def __init__(self, stops: Sequence[str], shown: str = "") -> None:
        self._stops = [stop for stop in stops if stop]
        longest = max(map(len, self._stops), default=0)
        self._shown = shown[max(0, len(shown) - longest + 1) :] if longest > 1 else ""
        self._held = ""
        self.stopped = False

    def feed(self, piece: str) -> str:
        """What of this piece, and of what was held back, is certain to be part of the answer.

        Once a stop text is complete, `stopped` is true and nothing more comes.
        """
        if self.stopped:
            return ""
        text = self._shown + self._held + piece
        end = self._first_end(text)
        if end is not None:
            self.stopped = True
            return self._take(text, text[:end])
        return self._take(text, text[: len(text) - self._pending(text)])

    def rest(self) -> str:
        """What was held back, when no more pieces come."""
        held, self._held = self._held, ""
        return "" if self.stopped else held

    def _first_end(self, text: str) -> int | None:
        """Where the answer ends, if a stop text is in it: the one that was complete first, so that it does not matter
        how the text was cut into pieces."""
        found = [
            (at + len(stop), at)
            for stop in self._stops
            if (at := text.find(stop, max(0, len(self._shown) - len(stop) + 1))) >= 0
        ]
        return min(found)[1] if found else None

    def _pending(self, text: str) -> int:
        """The length of the longest end of `text` that begins a stop text."""
        longest = max(map(len, self._stops), default=1)
        for length in range(min(len(text), longest - 1), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stops):
                return length
        return 0

    def _take(self, text: str, safe: str) -> str:
        already = len(self._shown)
        out = safe[already:]
        self._held = text[max(already, len(safe)) :]
        longest = max(map(len, self._stops), default=1)
        told = text[: max(already, len(safe))]
        self._shown = told[len(told) - min(len(told), longest - 1) :]
        return out
