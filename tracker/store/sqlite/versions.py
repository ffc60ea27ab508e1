"""The rules, version by version, each as the signed document that was published."""

from __future__ import annotations

import sqlite3

from protocol import documents
from protocol.documents import RulesDocument
from protocol.envelope import parse
from protocol.keys import SigningKey
from protocol.rules import Rules, from_json, to_json
from tracker.store.base import RulesInForce
from tracker.store.sqlite.journal import Journal


class Versions:
    """All versions of the rules; those that were asked for are kept in memory."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._known: dict[int, RulesInForce] = {}
        self._newest: dict[str, int] = {}  # a dict, so that the journal can undo it

    def newest(self, connection: sqlite3.Connection) -> int:
        """The number of the version in force."""
        if not self._newest:
            found: int = connection.execute("SELECT max(version) FROM rules").fetchone()[0]
            self._newest["version"] = found
        return self._newest["version"]

    def get(self, connection: sqlite3.Connection, version: int = 0) -> RulesInForce:
        """That version; without a number the one in force."""
        version = version or self.newest(connection)
        found = self._known.get(version)
        if found is None:
            row = connection.execute("SELECT digest, document FROM rules WHERE version = ?", (version,)).fetchone()
            found = self._known[version] = _read(row[0], row[1])
        return found

    def publish(
        self, connection: sqlite3.Connection, rules: Rules, key: SigningKey, root: bytes, now: int
    ) -> RulesInForce:
        """Sign and keep these rules as the next version; the version in force if they are the same."""
        row = connection.execute("SELECT digest, document FROM rules ORDER BY version DESC LIMIT 1").fetchone()
        previous = _read(*row) if row else None
        if previous is not None and previous.rules == rules:
            return previous
        version = previous.version + 1 if previous else 1
        document = RulesDocument(
            version=version, issued=now, rules=to_json(rules), previous=previous.digest if previous else b""
        )
        envelope = documents.sign(document, key, root)
        connection.execute(
            "INSERT INTO rules (version, digest, document) VALUES (?, ?, ?)", (version, envelope.digest, envelope.raw)
        )
        published = RulesInForce(version, rules, envelope.digest, envelope.raw)
        self._journal.put(self._known, version, published)
        self._journal.put(self._newest, "version", version)
        return published


def _read(digest: bytes, document: bytes) -> RulesInForce:
    found = documents.open_document(parse(document), RulesDocument)
    return RulesInForce(found.version, from_json(found.rules), digest, document)
