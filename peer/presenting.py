"""Documents on their way to the tracker, each until it has said that it is durable, or why not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from peer.events import Refused


class Presenting:
    """Who waits for which document, by its digest."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, asyncio.Future[bool]] = {}

    def begin(self, digest: bytes) -> asyncio.Future[bool]:
        """Wait for the answer to this document: true if it was taken, false if it has to be sent again."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[digest] = future
        return future

    def end(self, digest: bytes) -> None:
        """Nobody waits for it any more."""
        self._waiting.pop(digest, None)

    def taken(self, digests: Iterable[bytes]) -> None:
        """The tracker has stored these."""
        for digest in digests:
            if (future := self._waiting.get(digest)) is not None and not future.done():
                future.set_result(True)

    def refused(self, digest: bytes, code: str, text: str) -> bool:
        """The tracker has refused something; whether it was one of these."""
        future = self._waiting.get(digest)
        if future is None or future.done():
            return False
        future.set_exception(Refused(code, text))
        return True

    def lost(self) -> None:
        """The connection broke: all that was not answered goes again."""
        for future in self._waiting.values():
            if not future.done():
                future.set_result(False)
