"""Several ways to the same end: the first that gets there is taken."""

import asyncio
from functools import partial

import pytest

from peer.paths.first import first_of

LONG = 3600.0


class Ways:
    """Ways that end when a test says so. begun: in which order."""

    def __init__(self, number: int) -> None:
        self.ends: list[asyncio.Future[str]] = [asyncio.get_running_loop().create_future() for _ in range(number)]
        self.begun: list[int] = []
        self.discarded: list[str] = []

    async def go(self, number: int) -> str:
        self.begun.append(number)
        return await self.ends[number]

    async def discard(self, found: str) -> None:
        self.discarded.append(found)

    async def first(self, seconds: float) -> str:
        return await first_of([partial(self.go, number) for number in range(len(self.ends))], seconds, self.discard)


async def test_the_first_way_is_taken_alone_where_it_gets_there() -> None:
    ways = Ways(2)
    ways.ends[0].set_result("first")

    assert (await ways.first(LONG), ways.begun) == ("first", [0])


async def test_the_second_begins_as_soon_as_the_first_has_failed() -> None:
    ways = Ways(2)
    ways.ends[0].set_exception(OSError("no route"))
    ways.ends[1].set_result("second")

    assert (await ways.first(LONG), ways.begun) == ("second", [0, 1])


async def test_the_second_begins_after_the_head_start_and_may_win() -> None:
    ways = Ways(2)
    ways.ends[1].set_result("second")

    assert (await ways.first(0), ways.begun) == ("second", [0, 1])
    assert ways.ends[0].cancelled()


async def test_what_comes_too_late_is_discarded() -> None:
    ways = Ways(2)
    running = asyncio.create_task(ways.first(0))
    while len(ways.begun) < 2:  # noqa: ASYNC110 (what is waited for is nothing that tells)
        await asyncio.sleep(0)
    for end, found in zip(ways.ends, ("first", "second"), strict=True):
        end.set_result(found)

    assert await running == "first"
    assert ways.discarded == ["second"]


async def test_who_is_cancelled_while_others_are_discarded_keeps_nothing() -> None:
    ways, held = Ways(2), asyncio.Event()
    discarded: list[str] = []

    async def discard(found: str) -> None:
        discarded.append(found)
        held.set()
        if found == "second" and len(discarded) == 1:
            await asyncio.Event().wait()

    running = asyncio.create_task(first_of([partial(ways.go, number) for number in range(2)], 0, discard))
    while len(ways.begun) < 2:  # noqa: ASYNC110 (what is waited for is nothing that tells)
        await asyncio.sleep(0)
    for end, found in zip(ways.ends, ("first", "second"), strict=True):
        end.set_result(found)
    await held.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert set(discarded) == {"first", "second"}


async def test_where_none_gets_there_it_is_said_what_the_first_met() -> None:
    ways = Ways(2)
    for number, end in enumerate(ways.ends):
        end.set_exception(OSError(f"fault {number}"))

    with pytest.raises(OSError, match="fault 0"):
        await ways.first(LONG)
