"""One process of light peers: some workers and as many requesters, told what to do by the bench."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any

import aiohttp

from protocol.keys import SigningKey
from protocol.links import parse_link
from tests.bench.control import obey, run
from tests.bench.peers import Line, Office, Requester, Seen, Wish, Worker, counts

#: Jobs of one request, and requests of one requester at once, while the queue is being filled.
FILL_N = 50
FILL_AT_ONCE = 8
HOST = "127.0.0.1"
HEAD = 16 + 4 + 4


class Load:
    """The peers of this process."""

    def __init__(self) -> None:
        self.seen = Seen()
        self.office = Office(0)
        self.workers: list[Worker] = []
        self.requesters: list[Requester] = []
        self.idle: list[Line] = []
        self._session: aiohttp.ClientSession | None = None
        self._server: asyncio.Server | None = None
        self._reading: list[asyncio.Task[None]] = []
        self._pacing: asyncio.Task[None] | None = None
        self._text = ""

    async def answer(self, what: str, about: dict[str, Any]) -> dict[str, Any] | None:
        """Do what is asked for."""
        found: dict[str, Any] | None = await getattr(self, f"do_{what}")(**about)
        return found

    async def do_listen(self) -> dict[str, Any]:
        """Await the other process; on which port."""
        self._server = await asyncio.start_server(self._joined, HOST, 0)
        return {"port": self._server.sockets[0].getsockname()[1]}

    async def do_reach(self, port: int) -> None:
        """Connect to the other process."""
        await self._joined(*await asyncio.open_connection(HOST, port))

    async def _joined(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def send_away(job: bytes, attempt: int, receipt: bytes) -> None:
            writer.write(job + attempt.to_bytes(4, "big") + len(receipt).to_bytes(4, "big") + receipt)

        self.office.send_away = send_away
        self._reading.append(asyncio.create_task(self._read(reader)))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while True:
            head = await reader.readexactly(HEAD)
            receipt = await reader.readexactly(int.from_bytes(head[20:], "big"))
            self.office.arrive(head[:16], int.from_bytes(head[16:20], "big"), receipt)

    async def do_join(self, link: str, mark: int, seeds: list[str], peers: int) -> None:
        """Connect the workers, and the requesters with the keys given."""
        self._text = link
        self.office.mark = mark
        found = parse_link(link)
        self.workers = [Worker(found, SigningKey.generate(), self.seen, self.office) for _ in range(peers)]
        keys = [SigningKey(bytes.fromhex(seed)) for seed in seeds]
        self.requesters = [Requester(found, key, self.seen, self.office) for key in keys]
        for line in (*self.workers, *self.requesters):
            await line.open(self.session)
        for worker in self.workers:
            await worker.join()
        for requester in self.requesters:
            await requester.register()

    @property
    def session(self) -> aiohttp.ClientSession:
        """For all connections."""
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        return self._session

    async def do_fund(self, models: list[str]) -> None:
        """Let each requester's key earn: as a worker of a dear model, for somebody without an account."""
        link = parse_link(self._text)
        for requester, model in zip(self.requesters, models, strict=True):
            worker = Worker(link, requester.key, self.seen, self.office)
            asker = Requester(link, SigningKey.generate(), self.seen, self.office)
            await worker.open(self.session)
            await asker.open(self.session)
            await worker.join()
            worker.serve([model], 1)
            paid = asker.awaited("settlement")
            asker.ask(Wish((model,), side=256))
            await paid
            await worker.close()
            await asker.close()

    async def do_serve(self, offers: list[list[str]], slots: int) -> None:
        """Each worker serves its list of models from now on; none at all stops new leases."""
        for worker, models in zip(self.workers, offers, strict=True):
            worker.serve(models, slots)

    async def do_fill(self, jobs: int, wishes: list[dict[str, Any]]) -> None:
        """Ask for so many jobs that will wait, in turn of each wish."""
        meant = [_wish(wish) for wish in wishes]
        share = jobs // len(self.requesters)
        await asyncio.gather(*(self._fill(requester, share, meant) for requester in self.requesters))

    async def _fill(self, requester: Requester, jobs: int, wishes: list[Wish]) -> None:
        turn = 0
        while jobs > 0:
            requester.ask(wishes[turn % len(wishes)], min(jobs, FILL_N))
            jobs -= FILL_N
            turn += 1
            while len(requester.unanswered) >= FILL_AT_ONCE:
                await self._change(requester)
        while requester.unanswered:
            await self._change(requester)

    async def _change(self, requester: Requester) -> None:
        requester.changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await requester.changed.wait()
        self.seen.check()

    async def do_load(self, wish: dict[str, Any], in_flight: int) -> None:
        """Ask for so many jobs for each requester, and for another one whenever one is settled."""
        meant = _wish(wish)
        for requester in self.requesters:
            requester.refill = meant
            for _ in range(in_flight):
                requester.ask(meant)

    async def do_pace(self, wish: dict[str, Any], rate: float) -> None:
        """Ask for so many jobs a second, whatever becomes of them."""
        self.seen.to_lease_ms.clear()
        self._pacing = asyncio.create_task(self._pace(_wish(wish), rate))

    async def _pace(self, wish: Wish, rate: float) -> None:
        started = time.perf_counter()
        asked = 0
        while True:
            due = int((time.perf_counter() - started) * rate)
            for number in range(asked, due):
                self.requesters[number % len(self.requesters)].ask(wish)
            asked = due
            await asyncio.sleep(0.001)

    async def do_halt(self) -> None:
        """Ask for no more."""
        if self._pacing is not None:
            self._pacing.cancel()
            self._pacing = None
        for requester in self.requesters:
            requester.refill = None

    async def do_drain(self) -> None:
        """Wait until everything that was asked for is settled."""
        for requester in self.requesters:
            while requester.jobs or requester.unanswered:
                await self._change(requester)

    async def do_idle(self, link: str, peers: int) -> None:
        """Connect so many peers that say nothing."""
        found = parse_link(link)
        for _ in range(peers):
            line = Line(found, SigningKey.generate(), self.seen)
            await line.open(self.session)
            self.idle.append(line)

    async def do_count(self) -> dict[str, Any]:
        """What was seen so far."""
        return counts(self.seen)

    async def do_latencies(self) -> dict[str, Any]:
        """From request to lease, in milliseconds, since the last time."""
        found, self.seen.to_lease_ms = self.seen.to_lease_ms, []
        return {"ms": found}

    async def do_samples(self) -> dict[str, Any]:
        """The bytes of one message of each kind."""
        return {kind: raw.hex() for kind, raw in self.seen.samples.items()}

    async def do_leave(self) -> None:
        """Hang up everywhere."""
        for line in (*self.workers, *self.requesters, *self.idle):
            await line.close()
        self.workers, self.requesters, self.idle = [], [], []

    async def close(self) -> None:
        """End it all."""
        await self.do_halt()
        await self.do_leave()
        for task in self._reading:
            task.cancel()
        if self._session is not None:
            await self._session.close()


def _wish(about: dict[str, Any]) -> Wish:
    return Wish(tuple(about["models"]), about.get("side", 64))


async def main() -> None:
    """Obey until standard input ends."""
    load = Load()
    try:
        await obey(load.answer)
    finally:
        await load.close()


if __name__ == "__main__":
    run(main)
