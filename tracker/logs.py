"""Logs: readable lines on a terminal, one JSON object a line otherwise.

What a record is about goes into `extra`, not into the sentence, so that both forms show it:
`log.info("a worker came", extra={"worker": key, "slots": 2})`. Of keys and digests only the first characters are
shown; prompts never reach a log, since nothing that holds one is ever given to it.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from protocol.keys import KEY_BYTES, show_key

LEVELS = ("debug", "info", "warning", "error")
MAX_TEXT = 2000

_LEVEL_WIDTH = 7
#: The fields that every record has; whatever else one carries came by `extra`.
_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_COLOURS = {logging.WARNING: "33", logging.ERROR: "31", logging.CRITICAL: "31"}


def set_up(
    *,
    level: str = "info",
    as_json: bool | None = None,
    colours: bool = False,
    file: Path | None = None,
    stream: TextIO | None = None,
) -> None:
    """Send all logs to `stream` (standard error), and everything from debug on to `file` as well.

    as_json: None means that a terminal gets readable lines and anything else JSON.
    """
    stream = stream or sys.stderr
    as_json = not stream.isatty() if as_json is None else as_json
    console = logging.StreamHandler(stream)
    console.setLevel(level.upper())
    console.setFormatter(JsonLines() if as_json else ReadableLines(colours=colours))
    handlers: list[logging.Handler] = [console]
    if file is not None:
        detail = logging.FileHandler(file, encoding="utf-8")
        detail.setLevel(logging.DEBUG)
        detail.setFormatter(JsonLines())
        handlers.append(detail)
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
        old.close()
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(min(handler.level for handler in handlers))
    # They tell of each request or callback: that is noise even to someone who looks for a fault of ours.
    for chatty in ("asyncio", "aiohttp.access"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


class ReadableLines(logging.Formatter):
    """`23:59:59 warning tracker.web: a sentence  key=value key=value`, with local time."""

    def __init__(self, *, colours: bool = False) -> None:
        super().__init__()
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        """The line, and the traceback below it if there is one."""
        time = datetime.fromtimestamp(record.created, UTC).astimezone().strftime("%H:%M:%S")
        level = record.levelname.lower().ljust(_LEVEL_WIDTH)
        if self._colours and record.levelno in _COLOURS:
            level = f"\x1b[{_COLOURS[record.levelno]}m{level}\x1b[0m"
        line = f"{time} {level} {record.name}: {_tame(record.getMessage())}"
        fields = " ".join(f"{name}={_plain(value)}" for name, value in _fields(record))
        line = f"{line}  {fields}" if fields else line
        trace = _trace(self, record)
        return f"{line}\n{trace}" if trace else line


class JsonLines(logging.Formatter):
    """One object a line: time (RFC 3339, UTC), level, logger, message, then the record's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line: dict[str, object] = {
            "time": time,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in _fields(record):
            line.setdefault(name, value)
        if trace := _trace(self, record):
            line["trace"] = trace
        return json.dumps(line, ensure_ascii=False)


def _fields(record: logging.LogRecord) -> Iterator[tuple[str, object]]:
    for name, value in vars(record).items():
        if name not in _USUAL:
            yield name, _short(value)


def _short(value: object) -> object:
    """A value as a log may show it: keys, digests and long texts by their beginning."""
    match value:
        case bool() | int() | float() | None:
            return value
        case bytes() if len(value) == KEY_BYTES:
            return f"{show_key(value)[:8]}…"
        case bytes():
            return f"{value[:4].hex()}…" if len(value) > 4 else value.hex()
        case _:
            text = str(value)
            return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"


def _plain(value: object) -> str:
    """A value beside its name: in quotes where its end could not be seen otherwise."""
    text = _tame(value) if isinstance(value, str) else json.dumps(value)
    return json.dumps(text, ensure_ascii=False) if not text or " " in text or '"' in text or "=" in text else text


def _tame(text: str) -> str:
    """Without line ends and control characters, by which a peer could forge lines or steer a terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    return formatter.formatException(record.exc_info) if record.exc_info else ""
