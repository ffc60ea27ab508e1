"""Something that listens where a tracker may try to reach a peer, and answers as a test wants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from peer.certificate import Certificate, fresh_certificate
from protocol.documents import PeerRecord, ReachProof, sign
from protocol.keys import SigningKey

#: What is sent back to these 32 bytes; nothing at all where it is None.
Answer = Callable[[bytes], bytes | None]


def http(body: bytes, status: str = "200 OK") -> bytes:
    """An HTTP answer."""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


@dataclass
class Answering:
    """A TLS server. came: how many connections it had. asked: what it was asked, heads and bodies."""

    certificate: Certificate
    host: str = ""
    port: int = 0
    came: int = 0
    asked: list[bytes] = field(default_factory=list)

    @classmethod
    @asynccontextmanager
    async def open(
        cls, folder: Path, answer: Answer, host: str = "127.0.0.1", port: int = 0, also: Sequence[str] = ()
    ) -> AsyncIterator[Answering]:
        """It listens until the block ends. also: at which addresses more."""
        found = cls(fresh_certificate(folder), host)
        serving: set[asyncio.Task[None]] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            serving.add(task)
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await found._serve(reader, writer, answer)
            serving.discard(task)
            writer.transport.abort()

        listener = await asyncio.start_server(serve, (host, *also), port, ssl=found.certificate.context)
        found.port = listener.sockets[0].getsockname()[1]
        try:
            yield found
        finally:
            listener.close()
            ending = list(serving)
            for task in ending:
                task.cancel()
            await asyncio.gather(*ending, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Answer) -> None:
        self.came += 1
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(32)
        self.asked.append(head + body)
        said = answer(body)
        if said is None:
            await reader.read()
            return
        writer.write(said)
        await writer.drain()
        await reader.read()

    def record(self, *addresses: str, certificate: bytes = b"", version: int = 1) -> PeerRecord:
        """A record that names this server, by its own address unless others are given."""
        return PeerRecord(
            version=version,
            certificate=certificate or self.certificate.digest,
            addresses=addresses or (f"{self.host}:{self.port}",),
        )


class Proving:
    """Answers as the peer that holds the key should, once the certificate is known."""

    def __init__(self, key: SigningKey, root: bytes) -> None:
        self.certificate = b""
        self._key = key
        self._root = root

    def __call__(self, challenge: bytes) -> bytes:
        """The signed proof."""
        return http(sign(ReachProof(challenge=challenge, certificate=self.certificate), self._key, self._root).raw)
