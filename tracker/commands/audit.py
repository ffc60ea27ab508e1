"""`potluck-tracker audit`: the ledger of a folder or database file, computed again."""

from __future__ import annotations

from pathlib import Path

from tracker.audit import Report, read_head
from tracker.audit import audit as audit_database
from tracker.audit.head import BadHead
from tracker.commands.exits import BAD_HORDE, CommandError
from tracker.commands.folder import read_config, read_delegation
from tracker.store.base import StoreError


def audit(place: Path, head: Path | None) -> Report:
    """The report on a horde's folder or its database; raises `CommandError` for what cannot be audited at all.

    Of a folder the root key is known from its delegation; a database alone is taken at its word.
    """
    root = None
    database = place
    if place.is_dir():
        settings = read_config(place).settings
        root, database = read_delegation(settings).key, settings.database
    try:
        return audit_database(database, root=root, head=read_head(head) if head else None)
    except (StoreError, BadHead) as error:
        raise CommandError(str(error), BAD_HORDE) from error
