"""The lines of a stream. What is the same for each token is encoded once."""

from __future__ import annotations

import json
from typing import Any, Literal

from peer.gateway.openai.faults import Fault

Finish = Literal["stop", "length"]

DONE = b"data: [DONE]\n\n"
#: A comment, which every reader of server-sent events skips: by it the client and what lies between know that we live.
WAITING = b": waiting\n\n"


def line(content: object) -> bytes:
    """One event."""
    # Escaped down to ASCII: some readers take U+2028 and the like in a string for the end of a line.
    return f"data: {json.dumps(content, separators=(',', ':'))}\n\n".encode()


def error_line(fault: Fault) -> bytes:
    """The last line of a stream that ends badly."""
    return b"data: " + fault.as_json() + b"\n\n"


class Lines:
    """The lines of one answer. chat: of a chat, else of a completion. with_usage: each line has the field `usage`."""

    def __init__(self, name: str, created: int, model: str, *, chat: bool, with_usage: bool) -> None:
        self._chat = chat
        self._with_usage = with_usage
        self._head: dict[str, Any] = {
            "id": name,
            "object": "chat.completion.chunk" if chat else "text_completion",
            "created": created,
            "model": model,
        }
        self._around: dict[int, tuple[str, str]] = {}

    def opening(self, index: int) -> bytes:
        """What comes before a choice's first piece: in a chat, who speaks."""
        return self._line(index, {"delta": {"role": "assistant", "content": ""}}, None) if self._chat else b""

    def piece(self, index: int, text: str) -> bytes:
        """The next piece of a choice."""
        around = self._around.get(index)
        if around is None:
            mark = "\0"
            content = {"delta": {"content": mark}} if self._chat else {"text": mark}
            # From the right: a model may have any name.
            before, _, after = self._line(index, content, None).decode().rpartition(json.dumps(mark))
            around = self._around[index] = (before, after)
        return (around[0] + json.dumps(text) + around[1]).encode()

    def closing(self, index: int, finish: Finish, fingerprint: str) -> bytes:
        """What comes behind a choice's last piece. fingerprint: within which a seed repeats."""
        return self._line(index, {"delta": {}} if self._chat else {"text": ""}, finish, fingerprint)

    def usage(self, usage: dict[str, Any]) -> bytes:
        """The count of tokens, behind all choices; nothing if it was not asked for."""
        return line({**self._head, "choices": [], "usage": usage}) if self._with_usage else b""

    def _line(self, index: int, content: dict[str, Any], finish: Finish | None, fingerprint: str = "") -> bytes:
        said: dict[str, Any] = {**self._head}
        if fingerprint:
            said["system_fingerprint"] = fingerprint
        said["choices"] = [{"index": index, **content, "logprobs": None, "finish_reason": finish}]
        if self._with_usage:
            said["usage"] = None
        return line(said)
