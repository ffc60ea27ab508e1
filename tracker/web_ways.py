"""The sockets of `/meet` and `/relay`: who is to connect to whom at the same moment, and bytes that are passed on.

Whoever comes is bounded in time, and holds one of the places of its address.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from protocol.errors import BadToken, Malformed, NoPath, NotAllowed, OutOfTurn, OverLimit, Refusal, Stopping, TooLarge
from protocol.pump import attend
from protocol.relay import MAX_MESSAGE_BYTES, Admitted, check_entry
from tracker.doors import Door, Places, block_of, client_of, door_of, household_of
from tracker.meeting import TOKEN_MS, TRY_S, Seat, read_token
from tracker.ways import Ways

#: So long a peer may take to answer the end of a WebSocket.
CLOSE_SECONDS = 3.0
#: A reason has to fit into a WebSocket's close frame.
MAX_REASON_BYTES = 120
#: At `/meet` nothing is said but pings and the end.
MAX_MEET_BYTES = 128
PING_BYTES = 8

WAYS = web.AppKey("ways", Ways)
PLACES = web.AppKey("places", Places)
HEARTBEAT = web.AppKey("heartbeat", float)

Attend = Callable[[web.Request, Door], Awaitable[web.StreamResponse]]


def add_ways(app: web.Application, ways: Ways, places: Places, heartbeat_s: float) -> None:
    """Have the application answer `/meet` and `/relay`."""
    app[WAYS], app[PLACES], app[HEARTBEAT] = ways, places, heartbeat_s
    app.add_routes([web.get("/meet", partial(_counted, _meet)), web.get("/relay", partial(_counted, _relay))])
    app.on_shutdown.append(_part)


async def _part(app: web.Application) -> None:
    app[WAYS].hang_up()


def refused(refusal: Refusal, status: int) -> web.Response:
    """An answer that says no."""
    body = msgspec.json.encode({"code": refusal.code, "text": refusal.text}) + b"\n"
    return web.Response(body=body, status=status, content_type="application/json")


async def _counted(attended: Attend, request: web.Request) -> web.StreamResponse:
    """Let in who has a place; those behind a proxy are counted here, all others were at the door."""
    door = door_of(request)
    if door is None or door.spoke_early:
        return refused(OutOfTurn("whoever meets here speaks after the tracker: wait for it"), 400)
    with _place(request, door) as has_place:
        if not has_place:
            return refused(OverLimit("this address has as many connections here as limits.connections allows"), 429)
        return await attended(request, door)


@contextmanager
def _place(request: web.Request, door: Door) -> Iterator[bool]:
    if not door.trust.covers(door.source.address):
        yield True
        return
    places, household = request.app[PLACES], household_of(client_of(request).address)
    has_place = places.enter(household, asyncio.get_running_loop().time())
    try:
        yield has_place
    finally:
        if has_place:
            places.leave(household)


async def _prepare(socket: web.WebSocketResponse, request: web.Request) -> None:
    try:
        await socket.prepare(request)
    except (ConnectionError, UnicodeEncodeError):  # gone before it was let in, or no WebSocket at all
        raise web.HTTPBadRequest from None


async def _close(socket: web.WebSocketResponse, refusal: Refusal | None) -> None:
    code = WSCloseCode.OK
    if refusal is not None:
        code = WSCloseCode.GOING_AWAY if isinstance(refusal, Stopping) else WSCloseCode.POLICY_VIOLATION
    reason = f"{refusal.code}: {refusal.text}" if refusal is not None else ""
    await socket.close(code=code, message=reason.encode()[:MAX_REASON_BYTES])


# Meeting


async def _meet(request: web.Request, door: Door) -> web.StreamResponse:
    ways = request.app[WAYS]
    try:
        if "Origin" in request.headers:
            raise BadToken("a web page, whose readers are not to be connected to: nobody meets here by a browser")
        token = read_token(request.query.get("token", ""))
        if ways.looked(token, client_of(request)):
            return await _seen(request)
        seat = ways.arrive(token, client_of(request))
    except BadToken as refusal:
        return refused(refusal, 403)
    held = seat.meeting
    socket = web.WebSocketResponse(autoping=False, max_msg_size=MAX_MEET_BYTES, compress=False, timeout=CLOSE_SECONDS)
    try:
        await _prepare(socket, request)
        door.upgraded(
            lambda: MAX_MEET_BYTES, lambda _: ways.meetings.end(held, f"{TooLarge.code}: nothing is said here")
        )
        sitting = asyncio.create_task(_sit(socket, seat, ways), name="meet")
        try:
            await asyncio.wait(
                (sitting, held.over),
                timeout=TOKEN_MS / 1000 + (held.tries + 1) * TRY_S,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            sitting.cancel()
            await asyncio.gather(sitting, return_exceptions=True)
        if not sitting.done() or sitting.cancelled():
            ways.meetings.end(held, f"{NoPath.code}: the meeting took too long")
        ways.meetings.end(held, "the other side has ended the meeting")
        await socket.close(message=held.over.result().encode()[:MAX_REASON_BYTES])
    finally:
        ways.meetings.end(held, "the other side has ended the meeting")
    return socket


async def _seen(request: web.Request) -> web.StreamResponse:
    """Where this peer comes from is known by now: there is nothing to say."""
    socket = web.WebSocketResponse(max_msg_size=MAX_MEET_BYTES, compress=False, timeout=CLOSE_SECONDS)
    await _prepare(socket, request)
    await _close(socket, None)
    return socket


async def _sit(socket: web.WebSocketResponse, seat: Seat, ways: Ways) -> None:
    """Find out how far this side is, then wait until it goes."""
    clock, payload = asyncio.get_running_loop().time, secrets.token_bytes(PING_BYTES)
    sent = clock()
    await socket.ping(payload)
    async for message in socket:
        if message.type is WSMsgType.PING:
            await socket.pong(message.data)
        elif message.type is not WSMsgType.PONG:
            return
        elif seat.rtt is None and bytes(message.data) == payload:
            seat.rtt = int((clock() - sent) * 1000)
            ways.ready(seat.meeting)


# Relaying


class _End:
    """One end of a relay over a WebSocket."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    async def read(self) -> bytes:
        message = await self._socket.receive()
        if message.type is WSMsgType.TEXT:
            raise Malformed("messages are binary, and this was text")
        return message.data if message.type is WSMsgType.BINARY else b""

    async def write(self, data: bytes) -> None:
        await self._socket.send_bytes(data)


async def _relay(request: web.Request, door: Door) -> web.StreamResponse:
    ways = request.app[WAYS]
    if not ways.rules.relays.tracker:
        return refused(NotAllowed("this tracker does not relay: its rule relays.tracker says so"), 403)
    socket = web.WebSocketResponse(
        heartbeat=request.app[HEARTBEAT],
        max_msg_size=MAX_MESSAGE_BYTES + 1,  # the library refuses what is as large as this
        compress=False,
        timeout=CLOSE_SECONDS,
    )
    block = block_of(client_of(request).address)
    await _prepare(socket, request)
    door.upgraded(lambda: MAX_MESSAGE_BYTES, lambda _: _abort(request))
    admit = partial(_admit, ways)
    try:
        await attend(_End(socket), ways.rooms, block, admit, ways.clock)
    except Refusal as refusal:
        await _close(socket, refusal)
    else:
        await _close(socket, None)
    return socket


def _admit(ways: Ways, raw: bytes, challenge: bytes) -> Admitted:
    key = ways.key.public
    return check_entry(raw, challenge, root=ways.root, serving=key, relay=key, now=ways.clock())


def _abort(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
