"""An answer that is streamed: what is written for each thing that happens."""

from __future__ import annotations

from collections.abc import Sequence

from peer import events
from peer.events import Event
from peer.gateway.errors import Troubled
from peer.gateway.openai.answers import Choice, usage_of
from peer.gateway.openai.lines import DONE, Lines


class Talk:
    """One answer's stream. n: choices for each prompt. model: the name that was asked for, until it is known which one
    serves."""

    def __init__(
        self, name: str, created: int, model: str, choices: Sequence[Choice], n: int, *, chat: bool, with_usage: bool
    ) -> None:
        self._name = name
        self._created = created
        self._model = model
        self._choices = choices
        self._n = n
        self._chat = chat
        self._with_usage = with_usage
        self._lines: Lines | None = None

    def hear(self, at: int, event: Event) -> bytes:
        """What is to be written now that this happened to the ask for prompt `at`; empty for nothing.

        Raises `Troubled` where text that was written is void, or was cut off.
        """
        choice = self._choices[at * self._n + event.index]
        if isinstance(event, events.TextPiece):
            if choice.begun:
                return self._lines_for(choice).piece(choice.index, event.text)
            choice.receive(event)
            return self._opening(choice) + self._lines_for(choice).piece(choice.index, event.text)
        if isinstance(event, events.Restarted) and choice.begun:
            raise Troubled(
                "failed",
                f"choice {choice.index} begins anew, as the worker that made it is gone and no other can go on from "
                "what it made. What came of it is void: ask again.",
            )
        choice.receive(event)
        if not isinstance(event, events.Received):
            return b""
        before = b"" if choice.begun else self._opening(choice)
        return before + self._lines_for(choice).closing(choice.index, choice.finish or "stop", choice.fingerprint)

    def end(self) -> bytes:
        """What is to be written behind the last choice."""
        usage = usage_of(self._choices, self._n)
        return (self._lines.usage(usage) if self._lines is not None else b"") + DONE

    def _opening(self, choice: Choice) -> bytes:
        lines = self._lines_for(choice)
        return lines.opening(choice.index) + (lines.piece(choice.index, choice.echo) if choice.echo else b"")

    def _lines_for(self, choice: Choice) -> Lines:
        if self._lines is None:
            model = choice.model or self._model
            self._lines = Lines(self._name, self._created, model, chat=self._chat, with_usage=self._with_usage)
        return self._lines
