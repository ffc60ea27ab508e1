"""What an engine's library has to do, inside its own process: plain blocking calls, no asyncio.

To add an engine, write a `Maker` and name a function that takes an `EngineSpec` and returns one in the entry point
group `potluck.engines`.
"""

from __future__ import annotations

import os
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from peer.engines.base import ArtifactMade, Done, PreviewMade, StepsDone, Task, TextMade
from protocol.messages import Offer

Said = StepsDone | PreviewMade | TextMade | ArtifactMade


class Dropped(Exception):
    """Nobody wants this job any more: let it pass through, it ends the job."""


class Job:
    """One task under way: what its maker says of it, and whether it is still wanted."""

    def __init__(self, task: Task, say: Callable[[Said], None]) -> None:
        self.task = task
        self._say = say
        self._halted = threading.Event()
        self._dropped = False
        self._calls: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def say(self, event: Said) -> None:
        """Hand an event over; raises `Dropped` if nobody wants it."""
        self.check()
        self._say(event)

    def check(self) -> None:
        """Raise `Dropped` if nobody wants this job any more."""
        if self._dropped:
            raise Dropped

    @property
    def halted(self) -> bool:
        """Whether to end within a step: with what there is, or, if `check` raises, with nothing."""
        return self._halted.is_set()

    def wait(self, seconds: float) -> None:
        """Let time pass, but not once the job is halted."""
        self._halted.wait(seconds)

    def when_halted(self, call: Callable[[], None]) -> None:
        """Call this once the job is halted, from another thread; at once if it is. It must not raise."""
        with self._lock:
            if not self._halted.is_set():
                self._calls.append(call)
                return
        call()

    def stop(self) -> None:
        """End with what there is. May be called from any thread."""
        with self._lock:
            self._halted.set()
            calls, self._calls = self._calls, []
        for call in calls:
            call()

    def drop(self) -> None:
        """End with nothing. May be called from any thread."""
        self._dropped = True
        self.stop()


class Maker(ABC):
    """Loads models and makes one job at a time; it may keep the thread for as long as it likes."""

    @abstractmethod
    def load(self) -> Sequence[Offer]:
        """Load what is needed and tell what is served; raises `EngineError`."""

    def watch(self, offer: Callable[[Sequence[Offer], str], None]) -> None:  # noqa: B027 (most have nothing to watch)
        """For engines that lean on something which comes and goes: called once after `load`, in a thread of its own.

        Call `offer` with what is served from now on whenever that changes, from any thread; with no offers, and for
        whoever runs the worker the reason, while nothing can be served. Jobs go elsewhere then.
        """

    @abstractmethod
    def make(self, job: Job) -> Done:
        """Make the job, which fits one of the offers; raises `EngineError`.

        Say `StepsDone` after every step, look at `job.halted` in every step, and call `job.check` before saying what
        is made of a halted job. What is written to standard output or error goes to the log: never a prompt.
        """


def cores(threads: int) -> int:
    """How many threads are meant: 0 is one for each core that this process may use."""
    if threads:
        return threads
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    else:  # noqa: RET505 (so that a type checker for the one system does not read the other's lines)
        return os.cpu_count() or 1
