"""`potluck audit`: is the ledger of a horde what it has always said it was?"""

from __future__ import annotations

import sys
import time
from contextlib import asynccontextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import click

from peer.commands.common import Failure, Settings, plain, print_json, run, with_horde
from peer.commands.exits import Exit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from peer.audit.audit import Audited
    from peer.audit.source import Source
    from protocol.links import Link

FILE = click.Path(path_type=Path, dir_okay=False)
EXISTING = click.Path(path_type=Path, dir_okay=False, exists=True)


@click.command(short_help="Check a horde's ledger, which anybody can.")
@click.argument("place", metavar="[URL|LINK|FOLDER]", default="")
@click.option("--mine", is_flag=True, help="Look for what this peer knows, by proofs, without reading every entry.")
@click.option(
    "--from", "begin", metavar="N|DAY", help="Begin where an archive ends, at or before entry N or day YYYY-MM-DD."
)
@click.option("--against", metavar="FILE", type=EXISTING, multiple=True, help="Compare with what others were shown.")
@click.option("--shown", metavar="FILE", type=FILE, help="Write what this peer was shown to FILE, for others.")
@click.option("--check", metavar="FILE", type=EXISTING, help="Check a file that shows two histories, or opens a job.")
@click.option("--open", "job", metavar="JOB", help="Open the entries of a job of this peer, to show them to others.")
@click.option("--save", metavar="FILE", type=FILE, help="Where --open writes what it opened.")
@with_horde
def audit(
    settings: Settings,
    place: str,
    mine: bool,
    begin: str | None,
    against: tuple[Path, ...],
    shown: Path | None,
    check: Path | None,
    job: str | None,
    save: Path | None,
) -> None:
    """Check the ledger of a horde: the one joined, or that at URL or LINK, or in a FOLDER that was exported.

    Tree, balances, postings and public signatures are computed from the entries that can be read. What this peer was
    shown and paid, ever, must be in it still, unless the horde's root has signed for a restore. With --from, balances
    are taken at the horde's word up to there, and the entries behind are added to them.
    """
    about = _begin(begin)

    async def work() -> None:
        if check is not None:
            _check(settings, check)
        elif job is not None:
            await _open(settings, place, job, save)
        elif shown is not None:
            _hand_out(settings, place, shown)
        else:
            await _audit(settings, place, mine=mine, begin=about, against=against)

    run(settings, work)


def _begin(text: str | None) -> int | date | None:
    """About where to begin: an entry, or a day."""
    if text is None:
        return None
    try:
        return int(text) if text.isascii() and text.isdecimal() else date.fromisoformat(text)
    except ValueError as error:
        raise click.BadParameter(
            f"{text!r}: wanted an entry's number, or a day as 2026-11-22", param_hint="--from"
        ) from error


# Which ledger


def _link(settings: Settings, place: str) -> tuple[Link, bool]:
    """The link that is meant, and whether the horde's id in it is known."""
    from protocol.links import BadLink, parse_link, tracker_at

    if not place:
        return settings.link(), True
    if place.startswith("potluck:"):
        return parse_link(place), True
    scheme, colon, rest = place.partition("://")
    if not colon or scheme not in ("http", "https", "ws", "wss"):
        raise BadLink(f"{place[:80]!r} is neither a folder nor an address: wanted http(s)://..., or a link to a horde")
    url = f"{scheme.replace('http', 'ws', 1)}://{rest.rstrip('/')}"
    for joined in settings.home.links():
        if joined.url == url:
            return joined, True
    return tracker_at(url), False


@asynccontextmanager
async def _source(settings: Settings, place: str) -> AsyncIterator[tuple[Source, bytes | None]]:
    """Where the ledger is read, and the horde's id, if it is known."""
    from peer.audit.source import FromFolder, FromTracker
    from protocol.keys import show_key

    if place and Path(place).is_dir():
        folder = FromFolder(Path(place))
        said = (await folder.head()).root
        yield folder, next((link.root for link in settings.home.links() if show_key(link.root) == said), None)
        return
    link, known = _link(settings, place)
    async with FromTracker.open(link) as tracker:
        yield tracker, link.root if known else None


async def _audit(
    settings: Settings, place: str, *, mine: bool, begin: int | date | None, against: tuple[Path, ...]
) -> None:
    from peer.audit.audit import Options, audit
    from peer.audit.mine import BadHanded, known, read_handed
    from peer.audit.source import BadSource
    from protocol.keys import parse_key, show_key

    home = settings.home
    try:
        async with _source(settings, place) as (source, root):
            meant = root or parse_key((await source.head()).root)
            options = Options(
                root=meant,
                is_known=root is not None,
                version=home.delegation(meant),
                full=not mine,
                begin=begin,
                folder=home.folder / "audit" / show_key(meant),
                now=_now(),
                others=[raw for path in against for raw in read_handed(path, meant)],
            )
            audited = await audit(source, options, known(home, meant), _told)
    except (BadSource, BadHanded) as error:
        raise Failure("usage", str(error), Exit.USAGE) from error
    report = audited.report
    await _keep(settings, meant, audited)
    if settings.json:
        import msgspec

        print_json(msgspec.to_builtins(report))
    else:
        click.echo("\n".join(plain(line) for line in report.lines()))
    if not report.ok:
        sys.exit(Exit.NOT_VERIFIED)


