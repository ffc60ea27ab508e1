"""What any door makes of its client's words, and what comes of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

from peer import events
from peer.events import Event
from protocol.work import Kind

if TYPE_CHECKING:
    import asyncio

    from peer.client import Client


class Caller(Enum):
    """As whom a horde is asked."""

    MEMBER = "member"  # the gateway's account, which pays
    ANYBODY = "anybody"  # a fresh key without an account, which can spend nothing


@dataclass(frozen=True, kw_only=True)
class ImageAsk:
    """Pictures that are wanted. models: names, any of which will do, also as HORDE/MODEL; none means any. seed: of the
    first picture, the next gets the next; random if None. The other values are those of `Client.image`."""

    kind: ClassVar[Kind] = "image"

    prompt: str
    negative_prompt: str = ""
    models: Sequence[str] = ()
    width: int = 512
    height: int = 512
    steps: int = 30
    guidance: float = 7.5
    seed: int | None = None
    sampler: str = ""
    n: int = 1
    max_price: float = 0
    enough: asyncio.Event | None = field(default=None, compare=False, repr=False)

    def put(self, client: Client, models: Sequence[str]) -> AsyncGenerator[Event, None]:
        """Ask this horde for one of these models; raises `BadRequest` at once."""
        return client.image(
            self.prompt,
            negative_prompt=self.negative_prompt,
            models=models,
            width=self.width,
            height=self.height,
            steps=self.steps,
            guidance=self.guidance,
            seed=self.seed,
            sampler=self.sampler,
            n=self.n,
            max_price=self.max_price,
            enough=self.enough,
        )


@dataclass(frozen=True, kw_only=True)
class TextAsk:
    """Texts that are wanted. prompt: turns as pairs (role, content), or raw text to go on from. max_tokens, context:
    None for what is usual here; `Hordes.ask` works them out. or_fewer: fewer than `max_tokens` will do where models or
    rules allow no more. The other values are those of `Client.text`."""

    kind: ClassVar[Kind] = "text"

    prompt: str | Sequence[tuple[str, str]]
    models: Sequence[str] = ()
    max_tokens: int | None = None
    context: int | None = None
    or_fewer: bool = False
    temperature: float = 0.8
    top_p: float = 0.95
    top_k: int = 40
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    stop: Sequence[str] = ()
    seed: int | None = None
    n: int = 1
    max_price: float = 0

    @property
    def texts(self) -> Sequence[str]:
        """All that is said to the model."""
        return [self.prompt] if isinstance(self.prompt, str) else [content for _, content in self.prompt]

    def put(self, client: Client, models: Sequence[str], max_tokens: int, context: int) -> AsyncGenerator[Event, None]:
        """Ask this horde for one of these models; raises `BadRequest` at once."""
        return client.text(
            self.prompt,
            raw=isinstance(self.prompt, str),
            models=models,
            max_tokens=max_tokens,
            context=context,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            repeat_penalty=self.repeat_penalty,
            stop=self.stop,
            seed=self.seed,
            n=self.n,
            max_price=self.max_price,
        )


Ask = ImageAsk | TextAsk


@dataclass
class Result:
    """One of an ask's results, as far as it is. index: which, from 0. model, worker (its key): who makes it, empty
    before that. price: thousandths at most. done, total: steps or tokens. ahead, workers, wait: of the last position
    heard (jobs before it, who could serve it, seconds until one is expected to).
    restarts: how often a worker gave it up. preview: the newest small JPEG.
    content, media_type, seed: of a picture. finish: `stop`, `length` or `cancelled`; empty until it is whole. used:
    steps or tokens made. paid: thousandths from our kudos, once it is settled."""

    index: int
    job: bytes = b""
    model: str = ""
    worker: bytes = b""
    price: int = 0
    ahead: int = 0
    workers: int = 0
    wait: int = 0
    restarts: int = 0
    done: int = 0
    total: int = 0
    preview: bytes = b""
    content: bytes = b""
    media_type: str = ""
    seed: int = 0
    finish: str = ""
    used: int = 0
    settled: bool = False
    paid: int = 0
    pieces: list[str] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether all of it came and was checked."""
        return bool(self.finish)

    @property
    def is_being_made(self) -> bool:
        """Whether a worker has it, and it is not whole yet."""
        return bool(self.worker) and not self.finish

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self.pieces)


class Results:
    """The results of one ask, built up from its events."""

    def __init__(self, n: int) -> None:
        self.all = [Result(index) for index in range(n)]

    def receive(self, event: Event) -> Result:
        """Take one event in; the result that it is about."""
        result = self.all[event.index]
        match event:
            case events.TextPiece():
                result.pieces.append(event.text)
            case events.Progress():
                result.done, result.total = event.done, event.total
            case events.Preview():
                result.preview = event.jpeg
            case events.Queued():
                result.job = event.job
            case events.Position():
                result.ahead, result.workers, result.wait = event.ahead, event.workers, event.wait
            case events.Leased():
                result.worker, result.model, result.price = event.worker, event.model, event.price
            case events.Requeued():
                result.worker = b""
                result.restarts += 1
            case events.Restarted():
                result.pieces.clear()
                result.done = 0
            case events.Picture():
                result.content, result.media_type, result.seed = event.content, event.media_type, event.seed
            case events.Received():
                result.finish, result.used, result.preview = event.finish, event.used, b""
            case events.Settled():
                result.settled, result.paid = True, event.paid
        return result


async def gather(ask: Ask, asked: AsyncIterator[Event]) -> list[Result]:
    """All results of an ask, when they are whole; raises what the ask raises."""
    results = Results(ask.n)
    async for event in asked:
        results.receive(event)
    return results.all
