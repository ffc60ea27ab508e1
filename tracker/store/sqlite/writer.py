"""Steps that wait at the same time share one commit; a thread waits for the disk.

A durable commit costs a disk sync, whatever it holds. So all steps that have come in while the last commit was being
synced are run in one transaction and committed together. A step that refuses undoes itself only: where one has written
something before that, the whole batch is rolled back and run again, each step in a savepoint of its own. So a step may
run twice, and must do nothing but look at the database and write to it. Nobody hears of a result before the commit that
holds it.

The steps run in the loop's thread, and only `COMMIT` in a thread of its own. Every statement gives up the interpreter's
lock for some microseconds: with the steps in another thread, each would cost two hand-overs between the threads, which
is several times what the statement itself costs.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from tracker.store.base import StoreError, StoreFull

T = TypeVar("T")

MAX_BATCH = 256
#: A batch that has run for so long holds the loop up no longer: what is left comes into the next one.
MAX_BATCH_SECONDS = 0.02


class State(Protocol):
    """What the steps keep in memory beside the database: it must go back with them."""

    def snapshot(self) -> object:
        """The state as it is, cheap to take."""

    def restore(self, snapshot: object) -> None:
        """Back to a snapshot."""

    def before_commit(self, connection: sqlite3.Connection) -> None:
        """Write what is written once for each commit."""

    def committed(self) -> None:
        """All of it is durable: nothing will go back behind this."""


@dataclass(slots=True)
class _Step:
    run: Callable[[sqlite3.Connection], Any]
    future: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None


@dataclass(slots=True)
class _Batch:
    """Steps of one transaction. before: the state in memory when it began. failure: why none of it is durable."""

    steps: list[_Step]
    before: object
    failure: StoreError | None = None


class _HalfDone(Exception):
    """A step has refused after it had written something."""


class Writer:
    """Owns the connection, which is used by one thread at a time. Steps are run in the order of the calls."""

    def __init__(
        self, connection: sqlite3.Connection, state: State, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._connection = connection
        self._state = state
        self._steps: deque[_Step] = deque()
        self._is_busy = False  # a batch is about to run, or is being committed
        self._idle = asyncio.Event()
        self._idle.set()
        self._commits: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name="store-writer", daemon=True)
        self._closed = False
        self._thread.start()

    async def step(self, run: Callable[[sqlite3.Connection], T]) -> T:
        """Run `run` on the connection; returns (or raises) when the commit that holds it is durable."""
        if self._closed:
            raise StoreError("the store is closed")
        step = _Step(run, self._loop.create_future())
        self._steps.append(step)
        if not self._is_busy:
            self._is_busy = True
            self._idle.clear()
            self._loop.call_soon(self._next_batch)
        result: T = await step.future
        return result

    async def close(self) -> None:
        """Carry out what has come in, then end the thread and close the connection."""
        if not self._closed:
            self._closed = True
            await self._idle.wait()
            self._commits.put(None)
            await asyncio.to_thread(self._thread.join)
            self._connection.close()

    def _next_batch(self) -> None:
        """Run all steps that wait; what they wrote is committed in the thread."""
        if not self._steps:
            self._is_busy = False
            self._idle.set()
            return
        batch = self._take_batch()
        if self._run(batch):
            self._commits.put(batch)
            return
        self._answer(batch)
        self._loop.call_soon(self._next_batch)

    def _take_batch(self) -> _Batch:
        count = min(len(self._steps), MAX_BATCH)
        return _Batch([self._steps.popleft() for _ in range(count)], self._state.snapshot())

    def _run(self, batch: _Batch) -> bool:
        """One transaction for the whole batch; whether there is anything to commit."""
        try:
            try:
                return self._transact(batch, self._run_bare)
            except _HalfDone:
                self._connection.execute("ROLLBACK")
                self._state.restore(batch.before)
                return self._transact(batch, self._run_guarded)
        except Exception as error:  # noqa: BLE001 (whatever it is, the next batch is run and everybody gets an answer)
            self._undo(batch, error)
        return False

    def _transact(self, batch: _Batch, run: Callable[[_Step], None]) -> bool:
        connection = self._connection
        changes = connection.total_changes
        connection.execute("BEGIN IMMEDIATE")
        until = self._clock() + MAX_BATCH_SECONDS
        rest = deque(batch.steps)
        while rest:
            run(rest.popleft())
            if self._clock() >= until:
                break
        self._steps.extendleft(reversed(rest))
        del batch.steps[len(batch.steps) - len(rest) :]
        self._state.before_commit(connection)
        if connection.total_changes != changes:
            return True
        connection.execute("COMMIT")  # of nothing: the disk has no part in it
        return False

    def _run_bare(self, step: _Step) -> None:
        """Nearly all steps that refuse do so before they write anything: then nothing is to be undone."""
        changes, before = self._connection.total_changes, self._state.snapshot()
        try:
            step.result = step.run(self._connection)
        except sqlite3.OperationalError:
            raise  # no room, no access: the whole batch fails
        except Exception as error:
            if not self._connection.in_transaction:
                raise  # SQLite itself has rolled all of it back, as it does when it runs out of memory
            if self._connection.total_changes != changes or self._state.snapshot() != before:
                raise _HalfDone from error
            step.error = error

    def _run_guarded(self, step: _Step) -> None:
        """In a savepoint, which SQLite keeps a copy of every page for."""
        before = self._state.snapshot()
        step.result, step.error = None, None
        self._connection.execute("SAVEPOINT step")
        try:
            step.result = step.run(self._connection)
        except sqlite3.OperationalError:
            raise
        except Exception as error:
            if not self._connection.in_transaction:
                raise
            self._connection.execute("ROLLBACK TO step")
            self._state.restore(before)
            step.error = error
        self._connection.execute("RELEASE step")

    def _work(self) -> None:
        """The thread: it commits, and waits for the disk."""
        while (batch := self._commits.get()) is not None:
            try:
                self._connection.execute("COMMIT")
            except Exception as error:  # noqa: BLE001 (whatever it is, this thread goes on)
                self._undo(batch, error)
            self._loop.call_soon_threadsafe(self._committed, batch)

    def _undo(self, batch: _Batch, error: Exception) -> None:
        """If it cannot be committed, every step of a batch has failed."""
        batch.failure = _translate(error)
        with suppress(sqlite3.Error):  # then the next batch cannot begin either, and tries this again
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def _committed(self, batch: _Batch) -> None:
        self._answer(batch)
        self._next_batch()

    def _answer(self, batch: _Batch) -> None:
        if batch.failure is None:
            self._state.committed()
        else:
            self._state.restore(batch.before)
        for step in batch.steps:
            if step.future.cancelled():
                continue
            error = batch.failure or step.error
            if error is not None:
                step.future.set_exception(error)
            else:
                step.future.set_result(step.result)


def _translate(error: Exception) -> StoreError:
    if "full" in str(error) or "disk I/O" in str(error):
        return StoreFull(f"the database cannot grow ({error}): make room on its disk")
    return StoreError(f"the database failed: {error}")
