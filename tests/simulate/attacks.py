"""Whoever wants more than others: one class for each source of kudos and each limit.

Farms fake the jobs that they ask of themselves: no machine works, but the answer comes only after the time that a
machine of the announced speed would take, since anything faster would show. What other people ask of them, they serve.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial

from protocol.documents import Delegation, Lease
from protocol.messages import Offer
from protocol.work import ImageWork, PublicPart
from tests.simulate.crowd import award_to
from tests.simulate.stage import BEGIN, DAY, HOUR, LATENCY, MINUTE, SECOND
from tests.simulate.town import OFFERS, Asker, Job, Machine, Person, Serving, Town, Worker
from tests.simulate.world import MIX

#: How often a farm looks whether one of its workers has nothing to do.
LOOK = 5 * SECOND
#: So long it leaves off where asking did not lead to itself, and where nothing is minted any more.
PAUSE = 30 * SECOND
DRY = 20 * MINUTE
#: A job of its own that nobody has begun by then is cancelled.
PATIENCE = 2 * SECOND


#: Jobs of others that wait for a split machine, at most: with more of them leases would end before they are done.
SPARE = 3


class Attack:
    """Somebody with a machine. This one is honest, and came with all the others: what farms are compared with."""

    speed = 1.0
    machines_there = 1

    def __init__(self, town: Town) -> None:
        self.town = town
        self.stage = town.stage
        self.machines = [Machine(town.stage, self.speed) for _ in range(self.machines_there)]
        self.owners: list[Person] = []
        self.until = 0

    def come(self) -> None:
        """Begin."""
        self.owners.append(_stand(Worker(self.town, self.machines[0], group="rival")))

    async def kudos(self) -> tuple[float, float]:
        """What it could spend now, and what is withheld of it besides."""
        states = [await self.stage.store.account(one.account, self.stage.now) for one in self.owners]
        return sum(one.balance + one.held for one in states) / 1000, sum(one.withheld for one in states) / 1000

    def gpu_seconds(self, now: int) -> float:
        """For how long its machines have stood in the horde, each second counted by the machine's speed."""
        return sum(machine.speed for machine in self.machines) * (now - BEGIN) / 1000

    def notes(self) -> dict[str, float]:
        """What else is worth knowing of it."""
        busy = sum(machine.busy_ms for machine in self.machines)
        return {"rival_busy": busy / max(1, len(self.machines) * (self.stage.now - BEGIN))}


def _stand(worker: Worker) -> Worker:
    worker.register()
    worker.stand()
    return worker