def _now() -> int:
    return time.time_ns() // 1_000_000


async def _keep(settings: Settings, root: bytes, audited: Audited) -> None:
    """Keep what was shown, for the next time; what was found is told all the same where that is not possible."""
    import asyncio

    from peer.audit.mine import shown_by

    shown = shown_by(settings.home, root)
    try:
        settings.home.keep_delegation(root, audited.version)
        for raw in audited.shown:
            await asyncio.to_thread(shown.keep, raw, _now())
    except OSError as error:
        text = f"potluck: what was shown is not kept for the next audit: {error.strerror}"
        click.echo(plain(text), err=True)


def _told(done: int, whole: int) -> None:
    if sys.stderr.isatty():
        end = "\n" if done == whole else "\r"
        click.echo(f"{done:,} of {whole:,} entries read{end}", nl=False, err=True)


def _hand_out(settings: Settings, place: str, file: Path) -> None:
    from peer.audit.mine import hand_out, known
    from peer.home import write_file

    link, is_known = _link(settings, place)
    if not is_known:
        raise Failure("usage", f"no horde was joined at {place}: nothing is known of it", Exit.USAGE)
    found = known(settings.home, link.root)
    write_file(file, hand_out(found, link.root))
    if settings.json:
        print_json({"path": str(file), "checkpoints": len(found.checkpoints)})
    else:
        click.echo(f"{file} holds the {len(found.checkpoints)} checkpoints that this peer was shown")


# Evidence


def _check(settings: Settings, file: Path) -> None:
    import msgspec

    from peer.audit.disclosure import Disclosure, check_disclosure
    from peer.audit.histories import Contradiction, NotShown, check_contradiction

    try:
        found = msgspec.json.decode(file.read_bytes(), type=Contradiction | Disclosure)
    except msgspec.DecodeError as error:
        text = f"{file}: shows nothing ({error}): wanted what `potluck audit` has written"
        raise Failure("usage", text, Exit.USAGE) from error
    try:
        if isinstance(found, Contradiction):
            lines = [check_contradiction(found)]
        else:
            lines = [line for one in check_disclosure(found) for line in one.lines()]
    except NotShown as error:
        raise Failure("not_shown", f"{file}: does not show what it says: {error}", Exit.NOT_VERIFIED) from error
    if settings.json:
        kind = "two_histories" if isinstance(found, Contradiction) else "disclosure"
        print_json({"kind": kind, "horde": found.horde, "text": lines})
    else:
        click.echo("\n".join([f"{file} is right, if {found.horde} is the horde's id:", *map(plain, lines)]))


async def _open(settings: Settings, place: str, job: str, save: Path | None) -> None:
    import msgspec

    from peer.audit.disclosure import check_disclosure, make_disclosure
    from peer.audit.histories import NotShown
    from peer.audit.mine import parties
    from peer.audit.source import BadSource, FromTracker
    from peer.home import write_file
    from protocol.documents import Settlement, open_document, parse_document
    from protocol.public import AskDisclosure

    link, _ = _link(settings, place)
    if link.needs_insecure and not settings.insecure:
        text = f"{link.url} would send what this peer paid in the clear: ask for a wss link, or allow it by --insecure"
        raise Failure("insecure_link", text, Exit.USAGE)
    kept = list(parties(settings.home, link.root))
    jobs = {open_document(parse_document(one.settlement, Settlement), Settlement).job.hex(): one for one in kept}
    found = [name for name in jobs if name.startswith(job.lower())]
    if len(found) != 1 or not job:
        known = f"{len(jobs)} settlements of the last days are kept" if len(found) != 1 else ""
        raise Failure("unknown", f"job {job!r}: {len(found)} of this name; {known}", Exit.NOT_VERIFIED)
    party = jobs[found[0]]
    try:
        async with FromTracker.open(link) as tracker:
            opened = await tracker.opened(AskDisclosure(settlement=party.settlement, request=party.request))
        made = make_disclosure(party, opened, link.root)
    except BadSource as error:
        raise Failure("usage", str(error), Exit.USAGE) from error
    except NotShown as error:
        raise Failure("not_shown", f"what the tracker opens is not right: {error}", Exit.NOT_VERIFIED) from error
    if save is not None:
        write_file(save, msgspec.json.format(msgspec.json.encode(made), indent=2) + b"\n")
    shows = check_disclosure(made)
    if settings.json:
        entries = [{"entry": one.entry, "event": one.event, "time": one.time} for one in shows]
        print_json({"job": found[0], "entries": entries, "path": str(save) if save else None})
    else:
        click.echo("\n".join(plain(line) for one in shows for line in one.lines()))
        if save is not None:
            click.echo(f"{save} shows it to anybody: potluck audit --check {save}")
