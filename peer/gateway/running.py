"""Asks that go on in the background, for doors whose clients poll.

Nobody sees such a client go away. So an ask that nobody asks about is cancelled after a while, and what came of one is
kept for a while; later its name is known, and answered with `gone`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from peer.client import system_clock
from peer.events import Received
from peer.gateway.asks import Ask, Caller, ImageAsk, Results
from peer.gateway.errors import Trouble, Troubled, trouble
from peer.gateway.hordes import Hordes

if TYPE_CHECKING:
    from types import TracebackType

#: What has ended is kept so long after it was last asked about, and as long one that runs is not cancelled.
KEPT_MS = 20 * 60 * 1000
#: At once, of all callers, and of nobody in particular.
MAX_RUNNING = 1_000
MAX_OF_ANYBODY = 200
#: Bytes that are kept, and requests; beyond that the oldest that have ended go first.
MAX_BYTES = 512 * 1024 * 1024
MAX_KEPT = 4_000
#: What a piece of text takes, however short it is.
PIECE_BYTES = 64
#: Names that are remembered as gone.
MAX_GONE = 10_000
SWEEP_SECONDS = 30.0
#: All of them are looked through once in so long, however often clients poll.
SWEEP_MS = 1_000

log = logging.getLogger(__name__)


class Running:
    """One ask in the background. id: an unguessable name (a UUID). results: as far as they are, `results.all`. ended:
    nothing more comes, not even a settlement. trouble: why something is missing, once it has ended. cancelled: whether
    its client wanted it no more."""

    def __init__(self, id: str, caller: Caller, ask: Ask, now: int) -> None:
        self.id = id
        self.caller = caller
        self.ask = ask
        self.since = now
        self.asked = now
        self.results = Results(ask.n)
        self.ended = False
        self.cancelled = False
        self.trouble: Trouble | None = None
        #: How many wait for it now: it is not forgotten before they know.
        self.waiting = 0
        self._whole_size = 0
        self._done = asyncio.Event()
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_done(self) -> bool:
        """Whether there is nothing more to wait for: all of it is whole, or it has ended otherwise."""
        return self._done.is_set()

    @property
    def size(self) -> int:
        """Bytes of what was asked and of its results, about."""
        if self._whole_size:
            return self._whole_size
        ask = self.ask
        said = [ask.prompt, ask.negative_prompt] if isinstance(ask, ImageAsk) else ask.texts
        made = (
            len(result.content) + len(result.preview) + PIECE_BYTES * len(result.pieces) for result in self.results.all
        )
        size = sum(map(len, said)) + sum(made)
        if self.ended:
            self._whole_size = size
        return size

    def begin(self, hordes: Hordes) -> None:
        """Ask, in a task of its own."""
        self._task = asyncio.create_task(self._run(hordes))
        self._task.add_done_callback(self._over)

    def cancel(self) -> None:
        """Nobody wants the rest; what is whole stays. Returns at once."""
        if self._task is not None and not self.is_done:
            self.cancelled = True
            self._task.cancel()

    async def wait(self) -> None:
        """Returns when it is done."""
        self.waiting += 1
        try:
            await self._done.wait()
        finally:
            self.waiting -= 1

    async def changed(self) -> None:
        """Returns at the next event, and at once if it has ended."""
        if not self.ended:
            await self._changed.wait()

    async def close(self) -> None:
        """Cancel it, and return when it has ended."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, hordes: Hordes) -> None:
        async with contextlib.aclosing(hordes.ask(self.caller, self.ask, to_the_end=True)) as events:
            async for event in events:
                self.results.receive(event)
                if isinstance(event, Received) and all(result.is_whole for result in self.results.all):
                    self._done.set()
                self._tell()

    def _over(self, task: asyncio.Task[None]) -> None:
        """Whatever ended it, also before it began: whoever polls hears of it."""
        if task.cancelled():
            self.trouble = Trouble("cancelled", "cancelled: what was not done is not made")
        elif (error := task.exception()) is not None:
            self.trouble = trouble(error)
            if self.trouble.kind == "internal":  # without its own words, which may quote a prompt
                log.error("an ask ended by an internal error: %s", type(error).__name__)
        self.ended = True
        self._done.set()
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class Registry:
    """All that is running, and what came of it; an async context manager, whose end cancels."""

    def __init__(
        self, hordes: Hordes, clock: Callable[[], int] = system_clock, *, kept_ms: int = KEPT_MS, most: int = MAX_BYTES
    ) -> None:
        self._hordes = hordes
        self._clock = clock
        self._kept_ms = kept_ms
        self._most = most
        self._kept: dict[str, Running] = {}
        self._gone: OrderedDict[str, None] = OrderedDict()
        self._swept = clock()
        self._sweeping: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Registry:
        self._sweeping = asyncio.create_task(self._sweep_again())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.gather(self._sweeping, return_exceptions=True)
        await asyncio.gather(*(running.close() for running in self._kept.values()))

    def start(self, caller: Caller, ask: Ask, id: str = "") -> Running:
        """Begin an ask; raises `Troubled` (`too_many`) if there are too many at once. id: a name of the client's own
        that is not in use; else a fresh one is made."""
        self.sweep()
        if id in self._kept:
            raise Troubled("bad_value", f"{id} is the name of another request: choose another, or none")
        under_way = [running for running in self._kept.values() if not running.is_done]
        of_anybody = sum(running.caller is Caller.ANYBODY for running in under_way)
        if len(under_way) >= MAX_RUNNING or (caller is Caller.ANYBODY and of_anybody >= MAX_OF_ANYBODY):
            raise Troubled("too_many", f"{len(under_way)} requests are under way here: wait until some have ended")
        running = Running(id or str(uuid.uuid4()), caller, ask, self._clock())
        self._kept[running.id] = running
        self._gone.pop(running.id, None)
        running.begin(self._hordes)
        return running

    def get(self, id: str) -> Running:
        """The ask of this name, which counts as asked about. Raises `Troubled`: `gone` if it is kept no longer,
        `not_found` if there never was one."""
        now = self._clock()
        if not 0 <= now - self._swept < SWEEP_MS:
            self.sweep()
        if (running := self._kept.get(id)) is not None and not self._is_left(running, now):
            running.asked = now
            return running
        if id in self._gone:
            raise Troubled("gone", f"request {id} is kept no longer: nobody asked about it for too long")
        raise Troubled("not_found", f"there is no request {id[:100]}: it was never made here, or long ago")

    def all(self, caller: Caller) -> list[Running]:
        """Everything of this caller that is kept, the oldest first."""
        return [running for running in self._kept.values() if running.caller is caller]

    def sweep(self) -> None:
        """Let go of what nobody asks about, and of results if they are too large together: the oldest first, and those
        of nobody in particular before the account's."""
        now = self._swept = self._clock()
        for running in list(self._kept.values()):
            self._is_left(running, now)
        size = sum(running.size for running in self._kept.values())
        ended = [one for one in self._kept.values() if one.ended and not one.waiting]
        # Nobody's before ours, whatever their age: whoever asks without the key pushes out no result of the account.
        for running in sorted(ended, key=lambda one: one.caller is Caller.MEMBER):
            if size <= self._most and len(self._kept) <= MAX_KEPT:
                break
            size -= running.size
            self._forget(running)

    def _is_left(self, running: Running, now: int) -> bool:
        """Whether nobody asks about it any more; it is let go of then."""
        if running.waiting:
            running.asked = now
        elif now - running.asked > self._kept_ms:
            self._forget(running)
            return True
        return False

    def _forget(self, running: Running) -> None:
        running.cancel()
        del self._kept[running.id]
        self._gone[running.id] = None
        if len(self._gone) > MAX_GONE:
            self._gone.popitem(last=False)

    async def _sweep_again(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self.sweep()
