"""An event loop in a thread of its own: results, errors, signals, and its end."""

import asyncio
import gc
import os
import signal
import sys
import threading
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from concurrent.futures import CancelledError, Future
from typing import Any, cast

import pytest

from peer import loop as loop_module
from peer.loop import LoopThread


@pytest.fixture
def thread() -> Iterator[LoopThread]:
    thread = LoopThread("a test")
    yield thread
    thread.stop()
    assert not any(each.name == "a test" for each in threading.enumerate())


async def double(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


async def fail() -> None:
    raise LookupError("nothing there")


async def forever() -> None:
    await asyncio.Event().wait()


def test_what_a_coroutine_returns_or_raises_comes_back(thread: LoopThread) -> None:
    assert thread.run(double(21)) == 42
    with pytest.raises(LookupError, match="nothing there"):
        thread.run(fail())
    assert thread.run(double(1)) == 2


async def test_it_works_within_a_loop_that_runs_already(thread: LoopThread) -> None:
    assert asyncio.get_running_loop().is_running()
    assert thread.run(double(21)) == 42


def test_a_signal_cancels_what_is_waited_for_and_goes_on_when_that_has_ended(
    thread: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, ended = threading.Event(), threading.Event()
    waited = loop_module._wait
    interrupts = [KeyboardInterrupt()]

    def interrupted(outcome: Future[object]) -> None:
        if interrupts:
            begun.wait()
            raise interrupts.pop()
        waited(outcome)

    async def work() -> None:
        begun.set()
        try:
            await forever()
        finally:
            ended.set()

    monkeypatch.setattr(loop_module, "_wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        thread.run(work())
    assert ended.is_set()


def test_who_waits_while_the_loop_is_stopped_hears_of_it() -> None:
    thread, begun, errors = LoopThread("a test"), threading.Event(), []

    async def work() -> None:
        begun.set()
        await forever()

    def wait() -> None:
        try:
            thread.run(work())
        except CancelledError as error:
            errors.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    begun.wait()
    thread.stop()
    waiting.join()
    assert len(errors) == 1
    with pytest.raises(RuntimeError, match="closed"):
        thread.run(double(1))
    thread.stop()


def test_it_does_not_wait_for_itself(thread: LoopThread) -> None:
    async def within() -> None:
        thread.run(double(1))

    with pytest.raises(RuntimeError, match=r"use peer\.Client"):
        thread.run(within())


async def counted(ended: threading.Event) -> AsyncIterator[int]:
    try:
        for number in range(10):
            yield number
    finally:
        ended.set()


def test_a_generator_is_closed_from_any_thread_and_after_the_end(thread: LoopThread) -> None:
    async def begin(ended: threading.Event) -> AsyncIterator[int]:
        events = counted(ended)
        assert await anext(events) == 0
        return events

    ended = threading.Event()
    thread.close(thread.run(begin(ended)))  # type: ignore[arg-type]  # an async generator, in truth
    assert ended.is_set()

    ended = threading.Event()
    events = thread.run(begin(ended))

    async def within() -> None:
        thread.close(events)  # type: ignore[arg-type]

    thread.run(within())
    assert ended.wait(30)

    ended = threading.Event()
    events = thread.run(begin(ended))
    thread.stop()
    assert ended.is_set(), "the loop closes what is open when it ends"
    thread.close(events)  # type: ignore[arg-type]
    gc.collect()


def test_a_generator_may_be_collected_while_something_is_asked(
    thread: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def begin() -> AsyncIterator[int]:
        events = counted(ended)
        assert await anext(events) == 0
        return events

    ended = threading.Event()
    left, put = [thread.run(begin())], thread._loop.call_soon_threadsafe

    def collecting(*call: Any) -> object:
        if left:
            thread.close(cast("AsyncGenerator[int, None]", left.pop()))  # as its finalizer does
        return put(*call)

    monkeypatch.setattr(thread._loop, "call_soon_threadsafe", collecting)
    numbers: list[int] = []
    asking = threading.Thread(target=lambda: numbers.append(thread.run(double(21))), daemon=True)
    asking.start()
    asking.join(30)
    assert numbers == [42]
    assert ended.is_set()


def test_what_is_asked_while_the_loop_is_being_stopped_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    thread = LoopThread("a test")

    class Late(Future[int]):
        def __init__(self) -> None:
            super().__init__()
            thread.stop()  # as another thread may, after it was seen to run

    monkeypatch.setattr("concurrent.futures.Future", Late)
    with pytest.raises(RuntimeError, match="this horde was closed"):
        thread.run(double(1))


@pytest.mark.skipif(sys.platform == "win32", reason="signals and file modes of POSIX")
def test_a_process_that_is_forked_does_not_wait_for_a_thread_that_it_has_not(thread: LoopThread) -> None:
    assert thread.run(double(1)) == 2
    if sys.platform != "win32":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of Pythons that warn of threads here: it is the point
            pid = os.fork()
        if pid == 0:
            signal.alarm(30)  # should it wait all the same
            code = 1
            try:
                thread.run(double(1))
            except RuntimeError as error:
                code = 0 if "forked" in str(error) else 2
            finally:
                thread.stop()
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0
    assert thread.run(double(1)) == 2
