"""The rules in the open: the version in force, each one before it, and what changed from one to the next."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from aiohttp import web

from protocol.changes import changes
from protocol.documents import RulesDocument, open_document
from protocol.envelope import parse
from protocol.errors import BadValue
from tracker.replies import as_json
from tracker.store.base import RulesInForce

if TYPE_CHECKING:
    from tracker.coordinator import Coordinator

#: Versions in one part of their history.
LISTED = 20
#: Versions whose difference from the one before is remembered: they never change.
KEPT = 256


class History:
    """Versions of the rules, as everybody may read them."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._entries: dict[int, dict[str, object]] = {}

    @property
    def newest(self) -> RulesInForce:
        """The version in force."""
        return self._coordinator.rules

    async def find(self, version: int) -> RulesInForce | None:
        """A version by its number; None if there is none."""
        if not 1 <= version <= self.newest.version:
            return None
        return self.newest if version == self.newest.version else await self._coordinator.store.rules(version)

    async def entry(self, found: RulesInForce) -> dict[str, object]:
        """What a version is, and what it changed."""
        entry = self._entries.get(found.version)
        if entry is None:
            before = await self.find(found.version - 1)
            document = open_document(parse(found.document), RulesDocument)
            entry = {
                "version": found.version,
                "digest": found.digest.hex(),
                "previous": document.previous.hex() or None,
                "issued": document.issued,
                "changes": [] if before is None else changes(before.rules, found.rules),
            }
            while len(self._entries) >= KEPT:
                del self._entries[next(iter(self._entries))]
            self._entries[found.version] = entry
        return entry


HISTORY = web.AppKey("rules", History)


def add_rules(app: web.Application, coordinator: Coordinator) -> None:
    """Have the application answer `/rules` and `/rules/history`."""
    app[HISTORY] = History(coordinator)
    app.add_routes([web.get("/rules", _rules), web.get("/rules/history", _history)])


async def _rules(request: web.Request) -> web.Response:
    """The version in force, or the one that is asked for: signed, readable, and with what it changed."""
    history = request.app[HISTORY]
    asked = request.query.get("version", "")
    if asked and not _is_number(asked):
        return _no_number("version", asked)
    found = await history.find(int(asked)) if asked else history.newest
    if found is None:
        text = f"version {asked}: there are versions 1 to {history.newest.version}"
        return as_json({"code": BadValue.code, "text": text}, status=404)
    document = base64.b64encode(found.document).decode("ascii")
    return as_json({**await history.entry(found), "rules": found.rules, "document": document})


async def _history(request: web.Request) -> web.Response:
    """What changed, newest version first, in parts: those below the number in `before`."""
    history = request.app[HISTORY]
    before = request.query.get("before", "")
    if before and not _is_number(before):
        return _no_number("before", before)
    newest = min(history.newest.version, int(before) - 1 if before else history.newest.version)
    oldest = max(1, newest - LISTED + 1)
    versions = [await history.find(version) for version in range(newest, oldest - 1, -1)]
    listed = [await history.entry(found) for found in versions if found is not None]
    return as_json({"versions": listed, "before": oldest if oldest > 1 else None})


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 9


def _no_number(name: str, found: str) -> web.Response:
    return as_json({"code": BadValue.code, "text": f"{name}={found[:40]}: wanted the number of a version"}, status=400)
