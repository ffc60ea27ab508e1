"""What an attempt has brought so far, and how a reader follows it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from peer.spool import Spool, SpoolError
from protocol.frames import CHUNK_BYTES, Alive, Failed, Preview, Progressed, encode_frame


class Output:
    """The spool, and what exists only in its moment: progress, the newest preview, the failure."""

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        self.progress: Progressed | None = None
        self.preview: Preview | None = None
        self.failure: Failed | None = None
        #: Set, and replaced by a fresh one, whenever something changed.
        self.change = asyncio.Event()

    def changed(self) -> None:
        """Wake all readers."""
        self.change.set()
        self.change = asyncio.Event()

    def fail(self, code: str, text: str) -> None:
        """The attempt ended without a result, or its result is kept no longer: readers are told."""
        self.failure = Failed(code, text)
        self.changed()


async def follow(output: Output, number: int, alive_seconds: float) -> AsyncGenerator[bytes, None]:
    """Encoded frames from `number` on, as they come, until the final or failed one; a sign of life whenever nothing
    else came for a while. Holds one piece of at most one chunk's size, however slow the reader."""
    progress: Progressed | None = None
    preview: Preview | None = None
    while True:
        change = output.change  # taken before looking, so that nothing is missed while the reader takes its time
        if output.failure is not None:
            yield encode_frame(output.failure)
            return
        fresh = b""
        if output.progress is not progress and (progress := output.progress) is not None:
            fresh += encode_frame(progress)
        if output.preview is not preview and (preview := output.preview) is not None:
            fresh += encode_frame(preview)
        try:
            numbered, number = output.spool.read(number, CHUNK_BYTES)
        except (OSError, SpoolError):
            yield encode_frame(Failed("stream_gone", "the result could not be read from the worker's disk"))
            return
        if fresh or numbered:
            yield fresh + numbered
        elif output.spool.is_whole:
            return
        elif not await _comes(change, alive_seconds):
            yield encode_frame(Alive())


async def _comes(change: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await change.wait()
    except TimeoutError:
        return False
    return True
