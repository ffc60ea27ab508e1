"""Whole answers, and what becomes known of each choice on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from peer import events
from peer.events import Event
from peer.gateway.errors import Troubled
from peer.gateway.openai.lines import Finish

#: Said of what was not made to its end.
CUT = "the answer was cut off, as the gateway is shutting down: ask again when it is back"


@dataclass
class Choice:
    """One text of an answer.

    index: its place in the whole answer. echo: said again before it. keeps: whether the pieces are kept. begun: whether
    any came. prompt_tokens, tokens: of what was said to the model, and of its answer; known once it is whole.
    """

    index: int
    echo: str = ""
    keeps: bool = True
    pieces: list[str] = field(default_factory=list)
    begun: bool = False
    model: str = ""
    finish: Finish | None = None
    fingerprint: str = ""
    prompt_tokens: int = 0
    tokens: int = 0
    _attempt: int = 0
    _done: int = 0
    _earlier: int = 0

    def receive(self, event: Event) -> None:
        """Take in what happened to it. Raises `Troubled` if it was cut off: the program itself cannot have wanted that,
        for it would not be there any more."""
        match event:
            case events.TextPiece():
                self.begun = True
                if self.keeps:
                    self.pieces.append(event.text)
            case events.Progress():
                self._done = event.done
            case events.Leased():
                self.model = event.model
                if event.attempt != self._attempt:
                    # The next worker goes on from what came, and counts only what it makes itself.
                    self._earlier, self._done, self._attempt = self._earlier + self._done, 0, event.attempt
            case events.Restarted():
                self.pieces.clear()
                self._earlier = self._done = 0
            case events.Received(finish="cancelled"):
                raise Troubled("unavailable", CUT)
            case events.Received():
                self.finish = "length" if event.finish == "length" else "stop"
                self.fingerprint = event.engine
                self.tokens = self._earlier + event.used
                self.prompt_tokens = max(0, event.context_used - self.tokens)

    @property
    def text(self) -> str:
        """The text so far."""
        return self.echo + "".join(self.pieces)


def usage_of(choices: Sequence[Choice], n: int) -> dict[str, Any]:
    """Tokens in all; each of a request's prompts counts once, whatever the number `n` of choices for it."""
    prompts: dict[int, int] = {}
    for choice in choices:
        prompts[choice.index // n] = max(prompts.get(choice.index // n, 0), choice.prompt_tokens)
    asked, made = sum(prompts.values()), sum(choice.tokens for choice in choices)
    return {"prompt_tokens": asked, "completion_tokens": made, "total_tokens": asked + made}


def whole(name: str, created: int, model: str, choices: Sequence[Choice], n: int, *, chat: bool) -> dict[str, Any]:
    """The answer that is not streamed."""
    return {
        "id": name,
        "object": "chat.completion" if chat else "text_completion",
        "created": created,
        "model": model,
        "system_fingerprint": next((choice.fingerprint for choice in choices), "") or None,
        "choices": [
            {
                "index": choice.index,
                **(_message(choice.text) if chat else {"text": choice.text}),
                "logprobs": None,
                "finish_reason": choice.finish,
            }
            for choice in choices
        ],
        "usage": usage_of(choices, n),
    }


def _message(text: str) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": text, "refusal": None}}
