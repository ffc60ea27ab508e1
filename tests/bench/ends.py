"""The two ends of a stream, one in each process: the worker's server or the requester's reader, told what to do.

Everything is the peer program's own but the engine: openings are signed and checked, the spool is on disk, the
requester puts the result together and holds its digest against the receipt.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from peer.assembly import Assembly
from peer.certificate import Certificate, fresh_certificate
from peer.opening import check_opening
from peer.output import Output
from peer.paths.addresses import Address
from peer.paths.choice import Timing
from peer.paths.race import Guide
from peer.paths.relay_end import RelayEnds
from peer.spool import Spool
from peer.stream_reader import READ_BYTES, Answered, StreamReader, Worker
from peer.stream_server import StreamServer
from protocol import codec
from protocol.digests import Artifact, output_digest
from protocol.documents import Lease, Opening, open_document, parse_document
from protocol.frames import CHUNK_BYTES, OpenBody
from tests.bench.control import obey, run
from tests.bench.crossing import Crossing, WorkersSide, guide_to
from tests.support.builders import (
    JOB_KEY,
    ROOT,
    SERVING,
    WORKER,
    a_lease,
    a_public_part,
    a_receipt,
    a_request,
    a_salt,
    an_image_work,
    but,
    signed,
)

HOST = "127.0.0.1"
#: A picture of which every pixel takes so many bytes.
PIXEL_BYTES = 4
MEDIA_TYPE = "image/png"
#: A path that was found is used: how soon is measured elsewhere.
AT_ONCE = Timing(ask_after=0, head_start=0)


class Ends:
    """What this process serves or fetches."""

    def __init__(self) -> None:
        self._stack = contextlib.AsyncExitStack()
        self._certificate: Certificate | None = None
        self._outputs: dict[bytes, Output] = {}
        self._leases: dict[str, bytes] = {}
        self._ports: dict[str, int] = {}
        self._handshakes = 0
        self._content = b""
        self._reader: StreamReader | None = None
        self._session: aiohttp.ClientSession | None = None
        self._server: StreamServer | None = None
        self._sides: dict[str, WorkersSide] = {}
        self._readers: dict[str, StreamReader] = {}

    async def answer(self, what: str, about: dict[str, Any]) -> dict[str, Any] | None:
        """Do what is asked for."""
        found: dict[str, Any] | None = await getattr(self, f"do_{what}")(**about)
        return found

    async def close(self) -> None:
        """End it all."""
        await self._stack.aclose()

    # The worker's end

    async def do_serve(self, folder: str, side: int, small: int) -> None:
        """Serve a large and a small result, and the bytes of the large one without anything around."""
        certificate = self._certificate = fresh_certificate(Path(folder))
        certificate.context.sni_callback = self._count_handshake
        self._content = os.urandom(side * side * PIXEL_BYTES)
        for what, content in (("large", self._content), ("small", os.urandom(small))):
            self._spool(Path(folder), what, side, content)
        server = self._server = StreamServer(self, certificate.context, host=HOST, port=0)
        await self._stack.enter_async_context(server)
        app = web.Application()
        app.router.add_post("/stream", self._bare)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, HOST, 0, ssl_context=certificate.context)
        await site.start()
        bare = runner.addresses[0][1]
        self._ports = {"large": server.port, "small": server.port, "bare": bare, "kept": bare}

    def _count_handshake(self, *_: object) -> None:
        self._handshakes += 1

    def _spool(self, folder: Path, what: str, side: int, content: bytes) -> None:
        request = a_request(a_public_part(an_image_work(side, side)))
        lease = but(a_lease(request), job=what.encode().ljust(16, b"."))
        envelope = signed(lease)
        spool = Spool.create(folder / "spool", envelope)
        spool.add_artifact(MEDIA_TYPE, content)
        digest = output_digest(a_salt(), [Artifact.of(MEDIA_TYPE, content)])
        receipt = signed(but(a_receipt(), job=lease.job, attempt=lease.attempt, output_digest=digest))
        spool.sync()
        spool.keep_receipt(receipt, a_salt(), "stop")
        spool.finish(receipt, a_salt(), "stop")
        self._outputs[lease.job] = Output(spool)
        self._leases[what] = envelope.raw

    def open_stream(self, body: bytes) -> Output:
        """For the stream server."""
        assert self._certificate is not None
        opened = check_opening(
            body,
            root=ROOT.public,
            serving=SERVING.public,
            worker=WORKER.public,
            certificate=self._certificate.digest,
            known_lease=lambda _: None,
        )
        return self._outputs[opened.attempt.job]

    async def _bare(self, request: web.Request) -> web.StreamResponse:
        """The bytes of the large result, in chunks as large as the stream's."""
        await request.read()
        response = web.StreamResponse()
        await response.prepare(request)
        whole = memoryview(self._content)
        for at in range(0, len(whole), CHUNK_BYTES):
            await response.write(whole[at : at + CHUNK_BYTES])
        return response

    async def do_where(self, what: str) -> dict[str, Any]:
        """All that a requester needs, and how many handshakes there were."""
        assert self._certificate is not None
        return {
            "port": self._ports[what],
            "certificate": self._certificate.digest.hex(),
            "lease": self._leases.get(what, b"").hex(),
            "handshakes": self._handshakes,
        }

    async def do_cross(self, way: str, root: str, serving: str, tracker: str) -> dict[str, Any]:
        """Be found this way by who asks at the port that is answered. root, serving, tracker: as for `Crossing`."""
        assert self._server is not None
        crossing = _crossing(self._leases["large"], root, serving, tracker)
        side = self._sides[way] = WorkersSide(crossing, self._server)
        await side.open(self._stack)
        return {"port": side.port, "place": side.place.url}

    # The requester's end

    async def do_carry(
        self, way: str, where: dict[str, Any], horde: dict[str, str], at: dict[str, Any], ticket: str = ""
    ) -> dict[str, Any]:
        """Fetch the large result over this path; its bytes, and the seconds from the worker's answer on."""
        crossing = _crossing(bytes.fromhex(where["lease"]), **horde)
        if way not in self._readers:
            relays = await self._stack.enter_async_context(RelayEnds(crossing.tracker))
            reader = StreamReader(private_too=True, relays=relays, timing=AT_ONCE)
            self._readers[way] = await self._stack.enter_async_context(reader)
        certificate = bytes.fromhex(where["certificate"])
        async with contextlib.AsyncExitStack() as stack:
            guide = guide_to(crossing, at["port"], at["place"], bytes.fromhex(ticket), stack) if at else None
            addresses = () if at else (Address(HOST, where["port"]),)
            worker = Worker(WORKER.public, 1, certificate, addresses)
            size, path, began = await self._take(self._readers[way], worker, where, guide)
        return {"bytes": size, "seconds": time.perf_counter() - began, "path": path}

    async def do_fetch(self, what: str, where: dict[str, Any], count: int = 1, at_once: int = 1) -> dict[str, Any]:
        """Fetch it so many times; the bytes that came and the seconds that it took."""
        certificate = bytes.fromhex(where["certificate"])
        if self._reader is None or self._session is None:
            self._reader = await self._stack.enter_async_context(StreamReader(private_too=True))
            self._session = await self._stack.enter_async_context(
                aiohttp.ClientSession(read_bufsize=READ_BYTES, auto_decompress=False)
            )
        fetch = {"bare": self._bare_download, "kept": self._kept_download}.get(what, self._download)
        left = iter(range(count))
        pin = aiohttp.Fingerprint(certificate)

        async def some() -> int:
            total = 0
            for _ in left:
                total += await fetch(where, certificate, pin)
            return total

        began = time.perf_counter()
        totals = await asyncio.gather(*(some() for _ in range(at_once)))
        return {"bytes": sum(totals), "seconds": time.perf_counter() - began}

    async def _bare_download(self, where: dict[str, Any], certificate: bytes, pin: aiohttp.Fingerprint) -> int:
        assert self._session is not None
        total = 0
        async with self._session.post(f"https://{HOST}:{where['port']}/stream", data=b"", ssl=pin) as response:
            async for piece in response.content.iter_any():
                total += len(piece)
        return total

    async def _kept_download(self, where: dict[str, Any], certificate: bytes, pin: aiohttp.Fingerprint) -> int:
        """The same, by a client that has the bytes when it is done, as a requester does."""
        assert self._session is not None
        async with self._session.post(f"https://{HOST}:{where['port']}/stream", data=b"", ssl=pin) as response:
            return len(await response.read())

    async def _download(self, where: dict[str, Any], certificate: bytes, pin: aiohttp.Fingerprint) -> int:
        """One result as a requester takes it; raises if it is not what the receipt says."""
        assert self._reader is not None
        worker = Worker(WORKER.public, 1, certificate, (Address(HOST, where["port"]),))
        return (await self._take(self._reader, worker, where, None))[0]

    async def _take(
        self, reader: StreamReader, worker: Worker, where: dict[str, Any], guide: Guide | None
    ) -> tuple[int, str, float]:
        """The bytes of the result, the path that it came over, and when the worker answered."""
        envelope = parse_document(bytes.fromhex(where["lease"]), Lease)
        lease = open_document(envelope, Lease)
        opening = signed(
            Opening(job=lease.job, attempt=lease.attempt, certificate=worker.certificate, lease=envelope.raw), JOB_KEY
        )
        body = codec.encode(OpenBody(opening.raw))
        assembly = Assembly(lease, ROOT.public)
        size, path, began = 0, "", 0.0
        async with contextlib.aclosing(reader.read(worker, body, -1, guide)) as frames:
            async for frame in frames:
                if isinstance(frame, Answered):
                    path, began = frame.path.word, time.perf_counter()
                    continue
                complete = assembly.take(frame)
                if complete is not None:
                    fault = complete.fault(lease, ROOT.public, cancelled=False)
                    if fault is not None:
                        raise ValueError(fault.text)
                    size = sum(artifact.size for artifact in complete.artifacts)
        return size, path, began


def _crossing(lease: bytes, root: str, serving: str, tracker: str) -> Crossing:
    terms = open_document(parse_document(lease, Lease), Lease)
    return Crossing((terms.job, terms.attempt), bytes.fromhex(root), bytes.fromhex(serving), tracker)


async def main() -> None:
    """Obey until standard input ends."""
    ends = Ends()
    try:
        await obey(ends.answer)
    finally:
        await ends.close()


if __name__ == "__main__":
    run(main)
