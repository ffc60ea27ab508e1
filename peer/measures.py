"""What a request asks for in measures, from what people say; all that price and place depend on."""

from __future__ import annotations

from collections.abc import Sequence

from peer.events import BadRequest
from peer.ranges import encoded, explain
from protocol import codec
from protocol.errors import Refusal
from protocol.work import ImageWork, PublicPart, TextWork, Work


def thousandths(name: str, value: float) -> int:
    """A number as it travels; raises `BadRequest` if it is none."""
    try:
        return round(value * 1000)
    except (ValueError, OverflowError) as error:  # not a number, or infinite
        raise BadRequest(f"{name} {value}: wanted a number") from error


def image_work(width: int = 512, height: int = 512, steps: int = 30, guidance: float = 7.5) -> ImageWork:
    """The measures of a picture: guidance above 1 takes two passes for each step."""
    passes = 2 if thousandths("guidance", guidance) > 1000 else 1
    return ImageWork(width=width, height=height, steps=steps, guidance_passes=passes)


def text_work(max_tokens: int = 256, context: int = 2048) -> TextWork:
    """The measures of a text; raises `BadRequest` where nothing is left for a prompt."""
    if context <= max_tokens:
        raise BadRequest(
            f"context {context} leaves no room for a prompt beside an answer of up to {max_tokens} tokens: "
            "ask for fewer tokens (max_tokens) or for more context"
        )
    return TextWork(max_tokens=max_tokens, context_tokens=context)


def public_part(work: Work, models: Sequence[str], n: int, max_price: float) -> PublicPart:
    """The public part of a request."""
    return PublicPart(work=work, models=tuple(models), n=n, max_price=thousandths("max_price", max_price))


def check_public(public: PublicPart) -> None:
    """Refuse here what every tracker would."""
    try:
        codec.decode(encoded(public), PublicPart)
    except Refusal as error:
        raise BadRequest(explain(str(error), public) or f"this cannot be asked for: {error}") from error
