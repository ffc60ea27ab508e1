"""`potluck worker`: serve a horde with this machine."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import click

from peer.commands.common import Failure, Settings, plain, print_json, show_kudos, translated, with_horde
from peer.commands.engines import chosen
from peer.commands.exits import Exit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from peer.engines.base import Engine
    from peer.engines.spec import EngineSpec
    from peer.home import Home
    from peer.limits import Limits
    from peer.limits_watch import LimitsWatch
    from peer.news import News
    from peer.worker import Settings as WorkerSettings
    from peer.worker import Worker

#: Between two looks whether the limits have changed.
LOOK_SECONDS = 1.0


OPENAI_HELP = "A server with OpenAI's API: llama.cpp's, vLLM, Ollama, KoboldCpp, LocalAI and others."
ENGINE_HELP = "Any engine that is installed, by its name."


@click.command(short_help="Serve the horde with this machine, for kudos.")
@click.option("--image", "images", multiple=True, metavar="[NAME=]FOLDER|HUB_ID[@REV]", help="A diffusers pipeline.")
@click.option("--text", "texts", multiple=True, metavar="[NAME=]FILE.gguf", help="A GGUF file.")
@click.option("--openai", "servers", multiple=True, metavar="[NAME=]URL[#MODEL][,OPTION=VALUE,...]", help=OPENAI_HELP)
@click.option("--engine", "engines", multiple=True, metavar="NAME:model=MODEL[,OPTION=VALUE,...]", help=ENGINE_HELP)
@click.option("--dry-run", "dry_runs", multiple=True, metavar="image|text[:OPTION=VALUE,...]", help="No model at all.")
@click.option("--slots", type=click.IntRange(1, 64), default=1, show_default=True, help="Jobs at once, of each model.")
@click.option("--ahead", type=click.IntRange(0, 64), default=1, show_default=True, help="Jobs taken beyond these.")
@click.option("--listen", default=":0", metavar="HOST:PORT", help="Where requesters connect to; any free port if none.")
@click.option("--address", "addresses", multiple=True, metavar="HOST[:PORT]", help="Where that is seen from outside.")
@click.option("--relay", type=click.IntRange(1, 1024), metavar="STREAMS", help="Relay so many streams of others, too.")
@click.option("--no-mapping", is_flag=True, help="Do not ask the router to let requesters in.")
@click.option("--no-anonymous", is_flag=True, help="Serve accounts only.")
@click.option(
    "--min-free-rate",
    type=click.IntRange(0, 1000),
    help="Do free work only while so many thousandths of it are paid by the horde.",
)
@click.option("--check", is_flag=True, help="Only read peer.toml, and say what is served and for whom.")
@click.option("--pause", is_flag=True, help="Let this peer's worker serve your own account alone.")
@click.option("--resume", is_flag=True, help="Let it serve everybody again.")
@click.option("--until-stdin-closes", is_flag=True, hidden=True, help="End with the program at the other end of stdin.")
@with_horde
def worker(
    settings: Settings,
    images: tuple[str, ...],
    texts: tuple[str, ...],
    dry_runs: tuple[str, ...],
    servers: tuple[str, ...],
    engines: tuple[str, ...],
    slots: int,
    listen: str,
    until_stdin_closes: bool,
    check: bool,
    pause: bool,
    resume: bool,
    no_anonymous: bool,
    min_free_rate: int | None,
    **rest: Any,
) -> None:
    """Serve the horde: earn kudos for every picture and text that this machine makes.

    Without any model or engine named it serves the two small models of the demo. What is served, and for whom, is
    said in the file peer.toml in the peer's folder; a change there counts at once, also --pause and --resume.
    """
    with translated(settings):
        if check + pause + resume > 1:
            raise click.UsageError("--check, --pause and --resume: wanted one of them")
        if pause or resume:
            _pause(settings, on=pause)
            return
        from peer.limits_watch import LimitsWatch

        anonymous = False if no_anonymous else None
        watch = LimitsWatch(settings.home, anonymous=anonymous, min_free_rate=min_free_rate)
        limits = _read(watch)
        if check:
            _tell_limits(settings, limits)
            return
        specs = chosen(images, texts, dry_runs, servers, engines) * slots
        host, port = listening(listen)
        _check_addresses(rest["addresses"])
        home = settings.home
        log_to_stderr()
        with home.worker_lock():
            serving = _settings(host, port, limits, **rest)
            _serve(settings, specs, home, serving, watch, until_stdin_closes=until_stdin_closes)


def _read(watch: LimitsWatch) -> Limits:
    """The limits as they stand; a `Failure` for a file that cannot be followed."""
    from peer.limits import UNLIMITED
    from protocol.toml_file import ConfigError

    try:
        return watch.look() or UNLIMITED
    except ConfigError as error:
        raise Failure("usage", str(error), Exit.USAGE) from error


def _pause(settings: Settings, *, on: bool) -> None:
    from peer.limits_watch import pause

    changed = pause(settings.home, on=on)
    said = "serves your own account alone" if on else "serves all that peer.toml lets it serve"
    if settings.json:
        print_json({"paused": on, "changed": changed})
    else:
        click.echo(f"this peer's worker {said}{'' if changed else ', as before'}")


def _tell_limits(settings: Settings, limits: Limits) -> None:
    from peer.limits import as_json, limits_lines

    if settings.json:
        print_json(dict(as_json(limits)))
    else:
        click.echo("\n".join(limits_lines(limits)))


def _settings(
    host: str,
    port: int,
    limits: Limits,
    *,
    ahead: int,
    addresses: tuple[str, ...],
    relay: int | None,
    no_mapping: bool,
) -> WorkerSettings:
    from importlib.util import find_spec

    from peer.relaying import Offering
    from peer.worker import Settings as WorkerSettings

    return WorkerSettings(
        host,
        port,
        addresses,
        ahead,
        limits,
        relay=Offering(relay) if relay else None,
        # Whoever installs the extra `nat` wants it used.
        maps=not no_mapping and find_spec("async_upnp_client") is not None,
    )


def _serve(
    settings: Settings,
    specs: list[EngineSpec],
    home: Home,
    serving: WorkerSettings,
    watch: LimitsWatch,
    *,
    until_stdin_closes: bool,
) -> None:
    """Run until Ctrl+C, SIGTERM or the end of standard input."""
    import asyncio
    import random

    from peer.client import system_clock
    from peer.keyring import delegated_account
    from peer.worker import Worker

    link, key = settings.link(), home.key()
    engines = open_engines(specs, home.worker_folder)
    news = NewsLines(as_json=settings.json)
    news.say("loading", ", ".join(dict.fromkeys(spec.model for spec in specs)))

    async def work() -> None:
        def heard(one: News) -> None:
            if one.kind == "rules" and (document := served.connection.rules_document) is not None:
                home.keep_rules(link.root, document)
            if one.kind == "joined":
                home.keep_delegation(link.root, served.connection.delegation_version)
            news.tell(one)

        served = Worker(
            link,
            key,
            engines,
            home.worker_folder,
            clock=system_clock,
            random=random.SystemRandom(),
            settings=serving,
            insecure=settings.insecure,
            rules=home.rules(link.root),
            delegation_seen=home.delegation(link.root),
            on_news=heard,
            owner=delegated_account(home, link.root),
        )
        running = asyncio.create_task(served.run())
        watching = asyncio.create_task(_follow(watch, served, heard))
        when_told_to_end(asyncio.get_running_loop(), running.cancel, stdin_too=until_stdin_closes)
        try:
            await running
        except asyncio.CancelledError:
            if (me := asyncio.current_task()) is not None and me.cancelling():  # Ctrl+C, which ends the program
                raise
        finally:
            watching.cancel()

    with joining_errors(), asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(work())


async def _follow(watch: LimitsWatch, served: Worker, tell: Callable[[News], None]) -> None:
    """Let a worker go by every change of its limits, until cancelled; a file with errors changes nothing."""
    import asyncio

    from peer.news import News
    from protocol.toml_file import ConfigError

    while True:
        await asyncio.sleep(LOOK_SECONDS)
        try:
            limits = watch.look()
        except (ConfigError, OSError) as error:
            tell(News("limits", f"the former ones stay in force: {error}"))
            continue
        if limits is not None:
            await served.limit(limits)
            tell(News("limits", "paused: only your own account is served" if limits.paused else "taken from peer.toml"))


def open_engines(specs: list[EngineSpec], folder: Path) -> list[Engine]:
    """An engine for each spec, in a process of its own, with a log of its own in `folder`."""
    from peer.engines.process import ProcessEngine

    return [ProcessEngine(spec, log=folder / f"engine-{number}.log") for number, spec in enumerate(specs, 1)]


@contextmanager
def joining_errors() -> Iterator[None]:
    """Turn what keeps a peer from serving into a failure with an exit code."""
    from peer.connection import CannotJoin
    from peer.engines.base import EngineError

    try:
        yield
    except EngineError as error:
        raise Failure(error.code, f"an engine cannot be started: {error}", Exit.UNEXPECTED) from error
    except CannotJoin as error:
        exit = Exit.REFUSED if error.refusal.code in ("not_registered", "bad_invite") else Exit.UNREACHABLE
        raise Failure(error.refusal.code, f"{error}{_to_get_in(error.refusal.code)}", exit) from error


def _to_get_in(code: str) -> str:
    """What a worker can do about a refusal whose text was made for all peers."""
    if code != "bad_invite":
        return ""
    return ". A worker needs an account: with a code, `potluck account --register --invite CODE`, then start it again"


class NewsLines:
    """What a worker does, a line for each thing, on standard output."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._earned = 0
        self._done = 0

    def tell(self, news: News) -> None:
        """One thing that happened."""
        if news.kind == "settled":
            self._earned += news.earned
            self._done += 1
        if self._as_json:
            attempt = {"job": news.attempt.job.hex(), "attempt": news.attempt.number} if news.attempt else {}
            more = {"done": news.done, "total": news.total} if news.kind == "progress" else {}
            earned = {"earned": news.earned} if news.kind == "settled" else {}
            print_json({"event": news.kind, "text": news.text, **attempt, **more, **earned})
        elif news.kind != "progress":
            job = f" {news.attempt.job.hex()[:8]}" if news.attempt else ""
            self.say(f"{news.kind}{job}", self._more(news))

    def say(self, kind: str, text: str) -> None:
        """Something that is not about an attempt."""
        if self._as_json:
            print_json({"event": kind, "text": text})
        else:
            click.echo(plain(f"{time.strftime('%H:%M:%S')} {kind} {text}".rstrip()))

    def _more(self, news: News) -> str:
        if news.kind != "settled":
            return news.text
        return f"+{show_kudos(news.earned)} kudos; {show_kudos(self._earned)} by {self._done} jobs since the start"


