"""A tracker under strace: which bytes it wrote, synced and sent, in which order."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from protocol.links import parse_link
from tests.support.horde import Horde, Process

WRITES = ("write", "writev", "pwrite64", "pwritev", "sendto", "sendmsg")
REPOSITORY = Path(__file__).parents[2]
SYNCS = ("fdatasync", "fsync")


@dataclass
class Call:
    """One system call. begun, ended: its places in the order of all beginnings and endings; ended is 0 while it has
    not. file: what its descriptor stands for."""

    name: str
    file: str
    content: bytes
    begun: int
    ended: int = 0
    result: str = ""

    @property
    def is_to_socket(self) -> bool:
        """Whether it sends."""
        return self.name in WRITES and self.file.startswith(("socket:", "TCP"))

    def is_write_to(self, path: Path) -> bool:
        """Whether it writes to this file."""
        return self.name in WRITES and self.file == str(path)

    def is_sync_of(self, path: Path) -> bool:
        """Whether it makes this file durable, and did."""
        return self.name in SYNCS and self.file == str(path) and self.result == "0"


def strace() -> str | None:
    """Where the program is, if it is here."""
    return shutil.which("strace")


class TracedHorde(Horde):
    """A horde whose tracker runs under strace."""

    #: What is run as the tracker.
    tracker_module = "tracker"

    @property
    def record(self) -> Path:
        """What strace wrote."""
        return self.folder / "strace.out"

    async def serve(self) -> Process:
        """Start the tracker; -D makes the tracer the grandchild, so that signals go to the tracker itself."""
        program = strace()
        assert program is not None
        calls = ",".join((*WRITES, *SYNCS))
        options = ["-D", "-f", "-qq", "-y", "-xx", "-s", "1000000", "-e", f"trace={calls}", "-o", str(self.record)]
        output = self.folder / "tracker.out"
        with output.open("ab") as file:
            process = await asyncio.create_subprocess_exec(
                program,
                *options,
                sys.executable,
                "-m",
                self.tracker_module,
                "serve",
                str(self.tracker_folder),
                "--json-logs",
                stdin=asyncio.subprocess.PIPE,
                stdout=file,
                stderr=file,
                env={**os.environ, "NO_COLOR": "1", "PYTHONPATH": str(REPOSITORY)},
                start_new_session=True,
            )
        self.tracker = Process("tracker", process, output)
        self.processes.append(self.tracker)
        serving = await self.tracker.line(lambda line: line.get("event") == "serving" and "link" in line)
        self.door = self.link = parse_link(serving["link"])
        return self.tracker

    def calls(self) -> list[Call]:
        """Every call in the order of their beginnings, once the tracker has ended."""
        return list(read_calls(self.record.read_text("ascii").splitlines()))


_BEGUN = re.compile(r"(?P<thread>\d+) +(?P<name>\w+)\((?P<rest>.*)")
_RESUMED = re.compile(r"(?P<thread>\d+) +<\.\.\. \w+ resumed>(?P<rest>.*)")
_FILE = re.compile(r"\d+<((?:\\x[0-9a-f]{2}|[^>])*)>")
_RESULT = re.compile(r"= (-?\d+)[^=]*$")
_BYTES = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


def read_calls(lines: Sequence[str]) -> Iterator[Call]:
    """The calls in what strace wrote with -f -y -xx."""
    under_way: dict[str, Call] = {}
    for place, line in enumerate(lines, 1):
        if resumed := _RESUMED.match(line):
            call = under_way.pop(resumed["thread"], None)
            if call is not None:
                _end(call, resumed["rest"], place)
            continue
        begun = _BEGUN.match(line)
        if begun is None:
            continue
        found = _FILE.search(begun["rest"])
        content = b"".join(bytes.fromhex(part.replace("\\x", "")) for part in _BYTES.findall(begun["rest"]))
        call = Call(begun["name"], _unhex(found[1]) if found else "", content, place)
        if begun["rest"].endswith("<unfinished ...>"):
            under_way[begun["thread"]] = call
        else:
            _end(call, begun["rest"], place)
        yield call


def _end(call: Call, rest: str, place: int) -> None:
    result = _RESULT.search(rest)
    call.ended, call.result = place, result[1] if result else ""


def _unhex(text: str) -> str:
    return re.sub(r"(?:\\x[0-9a-f]{2})+", lambda found: bytes.fromhex(found[0].replace("\\x", "")).decode(), text)


# A log of SQLite is a header and frames: 24 bytes that say which page follows, then the page. Where the second number
# in them is not zero, the frame is the last of a transaction.

FRAME_HEADER_BYTES = 24


@dataclass(frozen=True)
class Frame:
    """One page written to the log."""

    page: Call
    commits: bool


def frames(calls: Sequence[Call], log: Path) -> list[Frame]:
    """All frames in the order in which they were written."""
    found: list[Frame] = []
    commits = False
    for call in calls:
        if not call.is_write_to(log):
            continue
        if len(call.content) == FRAME_HEADER_BYTES:
            commits = any(call.content[4:8])
        elif len(call.content) > FRAME_HEADER_BYTES:
            found.append(Frame(call, commits))
    return found


def durable_from(calls: Sequence[Call], log: Path, parts: Sequence[bytes]) -> int | None:
    """From which place in the order on the transaction that wrote any of `parts` first is durable; None if never."""
    written = frames(calls, log)
    holding = [number for number, frame in enumerate(written) if any(part in frame.page.content for part in parts)]
    if not holding:
        return None
    last = next((frame for frame in written[holding[0] :] if frame.commits), None)
    if last is None:
        return None
    return next((call.ended for call in calls if call.is_sync_of(log) and call.begun > last.page.ended), None)


def sends(calls: Sequence[Call], parts: Sequence[bytes]) -> list[Call]:
    """Every send of any of `parts`."""
    return [call for call in calls if call.is_to_socket and any(part in call.content for part in parts)]
