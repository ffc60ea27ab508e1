"""`potluck join` and `status`: which horde, and how it goes there."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from peer.commands.account import account_fields, account_lines
from peer.commands.common import Settings, plain, print_json, run, show_kudos, with_horde

if TYPE_CHECKING:
    from peer.client import Client


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
        registration, is_member = "", False
        if not offline:
            async with Client(parsed, home=settings.home, insecure=settings.insecure) as horde:
                # It answered, and proved that the link's key is its own.
                parsed = replace(parsed, members=not horde.rules.accounts.anonymous)
                registration, is_member = horde.rules.accounts.registration, bool(horde.account_number)
        kept = settings.home.join(parsed, name or settings.horde, default=default)
        if settings.json:
            about = {"name": kept, "link": str(parsed), "root": show_key(parsed.root)}
            print_json({**about, "members_only": parsed.members})
        else:
            click.echo(f"joined {plain(kept)}: {parsed.url}")
            if parsed.members:
                click.echo(_to_members(registration, is_member=is_member))

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
            idle = await _why_idle(horde)
            news = horde.rules_news
        if settings.json:
            mine = {"account": {"key": key, **account_fields(found)}, "worker": idle}
            print_json({"horde": scraped, "rules": news, **mine})
            return
        click.echo(plain(f"{'rules':<24} {news}"))
        for line in scrape_lines(scraped):
            click.echo(line)
        click.echo("\n".join([*account_lines(found, key), *worker_lines(idle)]))

    run(settings, work)


async def _why_idle(horde: Client) -> dict[str, int] | None:
    """How many jobs wait, by the reason why they do not come to this peer's worker; None if it has none here."""
    from peer.events import Refused

    try:
        return await horde.why()
    except Refused:
        return None


def worker_lines(reasons: dict[str, int] | None) -> list[str]:
    """Why this peer's worker gets nothing, for people; nothing where there is none."""
    from peer.commands.reasons import idle_lines

    return [] if reasons is None else ["", "worker      is here", *idle_lines(reasons)]


def _to_members(registration: str, *, is_member: bool) -> str:
    """What whoever joins a horde that is not for everybody has to do; registration: its rule, empty if unknown."""
    if is_member:
        return "This horde serves its members only, and you are one."
    how = {
        "open": "`potluck account --register` makes you one",
        "closed": "it takes no new ones now: ask its operator",
    }.get(registration, "with a code of its operator, `potluck account --register --invite CODE` makes you one")
    return f"This horde serves its members only: {how}."


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
