"""The workers that are here, and the draw of one of them for a job.

Workers that announced the same form a crew. Whether a crew can serve a job is judged once for all of it, and each crew
knows which of its workers are idle. So a draw costs the same however many workers there are, idle or busy.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

import msgspec

from protocol.messages import Announce, Offer
from protocol.work import Kind
from tracker.fitting import Constraints, Judged, Reason, fitting_offers, judge
from tracker.matching import NOBODY, Named, Terms, Waiting, Worker, why_not, why_not_pair, why_not_terms

#: How many owners of a crew, workers of an owner, or busy workers are looked at for one job.
DRAW = 64

T = TypeVar("T")


@dataclass
class Served:
    """How much of something is served: by how many workers with how many slots, and the largest job that any takes.
    paused: workers besides, who serve their own account alone."""

    workers: int = 0
    slots: int = 0
    paused: int = 0
    max_pixels: int = 0
    max_steps: int = 0
    max_tokens: int = 0
    max_context: int = 0

    def count(self, crew: Crew) -> None:
        """The workers of this crew serve it too, or would if they were not paused."""
        if crew.announce.paused:
            self.paused += len(crew.members)
        else:
            self.workers += len(crew.members)
            self.slots += crew.slots

    def reach(self, offer: Offer) -> None:
        """Jobs as large as this are taken."""
        self.max_pixels = max(self.max_pixels, offer.max_pixels)
        self.max_steps = max(self.max_steps, offer.max_steps)
        self.max_tokens = max(self.max_tokens, offer.max_tokens)
        self.max_context = max(self.max_context, offer.max_context)


class _Bag(Generic[T]):
    """Things without an order, from which some can be taken at random whatever their number."""

    def __init__(self) -> None:
        self._things: list[T] = []
        self._places: dict[T, int] = {}

    def __len__(self) -> int:
        return len(self._things)

    def __contains__(self, thing: T) -> bool:
        return thing in self._places

    def add(self, thing: T) -> None:
        if thing not in self._places:
            self._places[thing] = len(self._things)
            self._things.append(thing)

    def discard(self, thing: T) -> None:
        place = self._places.pop(thing, None)
        if place is None:
            return
        last = self._things.pop()
        if place < len(self._things):
            self._things[place] = last
            self._places[last] = place

    def sample(self, count: int, chance: random.Random) -> list[T]:
        """Up to so many of them, in random order."""
        return chance.sample(self._things, min(count, len(self._things)))


class Crew:
    """Workers that announced the same. Those in none of `idle` and `spare` are full."""

    def __init__(self, announce: Announce) -> None:
        self.announce = announce
        self.judged: Judged = {}
        self.members: set[bytes] = set()
        self.slots = 0  # of all of them together, who need not have as many each
        self.busy = 0  # how many of them are not idle
        self.owners: _Bag[int] = _Bag()  # with an idle worker
        self.idle: dict[int, _Bag[bytes]] = {}
        self.spare: dict[bytes, None] = {}  # busy, and take a lease ahead; in the order in which they became so
        self.owned: Counter[int] = Counter()  # how many members each owner has

    def fitting(self, constraints: Constraints) -> tuple[Offer, ...] | Reason:
        """What `fitting_offers` finds, once for the crew and all its workers (`Worker.fitting`)."""
        return judge(self.judged, constraints, self.announce)

    @property
    def has_room(self) -> bool:
        """Whether any of its workers takes another lease."""
        return bool(self.owners or self.spare)

    def leave(self, worker: Worker) -> None:
        self.spare.pop(worker.key, None)
        workers = self.idle.get(worker.owner)
        self.busy -= workers is None or worker.key not in workers
        if workers is not None:
            workers.discard(worker.key)
            if not workers:
                del self.idle[worker.owner]
                self.owners.discard(worker.owner)

    def enter(self, worker: Worker) -> None:
        if worker.is_idle:
            self.idle.setdefault(worker.owner, _Bag()).add(worker.key)
            self.owners.add(worker.owner)
            return
        self.busy += 1
        if worker.has_room:
            self.spare[worker.key] = None


class Pool:
    """The workers that are here. Their leases change through it alone."""

    def __init__(self) -> None:
        self.workers: dict[bytes, Worker] = {}
        self._crews: dict[Announce, Crew] = {}
        self._crew_of: dict[bytes, Crew] = {}
        self._by_model: dict[tuple[Kind, str], dict[Crew, None]] = {}
        self._of_owner: dict[int, dict[bytes, None]] = {}
        self._declining: dict[int, dict[bytes, None]] = {}  # workers that do not serve an account
        self._settled: Counter[int] = Counter()
        self._leases: Counter[int] = Counter()  # how many the workers of each owner have or are about to get
        self.changes = 0  # how often workers came, left or announced something else
        self.resting: set[int] = set()  # owners who turned down too much: their workers get nothing meanwhile

    # Who is here

    def announce(
        self, key: bytes, owner: int, announce: Announce, leases: Iterable[tuple[bytes, int]], named: Named = NOBODY
    ) -> Worker:
        """A worker is here, or has changed its mind about what it serves."""
        worker = self.workers.get(key)
        if worker is None:
            worker = Worker(key, owner, announce, set(leases))
        else:
            self.remove(key)
            worker.owner, worker.announce = owner, announce
        worker.named = named
        self.changes += 1
        self.workers[key] = worker
        self._of_owner.setdefault(owner, {})[key] = None
        for account in named.declined:
            self._declining.setdefault(account, {})[key] = None
        alike = _alike(announce)
        crew = self._crews.get(alike)
        if crew is None:
            crew = self._crews[alike] = Crew(announce)
            for name in names(announce):
                self._by_model.setdefault(name, {})[crew] = None
        worker.judged = crew.judged
        self._crew_of[key] = crew
        crew.members.add(key)
        crew.slots += announce.slots
        crew.owned[owner] += 1
        crew.enter(worker)
        self._count(owner, worker.load)
        return worker

    def remove(self, key: bytes) -> None:
        """A worker is gone."""
        worker = self.workers.pop(key, None)
        if worker is None:
            return
        self.changes += 1
        _drop(self._of_owner, worker.owner, key)
        for account in worker.named.declined:
            _drop(self._declining, account, key)
        crew = self._crew_of.pop(key)
        crew.leave(worker)
        self._count(worker.owner, -worker.load)
        crew.members.discard(key)
        crew.slots -= worker.announce.slots
        crew.owned[worker.owner] -= 1
        if not crew.owned[worker.owner]:
            del crew.owned[worker.owner]
        if crew.members:
            return
        del self._crews[_alike(crew.announce)]
        for name in names(crew.announce):
            del self._by_model[name][crew]
            if not self._by_model[name]:
                del self._by_model[name]

    def models(self, kind: Kind) -> list[str]:
        """The models that somebody here serves."""
        return sorted(model for of, model in self._by_model if of == kind and model)

    def swarms(self) -> dict[tuple[Kind, str], Served]:
        """How each model is served."""
        found: dict[tuple[Kind, str], Served] = {}
        for name, crews in self._by_model.items():
            if name[1] and crews:
                served = found[name] = Served()
                for crew in crews:
                    served.count(crew)
        for crew in self._crews.values():
            for offer in crew.announce.offers:
                served = found[offer.kind, offer.model]
                if not crew.announce.paused or not served.workers:
                    served.reach(offer)
        return found

    def paused(self) -> int:
        """How many workers serve their own account alone."""
        return sum(len(crew.members) for crew in self._crews.values() if crew.announce.paused)

    def alike(self) -> int:
        """What `swarms` has to count: crews, each as often as it has models. Workers that announced the same are one
        crew."""
        return sum(map(len, self._by_model.values()))

    def kinds(self) -> dict[Kind, Served]:
        """By how many workers each kind of work is served."""
        found: dict[Kind, Served] = {"image": Served(), "text": Served()}
        for kind, served in found.items():
            for crew in self._by_model.get((kind, ""), {}):
                served.count(crew)
        return found

    # What they have to do

    def promise(self, worker: Worker) -> None:
        """A lease for this worker is being committed."""
        worker.promised += 1
        self._moved(worker, 1)

    def promise_over(self, worker: Worker) -> None:
        """That lease is committed, or is not to be."""
        worker.promised -= 1
        self._moved(worker, -1)

    def took(self, key: bytes, lease: tuple[bytes, int]) -> None:
        """A worker has this lease."""
        worker = self.workers.get(key)
        if worker is not None and lease not in worker.leases:
            worker.leases.add(lease)
            self._moved(worker, 1)

    def released(self, key: bytes, lease: tuple[bytes, int]) -> None:
        """A worker has this lease no more."""
        worker = self.workers.get(key)
        if worker is not None and lease in worker.leases:
            worker.leases.discard(lease)
            self._moved(worker, -1)

    def _moved(self, worker: Worker, by: int) -> None:
        if self.workers.get(worker.key) is worker:
            crew = self._crew_of[worker.key]
            crew.leave(worker)
            crew.enter(worker)
            self._count(worker.owner, by)

    def _count(self, owner: int, by: int) -> None:
        self._leases[owner] += by
        if not self._leases[owner]:
            del self._leases[owner]

    def count_settled(self, owner: int) -> None:
        """An owner's workers get work in proportion to what they have finished."""
        self._settled[owner] += 1

    # Who gets a job

    def draw(self, job: Waiting, terms: Terms, chance: random.Random) -> tuple[Worker, Offer] | None:
        """A worker for this job: an idle one of the account that asks; else an idle one by draw (first the owner, of
        those whose workers have the fewest leases, weighted by what it has settled; then the worker), else a busy one
        that takes leases ahead and has the fewest. A machine that is split into many workers is never idle: what its
        owner has already tells."""
        own = self.draw_own(job, terms)
        if own is not None and own[0].is_idle:
            return own
        crews = list(self._fitting(job, terms, with_room=True))
        return self._draw_idle(job, crews, chance) or self._least_busy(job, crews) or own

    def draw_own(self, job: Waiting, terms: Terms) -> tuple[Worker, Offer] | None:
        """A worker of the account that asks, which serves it before others and whatever it serves otherwise: an idle
        one, else one that takes leases ahead."""
        found: list[tuple[Worker, Offer]] = []
        for key in islice(self._of_owner.get(job.payer, ()), DRAW):
            worker = self.workers[key]
            offers = fitting_offers(job.constraints, worker.announce, own=True) if worker.has_room else ()
            offer = None if isinstance(offers, Reason) else why_not_pair(job, worker, offers, terms, own=True)
            if isinstance(offer, Offer):
                found.append((worker, offer))
        return min(found, key=lambda pair: (not pair[0].is_idle, pair[0].load), default=None)

    def _fitting(self, job: Waiting, terms: Terms, *, with_room: bool = False) -> Iterator[tuple[Crew, Offer]]:
        """The crews that can serve the job, of all or of those with room. Many jobs may be looked at in vain one after
        the other, so that the cheapest question comes first."""
        seen: set[Crew] = set()
        for model in job.constraints.models or ("",):
            for crew in self._by_model.get((job.constraints.kind, model), {}):
                if crew in seen or (with_room and not crew.has_room):
                    continue
                seen.add(crew)
                offers = crew.fitting(job.constraints)
                if isinstance(offers, Reason):
                    continue
                offer = why_not_terms(job, crew.announce, offers, terms)
                if isinstance(offer, Offer):
                    yield crew, offer

    def _draw_idle(
        self, job: Waiting, crews: list[tuple[Crew, Offer]], chance: random.Random
    ) -> tuple[Worker, Offer] | None:
        passed_over = job.excluded.union(self._declining.get(job.payer, ()))
        enough = DRAW + len(passed_over)
        owners = {owner for crew, _ in crews for owner in crew.owners.sample(enough, chance)}
        owners -= self.resting
        while owners:
            fewest = min(self._leases[owner] for owner in owners)
            names = sorted(owner for owner in owners if self._leases[owner] == fewest)
            owner = chance.choices(names, [1 + self._settled[name] for name in names])[0]
            owners.discard(owner)
            fits = [
                (self.workers[key], offer)
                for crew, offer in crews
                if owner in crew.idle
                for key in crew.idle[owner].sample(enough, chance)
                if key not in passed_over
            ]
            if fits:
                return chance.choice(fits)
        return None

    def _least_busy(self, job: Waiting, crews: list[tuple[Crew, Offer]]) -> tuple[Worker, Offer] | None:
        fits: list[tuple[Worker, Offer]] = []
        passed_over = job.excluded.union(self._declining.get(job.payer, ()))
        for crew, offer in crews:
            looked_at = 0
            for key in crew.spare:
                if key not in passed_over and self.workers[key].owner not in self.resting:
                    fits.append((self.workers[key], offer))
                    looked_at += 1
                    if looked_at == DRAW:
                        break
        return min(fits, key=lambda pair: (pair[0].load, self._leases[pair[0].owner]), default=None)

    # Questions

    def owners(self, job: Waiting, terms: Terms, most: int) -> int:
        """Of how many different owners workers are here that could serve this job, busy or not; up to `most`."""
        found: set[int] = set()
        for crew, _ in self._fitting(job, terms):
            found.update(islice(crew.owned, most))
            if len(found) >= most:
                return most
        return len(found)

    def reasons_for(self, job: Waiting, terms: Terms, *, kept_back: bool = False) -> Counter[Reason]:
        """Why none of the workers takes this job: how many for each reason. kept_back: it waits for nothing but its
        origin's bound."""
        reasons: Counter[Reason] = Counter()
        waits_for = Reason.RUNNING_LIMIT if kept_back else Reason.BUSY
        apart = [self.workers[key] for key in self._apart(job)]
        alike, full = Counter[Crew](), Counter[Crew]()
        for crew in self._crews.values():
            alike[crew], full[crew] = len(crew.members), crew.busy - len(crew.spare)
        for worker in apart:
            crew = self._crew_of[worker.key]
            alike[crew] -= 1
            full[crew] -= not worker.has_room
            found = why_not(job, worker, terms)
            if not isinstance(found, Reason) and worker.owner in self.resting and worker.owner != job.payer:
                found = Reason.RESTING
            is_one = isinstance(found, Reason) or kept_back or not worker.has_room
            reasons[found if isinstance(found, Reason) else waits_for] += is_one
        for crew, workers in alike.items():
            offers = crew.fitting(job.constraints)
            found = offers if isinstance(offers, Reason) else why_not_terms(job, crew.announce, offers, terms)
            if isinstance(found, Reason):
                reasons[found] += workers
            else:
                reasons[waits_for] += workers if kept_back else full[crew]
        return +reasons

    def _apart(self, job: Waiting) -> set[bytes]:
        """The workers to which this job means something else than to those that announced the same."""
        owners = {job.payer, *self.resting}
        theirs = {key for owner in owners for key in self._of_owner.get(owner, ())}
        return theirs.union(self._declining.get(job.payer, ()), job.excluded.intersection(self.workers))

    def crews(self, constraints: Constraints) -> dict[Crew, Offer]:
        """The crews that can serve such jobs, each with an offer by which it can."""
        found: dict[Crew, Offer] = {}
        for model in constraints.models or ("",):
            for crew in self._by_model.get((constraints.kind, model), {}):
                if crew not in found:
                    offers = crew.fitting(constraints)
                    if not isinstance(offers, Reason):
                        found[crew] = offers[0]
        return found

    def able(self, job: Waiting, terms: Terms) -> int:
        """How many workers could serve this job, busy or not."""
        crews = {crew for crew, _ in self._fitting(job, terms)}
        passed_over = job.excluded.union(self._declining.get(job.payer, ()))
        not_they = sum(self._crew_of.get(key) in crews for key in passed_over)
        return sum(len(crew.members) for crew in crews) - not_they + self._own_apart(job, terms, crews)

    def _own_apart(self, job: Waiting, terms: Terms, crews: set[Crew]) -> int:
        """How many workers can serve this job for no other reason than that it is their own account's."""
        mine = (self.workers[key] for key in islice(self._of_owner.get(job.payer, ()), DRAW))
        apart = (worker for worker in mine if self._crew_of[worker.key] not in crews)
        return sum(isinstance(why_not(job, worker, terms), Offer) for worker in apart)


def _alike(announce: Announce) -> Announce:
    """What workers of one crew have in common: all but how much they take at once, and the accounts that they named."""
    return msgspec.structs.replace(announce, slots=1, ahead=0, not_accounts=(), friends=())


def _drop(keys: dict[int, dict[bytes, None]], name: int, key: bytes) -> None:
    """Take a key out of those under this name; the last one takes the name along."""
    del keys[name][key]
    if not keys[name]:
        del keys[name]


def names(announce: Announce) -> set[tuple[Kind, str]]:
    """By what its workers are found: each kind with each model, and with an empty name for jobs that name none."""
    return {(offer.kind, model) for offer in announce.offers for model in (offer.model, "")}
