"""The worker's end of the direct stream: HTTPS, with `POST /stream`, and what else a peer answers there.

Limits stand before everything else: connections, headers, body, and the time that each may take. A reader that does
not read costs one write buffer, and nobody waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import aclosing
from traceback import walk_tb
from typing import Protocol, cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from peer.gate import HANDSHAKE_SECONDS, MAX_CONNECTIONS, MAX_OF_ONE_ADDRESS, STALL_SECONDS, House, Places
from peer.opening import MAX_BODY_BYTES
from peer.output import Output, follow
from protocol.errors import BadValue, Refusal, TooLarge, TooSlow
from protocol.frames import Failed, encode_frame

MEDIA_TYPE = "application/x-potluck-stream"

BACKLOG = 128
#: From the end of the handshake, or of the answer before, to the end of a request's headers. Longer than requesters
#: keep a connection that they do not use, so that none is ended as it is used again.
IDLE_SECONDS = 8.0
BODY_SECONDS = 8.0
#: So long the rest of a body that is not wanted is read and thrown away, for the answer to arrive.
REST_SECONDS = 1.0
ALIVE_SECONDS = 3.0
#: How long streams may go on when the worker ends.
SHUTDOWN_SECONDS = 1.0

_STATUS = {
    "too_large": 413,
    "too_slow": 408,
    "bad_signature": 403,
    "wrong_lease": 403,
    "wrong_signer": 403,
    "wrong_horde": 403,
    "wrong_certificate": 403,
    "prefix_unsupported": 409,
    "fenced": 409,
    "stream_gone": 410,
    "busy": 503,
}
_BAD_REQUEST = 400


#: What clients bring about in aiohttp alone: no HTTP, an `Expect` that is no UTF-8, an end before the answer.
_OF_CLIENTS = (HttpProcessingError, UnicodeEncodeError, ConnectionError)


def _not_ours(record: logging.LogRecord) -> bool:
    """Make little of what clients do wrong: aiohttp logs it as an error with a trace, so anybody could fill the log."""
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


class Desk(Protocol):
    """Whoever decides on openings."""

    def open_stream(self, body: bytes) -> Output:
        """The output that the opening in `body` asks for; raises a `Refusal`."""


class StreamServer:
    """Serves streams from entering to leaving its context; `port` is the one that it listens on.

    desk: None where no streams are served. host: the address to listen on; empty for all of this machine's. port: 0 for
    any that is free. routes: what else is answered.
    """

    def __init__(
        self,
        desk: Desk | None,
        context: ssl.SSLContext,
        *,
        host: str,
        port: int,
        routes: Sequence[web.RouteDef] = (),
        max_connections: int = MAX_CONNECTIONS,
        max_of_one_address: int = MAX_OF_ONE_ADDRESS,
        handshake_seconds: float = HANDSHAKE_SECONDS,
        alive_seconds: float = ALIVE_SECONDS,
        stall_seconds: float = STALL_SECONDS,
        idle_seconds: float = IDLE_SECONDS,
        body_seconds: float = BODY_SECONDS,
    ) -> None:
        self.port = port
        self._desk = desk
        self._context = context
        self._host = host
        self._places = Places(max_connections, max_of_one_address)
        self._handshake_seconds = handshake_seconds
        self._alive_seconds = alive_seconds
        self._stall_seconds = stall_seconds
        self._body_seconds = body_seconds
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        if desk is not None:
            app.router.add_post("/stream", self._stream)
        app.router.add_routes(routes)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            logger=http_log,
            handler_cancellation=True,
            keepalive_timeout=idle_seconds,
            lingering_time=REST_SECONDS,
            shutdown_timeout=SHUTDOWN_SECONDS,
            # A body that says it is compressed is taken as it is, and refused: nothing here is ever unpacked.
            auto_decompress=False,
        )
        self._house: House | None = None

    async def __aenter__(self) -> StreamServer:
        await self._runner.setup()
        try:
            behind = cast("Callable[[], asyncio.Protocol]", self._runner.server)
            self._house = House(
                _listening(self._host, self.port),
                self._context,
                behind,
                self._places,
                stall_seconds=self._stall_seconds,
                handshake_seconds=self._handshake_seconds,
            )
        except BaseException:
            await self._runner.cleanup()
            raise
        self._house.open()
        self.port = self._house.port
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._house is not None:
            await self._house.close()
        await self._runner.cleanup()

    def take(self, connection: socket.socket, household: str) -> bool:
        """Let in a connection that was made otherwise, as if it had been accepted here; False if there is no place."""
        if self._house is None:
            connection.close()
            return False
        return self._house.take(connection, household)

    @property
    def connections(self) -> int:
        """How many readers are connected, those whose handshake is under way among them."""
        return len(self._places)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        assert self._desk is not None  # noqa: S101 (else there is no such route)
        try:
            after = _after(request)
            output = self._desk.open_stream(await self._read_body(request))
            if not -1 <= after < output.spool.frames:
                raise BadValue(f"after={after}: the stream has {output.spool.frames} frames so far")
        except Refusal as error:
            return _refusal(error)
        response = web.StreamResponse(headers={"Content-Type": MEDIA_TYPE, "Cache-Control": "no-store"})
        await response.prepare(request)
        try:
            async with aclosing(follow(output, after + 1, self._alive_seconds)) as pieces:
                async for piece in pieces:
                    await response.write(piece)
        except ConnectionError:
            pass  # the reader went; it comes again if it wants the rest
        return response

    async def _read_body(self, request: web.Request) -> bytes:
        try:
            async with asyncio.timeout(self._body_seconds):
                return await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise TooLarge(f"an opening has at most {MAX_BODY_BYTES} bytes") from None
        except TimeoutError:
            raise TooSlow(f"the opening was not complete within {self._body_seconds} seconds") from None


def _listening(host: str, port: int) -> socket.socket:
    if not host and socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)


def _after(request: web.Request) -> int:
    text = request.query.get("after", "-1")
    try:
        return int(text[:20])
    except ValueError:
        raise BadValue(f"after={text[:40]!r}: wanted the number of the last frame that came, or -1") from None


def _refusal(error: Refusal) -> web.Response:
    response = web.Response(
        status=_STATUS.get(error.code, _BAD_REQUEST),
        body=encode_frame(Failed(error.code, error.text)),
        content_type=MEDIA_TYPE,
    )
    if isinstance(error, TooLarge | TooSlow):
        response.force_close()  # the rest of the body is not waited for
    return response
