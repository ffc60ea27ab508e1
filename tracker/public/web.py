"""The ledger over HTTP, for anybody: `/ledger`, its entries and proofs; and the disclosure of a job to its parties.

Answers come from readers of the database beside the one that writes, in threads, a few at a time: who reads a whole
ledger must not hold up those who ask for work.
"""

from __future__ import annotations

import asyncio
import collections
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from aiohttp import web

from protocol import codec
from protocol.errors import BadValue, Busy, NotAllowed, Refusal, UnknownJob
from protocol.public import AskDisclosure, Part, Services
from tracker.doors import client_of, household_of
from tracker.public.reader import PublicLedger
from tracker.replies import as_json
from tracker.store.base import StoreError

if TYPE_CHECKING:
    from tracker.coordinator import Coordinator

log = logging.getLogger(__name__)

#: So many read at once; so many more may wait.
READERS = 2
WAITING = 16
#: Of all these, those from one address.
OF_ONE = 6
#: A whole part never changes but by a restore, and whoever reads it names the epoch in its address.
LASTING = "public, max-age=86400"
MAX_ASKED_BYTES = 32 * 1024

_STATUS: dict[type[Refusal], int] = {BadValue: 400, UnknownJob: 404, NotAllowed: 403, Busy: 503}

T = TypeVar("T")


@dataclass
class Counter:
    """Where the ledger is read. waiting: how many are being answered or wait for it; houses: of them, by household."""

    ledger: PublicLedger
    coordinator: Coordinator
    readers: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(READERS))
    waiting: int = 0
    houses: collections.Counter[str] = field(default_factory=collections.Counter)

    async def read(self, run: Callable[[], T], household: str) -> T:
        """What a reader finds; raises `Busy` if too many want something, or too many of one household."""
        if self.waiting >= READERS + WAITING or self.houses[household] >= OF_ONE:
            raise Busy("too many read the ledger now: try again in a second")
        self.waiting += 1
        self.houses[household] += 1
        try:
            async with self.readers:
                return await asyncio.to_thread(run)
        finally:
            self.waiting -= 1
            self.houses[household] -= 1
            if not self.houses[household]:
                del self.houses[household]


COUNTER = web.AppKey("ledger_counter", Counter)


def add_ledger(app: web.Application, ledger: PublicLedger, coordinator: Coordinator) -> None:
    """Have the application answer `/ledger` and what is below it."""
    app[COUNTER] = Counter(ledger, coordinator)
    app.add_routes(
        [
            web.get("/ledger", _head),
            web.get("/ledger/entries", _entries),
            web.get("/ledger/rules", _rules),
            web.get("/ledger/balances", _balances),
            web.get("/ledger/services", _services),
            web.get("/ledger/proof", _proof),
            web.get("/ledger/consistency", _consistency),
            web.post("/ledger/open", _open),
        ]
    )


async def _answer(request: web.Request, run: Callable[[Counter], T]) -> T | web.Response:
    """What was read, or the answer that says why it was not."""
    counter = request.app[COUNTER]
    try:
        return await counter.read(lambda: run(counter), household_of(client_of(request).address))
    except Refusal as refusal:
        return as_json({"code": refusal.code, "text": refusal.text}, _STATUS.get(type(refusal), 400))
    except StoreError as error:
        log.error("the ledger cannot be read: %s", error)  # noqa: TRY400 (the text says it all)
        return as_json({"code": Busy.code, "text": "the ledger cannot be read now: try again later"}, 503)


def _number(request: web.Request, name: str) -> int:
    value = request.query.get(name, "")
    if not (value.isascii() and value.isdecimal() and len(value) <= 18):
        raise BadValue(f"{name}={value[:40]}: wanted a number")
    return int(value)


async def _head(request: web.Request) -> web.Response:
    found = await _answer(request, lambda c: c.ledger.head(c.coordinator.clock()))
    return found if isinstance(found, web.Response) else as_json(found)


async def _entries(request: web.Request) -> web.Response:
    def read(counter: Counter) -> tuple[Part, bool]:
        epoch = _number(request, "epoch") if "epoch" in request.query else None
        return counter.ledger.part(_number(request, "from"), counter.coordinator.clock(), epoch)

    found = await _answer(request, read)
    if isinstance(found, web.Response):
        return found
    part, lasting = found
    headers = {"Cache-Control": LASTING} if lasting else None
    return web.Response(body=codec.encode(part), content_type="application/msgpack", headers=headers)


async def _rules(request: web.Request) -> web.Response:
    found = await _answer(request, lambda c: c.ledger.rules(_number(request, "version")))
    if isinstance(found, web.Response):
        return found
    if not found:
        return as_json({"code": BadValue.code, "text": "there is no such version: /ledger names the newest"}, 404)
    return web.Response(body=found, content_type="application/msgpack")


async def _services(request: web.Request) -> web.Response:
    def read(counter: Counter) -> Services:
        return counter.ledger.services(_number(request, "after") if "after" in request.query else 0)

    found = await _answer(request, read)
    return found if isinstance(found, web.Response) else as_json(found)


async def _balances(request: web.Request) -> web.Response:
    found = await _answer(request, lambda c: c.ledger.balances(_number(request, "size")))
    if isinstance(found, web.Response):
        return found
    return web.Response(body=codec.encode(found), content_type="application/msgpack")


async def _proof(request: web.Request) -> web.Response:
    found = await _answer(request, lambda c: c.ledger.inclusion(_number(request, "entry"), _number(request, "size")))
    return found if isinstance(found, web.Response) else as_json(found)


async def _consistency(request: web.Request) -> web.Response:
    found = await _answer(request, lambda c: c.ledger.consistency(_number(request, "from"), _number(request, "to")))
    return found if isinstance(found, web.Response) else as_json(found)


async def _open(request: web.Request) -> web.Response:
    raw = await request.content.read(MAX_ASKED_BYTES + 1)
    while len(raw) <= MAX_ASKED_BYTES and (more := await request.content.read(MAX_ASKED_BYTES + 1 - len(raw))):
        raw += more
    if len(raw) > MAX_ASKED_BYTES:
        return as_json({"code": BadValue.code, "text": f"more than {MAX_ASKED_BYTES} bytes: wanted two documents"}, 413)
    found = await _answer(request, lambda c: c.ledger.opened(codec.decode(raw, AskDisclosure)))
    if isinstance(found, web.Response):
        return found
    return web.Response(body=codec.encode(found), content_type="application/msgpack")
