"""`potluck image` and `potluck text`: ask a horde, and keep what comes."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from peer.commands.common import Command, Failure, Settings, run, with_asker
from peer.commands.exits import Exit

if TYPE_CHECKING:
    from peer.client import Client
    from peer.commands.report import Report
    from peer.events import Event, Settled
    from protocol.work import Work


def _user(_context: click.Context, _option: click.Parameter, user: str | None) -> str:
    """The user that was named, empty for none. A name that is empty by mistake would ask for the service as a whole."""
    if user is not None and not user.strip():
        raise click.BadParameter("the name is empty: say for whom this asks, or leave --user out")
    return user or ""


def _for_any_kind(command: Command) -> Command:
    """Add what can be said of every request."""
    options = [
        click.option("--model", "models", multiple=True, help="A model that will do; may be repeated. Else any."),
        click.option("--seed", type=int, help="For the same result again; of n results the next gets the next one."),
        click.option("-n", "n", type=click.IntRange(1), default=1, show_default=True, help="How many results."),
        click.option("--max-price", type=float, default=0.0, help="Kudos that one result may cost, without tax."),
        click.option(
            "--user",
            callback=_user,
            help="Of a service: whom it asks for; only a pseudonym leaves this machine.",
        ),
        click.option("--force", is_flag=True, help="Replace files that exist."),
        click.option("-v", "--verbose", is_flag=True, help="Say how each worker was reached, and why so."),
        click.option(
            "--dry-run", "dry", is_flag=True, help="Ask for nothing: say what it would cost and how long it would wait."
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.command(short_help="Ask for pictures.")
@click.argument("prompt")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Where it goes.")
@click.option("--width", type=int, default=512, show_default=True, help="Pixels.")
@click.option("--height", type=int, default=512, show_default=True, help="Pixels.")
@click.option("--steps", type=int, default=30, show_default=True, help="Denoising steps.")
@click.option("--guidance", type=float, default=7.5, show_default=True, help="How closely to follow the prompt.")
@click.option("--negative", default="", metavar="PROMPT", help="What it should not show.")
@click.option("--sampler", default="", help="The scheduler; else the model's own.")
@click.option(
    "--preview", type=click.Path(path_type=Path, dir_okay=False), help="Keep the latest preview there (JPEG)."
)
@_for_any_kind
@with_asker
def image(
    settings: Settings,
    prompt: str,
    output: Path | None,
    preview: Path | None,
    force: bool,
    verbose: bool,
    dry: bool,
    **asked: Any,
) -> None:
    """Ask for a picture of PROMPT; `-` reads it from standard input. Of several, each file gets its number."""
    if dry:
        from peer.measures import image_work

        measures = (asked["width"], asked["height"], asked["steps"], asked["guidance"])
        _quote(settings, lambda: image_work(*measures), asked)
        return
    if output is None:
        raise click.UsageError("say with -o where the picture goes, or ask with --dry-run what it would cost")
    paths = numbered(output, asked["n"])
    _check_free([*paths, *([preview] if preview else [])], force=force)
    words, unwanted = _read_prompt(prompt), asked.pop("negative")
    # With guidance, words that are not wanted hold something off, and nobody wants them dropped.
    texts = [words] if asked["guidance"] > 1 else [words, unwanted]

    async def work() -> None:
        from peer.commands.report import Bars, Lines
        from peer.commands.rewording import ask_or_reword

        report: Report = Lines() if settings.json else Bars(len(paths), verbose=verbose)

        def ask(horde: Client) -> AsyncIterator[Event]:
            def once(said: str, negative: str = unwanted) -> AsyncIterator[Event]:
                return horde.image(said, negative_prompt=negative, **asked)

            return ask_or_reword(horde, settings.home.folder, report, once, texts)

        await _pictures(settings, report, ask, paths, preview, force=force)

    run(settings, work)


@click.command(short_help="Ask a model; the answer comes as it is made.")
@click.argument("prompt")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Keep the answer there as well.")
@click.option("--max-tokens", type=int, default=256, show_default=True, help="Tokens to make at most.")
@click.option(
    "--context", type=int, default=2048, show_default=True, help="Room in tokens, prompt and answer together."
)
@click.option("--temperature", type=float, default=0.8, show_default=True, help="0 takes always the likeliest token.")
@click.option("--top-p", type=float, default=0.95, show_default=True)
@click.option("--top-k", type=int, default=40, show_default=True, help="0 switches it off.")
@click.option("--min-p", type=float, default=0.05, show_default=True)
@click.option("--repeat-penalty", type=float, default=1.0, show_default=True, help="1 for none.")
@click.option("--stop", multiple=True, help="A text that ends the answer; may be repeated.")
@click.option("--system", default="", help="What the model is told first.")
@click.option("--raw", is_flag=True, help="Go on from PROMPT as it is, without the model's template.")
@_for_any_kind
@with_asker
def text(
    settings: Settings, prompt: str, output: Path | None, force: bool, verbose: bool, dry: bool, **asked: Any
) -> None:
    """Ask a model PROMPT; `-` reads it from standard input. The answer goes to standard output as it comes."""
    if dry:
        from peer.measures import text_work

        _quote(settings, lambda: text_work(asked["max_tokens"], asked["context"]), asked)
        return
    paths = numbered(output, asked["n"]) if output else []
    _check_free(paths, force=force)
    texts = [_read_prompt(prompt), asked.pop("system")]

    async def work() -> None:
        from peer.commands.report import Lines, LiveText
        from peer.commands.rewording import ask_or_reword

        report: Report = Lines() if settings.json else LiveText(live=asked["n"] == 1, verbose=verbose)

        def ask(horde: Client) -> AsyncIterator[Event]:
            def once(said: str, system: str) -> AsyncIterator[Event]:
                return horde.text(said, system=system, **asked)

            return ask_or_reword(horde, settings.home.folder, report, once, texts)

        await _texts(settings, report, ask, asked["n"], paths, force=force)

    run(settings, work)


def _quote(settings: Settings, measure: Callable[[], Work], asked: dict[str, Any]) -> None:
    """Say what such a request would cost now; nothing is asked for, and no prompt leaves this machine."""

    async def work() -> None:
        from msgspec.structs import asdict

        from peer.commands.common import print_json
        from peer.commands.report import quote_lines

        wanted = measure()
        async with settings.client() as horde:
            quote = await horde.quote(wanted, models=asked["models"], n=asked["n"], max_price=asked["max_price"])
        if settings.json:
            print_json(asdict(quote))
        else:
            click.echo("\n".join(quote_lines(quote, asked["n"])))

    run(settings, work)


async def _pictures(
    settings: Settings,
    report: Report,
    ask: Callable[[Client], AsyncIterator[Event]],
    paths: list[Path],
    preview: Path | None,
    *,
    force: bool,
) -> None:
    import hashlib

    from peer import events
    from peer.commands.common import print_json

    results: list[dict[str, Any]] = [{"path": str(path)} for path in paths]
    previewed, why = False, _Why(settings, report)
    with report:
        async with settings.client() as horde:
            async for event in ask(horde):
                report.tell(event)
                await why.tell(horde, event)
                result = results[event.index]
                match event:
                    case events.Preview(jpeg=jpeg) if preview is not None:
                        _keep(preview, jpeg, replace=force or previewed)
                        previewed = True
                    case events.Picture(content=content, seed=seed):
                        digest = hashlib.sha256(content)
                        _keep(paths[event.index], content, replace=force)
                        await horde.saved(paths[event.index], digest.digest())
                        result |= {"sha256": digest.hexdigest(), "seed": seed}
                    case events.Received():
                        result |= _received(event)
                    case events.Settled():
                        result |= _settled(event)
                        if not settings.json:
                            _tell_settled(report, event, f"{paths[event.index]}")
    if settings.json:
        print_json({"results": results})


async def _texts(
    settings: Settings,
    report: Report,
    ask: Callable[[Client], AsyncIterator[Event]],
    n: int,
    paths: list[Path],
    *,
    force: bool,
) -> None:
    import hashlib

    from peer import events
    from peer.commands.common import print_json
    from peer.commands.report import write_text

    pieces: list[list[str]] = [[] for _ in range(n)]
    results: list[dict[str, Any]] = [{} for _ in range(n)]
    why = _Why(settings, report)
    with report:
        async with settings.client() as horde:
            async for event in ask(horde):
                report.tell(event)
                await why.tell(horde, event)
                result = results[event.index]
                match event:
                    case events.TextPiece(text=piece):
                        pieces[event.index].append(piece)
                    case events.Restarted():
                        pieces[event.index].clear()
                    case events.Received():
                        content = "".join(pieces[event.index])
                        digest = hashlib.sha256(content.encode())
                        result |= {"content": content, "sha256": digest.hexdigest()} | _received(event)
                        if paths:
                            _keep(paths[event.index], content.encode(), replace=force)
                            await horde.saved(paths[event.index], digest.digest())
                            result["path"] = str(paths[event.index])
                        if not settings.json and n > 1:  # a single one has been written as it came
                            write_text(content if content.endswith("\n") else f"{content}\n")
                    case events.Settled():
                        result |= _settled(event)
                        if not settings.json:
                            _tell_settled(report, event, f"{paths[event.index]}" if paths else "")
    if settings.json:
        print_json({"results": results})


class _Why:
    """Asks why a job waits that no worker could take, and says so."""

    def __init__(self, settings: Settings, report: Report) -> None:
        self._settings = settings
        self._report = report
        self._jobs: dict[int, bytes] = {}
        self._said: dict[int, dict[str, int]] = {}

    async def tell(self, horde: Client, event: Event) -> None:
        """What follows from an event."""
        from peer import events

        if isinstance(event, events.Queued):
            self._jobs[event.index] = event.job
        elif isinstance(event, events.Position) and not event.workers:
            try:
                reasons = await horde.why(self._jobs[event.index])
            except events.Refused:  # it waits no more
                return
            if self._said.get(event.index) != reasons:
                self._said[event.index] = reasons
                self._say(event.index, reasons)

    def _say(self, index: int, reasons: dict[str, int]) -> None:
        from peer.commands.common import print_json
        from peer.commands.reasons import can_be_served, waiting_text

        if self._settings.json:
            print_json({"event": "why", "index": index, "reasons": reasons, "possible": can_be_served(reasons)})
        else:
            self._report.note(waiting_text(reasons))


def numbered(path: Path, n: int) -> list[Path]:
    """Where n results go: one to `path` itself, more to `name-1.png` and so on."""
    if n == 1:
        return [path]
    return [path.with_name(f"{path.stem}-{number}{path.suffix}") for number in range(1, n + 1)]


def _check_free(paths: list[Path], *, force: bool) -> None:
    """Refuse before anything is asked for what could not be saved afterwards."""
    for path in paths:
        if path.exists() and not force:
            raise click.UsageError(f"{path} exists: choose another name, or replace it with --force")
        if not path.parent.is_dir():
            raise click.UsageError(f"{path}: there is no folder {path.parent}")


def _read_prompt(prompt: str) -> str:
    words = sys.stdin.buffer.read().decode("utf-8", "replace").strip("\n") if prompt == "-" else prompt
    if not words.strip():
        raise click.UsageError("the prompt is empty: say what is wanted")
    return words


def _keep(path: Path, content: bytes, *, replace: bool) -> None:
    """Write a file; one that came up since `_check_free` looked is not replaced either."""
    try:
        with path.open("wb" if replace else "xb") as file:
            file.write(content)
    except FileExistsError as error:
        text = f"{path} was made by somebody else while this was waited for; it is left alone, and nothing was saved"
        raise Failure("exists", text, Exit.UNEXPECTED) from error


def _received(event: Any) -> dict[str, Any]:
    return {
        "receipt_digest": event.receipt_digest.hex(),
        "acknowledged_digest": event.acknowledged_digest.hex(),
        "finish": event.finish,
        "engine": event.engine,
        "used": event.used,
        "settled": False,
    }


def _settled(event: Settled) -> dict[str, Any]:
    return {
        "settled": True,
        "paid": event.paid,
        "minted": event.minted,
        "burned": event.burned,
        "settlement": event.settlement.hex(),
        "entry": event.entry,
    }


def _tell_settled(report: Report, event: Settled, what: str) -> None:
    from peer.commands.report import settled_line

    report.note(f"{what}: {settled_line(event)}" if what else settled_line(event))
