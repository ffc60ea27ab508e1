"""Things to be looked at later: a heap of times, without a clock of its own."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count

Action = Callable[[], None]

#: Times that nothing hangs on any more are swept out when they outnumber the others by so many.
SWEEP = 1000


class Timers:
    """Actions by the time at which they are due. They are hints: each action looks whether it is still needed.

    What an action is about can be forgotten: so a job that ended keeps no memory until its last deadline has passed.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[int, int]] = []
        self._actions: dict[int, Action] = {}
        self._about: dict[bytes, list[int]] = {}
        self._order = count()

    def __len__(self) -> int:
        return len(self._actions)

    def at(self, due: int, action: Action, about: bytes = b"") -> None:
        """Have `action` run at `due` (milliseconds) or soon after, unless what it is about is forgotten before."""
        number = next(self._order)
        heapq.heappush(self._heap, (due, number))
        self._actions[number] = action
        if about:
            self._about.setdefault(about, []).append(number)

    def forget(self, about: bytes) -> None:
        """Nothing about this needs to be looked at any more."""
        for number in self._about.pop(about, ()):
            self._actions.pop(number, None)
        if len(self._heap) > 2 * len(self._actions) + SWEEP:
            self._heap = [timed for timed in self._heap if timed[1] in self._actions]
            heapq.heapify(self._heap)

    def run(self, now: int) -> None:
        """Run everything that is due."""
        while self._heap and self._heap[0][0] <= now:
            action = self._actions.pop(heapq.heappop(self._heap)[1], None)
            if action is not None:
                action()
