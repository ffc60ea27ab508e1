"""The command `potluck`."""

from __future__ import annotations

import click

from peer.commands import exits
from peer.commands.account import account
from peer.commands.acts import acts, appeal
from peer.commands.ask import image, text
from peer.commands.audit import audit
from peer.commands.delegate import delegate
from peer.commands.demo import demo
from peer.commands.gateway import gateway
from peer.commands.horde import join, status
from peer.commands.proposals import proposals, propose, vote
from peer.commands.relay import relay
from peer.commands.rules import rules
from peer.commands.transfer import transfer
from peer.commands.verify import verify
from peer.commands.worker import worker


def _version(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from importlib import metadata

        try:
            version = metadata.version("potluck")
        except metadata.PackageNotFoundError:
            version = "(run from a folder, not installed)"
        click.echo(f"potluck {version}")
        context.exit()


@click.group(
    epilog="\b\nExit codes:\n" + exits.table(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
def main() -> None:
    """Ask a volunteer horde for pictures and texts, or serve one with your GPU.

    `potluck demo` runs a whole horde on this machine; `potluck join LINK` joins one.
    """


for _command in (
    demo,
    join,
    image,
    text,
    worker,
    gateway,
    relay,
    account,
    delegate,
    transfer,
    acts,
    appeal,
    proposals,
    propose,
    vote,
    rules,
    status,
    verify,
    audit,
):
    main.add_command(_command)


if __name__ == "__main__":
    main(prog_name="potluck")
