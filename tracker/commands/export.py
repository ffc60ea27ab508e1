"""`potluck-tracker export`: the public side of the ledger as files, the same bytes that are served over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from protocol import codec
from protocol.documents import Checkpoint, open_document
from protocol.envelope import parse
from protocol.errors import Refusal
from protocol.public import (
    BALANCES_FOLDER,
    ENTRIES_FOLDER,
    HEAD_FILE,
    MAX_SERVICES,
    PART_ENTRIES,
    PROPOSALS_FILE,
    RULES_FOLDER,
    SERVICES_FILE,
    part_name,
)
from tracker.commands.exits import BAD_COMMAND_LINE, BAD_HORDE, CommandError
from tracker.commands.folder import read_config
from tracker.public.reader import PublicLedger
from tracker.store.base import StoreError


@dataclass(frozen=True)
class Export:
    """What was written. size: entries that can be read; parts, files: how many were written now."""

    folder: Path
    size: int
    parts: int


def export(folder: Path, target: Path, *, begin: int, now: int, told: Callable[[int, int], None]) -> Export:
    """Write the ledger of the horde in `folder` to the folder `target`, from entry `begin` on; raises `CommandError`.

    Parts from before `begin` have to be there already: so an export is brought up to date.
    """
    if begin % PART_ENTRIES:
        raise CommandError(f"--from {begin}: wanted a multiple of {PART_ENTRIES}: parts begin there", BAD_COMMAND_LINE)
    config = read_config(folder)
    ledger = PublicLedger(config.settings.database)
    try:
        if not config.settings.database.exists():
            raise CommandError(f"{config.settings.database}: there is no database: nothing to export", BAD_HORDE)
        head = ledger.head(now)
        size = open_document(parse(head.public), Checkpoint).size
        for number in range(1, head.rules + 1):
            _write(target / RULES_FOLDER / str(number), ledger.rules(number))
        for end in head.archives:
            if end.size <= size:
                _write(target / BALANCES_FOLDER / str(end.size), codec.encode(ledger.balances(end.size)))
        parts = 0
        for first in range(begin, size, PART_ENTRIES):
            part, _ = ledger.part(first, now)
            rows = part.rows[: size - first]
            _write(target / ENTRIES_FOLDER / part_name(first), codec.encode(msgspec.structs.replace(part, rows=rows)))
            parts += 1
            told(min(first + PART_ENTRIES, size), size)
        shown = {"proposals": ledger.proposals(), "before": None}
        services = ledger.services(0, most=MAX_SERVICES)
        _write(target / SERVICES_FILE, msgspec.json.format(msgspec.json.encode(services), indent=2) + b"\n")
        _write(target / PROPOSALS_FILE, msgspec.json.format(msgspec.json.encode(shown), indent=2) + b"\n")
        # Last, so that a folder with a head is whole.
        _write(target / HEAD_FILE, msgspec.json.format(msgspec.json.encode(head), indent=2) + b"\n")
    except (StoreError, Refusal) as error:
        raise CommandError(str(error), BAD_HORDE) from error
    except OSError as error:
        raise CommandError(f"{target}: cannot be written: {error.strerror}", BAD_HORDE) from error
    return Export(target, size, parts)


def _write(path: Path, content: bytes) -> None:
    """Replace a file, so that readers find the old or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(content)
    new.replace(path)


def words(made: Export) -> str:
    """What `export` says to people."""
    none_yet = (
        "" if made.size else "None can be read yet: entries appear when their day is over (rule ledger.delay_days).\n"
    )
    return f"""\
{made.folder} holds the {made.size:,} entries of the ledger that anybody may read, {made.parts} parts of it new.
{none_yet}Anybody can check it: potluck audit {made.folder}"""
