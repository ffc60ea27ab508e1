"""`potluck join`, `account` and `status`: which horde, who one is there, and how it goes."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from peer.commands.common import Settings, plain, print_json, run, show_kudos, with_horde

if TYPE_CHECKING:
    from protocol.messages import Account


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


@click.command(short_help="Show or make your account.")
@click.option("--register", is_flag=True, help="Make this peer's key an account of the horde.")
@with_horde
def account(settings: Settings, register: bool) -> None:
    """Show this peer's account: what it earned by serving, and what it can spend."""

    async def work() -> None:
        from protocol.keys import show_key

        async with settings.client() as horde:
            found = await (horde.register() if register else horde.account())
            key = show_key(horde.key.public)
        if settings.json:
            print_json({"key": key, **account_fields(found)})
        else:
            click.echo("\n".join(account_lines(found, key)))

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


def account_fields(account: Account) -> dict[str, Any]:
    """The account for scripts, amounts in thousandths."""
    return {
        "account": account.number,
        "balance": account.balance,
        "held": account.held,
        "earned": account.earned,
        "spent": account.spent,
        "taken_free": account.taken_free,
        "jobs_done": account.jobs_done,
        "jobs_received": account.jobs_received,
        "notice": account.notice,
    }


def account_lines(account: Account, key: str) -> list[str]:
    """The account for people."""
    lines = [f"key         {key}"]
    if account.number:
        lines += [
            f"account     {account.number}",
            f"balance     {show_kudos(account.balance)} kudos, and {show_kudos(account.held)} held for jobs under way",
            f"earned      {show_kudos(account.earned)} by {account.jobs_done} jobs done",
            f"spent       {show_kudos(account.spent)} on {account.jobs_received} jobs received",
            f"taken       {show_kudos(account.taken_free)} for free",
        ]
    else:
        lines.append("account     none: this key is anonymous here; `potluck account --register` makes it one")
    return [*lines, plain(account.notice)] if account.notice else lines


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
            lines += [line for entry in value if isinstance(entry, dict) for line in ["", *scrape_lines(entry, "    ")]]
    return lines


def _for_people(name: str, value: object, inside: str) -> str:
    """A value that a tracker gives in thousandths of a kudo or in milliseconds, with its unit."""
    if type(value) is int and inside in ("kudos", "mint"):
        return f"{show_kudos(value)} kudos"
    if type(value) is int and name == "time":
        with suppress(ValueError, OverflowError, OSError):  # no time that a calendar has
            return f"{datetime.fromtimestamp(value / 1000).astimezone():%Y-%m-%d %H:%M:%S %Z}"
    return plain(str(value))
