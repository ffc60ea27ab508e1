"""`potluck join` and `status`: which horde, and how it goes there."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import Any

import click

from peer.commands.account import account_fields, account_lines
from peer.commands.common import Settings, plain, print_json, run, show_kudos, with_horde


@click.command(short_help="Join the horde behind a link.")
@click.argument("link")
@click.option("--name", default="", help="What to call it; else as it calls itself.")
@click.option("--default", is_flag=True, help="Mean this one from now on when no --horde is given.")
@click.option("--offline", is_flag=True, help="Keep the link without asking its tracker first.")
@with_horde
def join(settings: Settings, link: str, name: str, default: bool, offline: bool) -> None:
    """Join the horde behind LINK (potluck:?tr=...&id=...), which its operator gave out."""

    async def work() -> None:
        from peer.client import Client
        from protocol.keys import show_key
        from protocol.links import parse_link

        parsed = parse_link(link)
        if not offline:
            async with Client(parsed, home=settings.home, insecure=settings.insecure):
                pass  # it answered, and proved that the link's key is its own
        kept = settings.home.join(parsed, name or settings.horde, default=default)
        if settings.json:
            print_json({"name": kept, "link": str(parsed), "root": show_key(parsed.root)})
        else:
            click.echo(f"joined {plain(kept)}: {parsed.url}")

    run(settings, work)


@click.command(short_help="Show how the horde goes.")
@with_horde
def status(settings: Settings) -> None:
    """Show how the horde goes, and this peer's account in it."""

    async def work() -> None:
        from peer.scrape import fetch
        from protocol.keys import show_key

        link = settings.link()
        scraped = await fetch(link)
        async with settings.client() as horde:
            found = await horde.account()
            key = show_key(horde.key.public)
        if settings.json:
            print_json({"horde": scraped, "account": {"key": key, **account_fields(found)}})
            return
        for line in scrape_lines(scraped):
            click.echo(line)
        click.echo("\n".join(account_lines(found, key)))

    run(settings, work)


def scrape_lines(scraped: dict[str, Any], indent: str = "", inside: str = "") -> list[str]:
    """What a tracker says of itself, for people: names and values, tables indented. inside: the table's name."""
    lines = []
    for name, value in scraped.items():
        if isinstance(value, dict) and value:
            lines += [f"{indent}{plain(name)}", *scrape_lines(value, indent + "  ", name)]
        elif not isinstance(value, list | dict):
            lines.append(f"{indent}{plain(name):<24} {_for_people(name, value, inside)}")
        elif isinstance(value, list):
            lines.append(f"{indent}{plain(name):<24} {len(value)}")
            entries = [_without_blanks(entry) for entry in value if isinstance(entry, dict)]
            lines += [line for entry in entries for line in ["", *scrape_lines(entry, "    ")]]
    return lines


def _without_blanks(entry: dict[str, Any]) -> dict[str, Any]:
    """What there is to say of one of many: what does not apply to it or is unknown is 0. That nobody serves is news."""
    return {name: value for name, value in entry.items() if value != 0 or name in ("workers", "waiting")}


def _for_people(name: str, value: object, inside: str) -> str:
    """A value that a tracker gives in thousandths of a kudo or in milliseconds, with its unit."""
    if type(value) is int and (name == "kudos" or inside in ("kudos", "mint")):
        return f"{show_kudos(value)} kudos"
    if type(value) is int and name == "time":
        with suppress(ValueError, OverflowError, OSError):  # no time that a calendar has
            return f"{datetime.fromtimestamp(value / 1000).astimezone():%Y-%m-%d %H:%M:%S %Z}"
    return plain(str(value))
