"""One HTTP application with all doors in it: the guard before them, the front page, start and end."""

from __future__ import annotations

import logging
import secrets
import ssl
import traceback
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from peer.client import system_clock
from peer.events import PotluckError
from peer.gateway import a1111, aihorde, openai, page
from peer.gateway.access import Access, Denied, Heard, Preflight, Served
from peer.gateway.bodies import MAX_BYTES
from peer.gateway.door import CALLER, FILES, HORDES, RUNNING, Door
from peer.gateway.errors import Kind, Trouble, trouble
from peer.gateway.files import FOLDER, Files
from peer.gateway.hordes import Hordes
from peer.gateway.running import Registry

DOORS: tuple[Door, ...] = (openai, aihorde, a1111)

#: For all answers. Nothing here is a page that holds or does anything.
ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Vary": "Origin",
}
#: At the end, when all asks have ended: handlers that are still there have so long to say so to their clients.
GOODBYE_SECONDS = 0.5
#: A connection on which nothing more is asked is closed.
IDLE_SECONDS = 75.0

HEADERS = web.RequestKey("HEADERS", dict[str, str])
#: There once an answer has begun.
BEGUN = web.RequestKey("BEGUN", bool)

log = logging.getLogger(__name__)


def make_app(
    hordes: Hordes, access: Access, clock: Callable[[], int] = system_clock, doors: Sequence[Door] = DOORS
) -> web.Application:
    """The application; it opens what it was given, and closes it."""
    app = web.Application(middlewares=[_guard(access, doors)], client_max_size=MAX_BYTES)
    app[HORDES] = hordes
    app[RUNNING] = Registry(hordes, clock)
    app[FILES] = Files(clock)
    app.cleanup_ctx.append(_opened)
    app.on_shutdown.append(_end_asks)
    app.on_response_prepare.append(_add_headers)
    app.add_routes(page.routes())
    for door in doors:
        door.prepare(app)
        routes = door.routes()
        # The prefix decides which key is wanted, so a path outside of it would be open to all.
        if strange := [route for route in routes if door_of(getattr(route, "path", ""), [door]) is None]:
            raise ValueError(f"{door.NAME}: {strange[0]} is not below {', '.join(door.PREFIXES)}")
        app.add_routes(routes)
    return app


async def _opened(app: web.Application) -> AsyncIterator[None]:
    async with app[HORDES], app[RUNNING]:
        yield


async def _end_asks(app: web.Application) -> None:
    """Before handlers are waited for: each hears that its ask has ended, and can say so to its client."""
    await app[HORDES].close()


def door_of(path: str, doors: Sequence[Door]) -> Door | None:
    """The door that a path belongs to."""
    for door in doors:
        if any(path == prefix or path.startswith(f"{prefix}/") for prefix in door.PREFIXES):
            return door
    return None


def _guard(access: Access, doors: Sequence[Door]) -> Middleware:
    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        door = door_of(request.path, doors)
        refuse = door.refuse if door is not None else page.refuse
        verdict = access.decide(_heard(request, door))
        request[HEADERS] = dict(verdict.headers)
        match verdict:
            case Denied():
                return refuse(verdict.trouble)
            case Preflight():
                return web.Response(status=204)
            case Served():
                request[CALLER] = verdict.caller
        try:
            if door is None and not page.has(request.path):
                raise web.HTTPNotFound
            return await handler(request)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            wrong = of_http(error)
        except PotluckError as error:
            wrong = trouble(error)
        except web.RequestPayloadError:
            wrong = Trouble("bad_value", "the body cannot be read: it is not packed or cut as its headers say")
        except Exception as error:  # noqa: BLE001 (the one place where what nobody expected is caught, and logged)
            wrong = _unexpected(error)
        if BEGUN in request and request.transport is not None:
            # Half an answer must look like one.
            request.transport.abort()
        return refuse(wrong)

    return guard


def _heard(request: web.Request, door: Door | None) -> Heard:
    headers: dict[str, list[str]] = {}
    for name, value in request.headers.items():
        headers.setdefault(name.lower(), []).append(value)
    local = request.transport.get_extra_info("sockname") if request.transport is not None else None
    return Heard(
        request.method,
        door.KEYS if door is not None else "open",
        headers,
        local=str(local[0]).lower() if local else "",
        is_file=request.path.startswith(FOLDER),
    )


_OF_STATUS: dict[int, Kind] = {404: "not_found", 405: "bad_method", 413: "too_large"}


def of_http(error: web.HTTPException) -> Trouble:
    """What a client is told where aiohttp itself refuses."""
    kind = _OF_STATUS.get(error.status, "bad_value")
    match error:
        case web.HTTPMethodNotAllowed():
            allowed = ", ".join(sorted(error.allowed_methods))
            return Trouble(kind, f"method {error.method}: this takes {allowed}", allowed=allowed)
        case web.HTTPNotFound():
            return Trouble(kind, "nothing is here: look at the address; docs/gateway.md lists what each door answers")
        case web.HTTPRequestEntityTooLarge():
            return Trouble(kind, f"a body of more than {MAX_BYTES} bytes: send less")
    return Trouble(kind, error.reason)


def _unexpected(error: Exception) -> Trouble:
    """Logged without the error's own words, which may quote somebody's prompt."""
    reference = secrets.token_hex(4)
    where = "".join(traceback.format_tb(error.__traceback__))
    log.error("internal error %s: %s\n%s", reference, type(error).__name__, where)
    return Trouble("internal", f"something went wrong in the gateway; its log says what, under {reference}")


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    request[BEGUN] = True
    for name, value in {**ALWAYS, **request.get(HEADERS, {})}.items():
        response.headers.setdefault(name, value)


@dataclass(frozen=True)
class Listening:
    """Where the gateway listens. port: 0 for any free one."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None


@asynccontextmanager
async def serving(
    app: web.Application, listening: Listening, *, goodbye_seconds: float = GOODBYE_SECONDS
) -> AsyncIterator[str]:
    """Serve within the block; the address, as clients are told it. Whose client goes away is cancelled."""
    runner = web.AppRunner(
        app,
        handler_cancellation=True,
        access_log=None,
        logger=_wordless(),
        keepalive_timeout=IDLE_SECONDS,
        shutdown_timeout=goodbye_seconds,
    )
    async with AsyncExitStack() as stack:
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, listening.host, listening.port, ssl_context=listening.tls)
        await site.start()
        yield address(listening, runner.addresses[0][1])


def _wordless() -> logging.Logger:
    """For what aiohttp says of broken requests: it quotes them, and with them keys and prompts."""

    def only_its_kind(record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[0] is not None:
            record.msg = f"{record.msg}: {record.exc_info[0].__name__}"
        record.exc_info = None
        return True

    logger = logging.getLogger(f"{__name__}.http")
    logger.filters = [only_its_kind]
    return logger


def address(listening: Listening, port: int) -> str:
    """The address of the gateway's front page."""
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(listening.host, listening.host)  # noqa: S104
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return f"{'https' if listening.tls else 'http'}://{host}:{port}"
