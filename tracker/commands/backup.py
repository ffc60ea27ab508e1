"""`potluck-tracker backup`: the database as one file, copied while the tracker serves."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tracker.archives.file import FOLDER
from tracker.archives.whole import listed
from tracker.commands.exits import BAD_COMMAND_LINE, BAD_HORDE, CommandError
from tracker.commands.folder import read_config
from tracker.store.base import StoreError
from tracker.store.sqlite.copies import Copy, look_into, make_copy


@dataclass(frozen=True)
class Backup:
    """What was written. archives: those that hold what the copy does not."""

    file: Path
    size: int
    copy: Copy
    archives: Sequence[str]


def backup(folder: Path, file: Path, *, force: bool, told: Callable[[int, int], None]) -> Backup:
    """Copy the database of the horde in `folder` to `file`, which is whole when it is there; raises `CommandError`."""
    database = read_config(folder).settings.database
    if file.exists() and file.samefile(database):
        raise CommandError(f"{file}: is the horde's own database: name another file", BAD_COMMAND_LINE)
    if file.exists() and not force:
        raise CommandError(f"{file}: is there already: name another file, or overwrite it with --force", BAD_HORDE)
    if not database.exists():
        raise CommandError(f"{database}: there is no database: nothing to copy", BAD_HORDE)
    new = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        try:
            make_copy(database, new, told)
            copy = look_into(new)
            archives = [archive.name for archive in listed(new)]
            new.replace(file)
        finally:
            new.unlink(missing_ok=True)
    except StoreError as error:
        raise CommandError(str(error), BAD_HORDE) from error
    except OSError as error:
        raise CommandError(f"{file}: cannot be written: {error.strerror}", BAD_HORDE) from error
    return Backup(file, file.stat().st_size, copy, archives)


def words(made: Backup) -> str:
    """What `backup` says to people."""
    also = "\n".join(f"  {FOLDER}/{name}" for name in made.archives)
    needs = f"\nOld evidence is not in it but in these archives: keep a copy of each there too.\n{also}" if also else ""
    return f"""\
{made.file} holds the horde up to entry {made.copy.size} of its ledger, in {made.size:,} bytes.
It holds everything but horde.toml and the keys. Keep it on another disk, and back up every day: peers keep for some
days what they need to fill the gap after it.{needs}"""
