"""What is said to a model, as the private part of a request holds it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peer.events import BadRequest
from protocol.work import ChatMessage, TextPrivate


def text_private(prompt: str | Sequence[tuple[str, str]], system: str, *, raw: bool, **settings: Any) -> TextPrivate:
    """The private part of a text: a question, the turns of a conversation, or raw text; raises `BadRequest`."""
    if raw:
        if not isinstance(prompt, str) or system:
            raise BadRequest("a raw prompt is one text, without turns and without a system message")
        return TextPrivate(prompt=prompt, **settings)
    turns = [("user", prompt)] if isinstance(prompt, str) else list(prompt)
    if system:
        turns.insert(0, ("system", system))
    return TextPrivate(messages=tuple(_turn(role, content) for role, content in turns), **settings)


def _turn(role: str, content: str) -> ChatMessage:
    match role:
        case "system" | "user" | "assistant":
            return ChatMessage(role=role, content=content)
        case _:
            raise BadRequest(f"role {role!r}: wanted system, user or assistant")
