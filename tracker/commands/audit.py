"""`potluck-tracker audit`: the ledger of a folder or database file, computed again."""

from __future__ import annotations

from pathlib import Path

from tracker.archives.file import FOLDER
from tracker.archives.whole import listed, whole
from tracker.audit import Report, read_head
from tracker.audit import audit as audit_database
from tracker.audit.head import BadHead
from tracker.commands.exits import BAD_COMMAND_LINE, BAD_HORDE, CommandError
from tracker.commands.folder import read_config, read_delegation
from tracker.store.base import StoreError


def audit(place: Path, head: Path | None, archives: str = "", begin: int | None = None) -> Report:
    """The report on a horde's folder or its database; raises `CommandError` for what cannot be audited at all.

    Of a folder the root key is known from its delegation; a database alone is taken at its word. archives: where they
    lie, `all` for beside the database; empty: what is in them is not read. begin: the entry to begin at.
    """
    root = None
    database = place
    if place.is_dir():
        settings = read_config(place).settings
        root, database = read_delegation(settings).key, settings.database
    try:
        known = read_head(head) if head else None
        if not archives:
            _check_begin(database, begin)
            return audit_database(database, root=root, head=known)
        folder = database.parent / FOLDER if archives == "all" else Path(archives)
        with whole(database, folder, begin or 0) as copy:
            return audit_database(copy, root=root, head=known)
    except (StoreError, BadHead) as error:
        raise CommandError(str(error), BAD_HORDE) from error
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror}", BAD_HORDE) from error


def _check_begin(database: Path, begin: int | None) -> None:
    """Without archives there is one place to begin at."""
    if begin is None:
        return
    found = listed(database)
    end = found[-1].said.size if found else 0
    if begin != end:
        text = f"evidence is here from entry {end} on: to begin elsewhere, say by --archives where the archives are"
        raise CommandError(f"--from {begin}: {text}", BAD_COMMAND_LINE)
