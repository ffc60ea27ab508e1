"""A worker, a requester, relays and a meeting place in one process, over real sockets: the paths between two peers
without a horde around them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestServer

from peer.certificate import Certificate, fresh_certificate
from peer.output import Output
from peer.paths.addresses import Address
from peer.paths.approaches import Approaches
from peer.paths.choice import TIMING, Timing
from peer.paths.punch import show_token
from peer.paths.race import Guide, Said
from peer.paths.relay_end import RelayEnds, Tracker
from peer.relaying import Offering, Relaying
from peer.stream_reader import StreamReader, Worker
from peer.stream_server import StreamServer
from protocol.documents import RelayTicket
from protocol.keys import SigningKey
from protocol.messages import AskPaths, Meet, Paths, Punch
from tests.support.builders import (
    JOB_KEY,
    MINUTE,
    NOW,
    ROOT,
    SERVING,
    WORKER,
    a_key,
    a_lease,
    a_nonce,
    a_relay_ticket,
    but,
    signed,
)

LEASE = a_lease()
ATTEMPT = (LEASE.job, LEASE.attempt)
RELAY = a_key(40)


class AnyDesk:
    """Answers every opening with the same output."""

    def __init__(self, output: Output) -> None:
        self.output = output
        self.openings: list[bytes] = []

    def open_stream(self, body: bytes) -> Output:
        """The output, whatever is asked for."""
        self.openings.append(body)
        return self.output


class SlowDoor:
    """A port that leads to another one, but lets nothing through until it is opened: TCP stands, TLS does not."""

    def __init__(self, port: int) -> None:
        self.opened = asyncio.Event()
        self.port = 0
        self._behind = port
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, stack: AsyncExitStack) -> Self:
        """Serve until the stack ends."""
        server = await asyncio.start_server(self._come, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        stack.push_async_callback(self._end, server)
        return self

    async def _end(self, server: asyncio.Server) -> None:
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _come(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError):  # which asyncio would log as an error
            await self._pass_on(reader, writer)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (task := asyncio.current_task()) is not None:
            self._tasks.add(task)
        writers = [writer]
        try:
            await self.opened.wait()
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._behind)
            writers.append(inner_writer)
            await asyncio.gather(_copy(reader, inner_writer), self._back(inner_reader, writer))
        finally:
            for each in writers:
                each.transport.abort()

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _copy(reader, writer)


class BadDoor(SlowDoor):
    """A port that leads to another one, until `is_bad`: then it says nothing any more, or ends what passes through."""

    def __init__(self, port: int, is_bad: Callable[[], bool], *, ends: bool) -> None:
        super().__init__(port)
        self.opened.set()
        self._is_bad = is_bad
        self._ends = ends

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            if self._is_bad():
                if self._ends:
                    writer.transport.abort()
                    return
                await asyncio.Event().wait()
            writer.write(data)
        writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


@dataclass
class MeetingPlace:
    """The tracker's `/meet`: lets two come, and tells each of the other, or what a test wants told in its place."""

    told: Callable[[str, Punch], None]
    tries: int = 1
    url: str = ""
    instead: dict[str, str] = field(default_factory=dict)
    _here: dict[str, str] = field(default_factory=dict)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[MeetingPlace]:
        """Serve until left."""
        app = web.Application()
        app.router.add_get("/meet", self._come)
        async with TestServer(app, host="127.0.0.1") as server:
            self.url = f"ws://127.0.0.1:{server.port}"
            yield self

    def invitation(self, side: str) -> Meet:
        """What one side is told first."""
        return Meet(job=ATTEMPT[0], attempt=ATTEMPT[1], token=_TOKENS[side], tries=self.tries)

    async def _come(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        side = next(side for side, token in _TOKENS.items() if show_token(token) == request.query["token"])
        assert request.transport is not None
        host, port = request.transport.get_extra_info("peername")[:2]
        self._here[side] = f"{host}:{port}"
        if len(self._here) == len(_TOKENS):
            for number in range(1, self.tries + 1):
                for one, other in (("worker", "requester"), ("requester", "worker")):
                    address = self.instead.get(other, self._here[other])
                    punch = Punch(job=ATTEMPT[0], attempt=ATTEMPT[1], number=number, address=address)
                    self.told(one, punch)
            self._here.clear()
        async for message in socket:
            if message.type is not WSMsgType.BINARY:
                break
        return socket


_TOKENS = {"worker": a_nonce(31), "requester": a_nonce(32)}


def clock() -> int:
    """Milliseconds that pass, from the time of the examples on: a relay's rate goes by them."""
    return NOW + time.monotonic_ns() // 1_000_000 - _BEGAN


_BEGAN = time.monotonic_ns() // 1_000_000


@dataclass
class Scene:
    """Both sides and what lies between. tickets: given to who asks for paths; meets: whether punching is tried."""

    reader: StreamReader
    server: StreamServer
    certificate: Certificate
    desk: AnyDesk
    approaches: Approaches
    guide: Guide
    place: MeetingPlace
    stack: AsyncExitStack
    folder: Path
    requesters_ends: RelayEnds
    workers_ends: RelayEnds
    tickets: list[RelayTicket] = field(default_factory=list)
    meets: bool = False
    asked: list[AskPaths] = field(default_factory=list)

    def worker(self, *ports: int) -> Worker:
        """The worker, at these ports of this machine; at none, if none is named."""
        addresses = tuple(Address("127.0.0.1", port) for port in ports)
        return Worker(WORKER.public, 1, self.certificate.digest, addresses)

    def stream(self, *ports: int, **options: Any) -> Any:
        """What the requester reads."""
        return self.reader.read(self.worker(*ports), b"opening", -1, self.guide, again=b"again", **options)

    async def bad_door(self, port: int, *, ends: bool) -> BadDoor:
        """A way to `port` on which no answer comes back once the worker has an opening."""
        return await BadDoor(port, lambda: bool(self.desk.openings), ends=ends).serve(self.stack)

    async def door(self) -> SlowDoor:
        """A direct address that does not answer until it is told to."""
        return await SlowDoor(self.server.port).serve(self.stack)

    async def relay(self, key: SigningKey = RELAY, **ticket: Any) -> Relaying:
        """One more relay of a volunteer, and a ticket for it."""
        certificate = fresh_certificate(self.folder / f"relay-{len(self.tickets)}")
        relaying = Relaying(key.public, ROOT.public, Offering(), serving=lambda: SERVING.public, now=clock)
        server = StreamServer(None, certificate.context, host="127.0.0.1", port=0, routes=relaying.routes())
        await self.stack.enter_async_context(server)
        terms = a_relay_ticket(LEASE, relay=key, url=f"wss://127.0.0.1:{server.port}", certificate=certificate.digest)
        self.tickets.append(but(terms, **{"valid_until": clock() + 10 * MINUTE, **ticket}))
        return relaying

    async def say(self, asked: AskPaths) -> bytes | None:
        """The tracker's part: both sides are told how they can meet."""
        self.asked.append(asked)
        if self.meets:
            self.approaches.told(self.place.invitation("worker"))
            self.guide.told(self.place.invitation("requester"))
        paths = Paths(
            job=ATTEMPT[0],
            attempt=ATTEMPT[1],
            tickets=tuple(signed(terms).raw for terms in self.tickets),
            reason="" if self.tickets else "no_path",
        )
        self.approaches.told(paths)
        self.guide.told(paths)
        return b"a digest"

    def told(self, side: str, message: Said) -> None:
        """The tracker's word to one side."""
        (self.approaches if side == "worker" else self.guide).told(message)


@asynccontextmanager
async def a_scene(
    folder: Path,
    output: Output,
    *,
    relays_only: bool = False,
    timing: Timing = TIMING,
    limits: dict[str, Any] | None = None,
    reading: dict[str, Any] | None = None,
    ends: dict[str, Any] | None = None,
) -> AsyncIterator[Scene]:
    """A worker that serves `output` and a requester that can be led to it. limits: of the worker's server; reading: of
    the requester's reader; ends: of both sides' relayed paths."""
    certificate, desk = fresh_certificate(folder / "worker"), AnyDesk(output)
    scenes: list[Scene] = []

    def told(side: str, punch: Punch) -> None:
        scenes[0].told(side, punch)

    async def say(asked: AskPaths) -> bytes | None:
        return await scenes[0].say(asked)

    place = MeetingPlace(told)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(place.serving())
        server = StreamServer(desk, certificate.context, host="127.0.0.1", port=0, **(limits or {}))
        await stack.enter_async_context(server)
        tracker = Tracker(place.url, True, private_too=True)
        workers_ends = await stack.enter_async_context(RelayEnds(tracker, **(ends or {})))
        requesters_ends = await stack.enter_async_context(RelayEnds(tracker, **(ends or {})))
        approaches = Approaches(
            WORKER,
            ROOT.public,
            tracker,
            workers_ends,
            server.take,
            expects=lambda job, attempt: (job, attempt) == ATTEMPT,
            serving=lambda: SERVING.public,
            now=lambda: NOW,
        )
        await stack.enter_async_context(approaches)
        reader = StreamReader(private_too=True, relays=requesters_ends, timing=timing, **(reading or {}))
        await stack.enter_async_context(reader)
        guide = Guide(
            ATTEMPT,
            JOB_KEY,
            ROOT.public,
            serving=lambda: SERVING.public,
            say=say,
            now=lambda: NOW,
            tracker=tracker,
            relays_only=relays_only,
        )
        scenes.append(
            Scene(
                reader,
                server,
                certificate,
                desk,
                approaches,
                guide,
                place,
                stack,
                folder,
                requesters_ends,
                workers_ends,
            )
        )
        yield scenes[0]
