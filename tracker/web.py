"""The sockets: one WebSocket for each peer, and what anybody may read over HTTP.

A handler parses, calls one function of the coordinator and replies. Here, at the edge, is the tracker's only
`except Exception`: it logs, and answers `internal` with a reference number.
"""

from __future__ import annotations

import asyncio
import html
import logging
import secrets
import shutil
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from traceback import walk_tb
from typing import TYPE_CHECKING, Protocol, cast

from aiohttp import WSCloseCode, WSMsgType, web
from aiohttp.http_exceptions import HttpProcessingError

from protocol.documents import Checkpoint, open_document, shown_name
from protocol.envelope import MAX_BEFORE_HELLO_BYTES, MAX_ENVELOPE_BYTES, parse
from protocol.errors import BadValue, Busy, Internal, OutOfTurn, OverLimit, Stopping, TooLarge, UnknownAccount
from protocol.links import Link
from protocol.postings import BURN, MINT
from tracker.config import Settings
from tracker.doors import Door, Places, Rounds, block_of, client_of, door_of, household_of
from tracker.forwarded import Client
from tracker.ledger import day_of, show_kudos
from tracker.limits import to_get_in
from tracker.porch import Porch, listen
from tracker.public.reader import PublicLedger
from tracker.public.web import add_ledger
from tracker.replies import as_json
from tracker.store.base import Gifts, Page, StoreError
from tracker.tls import Certificate
from tracker.ways import Place
from tracker.web_acts import add_acts
from tracker.web_filter import add_filter
from tracker.web_models import add_models
from tracker.web_proposals import add_proposals
from tracker.web_rules import add_rules
from tracker.web_ways import add_ways
from tracker.web_workers import add_workers

if TYPE_CHECKING:
    from tracker.conversation import Conversation
    from tracker.coordinator import Coordinator

log = logging.getLogger(__name__)


#: What clients bring about in aiohttp alone: no HTTP, an `Expect` that is no UTF-8, an end before the answer.
_OF_CLIENTS = (HttpProcessingError, UnicodeEncodeError, ConnectionError)
#: aiohttp's sentence with the address of a client in it.
_WITH_ADDRESS = "Error handling request from %s"


def _not_ours(record: logging.LogRecord) -> bool:
    """Make little of what clients do wrong: aiohttp logs it as an error with a trace, so anybody could fill the log."""
    if record.msg == _WITH_ADDRESS:
        record.msg, record.args = "a request could not be handled", ()
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, _OF_CLIENTS) and not _is_ours(error):
        record.levelno, record.levelname, record.exc_info = logging.DEBUG, "DEBUG", None
        return http_log.isEnabledFor(logging.DEBUG)
    return True


def _is_ours(error: Exception) -> bool:
    """Whether it came through code of ours."""
    return any(frame.f_globals["__name__"] == __name__ for frame, _ in walk_tb(error.__traceback__))


http_log = logging.getLogger(f"{__name__}.http")
http_log.addFilter(_not_ours)

#: A request's head must be complete within so many seconds, and a connection may lie idle so long between two.
HEAD_SECONDS = 8.0
#: So long a peer may take to answer the end of a WebSocket.
CLOSE_SECONDS = 3.0
#: So long somebody who never said hello may take for it; it is part of the time for hello.
HURRY_SECONDS = 0.5
#: A reason has to fit into a WebSocket's close frame.
MAX_REASON_BYTES = 120
#: What a scrape needs of the database is asked for at most so often.
LEDGER_MS = 1000
#: Services in one part of their list, and parts that are read for the web within that time: each holds the others up.
LISTED = 50
MAX_LISTS = 8
#: So long the database may take to answer before it counts as broken.
HEALTH_SECONDS = 5.0
#: With less room than this on its disk the database is as good as full.
ROOM_BYTES = 1024 * 1024

