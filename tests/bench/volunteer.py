"""A relay as a volunteer runs it, in a process of its own, without a tracker that would have to reach it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from peer.certificate import fresh_certificate
from peer.client import system_clock
from peer.relaying import Offering, Relaying
from peer.stream_server import StreamServer
from protocol.keys import SigningKey
from tests.bench.control import obey, run
from tests.bench.crossing import HOST


class Volunteer:
    """What this process relays."""

    def __init__(self) -> None:
        self._stack = contextlib.AsyncExitStack()

    async def answer(self, what: str, about: dict[str, Any]) -> dict[str, Any] | None:
        """Do what is asked for."""
        found: dict[str, Any] | None = await getattr(self, f"do_{what}")(**about)
        return found

    async def do_relay(self, folder: str, root: str, serving: str) -> dict[str, Any]:
        """Relay for who has a ticket by this serving key of this horde; its key, address and certificate."""
        key, signs = SigningKey.generate(), bytes.fromhex(serving)
        relaying = Relaying(key.public, bytes.fromhex(root), Offering(), serving=lambda: signs, now=system_clock)
        certificate = fresh_certificate(Path(folder))
        server = StreamServer(None, certificate.context, host=HOST, port=0, routes=relaying.routes())
        await self._stack.enter_async_context(server)
        return {
            "relay": key.public.hex(),
            "url": f"wss://{HOST}:{server.port}",
            "certificate": certificate.digest.hex(),
        }

    async def close(self) -> None:
        """End it."""
        await self._stack.aclose()


async def main() -> None:
    """Obey until standard input ends."""
    volunteer = Volunteer()
    try:
        await obey(volunteer.answer)
    finally:
        await volunteer.close()


if __name__ == "__main__":
    run(main)
