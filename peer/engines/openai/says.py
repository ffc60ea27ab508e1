"""What servers with OpenAI's API say, in all the ways in which they say it: no socket in it.

Words of the server's own are never passed on, for they may quote what was asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from peer.engines.base import Done, EngineError, StepsDone, TextMade
from peer.engines.maker import Job
from peer.engines.stops import StopFilter

#: A line or an answer longer than this is none that a server sends about a text.
MAX_BYTES = 4 * 1024 * 1024
#: No token is longer than this for long: a server that says more for each was not asked for it.
MOST_TOKEN_BYTES = 256
ROOM_BYTES = 512 * 1024
#: Servers count no higher; what is above that is no count.
MAX_COUNT = 2**31 - 1
#: How reasoning is told apart from the answer, as models do that tell both in one.
THINK, THOUGHT = "<think>", "</think>\n\n"

Blame = Literal["none", "doubt", "failure", "model", "server"]

_TOO_LONG = re.compile(
    r"context (length|size|window)|maximum input length|max_tokens must be at least 1, got -|too many tokens|"
    r"exceeds? the (available |maximum )?context",
    re.IGNORECASE,
)
_BROKEN_OFF = frozenset({"error", "abort", "aborted", "cancelled"})
#: What follows a last \r may be its \n.
_LINE_END = re.compile(rb"\r\n|\n|\r(?!\Z)")
_LENGTH = frozenset({"length", "max_tokens", "max_length"})


class Trouble(EngineError):
    """The back end could not make it. The text is for everybody; detail: for whoever runs it. blame: what it says of
    the back end: nothing, that it wants looking at, that it failed, that this model or all of it cannot be used.
    status: of its answer, 0 if there was none."""

    def __init__(self, code: str, text: str, blame: Blame, detail: str = "", status: int = 0) -> None:
        super().__init__(code, text)
        self.blame = blame
        self.detail = detail or text
        self.status = status


class Events:
    """Cuts a stream into its events, however its bytes are cut into pieces: lines may end in every way that lines do,
    comments and empty events mean nothing, and the last event may lack its end. A server that does not stream answers
    with one JSON object, which is an event too."""

    def __init__(self) -> None:
        self._left = bytearray()
        self._seen = 0  # bytes of it in which no line ends
        self._data: list[str] = []
        self._size = 0  # of these together
        self._is_object: bool | None = None
        self.ended = False

    def feed(self, piece: bytes) -> list[Mapping[str, Any]]:
        """What has become whole; raises `Trouble`."""
        self._left += piece
        if len(self._left) > MAX_BYTES:
            raise Trouble("failed", f"the back end said more than {MAX_BYTES} bytes at once", "failure")
        if self._is_object is None and (begins := self._left.lstrip()[:1]):
            self._is_object = begins == b"{"
        return [] if self._is_object else self._lines(whole=False)

    def rest(self) -> list[Mapping[str, Any]]:
        """What is left when no more comes; raises `Trouble`."""
        if self._is_object:
            self.ended = True
            return [_object(self._left)]
        return [*self._lines(whole=True), *self._event()]

    def _lines(self, *, whole: bool) -> list[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = []
        start = 0
        for end in _LINE_END.finditer(self._left, self._seen):
            found += self._line(bytes(self._left[start : end.start()]))
            start = end.end()
        del self._left[:start]
        self._seen = max(0, len(self._left) - 1)
        if whole and self._left:
            found += self._line(bytes(self._left))
            self._left.clear()
        return found

    def _line(self, line: bytes) -> list[Mapping[str, Any]]:
        if not line:
            return self._event()
        name, _, value = line.decode("utf-8", "replace").partition(":")
        value = value.removeprefix(" ")
        if name == "error":  # no field of such streams, and yet what llama.cpp used for errors until late in 2025
            return [{"error": _object(value)}]
        if name == "data":
            self._data.append(value)
            self._size += len(value)
            if self._size > MAX_BYTES:
                raise Trouble("failed", f"the back end said more than {MAX_BYTES} bytes at once", "failure")
        return []

    def _event(self) -> list[Mapping[str, Any]]:
        data, self._data, self._size = "\n".join(self._data).strip(), [], 0
        if data == "[DONE]":
            self.ended = True
            return []
        return [_object(data)] if data else []


def read_json(raw: bytes | bytearray | str) -> Any:
    """What a server says in JSON; raises `Trouble`."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise Trouble("failed", "the back end said something that is not JSON", "failure") from error


def _object(raw: bytes | bytearray | str) -> Mapping[str, Any]:
    value = read_json(raw)
    return value if isinstance(value, dict) else {"error": value}


