"""Kill after kill, and what is checked after each."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from peer.evidence import Evidence
from tests.support.horde import PATIENCE_S, Process, until
from tests.torture import checks
from tests.torture.places import CELLS, ENGINE, RANDOM, RANDOM_CELLS, REQUESTER, TRACKER, WORKER, Cell
from tests.torture.prey import ENGINES, PARTING_S, Prey
from tests.torture.traffic import Traffic
from tests.torture.trap import Arming, arm, disarm

#: A horde serves for so many kills, then a new one takes its place: checks take longer the more is in the ledger.
KILLS_OF_ONE_HORDE = 130
#: The real audit command is run after every so-many-th kill, and at a horde's end.
AUDIT_EVERY = 20
#: Within this time the load passes every place.
PASSING_S = 45.0
#: One round: every place once, and a share of random moments.
ROUND = (*CELLS, *RANDOM_CELLS * 4, *RANDOM_CELLS[:1])
#: The longest that a kill from outside waits for its moment: longer than a burst of the load takes.
MOMENT_S = 0.6

#: What has to go on for a place to be passed.
NEEDED = {
    "position": "waiting",
    "deny": "denied",
    "refunded": "denied",
    "job waiting": "waiting",
    "of cancel": "cancelled",
    "job cancelled": "waiting",
    "ended": "waiting",
    "requeued": "denied",
    "of lease": "denied",
    "withdrawn": "denied",
    "account": "registered",
    "register": "registered",
}


@dataclass(frozen=True)
class Kill:
    """One kill. passing: the how-manieth time that the place is passed. moment: for one from outside, when, from 0 to
    1. special: what goes on besides."""

    number: int
    cell: Cell
    passing: int
    moment: float
    special: str

    def __str__(self) -> str:
        return f"kill {self.number:4}: {self.cell.victim:9} {self.cell.place}"


def plan(seed: int, count: int, cells: Sequence[Cell] = ROUND) -> list[Kill]:
    """So many kills: round after round of the cells, each round in an order of chance; the same for the same seed."""
    kills: list[Kill] = []
    while len(kills) < count:
        chance = random.Random(f"{seed} {len(kills)}")
        order = list(cells)
        chance.shuffle(order)
        kills += [_kill(len(kills) + at, cell, chance) for at, cell in enumerate(order)]
    return kills[:count]


def _kill(number: int, cell: Cell, chance: random.Random) -> Kill:
    fates = ("shaky", "cancelled", "waiting", "denied", "registered", "text")
    needed = next((fate for word, fate in NEEDED.items() if word in cell.place), "")
    # A person's one request passes most places once, and an engine that was killed is loaded once.
    passing = 1 if cell.victim == REQUESTER or cell.place == "loading" else chance.randint(1, 3)
    return Kill(number, cell, passing, chance.random(), needed or chance.choice(fates))


class Failed(Exception):
    """Something did not hold after a kill. The text says which kill, and what; first: of the horde that it was in."""

    def __init__(self, text: str, first: int, last: int) -> None:
        super().__init__(text)
        self.first = first
        self.last = last


@dataclass
class Campaign:
    """Kills by cell so far, over all hordes. tell: takes a line on how it goes."""

    folder: Path
    tell: Callable[[str], None] = lambda line: None
    kills: Counter[Cell] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    fault: str = ""

    async def run(self, kills: Sequence[Kill], hordes: int = 1) -> None:
        """Carry them out, several hordes beside each other; raises `Failed`."""
        size = min(KILLS_OF_ONE_HORDE, -(-len(kills) // hordes))
        parts = [kills[at : at + size] for at in range(0, len(kills), size)]
        waiting = iter(parts)

        async def one_after_the_other() -> None:
            for part in waiting:
                await self._hunt(part)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(hordes):
                    group.create_task(one_after_the_other())
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _hunt(self, kills: Sequence[Kill]) -> None:
        folder = self.folder / f"horde-{kills[0].number}"
        what = "the beginning"
        try:
            async with Prey.hunted(folder, self.fault) as prey:
                async with Traffic.open(prey) as traffic:
                    hunt = _Hunt(prey, traffic)
                    for done, kill in enumerate(kills, 1):
                        what = str(kill)
                        await hunt.kill(kill)
                        if done % AUDIT_EVERY == 0:
                            await hunt.audit()
                        self.kills[kill.cell] += 1
                        self.tell(what)
                    self.outcomes += traffic.outcomes
                what = f"the end, after {what}"
                await hunt.finish()
        except (AssertionError, TimeoutError, ExceptionGroup) as error:
            last = next((kill.number for kill in kills if str(kill) == what), kills[-1].number)
            raise Failed(f"{what}: {_reason(error)}", kills[0].number, last) from error


def _reason(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


class _Hunt:
    """The kills of one horde."""

    def __init__(self, prey: Prey, traffic: Traffic) -> None:
        self._prey = prey
        self._traffic = traffic
        self._copies = 0
        self._serial = 0
        self._told: list[bytes] = []

    async def kill(self, kill: Kill) -> None:
        """Kill, start again what was killed, and check what must hold."""
        prey = self._prey
        bystanders = self._bystanders(kill.cell.victim)
        match kill.cell.victim:
            case "tracker":
                await self._kill_tracker(kill)
            case "worker":
                await self._kill_worker(kill)
            case "engine":
                await self._kill_engine(kill)
            case _:
                await self._kill_requester(kill)
        await self._traffic.fresh()
        await prey.workers(len(ENGINES))
        for process in bystanders:
            assert process.process.returncode is None, f"{process.name} ended too:\n{process.text()[-2000:]}"
        await self._check(checks.copy_in_use)

    def _bystanders(self, victim: str) -> list[Process]:
        prey = self._prey
        assert prey.tracker is not None
        others = [prey.workers_now["other"]]
        if victim != TRACKER:
            others.append(prey.tracker)
        if victim != WORKER:
            others.append(prey.workers_now["victim"])
        return others

    async def _check(self, copied: Callable[[Path, Path], Path]) -> None:
        """The books, and what was told to anybody since the last time."""
        told, self._prey.tap.from_tracker = self._prey.tap.from_tracker, []
        self._told += told
        copy = copied(self._prey.tracker_folder / checks.DATABASE, self._next_folder())
        await asyncio.to_thread(checks.check, copy, told)

    def _next_folder(self) -> Path:
        self._copies += 1
        return self._prey.folder / "copies" / str(self._copies)

    # One victim

    async def _kill_tracker(self, kill: Kill) -> None:
        assert self._prey.tracker is not None
        burst = await self._until_dead(kill, TRACKER, self._prey.tracker)
        await self._check(checks.copy_at_rest)
        await self._prey.serve()
        await burst

    async def _kill_worker(self, kill: Kill) -> None:
        worker = self._prey.workers_now["victim"]
        burst = await self._until_dead(kill, WORKER, worker)
        await until(lambda: not list(self._prey.alive(worker)), "engines outlive their worker", PARTING_S)
        await self._prey.enlist("victim")
        await burst

    async def _kill_requester(self, kill: Kill) -> None:
        prey = self._prey
        self._arm(kill, REQUESTER)
        burst = asyncio.create_task(self._traffic.burst(kill.special))
        asker = await prey.ask()
        if kill.cell.place == RANDOM:
            await asyncio.sleep(kill.moment * MOMENT_S)
            await asker.kill()
        code = await _ended(asker)
        self._disarm(kill, REQUESTER, asker)
        assert code != 0 or kill.cell.place == RANDOM, f"{asker.name} never came to this place:\n{asker.text()[-2000:]}"
        again = await prey.ask()
        code = await _ended(again)
        assert code == 0, f"{again.name} ended with {code}:\n{again.text()[-2000:]}"
        await burst

    async def _kill_engine(self, kill: Kill) -> None:
        if kill.cell.place == RANDOM:
            burst = asyncio.create_task(self._traffic.burst(kill.special))
            await asyncio.sleep(kill.moment * MOMENT_S)
            engines = self._prey.engines()
            engines[int(kill.moment * 1000) % len(engines)].kill()
            await burst
            return
        self._arm(kill, ENGINE)
        if kill.cell.place == "loading":  # which it does when the one before was killed
            self._prey.engines()[0].kill()
        async with asyncio.timeout(PASSING_S):
            while not (self._prey.traps / f"{ENGINE}.sprung").exists():
                await self._traffic.burst(kill.special)
        self._disarm(kill, ENGINE, None)

    async def _until_dead(self, kill: Kill, role: str, process: Process) -> asyncio.Task[None]:
        """Load until the process is dead; the burst that it died in, which goes on."""
        self._arm(kill, role)
        dead = asyncio.create_task(process.process.wait())
        if kill.cell.place == RANDOM:
            burst = asyncio.create_task(self._traffic.burst(kill.special))
            await asyncio.sleep(kill.moment * MOMENT_S)
            await process.kill()
            return burst
        async with asyncio.timeout(PASSING_S):
            while True:
                burst = asyncio.create_task(self._traffic.burst(kill.special))
                await asyncio.wait({burst, dead}, return_when=asyncio.FIRST_COMPLETED)
                if dead.done():
                    break
                await burst
        self._disarm(kill, role, process)
        return burst

    def _arm(self, kill: Kill, role: str) -> None:
        self._serial += 1
        if kill.cell.place != RANDOM:
            arm(self._prey.traps, role, Arming(kill.cell.place, kill.passing, self._serial))

    def _disarm(self, kill: Kill, role: str, process: Process | None) -> None:
        sprung = disarm(self._prey.traps, role)
        if kill.cell.place != RANDOM:
            end = f"\n{process.text()[-3000:]}" if process is not None else ""
            assert sprung, f"the {role} did not die where it should{end}"

    # The end

    async def audit(self) -> None:
        """The real command."""
        report = await self._prey.audit()
        assert report["ok"], report

    async def finish(self) -> None:
        """Every job ends, also of those whose requester was killed; nothing that was said at any time is missing."""
        prey = self._prey
        evidence, root = Evidence(prey.home("asker").results_folder), prey.tap.link.root
        if evidence.unsettled(root):
            async with prey.client("asker"):
                await until(lambda: not evidence.unsettled(root), "a statement was never answered")
        database = prey.tracker_folder / checks.DATABASE

        def left() -> list[tuple[str, str]]:
            return checks.live_jobs(checks.copy_in_use(database, self._next_folder()))

        await until(lambda: not left(), "jobs that never end", PATIENCE_S)
        told = self._told + prey.tap.from_tracker
        await asyncio.to_thread(checks.check, checks.copy_in_use(database, self._next_folder()), told)
        await self.audit()


async def _ended(process: Process) -> int:
    async with asyncio.timeout(PATIENCE_S):
        return await process.process.wait()
