"""Tells of jobs as they go: bars and live text for people, one JSON object a line for scripts."""

from __future__ import annotations

import dataclasses
import re
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol, Self

from peer import events
from peer.commands.common import plain, print_json, show_kudos
from peer.events import Event
from protocol.keys import show_key
from protocol.messages import Quote

#: Fields that hold keys, by the name of the field; other bytes are shown in hexadecimal.
_KEYS = frozenset({"worker"})


class Report(Protocol):
    """Hears of all that happens; used as a context manager."""

    def tell(self, event: Event) -> None:
        """One event."""

    def note(self, text: str) -> None:
        """One sentence beside the events."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...


def as_json(event: Event) -> dict[str, Any]:
    """The event for scripts: its name, and its fields but the contents of files."""
    fields = {field.name: getattr(event, field.name) for field in dataclasses.fields(event)}
    for name in ("content", "jpeg"):
        if name in fields:
            fields["size"] = len(fields.pop(name))
    if isinstance(event, events.Received):
        fields["artifacts"] = [
            {"media_type": one.media_type, "size": one.size, "sha256": one.sha256.hex()} for one in event.artifacts
        ]
    for name, value in fields.items():
        if isinstance(value, bytes):
            fields[name] = show_key(value) if name in _KEYS else value.hex()
    return {"event": event_name(event), **fields}


def event_name(event: Event) -> str:
    """`text_piece` for a `TextPiece`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(event).__name__).lower()


class Lines:
    """For scripts."""

    def tell(self, event: Event) -> None:
        """Print the event."""
        print_json(as_json(event))

    def note(self, text: str) -> None:
        """Print the sentence."""
        print_json({"event": "note", "text": text})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass


class Bars:
    """For people, on standard error: a line for each job with its bar."""

    def __init__(self, n: int = 1, *, verbose: bool = False) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

        self._console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            console=self._console,
            transient=True,
        )
        self._n = n
        self._verbose = verbose
        self._waits = _Waits(live=self._console.is_terminal)
        self._tasks = [self._progress.add_task(self._title(index, "asking"), total=None) for index in range(n)]

    def tell(self, event: Event) -> None:
        """Show the event."""
        task = self._tasks[event.index]
        if isinstance(event, events.Progress):
            self._progress.update(task, completed=event.done, total=event.total)
        elif (doing := doing_now(event)) is not None:
            self._progress.update(task, description=self._title(event.index, doing))
        if isinstance(event, events.Requeued | events.Restarted):
            self.note(doing_now(event) or "")
        if isinstance(event, events.Path) and self._verbose:
            self.note(self._named(event.index, f"{event.path}: {event.reason}"))
        if (waits := self._waits.line(event)) is not None:
            self.note(self._named(event.index, waits))

    def note(self, text: str) -> None:
        """A line of its own above the bars."""
        self._console.print(plain(text), markup=False, soft_wrap=not self._console.is_terminal)

    def _title(self, index: int, doing: str) -> str:
        # Its brackets are ours: nothing that a tracker or worker says is taken for markup.
        from rich.markup import escape

        return escape(plain(self._named(index, doing)))

    def _named(self, index: int, doing: str) -> str:
        return f"{index + 1}/{self._n}: {doing}" if self._n > 1 else doing

    def __enter__(self) -> Self:
        # Where bars cannot be drawn over, stopping them would leave an empty line.
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._console.is_terminal:
            self._progress.stop()


class LiveText:
    """For people: the answer on standard output as it comes, all else on standard error."""

    def __init__(self, *, live: bool, verbose: bool = False) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False)
        self._live = live
        self._verbose = verbose
        self._status = self._console.status("asking")
        self._waits = _Waits(live=self._console.is_terminal)
        self._waiting = True
        self._line_begun = False

    def tell(self, event: Event) -> None:
        """Show the event."""
        if isinstance(event, events.TextPiece):
            self._wait(on=False)
            if self._live and event.text:
                write_text(event.text)
                self._line_begun = not event.text.endswith("\n")
            return
        if isinstance(event, events.Requeued | events.Restarted):
            self._end_line()
            self._wait(on=True)
            self.note(doing_now(event) or "")
        if isinstance(event, events.Path) and self._verbose:
            self.note(f"{event.path}: {event.reason}")
        if (doing := doing_now(event)) is not None and self._waiting:
            from rich.markup import escape

            self._status.update(escape(plain(doing)))
        if (waits := self._waits.line(event)) is not None:
            self.note(waits)

    def note(self, text: str) -> None:
        """A line of its own on standard error."""
        self._end_line()
        self._console.print(plain(text), markup=False, soft_wrap=not self._console.is_terminal)

    def _end_line(self) -> None:
        # Both outputs often end up on one screen, also by way of another program's pipe.
        if self._line_begun:
            write_text("\n")
            self._line_begun = False

    def _wait(self, *, on: bool) -> None:
        # A spinner and live text on the same terminal would write over each other.
        if on != self._waiting:
            self._waiting = on
            self._spin(on=on)

    def _spin(self, *, on: bool) -> None:
        if not self._console.is_terminal:  # there, stopping it would leave an empty line
            return
        if on:
            self._status.start()
        else:
            self._status.stop()

    def __enter__(self) -> Self:
        self._spin(on=True)
        return self

    def __exit__(self, *error: object) -> None:
        self._end_line()
        self._spin(on=False)


