"""From OpenAI's words to a horde's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peer.gateway.asks import ImageAsk, TextAsk
from peer.gateway.catalogue import Chosen
from peer.gateway.errors import Troubled
from peer.gateway.openai.bodies import Chat, Completion, Picture, Sampled
from protocol.work import MAX_PRIVATE_BYTES, MAX_PROMPT_CHARACTERS, MAX_SEED

#: What to say for a model where a program insists on one and any will do.
ANY_MODEL = "default"
#: Denoising steps where the client says nothing, unless the model makes fewer.
USUAL_STEPS = 30


def models_of(name: str | None) -> tuple[str, ...]:
    """The models that are wanted; none means any."""
    return () if not name or name == ANY_MODEL else (name,)


def chat_ask(body: Chat) -> TextAsk:
    """What a chat asks for."""
    turns = body.turns
    _check_length([(f"messages[{at}].content", content) for at, (_, content) in enumerate(turns)])
    return TextAsk(prompt=turns, **_sampling(body))


def completion_asks(body: Completion) -> list[TextAsk]:
    """What a request for completions asks for: one ask for each prompt."""
    sampling = _sampling(body)
    for prompt in body.prompts:
        _check_length([("prompt", prompt)])
    return [TextAsk(prompt=prompt, **sampling) for prompt in body.prompts]


def wanted_picture(body: Picture) -> ImageAsk:
    """As much of the ask as says who can serve it."""
    return ImageAsk(prompt=body.prompt, models=models_of(body.model))


def picture_ask(body: Picture, chosen: Chosen) -> ImageAsk:
    """What a request for pictures asks for. chosen: who serves it; what the client does not say fits these."""
    width, height = body.measures(chosen.most("max_pixels"))
    steps = body.steps
    if steps is None:
        steps = min(USUAL_STEPS, chosen.most("max_steps") or USUAL_STEPS)
    said = {
        "negative_prompt": body.negative_prompt,
        "guidance": body.guidance,
        "sampler": body.sampler,
        "seed": _seed(body.seed, body.n or 1),
        "n": body.n,
        "max_price": body.max_price,
    }
    return ImageAsk(
        prompt=body.prompt, models=models_of(body.model), width=width, height=height, steps=steps, **_given(said)
    )


def _check_length(said: Sequence[tuple[str, str]]) -> None:
    """Refuse what no request to a horde can hold; said: texts by the names of their fields."""
    for field, text in said:
        if len(text) > MAX_PROMPT_CHARACTERS:
            characters = f"{field} has {len(text)} characters: at most {MAX_PROMPT_CHARACTERS} can be asked for"
            raise Troubled("too_long", characters, field)
    size = sum(len(text.encode()) for _, text in said)
    if size > MAX_PRIVATE_BYTES:
        raise Troubled("too_long", f"{size} bytes of text in all: at most {MAX_PRIVATE_BYTES} can be asked for")


def _sampling(body: Sampled) -> dict[str, Any]:
    said = {
        "max_tokens": body.most,
        # A bound and no wish: many programs always send a large one. An answer that ends at a lower says so.
        "or_fewer": True,
        "temperature": body.temperature,
        "top_p": body.top_p,
        # -1 is what vLLM calls none, and programs that are used to it.
        "top_k": 0 if body.top_k == -1 else body.top_k,
        "min_p": body.min_p,
        "repeat_penalty": body.repeat_penalty if body.repeat_penalty is not None else body.repetition_penalty,
        "seed": _seed(body.seed, body.n or 1),
        "n": body.n,
        "max_price": body.max_price,
    }
    return {"models": models_of(body.model), "stop": body.stops, **_given(said)}


def _given(said: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in said.items() if value is not None}


def _seed(seed: int | None, n: int) -> int | None:
    """A horde's seed for one of OpenAI's, which may be any number of 64 bits: the same for the same. -1 means any, as
    programs that are used to other servers say it."""
    return None if seed is None or seed == -1 else seed % (MAX_SEED - n + 2)
