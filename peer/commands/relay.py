"""`potluck relay`: pass on bytes for peers that cannot connect to each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from peer.commands.common import Settings, translated, with_horde
from peer.commands.worker import NewsLines, joining_errors, listening, log_to_stderr, loop_factory, when_told_to_end

if TYPE_CHECKING:
    from peer.home import Home
    from peer.news import News
    from peer.relay_peer import Settings as RelaySettings


@click.command(short_help="Relay for peers that cannot connect to each other.")
@click.option("--listen", default=":0", metavar="HOST:PORT", help="Where peers connect to; any free port if none.")
@click.option("--streams", type=click.IntRange(1, 1024), default=16, show_default=True, help="At once.")
@click.option("--max-rate", type=click.IntRange(0), default=0, help="Bytes a second of each stream; 0 for no bound.")
@with_horde
def relay(settings: Settings, listen: str, streams: int, max_rate: int) -> None:
    """Relay for peers that cannot connect to each other, and say how much that was.

    The tracker has to reach this machine. What passes is encrypted from end to end; it earns nothing: it is a gift.
    """
    from peer.relay_peer import Settings as RelaySettings
    from peer.relaying import Offering

    with translated(settings):
        host, port = listening(listen)
        home = settings.home
        log_to_stderr()
        with home.worker_lock():
            _serve(settings, home, RelaySettings(host, port, Offering(streams, max_rate)))


def _serve(settings: Settings, home: Home, relaying: RelaySettings) -> None:
    """Run until Ctrl+C or SIGTERM."""
    import asyncio
    import random

    from peer.client import system_clock
    from peer.keyring import delegated_account
    from peer.relay_peer import RelayPeer

    link, key = settings.link(), home.key()
    news = NewsLines(as_json=settings.json)

    async def work() -> None:
        def heard(one: News) -> None:
            if one.kind == "rules" and (document := served.connection.rules_document) is not None:
                home.keep_rules(link.root, document)
            if one.kind == "relaying":
                home.keep_delegation(link.root, served.connection.delegation_version)
            news.tell(one)

        served = RelayPeer(
            link,
            key,
            home.worker_folder,
            clock=system_clock,
            random=random.SystemRandom(),
            settings=relaying,
            insecure=settings.insecure,
            rules=home.rules(link.root),
            delegation_seen=home.delegation(link.root),
            on_news=heard,
            registers=not delegated_account(home, link.root),
        )
        running = asyncio.create_task(served.run())
        when_told_to_end(asyncio.get_running_loop(), running.cancel, stdin_too=False)
        try:
            await running
        except asyncio.CancelledError:
            if (me := asyncio.current_task()) is not None and me.cancelling():  # Ctrl+C, which ends the program
                raise

    with joining_errors(), asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(work())
