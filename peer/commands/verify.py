"""`potluck verify FILE`: is this what its worker signed for?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from peer.commands.common import Failure, Settings, print_json, show_kudos, translated, with_home
from peer.commands.exits import Exit

if TYPE_CHECKING:
    from peer.verify import Verified


@click.command(short_help="Is this file what its worker signed for?")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@with_home
def verify(settings: Settings, file: Path) -> None:
    """Compute the digest of FILE anew and hold it against what its worker signed and this peer acknowledged."""
    with translated(settings):
        from peer.evidence import Evidence
        from peer.verify import NotVerified, verify_file

        try:
            found = verify_file(file, Evidence(settings.home.results_folder))
        except NotVerified as error:
            raise Failure(error.reason, str(error), Exit.NOT_VERIFIED) from error
    if settings.json:
        print_json(verified_fields(file, found))
    else:
        click.echo("\n".join(verified_lines(file, found)))


def verified_fields(file: Path, found: Verified) -> dict[str, Any]:
    """What was found, for scripts."""
    from protocol.keys import show_key

    settlement = found.settlement
    return {
        "verified": True,
        "path": str(file),
        "sha256": found.sha256.hex(),
        "output_digest": found.output_digest.hex(),
        "horde": show_key(found.root),
        "worker": show_key(found.lease.worker),
        "model": found.lease.model,
        "engine": found.receipt.engine,
        "job": found.lease.job.hex(),
        "attempt": found.lease.attempt,
        "partial": found.receipt.partial,
        "settled": settlement is not None,
        "paid": settlement.paid if settlement else None,
        "minted": settlement.minted if settlement else None,
        "entry": settlement.entry if settlement else None,
    }


def verified_lines(file: Path, found: Verified) -> list[str]:
    """What was found, for people."""
    from protocol.keys import show_key

    lines = [
        f"{file} is what its worker signed for, and what was acknowledged",
        f"  SHA-256         {found.sha256.hex()}",
        f"  output digest   {found.output_digest.hex()}",
        f"  worker          {show_key(found.lease.worker)}",
        f"  model           {found.lease.model} ({found.receipt.engine})",
        f"  horde           {show_key(found.root)}",
    ]
    if found.settlement is None:
        return [*lines, "  settlement      none has come yet"]
    paid = f"{show_kudos(found.settlement.paid)} kudos paid, {show_kudos(found.settlement.minted)} given by the horde"
    return [*lines, f"  settlement      entry {found.settlement.entry} of the ledger: {paid}"]
