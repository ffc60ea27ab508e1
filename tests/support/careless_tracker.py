"""`python -m tests.support.careless_tracker ...`: the tracker as it must not be, with commits that nobody waits for.

The control of the tests that watch the disk: what they look for is missing here.
"""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path

from tracker.__main__ import main
from tracker.store.sqlite import database

_connect = database.connect


def connect(path: Path) -> sqlite3.Connection:
    """A connection whose commits are in nothing but memory when they return."""
    connection = _connect(path)
    connection.execute("PRAGMA synchronous = OFF")
    return connection


if __name__ == "__main__":
    users = [module for name, module in sys.modules.items() if name.startswith("tracker.")]
    for module in users:
        if getattr(module, "connect", None) is _connect:
            vars(module)["connect"] = connect
    main()
