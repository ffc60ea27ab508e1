"""Bytes as a script: how one input of a fuzzer becomes several steps, so that it can reach behind the first check.

Any bytes are a script, and what a script needs beyond its end is zero: nothing here ever fails.
"""

from __future__ import annotations

from collections.abc import Iterable

#: A piece is at most so long.
MAX_PIECE = 0xFFFF
#: Steps of one script; what comes behind them is left unread.
MAX_STEPS = 48


class Script:
    """Reads one input from its beginning."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._at = 0

    @property
    def more(self) -> bool:
        """Whether anything is left."""
        return self._at < len(self._raw)

    def number(self, below: int) -> int:
        """The next byte as a number in this range."""
        value = self._raw[self._at] if self.more else 0
        self._at += 1
        return value % below

    def piece(self) -> bytes:
        """The next bytes, behind their length in two bytes."""
        size = int.from_bytes(self._raw[self._at : self._at + 2], "big")
        found = self._raw[self._at + 2 : self._at + 2 + size]
        self._at += 2 + size
        return found

    def changed(self, content: bytes) -> bytes:
        """`content` with up to three places changed: bytes replaced, put in or cut out."""
        for _ in range(self.number(4)):
            at = int.from_bytes(bytes([self.number(256), self.number(256)]), "big") % (len(content) + 1)
            match self.number(3):
                case 0:
                    content = content[:at] + bytes([self.number(256)]) + content[at + 1 :]
                case 1:
                    content = content[:at] + self.piece() + content[at:]
                case _:
                    content = content[:at] + content[at + 1 + self.number(16) :]
        return content


def piece(content: bytes) -> bytes:
    """`content` as `Script.piece` reads it."""
    return len(content[:MAX_PIECE]).to_bytes(2, "big") + content[:MAX_PIECE]


def pieces(contents: Iterable[bytes]) -> bytes:
    """A script that holds nothing but pieces."""
    return b"".join(map(piece, contents))
