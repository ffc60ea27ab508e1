"""An event loop in a thread of its own: results, errors, signals, and its end."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import CancelledError, Future

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
