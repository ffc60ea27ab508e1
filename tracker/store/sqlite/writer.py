"""One thread writes; steps that wait at the same time share one commit.

A durable commit costs a disk sync, whatever it holds. So the thread takes all steps that have come in meanwhile, each
in a savepoint of its own, and commits them together: a step that refuses undoes itself only. Nobody hears of a result
before the commit that holds it.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from tracker.store.base import StoreError, StoreFull

T = TypeVar("T")

MAX_BATCH = 256


class State(Protocol):
    """What the steps keep in memory beside the database: it must go back with them."""

    def snapshot(self) -> object:
        """The state as it is, cheap to take."""

    def restore(self, snapshot: object) -> None:
        """Back to a snapshot."""

    def before_commit(self, connection: sqlite3.Connection) -> None:
        """Write what is written once for each commit."""


@dataclass
class _Step:
    run: Callable[[sqlite3.Connection], Any]
    future: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None


class Writer:
    """Owns the connection. Steps are run in the order of the calls."""

    def __init__(self, connection: sqlite3.Connection, state: State) -> None:
        self._connection = connection
        self._state = state
        self._steps: queue.SimpleQueue[_Step | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name="store-writer", daemon=True)
        self._closed = False
        self._thread.start()

    async def step(self, run: Callable[[sqlite3.Connection], T]) -> T:
        """Run `run` on the connection; returns (or raises) when the commit that holds it is durable."""
        if self._closed:
            raise StoreError("the store is closed")
        step = _Step(run, self._loop.create_future())
        self._steps.put(step)
        result: T = await step.future
        return result

    async def close(self) -> None:
        """Carry out what has come in, then end the thread and close the connection."""
        if not self._closed:
            self._closed = True
            self._steps.put(None)
            await asyncio.to_thread(self._thread.join)
            self._connection.close()

    def _work(self) -> None:
        ended = False
        while not ended:
            batch, ended = self._take_batch()
            if batch:
                self._commit(batch)
                self._loop.call_soon_threadsafe(_answer, batch)

    def _take_batch(self) -> tuple[list[_Step], bool]:
        step = self._steps.get()
        batch: list[_Step] = []
        while step is not None:
            batch.append(step)
            if len(batch) == MAX_BATCH:
                return batch, False
            try:
                step = self._steps.get_nowait()
            except queue.Empty:
                return batch, False
        return batch, True

    def _commit(self, batch: list[_Step]) -> None:
        """One transaction for the whole batch. If it cannot be committed, every step of it has failed."""
        before = self._state.snapshot()
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for step in batch:
                self._run(step)
            self._state.before_commit(self._connection)
            self._connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 (whatever it is, this thread goes on and everybody gets an answer)
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            self._state.restore(before)
            failure = _translate(error)
            for step in batch:
                step.error = failure

    def _run(self, step: _Step) -> None:
        before = self._state.snapshot()
        self._connection.execute("SAVEPOINT step")
        try:
            step.result = step.run(self._connection)
        except sqlite3.OperationalError:
            raise  # no room, no access: the whole batch fails
        except Exception as error:  # noqa: BLE001 (handed to whoever asked for the step)
            self._connection.execute("ROLLBACK TO step")
            self._state.restore(before)
            step.error = error
        self._connection.execute("RELEASE step")


def _answer(batch: list[_Step]) -> None:
    for step in batch:
        if step.future.cancelled():
            continue
        if step.error is not None:
            step.future.set_exception(step.error)
        else:
            step.future.set_result(step.result)


def _translate(error: Exception) -> StoreError:
    if "full" in str(error) or "disk I/O" in str(error):
        return StoreFull(f"the database cannot grow ({error}): make room on its disk")
    return StoreError(f"the database failed: {error}")
