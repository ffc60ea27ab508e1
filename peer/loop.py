"""An event loop in a thread of its own, for programs that have none, or one that must not be blocked from within."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_CLOSED = "this horde was closed, or opened before this process was forked: open it here"

#: How long one wait for the loop lasts before Python looks for signals again: on Windows nothing else interrupts it.
LOOK_SECONDS = 0.2


class LoopThread:
    """Runs coroutines for other threads until it is stopped. The thread ends with the program, whatever it does."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._stopped = False
        #: Whatever is put into the loop lies there before its end does, which so finds it.
        self._putting = threading.RLock()  # a garbage collection may close a generator within
        self._tasks: set[asyncio.Task[Any]] = set()
        self._thread.start()
        # Once the interpreter takes itself apart the thread stands still, and who waits for it would wait for ever.
        atexit.register(self.stop)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(_end_all())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
        finally:
            self._loop.close()

    @property
    def runs(self) -> bool:
        """Whether there is somebody to ask: it was not stopped, and this is its own process. Into one that is forked
        from it no thread comes along."""
        return not self._stopped and self._thread.is_alive()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What the coroutine returns or raises. A signal (Ctrl+C) that comes meanwhile cancels it; when it has ended,
        what the signal raised goes on."""
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("this would wait for itself: use peer.Client in coroutines")
        if not self.runs:
            work.close()
            raise RuntimeError(_CLOSED)
        outcome: concurrent.futures.Future[T] = concurrent.futures.Future()
        tasks: list[asyncio.Task[T]] = []

        def begin() -> None:
            tasks.append(self._begin(work))
            tasks[0].add_done_callback(lambda ended: _pass_on(ended, outcome))

        def cancel() -> None:
            if tasks:
                tasks[0].cancel()
            else:  # the signal came first
                work.close()
                outcome.set_exception(concurrent.futures.CancelledError())

        is_begun = False
        try:
            is_begun = self._put(begin)
            if is_begun:
                _wait(outcome)
        except BaseException:
            if self._put(cancel) or is_begun:
                _wait(outcome)
            raise
        if not is_begun:
            work.close()
            raise RuntimeError(_CLOSED)
        return outcome.result()

    def close(self, events: AsyncGenerator[Any, None]) -> None:
        """Close what a coroutine of this loop reads. Waits for it, unless a garbage collection in the loop's own thread
        brought it about; what has ended with the loop is closed."""

        async def work() -> None:
            await events.aclose()

        if threading.current_thread() is self._thread:
            _ = self._begin(work())
        elif self.runs:
            self.run(work())

    def _put(self, call: Callable[[], object]) -> bool:
        """Have this called in the loop; false if that has been stopped, and ends all that is in it by itself."""
        with self._putting:
            if not self._stopped:
                self._loop.call_soon_threadsafe(call)
            return not self._stopped

    def _begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def stop(self) -> None:
        """End the loop, what runs in it, and its thread; does no harm a second time."""
        if self.runs:
            atexit.unregister(self.stop)
            with self._putting:
                if not self._stopped:
                    self._stopped = True
                    self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


async def _end_all() -> None:
    """Whatever still runs is cancelled, and has ended."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _wait(outcome: concurrent.futures.Future[Any]) -> None:
    while not outcome.done():
        concurrent.futures.wait([outcome], timeout=LOOK_SECONDS)


def _pass_on(task: asyncio.Task[T], outcome: concurrent.futures.Future[T]) -> None:
    if task.cancelled():
        outcome.set_exception(concurrent.futures.CancelledError())
    elif (error := task.exception()) is not None:
        outcome.set_exception(error)
    else:
        outcome.set_result(task.result())