#: What aiohttp reads of a request for a WebSocket.
HANDSHAKE = (
    "Upgrade",
    "Connection",
    "Sec-WebSocket-Version",
    "Sec-WebSocket-Key",
    "Sec-WebSocket-Protocol",
    "Sec-WebSocket-Extensions",
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Socket(Protocol):
    """The sending half of a WebSocket."""

    async def send_bytes(self, data: bytes) -> None:
        """Send a message; waits while the other side does not take it."""

    async def close(self, *, code: int, message: bytes) -> object:
        """End the connection and wait for the other side to agree, but not for long."""


class Outlet:
    """Messages on their way to one peer, and whether the connection is to end. The coordinator's end of a socket.

    Most peers say and hear nothing most of the time: what is only needed in between, the task too, is made then.
    """

    __slots__ = ("_abort", "_last_resort", "_limit", "_reason", "_socket", "_waiting", "_writer")

    def __init__(self, limit: int, abort: Callable[[], None]) -> None:
        self._limit = limit
        self._abort = abort
        self._waiting: deque[bytes] | None = None
        self._socket: Socket | None = None
        self._writer: asyncio.Task[None] | None = None
        self._reason: str | None = None
        self._last_resort: asyncio.TimerHandle | None = None

    def send(self, raw: bytes) -> None:
        """Queue a message. A peer for which too many wait is cut off: it would cost memory without end."""
        if self._reason is not None:
            return
        if self._waiting is None:
            self._waiting = deque()
        if len(self._waiting) >= self._limit:
            self._waiting.clear()
            self.close("too_slow: too many messages wait for this peer")
            self._abort()
            return
        self._waiting.append(raw)
        self._stir()

    def write_to(self, socket: Socket) -> None:
        """From now on, what waits and what comes is sent there, and the connection ends there."""
        self._socket = socket
        if self._waiting or self._reason is not None:
            self._stir()

    def _stir(self) -> None:
        if self._writer is None and self._socket is not None:
            self._writer = asyncio.create_task(self._write(self._socket), name="peer-writer")

    def close(self, reason: str, *, hurry: bool = False) -> None:
        """End the connection when what waits has been sent, or soon (very soon in a hurry), if it cannot be."""
        if self._reason is None:
            self._reason = reason
            self._stir()
            patience = HURRY_SECONDS if hurry else 2 * CLOSE_SECONDS
            self._last_resort = asyncio.get_running_loop().call_later(patience, self._abort)

    async def _write(self, socket: Socket) -> None:
        with suppress(ConnectionError):
            while self._waiting:
                await socket.send_bytes(self._waiting.popleft())
            self._waiting = None
            if self._reason is None:
                self._writer = None
                return
            code = WSCloseCode.GOING_AWAY if self._reason.startswith(Stopping.code) else WSCloseCode.POLICY_VIOLATION
            await socket.close(code=code, message=self._reason.encode()[:MAX_REASON_BYTES])

    async def finish(self) -> None:
        """Wait until all is said and the connection is ended."""
        if self._writer is not None:
            await self._writer

    @property
    def is_closing(self) -> bool:
        """Whether the connection is to end."""
        return self._reason is not None

    async def ended(self) -> None:
        """The socket is gone."""
        self._reason = self._reason or "gone"
        self._socket = None
        if self._last_resort is not None:
            self._last_resort.cancel()
        if self._writer is not None:
            self._writer.cancel()
            with suppress(asyncio.CancelledError):
                await self._writer


@dataclass
class Desk:
    """What the handlers share. url: the address for links, known once the port is. certificate: what those who connect
    are shown, by this process or by a proxy, as far as it is known here."""

    coordinator: Coordinator
    settings: Settings
    places: Places
    outlets: set[Outlet] = field(default_factory=set)
    url: str = ""
    certificate: Certificate | None = None
    ledger: dict[str, object] = field(default_factory=dict)
    gifts: Gifts = field(default_factory=Gifts)
    asked: int = 0
    services: dict[int, dict[str, object]] = field(default_factory=dict)
    listed: int = -LEDGER_MS
    lists: int = 0
    awards: list[dict[str, object]] = field(default_factory=list)
    honoured: int = -LEDGER_MS

    @property
    def link(self) -> Link:
        """The link by which this horde is joined."""
        pin = self.certificate.pin if self.certificate else b""
        rules = self.coordinator.rules.rules
        return Link(self.url, self.coordinator.root, rules.horde.name, pin, not rules.accounts.anonymous)


NOTHING_HERE = "nothing is here: / names what there is, and an account's page is /accounts/NUMBER"

DESK = web.AppKey("desk", Desk)


def make_app(coordinator: Coordinator, settings: Settings, certificate: Certificate | None = None) -> web.Application:
    """The application that serves peers and readers. certificate: what the settings name, read."""
    app = web.Application(middlewares=[_edge], client_max_size=1024)
    places = Places(lambda: coordinator.rules.rules.limits.connections)
    app[DESK] = Desk(coordinator, settings, places, url=settings.link_url(settings.port))
    show_certificate(app, certificate)
    add_workers(app, coordinator)
    add_ways(app, coordinator.ways, places, float(settings.heartbeat_s))
    add_filter(app, coordinator.content_filter)
    add_rules(app, coordinator)
    add_models(app, coordinator.listing, lambda: coordinator.rules.rules)
    add_acts(app, coordinator)
    add_proposals(app, coordinator)
    add_ledger(app, PublicLedger(settings.database), coordinator)
    app.add_routes(
        [
            web.get("/peer", _peer),
            web.get("/", _page),
            web.get("/scrape", _scrape),
            web.get(r"/accounts/{number:[0-9]{1,18}}", _account),
            web.get("/services", _services),
            web.get("/awards", _awards),
            web.get("/healthz", _healthz),
        ]
    )
    app.on_shutdown.append(_hang_up)
    return app


def show_certificate(app: web.Application, certificate: Certificate | None) -> Link:
    """Show this certificate to everybody who connects from now on; the link that goes with it."""
    desk = app[DESK]
    desk.certificate = certificate
    desk.coordinator.vouch_for(certificate.pin if certificate else b"")
    return desk.link


@asynccontextmanager
async def serving(app: web.Application) -> AsyncIterator[Link]:
    """The application at its address, which the link names, until the block ends; raises `CannotListen`."""
    desk = app[DESK]
    settings = desk.settings
    runner = web.AppRunner(
        app,
        access_log=None,
        logger=http_log,
        keepalive_timeout=HEAD_SECONDS,
        lingering_time=1.0,
        shutdown_timeout=float(settings.stop_grace_s),
    )
    await runner.setup()
    try:
        behind, rounds = cast("Callable[[], asyncio.Protocol]", runner.server), Rounds()

        def door(arrival: tuple[Client, str] | None) -> Door:
            return Door(behind, desk.places, settings.trust, rounds, arrival)

        def context() -> ssl.SSLContext | None:
            return desk.certificate.context if desk.certificate else None

        if settings.private_key is None and not settings.proxy_protocol:
            listening = listen(settings.host, settings.port, lambda: door(None))
        else:
            porch = Porch(desk.places, settings.trust, context, settings.proxy_protocol, door)
            listening = porch.listen(settings.host, settings.port)
        async with listening as port:
            desk.url = settings.link_url(port)
            desk.coordinator.ways.place = Place(desk.url, settings.trust)
            yield desk.link
    finally:
        await runner.cleanup()


async def _hang_up(app: web.Application) -> None:
    for outlet in list(app[DESK].outlets):
        outlet.close(f"{Stopping.code}: the tracker is shutting down; come back later")


@web.middleware
async def _edge(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What every answer has; a fault of ours becomes `internal` and a reference to the log."""
    try:
        response = await handler(request)
    except web.HTTPException as refusal:
        text = NOTHING_HERE if refusal.status == HTTPStatus.NOT_FOUND else refusal.reason
        response = as_json({"code": "refused", "text": text}, status=refusal.status)
    except Exception as error:  # noqa: BLE001 (the edge: the reader gets an answer, the log the trace)
        reference = _log_fault("a request failed", error, path=request.path)
        response = as_json({"code": Internal.code, "text": _sentence(reference)}, status=500)
    if not response.prepared:
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Access-Control-Allow-Origin"] = "*"
        response.headers.setdefault("Cache-Control", "no-store")
    return response


def _log_fault(what: str, error: Exception, **about: object) -> str:
    reference = secrets.token_hex(4)
    log.error(what, exc_info=error, extra={"reference": reference, **about})
    return reference


def _sentence(reference: str) -> str:
    return f"a fault of this tracker: tell its operator the reference {reference}"


# Peers


async def _peer(request: web.Request) -> web.StreamResponse:
    desk, door, address = request.app[DESK], door_of(request), client_of(request).address
    if door is None or not door.trust.covers(door.source.address):  # gone, or counted at the door
        return await _converse(request, desk, block_of(address))
    household = household_of(address)
    if not desk.places.enter(household, asyncio.get_running_loop().time()):
        text = (
            "this address has as many connections here as the rule limits.connections allows: close some; if none is"
            " left to close, it made too many in this minute: try again when the minute is over"
        )
        return as_json({"code": OverLimit.code, "text": text}, status=429)
    try:
        return await _converse(request, desk, block_of(address))
    finally:
        desk.places.leave(household)


async def _converse(request: web.Request, desk: Desk, origin: str) -> web.StreamResponse:
    """One peer's connection from the challenge to its end."""
    door = door_of(request)
    if door is None or door.spoke_early:
        text = "a peer speaks after the challenge: wait for it"
        return as_json({"code": OutOfTurn.code, "text": text}, status=400)
    if not all(request.headers.get(name, "").isascii() for name in HANDSHAKE):
        raise web.HTTPBadRequest  # aiohttp fails at them; whatever else is wrong it refuses
    socket = web.WebSocketResponse(
        heartbeat=float(desk.settings.heartbeat_s),
        max_msg_size=MAX_ENVELOPE_BYTES,
        compress=False,
        timeout=CLOSE_SECONDS,
    )
    try:
        await socket.prepare(request)
    except ConnectionError:  # gone before it was let in: nobody reads what is answered
        raise web.HTTPBadRequest from None
    outlet = Outlet(desk.settings.outbox, lambda: request.transport.abort() if request.transport else None)
    # The reader of a web page is not to be tested or met for whoever wrote it.
    address = None if "Origin" in request.headers else client_of(request).address
    conversation = desk.coordinator.open(outlet, origin, address)
    desk.outlets.add(outlet)
    outlet.write_to(socket)
    door.upgraded(lambda: _largest(conversation), lambda size: _too_large(conversation, size))
    deadline = asyncio.get_running_loop().call_at(
        door.opened + desk.coordinator.hello_deadline_s - HURRY_SECONDS, _end_if_silent, conversation, outlet
    )
    try:
        conversation.start()
        await _listen(socket, conversation, outlet, deadline)
        if outlet.is_closing:  # what was said last is on its way
            await outlet.finish()
    finally:
        deadline.cancel()
        desk.outlets.discard(outlet)
        conversation.closed()
        await outlet.ended()
    return socket


async def _listen(
    socket: web.WebSocketResponse, conversation: Conversation, outlet: Outlet, deadline: asyncio.TimerHandle
) -> None:
    async for message in socket:
        if message.type is WSMsgType.BINARY:
            try:
                await conversation.receive(message.data)
            except Exception as error:  # noqa: BLE001 (the edge: this peer hears of it, the others do not)
                reference = _log_fault("a peer's message failed", error)
                conversation.hang_up(Internal(_sentence(reference)))
            if conversation.is_open:
                deadline.cancel()
        else:
            outlet.close("malformed: messages are binary, and this was text")
            return


def _end_if_silent(conversation: Conversation, outlet: Outlet) -> None:
    if not conversation.is_open:
        outlet.close("too_slow: hello was not complete in time", hurry=True)


def _largest(conversation: Conversation) -> int:
    return MAX_ENVELOPE_BYTES if conversation.is_open else MAX_BEFORE_HELLO_BYTES


def _too_large(conversation: Conversation, size: int) -> None:
    conversation.hang_up(TooLarge(f"a message of {size} bytes: at most {_largest(conversation)} are read here"))


# Readers


async def _scrape(request: web.Request) -> web.Response:
    desk = request.app[DESK]
    ledger = await _ledger(desk)
    return as_json({**desk.coordinator.scrape(), "link": str(desk.link), **ledger})


async def _ledger(desk: Desk) -> dict[str, object]:
    """What the database says of the ledger; asked at most once in `LEDGER_MS`, however often anybody scrapes."""
    coordinator = desk.coordinator
    now = coordinator.clock()
    if not desk.ledger or not 0 <= now - desk.asked < LEDGER_MS:
        desk.asked = now
        head = await coordinator.store.ledger_head()
        newest = open_document(parse(head.checkpoint), Checkpoint)
        made, destroyed = [await coordinator.store.account(account, now) for account in (MINT, BURN)]
        gifts = desk.gifts = await coordinator.store.gifts()
        desk.ledger = {
            "kudos": {"minted": -made.balance, "burned": destroyed.balance, "unspent": gifts.unspent},
            "carried": {"jobs": gifts.jobs, "kudos": gifts.kudos, "text": carried_text(gifts.jobs)},
            "ledger": {
                "entries": head.size,
                "checkpoint": {
                    "size": newest.size,
                    "root": newest.root.hex(),
                    "time": newest.time,
                    "epoch": newest.epoch,
                },
            },
        }
    return desk.ledger


async def _gifts(desk: Desk) -> Gifts:
    """What was known last, if the database cannot be asked: a page that says how to join is of use without it."""
    with suppress(StoreError):
        await _ledger(desk)
    return desk.gifts


def carried_text(jobs: int) -> str:
    """What unspent kudos is: a gift."""
    what = "1 job" if jobs == 1 else f"{jobs:,} jobs"
    return f"contributors carried {what} of people without kudos"


async def _account(request: web.Request) -> web.Response:
    """An account whose owner wants it seen; whether there is another one under a number, nobody is told."""
    coordinator = request.app[DESK].coordinator
    number = int(request.match_info["number"])
    page = await coordinator.store.page(number, coordinator.clock())
    if page is None:
        text = f"account {number} is not public, or there is none: its owner can change that (potluck account public)"
        return as_json({"code": UnknownAccount.code, "text": text}, status=404)
    return as_json(_page_of(page))


async def _services(request: web.Request) -> web.Response:
    """What each service gave and took, in parts, since anybody can be one: those above the number in `after`."""
    desk = request.app[DESK]
    after = request.query.get("after", "0")
    if not (after.isdecimal() and len(after) <= 18):
        return as_json({"code": BadValue.code, "text": f"after={after[:40]}: wanted the number of an account"}, 400)
    now = desk.coordinator.clock()
    if not 0 <= now - desk.listed < LEDGER_MS:
        desk.listed, desk.lists, desk.services = now, 0, {}
    part = desk.services.get(int(after))
    if part is None:
        if desk.lists >= MAX_LISTS:
            return as_json(
                {"code": Busy.code, "text": "too many parts of this list are asked for: try in a second"}, 503
            )
        desk.lists += 1
        pages = await desk.coordinator.store.services(now, int(after), LISTED)
        following = pages[-1].state.number if len(pages) == LISTED else None
        part = desk.services[int(after)] = {"services": [_page_of(page) for page in pages], "after": following}
    return as_json(part)


async def _awards(request: web.Request) -> web.Response:
    """The operator's newest awards: each is an act that everybody may know. Of time only the day, as everywhere."""
    desk = request.app[DESK]
    now = desk.coordinator.clock()
    if not 0 <= now - desk.honoured < LEDGER_MS:
        desk.honoured = now
        desk.awards = [
            {"account": one.account, "amount": one.amount, "reason": one.reason, "day": one.day}
            for one in await desk.coordinator.store.awards()
        ]
    return as_json({"awards": desk.awards})


def _page_of(page: Page) -> dict[str, object]:
    """An account as everybody may see it. Of time only the day: the rest could be held against the ledger."""
    state = page.state
    return {
        "account": state.number,
        "name": shown_name(page.face.name, state.number),
        "service": page.face.service,
        "since_day": day_of(state.since),
        "gave": {"jobs": state.jobs_done, "kudos": state.earned},
        "took": {"jobs": state.jobs_received, "kudos": state.spent, "free": state.taken_free},
    }


async def _healthz(request: web.Request) -> web.Response:
    desk = request.app[DESK]
    fault = await _fault(desk.coordinator) or _want_of_room(desk.settings.database)
    return as_json({"ok": False, "text": fault}, status=503) if fault else as_json({"ok": True})


async def _fault(coordinator: Coordinator) -> str:
    """Why this tracker is of no use now; empty if it is."""
    if coordinator.is_stopping:
        return "the tracker is stopping"
    try:
        async with asyncio.timeout(HEALTH_SECONDS):
            await coordinator.store.ledger_head()
    except StoreError as error:
        log.error("the database cannot be used: %s", error)  # noqa: TRY400 (the text says it all)
        return "the database cannot be used: the log says why"
    except TimeoutError:
        return "the database does not answer"
    return ""


def _want_of_room(database: Path) -> str:
    """Why nothing more can be stored soon, or now; empty if it can."""
    try:
        free = shutil.disk_usage(database.parent).free
    except OSError as error:
        return f"the database's folder cannot be looked at: {error.strerror}"
    if free >= ROOM_BYTES:
        return ""
    return "the disk of the database is full: new requests are refused until there is room"


def _for_members(desk: Desk) -> str:
    """What strangers are told first by a horde that is not for them."""
    rules = desk.coordinator.rules.rules
    if rules.accounts.anonymous:
        return ""
    return f"<p><strong>Members only:</strong> it serves those who have an account: {html.escape(to_get_in(rules))}."


async def _page(request: web.Request) -> web.Response:
    desk = request.app[DESK]
    link = desk.link
    name = html.escape(link.name)
    gifts = await _gifts(desk)
    text = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}</title>'
        f"<h1>{name}</h1><p>A Potluck horde: people with a GPU to spare serve people who need one, for free."
        f"{_for_members(desk)}"
        f"<p>Join it: <code>potluck join '{html.escape(str(link))}'</code>"
        f"<p>So far {carried_text(gifts.jobs)}. They have left {show_kudos(gifts.unspent)} kudos unspent, which is"
        " a gift to whoever has none."
        '<p><a href="scrape">who is here</a>, <a href="rules">its rules</a>, <a href="rules/history">what changed</a>,'
        ' <a href="models">the models it knows</a>,'
        ' <a href="services">what services give and take</a>, <a href="awards">whom its operator thanked</a>,'
        ' <a href="healthz">its health</a></html>\n'
    )
    response = web.Response(text=text, content_type="text/html")
    response.headers["Content-Security-Policy"] = "default-src 'none'"
    return response
