"""One result of a request, for those who want no more of it than that: the picture, or the whole answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypedDict

from peer.events import Event, JobFailed, Leased, Picture, Received, Restarted, TextPiece


class PictureOptions(TypedDict, total=False):
    """How a picture is to be; `Client.image` says what each is if it is left out."""

    models: Sequence[str]
    width: int
    height: int
    steps: int
    guidance: float
    negative_prompt: str
    seed: int | None
    sampler: str
    max_price: float
    user: str


class ImageOptions(PictureOptions, total=False):
    """The same for several."""

    n: int


class AnswerOptions(TypedDict, total=False):
    """How an answer is to be; `Client.text` says what each is if it is left out."""

    system: str
    raw: bool
    models: Sequence[str]
    max_tokens: int
    context: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repeat_penalty: float
    stop: Sequence[str]
    seed: int | None
    max_price: float
    user: str


class TextOptions(AnswerOptions, total=False):
    """The same for several."""

    n: int


#: Said where a job ends well and brings nothing, which no tracker that keeps to the standard makes happen.
NOTHING_CAME = "the job ended and nothing came of it"


@dataclass(frozen=True)
class Answer:
    """A whole text, checked against what its worker signed; `str()` gives the text.

    model: who wrote it. finish: `stop` if the model was done, `length` if the tokens were used up. tokens: made in the
    last attempt; context_tokens: of prompt and answer together, as the engine counts them.
    """

    text: str
    model: str
    finish: str
    tokens: int
    context_tokens: int

    def __str__(self) -> str:
        return self.text


async def picture_of(events: AsyncGenerator[Event, None]) -> Picture:
    """The one picture of this request, once it is acknowledged; who cancels this cancels the request."""
    found: Picture | None = None
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Picture):
                found = event
            elif isinstance(event, Received) and found is not None:
                return found
    raise JobFailed("no_result", NOTHING_CAME)


async def answer_of(events: AsyncGenerator[Event, None]) -> Answer:
    """The one text of this request, once it is acknowledged; who cancels this cancels the request."""
    pieces: list[str] = []
    model = ""
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Leased):
                model = event.model
            elif isinstance(event, Restarted):
                pieces.clear()
            elif isinstance(event, TextPiece):
                pieces.append(event.text)
            elif isinstance(event, Received):
                return Answer("".join(pieces), model, event.finish, event.used, event.context_used)
    raise JobFailed("no_result", NOTHING_CAME)
