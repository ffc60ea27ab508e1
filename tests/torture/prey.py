"""A horde whose processes can be killed at places: real programs, each behind `tests.torture.launcher`."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil

import protocol
from protocol.links import parse_link
from tests.support.horde import Horde, Process, until
from tests.support.rules import PLAIN_RULES
from tests.support.tap import Tap, tapped
from tests.torture.places import REQUESTER, TRACKER, WORKER
from tests.torture.trap import FAULT, FOLDER, LAUNCH

#: Everything that waits is short here, so that what a killed peer left behind ends soon; but a job that waits for a
#: killed worker to come back has to live as long as that may take on a busy machine.
RULES = """
times.accept = 3
times.open = 3
times.worker_grace = 4
times.restart_grace = 3
times.image_lease = 60
times.text_lease = 60
times.waiting = 20
times.cancel = 1
times.silence = 6
matching.failed_attempts = 20
limits.anonymous_open_jobs = 1000
"""
#: Both workers make pictures and words, for a job that was lost with one goes to another; one is killed, and the other
#: fails at whatever else it takes.
ENGINES = {
    "victim": ("image:model=picture,step_ms=3", "text:model=word,step_ms=3"),
    "other": (
        "image:model=picture,step_ms=3",
        "text:model=word,step_ms=3",
        "text:model=shaky,step_ms=3,fail_at=2",
    ),
}
#: Engines notice at once that their worker is gone; a busy machine may need a moment to end them.
PARTING_S = 15.0
_SOURCE = str(Path(protocol.__file__).parents[1])


class Prey(Horde):
    """A tracker behind a tap, two workers, and requesters on the command line; each with a spare that is loaded."""

    tap: Tap

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.traps = folder / "traps"
        self.traps.mkdir(parents=True, exist_ok=True)
        self.fault = ""
        self.workers_now: dict[str, Process] = {}
        self._count = itertools.count()
        self._spares: dict[str, list[Process]] = {}

    @classmethod
    @asynccontextmanager
    async def hunted(cls, folder: Path, fault: str = "") -> AsyncIterator[Prey]:
        """A horde that serves, peers connecting by way of the tap; nothing of it is left when the block ends."""
        prey = cls(folder)
        prey.fault = fault
        await prey.run("tracker", "init", str(prey.tracker_folder), "--listen", "127.0.0.1:0", "--name", "a prey")
        prey.add_rules(PLAIN_RULES + RULES)
        well = False
        try:
            await prey.serve()
            assert prey.door is not None
            async with tapped(prey.door) as prey.tap:
                prey.link = prey.tap.link
                for name in ENGINES:
                    await prey.enlist(name)
                await prey.workers(len(ENGINES))
                yield prey
            well = True
        finally:
            await asyncio.gather(*(process.end() for process in prey.processes))
            await prey._part(complain=well)

    async def serve(self) -> Process:
        """Start the tracker; after the first time it listens where it did before."""
        listen = [] if self.door is None else ["--listen", self.door.url.removeprefix("ws://")]
        words = (
            "serve",
            str(self.tracker_folder),
            "--json-logs",
            "--log-level",
            "debug",
            "--until-stdin-closes",
            *listen,
        )
        self.tracker = await self._launch(TRACKER, "tracker", *words)
        serving = await self.tracker.line(lambda line: line.get("event") == "serving" and "link" in line)
        self.door = parse_link(serving["link"])
        self.link = self.link or self.door
        return self.tracker

    async def enlist(self, name: str) -> Process:
        """Start one of the workers; it is one of ours as soon as the tracker counts it."""
        self.join(name)
        engines = [word for engine in ENGINES[name] for word in ("--dry-run", engine)]
        words = ("worker", "--home", str(self.folder / name), "--json", "--until-stdin-closes", *engines)
        self.workers_now[name] = await self._launch(WORKER if name == "victim" else "bystander", name, *words)
        return self.workers_now[name]

    async def ask(self, home: str = "asker") -> Process:
        """`potluck text`, by a person with this home."""
        self.join(home)
        words = ("text", "--home", str(self.folder / home), "--json", "--model", "word", "--max-tokens", "6", "a word")
        return await self._launch(REQUESTER, home, *words)

    async def _launch(self, role: str, name: str, *words: str) -> Process:
        """Let a loaded program run, and load the next one."""
        spares = self._spares.setdefault(name, [])
        process = (
            spares.pop() if spares and spares[-1].process.returncode is None else await self._load(role, name, words)
        )
        if role != "bystander" and self.door is not None:
            spares.append(await self._load(role, name, words))
        assert process.process.stdin is not None
        process.process.stdin.write(b"\n")
        return process

    async def _load(self, role: str, name: str, words: tuple[str, ...]) -> Process:
        number = next(self._count)
        environment = {
            "PYTHONPATH": _SOURCE,
            FOLDER: str(self.traps),
            LAUNCH: f"{self.folder}#{number}",
            FAULT: self.fault,
        }
        launch = ("tests.torture.launcher", role, *words)
        process = await Process.start(f"{name}-{number}", self.folder / "logs", *launch, env=environment)
        process.launch = environment[LAUNCH]  # type: ignore[attr-defined]
        self.processes.append(process)
        return process

    async def _part(self, *, complain: bool) -> None:
        """Nothing is left of any process of this horde; what is left is ended, and complained of."""
        try:
            if complain:
                await until(lambda: not list(self.alive()), "processes of the horde are left over", PARTING_S)
        finally:
            for left in self.alive():
                with suppress(psutil.Error):
                    left.kill()

    def alive(self, process: Process | None = None) -> Iterator[psutil.Process]:
        """The processes that were started by a process or its children, or for this horde at all."""
        wanted = process.launch if process is not None else f"{self.folder}#"  # type: ignore[attr-defined]
        for found in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                launch = found.environ().get(LAUNCH, "")
                if found.status() != psutil.STATUS_ZOMBIE and (launch == wanted or (not process and wanted in launch)):
                    yield found

    def engines(self) -> list[psutil.Process]:
        """The engines of the worker that is killed."""
        with suppress(psutil.Error):
            found: list[psutil.Process] = psutil.Process(self.workers_now["victim"].process.pid).children()
            return found
        return []
