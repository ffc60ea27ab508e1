"""The door behind which the GPU sits: one job in, events out.

An engine never sees a socket, a key or a lease. It is told what to make, yields events as it goes, and stops early
when asked to.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Self

from protocol.messages import Offer
from protocol.work import PrivatePart, Work


@dataclass(frozen=True)
class Task:
    """What an engine is to make.

    model: one of its offers. work, private: as in the request. seed: of this very job (request's seed + index).
    prefix: text that was already shown and is to be continued; empty for a fresh start. preview_every: steps between
    two previews, 0 for none.
    """

    model: str
    work: Work
    private: PrivatePart
    seed: int
    prefix: str = ""
    preview_every: int = 0


@dataclass(frozen=True)
class StepsDone:
    """Steps or tokens done, of how many at most."""

    done: int
    total: int


@dataclass(frozen=True)
class PreviewMade:
    """A small JPEG (at most 64 KiB) of the picture so far."""

    jpeg: bytes


@dataclass(frozen=True)
class TextMade:
    """The next piece of the answer, without what `prefix` held."""

    text: str


@dataclass(frozen=True)
class ArtifactMade:
    """One file of the result, whole. A text job makes none: its pieces are the result."""

    media_type: str
    content: bytes


@dataclass(frozen=True)
class Done:
    """The last event. used: steps done or tokens made (without those of `prefix`). context_used: tokens of prompt,
    prefix and answer together (text). finish: `stop` (came to its end), `length` (reached the token limit) or
    `cancelled` (was told to stop; what there is came before this event)."""

    used: int
    context_used: int = 0
    finish: Literal["stop", "length", "cancelled"] = "stop"


Event = StepsDone | PreviewMade | TextMade | ArtifactMade | Done


class EngineError(Exception):
    """The engine cannot make this; `code` says why in a word: `failed`, `crashed`, `hung`, `too_long`,
    `prefix_unsupported`, `unsupported`, `unavailable` (what it works with does not answer for now)."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class Engine(ABC):
    """Makes one job at a time. Whoever opens it closes it: use it as an async context manager."""

    @property
    @abstractmethod
    def offers(self) -> Sequence[Offer]:
        """What it serves, known once it is open; each offer names the engine class within which seeds repeat. They may
        come and go; there are none while it can serve nothing."""

    def when_reoffered(self, call: Callable[[str], None]) -> None:  # noqa: B027 (most engines' offers stay)
        """Call this whenever `offers` change, with the reason if there are none; at once if one is known by now."""

    @abstractmethod
    async def open(self) -> None:
        """Load what is needed; raises `EngineError` if that cannot be done."""

    @abstractmethod
    def run(self, task: Task, stop: asyncio.Event) -> AsyncGenerator[Event, None]:
        """Yield events, `Done` last. When `stop` is set, end within a step with what there is; when the iterator is
        closed, end within a step with nothing. Raises `EngineError`; the engine can be used again afterwards."""

    @abstractmethod
    async def close(self) -> None:
        """End everything that `open` began; no process is left behind."""

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
