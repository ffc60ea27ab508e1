"""The wait that a job has to expect: what stands in the queue, who is here, and how fast they were seen to be."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from protocol.messages import Offer
from protocol.work import Kind
from tracker.fitting import Constraints
from tracker.matching import Queue, Waiting
from tracker.pool import Crew, Pool, names
from tracker.waits import Speeds, expected, in_turn, units

#: Other kinds of waiting jobs that are looked at for one; with more, the rest is taken to be like these.
RIVALS = 16
#: What is found for jobs that are alike holds for so long.
FRESH_MS = 2_000


@dataclass(frozen=True)
class _Scene:
    """What all jobs with the same constraints meet. rivals: other jobs that go before, as seconds of one worker and the
    part that falls to these workers. running: seconds of work in hand. pace: seconds for one unit of work, None if
    unknown."""

    at: int
    workers: int
    idle: int
    rivals: tuple[tuple[float, float], ...] = ()
    running: float = 0.0
    pace: float | None = None


class Forecast:
    """Expected waits. What it costs does not grow with the number of jobs that wait."""

    def __init__(self, queue: Queue, pool: Pool) -> None:
        self.speeds = Speeds()
        self._queue = queue
        self._pool = pool
        self._scenes: dict[Constraints, _Scene] = {}

    def wait(self, job: Waiting, now: int) -> int:
        """Seconds until a worker takes this job, which waits or might; 0 if nobody can know."""
        scene = self._scenes.get(job.constraints)
        if scene is None or not 0 <= now - scene.at < FRESH_MS:
            scene = self._look(job, now)
            if len(self._scenes) >= 4 * RIVALS:
                self._scenes.clear()
            self._scenes[job.constraints] = scene
        if not scene.workers:
            return 0
        apart = self._in_turn(job, scene)
        if scene.idle and not apart:
            return 1
        if scene.pace is None:
            return 0
        ahead, mean = self._queue.before(job.constraints, (job.rank, job.handle))
        own = ahead * mean * scene.pace
        return max(apart, expected([(own, 1.0), *scene.rivals], scene.running, scene.workers))

    def _in_turn(self, job: Waiting, scene: _Scene) -> int:
        """What a job that a bound of its origin or user keeps back has to wait for that alone; 0 for all others."""
        if not job.carried:
            return 0
        a_job = units(job.work) * (scene.pace or 0)
        return max((in_turn(place, at_once, a_job) for place, at_once in self._queue.lines.turns(job)), default=0)

    def _look(self, job: Waiting, now: int) -> _Scene:
        crews = self._pool.crews(job.constraints)
        workers = sum(len(crew.members) for crew in crews)
        busy = sum(crew.busy for crew in crews)
        kind = job.constraints.kind
        pace = self._pace(kind, crews)
        if pace is None:
            return _Scene(now, workers, workers - busy)
        a_job = units(job.work) * pace
        running = sum(crew.busy * self._a_job(kind, offer, a_job) / 2 for crew, offer in crews.items())
        return _Scene(now, workers, workers - busy, tuple(self._rivals(job, crews, pace)), running, pace)

    def _pace(self, kind: Kind, crews: dict[Crew, Offer]) -> float | None:
        """Seconds that one of these workers takes for a unit of work, on average of those of whom it is known."""
        total, known = 0.0, 0
        for crew, offer in crews.items():
            seconds = self.speeds.seconds((kind, offer.model), 1)
            if seconds is not None:
                total += seconds * len(crew.members)
                known += len(crew.members)
        return total / known if known else None

    def _a_job(self, kind: Kind, offer: Offer, otherwise: float) -> float:
        found = self.speeds.a_job((kind, offer.model))
        return otherwise if found is None else found

    def _rivals(self, job: Waiting, crews: dict[Crew, Offer], pace: float) -> list[tuple[float, float]]:
        """Jobs of other constraints that these workers would serve first."""
        served = {name: None for crew in crews for name in names(crew.announce)}
        others = dict.fromkeys(islice(self._queue.rivals(served), 4 * RIVALS))
        others.pop(job.constraints, None)
        found: list[tuple[float, float]] = []
        for constraints in islice(others, RIVALS):
            ahead, mean = self._queue.before(constraints, (job.rank, job.handle))
            theirs = self._pool.crews(constraints) if ahead else {}
            members = sum(len(crew.members) for crew in theirs)
            if members:
                shared = sum(len(crew.members) for crew in theirs if crew in crews)
                theirs_pace = self._pace(constraints.kind, theirs)
                # Of a kind of work that nobody was seen to do yet, a job is taken to last as long as one of these.
                a_job = units(job.work) * pace if theirs_pace is None else mean * theirs_pace
                found.append((ahead * a_job, shared / members))
        if len(others) > RIVALS:
            rest = len(others) / RIVALS
            found = [(seconds * rest, part) for seconds, part in found]
        return found
