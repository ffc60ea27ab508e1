"""The honest people of a world: who comes when, and asks for what."""

from __future__ import annotations

import math
from functools import partial

import msgspec

from protocol.documents import Award, Profile, sign
from tests.simulate.stage import BEGIN, DAY, HOUR, LATENCY, SECOND
from tests.simulate.town import Asker, Job, Machine, Town, Worker
from tests.simulate.world import GROUPS, MIX

#: The busiest hour of the day (UTC).
EVENING = 20


class Crowd:
    """Owners with their machines, and everybody who asks."""

    def __init__(self, town: Town, capacity: float) -> None:
        world = town.world
        self.town = town
        self.workers: list[Worker] = []
        self.until = BEGIN + round(world.days * DAY)
        self._accounts: dict[tuple[str, int], Asker] = {}
        mean_batch = sum(world.batches) / len(world.batches)
        self._a_second = world.load * capacity / world.mean_seconds / mean_batch
        self._weights = [weight for weight, _ in MIX]
        self._publics = [public for _, public in MIX]
        self._groups = [world.shares[group] for group in GROUPS]

    def come(self) -> None:
        """Owners stand their machines, and the first request is on its way."""
        world = self.town.world
        for speed in (*world.speeds, *[1.0] * world.givers):
            worker = Worker(self.town, Machine(self.town.stage, speed))
            worker.register()
            worker.stand()
            self.workers.append(worker)
        for worker in self.workers[: len(world.speeds)]:
            self.town.stage.after(SECOND, partial(award_to, worker, world.savings * 1_000))
        self._next()

    def _next(self) -> None:
        """Poisson arrivals whose rate follows the day, by thinning."""
        town, world = self.town, self.town.world
        most = self._a_second * (1 + world.swing)
        moment = town.stage.now
        while True:
            moment += max(1, round(town.chance.expovariate(most) * SECOND))
            if moment >= self.until:
                return
            hour = (moment % DAY) / HOUR
            rate = 1 + world.swing * math.cos((hour - EVENING) / 24 * 2 * math.pi)
            if town.chance.random() * (1 + world.swing) <= rate:
                break
        town.stage.at(moment, self._ask)

    def _ask(self) -> None:
        chance = self.town.chance
        group = chance.choices(GROUPS, self._groups)[0]
        public = chance.choices(self._publics, self._weights)[0]
        public = msgspec.structs.replace(public, n=chance.choice(self.town.world.batches))
        getattr(self, f"_{group}")(public)
        self._next()

    def _anonymous(self, public: msgspec.Struct) -> None:
        block = f"block {self.town.chance.randrange(self.town.world.blocks)}"
        Asker(self.town, "anonymous", block).ask(public, once=True)  # type: ignore[arg-type]

    def _contributors(self, public: msgspec.Struct) -> None:
        self.town.chance.choice(self.workers[: len(self.town.world.speeds)]).ask(public)  # type: ignore[arg-type]

    def _casual(self, public: msgspec.Struct) -> None:
        number = self.town.chance.randrange(self.town.world.casual)
        self._account("casual", number, gift=True).ask(public)  # type: ignore[arg-type]

    def _heavy(self, public: msgspec.Struct) -> None:
        self._account("heavy", self.town.chance.randrange(self.town.world.heavy)).ask(public)  # type: ignore[arg-type]

    def _services(self, public: msgspec.Struct) -> None:
        number = self.town.chance.randrange(self.town.world.services)
        service = self._account("services", number, service=True)
        service.ask(public, user=self.town.chance.randrange(500).to_bytes(16, "big"))  # type: ignore[arg-type]

    def _account(self, group: str, number: int, *, gift: bool = False, service: bool = False) -> Asker:
        """The person of that number, who registers when it comes for the first time."""
        asker = self._accounts.get((group, number))
        if asker is None:
            asker = self._accounts[group, number] = Asker(self.town, group)
            asker.register()
            if service:
                asker.link.present(Profile(version=1, name=f"Service {number}", service=True))
            if gift:
                amount = 1 + self.town.chance.randrange(2_000 * max(1, self.town.world.gift))
                self.town.stage.after(2 * LATENCY, partial(award_to, asker, amount))
        return asker


def award_to(asker: Asker, amount: int) -> None:
    """The operator's award to somebody who has registered. amount: thousandths."""
    stage = asker.stage
    asker.town.awarded += amount
    award = Award(
        nonce=asker.town.chance.randbytes(16),
        valid_until=stage.now + HOUR // 2,
        account=asker.account,
        amount=amount,
        reason="welcome",
    )
    envelope = sign(award, stage.serving, stage.root.public)
    stage.work(stage.store.award(envelope, award, stage.now))


def waits(jobs: list[Job]) -> list[float]:
    """Seconds from request to result, infinite where none came; in order."""
    return sorted((job.done - job.asked) / SECOND if job.done else math.inf for job in jobs)
