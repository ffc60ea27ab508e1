"""The two HTTP servers as targets: bytes into the protocol objects that stand behind the sockets."""

from __future__ import annotations

import asyncio
import ipaddress
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from aiohttp import web

from peer.certificate import fresh_certificate
from peer.opening import check_opening
from peer.output import Output
from peer.spool import Spool
from peer.stream_server import StreamServer
from tests.fuzz.script import MAX_STEPS, Script
from tests.fuzz.sessions import RULES
from tests.fuzz.target import Fault, LoopTarget
from tests.support.builders import (
    NOW,
    ROOT,
    SERVING,
    WORKER,
    a_delegation,
    a_digest,
    a_lease,
    a_public_part,
    a_receipt,
    a_request,
    a_salt,
    a_text_work,
    signed,
)
from tests.support.database import tables
from tracker.config import Settings
from tracker.coordinator import Coordinator
from tracker.doors import Door, Rounds
from tracker.forwarded import Trust
from tracker.store.sqlite import SqliteStore
from tracker.web import DESK, http_log, make_app

#: So many times the loop goes round between two pieces, so that what they bring about is under way.
ROUNDS = 6
#: More is said in no answer to a few thousand bytes.
MAX_ANSWER = 4 * 1024 * 1024


class Wire(asyncio.Transport):
    """A connection in memory: what is written is kept until the end of the input."""

    def __init__(self, protocol: asyncio.Protocol, host: str) -> None:
        super().__init__({"peername": (host, 40_000), "sockname": ("127.0.0.1", 80)})
        self._protocol: asyncio.BaseProtocol = protocol
        self._closing = False
        self._reading = True
        self.answer = bytearray()
        protocol.connection_made(self)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def write(self, data: Any) -> None:
        self.answer += data
        if len(self.answer) > MAX_ANSWER:
            raise Fault(f"more than {MAX_ANSWER} bytes of answer")

    def get_write_buffer_size(self) -> int:
        return 0

    def is_reading(self) -> bool:
        return self._reading and not self._closing

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    def abort(self) -> None:
        self.close()


class HttpTarget(LoopTarget):
    """Pieces of one connection, then its end."""

    make: Callable[[], asyncio.Protocol]

    async def take(self, raw: bytes) -> None:
        self.count = getattr(self, "count", 0) + 1
        script = Script(raw)
        # Many addresses, since one that comes this often is turned away.
        wire = Wire(self.make(), str(ipaddress.IPv4Address(0x0A000000 + self.count % 4096)))
        for _ in range(MAX_STEPS):
            if not script.more or not wire.is_reading():
                break
            cast("asyncio.Protocol", wire.get_protocol()).data_received(script.piece())
            for _ in range(ROUNDS):
                await asyncio.sleep(0)
        wire.close()
        await asyncio.sleep(0)
        # The one fault that is known is aiohttp's own: an `Expect` that is no UTF-8, outside of all handlers.
        if b" 500 " in wire.answer[:16] and b"expect" not in raw.lower():
            raise Fault(f"a fault of ours: {bytes(wire.answer[:200])!r}")


class TrackerWeb(HttpTarget):
    """The tracker's port, WebSocket and all. What comes is signed by nobody, so the database stays as it is."""

    name = "tracker-web"

    async def start(self) -> None:
        self.path = self.folder / "horde.db"
        SqliteStore.create(self.path, a_delegation(), RULES, SERVING, NOW)
        self._store = SqliteStore.open(self.path, SERVING)
        store = await self._store.__aenter__()
        self._coordinator = Coordinator.start(
            store,
            root=ROOT.public,
            key=SERVING,
            delegation=a_delegation().raw,
            clock=lambda: NOW,
            chance=random.Random(1),
        )
        settings = Settings("127.0.0.1", 0, "", Path(), Path(), Path())
        app = make_app(await self._coordinator.__aenter__(), settings)
        self._runner = web.AppRunner(app, access_log=None, logger=http_log, lingering_time=0.01)
        await self._runner.setup()
        behind, rounds = cast("Callable[[], asyncio.Protocol]", self._runner.server), Rounds()
        self.make = lambda: Door(behind, app[DESK].places, Trust(), rounds)
        self.before = tables(self.path)

    def check(self) -> None:
        if tables(self.path) != self.before:
            raise Fault("what nobody signed has changed the database")

    async def stop(self) -> None:
        await self._runner.cleanup()
        await self._coordinator.__aexit__(None, None, None)
        await self._store.__aexit__(None, None, None)


LEASE = signed(a_lease(a_request(a_public_part(a_text_work()))))


class WorkerWeb(HttpTarget):
    """A worker's port behind TLS; an opening is checked as a worker checks it, and a true one is served."""

    name = "worker-web"

    async def start(self) -> None:
        self.output = Output(Spool.create(self.folder, LEASE))
        self.output.spool.add_text("a text")
        self.output.spool.keep_receipt(signed(a_receipt()), a_salt(), "stop")
        self.output.spool.finish(signed(a_receipt()), a_salt(), "stop")
        certificate = fresh_certificate(self.folder / "worker")
        self._server = StreamServer(self, certificate.context, host="127.0.0.1", port=0)
        await self._server.__aenter__()
        self.make = cast("Callable[[], asyncio.Protocol]", self._server._runner.server)

    def open_stream(self, body: bytes) -> Output:
        check_opening(
            body,
            root=ROOT.public,
            serving=SERVING.public,
            worker=WORKER.public,
            certificate=a_digest("certificate"),
            known_lease=lambda attempt: None,
        )
        return self.output

    async def stop(self) -> None:
        await self._server.__aexit__(None, None, None)
