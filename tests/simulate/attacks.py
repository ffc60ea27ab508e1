"""Whoever wants more than others: one class for each source of kudos and each limit."""

from __future__ import annotations

from tests.simulate.stage import BEGIN
from tests.simulate.town import Machine, Town, Worker


class Attack:
    """Somebody with a machine. This one is honest, and came with all the others: what farms are compared with."""

    speed = 1.0

    def __init__(self, town: Town) -> None:
        self.town = town
        self.stage = town.stage
        self.machines = [Machine(town.stage, self.speed)]
        self.owners: list[Worker] = []
        self.until = 0

    def come(self) -> None:
        """Begin."""
        worker = Worker(self.town, self.machines[0])
        worker.register()
        worker.stand()
        self.owners.append(worker)

    async def kudos(self) -> tuple[float, float]:
        """What it could spend now, and what is withheld of it besides."""
        states = [await self.stage.store.account(one.account, self.stage.now) for one in self.owners]
        return sum(one.balance + one.held for one in states) / 1000, sum(one.withheld for one in states) / 1000

    def gpu_seconds(self, now: int) -> float:
        """For how long its machines have stood in the horde, each second counted by the machine's speed."""
        return sum(machine.speed for machine in self.machines) * (now - BEGIN) / 1000

    def notes(self) -> dict[str, float]:
        """What else is worth knowing of it."""
        return {"rival_busy": self.machines[0].busy_ms / max(1, self.stage.now - BEGIN)}
