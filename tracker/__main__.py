"""The command `potluck-tracker`. Libraries are imported where a command needs them, so that help comes quickly."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tracker.admin import admin
from tracker.commands import exits
from tracker.commands.guard import guarded

if TYPE_CHECKING:
    from protocol.links import Link

FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)
PLACE = click.Path(exists=True, path_type=Path)


def _version(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from importlib import metadata

        try:
            version = metadata.version("potluck")
        except metadata.PackageNotFoundError:
            version = "(run from a folder, not installed)"
        click.echo(f"potluck-tracker {version}")
        context.exit()


@click.group(
    epilog="\b\nExit codes:\n" + exits.table(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
def cli() -> None:
    """Host a horde: people with a GPU to spare serve people who need one, for free.

    `potluck-tracker init DIR` makes one, `potluck-tracker serve DIR` runs it.
    """


def _now() -> int:
    return time.time_ns() // 1_000_000


@cli.command()
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option("--name", help="The horde's name, as people see it.")
@click.option("--listen", metavar="HOST:PORT", help="Where to listen; 127.0.0.1:7345 if not given.")
@click.option(
    "--url", metavar="URL", help="The address for the link: ws://... or wss://..., made from --listen if not given."
)
@click.option(
    "--self-signed", is_flag=True, help="Speak TLS with a certificate made now, whose digest the link carries."
)
@click.option(
    "--template",
    type=click.Choice(["public", "school", "friends"]),
    help="Begin with rules for such a horde; the defaults if not given.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def init(
    folder: Path,
    name: str | None,
    listen: str | None,
    url: str | None,
    self_signed: bool,
    template: str | None,
    as_json: bool,
) -> None:
    """Make a new horde in DIR: keys, rules and database. Prints the link by which people join."""
    from tracker.commands.init import init, words

    given = {"horde.name": name, "server.listen": listen, "server.url": url}
    with guarded():
        chosen = {key: value for key, value in given.items() if value is not None}
        made = init(folder, chosen, _now(), self_signed=self_signed, kind=template or "")
    if as_json:
        from protocol.keys import show_key

        content = {
            "link": str(made.link) if made.link else None,
            "root": show_key(made.root),
            "folder": str(made.folder),
            "root_key": str(made.root_key),
        }
        click.echo(json.dumps(content))
    else:
        click.echo(words(made))


@cli.command()
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option("--listen", metavar="HOST:PORT", help="Listen here instead of where horde.toml says.")
@click.option("--json-logs", is_flag=True, help="Log JSON lines on a terminal too, and print the link as JSON.")
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
)
@click.option(
    "--log", "log_file", type=click.Path(dir_okay=False, path_type=Path), help="Write all logs to this file too."
)
@click.option("--until-stdin-closes", is_flag=True, hidden=True)
def serve(
    folder: Path, listen: str | None, json_logs: bool, log_level: str, log_file: Path | None, until_stdin_closes: bool
) -> None:
    """Run the horde in DIR until SIGTERM or Ctrl+C. SIGHUP reads the rules again.

    Logs go to standard error: readable on a terminal, JSON lines otherwise. The link goes to standard output.
    """
    import os

    from tracker import logs
    from tracker.commands.serve import serve

    try:
        logs.set_up(level=log_level, as_json=json_logs or None, colours="NO_COLOR" not in os.environ, file=log_file)
    except OSError as error:
        raise click.BadParameter(f"{log_file}: {error.strerror}", param_hint="--log") from error
    as_json = json_logs or not sys.stdout.isatty()
    with guarded():
        code = serve(
            folder,
            listen=listen,
            until_stdin_closes=until_stdin_closes,
            announce=lambda link: _announce(link, as_json=as_json),
        )
    sys.exit(code)


def _announce(link: Link, *, as_json: bool) -> None:
    """Tell people, or the program that started this one, that peers can come."""
    if as_json:
        click.echo(json.dumps({"event": "serving", "url": link.url, "link": str(link), "name": link.name}))
    else:
        click.echo(f"{link.name} is open at {link.url}\nPeople join by: potluck join '{link}'\nCtrl+C ends it.")
    sys.stdout.flush()


@cli.command(short_help="Look whether DIR is fit to be served.")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def check(folder: Path, as_json: bool) -> None:
    """Look whether DIR is fit to be served: settings, keys, database, disk. Changes nothing."""
    from tracker.commands.check import check

    findings = list(check(folder, _now()))
    ok = all(finding.grade != "error" for finding in findings)
    if as_json:
        rows = [{"grade": f.grade, "what": f.what, "text": f.text} for f in findings]
        click.echo(json.dumps({"ok": ok, "findings": rows}))
    else:
        for finding in findings:
            click.echo(f"{finding.grade:<8}{finding.what}: {finding.text}")
    sys.exit(exits.OK if ok else exits.FOUND_FAULTS)


@cli.command()
@click.argument("place", metavar="DIR|DATABASE", type=PLACE)
@click.option(
    "--head", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A settlement that somebody kept."
)
@click.option(
    "--archives", metavar="FOLDER|all", default="", help="Read the archives there too; all: beside the database."
)
@click.option(
    "--from", "begin", metavar="N", type=click.IntRange(min=0), help="Begin at entry N, where an archive ends, or at 0."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def audit(place: Path, head: Path | None, archives: str, begin: int | None, as_json: bool) -> None:
    """Compute everything in the ledger again from its evidence. Works while the tracker serves.

    Where evidence has moved into archives, it begins behind the last one, with the books as they were signed there;
    with --archives it begins at entry 0, or at N. With --head, a settlement that a peer kept must be in the ledger too:
    so a cut or rewritten tail is found.
    """
    from tracker.commands.audit import audit

    with guarded():
        report = audit(place, head, archives, begin)
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(report))
    else:
        for line in report.lines():
            click.echo(line)
    sys.exit(exits.OK if report.ok else exits.FOUND_FAULTS)


@cli.command()
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.argument("file", metavar="FILE", type=FILE)
@click.option("--force", is_flag=True, help="Overwrite FILE.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def backup(folder: Path, file: Path, force: bool, as_json: bool) -> None:
    """Copy the database of the horde in DIR to FILE. Works while the tracker serves.

    FILE is one file, sound in itself, of which `restore` can go on. horde.toml and the keys are not in it.
    """
    from tracker.commands.backup import backup, words

    with guarded():
        made = backup(folder, file, force=force, told=_told)
    if as_json:
        from protocol.keys import show_key

        content = {
            "file": str(made.file),
            "bytes": made.size,
            "root": show_key(made.copy.root),
            "entries": made.copy.size,
            "tree": made.copy.tree.hex(),
            "epoch": made.copy.serving.epoch,
            "archives": list(made.archives),
        }
        click.echo(json.dumps(content))
    else:
        click.echo(words(made))


def _told(done: int, whole: int, of: str = "pages", how: str = "copied") -> None:
    """How far it is, for people who watch."""
    if sys.stderr.isatty():
        end = "\n" if done == whole else "\r"
        click.echo(f"{done * 100 // max(1, whole)} % of {whole:,} {of} {how}{end}", nl=False, err=True)


@cli.command(short_help="Move old evidence of the horde in DIR into a file.")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option("--before", metavar="DAY", type=click.DateTime(["%Y-%m-%d"]), help="What ended before that day (UTC).")
@click.option(
    "--keep-days",
    metavar="N",
    type=click.IntRange(min=0),
    help="What ended more than N days ago; 90 if not given, 14 at least.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def archive(folder: Path, before: datetime | None, keep_days: int | None, as_json: bool) -> None:
    """Move what the ledger of the horde in DIR rests on, of jobs that ended long ago, into a file in DIR/archives.

    Works while the tracker serves. Entries, proofs and balances stay. The ledger is audited first, and a ledger with
    faults is left as it is. If it is broken off, the same command goes on.
    """
    from tracker.commands.archive import DAYS, archive, words

    if before is not None and keep_days is not None:
        raise click.UsageError("--before and --keep-days: wanted one of them")
    with guarded():
        made = archive(
            folder,
            before=before,
            keep_days=DAYS if keep_days is None else keep_days,
            now=_now(),
            told=lambda done, all: _told(done, all, "requests", "moved"),
        )
    if as_json:
        click.echo(json.dumps(asdict(made)))
    else:
        for line in words(made):
            click.echo(line)


@cli.command(short_help="Write the public side of the ledger to TARGET.")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.argument("target", metavar="TARGET", type=FOLDER)
@click.option("--from", "begin", metavar="N", type=click.IntRange(min=0), default=0, help="The first entry to write.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def export(folder: Path, target: Path, begin: int, as_json: bool) -> None:
    """Write what anybody may read of the ledger in DIR to the folder TARGET. Works while the tracker serves.

    `potluck audit TARGET` checks it. With --from, a multiple of 1000, an older export is brought up to date.
    """
    from tracker.commands.export import export, words

    with guarded():
        made = export(folder, target, begin=begin, now=_now(), told=lambda done, all: _told(done, all, "entries"))
    if as_json:
        click.echo(json.dumps({"folder": str(made.folder), "entries": made.size, "parts": made.parts}))
    else:
        click.echo(words(made))


@cli.command(short_help="Let the horde in DIR go on from a backup.")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.argument("file", metavar="FILE", type=PLACE)
@click.option(
    "--root-key",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The horde's root key; DIR/root.key if not given.",
)
@click.option("--force", is_flag=True, help="Go on from FILE although its audit finds faults.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def restore(folder: Path, file: Path, root_key: Path | None, force: bool, as_json: bool) -> None:
    """Let the horde in DIR go on from the backup FILE, under a new serving key that the root key appoints.

    The present database and key are set aside, never deleted. What peers were paid after the backup they show when
    they come back, and it is entered again; `audit` says what nobody has shown.
    """
    from tracker.commands.restore import restore, words

    with guarded():
        done = restore(folder, file, root_key=root_key, force=force, now=_now())
    if as_json:
        from protocol.keys import show_key

        content = {
            "epoch": done.epoch,
            "entries": done.entries,
            "serving": show_key(done.serving),
            "aside": [str(path) for path in done.aside],
            "missing_archives": list(done.missing),
        }
        click.echo(json.dumps(content))
    else:
        click.echo(words(done))


@cli.group("filter")
def filter_group() -> None:
    """The prompt filter: its word lists, and what they make of prompts."""


@filter_group.command("lists")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def filter_lists(folder: Path, as_json: bool) -> None:
    """Show the word lists of the horde in DIR: those that come with Potluck, and its own in DIR/filter."""
    from tracker.commands.folder import read_lists

    with guarded():
        found = read_lists(folder)
    rows = [
        {
            "name": one.name,
            "category": one.category,
            "language": one.language,
            "terms": len(one.terms),
            "digest": one.digest.hex(),
        }
        for one in found
    ]
    if as_json:
        click.echo(json.dumps({"lists": rows}))
    else:
        for row in rows:
            click.echo(f"{row['name']:<20}{row['category']:<10}{row['language']:<4}{row['terms']:>6}  {row['digest']}")


@filter_group.command("test")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.argument("file", metavar="FILE", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def filter_test(folder: Path, file: Path, as_json: bool) -> None:
    """Print what the horde in DIR would make of each prompt in FILE, and the terms that were found.

    FILE has a prompt in each line, bare, or behind `clean`, `borderline` or `blocked` and a tab.
    """
    from tracker.commands.filter import test

    with guarded():
        tested = list(test(folder, file))
    wrong = sum(one.is_wrong for one in tested)
    labelled = sum(bool(one.label) for one in tested)
    if as_json:
        rows = [
            {
                "line": one.line,
                "label": one.label,
                "refused": one.verdict.refused,
                "dropped": one.verdict.dropped,
                "labels": one.verdict.labels,
                "terms": one.terms,
                "wrong": one.is_wrong,
            }
            for one in tested
        ]
        click.echo(json.dumps({"prompts": rows, "wrong": wrong}, ensure_ascii=False))
    else:
        for one in tested:
            terms = ", ".join(f"{term} ({category} {weight})" for weight, category, term in one.terms)
            click.echo(f"{one.line}: {'WRONG: ' if one.is_wrong else ''}{one.outcome}{': ' if terms else ''}{terms}")
        click.echo(f"{len(tested)} prompts, {labelled} of them with a label; {wrong} not as it says")
    sys.exit(exits.FOUND_FAULTS if wrong else exits.OK)


cli.add_command(admin)


@cli.group("models", short_help="The catalogue of models: what it has, and entries for it.")
def models_group() -> None:
    """The catalogue of models, models.toml: what it has, and entries for it."""


@models_group.command("list")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def models_list(folder: Path, as_json: bool) -> None:
    """Show the catalogue of the horde in DIR."""
    from tracker.commands.models import rows

    with guarded():
        found = list(rows(folder))
    if as_json:
        click.echo(json.dumps({"models": found}))
    else:
        for one in found:
            licence = f"{one['licence']}{' (open)' if one['open'] else ''}"
            files = "file" if one["files"] == 1 else "files"
            click.echo(
                f"{one['name']:<40}{one['kind']:<7}{one['millions']:>7} M  {one['files']:>4} {files:<5}  {licence}"
            )


@models_group.command("entry")
@click.argument("path", metavar="PATH", type=click.Path(exists=True, path_type=Path))
@click.option("--name", required=True, help="The name under which workers serve it.")
@click.option("--kind", type=click.Choice(["image", "text"]), required=True, help="What it makes.")
@click.option("--licence", required=True, metavar="SPDX", help="Its licence, as Apache-2.0.")
@click.option("--millions", type=click.IntRange(0), required=True, help="Its size in millions of parameters.")
@click.option("--baseline", default="", help="The family that it belongs to.")
@click.option("--hub", default="", help="Its id at the model hub.")
@click.option("--revision", default="", help="The revision there.")
def models_entry(path: Path, name: str, **facts: Any) -> None:
    """Print what models.toml says of the model in PATH, a folder or a file, with the SHA-256 of each file."""
    from protocol.catalogue import Model
    from tracker.commands.models import entry

    with guarded():
        click.echo(entry(path, name, Model(**facts)))


def main() -> None:
    """Carry out the command line."""
    try:
        code = cli(standalone_mode=False)
    except click.Abort:
        code = exits.INTERRUPTED
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    sys.exit(code)


if __name__ == "__main__":
    main()
