"""Machines, workers and requesters, as they behave who want nothing but to give and to get."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count

from protocol import codec
from protocol.digests import private_digest
from protocol.documents import (
    Acknowledgement,
    Cancel,
    Denial,
    Document,
    Lease,
    PeerRecord,
    Receipt,
    Request,
)
from protocol.envelope import Envelope
from protocol.keys import SigningKey
from protocol.messages import (
    Account,
    Announce,
    Ended,
    Offer,
    Private,
    Progress,
    Queued,
    Refused,
    Register,
    Report,
    SessionMessage,
    Withdrawn,
)
from protocol.work import ImagePrivate, ImageWork, PublicPart, TextPrivate, kind_of
from tests.simulate.stage import HOUR, LATENCY, SECOND, Link, Stage
from tests.simulate.world import PICTURES, TEXTS, World

PRIVATE = {
    "image": codec.encode(ImagePrivate(prompt="a red circle", salt=bytes(32))),
    "text": codec.encode(TextPrivate(prompt="Why is the sky blue?", salt=bytes(32))),
}
OFFERS = (
    Offer(kind="image", model=PICTURES, engine="simulated", max_pixels=1024 * 1024, max_steps=100),
    Offer(kind="text", model=TEXTS, engine="simulated", max_tokens=512, max_context=8192),
)
OUTPUT = bytes(32)


@dataclass(eq=False)
class Job:
    """One result that somebody wants. group: of whom. asked, done: when, ms; done is when the result was there. how:
    it ended, if it ended without one. worker: who has it."""

    group: str
    public: PublicPart
    asked: int
    key: SigningKey
    handle: bytes = b""
    done: int = 0
    how: str = ""
    worker: bytes = b""
    lease: Lease | None = None
    paid: int = 0
    free: int = 0


class Town:
    """Who is there, and what was asked for."""

    def __init__(self, stage: Stage, world: World) -> None:
        self.stage = stage
        self.world = world
        self.chance = random.Random(f"{stage.seed} town")
        self.jobs: list[Job] = []
        self.by_handle: dict[bytes, Job] = {}
        self.made: dict[bytes, Serving] = {}
        self.open: dict[bytes, Asker] = {}
        self.awarded = 0  # thousandths, by the operator
        self._labels = count()

    def progress(self, job: Job) -> float:
        """What part of a job is made, as who reads its stream can see."""
        serving = self.made.get(job.handle)
        if serving is None or serving.task is None or not serving.task.begun:
            return 0.0
        return min(1.0, (self.stage.now - serving.task.begun) / (serving.task.seconds * SECOND))

    def new_key(self) -> SigningKey:
        """A key that nobody has."""
        return self.stage.new_key(next(self._labels))


@dataclass(eq=False)
class _Task:
    """Work on a machine. seconds: at its speed. begun: when, 0 while it waits."""

    seconds: float
    done: Callable[[], None]
    begun: int = 0
    is_dropped: bool = False


class Machine:
    """One GPU: does one thing after the other."""

    def __init__(self, stage: Stage, speed: float) -> None:
        self.speed = speed
        self.busy_ms = 0
        self._stage = stage
        self._tasks: deque[_Task] = deque()

    @property
    def is_idle(self) -> bool:
        """Whether it has nothing to do."""
        return not self._tasks

    def __len__(self) -> int:
        return len(self._tasks)

    def begin(self, seconds: float, done: Callable[[], None]) -> _Task:
        """Take up so many seconds' work (at speed 1), as soon as the rest is done."""
        task = _Task(seconds / self.speed, done)
        self._tasks.append(task)
        if len(self._tasks) == 1:
            self._start()
        return task

    def drop(self, task: _Task) -> float:
        """Leave off; what part of it was done."""
        task.is_dropped = True
        if not self._tasks or self._tasks[0] is not task:
            if task in self._tasks:
                self._tasks.remove(task)
            return 0.0
        spent = self._stage.now - task.begun
        self._next(spent)
        return min(1.0, spent / (task.seconds * SECOND))

    def _start(self) -> None:
        task = self._tasks[0]
        task.begun = self._stage.now
        self._stage.after(round(task.seconds * SECOND), partial(self._end, task))

    def _end(self, task: _Task) -> None:
        if not task.is_dropped:
            self._next(round(task.seconds * SECOND))
            task.done()

    def _next(self, spent: int) -> None:
        self.busy_ms += spent
        self._tasks.popleft()
        if self._tasks:
            self._start()


