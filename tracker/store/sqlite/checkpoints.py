"""Checkpoints, found by their time."""

from __future__ import annotations

import sqlite3

from protocol.documents import Checkpoint, open_document
from protocol.envelope import parse


def newest_before(connection: sqlite3.Connection, before: int) -> bytes:
    """The newest checkpoint that was signed before that moment; empty if none was."""
    low, high = connection.execute("SELECT min(size), max(size) FROM checkpoints").fetchone()
    found = b""
    while low is not None and low <= high:  # later checkpoints cover more
        middle = (low + high) // 2
        size, raw = connection.execute(
            "SELECT size, document FROM checkpoints WHERE size <= ? ORDER BY size DESC LIMIT 1", (middle,)
        ).fetchone()
        if open_document(parse(raw), Checkpoint).time < before:
            low, found = middle + 1, bytes(raw)
        else:
            high = size - 1
    return found