class FarmWorker(Worker):
    """One of the workers that a farm pretends to have. hides: it is seen only while the farm asks for something that
    it is to get; what it gets of others then is declined while the machine works."""

    def __init__(self, town: Town, farm: Farm, boss: Person, offers: tuple[Offer, ...], *, hides: bool) -> None:
        super().__init__(town, farm.machines[0], group="rival", offers=offers, ahead=0 if hides else None)
        self.hides = hides
        self.boss = boss
        self._farm = farm
        self.pretended = Machine(town.stage, farm.speed)

    def is_own(self, lease: Lease) -> bool:
        """Whether the farm has asked for this itself."""
        return lease.job_key in self._farm.job_keys

    def choose(self, lease: Lease) -> Machine:
        """See `Worker`."""
        return self.pretended if self.is_own(lease) else self._farm.choose(self)

    def is_rubbish(self, lease: Lease) -> bool:
        """See `Worker`."""
        return self._farm.is_rubbish(lease)

    def part(self, lease: Lease, done: float) -> float:
        """See `Worker`."""
        return self._farm.part(done) if self.is_own(lease) else done

    def take(self, serving: Serving) -> None:
        """See `Worker`."""
        if self.hides:
            self.announce(())
        if self._farm.may_decline() and self._farm.refuses(self, serving.lease):
            self._farm.declined += 1
            self._farm.declines[self.stage.now // HOUR] += 1
            self.decline(serving)
        else:
            super().take(serving)

    def stand(self) -> None:
        """See `Worker`."""
        super().stand()
        if self.hides:
            self.announce(())


class FarmAsker(Asker):
    """A throw-away key of a farm."""

    def __init__(self, town: Town, farm: Farm, block: str) -> None:
        super().__init__(town, "rival", block)
        self._farm = farm

    def queued(self, job: Job) -> None:
        """See `Asker`."""
        self.stage.after(PATIENCE, lambda: self._look(job))

    def _look(self, job: Job) -> None:
        if not job.worker and job.handle in self.town.open:
            self._farm.paused_until = self.stage.now + PAUSE
            self.cancel(job)

    def leased(self, job: Job) -> None:
        """Where it has gone to somebody else, or earns nothing, it is called off."""
        if job.worker not in self._farm.workers:
            self._farm.paused_until = self.stage.now + PAUSE
            self.cancel(job)
        elif not job.free and not job.paid:
            self._farm.dry(self._farm.workers[job.worker])
            self.cancel(job)
        else:
            self._farm.faked += 1
            self._farm.begun(self, job)

    def over(self, job: Job) -> None:
        """See `Asker`."""
        self._farm.under_way -= 1


class Farm(Attack):
    """Asks its own worker through throw-away anonymous keys of one address block, whenever it has nothing to do.

    pretended: workers that it announces. blocks: of addresses, that it can ask from. accounts: whether it asks through
    throw-away accounts instead. identities: accounts under which it owns its workers. hides: see `FarmWorker`.
    """

    pretended = 1
    blocks = 1
    accounts = False
    identities = 1
    hides = True
    public: PublicPart = MIX[5][1]

    def __init__(self, town: Town) -> None:
        super().__init__(town)
        self.workers: dict[bytes, FarmWorker] = {}
        self.job_keys: set[bytes] = set()
        self.under_way = 0
        self.faked = 0
        self.asked = 0
        self.declined = 0
        self.declines: Counter[int] = Counter()
        self.dry_until: dict[Person, int] = {}
        self.paused_until = 0
        self._asker: dict[str, FarmAsker] = {}

    def come(self) -> None:
        """See `Attack`."""
        for _ in range(self.identities):
            owner = self.new_owner()
            self.owners.append(owner)
            self.new_worker(owner, hides=len(self.owners) > 1)
            for _ in range(self.pretended - 1):
                self.new_worker(owner, hides=self.hides)
        self.stage.after(MINUTE, self._look)

    def new_owner(self) -> Person:
        """An account that owns workers."""
        owner = Person(self.town)
        owner.register()
        return owner

    def begun(self, asker: FarmAsker, job: Job) -> None:
        """One of its workers has what it asked for."""

    def part(self, part: float) -> float:
        """What it says was done of its own job when that is cancelled."""
        return part

    def choose(self, worker: FarmWorker) -> Machine:
        """Where the work of others is made."""
        return worker.machine

    def is_rubbish(self, lease: Lease) -> bool:
        """Whether it delivers what was not asked for."""
        return False

    def refuses(self, worker: FarmWorker, lease: Lease) -> bool:
        """Whether a worker declines a lease."""
        return worker.hides and not worker.is_own(lease) and len(self.machines[0]) > 0

    def new_worker(self, owner: Person, *, hides: bool) -> FarmWorker:
        """One more worker of this owner, by a delegation."""
        worker = FarmWorker(self.town, self, owner, self.offers(), hides=hides)
        delegation = Delegation(
            nonce=self.town.chance.randbytes(16),
            valid_until=self.stage.now + HOUR // 2,
            delegate=worker.key.public,
            work=True,
        )
        owner.link.present(delegation)
        self.workers[worker.key.public] = worker
        self.stage.after(10 * LATENCY, worker.stand)
        return worker

    def offers(self) -> tuple[Offer, ...]:
        """What its workers serve."""
        return OFFERS

    def dry(self, worker: FarmWorker) -> None:
        """Nothing is minted now for what this one's owner serves."""
        self.dry_until[worker.boss] = self.stage.now + DRY

    def wants(self) -> bool:
        """Whether it asks now."""
        return self.stage.now >= self.paused_until and self.may_decline()

    def may_decline(self) -> bool:
        """Whether turning down one more lease has no consequences."""
        hour = self.stage.now // HOUR
        return self.declines[hour] < self.stage.rules.matching.declines

    def _look(self) -> None:
        if self.stage.now >= self.until:
            return
        if self.wants():
            now = self.stage.now
            idle = [
                worker
                for worker in self.workers.values()
                if not worker.serving and self.dry_until.get(worker.boss, 0) <= now
            ]
            for worker in idle[: max(0, min(16, len(idle) - self.under_way))]:
                if worker.hides:
                    worker.announce(worker.offers)
                self.ask()
                if worker.hides:
                    self.stage.after(SECOND, partial(worker.announce, ()))
        self.stage.after(LOOK, self._look)

    def ask(self) -> None:
        """Ask for something that is to come to itself."""
        self.asked += 1
        self.under_way += 1
        asker = FarmAsker(self.town, self, f"farm block {self.asked % self.blocks}")
        if self.accounts:
            asker.register()
        for job in asker.ask(self.public, once=True):
            self.job_keys.add(job.key.public)

    def notes(self) -> dict[str, float]:
        """See `Attack`."""
        return super().notes() | {"rival_asked": self.asked, "rival_faked": self.faked, "rival_declined": self.declined}


class AccountFarm(Farm):
    """The same through throw-away accounts, which have no kudos."""

    accounts = True


class ModelFarm(Farm):
    """Invents a model that only its own workers have, a hundred of them."""

    pretended = 100
    blocks = 1_000
    public = PublicPart(work=ImageWork(width=768, height=768, steps=30), models=("invented",))

    def offers(self) -> tuple[Offer, ...]:
        """See `Farm`."""
        own = Offer(kind="image", model="invented", engine="simulated", max_pixels=1024 * 1024, max_steps=100)
        return (*OFFERS, own)


class SplitFarm(Farm):
    """Splits one machine into a hundred workers and asks them from many address blocks."""

    pretended = 100
    blocks = 1_000


class OneBlockFarm(SplitFarm):
    """The same, and all of it from one address block."""

    blocks = 1


class Split(Farm):
    """Splits one machine into a hundred workers, and serves what comes; asks for nothing."""

    pretended = 100
    hides = False

    def refuses(self, worker: FarmWorker, lease: Lease) -> bool:
        """More than it can make in time it does not take."""
        return len(self.machines[0]) > SPARE

    def wants(self) -> bool:
        """See `Farm`."""
        return False


class SplitFew(Split):
    """Splits one machine into no more workers than it can serve in time."""

    pretended = 3


class Three(Split):
    """Honest, with three machines under one account."""

    machines_there = 3
    pretended = 3

    def choose(self, worker: FarmWorker) -> Machine:
        """Each worker has a machine of its own."""
        return self.machines[list(self.workers.values()).index(worker)]

    def refuses(self, worker: FarmWorker, lease: Lease) -> bool:
        """Nothing."""
        return False


class HoppingFarm(Farm):
    """Pretends to have a few workers, and asks from a new address block each time."""

    pretended = 10
    blocks = 1_000_000


class MidnightFarm(Farm):
    """Asks a hundred workers for all it can get as soon as the day's mint is fresh."""

    pretended = 100
    blocks = 1_000

    def wants(self) -> bool:
        """See `Farm`."""
        return super().wants() and self.stage.now % DAY < 2 * HOUR


class Twins(Farm):
    """The same person under several accounts, each of which is another owner to the horde."""

    pretended = 20
    blocks = 1_000
    identities = 5


class Circle(Twins):
    """And these accounts pay each other, with what they have earned, for work that they fake."""

    def new_owner(self) -> Person:
        """See `Farm`."""
        owner = FarmAsker(self.town, self, "farm block")
        owner.register()
        return owner

    def _look(self) -> None:
        owner = self.town.chance.choice(self.owners)
        idle = [worker for worker in self.workers.values() if not worker.serving and worker.hides]
        if isinstance(owner, FarmAsker) and owner.under_way < 2 and idle:
            idle[0].announce(idle[0].offers)
            self.under_way += 1
            for job in owner.ask(MIX[6][1]):
                self.job_keys.add(job.key.public)
            self.stage.after(SECOND, partial(idle[0].announce, ()))
        super()._look()


class TwinModels(ModelFarm):
    """Several accounts of one person that serve a model which nobody else has."""

    pretended = 20
    identities = 5


class CancellingFarm(SplitFarm):
    """Cancels what it asked of itself as soon as it has it, and is paid for the part that it says was done."""

    def begun(self, asker: FarmAsker, job: Job) -> None:
        """See `Farm`."""
        self.stage.after(2 * SECOND, lambda: asker.cancel(job))

    def part(self, part: float) -> float:
        """See `Farm`."""
        return 0.95


class PickyFarm(HoppingFarm):
    """Serves only what is paid, and fakes all that is minted."""

    def refuses(self, worker: FarmWorker, lease: Lease) -> bool:
        """See `Farm`."""
        return not worker.is_own(lease) and (lease.paid == 0 or len(self.machines[0]) > 1)


class Renewing(Farm):
    """Comes back as a new owner every half hour, delivers rubbish to everybody, and uses its machine for nothing."""

    pretended = 3
    hides = False

    def come(self) -> None:
        """See `Attack`."""
        super().come()
        self.stage.after(HOUR // 2, self._renew)

    def wants(self) -> bool:
        """See `Farm`."""
        return False

    def _renew(self) -> None:
        for worker in self.workers.values():
            worker.announce(())
        if self.stage.now < self.until:
            self.owners.append(self.new_owner())
            for _ in range(self.pretended):
                self.new_worker(self.owners[-1], hides=False)
            self.stage.after(HOUR // 2, self._renew)

    def choose(self, worker: FarmWorker) -> Machine:
        """See `Farm`."""
        return worker.pretended

    def is_rubbish(self, lease: Lease) -> bool:
        """See `Farm`."""
        return True

    async def kudos(self) -> tuple[float, float]:
        """What is withheld of accounts that it has left is lost to it."""
        spendable, _ = await super().kudos()
        last = await self.stage.store.account(self.owners[-1].account, self.stage.now)
        return spendable, last.withheld / 1000


class Flood(Attack):
    """Wants all for itself: so many jobs are open at any time. block: of whom has no account; kudos: that it has."""

    machines_there = 0
    block = ""
    kudos_there = 0
    open_jobs = 120

    def come(self) -> None:
        """See `Attack`."""
        self.asked = self.most_open = 0
        self._last: list[Job] = []
        self.served: list[Job] = []
        self._account = Asker(self.town, "rival")
        if not self.block:
            self._account.register()
            if self.kudos_there:
                self.stage.after(SECOND, lambda: give(self._account, self.kudos_there))
        self.stage.after(MINUTE, self._look)

    def _look(self) -> None:
        if self.stage.now >= self.until:
            return
        jobs = [job for job in self.served if not job.done and not job.how]
        self.served = jobs
        self.most_open = max(self.most_open, len(jobs))
        refused = [job for job in self._last if job.how and not job.handle]
        if refused and self.stage.now % (10 * MINUTE) >= 30 * SECOND:
            self.stage.after(30 * SECOND, self._look)
            return
        self._last = []
        for _ in range(min(40, self.open_jobs - len(jobs))):
            self.asked += 1
            public = MIX[1][1]
            if self.block:
                self._last += Asker(self.town, "rival", self.block).ask(public, once=True)
            else:
                self._last += self._account.ask(public)
        self.served += self._last
        self.stage.after(30 * SECOND, self._look)

    def gpu_seconds(self, now: int) -> float:
        """It has none."""
        return 1.0

    def notes(self) -> dict[str, float]:
        """See `Attack`."""
        world, seconds = self.town.world, (self.stage.now - BEGIN) / 1000
        taken = sum(world.seconds(job.public) for job in self.town.jobs if job.group == "rival" and job.done)
        share = taken / seconds / world.capacity
        return {"rival_asked": self.asked, "rival_open": self.most_open, "rival_share": share}


class BlockFlood(Flood):
    """Floods from one address block, without an account."""

    block = "flood block"


class AccountFlood(Flood):
    """Floods from an account without kudos."""


class RichFlood(Flood):
    """Floods from an account with more kudos than anybody else."""

    kudos_there = 1_000_000
    open_jobs = 400


class Thief(Attack):
    """Asks, and cancels when nearly all of the result is here."""

    machines_there = 0

    def come(self) -> None:
        """See `Attack`."""
        self._asker = Asker(self.town, "rival")
        self._asker.register()
        self.stage.after(SECOND, lambda: give(self._asker, 100_000))
        self.jobs: list[Job] = []
        self.stage.after(MINUTE, self._ask)

    def _ask(self) -> None:
        if self.stage.now < self.until:
            [job] = self._asker.ask(MIX[5][1])
            self.jobs.append(job)
            self.stage.after(5 * MINUTE, self._ask)
            self.stage.after(10 * SECOND, lambda: self._watch(job))

    def _watch(self, job: Job) -> None:
        if job.how or job.done:
            return
        left = self.town.progress(job)
        if left >= 0.9:
            self._asker.cancel(job)
        else:
            self.stage.after(2 * SECOND, lambda: self._watch(job))

    def gpu_seconds(self, now: int) -> float:
        """It has none."""
        return 1.0

    def notes(self) -> dict[str, float]:
        """How much of what it took it has paid for."""
        cancelled = [job for job in self.jobs if job.how == "cancelled"]
        return {"rival_cancelled": len(cancelled)}


def give(asker: Asker, kudos: int) -> None:
    """The operator's award to somebody who has registered."""
    award_to(asker, kudos * 1_000)


ATTACKS: dict[str, Callable[[Town], Attack]] = {
    "honest": Attack,
    "farm": Farm,
    "accounts": AccountFarm,
    "models": ModelFarm,
    "split": Split,
    "split-few": SplitFew,
    "three": Three,
    "split-farm": SplitFarm,
    "one-block-farm": OneBlockFarm,
    "hops": HoppingFarm,
    "midnight": MidnightFarm,
    "picky": PickyFarm,
    "cancels": CancellingFarm,
    "renews": Renewing,
    "circle": Circle,
    "block-flood": BlockFlood,
    "account-flood": AccountFlood,
    "rich-flood": RichFlood,
    "takes": Thief,
    "twins": Twins,
    "twin-models": TwinModels,
}
