"""Where archives end, as the horde signed it: from there an audit can go on without what is in them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from protocol import codec
from protocol.documents import Balances
from protocol.errors import Refusal
from tracker.audit.opening import Opening, balances_digest, digest_of
from tracker.audit.papers import Horde, check_signed
from tracker.audit.report import Findings


@dataclass(frozen=True)
class Archive:
    """One archive, as the database has it. opening: the books at its end; None if they are not those that were signed
    for. is_back: what was moved into it is here."""

    name: str
    said: Balances
    opening: Opening | None
    is_back: bool

    @property
    def size(self) -> int:
        """Entries up to its end."""
        return self.said.size


def read_archives(connection: sqlite3.Connection, horde: Horde, findings: Findings) -> list[Archive]:
    """Every archive, in their order: each signed, and beginning where the one before it ends."""
    if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'archives'").fetchone():
        return []  # a database that an earlier program has made
    found: list[Archive] = []
    previous, start = b"", 0
    rows = connection.execute("SELECT number, size, name, document, books, state FROM archives ORDER BY number")
    for expected, (number, size, name, raw, books, state) in enumerate(rows, 1):
        try:
            envelope, said = check_signed(raw, horde, Balances)
        except Refusal as refusal:
            findings.add(f"{name}: its balances", refusal, "a document of the serving key")
            continue
        for what, here, right in (
            ("number", number, expected),
            ("number that was signed for", said.number, number),
            ("end", said.size, size),
            ("beginning", said.start, start),
            ("the archive before", said.previous, previous),
        ):
            findings.expect(f"{name}: {what}", here, right)
        if horde.is_cut(envelope.key, said.size - 1):
            findings.add(f"{name}: its balances", "of entries that a restore cut", "of entries that are here")
        found.append(Archive(name, said, _opening(name, said, books, findings), state == "back"))
        previous, start = envelope.digest, said.size
    return found


def begins_with(archives: Sequence[Archive]) -> Archive | None:
    """The last archive of which something is not here: an audit begins at its end."""
    return next((archive for archive in reversed(archives) if not archive.is_back), None)


def _opening(name: str, said: Balances, books: bytes, findings: Findings) -> Opening | None:
    if not findings.expect(f"{name}: digest of its books", digest_of(books), said.books):
        return None
    try:
        opening = codec.decode(books, Opening)
    except Refusal as refusal:
        findings.add(f"{name}: its books", refusal, "what can be read")
        return None
    findings.expect(f"{name}: digest of its balances", balances_digest(opening.balances), said.balances)
    return opening
