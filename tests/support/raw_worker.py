"""A worker whose stream serves what a test wants, over real TLS, whatever its receipt says."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from peer.certificate import fresh_certificate
from protocol import codec
from protocol.digests import Artifact, new_salt, output_digest
from protocol.documents import Lease, Opening, PeerRecord, open_document, parse_document
from protocol.envelope import Envelope, parse
from protocol.frames import Chunk, Final, Frame, OpenBody, Start, Text, encode_frame
from protocol.links import Link
from tests.support.raw_peer import RawPeer

STREAM = "application/x-potluck-stream"
PNG = "image/png"
PLAIN = "text/plain; charset=utf-8"


@dataclass(frozen=True)
class Answer:
    """What an opening is answered with: a content, behind it a receipt that may sign for something else."""

    content: bytes
    media_type: str
    salt: bytes
    receipt: Envelope

    def frames(self) -> Sequence[Frame]:
        """The stream."""
        if self.media_type == PLAIN:
            return [Text(0, self.content.decode()), Final(1, self.salt, "stop", self.receipt.raw)]
        start, chunk = Start(0, self.media_type, len(self.content)), Chunk(1, self.content)
        return [start, chunk, Final(2, self.salt, "stop", self.receipt.raw)]


Make = Callable[[RawPeer, Lease], Answer]


def signed_for(signed: bytes, served: bytes | None = None, media_type: str = PNG, **fields: object) -> Make:
    """Sign for one content and serve it, or serve another one."""

    def make(peer: RawPeer, lease: Lease) -> Answer:
        salt = new_salt()
        digest = output_digest(salt, [Artifact.of(media_type, signed)])
        receipt = peer.receipt(lease, **{"output_digest": digest} | fields)
        return Answer(signed if served is None else served, media_type, salt, receipt)

    return make


class RawWorker:
    """A registered worker with a stream; it serves what `make` makes of a lease. delivers: whether it hands its
    receipt to the tracker as well. opened: the openings that came."""

    def __init__(self, peer: RawPeer, make: Make, *, delivers: bool) -> None:
        self.peer = peer
        self.opened: list[Opening] = []
        self._make = make
        self._delivers = delivers

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        link: Link,
        model: str,
        folder: Path,
        make: Make,
        *,
        kind: str = "image",
        delivers: bool = True,
        certificate: bytes = b"",
    ) -> AsyncIterator[RawWorker]:
        """A worker that serves `model`; `certificate` is what its peer record names instead of what it shows."""
        shown = fresh_certificate(folder)
        async with RawPeer.open(link) as peer:
            worker = cls(peer, make, delivers=delivers)
            async with worker._listening(shown.context) as port:
                addresses = (f"127.0.0.1:{port}",)
                record = PeerRecord(version=1, certificate=certificate or shown.digest, addresses=addresses)
                await peer.serve(model, kind=kind, record=record)
                yield worker

    @asynccontextmanager
    async def _listening(self, context: ssl.SSLContext) -> AsyncIterator[int]:
        app = web.Application()
        app.router.add_post("/stream", self._stream)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
            yield runner.addresses[0][1]
        finally:
            await runner.cleanup()

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        body = codec.decode(await request.read(), OpenBody)
        opening = open_document(parse_document(body.opening, Opening), Opening)
        self.opened.append(opening)
        lease = parse(opening.lease).open(Lease)
        await self.peer.report(lease, "opened")
        answer = self._make(self.peer, lease)
        if self._delivers:
            await self.peer.send(answer.receipt.raw)
        response = web.StreamResponse(headers={"Content-Type": STREAM})
        await response.prepare(request)
        for frame in answer.frames():
            await response.write(encode_frame(frame))
        return response
