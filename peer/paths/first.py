"""Several ways to the same end, with head starts: the first that gets there is taken."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


async def first_of(
    ways: Sequence[Callable[[], Coroutine[Any, Any, T]]], seconds: float, discard: Callable[[T], Awaitable[None]]
) -> T:
    """What the first way that succeeds brings; raises what went wrong with the first one if none does. Each begins so
    many seconds after the one before, or when that has failed. What another one brings too is discarded."""
    tasks: list[asyncio.Task[T]] = []
    taken: asyncio.Task[T] | None = None
    try:
        while taken is None:
            if len(tasks) < len(ways):
                tasks.append(asyncio.get_running_loop().create_task(ways[len(tasks)]()))
            running = [task for task in tasks if not task.done()]
            if not running:
                break
            patience = seconds if len(tasks) < len(ways) else None
            await asyncio.wait(running, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            taken = next((task for task in tasks if task.done() and task.exception() is None), None)
        await _end([task for task in tasks if task is not taken], discard)
    except BaseException:  # cancelled: also what was taken is nobody's
        await _end(tasks, discard)
        raise
    return (taken or tasks[0]).result()


async def _end(tasks: Sequence[asyncio.Task[T]], discard: Callable[[T], Awaitable[None]]) -> None:
    """Let nothing come of these any more."""
    for task in tasks:
        task.cancel()
    for task, outcome in zip(tasks, await asyncio.gather(*tasks, return_exceptions=True), strict=True):
        if not isinstance(outcome, BaseException):
            await discard(task.result())
