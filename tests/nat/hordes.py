"""A horde whose tracker, workers and requesters live at different places of a street; all are real processes."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.client
import json
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from peer.evidence import Evidence
from peer.home import Home
from peer.verify import verify_file
from protocol.links import Link, parse_link
from tests.nat.kinds import Kind
from tests.nat.net import TRACKER, TRACKER_NAME, Network
from tests.support.horde import Process, add_rules, run
from tests.support.rules import PLAIN_RULES

PORT = 7345
#: Of workers whose owners say where they are reached.
WORKER_PORT = 7000
#: Tests look at a tracker that they started themselves.
_UNCHECKED = ssl.create_default_context()
_UNCHECKED.check_hostname = False
_UNCHECKED.verify_mode = ssl.CERT_NONE
#: What else runs on the machine may hold up the many processes of a street.
PATIENT_RULES = """
times.accept = 20
times.open = 30
"""
#: Longer than anything takes that works.
PATIENCE_S = 45.0


@dataclass
class Asked:
    """A picture or a text that was asked for, and what was heard of it. code: with which the command ended."""

    process: Process
    file: Path
    home: Home
    code: int = -1

    def events(self, name: str) -> list[dict[str, Any]]:
        """All events of this name so far."""
        return [line for line in self.process.lines() if line.get("event") == name]

    @property
    def paths(self) -> list[str]:
        """The paths that it came over, in order."""
        return [event["path"] for event in self.events("path")]

    async def event(self, name: str) -> dict[str, Any]:
        """The first event of this name, once it is there."""
        return await self.process.line(lambda line: line.get("event") == name, PATIENCE_S)

    async def finished(self) -> Asked:
        """Wait for its end; fails unless the whole was saved, signed for, acknowledged and settled."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                self.code = await self.process.process.wait()
        except TimeoutError:
            self.process.process.send_signal(signal.SIGINT)
            await self.process.end()
            raise AssertionError(f"it did not come:\n{self.process.text()[-4000:]}") from None
        assert self.code == 0, self.process.text()[-4000:]
        [result] = self.process.lines()[-1]["results"]
        content = self.file.read_bytes()
        assert result["settled"] is True
        assert result["sha256"] == hashlib.sha256(content).hexdigest()
        verified = verify_file(self.file, Evidence(self.home.results_folder))
        assert verified.sha256.hex() == result["sha256"]
        return self


