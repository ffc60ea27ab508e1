"""What a fuzzing target is, and what is held against it besides an exception: complaints, and memory that it keeps."""

from __future__ import annotations

import asyncio
import gc
import logging
import tracemalloc
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MIB = 1024 * 1024
#: So much more memory than after the first inputs may be in use.
MAX_GROWTH = 16 * MIB
#: Inputs before memory is looked at for the first time, and between two looks.
WARM_UP = 100
LOOK = 100
#: What one input brings about has ended within so many seconds.
PATIENCE_S = 20.0


class Fault(AssertionError):
    """What must not be, whatever comes in."""


class Target:
    """Takes inputs one after the other. `feed` and `check` raise if anything is wrong."""

    name: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self) -> None:
        """Get ready."""

    def feed(self, raw: bytes) -> None:
        """Take one input."""
        raise NotImplementedError

    def check(self) -> None:
        """Look at what is too dear to look at after each input."""

    def close(self) -> None:
        """Leave nothing open."""


class Complaints(logging.Handler):
    """Errors in the log. Faults of ours are caught at the edges and told there."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(self.format(record))


class LoopTarget(Target):
    """A target with an event loop of its own, which runs while it is fed."""

    def open(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.complaints = Complaints()
        self.loop.set_exception_handler(self._complain)
        logging.getLogger().addHandler(self.complaints)
        self.run(self.start())
        self._own = self._tasks()

    def feed(self, raw: bytes) -> None:
        self.run(self.take(raw))
        self.run(self._settle())
        self._raise_complaints()

    def close(self) -> None:
        self.run(self.stop())
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()
        logging.getLogger().removeHandler(self.complaints)
        self._raise_complaints()

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run this to its end."""
        self.loop.run_until_complete(work)

    async def start(self) -> None:
        """Open what is fed."""

    async def take(self, raw: bytes) -> None:
        """Take one input."""
        raise NotImplementedError

    async def stop(self) -> None:
        """Close what `start` opened."""

    def _tasks(self) -> set[asyncio.Task[Any]]:
        return {task for task in asyncio.all_tasks(self.loop) if not task.done()}

    async def _settle(self) -> None:
        """Wait until nothing is under way but what was before."""
        own = {*self._own, asyncio.current_task()}
        async with asyncio.timeout(PATIENCE_S):
            while left := [task for task in self._tasks() if task not in own]:
                await asyncio.wait(left)

    def _complain(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.complaints.found.append(f"{context.get('message')}: {context.get('exception')!r}")

    def _raise_complaints(self) -> None:
        found, self.complaints.found = self.complaints.found, []
        if found:
            raise Fault("\n".join(found))


class Memory:
    """Looks at how much memory Python's objects take, now and then, and does not let it grow."""

    def __init__(self, most: int = MAX_GROWTH) -> None:
        self.most = most
        self.growth = 0
        self._count = 0
        self._first: int | None = None

    def look(self) -> bool:
        """One more input has been taken. Whether this was the time to look; raises `Fault` if there is too much."""
        self._count += 1
        if self._count < WARM_UP or self._count % LOOK:
            return False
        self.measure()
        return True

    def measure(self) -> None:
        """Look now; the first look is what all others are held against."""
        gc.collect()
        taken, _ = tracemalloc.get_traced_memory()
        if self._first is None:
            self._first = taken
        self.growth = max(self.growth, taken - self._first)
        if self.growth > self.most:
            raise Fault(f"memory grew by {self.growth} bytes: at most {self.most} after the first inputs")


@contextmanager
def traced() -> Iterator[None]:
    """Memory is counted while the block runs."""
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()
