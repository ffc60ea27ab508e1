"""`potluck rules`: what a horde goes by, and what changed."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from peer.commands.common import Settings, plain, print_json, run, with_horde

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peer.ruling import Version
    from protocol.changes import Change


@click.command(short_help="Show the horde's rules, and what changed.")
@click.option("--diff", is_flag=True, help="Only what this version changed of the one before.")
@click.option("--version", "number", type=click.IntRange(1), metavar="N", help="Version N; else the one in force.")
@with_horde
def rules(settings: Settings, *, diff: bool, number: int | None) -> None:
    """Show the rules that the horde goes by. Each version is signed and names the one before it, which is checked."""

    async def work() -> None:
        from peer.ruling import earlier, find, read
        from protocol.changes import changes

        async with settings.client() as horde:
            newest = read(horde.rules_document)
        found = newest if number is None else await find(settings.link(), newest, number)
        differing: list[Change] | None = None
        if diff:
            before = await earlier(settings.link(), found)
            differing = changes(before.rules, found.rules) if before else []
        if settings.json:
            print_json(_object(found, differing))
        else:
            click.echo("\n".join(plain(line) for line in _lines(found, differing)))

    run(settings, work)


def _object(found: Version, differing: list[Change] | None) -> dict[str, object]:
    from msgspec import to_builtins

    about: dict[str, object] = {
        "version": found.document.version,
        "digest": found.envelope.digest.hex(),
        "issued": found.document.issued,
    }
    if differing is None:
        return {**about, "rules": to_builtins(found.rules)}
    return {**about, "changes": to_builtins(differing)}


def _lines(found: Version, differing: list[Change] | None) -> Iterator[str]:
    from protocol.changes import shown, values

    yield f"version {found.document.version}{_day(found.document.issued)}"
    if differing is not None:
        yield from map(str, differing)
        if not differing:
            yield "nothing changed: there is no version before it, or it differs in what this program does not know"
        return
    for key, value in values(found.rules):
        yield f"{key:<32} {shown(value)}"


def _day(issued: int) -> str:
    with suppress(ValueError, OverflowError, OSError):  # no time that a calendar has
        return f" of {datetime.fromtimestamp(issued / 1000, UTC):%Y-%m-%d}"
    return ""
