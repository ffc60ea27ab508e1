"""Where waiting jobs stand, told to who asked for them as it changes."""

from __future__ import annotations

from collections.abc import Callable

from protocol.messages import Position
from tracker.fitting import Constraints
from tracker.forecast import Forecast
from tracker.matching import Queue, Terms, Waiting
from tracker.pool import Pool
from tracker.presence import Presence
from tracker.waits import Predictions

#: How many jobs at the head of each bucket are told when their position changes.
HEADS = 20
#: After workers came or left, of so many buckets it is looked whether that matters to them, others each time.
LOOKED = 32


class Positions:
    """What was told of each waiting job: how many go before it, and how many workers could serve it."""

    def __init__(
        self,
        queue: Queue,
        pool: Pool,
        forecast: Forecast,
        predictions: Predictions,
        presence: Presence,
        *,
        clock: Callable[[], int],
        terms: Callable[[int], Terms],
    ) -> None:
        self._queue = queue
        self._pool = pool
        self._forecast = forecast
        self._predictions = predictions
        self._presence = presence
        self._clock = clock
        self._terms = terms
        self._told: dict[bytes, tuple[int, int]] = {}
        # One round over all buckets after the other, as long as workers come and go.
        self._round = 0  # the pool's count of changes when it began
        self._looked: set[Constraints] = set()  # in this round
        self._is_over = True

    def tell_all(self) -> None:
        """Tell those at the head of their lines what is new to them."""
        if self._is_over and self._round != self._pool.changes:
            self._round, self._is_over = self._pool.changes, False
            self._looked.clear()
        room, others = 0 if self._is_over else LOOKED, set[Constraints]()
        for waiting in self._queue.heads(HEADS):
            alike = waiting.constraints
            if room and alike not in self._looked:
                room -= 1
                self._looked.add(alike)
                if self._has_others(waiting):
                    others.add(alike)
            self.tell(waiting, anew=alike in others)
        self._is_over = self._is_over or room > 0

    def _has_others(self, waiting: Waiting) -> bool:
        told = self._told.get(waiting.handle)
        return told is not None and told[1] != self._pool.able(waiting, self._terms(self._clock()))

    def tell(self, waiting: Waiting, *, anew: bool = False) -> None:
        """Tell how many jobs go before this one, if that has changed; anew: or how many workers could serve it."""
        ahead, told = self._queue.ahead_of(waiting), self._told.get(waiting.handle)
        requester = self._presence.requester(waiting.request)
        if requester is None or (told is not None and told[0] == ahead and not anew):
            return
        now = self._clock()
        workers = self._pool.able(waiting, self._terms(now))
        if told == (ahead, workers):
            return
        self._told[waiting.handle] = ahead, workers
        wait = self._forecast.wait(waiting, now) if workers else 0
        self._predictions.told(waiting.handle, wait, now)
        requester.tell(Position(job=waiting.handle, ahead=ahead, workers=workers, wait=wait))

    def forget(self, handle: bytes) -> None:
        """The job waits no more."""
        self._told.pop(handle, None)
