"""Things to be looked at later: a heap of times, without a clock of its own."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count

Action = Callable[[], None]


class Timers:
    """Actions by the time at which they are due. They are hints: each action looks whether it is still needed."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Action]] = []
        self._order = count()

    def at(self, due: int, action: Action) -> None:
        """Have `action` run at `due` (milliseconds) or soon after."""
        heapq.heappush(self._heap, (due, next(self._order), action))

    def run(self, now: int) -> None:
        """Run everything that is due."""
        while self._heap and self._heap[0][0] <= now:
            heapq.heappop(self._heap)[2]()
