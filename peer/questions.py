"""Questions to the tracker, each until it is answered, refused, or has to be asked again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from peer.events import Refused
from protocol.messages import Delegations, Given, SessionMessage


class Questions:
    """Who waits for which kind of answer, and by which message it was asked for."""

    def __init__(self) -> None:
        self._waiting: list[tuple[str, bytes, asyncio.Future[Any]]] = []
        self._given: list[Given] = []

    @contextmanager
    def asked(self, kind: str, digest: bytes) -> Iterator[asyncio.Future[Any]]:
        """Wait for an answer of this kind to the message with this digest; None means that it has to be asked again."""
        entry = kind, digest, asyncio.get_running_loop().create_future()
        self._waiting.append(entry)
        try:
            yield entry[2]
        finally:
            self._waiting.remove(entry)

    def answered(self, message: SessionMessage) -> None:
        """The tracker says something; an answer that comes in parts is handed on when it is whole."""
        if isinstance(message, Delegations):
            self._given += message.entries
            if not message.last:
                return
            message = Delegations(entries=tuple(self._given), last=True)
            self._given = []
        for kind, _, future in self._waiting:
            if kind == message.KIND and not future.done():
                future.set_result(message)

    def refused(self, digest: bytes, code: str, text: str) -> bool:
        """The tracker has refused something; whether it was one of these."""
        for _, asked, future in self._waiting:
            if asked == digest and not future.done():
                future.set_exception(Refused(code, text))
                return True
        return False

    def lost(self) -> None:
        """The connection broke: all of them are asked again."""
        self._given = []
        for _, _, future in self._waiting:
            if not future.done():
                future.set_result(None)
