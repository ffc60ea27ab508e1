"""The tracker's part for two ends that are measured without one: the requester asks over a local socket, and the
process of the worker tells both how they meet."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import AsyncExitStack

from peer.paths.approaches import Approaches
from peer.paths.race import Guide, Said
from peer.paths.relay_end import RelayEnds, Tracker
from peer.stream_server import StreamServer
from protocol import codec
from protocol.messages import AskPaths, Meet, Paths, Punch
from tests.support.builders import JOB_KEY, NOW, WORKER
from tests.support.paths import MeetingPlace

HOST = "127.0.0.1"
_KINDS: dict[str, type[Meet] | type[Punch] | type[Paths]] = {kind.KIND: kind for kind in (Meet, Punch, Paths)}

Attempt = tuple[bytes, int]


class Crossing:
    """What both sides of it know. attempt: of the lease that is streamed. root, serving: keys of the horde whose
    tickets are used. tracker: where its relay is."""

    def __init__(self, attempt: Attempt, root: bytes, serving: bytes, tracker: str) -> None:
        self.attempt = attempt
        self.root = root
        self.serving = serving
        self.tracker = Tracker(tracker, True, private_too=True)


class WorkersSide:
    """The worker, where others find the way to it. port: where the requester asks. place: where the two meet."""

    def __init__(self, crossing: Crossing, server: StreamServer) -> None:
        self.place = MeetingPlace(self._told)
        self.port = 0
        self._crossing = crossing
        self._server = server
        self._approaches: Approaches | None = None
        self._requester: asyncio.StreamWriter | None = None

    async def open(self, stack: AsyncExitStack) -> None:
        """Be there until the stack ends."""
        await stack.enter_async_context(self.place.serving())
        crossing = self._crossing
        self._approaches = Approaches(
            WORKER,
            crossing.root,
            Tracker(self.place.url, True, private_too=True),
            await stack.enter_async_context(RelayEnds(crossing.tracker)),
            self._server.take,
            expects=lambda job, attempt: (job, attempt) == crossing.attempt,
            serving=lambda: crossing.serving,
            now=lambda: NOW,
        )
        await stack.enter_async_context(self._approaches)
        asked = await asyncio.start_server(self._asked, HOST, 0)
        stack.callback(asked.close)
        self.port = asked.sockets[0].getsockname()[1]

    async def _asked(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One line with a ticket, or with none for who is to be met half-way."""
        self._requester = writer
        job, attempt = self._crossing.attempt
        ticket = bytes.fromhex((await reader.readline()).decode())
        paths = Paths(job=job, attempt=attempt, tickets=(ticket,) if ticket else (), reason="" if ticket else "no_path")
        for side in ("worker", "requester"):
            if not ticket:
                invited = self.place.invitation(side)
                self._told(side, Meet(job=job, attempt=attempt, token=invited.token, tries=invited.tries))
            self._told(side, paths)

    def _told(self, side: str, message: Said) -> None:
        job, attempt = self._crossing.attempt
        if isinstance(message, Punch):
            address, delay = message.address, message.delay
            message = Punch(job=job, attempt=attempt, number=message.number, address=address, delay=delay)
        if side == "worker":
            assert self._approaches is not None
            self._approaches.told(message)
        elif self._requester is not None:
            line = json.dumps([message.KIND, codec.encode(message).hex()])
            self._requester.write(line.encode() + b"\n")


def guide_to(crossing: Crossing, port: int, place: str, ticket: bytes, stack: AsyncExitStack) -> Guide:
    """The requester's help to one worker, at whose side is asked at this port, until the stack ends."""

    async def say(_: AskPaths) -> bytes | None:
        reader, writer = await asyncio.open_connection(HOST, port)
        stack.callback(writer.close)
        writer.write(ticket.hex().encode() + b"\n")
        hearing = asyncio.create_task(_hear(reader, guide.told))
        stack.callback(hearing.cancel)
        return b"a digest"

    guide = Guide(
        crossing.attempt,
        JOB_KEY,
        crossing.root,
        serving=lambda: crossing.serving,
        say=say,
        now=lambda: NOW,
        tracker=Tracker(place, True, private_too=True),
    )
    return guide


async def _hear(reader: asyncio.StreamReader, tell: Callable[[Said], None]) -> None:
    while line := await reader.readline():
        kind, raw = json.loads(line)
        tell(codec.decode(bytes.fromhex(raw), _KINDS[kind]))
