"""A small HTTP server that answers byte for byte as it is told, where a back end of somebody else's would be."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Reply:
    """What is answered. cut: bytes in one piece, 0 for all. ends: how the answer's end is shown: by its length, by the
    end of its chunks, by the end of the connection; or not at all, as by a program that dies. holds: whether nothing
    more comes behind it, until the client goes away."""

    body: bytes = b"{}"
    status: int = 200
    kind: str = "application/json"
    cut: int = 0
    ends: str = "length"
    holds: bool = False


@dataclass
class Asked:
    """What was asked."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any


@dataclass
class BackEnd:
    """The server. replies: by path; what is none is not found. left: set when a client went away before its answer's
    end. server: its header of that name."""

    replies: dict[str, Reply] = field(default_factory=dict)
    server: str = ""
    asked: list[Asked] = field(default_factory=list)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0
    _server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Where its API begins."""
        return f"http://127.0.0.1:{self.port}/v1"

    def bodies(self, path: str) -> list[Any]:
        """All that was asked at this path."""
        return [asked.body for asked in self.asked if asked.path == path]

    def answer(self, path: str, value: object, status: int = 200) -> None:
        """Answer with this JSON."""
        self.replies[path] = Reply(json.dumps(value).encode(), status)

    async def start(self) -> None:
        """Listen, where it did before if it did."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Be gone."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._answer(await _read(reader), reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def _answer(self, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.append(asked)
        reply = self.replies.get(asked.path, Reply(b'{"error":{"message":"Not Found","code":404}}', 404))
        head = f"HTTP/1.1 {reply.status} As It Is\r\nContent-Type: {reply.kind}\r\nConnection: close\r\n"
        head += f"Server: {self.server}\r\n" if self.server else ""
        chunked = reply.ends in ("chunks", "nothing")
        head += f"Content-Length: {len(reply.body)}\r\n" if reply.ends == "length" else ""
        head += "Transfer-Encoding: chunked\r\n" if chunked else ""
        writer.write(head.encode() + b"\r\n")
        for start in range(0, len(reply.body), reply.cut or max(1, len(reply.body))):
            piece = reply.body[start : start + (reply.cut or len(reply.body))]
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
            await writer.drain()
        if reply.holds:
            await reader.read()
            self.left.set()
        elif reply.ends == "chunks":
            writer.write(b"0\r\n\r\n")
        await writer.drain()


async def _read(reader: asyncio.StreamReader) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _ = head[0].split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Asked(method, path, headers, json.loads(body) if body else None)


@asynccontextmanager
async def back_end() -> AsyncIterator[BackEnd]:
    """One that runs until the block ends."""
    running = BackEnd()
    await running.start()
    try:
        yield running
    finally:
        await running.stop()
