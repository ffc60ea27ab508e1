"""`potluck transfer`: a thank-you."""

from __future__ import annotations

import click

from peer.commands.common import Settings, print_json, run, show_kudos, with_horde


@click.command(short_help="Give kudos to somebody, as a thank-you.")
@click.argument("to", metavar="ACCOUNT")
@click.argument("kudos", metavar="KUDOS")
@with_horde
def transfer(settings: Settings, to: str, kudos: str) -> None:
    """Give KUDOS of your own to ACCOUNT: its number, or its name with the number, as in Ada#123.

    The horde's rules (`transfers` at its address /rules) say whether, how much and from when on, and so does a refusal.
    A transfer has neither memo nor price, and nobody can take it back. One that was broken off before the horde
    answered can be typed again within half an hour: it moves kudos once.
    """

    async def work() -> None:
        from peer.events import BadRequest
        from peer.giving import transfer
        from protocol.amounts import read_account, read_kudos

        try:
            number, amount = read_account(to), read_kudos(kudos)
        except ValueError as error:
            raise BadRequest(str(error)) from error
        async with settings.client() as horde:
            given = await transfer(horde, number, amount, settings.home.unanswered_transfer(horde.link.root))
        if settings.json:
            print_json({"to": number, "amount": amount, "balance": given.account.balance, "again": given.again})
        else:
            left = show_kudos(given.account.balance)
            once = " (by the transfer that had not been answered; it counts once)" if given.again else ""
            click.echo(f"gave {show_kudos(amount)} kudos to account {number}{once}; the balance is now {left}")

    run(settings, work)
