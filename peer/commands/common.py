"""What the commands share: options, the home and horde that they mean, and the one translation of errors."""

from __future__ import annotations

import functools
import json
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from peer.commands.exits import Exit

if TYPE_CHECKING:
    from peer.client import Client
    from peer.home import Home
    from protocol.links import Link


class Failure(Exception):
    """A command cannot do what it should. code: for scripts; exit: how the program ends."""

    def __init__(self, code: str, text: str, exit: Exit) -> None:
        super().__init__(text)
        self.code = code
        self.exit = exit


@dataclass(frozen=True)
class Settings:
    """What was said on every command line."""

    folder: Path | None
    json: bool
    horde: str = ""
    insecure: bool = False
    anonymous: bool = False
    relays_only: bool = False

    @property
    def home(self) -> Home:
        """The peer's folder."""
        from peer.home import Home, default_folder

        return Home(self.folder or default_folder())

    def link(self) -> Link:
        """The horde that is meant."""
        return self.home.link(self.horde)

    def client(self) -> Client:
        """A client of the horde that is meant, as ourselves or as nobody."""
        from peer.client import Client
        from protocol.keys import SigningKey

        key = SigningKey.generate() if self.anonymous else None
        return Client(self.link(), key, home=self.home, insecure=self.insecure, relays_only=self.relays_only)


Command = Callable[..., None]


def with_home(command: Command) -> Command:
    """Add the options that every command has; the command gets them as `settings`."""

    @click.option("--home", "folder", type=click.Path(path_type=Path, file_okay=False), help="The peer's folder.")
    @click.option("--json", "as_json", is_flag=True, help="Answer in JSON, one object a line, for scripts.")
    @functools.wraps(command)
    def wrapped(folder: Path | None, as_json: bool, **rest: Any) -> None:
        command(settings=Settings(folder, as_json), **rest)

    return wrapped


def with_horde(command: Command) -> Command:
    """Add the options of commands that talk to a horde; the command gets them as `settings`."""

    @click.option("--horde", default="", metavar="NAME", help="Which of the hordes joined; else the default one.")
    @click.option("--insecure", is_flag=True, help="Talk to a tracker on the internet without TLS.")
    @with_home
    @functools.wraps(command)
    def wrapped(settings: Settings, horde: str, insecure: bool, **rest: Any) -> None:
        command(settings=replace(settings, horde=horde, insecure=insecure), **rest)

    return wrapped


def with_asker(command: Command) -> Command:
    """Add the options of commands that ask for something; the command gets them as `settings`."""

    @click.option("--anonymous", is_flag=True, help="Ask as nobody, with a key made for this once.")
    @click.option("--relays-only", is_flag=True, help="Reach workers through relays, to hide this machine's address.")
    @with_horde
    @functools.wraps(command)
    def wrapped(settings: Settings, anonymous: bool, relays_only: bool, **rest: Any) -> None:
        command(settings=replace(settings, anonymous=anonymous, relays_only=relays_only), **rest)

    return wrapped


def run(settings: Settings, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a command that uses the network to its end; ends the program with the exit code of what went wrong."""
    import asyncio

    with translated(settings), _sigterm_like_ctrl_c():
        asyncio.run(work())


@contextmanager
def _sigterm_like_ctrl_c() -> Iterator[None]:
    """Let SIGTERM cancel what is asked for as Ctrl+C does; without effect outside of the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def translated(settings: Settings) -> Iterator[None]:
    """Turn every error that can be expected into its exit code and one sentence on it."""
    from peer import events
    from peer.home import HomeError
    from protocol.errors import BadKey, Refusal
    from protocol.links import BadLink

    try:
        yield
    except Failure as error:
        fail(settings, error)
    except KeyboardInterrupt:
        fail(settings, Failure("interrupted", "interrupted", Exit.INTERRUPTED))
    except events.Unreachable as error:
        fail(settings, Failure("unreachable", str(error), Exit.UNREACHABLE))
    except events.Refused as error:
        fail(settings, Failure(error.code, f"the horde refused this: {error}", Exit.REFUSED))
    except events.JobError as error:
        fail(settings, Failure(error.reason, str(error), Exit.NO_RESULT))
    except (events.BadRequest, HomeError, BadLink, BadKey) as error:
        fail(settings, Failure("usage", str(error), Exit.USAGE))
    except (OSError, Refusal) as error:
        fail(settings, Failure("unexpected", str(error) or type(error).__name__, Exit.UNEXPECTED))


def fail(settings: Settings, failure: Failure) -> None:
    """Say what went wrong and end the program."""
    if settings.json:
        print_json({"error": failure.code, "text": str(failure)})
    else:
        click.echo(f"potluck: {plain(str(failure))}", err=True)
    sys.exit(failure.exit)


def print_json(value: dict[str, Any]) -> None:
    """One object on a line of its own, at once."""
    click.echo(json.dumps(value, ensure_ascii=False))


def plain(text: str) -> str:
    """The text without control characters, by which somebody else's words could steer a terminal."""
    return "".join(
        letter if letter in "\n\t" or letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def show_kudos(thousandths: int) -> str:
    """An amount as people read it: `7.6`."""
    sign, amount = ("-" if thousandths < 0 else ""), abs(thousandths)
    whole, rest = divmod(amount, 1000)
    return f"{sign}{whole:,}" + (f".{rest:03}".rstrip("0") if rest else "")
