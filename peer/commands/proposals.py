"""`potluck proposals`, `propose` and `vote`: having a say in the horde's rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from peer.commands.common import Settings, plain, print_json, run, with_horde

if TYPE_CHECKING:
    from peer.proposing import Proposed


@click.command(short_help="Show what is proposed, voted on and answered.")
@with_horde
def proposals(settings: Settings) -> None:
    """Show proposals to change the horde's rules, the newest first, how votes ended, and what operators answered."""

    async def work() -> None:
        from peer.proposing import proposals

        found = await proposals(settings.link())
        if settings.json:
            print_json({"proposals": [_object(one) for one in found]})
            return
        for one in found:
            name = f"{one.number} ({one.envelope.digest.hex()[:12]})"
            change = f"{one.said.key}: {one.was} -> {one.said.value}"
            click.echo(plain(f"{name} by account {one.account}: {change}, {one.state}\n    {one.said.text}"))
        if not found:
            click.echo("nothing is proposed")

    run(settings, work)


def _object(one: Proposed) -> dict[str, object]:
    outcome, answer = one.outcome, one.answer
    return {
        "number": one.number,
        "digest": one.envelope.digest.hex(),
        "account": one.account,
        "key": one.said.key,
        "was": one.was,
        "value": one.said.value,
        "text": one.said.text,
        "until": one.until,
        "voices": one.voices,
        "outcome": outcome and {"yes": outcome.yes, "no": outcome.no, "accepted": outcome.accepted},
        "answer": answer and {"rules": answer.rules or None, "text": answer.text},
    }


@click.command(short_help="Propose to change one of the horde's rules.")
@click.argument("rule", metavar="RULE")
@click.argument("value", metavar="VALUE")
@click.argument("text", metavar="TEXT")
@with_horde
def propose(settings: Settings, rule: str, value: str, text: str) -> None:
    """Propose that RULE (as `potluck rules` shows it) becomes VALUE, and say why in TEXT, for everybody to read.

    Who was paid enough for serving lately has a voice (rules `votes.standing` and `votes.days`).
    """

    async def work() -> None:
        from peer.acts import propose

        async with settings.client() as horde:
            envelope = await propose(horde, rule, value, text)
        if settings.json:
            print_json({"proposal": envelope.digest.hex()})
        else:
            click.echo(
                f"proposed as {envelope.digest.hex()[:12]}: `potluck vote {envelope.digest.hex()[:12]} yes` votes"
            )

    run(settings, work)


@click.command(short_help="Vote on a proposal.")
@click.argument("proposal", metavar="PROPOSAL")
@click.argument("choice", type=click.Choice(["yes", "no"]))
@with_horde
def vote(settings: Settings, proposal: str, choice: str) -> None:
    """Vote yes or no on PROPOSAL: its number, or the first letters of its digest. You may change your mind until the
    end; each account has one vote, and nobody is shown who voted how."""

    async def work() -> None:
        from peer.acts import vote
        from peer.proposing import find, keep_vote

        found = await find(settings.link(), proposal)
        async with settings.client() as horde:
            cast = await vote(horde, found.envelope.digest, yes=choice == "yes")
        keep_vote(settings.home, settings.link().root, cast)
        if settings.json:
            print_json({"number": found.number, "yes": choice == "yes"})
        else:
            click.echo(plain(f"voted {choice} on {found.number}: {found.said.key}: {found.was} -> {found.said.value}"))

    run(settings, work)
