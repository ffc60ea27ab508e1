"""A tracker on a real socket that does what a test tells it: greets peers, puts down what they say, says what it is
given."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestServer

from protocol.documents import Document
from protocol.envelope import Envelope
from protocol.links import Link
from protocol.messages import Account, Held, Holding, Register, SessionMessage
from tests.support.builders import NOW
from tests.support.tracker_side import Horde, TrackerSide

M = TypeVar("M", bound=SessionMessage)
D = TypeVar("D", bound=Document)


class ScriptedTracker:
    """Holds one connection at a time. Registers whoever asks, unless `registers` is false.

    heard: what the peer said and nobody has asked for yet, without its hello. holdings: what it held, once for each
    connection. theirs: what this side lists as held. clock: what the welcome shows.
    """

    def __init__(self, horde: Horde | None = None) -> None:
        self.horde = horde or Horde()
        self.heard: list[Envelope] = []
        self.holdings: asyncio.Queue[tuple[Held, ...]] = asyncio.Queue()
        self.theirs: Sequence[Held] = ()
        self.clock = NOW
        self.account = 7
        self.registers = True
        self.link = Link("ws://127.0.0.1:9", self.horde.root)
        self._arrival = asyncio.Event()
        self._side: TrackerSide | None = None
        self._socket: web.WebSocketResponse | None = None
        self._request: web.Request | None = None
        self._sessions = 0

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[ScriptedTracker]:
        """Serve at `link` until left."""
        app = web.Application()
        app.router.add_get("/peer", self._answer)
        async with TestServer(app, host="127.0.0.1") as server:
            self.link = Link(f"ws://127.0.0.1:{server.port}", self.horde.root)
            yield self

    async def says(self, message: SessionMessage) -> None:
        """Say this to the peer that is here."""
        assert self._socket is not None
        assert self._side is not None
        await self._socket.send_bytes(self._side.says(message))

    async def hands(self, document: Document) -> Envelope:
        """Sign this and hand it over."""
        assert self._socket is not None
        envelope = self.horde.sign(document)
        await self._socket.send_bytes(envelope.raw)
        return envelope

    def cut(self) -> None:
        """End the connection without a word."""
        assert self._request is not None
        assert self._request.transport is not None
        self._request.transport.abort()

    async def hears(self, kind: type[M]) -> M:
        """The next message of this kind; others stay where they are."""
        return (await self._next(kind.KIND)).open(kind)

    async def gets(self, kind: type[D]) -> tuple[Envelope, D]:
        """The next document of this kind, with its signature checked; others stay where they are."""
        envelope = await self._next(kind.KIND)
        envelope.verify()
        return envelope, envelope.open(kind)

    async def _next(self, kind: str) -> Envelope:
        while True:
            for place, envelope in enumerate(self.heard):
                if envelope.kind == kind:
                    return self.heard.pop(place)
            self._arrival.clear()
            await self._arrival.wait()

    async def _answer(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self._sessions += 1
        side = TrackerSide(self.horde, self._sessions.to_bytes(16, "big"))
        self._side, self._socket, self._request = side, socket, request
        await socket.send_bytes(side.challenge(clock=self.clock))
        side.hears_hello(await socket.receive_bytes())
        await socket.send_bytes(side.welcome(clock=self.clock, account=0 if self.registers else self.account))
        await socket.send_bytes(self.horde.rules_document().raw)
        await socket.send_bytes(side.holding(*self.theirs))
        held: list[Held] = []
        async for message in socket:
            if message.type is not WSMsgType.BINARY:
                break
            envelope = side.hears(message.data)
            if envelope.kind == Holding.KIND:
                part = envelope.open(Holding)
                held += part.entries
                if part.last:
                    self.holdings.put_nowait(tuple(held))
                continue
            if envelope.kind == Register.KIND and self.registers:
                await socket.send_bytes(side.says(Account(number=self.account)))
            self.heard.append(envelope)
            self._arrival.set()
        return socket
