"""`potluck acts` and `potluck appeal`: what moderators did about our account, and our answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from peer.commands.common import Settings, plain, print_json, run, with_horde

if TYPE_CHECKING:
    from peer.moderation import Told


@click.command(short_help="Show what moderators did about your account.")
@with_horde
def acts(settings: Settings) -> None:
    """Show the acts of moderators that concern your account, the newest first. Each is signed, and that is checked.

    The whole public log is at the horde's address /acts.
    """

    async def work() -> None:
        from peer.acts import told

        async with settings.client() as horde:
            found = await told(horde)
        if settings.json:
            print_json({"acts": [_object(one) for one in found]})
            return
        for one in found:
            click.echo(plain(one.sentence()))
        if not found:
            click.echo("no moderator did anything about this account")

    run(settings, work)


def _object(one: Told) -> dict[str, object]:
    said = one.act
    return {
        "number": one.number,
        "digest": one.digest.hex(),
        "act": said.act,
        "state": one.state,
        "rule": said.rule,
        "reason": said.reason,
        "until": said.until or None,
        "by": one.by,
        "has_role": one.has_role,
        "open_appeals": one.appeals,
    }


@click.command(short_help="Answer to what moderators did about your account.")
@click.argument("act", metavar="ACT")
@click.argument("text", metavar="TEXT")
@with_horde
def appeal(settings: Settings, act: str, text: str) -> None:
    """Answer to ACT (its number, or the first letters of its digest, as `potluck acts` shows them) with TEXT.

    Moderators read it, and nobody else. They lift the act or uphold it, which `potluck acts` shows.
    """

    async def work() -> None:
        from peer.acts import appeal

        async with settings.client() as horde:
            about = await appeal(horde, act, text)
        if settings.json:
            print_json({"about": about.digest.hex(), "number": about.number})
        else:
            click.echo(f"moderators will read your appeal against act {about.number}")

    run(settings, work)
