"""The real tracker, as an operator starts it, and what it costs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from protocol.links import Link, parse_link
from tests.support.horde import Horde, Process
from tests.support.rules import PLAIN_RULES

#: What each funding model pays for one job: enough for all that the bench asks for.
FUND = "fund{}"
#: Limits that would end the bench before the tracker does, and the prices of the funding models.
RULES = """
limits.open_jobs = 1000000
limits.anonymous_open_jobs = 1000000
limits.without_kudos_running = 1000000
limits.anonymous_running = 1000000
limits.connections = 10000
limits.max_n = 64
times.waiting = 86400
mint.daily = 1000000000000
"""
MIB = 1024 * 1024


def rules(requesters: int) -> str:
    """The rules of the bench, for so many requesters that are to have kudos."""
    prices = "\n".join(f"models.{FUND.format(number)}.price = 100000000" for number in range(requesters))
    return f"{RULES.strip()}\n{prices}"


class Tracker:
    """`potluck-tracker serve` on a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.link: Link | None = None
        self.horde = Horde(folder)
        self._process: Process | None = None
        self._starts = 0

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Path, more: str = "") -> AsyncIterator[Tracker]:
        """A new horde, served until the block ends."""
        tracker = cls(folder)
        horde = tracker.horde
        await horde.run("tracker", "init", str(horde.tracker_folder), "--listen", "127.0.0.1:0", "--name", "a bench")
        horde.add_rules(PLAIN_RULES + more)
        try:
            await tracker.start()
            yield tracker
        finally:
            if tracker._process is not None:
                await tracker._process.end()

    async def start(self) -> float:
        """Start serving; the seconds that it took until peers can come."""
        listen = () if self.link is None else ("--listen", self.link.url.removeprefix("ws://"))
        self._starts += 1
        began = time.perf_counter()
        process = self._process = await Process.start(
            f"tracker-{self._starts}",
            self.folder / "logs",
            "tracker",
            "serve",
            str(self.horde.tracker_folder),
            "--json-logs",
            *listen,
        )
        while (serving := _serving(process)) is None:
            if process.process.returncode is not None:
                raise RuntimeError(f"the tracker ended:\n{process.text()[-3000:]}")
            await asyncio.sleep(0.01)
        took = time.perf_counter() - began
        self.link = parse_link(serving)
        return took

    async def stop(self) -> None:
        """End it as an operator would."""
        assert self._process is not None
        await self._process.stop()

    async def scrape(self) -> dict[str, Any]:
        """What it shows to anybody."""
        assert self.link is not None
        url = self.link.url.replace("ws", "http", 1) + "/scrape"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            found: dict[str, Any] = await answer.json()
            return found

    @property
    def watched(self) -> psutil.Process:
        """The process."""
        assert self._process is not None
        return psutil.Process(self._process.process.pid)

    def rss_mib(self) -> float:
        """What it has in memory."""
        return float(self.watched.memory_info().rss) / MIB


def _serving(process: Process) -> str | None:
    found = next((line for line in process.lines() if line.get("event") == "serving" and "link" in line), None)
    return str(found["link"]) if found else None


def cpu_s(process: psutil.Process) -> float:
    """CPU seconds of a process so far, children that it still has included."""
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        times = one.cpu_times()
        total += times.user + times.system
    return total