@dataclass
class StreetHorde:
    """A tracker on the street, and its peers by the place where they live."""

    network: Network
    folder: Path
    link: Link
    processes: list[Process] = field(default_factory=list)
    workers: dict[str, Process] = field(default_factory=dict)
    asked: int = 0

    @classmethod
    @asynccontextmanager
    async def open(
        cls, network: Network, folder: Path, rules: str = "", *, link: Link | None = None, init: Sequence[str] = ()
    ) -> AsyncIterator[StreetHorde]:
        """Make a horde and serve it. rules: appended to horde.toml. init: more words for `potluck-tracker init`; with
        `--self-signed` it speaks TLS. link: what peers are given in place of the tracker's own."""
        scheme = "wss" if "--self-signed" in init else "ws"
        address = f"{TRACKER_NAME}:{PORT}"
        at = ("--listen", address, "--url", f"{scheme}://{address}", "--name", "a street", *init)
        await run("tracker", "init", str(folder / "tracker"), *at, prefix=network.prefix(TRACKER))
        add_rules(folder / "tracker", PLAIN_RULES + PATIENT_RULES + rules)
        processes: list[Process] = []
        try:
            serving, tracker = await _serve(network, folder)
            processes.append(tracker)
            horde = cls(network, folder, link or serving, processes)
            yield horde
        finally:
            await asyncio.gather(*(process.end() for process in processes))

    async def worker(self, place: str, *arguments: str, says_where: bool = True) -> Process:
        """Start a worker there and wait until the horde knows it, and where others reach it if they do.
        says_where: one on a public address names it."""
        home = self.home(f"worker {place}")
        home.key()
        home.join(self.link)
        where: tuple[str, ...] = ()
        if says_where and self.network[place].kind is Kind.PUBLIC:  # as whoever rents a server says where it is
            outer = (self.network[place].outer4, f"[{self.network[place].outer6}]")
            where = ("--listen", f":{WORKER_PORT}", *(word for one in outer for word in ("--address", one)))
        at = ("--home", str(home.folder), "--json", "--insecure", *where)
        worker = await Process.start(
            f"worker {place}", self.folder, "peer", "worker", *at, *arguments, prefix=self.network.prefix(place)
        )
        self.processes.append(worker)
        self.workers[place] = worker
        await worker.line(lambda line: line.get("event") == "joined")
        await self._reached(worker, place)
        return worker

    async def _reached(self, peer: Process, place: str) -> None:
        """Others hear of an outer address when the tracker has tried it; where that fails, nobody waits for it."""
        home = self.network[place]
        if home.kind in (Kind.PUBLIC, Kind.FULL_CONE):
            for six in (False, True)[: 1 + home.kind.has_ipv6]:
                await peer.line(partial(_is_reached, six))

    async def relay(self, place: str) -> Process:
        """Start a peer there that does nothing but relay, and wait until the horde has it."""
        home = self.home(f"relay {place}")
        home.key()
        home.join(self.link)
        at = ("--home", str(home.folder), "--json", "--insecure")
        relay = await Process.start(
            f"relay {place}", self.folder, "peer", "relay", *at, prefix=self.network.prefix(place)
        )
        self.processes.append(relay)
        await self._reached(relay, place)
        return relay

    async def picture(self, place: str, model: str, *arguments: str, prompt: str = "a red circle") -> Asked:
        """Ask for a picture from there, small unless the arguments say otherwise."""
        small = () if "--width" in arguments else ("--width", "64", "--height", "64", "--steps", "5")
        return await self._ask(place, "image", prompt, model, *small, *arguments)

    async def text(self, place: str, model: str, *arguments: str, prompt: str = "say something") -> Asked:
        """Ask for a text from there."""
        return await self._ask(place, "text", prompt, model, *arguments)

    async def _ask(self, place: str, command: str, prompt: str, model: str, *arguments: str) -> Asked:
        home = self.home(f"requester {place}")
        home.key()
        home.join(self.link)
        self.asked += 1
        file = self.folder / f"{command} {self.asked}"
        process = await Process.start(
            *(file.name, self.folder, "peer", command, prompt, "--home", str(home.folder), "--json", "--insecure"),
            *("--model", model, "-o", str(file), *arguments),
            prefix=self.network.prefix(place),
        )
        self.processes.append(process)
        return Asked(process, file, home)

    def home(self, name: str) -> Home:
        """The folder of a peer."""
        return Home(self.folder / name)

    def scrape(self) -> dict[str, Any]:
        """What the tracker shows to anybody."""
        address = self.network[TRACKER].outer4
        connection = http.client.HTTPConnection(address, PORT)
        with contextlib.closing(connection):
            connection.sock = self.network[TRACKER].network.socket(socket.AF_INET, socket.SOCK_STREAM)
            connection.sock.connect((address, PORT))
            if self.link.url.startswith("wss"):
                connection.sock = _UNCHECKED.wrap_socket(connection.sock)
            connection.request("GET", "/scrape")
            found: dict[str, Any] = json.loads(connection.getresponse().read())
            return found


def _is_reached(six: bool, line: dict[str, Any]) -> bool:
    return line.get("event") == "reached" and line["text"].startswith("[") == six


async def _serve(network: Network, folder: Path) -> tuple[Link, Process]:
    """Start the tracker; its link, once it serves."""
    tracker = await Process.start(
        *("tracker", folder, "tracker", "serve", str(folder / "tracker"), "--json-logs"),
        prefix=network.prefix(TRACKER),
    )
    try:
        said = await tracker.line(lambda line: line.get("event") == "serving" and "link" in line)
    except BaseException:
        await tracker.end()
        raise
    return parse_link(said["link"]), tracker
