"""The workers that are here, for anybody to read: `/workers` in parts, and `/workers/KEY`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from aiohttp import web

from protocol.errors import BadKey, BadValue, Busy, Refusal
from protocol.keys import parse_key, show_key
from tracker.coordinator import Coordinator
from tracker.matching import Worker
from tracker.replies import as_json

#: Workers in one part of the list.
LISTED = 50
#: A part, once made, holds for so long; and so many are made within that time, for each asks the database.
FRESH_MS = 1000
MAX_PARTS = 8


class Part(TypedDict):
    """Some of the workers, and the key to ask on after; None at the end."""

    workers: list[dict[str, object]]
    after: str | None


class Directory:
    """The parts of the list that were made within `FRESH_MS`, by the key that they begin after."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._parts: dict[bytes, Part] = {}
        self._since = -FRESH_MS
        self._made = 0

    async def part(self, after: bytes) -> Part | None:
        """The workers with keys above `after`; None if too many parts are asked for."""
        if not self._has_room(after):
            return None
        part = self._parts.get(after)
        if part is None:
            workers = self._coordinator.figures.workers(after, LISTED)
            following = show_key(workers[-1].key) if len(workers) == LISTED else None
            part = Part(workers=await self._entries(workers), after=following)
            self._parts[after] = part
        return part

    async def one(self, key: bytes) -> dict[str, object] | None:
        """The entry of one worker; None if it is not here."""
        worker = self._coordinator.figures.worker(key)
        return None if worker is None else (await self._entries([worker]))[0]

    def _has_room(self, after: bytes) -> bool:
        now = self._coordinator.clock()
        if not 0 <= now - self._since < FRESH_MS:
            self._since, self._made, self._parts = now, 0, {}
        if after in self._parts:
            return True
        self._made += 1
        return self._made <= MAX_PARTS

    async def _entries(self, workers: Sequence[Worker]) -> list[dict[str, object]]:
        """What is shown of each; its account only where that has a page that anybody may read."""
        owners = {worker.key: worker.owner for worker in workers}
        public = await self._coordinator.store.public(sorted(set(owners.values())))
        return [
            {
                **self._coordinator.figures.shown(worker),
                "account": owners[worker.key] if owners[worker.key] in public else None,
            }
            for worker in workers
        ]


DIRECTORY = web.AppKey("directory", Directory)


def add_workers(app: web.Application, coordinator: Coordinator) -> None:
    """Answer for the workers here."""
    app[DIRECTORY] = Directory(coordinator)
    app.add_routes([web.get("/workers", _workers), web.get("/workers/{key}", _worker)])


async def _workers(request: web.Request) -> web.Response:
    after = request.query.get("after", "")
    try:
        key = parse_key(after) if after else b""
    except BadKey as error:
        return as_json({"code": BadValue.code, "text": f"after: {error}"}, status=400)
    part = await request.app[DIRECTORY].part(key)
    if part is None:
        return as_json({"code": Busy.code, "text": "too many parts of this list are asked for: try in a second"}, 503)
    return as_json(part)


async def _worker(request: web.Request) -> web.Response:
    try:
        found = await request.app[DIRECTORY].one(parse_key(request.match_info["key"]))
    except BadKey as error:
        return as_json({"code": BadValue.code, "text": str(error)}, status=400)
    if found is None:
        text = "no worker with this key is here now: /workers lists those that are"
        return as_json({"code": Refusal.code, "text": text}, status=404)
    return as_json(found)
