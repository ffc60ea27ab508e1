"""`python -m tests.torture.launcher ROLE WORDS...`: the real program, with places where it can be killed.

It loads all that the program needs, then waits for a line on standard input, so that a program which takes the place
of a killed one is there at once. Without a line there is nobody left to run it for.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

from tests.torture.places import REQUESTER, TRACKER, WORKER
from tests.torture.trap import FAULT, Trap


def main() -> None:
    """Load, wait, run."""
    role, words = sys.argv[1], sys.argv[2:]
    trap = Trap.of_environment(role)
    if role == TRACKER:
        _load_tracker(trap)
    else:
        _load_peer(trap, role)
    if os.read(0, 1):
        _run(role, words)


def _load_tracker(trap: Trap) -> None:
    import_module("tracker.commands.serve")
    from tests.torture import tracker_seams

    tracker_seams.install(trap, os.environ.get(FAULT, ""))


def _load_peer(trap: Trap, role: str) -> None:
    import_module("peer.commands.report")
    import_module("peer.worker")
    from tests.torture import peer_seams

    if role == WORKER:
        peer_seams.install_worker(trap)
    elif role == REQUESTER:
        peer_seams.install_requester(trap)


def _run(role: str, words: list[str]) -> None:
    if role == TRACKER:
        from tracker.__main__ import main as tracker_main

        sys.argv = ["potluck-tracker", *words]
        tracker_main()
    else:
        from peer.__main__ import main as peer_main

        peer_main(words, prog_name="potluck")


if __name__ == "__main__":
    main()
