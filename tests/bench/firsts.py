"""A requester that asks for one picture after the other, and how soon after its lease each one's worker answered."""

from __future__ import annotations

import time
from typing import Any

from peer.client import Client
from peer.events import Leased, Path, Settled
from protocol.keys import SigningKey
from tests.bench.control import obey, run

SIDE, STEPS = 64, 5


class Firsts:
    """Each job is somebody else's: nobody has a connection that serves again."""

    async def answer(self, what: str, about: dict[str, Any]) -> dict[str, Any] | None:
        """Do what is asked for."""
        found: dict[str, Any] | None = await getattr(self, f"do_{what}")(**about)
        return found

    async def do_ask(self, link: str, model: str, count: int, relays_only: bool) -> dict[str, Any]:
        """So many pictures; the milliseconds from each lease to the first byte of the worker's answer, and the path
        that it came over."""
        found = [await _one(link, model, relays_only) for _ in range(count)]
        return {"ms": [ms for ms, _, _ in found], "paths": [path for _, path, _ in found], "reason": found[-1][2]}


async def _one(link: str, model: str, relays_only: bool) -> tuple[float, str, str]:
    leased = first = 0.0
    path, reason, settled = "", "", 0
    client = Client(link, SigningKey.generate(), insecure=True, relays_only=relays_only)
    async with client:
        async for event in client.image("a red circle", width=SIDE, height=SIDE, steps=STEPS, models=(model,)):
            match event:
                case Leased():
                    leased = time.perf_counter()
                case Path() if not first:
                    first, path, reason = time.perf_counter(), event.path, event.reason
                case Settled():
                    settled += 1
                case _:
                    pass
    if not settled or not first:
        raise RuntimeError("a picture was not settled, or its path was not told")
    return (first - leased) * 1000, path, reason


async def main() -> None:
    """Obey until standard input ends."""
    await obey(Firsts().answer)


if __name__ == "__main__":
    run(main)
