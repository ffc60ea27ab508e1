"""How `potluck` ends: one table, for scripts and for people."""

from __future__ import annotations

import enum


class Exit(enum.IntEnum):
    """The exit codes of all commands."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    UNREACHABLE = 3
    REFUSED = 4
    NO_RESULT = 5
    NOT_VERIFIED = 6
    MISSING = 7
    INTERRUPTED = 130


MEANINGS: dict[Exit, str] = {
    Exit.OK: "done",
    Exit.UNEXPECTED: "something that should not happen; the text says more",
    Exit.USAGE: "wrong words on the command line, or a file or address in the way",
    Exit.UNREACHABLE: "no tracker answers, or not the right one",
    Exit.REFUSED: "the horde refused what was asked for",
    Exit.NO_RESULT: "a job failed, expired or was denied; nothing was paid for it",
    Exit.NOT_VERIFIED: "a file or a ledger is not what somebody signed for",
    Exit.MISSING: "a package or model is not installed; the text names the command that gets it",
    Exit.INTERRUPTED: "Ctrl+C or SIGTERM; what was asked for is cancelled",
}


def table() -> str:
    """The exit codes and what they mean, one a line."""
    return "\n".join(f"{code.value:>4}  {meaning}" for code, meaning in MEANINGS.items())
