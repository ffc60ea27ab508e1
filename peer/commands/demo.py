"""`potluck demo`: a whole horde on this machine, in a few minutes."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from peer.commands.common import Failure, Settings, print_json, run, with_home
from peer.commands.engines import chosen
from peer.commands.exits import Exit

if TYPE_CHECKING:
    from peer.commands.report import Report
    from peer.demo import Outcome
    from peer.events import Event


@click.command(short_help="Run a whole horde on this machine.")
@with_home
def demo(settings: Settings) -> None:
    """Run a whole horde on this machine: a tracker, two workers, pictures and a text, paid for and checked.

    Everything it makes goes into a new folder inside --home, or else inside a temporary one.
    """

    async def work() -> None:
        from peer import shapes
        from peer.children import ChildFailed
        from peer.demo import Demo, DemoFailed
        from peer.engines.spec import SMOLLM2_MODEL
        from peer.verify import NotVerified

        chosen([shapes.NAME], [SMOLLM2_MODEL], [])  # ends here if something is not installed
        folder = _new_folder(settings.folder)
        show = _JsonShow() if settings.json else _PeopleShow()
        try:
            outcome = await Demo(folder, show).run()
        except (DemoFailed, ChildFailed, NotVerified) as error:
            raise Failure("demo_failed", f"{error}\nthe folder of its state: {folder}", Exit.UNEXPECTED) from error
        if settings.json:
            print_json(outcome.fields())
        else:
            click.echo("\n".join(summary(outcome)))

    run(settings, work)


def _new_folder(home: Path | None) -> Path:
    """A folder that does not exist yet."""
    base = home.resolve() if home else Path(tempfile.mkdtemp(prefix="potluck-demo-"))
    name = time.strftime("%Y%m%d-%H%M%S")
    folder, number = base / name, 2
    while folder.exists():
        folder, number = base / f"{name}-{number}", number + 1
    return folder


class _JsonShow:
    """One object a line."""

    def __init__(self) -> None:
        self._kind = ""

    def step(self, text: str) -> None:
        print_json({"event": "step", "text": text})

    def asks(self, who: str, n: int) -> None:
        self._kind = who

    def tell(self, event: Event) -> None:
        from peer.commands.report import as_json

        print_json({"asked": self._kind, **as_json(event)})

    def answered(self) -> None:
        pass


class _PeopleShow:
    """Sentences, bars, and the text as it comes."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(highlight=False)
        self._report: Report | None = None

    def step(self, text: str) -> None:
        self._console.print(f"\n{text}", markup=False, soft_wrap=not self._console.is_terminal)

    def asks(self, who: str, n: int) -> None:
        from peer.commands.report import Bars, LiveText

        report: Report = LiveText(live=True) if who == "text" else Bars(n)
        self._report = report.__enter__()

    def tell(self, event: Event) -> None:
        if self._report is not None:
            self._report.tell(event)

    def answered(self) -> None:
        if self._report is not None:
            self._report.__exit__(None, None, None)


def summary(outcome: Outcome) -> list[str]:
    """What happened, for people."""
    audit = outcome.audit
    potluck, tracker = as_typed("potluck", "peer"), as_typed("potluck-tracker", "tracker")
    return [
        "",
        f"Picture   {outcome.pictures[0].path}",
        f"          enlarged: {outcome.enlarged}",
        *_result_lines(outcome.pictures[0]),
        f"Text      {outcome.text.path}",
        *_result_lines(outcome.text),
        "",
        *_table(outcome),
        "",
        f"Audit     passes: {audit['entries']} entries, all balances sum to {audit['sum']}",
        "",
        "All processes have ended. What they left is in",
        f"  {outcome.folder}",
        "What to try next:",
        f"  {potluck} verify {outcome.pictures[0].path} --home {outcome.folder / 'texts'}",
        f"  {tracker} audit {outcome.folder / 'tracker'}",
        f"  {tracker} init my-horde && {tracker} serve my-horde     a horde of your own",
        f"  {potluck} join LINK && {potluck} worker     serve it",
        f"  {potluck} image 'a small green square on white' --model shapes --width 32 --height 32 -o square.png",
    ]


def as_typed(command: str, module: str) -> str:
    """How `command` is typed here: by its name if that is found, else by the path of its script beside this Python."""
    if shutil.which(command):
        return command
    script = Path(sys.executable).with_name(f"{command}.exe" if os.name == "nt" else command)
    if not script.is_file():
        return f"{_quoted(sys.executable)} -m {module}"
    return _quoted(str(script.relative_to(Path.cwd()) if script.is_relative_to(Path.cwd()) else script))


def _quoted(path: str) -> str:
    if os.name == "nt":
        return f'"{path}"' if " " in path else path
    return shlex.quote(path)


def _result_lines(result: Any) -> list[str]:
    from peer.commands.report import settled_line

    return [
        f"          the worker signed for {result.receipt_digest.hex()}",
        f"          and acknowledged was  {result.acknowledged_digest.hex()}",
        f"          settled: {settled_line(result.settled)} (entry {result.settled.entry} of the ledger)",
    ]


def _table(outcome: Outcome) -> list[str]:
    """The owners' balances from beginning to end."""
    owners = ("owner of the picture worker", "owner of the text worker")
    lines = [f"{'Balances, in kudos':<32}{'before':>10}{'after the pictures':>22}{'at the end':>14}"]
    for number, owner in enumerate(owners):
        before, between, after = (f"{balance[number] / 1000:,.3f}" for balance in outcome.balances)
        lines.append(f"  {owner:<30}{before:>10}{between:>22}{after:>14}")
    return lines