class Answer:
    """What a server says of one job, passed on as events.

    most: tokens to make at most. given: tokens of prompt and prefix, 0 where nobody knows.
    """

    def __init__(self, job: Job, most: int, stops: StopFilter, given: int = 0) -> None:
        self.most = most
        self._job = job
        self._stops = stops
        self._given = given
        self._pieces = 0
        self._bytes = 0
        self._counted = 0
        self._prompt = 0
        self._finish = ""
        self._is_thinking = False

    @property
    def made(self) -> int:
        """Tokens made: as the server counts them, else a token for each piece that came."""
        return min(self._counted or self._pieces, self.most)

    def hear(self, said: Mapping[str, Any]) -> bool:
        """Take one event; true when nothing more is wanted. Raises `Trouble`."""
        if said.get("error") or said.get("object") == "error" or "detail" in said:
            raise trouble_of(said, 0)
        self._count(said)
        choices = said.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
        self._pass_on(choice)
        # Some say a reason with every piece: only the last one counts, so that the stream is heard to its end.
        self._finish = str(choice.get("finish_reason") or self._finish).lower()
        if self._finish in _BROKEN_OFF:
            raise Trouble("failed", "the back end broke its answer off", "failure")
        self._job.say(StepsDone(self.made, self.most))
        return self._stops.stopped

    def _pass_on(self, choice: Mapping[str, Any]) -> None:
        said = choice.get("delta") or choice.get("message") or {}
        said = said if isinstance(said, dict) else {}
        thought = _text(said.get("reasoning_content")) or _text(said.get("reasoning"))
        text = _text(said.get("content")) or _text(choice.get("text"))
        shown = ""
        if thought:
            shown += thought if self._is_thinking else THINK + thought
            self._is_thinking = True
        if text:
            shown += THOUGHT + text if self._is_thinking else text
            self._is_thinking = False
        if not shown:
            return
        self._pieces += 1
        self._bytes += len(shown.encode())
        if self._bytes > MOST_TOKEN_BYTES * self.most + ROOM_BYTES:
            raise Trouble("failed", f"the back end does not end: {self.most} tokens were asked for", "failure")
        if passed := self._stops.feed(shown):
            self._job.say(TextMade(passed))

    def _count(self, said: Mapping[str, Any]) -> None:
        """Those that send zeros until the end mean nothing by them."""
        usage, timings = said.get("usage"), said.get("timings")
        if isinstance(usage, dict):
            self._prompt = count_of(usage.get("prompt_tokens")) or self._prompt
            self._counted = count_of(usage.get("completion_tokens")) or self._counted
        if isinstance(timings, dict):
            self._counted = count_of(timings.get("predicted_n")) or self._counted

    def end(self, *, ended: bool) -> Done:
        """The last event, when the stream is over. ended: whether the server said so. Raises `Trouble`."""
        if not (ended or self._finish or self._stops.stopped):
            raise Trouble("failed", "the back end broke its answer off", "failure")
        self._rest()
        full = self._finish in _LENGTH and not self._stops.stopped
        return self._done("length" if full else "stop")

    def cancelled(self) -> Done:
        """The last event, when the job was stopped."""
        self._rest()
        return self._done("cancelled")

    def _rest(self) -> None:
        rest = (self._stops.feed(THOUGHT.rstrip()) if self._is_thinking else "") + self._stops.rest()
        if rest:
            self._job.say(TextMade(rest))
        self._job.say(StepsDone(self.made, self.most))

    def _done(self, finish: Literal["stop", "length", "cancelled"]) -> Done:
        return Done(self.made, (self._given or self._prompt) + self.made, finish)


def trouble_of(said: object, status: int) -> Trouble:
    """What an error means that came with this status, or 0 within a stream."""
    message, kinds = _words_of(said)
    status = status or next((int(kind) for kind in kinds if kind.isdecimal() and len(kind) == 3), 500)
    why = " ".join(dict.fromkeys([str(status), *(kind for kind in kinds if re.fullmatch(r"[\w. -]{1,60}", kind))]))
    code, text, blame, detail = _meaning(status, message, kinds)
    return Trouble(code, f"{text} ({why})", blame, f"{detail or text} ({why})", status)


def _meaning(status: int, message: str, kinds: Sequence[str]) -> tuple[str, str, Blame, str]:
    """Code, text, blame and detail of a `Trouble`."""
    if "exceed_context_size_error" in kinds or "context_length_exceeded" in kinds or _TOO_LONG.search(message):
        return "too_long", "the back end has no room for this prompt and answer", "none", ""
    if status in (401, 403):
        return "unavailable", "the worker's back end refuses its key", "model", "it refuses the key"
    if status == 404:
        return "unavailable", "the back end has no such model, or no such API", "model", ""
    if status in (429, 502, 503, 504):
        return "unavailable", "the back end is busy, or gone", "model", ""
    if 400 <= status < 500:
        return "unsupported", "the back end refuses this job", "doubt", ""
    return "failed", "the back end failed", "failure", ""


def _words_of(said: object) -> tuple[str, list[str]]:
    """An error's message, and its kinds; in whatever form it comes."""
    if isinstance(said, dict):
        inner = said.get("error") or said.get("detail")
        inner = inner if isinstance(inner, dict) else said if inner is None else {"message": inner}
        kinds = [str(inner.get(name) or "") for name in ("code", "type")]
        return str(inner.get("message") or inner.get("msg") or ""), [kind for kind in kinds if kind]
    return str(said), []


def _text(value: object) -> str:
    """Content as text: some say null, some a list of parts. Halves of a character, which JSON can hold, are no text."""
    if isinstance(value, list):
        value = "".join(str(part.get("text") or "") for part in value if isinstance(part, dict))
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if isinstance(value, str) else ""


def count_of(value: object) -> int:
    """A count that a server says; 0 for what is none."""
    return value if isinstance(value, int) and 0 < value <= MAX_COUNT else 0
