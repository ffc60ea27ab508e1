"""How long one connection may stand still, and how far it may go on without ending anything: no sockets, no clock.

What aiohttp leaves open is closed here: a WebSocket message that never ends (each byte of it counts as a sign of life
there), a reader that takes nothing, and a connection that was closed and does not go.
"""

from __future__ import annotations

#: A message that began has to be complete within so many seconds.
MESSAGE_SECONDS = 8.0
#: A reader that takes nothing of what waits for it for so long is cut off.
STALL_SECONDS = 8.0
#: So long a connection may take to go after it was closed.
GOODBYE_SECONDS = 2.0
#: How often a connection is looked at. With the above it is gone within ten seconds.
LOOK_SECONDS = 2.0

_IS_CONTROL = 0x08
_IS_LAST = 0x80
_LENGTH = 0x7F
_IS_MASKED = 0x80
_BINARY_AND_LAST = 0x82
#: By the length in the second byte of a frame: how many bytes the real one takes.
_LONGER = {126: 2, 127: 8}


class Heads:
    """Follows a peer's WebSocket frames by their heads alone; what is wrong with them is the parser's to find.

    size: bytes of the message under way, as far as its heads speak of them. ended: messages that are complete.
    """

    __slots__ = ("_head", "_is_last", "_left", "_more", "ended", "size")

    def __init__(self) -> None:
        self.size = 0
        self.ended = 0
        self._left = 0
        self._head = b""
        self._more = False
        self._is_last = False  # the message ends with what is left of this frame

    @property
    def unfinished(self) -> bool:
        """Whether a message or frame has begun and not ended."""
        return bool(self._left or self._head or self._more)

    def feed(self, data: bytes) -> int:
        """Take what came; the size of the largest message that its heads speak of."""
        if not self.unfinished and (size := _only_frame(data)) >= 0:
            self.size = size
            self.ended += 1
            return size
        buffer, at = self._head + data, 0
        self._head = b""
        largest = 0
        while True:
            step = min(self._left, len(buffer) - at)
            at, self._left = at + step, self._left - step
            if self._is_last and not self._left:
                self._is_last = False
                self.ended += 1
            if at == len(buffer):
                return largest
            end = _end_of_head(buffer, at)
            if end > len(buffer):
                self._head = buffer[at:]
                return largest
            self._frame(buffer, at, end)
            largest = max(largest, self.size)
            at = end

    def _frame(self, buffer: bytes, at: int, end: int) -> None:
        longer = _LONGER.get(buffer[at + 1] & _LENGTH, 0)
        self._left = int.from_bytes(buffer[at + 2 : at + 2 + longer], "big") if longer else buffer[at + 1] & _LENGTH
        if buffer[at] & _IS_CONTROL:
            return
        self.size = self._left + (self.size if self._more else 0)
        self._is_last = bool(buffer[at] & _IS_LAST)
        self._more = not self._is_last


def _only_frame(data: bytes) -> int:
    """The size of the one message that `data` holds, whole and in one frame, as nearly all of them come; else -1."""
    if len(data) < 6 or data[0] != _BINARY_AND_LAST:
        return -1
    size = data[1] ^ _IS_MASKED
    if size < 126:
        return size if len(data) == 6 + size else -1
    size = data[2] << 8 | data[3]
    return size if data[1] == _IS_MASKED | 126 and len(data) == 8 + size else -1


def _end_of_head(buffer: bytes, at: int) -> int:
    """Where the head that begins at `at` ends; beyond the buffer if it is not complete."""
    if len(buffer) < at + 2:
        return at + 2
    second = buffer[at + 1]
    return at + 2 + _LONGER.get(second & _LENGTH, 0) + (4 if second & _IS_MASKED else 0)


class Pace:
    """What one connection is waited for, and since when. Times are seconds of any clock that only goes forward."""

    __slots__ = ("_begun", "_closing", "_heads", "_stalled", "_waiting")

    def __init__(self) -> None:
        self._heads: Heads | None = None
        self._begun: float | None = None
        self._stalled: float | None = None
        self._waiting = 0
        self._closing: float | None = None

    def upgraded(self) -> None:
        """From here on, what comes are the frames of a WebSocket."""
        self._heads = Heads()

    def heard(self, data: bytes, now: float) -> int:
        """Bytes came; the size of the largest message that they speak of, 0 before the upgrade."""
        heads = self._heads
        if heads is None:
            return 0
        ended = heads.ended
        largest = heads.feed(data)
        if not heads.unfinished:
            self._begun = None
        elif self._begun is None or heads.ended != ended:
            self._begun = now
        return largest

    def paused(self, waiting: int, now: float) -> None:
        """So many bytes wait for the reader; nothing more is written until it takes some."""
        self._stalled, self._waiting = now, waiting

    def resumed(self) -> None:
        """The reader has taken enough."""
        self._stalled = None

    def overdue(self, now: float, *, waiting: int, reads: bool, closing: bool) -> str:
        """What this connection is to be cut off for; empty if nothing.

        waiting: bytes that the reader has not taken. reads: whether we read it at the moment: what we do not read
        cannot end. closing: whether it was closed.
        """
        if self._closing is None:
            self._closing = now if closing else None
        elif now - self._closing >= GOODBYE_SECONDS:
            return "it was closed and did not go"
        if self._stalled is not None:
            if waiting < self._waiting:
                self.paused(waiting, now)
            elif now - self._stalled >= STALL_SECONDS:
                return f"it took nothing for {STALL_SECONDS:g} seconds"
        if self._begun is not None:
            if not reads:
                self._begun = now
            elif now - self._begun >= MESSAGE_SECONDS:
                return f"a message was not complete within {MESSAGE_SECONDS:g} seconds"
        return ""