def listening(text: str) -> tuple[str, int]:
    """Host and port of `--listen`."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise click.UsageError(
            f"--listen {text}: wanted HOST:PORT, ports end at 65535, or :PORT for every address of this machine"
        )
    return host.removeprefix("[").removesuffix("]"), int(port)


def _check_addresses(addresses: tuple[str, ...]) -> None:
    """Refuse what no requester could connect to; they read the port that we listen on where none is named."""
    from peer.paths.addresses import BadAddress, parse_address
    from peer.peer_record import with_port

    for address in addresses:
        try:
            parse_address(with_port(address, 1))
        except BadAddress as error:
            raise click.UsageError(f"--address {address}: wanted HOST or HOST:PORT, IPv6 hosts in brackets") from error


def when_told_to_end(loop: Any, end: Callable[[], object], *, stdin_too: bool) -> None:
    """Call `end` in the loop on SIGTERM, and when standard input closes if that is to count."""

    def from_elsewhere(*_: object) -> None:
        with suppress(RuntimeError):  # the loop has ended before
            loop.call_soon_threadsafe(end)

    # Not loop.add_signal_handler, which Windows does not have.
    signal.signal(signal.SIGTERM, from_elsewhere)
    if stdin_too:
        # os.read, for a thread that waits in sys.stdin holds a lock that Python wants when it ends.
        def wait() -> None:
            while os.read(sys.stdin.fileno(), 4096):
                pass
            from_elsewhere()

        threading.Thread(target=wait, name="stdin", daemon=True).start()


def loop_factory() -> Any:
    """The fastest loop that there is here."""
    try:
        import uvloop
    except ModuleNotFoundError:  # it does not exist for Windows
        return None
    return uvloop.new_event_loop


def log_to_stderr() -> None:
    """Warnings and worse."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
