"""What clients of OpenAI's API send, typed.

A field that is not known is passed over, as OpenAI's clients send many that say nothing to a horde. One that is known
and cannot be served is either refused, where an answer without it would be wrong, or named as ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from peer.gateway import bodies
from peer.gateway.errors import Troubled
from protocol.work import MAX_N

#: Prompts of one request for completions; each of them is a request of its own to the horde.
MAX_PROMPTS = 32

T = TypeVar("T", bound="Body")


class Body(msgspec.Struct, frozen=True, kw_only=True):
    """A request's body."""

    @property
    def ignored(self) -> Sequence[str]:
        """Fields that were given, would change the answer a little elsewhere, and change nothing here."""
        return ()

    def check(self) -> None:
        """Raise `Troubled` for whatever is asked for and cannot be had."""


class StreamOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to stream. include_usage: with the count of tokens at the end."""

    include_usage: bool | None = None


class ResponseFormat(msgspec.Struct, frozen=True, kw_only=True):
    """What form an answer has."""

    type: str = "text"


class Sampled(Body, frozen=True, kw_only=True):
    """What chats and completions have in common. top_k, min_p, repeat_penalty (also repetition_penalty) and max_price
    are not OpenAI's; llama.cpp, vLLM and others take the first of these by the same names."""

    model: str | None = None
    max_tokens: int | None = None
    n: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    repetition_penalty: float | None = None
    max_price: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] | None = None

    @property
    def ignored(self) -> Sequence[str]:
        return [name for name in ("frequency_penalty", "presence_penalty") if getattr(self, name)]

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts that end an answer."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(text for text in given if text)

    @property
    def with_usage(self) -> bool:
        """Whether a stream ends with the count of tokens."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def most(self) -> int | None:
        """How many tokens to make at most; None if it was not said. Programs that are used to llama.cpp say -1."""
        return None if self.max_tokens == -1 else self.max_tokens

    def check(self) -> None:
        if self.logit_bias:
            raise unsupported("logit_bias", "logit_bias is not supported: a horde's workers take none. Leave it out.")
        _check_n(self.n)


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a message."""

    type: str
    text: str | None = None


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One turn of a conversation."""

    role: str
    content: str | list[Part] | None = None
    tool_calls: list[Any] | None = None
    function_call: Any = None

    def plain(self, place: str) -> tuple[str, str]:
        """Role and text, as a horde knows them; raises `Troubled` naming `place`."""
        match self.role:
            case "system" | "developer":
                role = "system"
            case "user" | "assistant":
                role = self.role
            case "tool" | "function":
                raise unsupported(f"{place}.role", f"{place} has role {self.role!r}: {_NO_TOOLS}")
            case _:
                raise bad_value(f"{place}.role", f"{place} has role {self.role[:40]!r}: wanted system, developer, user "
                                "or assistant")  # fmt: skip
        if self.tool_calls or self.function_call:
            raise unsupported(f"{place}.tool_calls", f"{place} calls a tool: {_NO_TOOLS}")
        if self.content is None or isinstance(self.content, str):
            return role, self.content or ""
        # One line for each, as llama.cpp and vLLM put them together.
        return role, "\n".join(_text_of(part, f"{place}.content[{at}]") for at, part in enumerate(self.content))


class Chat(Sampled, frozen=True, kw_only=True):
    """The body of chat/completions."""

    messages: list[Message]
    max_completion_tokens: int | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    functions: list[Any] | None = None
    function_call: Any = None
    response_format: ResponseFormat | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    modalities: list[str] | None = None
    audio: Any = None
    web_search_options: Any = None

    @property
    def most(self) -> int | None:
        newer = self.max_completion_tokens
        said = self.max_tokens if newer is None else newer
        return None if said == -1 else said

    @property
    def turns(self) -> list[tuple[str, str]]:
        """The conversation as pairs of role and text."""
        if not self.messages:
            raise bad_value("messages", "messages is empty: say something")
        return [message.plain(f"messages[{at}]") for at, message in enumerate(self.messages)]

    def check(self) -> None:
        super().check()
        if self.tools and self.tool_choice != "none":
            raise unsupported("tools", f'tools are given: {_NO_TOOLS} Or send tool_choice "none".')
        if self.functions and self.function_call != "none":
            raise unsupported("functions", f'functions are given: {_NO_TOOLS} Or send function_call "none".')
        if self.response_format is not None and self.response_format.type != "text":
            raise unsupported(
                "response_format",
                f"response_format {self.response_format.type[:40]!r}: a horde answers in plain text only. Ask for the "
                "form you want in words, and leave response_format out.",
            )
        if self.logprobs or self.top_logprobs:
            raise unsupported("logprobs", _NO_LOGPROBS)
        if self.audio is not None or "audio" in (self.modalities or ()):
            raise unsupported("modalities", "audio is asked for: a horde makes texts and pictures. Leave it out.")
        if self.web_search_options is not None:
            raise unsupported("web_search_options", "a search of the web is asked for: workers answer without. "
                              "Leave it out.")  # fmt: skip


class Completion(Sampled, frozen=True, kw_only=True):
    """The body of completions."""

    prompt: str | list[Any] | None = None
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = None
    logprobs: int | bool | None = None

    @property
    def prompts(self) -> list[str]:
        """The texts to go on from; one at least."""
        given = [self.prompt] if isinstance(self.prompt, str) else self.prompt or []
        if not given or not all(given):
            raise bad_value("prompt", "prompt is empty: give a text to go on from, or a list of texts")
        if len(given) > MAX_PROMPTS:
            raise bad_value("prompt", f"{len(given)} prompts: wanted {MAX_PROMPTS} or fewer in one request")
        texts = [text for text in given if isinstance(text, str)]
        if len(texts) < len(given):
            raise unsupported("prompt", "prompt has something else than texts in it: tokens are the model's own, and "
                              "which worker serves is not known yet. Send the text.")  # fmt: skip
        return texts

    def check(self) -> None:
        super().check()
        if self.suffix:
            raise unsupported("suffix", "suffix is given: text is only gone on from here, not filled in. Leave it out.")
        if self.best_of is not None and self.best_of > (self.n or 1):
            raise unsupported("best_of", f"best_of {self.best_of}: nothing says here which of several texts is best. "
                              "Ask for n of them, and choose.")  # fmt: skip
        # 0 asks for the probability of each token that was drawn.
        if self.logprobs is not None and self.logprobs is not False:
            raise unsupported("logprobs", _NO_LOGPROBS)


class Picture(Body, frozen=True, kw_only=True):
    """The body of images/generations. steps, seed, negative_prompt, guidance, sampler and max_price are not OpenAI's;
    its clients send them by `extra_body`."""

    prompt: str
    model: str | None = None
    n: int | None = None
    size: str | None = None
    response_format: str | None = None
    output_format: str | None = None
    background: str | None = None
    stream: bool | None = None
    partial_images: int | None = None
    steps: int | None = None
    seed: int | None = None
    negative_prompt: str | None = None
    guidance: float | None = None
    sampler: str | None = None
    max_price: float | None = None

    @property
    def media_type(self) -> str:
        """What kind of file is wanted."""
        wanted = self.output_format or "png"
        if wanted not in ("png", "jpeg", "webp"):
            raise bad_value("output_format", f"output_format {wanted[:40]!r}: wanted png, jpeg or webp")
        return f"image/{wanted}"

    @property
    def as_url(self) -> bool:
        """Whether the answer says where the picture can be fetched; else it holds the picture."""
        match self.response_format:
            case None | "b64_json":
                return False
            case "url":
                return True
            case other:
                raise bad_value("response_format", f"response_format {other[:40]!r}: wanted b64_json or url")

    def measures(self, most_pixels: int) -> tuple[int, int]:
        """Width and height. `auto`, or nothing: a square of 512 pixels, or less where the model makes less; most_pixels
        is 0 if that is not known."""
        if self.size is None or self.size == "auto":
            side = 512
            while most_pixels and side > 64 and side * side > most_pixels:
                side -= 64
            return side, side
        width, times, height = self.size.partition("x")
        if not (times and _is_small_number(width) and _is_small_number(height)):
            raise bad_value("size", f"size {self.size[:40]!r}: wanted WIDTHxHEIGHT in pixels, as in 512x512, or auto")
        return int(width), int(height)

    def check(self) -> None:
        if not self.prompt.strip():
            raise bad_value("prompt", "the prompt is empty: say what is wanted")
        _check_n(self.n)
        if self.stream or self.partial_images:
            raise unsupported("stream", "pictures are not streamed here. Leave stream and partial_images out.")
        if self.background == "transparent":
            raise unsupported("background", "a transparent background cannot be asked for. Leave background out.")


def read(raw: bytes, kind: type[T]) -> T:
    """The body in `raw`, checked; raises `Troubled`."""
    body = bodies.decode(raw or b"{}", kind)
    body.check()
    return body


def _text_of(part: Part, place: str) -> str:
    match part.type:
        case "text" | "input_text":
            return part.text or ""
        case "image_url" | "input_image":
            raise unsupported(place, f"{place} is a picture: no model here looks at pictures. Send text only.")
        case _:
            raise unsupported(place, f"{place} is of type {part.type[:40]!r}: wanted text")


def bad_value(field: str, text: str) -> Troubled:
    """A value that cannot be."""
    return Troubled("bad_value", text, field)


def unsupported(field: str, text: str) -> Troubled:
    """Something that OpenAI has and a horde has not, asked for in a way that makes an answer without it wrong."""
    return Troubled("unsupported", text, field)


def _check_n(n: int | None) -> None:
    # What is above that no horde takes, and each is given room here before a horde is asked.
    if n is not None and not 1 <= n <= MAX_N:
        raise bad_value("n", f"n {n}: wanted 1 to {MAX_N}")


def _is_small_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 6


_NO_TOOLS = "a horde's models call no tools. Ask without them."
_NO_LOGPROBS = "logprobs are asked for: workers do not tell the probability of tokens. Leave logprobs out."