class _Waits:
    """What is said of waiting in lines of their own: everything where no spinner shows it, else what calls for an act;
    and how well a wait came true that was told. Nothing twice in a row."""

    def __init__(self, *, live: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._live = live
        self._clock = clock
        self._said: dict[int, str] = {}
        self._told: dict[int, tuple[int, float]] = {}  # the first wait that was told, and when

    def line(self, event: Event) -> str | None:
        """The line to print for this event, if there is one."""
        if isinstance(event, events.Leased) and event.index in self._told:
            wait, since = self._told.pop(event.index)
            return f"waited {show_wait(round(self._clock() - since))}; {show_wait(wait)} had been expected"
        if not isinstance(event, events.Position):
            return None
        if event.wait:
            self._told.setdefault(event.index, (event.wait, self._clock()))
        text = f"{doing_now(event)}"
        if event.workers == 0:
            text = "no worker here could do it now; `potluck status` says what is served"
        elif self._live:
            text = ""
        if text == self._said.get(event.index):
            return None
        self._said[event.index] = text
        return text or None


def write_text(text: str) -> None:
    """To standard output, at once; byte for byte unless that is a terminal."""
    sys.stdout.flush()
    sys.stdout.buffer.write((plain(text) if sys.stdout.isatty() else text).encode())
    sys.stdout.buffer.flush()


def doing_now(event: Event) -> str | None:
    """What a job does now, in a few words; None if the event does not say."""
    match event:
        case events.Queued():
            return "in the queue"
        case events.Position(ahead=ahead, workers=workers, wait=wait):
            soon = f", in about {show_wait(wait)}" if wait else ""
            return f"in the queue behind {ahead}; {workers} worker{'' if workers == 1 else 's'} could do it{soon}"
        case events.Leased(worker=worker, model=model):
            return f"{model} at {show_key(worker)[:8]}"
        case events.Requeued(reason=reason, text=text):
            return f"that worker did not finish ({text or reason}); another one is looked for"
        case events.Restarted(reason=reason):
            return f"beginning anew, and what came so far is void: {reason}"
        case events.Received():
            return "received and checked; being settled"
        case _:
            return None


def show_wait(seconds: int) -> str:
    """A time to wait, as people say it."""
    if seconds < 120:
        return f"{seconds} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{round(minutes / 60)} h"


def quote_lines(quote: Quote, n: int) -> list[str]:
    """What a request would cost, for people."""
    price, tax = show_kudos(quote.price), show_kudos(quote.tax)
    wait = f"about {show_wait(quote.wait)}" if quote.wait else "unknown"
    if not quote.workers:
        wait = "unknown: no worker here could do it now"
    lines = [
        f"price       {price} kudos at most{' each' if n > 1 else ''}, for who makes it; tax {tax}, burned",
        f"held        {show_kudos(quote.held)} of your kudos, until it is done",
        f"free        {show_kudos(quote.free)} of the price, carried by others",
        f"workers     {quote.workers} that could do it now",
        f"place       behind {quote.ahead}",
        f"wait        {wait}",
    ]
    return [*lines, "nothing was asked for: leave out --dry-run to do so"]


def settled_line(event: events.Settled) -> str:
    """What was paid, in a sentence."""
    paid = f"paid {show_kudos(event.paid)} kudos"
    given = f", the horde gave {show_kudos(event.minted)}" if event.minted else ""
    tax = f"; tax {show_kudos(event.burned)}" if event.burned else ""
    return f"{paid}{given}{tax}"