class Person:
    """Anybody with a connection. account: its number, 0 if it has none."""

    def __init__(self, town: Town, block: str = "203.0.113.0/24", key: SigningKey | None = None) -> None:
        self.town = town
        self.stage = town.stage
        self.key = key or town.new_key()
        self.account = 0
        self.link = Link(town.stage, self.key, block, self.hear)

    def register(self) -> None:
        """Ask for an account; what comes after waits for it by itself."""
        self.link.say(Register())

    def hear(self, said: SessionMessage | Document) -> None:
        """Whatever the tracker says."""
        if isinstance(said, Account):
            self.account = said.number


class Asker(Person):
    """Somebody who asks, and acknowledges what comes."""

    def __init__(self, town: Town, group: str, block: str = "203.0.113.0/24", key: SigningKey | None = None) -> None:
        super().__init__(town, block, key)
        self.group = group
        self.under_way = 0
        self.is_leaving = False
        self._requests: dict[bytes, list[Job]] = {}

    def ask(self, public: PublicPart, *, user: bytes = b"", once: bool = False) -> list[Job]:
        """Ask for something. once: and hang up when it is over."""
        town, now = self.town, self.stage.now
        private = PRIVATE[kind_of(public.work)]
        job_key = self.key if once else town.new_key()
        request = Request(
            nonce=town.chance.randbytes(16),
            valid_until=now + HOUR // 2,
            public=public,
            private_digest=private_digest(private),
            job_key=job_key.public,
            user=user,
        )
        self.link.say(Private(private=private))
        jobs = [Job(self.group, public, now, job_key) for _ in range(public.n)]
        self._requests[self.link.present(request).digest] = jobs
        town.jobs += jobs
        self.under_way += public.n
        self.is_leaving = once
        return jobs

    def cancel(self, job: Job) -> None:
        """Want it no more."""
        nonce = self.town.chance.randbytes(16)
        cancel = Cancel(nonce=nonce, valid_until=self.stage.now + HOUR // 2, job=job.handle)
        self.link.present(cancel, job.key)

    def hear(self, said: SessionMessage | Document) -> None:
        """See `Person`."""
        match said:
            case Queued():
                for job, handle in zip(self._requests.pop(said.request), said.jobs, strict=True):
                    job.handle = handle
                    self.town.by_handle[handle] = job
                    self.town.open[handle] = self
                    self.queued(job)
            case Lease():
                job = self.town.by_handle[said.job]
                job.worker, job.lease, job.paid, job.free = said.worker, said, said.paid, said.free
                self.leased(job)
            case Ended():
                job = self.town.by_handle[said.job]
                if not job.done:
                    job.how = said.state
                self._over(job)
            case Refused() if said.about in self._requests:
                for job in self._requests.pop(said.about):
                    job.how = said.code
                    self._over(job)
            case _:
                super().hear(said)

    def _over(self, job: Job) -> None:
        if self.town.open.pop(job.handle, None) is None and job.handle:
            return
        self.under_way -= 1
        self.over(job)
        if self.is_leaving and not self.under_way:
            self.stage.after(LATENCY, self.link.hang_up)

    def got(self, job: Job, receipt: Envelope, said: Receipt, *, rubbish: bool) -> None:
        """A result is here."""
        if job.handle not in self.town.open:
            return
        job.done = self.stage.now
        if rubbish and self.town.chance.randrange(1000) < self.town.world.checks:
            job.done, job.how = 0, "denied"
            denial = Denial(job=said.job, attempt=said.attempt, reason="rubbish", receipt=receipt.raw)
            self.link.present(denial, job.key)
        else:
            acknowledgement = Acknowledgement(
                job=said.job, attempt=said.attempt, output_digest=said.output_digest, receipt=receipt.raw
            )
            self.link.present(acknowledgement, job.key)
        self._over(job)

    def got_part(self, job: Job) -> None:
        """What was made of a job that is not wanted any more; it is settled without a word."""
        if job.handle in self.town.open:
            job.how = "cancelled"
            self._over(job)

    def queued(self, job: Job) -> None:
        """The job is taken in."""

    def leased(self, job: Job) -> None:
        """Somebody serves it."""

    def over(self, job: Job) -> None:
        """It has ended, or was refused."""


@dataclass(eq=False)
class Serving:
    """A lease at its worker. machine: where it is made, if it has come so far."""

    lease: Lease
    machine: Machine | None = None
    task: _Task | None = None
    is_over: bool = False


class Worker(Asker):
    """Serves what it gets, on one machine, in the order in which it came; and may ask as well."""

    def __init__(
        self,
        town: Town,
        machine: Machine,
        *,
        group: str = "contributors",
        offers: tuple[Offer, ...] = OFFERS,
        ahead: int | None = None,
    ) -> None:
        super().__init__(town, group)
        self.machine = machine
        self.offers = offers
        self.ahead = town.world.ahead if ahead is None else ahead
        self.serving: dict[tuple[bytes, int], Serving] = {}
        self.served = 0
        self.made_ms = 0.0

    def stand(self) -> None:
        """Show where it is reached and what it serves. It has an account already, or asks for one just now."""
        self.link.present(PeerRecord(version=1, certificate=bytes(32), addresses=("127.0.0.1:8443",)))
        self.announce(self.offers)

    def announce(self, offers: tuple[Offer, ...]) -> None:
        """Say what it serves from now on."""
        self.link.say(Announce(offers=offers, slots=1, ahead=self.ahead))

    def hear(self, said: SessionMessage | Document) -> None:
        """See `Person`."""
        if isinstance(said, Lease) and said.worker == self.key.public:
            if said.job in self.town.by_handle and self.town.open.get(said.job) is self:
                super().hear(said)
            known = self.serving.get((said.job, said.attempt))
            if known is None:
                serving = self.serving[said.job, said.attempt] = Serving(said)
                self.stage.after(self.town.world.accept, lambda: self.take(serving))
        elif isinstance(said, Withdrawn):
            self._withdrawn(said)
        else:
            super().hear(said)

    def take(self, serving: Serving) -> None:
        """Accept a lease, be opened, begin."""
        if serving.is_over:
            return
        self.report(serving, "accepted")
        self.stage.after(self.town.world.open, lambda: self._opened(serving))

    def decline(self, serving: Serving) -> None:
        """Do not take a lease."""
        self._end(serving)
        self.report(serving, "declined")

    def report(self, serving: Serving, state: str) -> None:
        """Say how far it is."""
        lease = serving.lease
        progress = Progress(job=lease.job, attempt=lease.attempt, state=state, reason="")  # type: ignore[arg-type]
        self.link.say(Report(leases=(progress,)))

    def _opened(self, serving: Serving) -> None:
        if serving.is_over:
            return
        self.report(serving, "opened")
        world, chance = self.town.world, self.town.chance
        seconds = world.seconds(serving.lease.public) * chance.lognormvariate(-(world.noise**2) / 2, world.noise)
        serving.machine = self.choose(serving.lease)
        self.town.made[serving.lease.job] = serving
        serving.task = serving.machine.begin(seconds, lambda: self.finish(serving))

    def choose(self, lease: Lease) -> Machine:
        """The machine on which this is made."""
        return self.machine

    def is_rubbish(self, lease: Lease) -> bool:
        """Whether what it delivers is not what was asked for."""
        return False

    def finish(self, serving: Serving) -> None:
        """Deliver all of it."""
        work = serving.lease.public.work
        self._deliver(serving, work.steps if isinstance(work, ImageWork) else work.max_tokens, partial=False)

    def _deliver(self, serving: Serving, used: int, *, partial: bool) -> None:
        lease = serving.lease
        receipt = Receipt(
            job=lease.job,
            attempt=lease.attempt,
            output_digest=OUTPUT,
            used=used,
            context_used=0 if isinstance(lease.public.work, ImageWork) else used,
            partial=partial,
            engine="simulated",
            finished=self.stage.now,
        )
        self._end(serving)
        self.served += 1
        envelope = self.link.present(receipt)
        job, asker = self.town.by_handle.get(lease.job), self.town.open.get(lease.job)
        if job is not None and asker is not None:
            rubbish = self.is_rubbish(lease)
            if partial:
                self.stage.after(LATENCY, lambda: asker.got_part(job))
            else:
                self.stage.after(LATENCY, lambda: asker.got(job, envelope, receipt, rubbish=rubbish))

    def _withdrawn(self, said: Withdrawn) -> None:
        serving = self.serving.get((said.job, said.attempt))
        if serving is None or serving.is_over:
            return
        if said.reason != "cancelled":
            self._stop(serving)
            self._end(serving)
            return
        work = serving.lease.public.work
        most = work.steps if isinstance(work, ImageWork) else work.max_tokens
        done = self.part(serving.lease, self._stop(serving))
        self._deliver(serving, int(most * done), partial=True)

    def part(self, lease: Lease, done: float) -> float:
        """What it says was done of a job that is not wanted any more."""
        return done

    def _stop(self, serving: Serving) -> float:
        if serving.machine is None or serving.task is None:
            return 0.0
        return serving.machine.drop(serving.task)

    def _end(self, serving: Serving) -> None:
        serving.is_over = True
        self.town.made.pop(serving.lease.job, None)
        self.serving.pop((serving.lease.job, serving.lease.attempt), None)
