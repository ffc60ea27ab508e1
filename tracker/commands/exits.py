"""The exit codes of `potluck-tracker`, and the error that carries one."""

from __future__ import annotations

OK = 0
FOUND_FAULTS = 1
BAD_COMMAND_LINE = 2  # click's own
BAD_CONFIG = 3
BAD_HORDE = 4
CANNOT_LISTEN = 5
NOT_DONE = 6
INTERRUPTED = 130

MEANINGS: dict[int, str] = {
    OK: "done; of `serve`: ended by SIGTERM or, with --until-stdin-closes, by its parent",
    FOUND_FAULTS: "`check` or `audit` found faults, or the program itself failed",
    BAD_COMMAND_LINE: "the command line is wrong",
    BAD_CONFIG: "horde.toml is missing or wrong",
    BAD_HORDE: "keys, delegation or database are missing, cannot be used, or are there already (`init`)",
    CANNOT_LISTEN: "nothing can listen at the address",
    NOT_DONE: "the tracker refused what `admin` wanted of it, or does not answer",
    INTERRUPTED: "ended by Ctrl+C; `serve` ends cleanly all the same",
}


class CommandError(Exception):
    """A command that cannot be carried out; the text says why and what to do. code: its exit code."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


def table() -> str:
    """The codes for the end of a help text."""
    return "\n".join(f"  {code:<4}{meaning}" for code, meaning in MEANINGS.items())
