"""`potluck-tracker admin invite`: codes by which people become accounts, beside a tracker that serves."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from tracker.accounts import invite_hash, new_invite
from tracker.commands.exits import BAD_HORDE, CommandError
from tracker.commands.folder import read_config
from tracker.store.base import StoreError
from tracker.store.sqlite.acts import add_invites
from tracker.store.sqlite.database import connect


def invite(folder: Path, count: int, now: int) -> list[str]:
    """Fresh codes, known to the horde in `folder` when this returns; raises `CommandError`."""
    database = read_config(folder).settings.database
    if not database.exists():
        raise CommandError(f"{database}: there is no database: make the horde first", BAD_HORDE)
    codes = [new_invite() for _ in range(count)]
    try:
        with closing(connect(database)) as connection:
            # Nothing of this is kept in the serving process's memory; it waits for a moment at most.
            connection.execute("BEGIN IMMEDIATE")
            add_invites(connection, [invite_hash(code) for code in codes], now)
            connection.execute("COMMIT")
    except StoreError as error:
        raise CommandError(str(error), BAD_HORDE) from error
    except sqlite3.Error as error:
        raise CommandError(f"{database}: cannot be written ({error}): try again", BAD_HORDE) from error
    return codes
