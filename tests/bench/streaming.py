"""One process of real workers, with dry-run engines, and real clients."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peer.client import Client, system_clock
from peer.commands.worker import open_engines
from peer.engines.spec import EngineSpec
from peer.events import Picture, Settled
from peer.news import News
from peer.worker import Settings, Worker
from protocol.keys import SigningKey
from protocol.links import parse_link
from tests.bench.control import obey, run

SPEC = EngineSpec(engine="dry-run", model="bench-stream", options={"kind": "image"})


class Streaming:
    """The peers of this process."""

    def __init__(self) -> None:
        self.settled = 0
        self.pictures = 0
        self.clients: list[Client] = []
        self._stack = contextlib.AsyncExitStack()
        self._workers: list[asyncio.Task[None]] = []
        self._asking: list[asyncio.Task[None]] = []

    async def answer(self, what: str, about: dict[str, Any]) -> dict[str, Any] | None:
        """Do what is asked for."""
        found: dict[str, Any] | None = await getattr(self, f"do_{what}")(**about)
        return found

    async def do_join(self, link: str, folder: str, seeds: list[str], peers: int, slots: int) -> None:
        """Start the workers, wait until all listen, and connect the clients with the keys given."""
        found = parse_link(link)
        ready = [asyncio.Event() for _ in range(peers)]
        for number in range(peers):
            home = Path(folder) / f"worker-{number}"
            home.mkdir(parents=True)
            worker = Worker(
                found,
                SigningKey.generate(),
                open_engines([SPEC] * slots, home),
                home,
                clock=system_clock,
                random=random.Random(),
                settings=Settings(host="127.0.0.1"),
                on_news=_when_joined(ready[number]),
            )
            self._workers.append(asyncio.create_task(worker.run()))
        for event, task in zip(ready, self._workers, strict=True):
            joined = asyncio.create_task(event.wait())
            await asyncio.wait((joined, task), return_when=asyncio.FIRST_COMPLETED)
            joined.cancel()
        await self.do_count()
        for seed in seeds:
            client = Client(found, SigningKey(bytes.fromhex(seed)), leave_seconds=2)
            self.clients.append(await self._stack.enter_async_context(client))

    async def do_load(self, in_flight: int) -> None:
        """Let each client ask for so many pictures at once, one after the other."""
        for client in self.clients:
            self._asking += [asyncio.create_task(self._ask(client)) for _ in range(in_flight)]

    async def _ask(self, client: Client) -> None:
        while True:
            async for event in client.image("a small red circle on blue", width=64, height=64, steps=1):
                self.pictures += isinstance(event, Picture)
                self.settled += isinstance(event, Settled)

    async def do_count(self) -> dict[str, Any]:
        """Jobs settled so far."""
        for task in (*self._asking, *self._workers):
            if task.done():
                await task
        return {"settled": self.settled, "pictures": self.pictures}

    async def do_halt(self) -> None:
        """Ask for no more."""
        for task in self._asking:
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)
        self._asking = []

    async def close(self) -> None:
        """End it all."""
        await self.do_halt()
        await self._stack.aclose()
        for task in self._workers:
            task.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)


def _when_joined(event: asyncio.Event) -> Callable[[News], None]:
    def hear(news: News) -> None:
        if news.kind == "joined":
            event.set()

    return hear


async def main() -> None:
    """Obey until standard input ends."""
    streaming = Streaming()
    try:
        await obey(streaming.answer)
    finally:
        await streaming.close()


if __name__ == "__main__":
    run(main)
