"""`potluck demo`."""

import click


@click.command()
def demo() -> None:
    """Run a whole horde on this machine."""
