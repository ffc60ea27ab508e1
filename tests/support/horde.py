"""A whole horde for tests: real processes, real sockets, a real database file.

Everything is started from the command line as a user would start it, and has ended when the block ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from peer.client import Client
from peer.home import Home
from peer.tracker_tls import tls_of
from protocol.links import Link, parse_link
from tests.support.rules import PLAIN_RULES

#: A guard against hanging, not a claim about speed.
PATIENCE_S = 60.0
POLL_S = 0.05
#: What has a tracker read its files again, where the system has that signal.
HANG_UP: int = getattr(signal, "SIGHUP", 0)


async def until(condition: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
    """Wait until `condition()` is true, and return what it gave; `what` is the complaint if that takes too long."""
    try:
        async with asyncio.timeout(patience_s):
            while not (found := condition()):  # noqa: ASYNC110 (other processes cannot set an event of ours)
                await asyncio.sleep(POLL_S)
            return found
    except TimeoutError:
        raise AssertionError(what) from None


async def run(*arguments: str, code: int = 0, stdin: bytes = b"", prefix: Sequence[str] = ()) -> str:
    """Run `python -m ...`, behind the words of `prefix`, to its end, which has to be with this code; its standard
    output."""
    process = await asyncio.create_subprocess_exec(
        *prefix,
        sys.executable,
        "-m",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "NO_COLOR": "1"},
    )
    async with asyncio.timeout(PATIENCE_S):
        out, err = await process.communicate(stdin)
    assert process.returncode == code, f"{arguments} ended with {process.returncode}:\n{out!r}\n{err.decode()}"
    return out.decode()


class Process:
    """One process of ours, its output in a file."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, output: Path) -> None:
        self.name = name
        self.process = process
        self.output = output

    @classmethod
    async def start(
        cls,
        name: str,
        folder: Path,
        *arguments: str,
        env: dict[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> Process:
        """Start `python -m ...`, behind the words of `prefix`, in a process group of its own."""
        folder.mkdir(parents=True, exist_ok=True)
        output = folder / f"{name}.out"
        with output.open("ab") as file:
            process = await asyncio.create_subprocess_exec(
                *prefix,
                sys.executable,
                "-m",
                *arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=file,
                stderr=file,
                env={**os.environ, "NO_COLOR": "1", **(env or {})},
                start_new_session=True,
            )
        return cls(name, process, output)

    def text(self) -> str:
        """All that it printed so far."""
        return self.output.read_text("utf-8", "replace")

    def lines(self) -> list[dict[str, Any]]:
        """The JSON lines among what it printed."""
        found = []
        for line in self.text().splitlines():
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict):
                found.append(value)
        return found

    async def line(self, wanted: Callable[[dict[str, Any]], bool], patience_s: float = PATIENCE_S) -> dict[str, Any]:
        """The first JSON line that is wanted, when it is there; fails if the process ends before."""

        def look() -> dict[str, Any] | None:
            found = next((line for line in self.lines() if wanted(line)), None)
            if found is None and self.process.returncode is not None:
                raise AssertionError(f"{self.name} ended with {self.process.returncode}:\n{self.text()[-4000:]}")
            return found

        result: dict[str, Any] = await until(look, f"{self.name} did not say it", patience_s)
        return result

    async def kill(self) -> None:
        """SIGKILL, to this process alone."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()

    async def stop(self) -> int:
        """SIGTERM; the exit code."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_S):
            return await self.process.wait()

    async def end(self) -> None:
        """Whatever it takes; nothing of its process group is left."""
        try:
            await self.stop()
        except TimeoutError:
            await self.kill()


class Horde:
    """A tracker and its peers in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tracker: Process | None = None
        self.processes: list[Process] = []
        self.door: Link | None = None  # the tracker's own
        self.link: Link | None = None  # the one that peers are given

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Path, rules: str = "") -> AsyncIterator[Horde]:
        """Make a horde and serve it; `rules` is appended to horde.toml, in which one owner is enough for kudos
        to be minted and no pay is withheld."""
        horde = cls(folder)
        await horde.run("tracker", "init", str(horde.tracker_folder), "--listen", "127.0.0.1:0", "--name", "a test")
        horde.add_rules(PLAIN_RULES + rules)
        try:
            await horde.serve()
            yield horde
        finally:
            await asyncio.gather(*(process.end() for process in horde.processes))

    @property
    def tracker_folder(self) -> Path:
        """Where the tracker keeps everything."""
        return self.folder / "tracker"

    def add_rules(self, rules: str) -> None:
        """Replace values in horde.toml: lines `table.key = value`."""
        add_rules(self.tracker_folder, rules)

    async def run(self, *arguments: str, code: int = 0, stdin: bytes = b"") -> str:
        """Run a command to its end; its standard output."""
        return await run(*arguments, code=code, stdin=stdin)

    async def serve(self) -> Process:
        """Start the tracker; after the first time it listens where it did before."""
        listen = []
        if self.door is not None:
            listen = ["--listen", self.door.url.partition("://")[2]]
        tracker = await Process.start(
            f"tracker-{len(self.processes)}",
            self.folder / "logs",
            "tracker",
            "serve",
            str(self.tracker_folder),
            "--json-logs",
            "--log-level",
            "debug",
            *listen,
        )
        self.processes.append(tracker)
        self.tracker = tracker
        serving = await tracker.line(lambda line: line.get("event") == "serving" and "link" in line)
        self.door = parse_link(serving["link"])
        self.link = self.link or self.door
        return tracker

    async def read_again(self) -> None:
        """Have the tracker read its files again, of which one has changed; returns when that is in force."""
        tracker = self.tracker
        assert tracker is not None

        def changes() -> int:
            return sum(line.get("message") == "new rules are in force" for line in tracker.lines())

        before = changes()
        tracker.process.send_signal(HANG_UP)
        await until(lambda: changes() > before, "the tracker did not read its files again")

    async def worker(self, name: str, *arguments: str, ready: int = 1) -> Process:
        """Start a worker with a home of its own and wait until the tracker knows it."""
        home = self.folder / name
        if not (home / "key").exists():
            await self.run("peer", "join", str(self.link), "--home", str(home))
        before = (await self.scrape())["workers"]
        worker = await Process.start(
            name, self.folder / "logs", "peer", "worker", "--home", str(home), "--json", *arguments
        )
        self.processes.append(worker)
        if ready:
            await self.workers(before + ready)
        return worker

    def join(self, name: str) -> Home:
        """A peer's folder that has a key and has joined, without a command."""
        assert self.link is not None
        home = self.home(name)
        home.key()
        home.join(self.link)
        return home

    async def workers(self, count: int) -> None:
        """Wait until the tracker counts so many workers."""
        async with asyncio.timeout(PATIENCE_S):
            while (await self.scrape())["workers"] != count:
                ended = [process for process in self.processes if process.process.returncode not in (None, 0, -9, -15)]
                assert not ended, f"{ended[0].name} ended:\n{ended[0].text()[-4000:]}"
                await asyncio.sleep(POLL_S)

    async def scrape(self) -> dict[str, Any]:
        """What the tracker shows to anybody."""
        assert self.door is not None
        url = self.door.url.replace("ws", "http", 1) + "/scrape"
        async with aiohttp.ClientSession() as session, session.get(url, ssl=tls_of(self.door)) as answer:
            content: dict[str, Any] = await answer.json()
            return content

    def home(self, name: str) -> Home:
        """The folder of a peer."""
        return Home(self.folder / name)

    def client(self, name: str = "", **more: Any) -> Client:
        """A requester: with the account of the named home, or anonymous."""
        assert self.link is not None
        return Client(self.link, home=self.home(name) if name else None, **more)

    async def audit(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """What `potluck-tracker audit` finds."""
        text = await self.run("tracker", "audit", str(self.tracker_folder), "--json", *arguments, code=code)
        report: dict[str, Any] = json.loads(text)
        return report


def add_rules(tracker_folder: Path, rules: str) -> None:
    """Replace values in the horde.toml of this folder: lines `table.key = value`."""
    path = tracker_folder / "horde.toml"
    lines = path.read_text("utf-8").splitlines()
    for rule in filter(str.strip, rules.splitlines()):
        name, value = (part.strip() for part in rule.split("=", 1))
        table, key = name.rsplit(".", 1)
        lines = _set(lines, table, key, value)
    path.write_text("\n".join(lines) + "\n", "utf-8")


def _set(lines: Sequence[str], table: str, key: str, value: str) -> list[str]:
    """The lines of a TOML file with one value replaced, or added to its table."""
    found: list[str] = []
    inside = done = False
    for line in lines:
        if line.startswith("["):
            if inside and not done:
                found.append(f"{key} = {value}")
                done = True
            inside = line.strip() == f"[{table}]"
        if inside and line.split("=")[0].strip() == key:
            line, done = f"{key} = {value}", True
        found.append(line)
    if not done:
        found += [] if inside else [f"[{table}]"]
        found.append(f"{key} = {value}")
    return found
