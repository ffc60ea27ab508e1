"""Statements that an earlier program with our key made and the tracker has not answered yet."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from peer.evidence import Evidence, Unsettled
from protocol.envelope import Envelope, parse
from protocol.messages import Held


class LeftOver:
    """Those of one horde, until each is answered. evidence: where they lie; None if none are kept."""

    def __init__(self, evidence: Evidence | None, root: bytes) -> None:
        self._evidence = evidence
        self._root = root
        self._found: dict[bytes, Unsettled] = {}  # by the statement's bytes

    async def load(self) -> None:
        """Find what an earlier program left."""
        if self._evidence is not None:
            left = await asyncio.to_thread(self._evidence.unsettled, self._root)
            self._found = {unsettled.document: unsettled for unsettled in left}

    def statements(self) -> Iterator[tuple[Unsettled, Envelope]]:
        """What is left, each as it was signed."""
        for unsettled in list(self._found.values()):
            yield unsettled, parse(unsettled.document)

    def held(self) -> list[Held]:
        """The same in a list of what is held."""
        return [
            Held(kind=statement.kind, job=left.job, attempt=left.attempt, digest=statement.digest)
            for left, statement in self.statements()
        ]

    async def answered(self, job: bytes, settlement: bytes, delegation: bytes) -> None:
        """What was stated about this job was settled, and the settlement is kept; without one, it is forgotten."""
        if self._evidence is None:
            return
        for unsettled in [left for left in self._found.values() if left.job == job]:
            del self._found[unsettled.document]
            if settlement:
                await asyncio.to_thread(self._evidence.settle, self._root, unsettled, settlement, delegation)
            else:
                await asyncio.to_thread(self._evidence.forget, self._root, unsettled)
