"""What that program keeps between calls: the model that was chosen, and what is being painted now.

It has one of each, and so has this door. What several clients paint at the same time is shown as one, and interrupted
as one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Any

from peer.events import Event
from peer.gateway.a1111.infotext import timestamp
from peer.gateway.asks import ImageAsk, Result, Results

#: So long an interrupted call waits for pictures as far as they are; a worker has ten seconds to hand one in.
PATIENCE_S = 15.0
#: What is said of work that has begun, however little of it is done; 0 is for "nothing is under way".
BEGUN = 0.01


class Drawing:
    """One call of `txt2img` under way. now: when it began, in milliseconds."""

    def __init__(self, ask: ImageAsk, now: int) -> None:
        self.enough = asyncio.Event()
        self.ask = replace(ask, enough=self.enough)
        self.since = now
        self.results = Results(ask.n)
        self._limit: asyncio.Timeout | None = None

    async def follow(self, asked: AsyncGenerator[Event, None]) -> None:
        """Take in what happens, to its end, or, once it is interrupted, for as long as that may take. Raises what the
        ask raises; cancelled, it cancels what is not done."""
        limit = self._limit = asyncio.timeout(None)
        try:
            async with limit, contextlib.aclosing(asked):
                async for event in asked:
                    self.results.receive(event)
        except TimeoutError:
            if not limit.expired():
                raise

    @property
    def interrupted(self) -> bool:
        """Whether its client wants no further step."""
        return self.enough.is_set()

    @property
    def made(self) -> list[Result]:
        """The pictures that came."""
        return [result for result in self.results.all if result.is_whole and result.content]

    def interrupt(self) -> None:
        """No further step is wanted; pictures come as far as they are."""
        self.enough.set()
        if self._limit is not None and self._limit.when() is None:
            self._limit.reschedule(asyncio.get_running_loop().time() + PATIENCE_S)


class Desk:
    """See the module."""

    def __init__(self) -> None:
        self.drawings: list[Drawing] = []
        self.chosen = ""
        self._usual = ""

    def checkpoint(self, served: Sequence[str]) -> str:
        """The model that pictures are made with if a call names none: the one that was chosen, or one of those that are
        served, the same as long as it is. Empty if none is."""
        if self.chosen:
            return self.chosen
        if self._usual not in served:
            self._usual = served[0] if served else ""
        return self._usual

    def preview(self) -> bytes:
        """The newest small JPEG of a picture that is being made; empty if there is none."""
        return next((result.preview for result in self._results() if result.is_being_made and result.preview), b"")

    def progress(self, now: int) -> dict[str, Any]:
        """As `/progress` tells it, without the picture."""
        results = self._results()
        finished = sum(result.is_whole for result in results)
        done = sum(1.0 if result.is_whole else result.done / result.total for result in results if result.total)
        progress = min(1.0, BEGUN + done / len(results)) if results else 0.0
        current = next((result for result in results if result.is_being_made), None)
        steps = max((drawing.ask.steps for drawing in self.drawings), default=0)
        return {
            "progress": progress,
            "eta_relative": self._seconds_left(results, progress, now),
            "state": {
                "skipped": False,
                "interrupted": any(drawing.interrupted for drawing in self.drawings),
                "stopping_generation": False,
                "job": "scripts_txt2img" if results else "",
                "job_count": len(results),
                "job_timestamp": timestamp(self.drawings[0].since) if results else "0",
                "job_no": finished,
                "sampling_step": current.done if current else 0,
                "sampling_steps": current.total or steps if current else steps,
            },
            "textinfo": _waiting(results),
        }

    def _results(self) -> list[Result]:
        return [result for drawing in self.drawings for result in drawing.results.all]

    def _seconds_left(self, results: Sequence[Result], progress: float, now: int) -> float:
        if progress <= BEGUN:
            return float(max((result.wait for result in results), default=0))
        passed = (now - min(drawing.since for drawing in self.drawings)) / 1000
        return max(0.0, passed / progress - passed)


def _waiting(results: Sequence[Result]) -> str | None:
    """In words, as long as no worker has any of it."""
    if not results or any(result.worker or result.is_whole for result in results):
        return None
    ahead = max(result.ahead for result in results)
    wait = max(result.wait for result in results)
    soon = f", in about {wait} s" if wait else ""
    return f"waiting for a worker: {ahead} before it{soon}"
