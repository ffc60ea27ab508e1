"""Who serves whom: waiting jobs in buckets, and one function that gives the reason against a pair.

Jobs whose constraints are alike lie in one bucket, ordered by rank. Reasons are judged once for a bucket; what differs
from job to job (workers that had it already, its price cap, who asked, how much of it is uncovered) is looked at on a
short scan at the bucket's head. So finding the next job costs the same with ten or a million waiting. Jobs of which as
many run as their origin may have at once lie apart (`tracker.lines`). Before all others a worker gets jobs of its own
account, whatever it serves otherwise, then those of its friends.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from sortedcontainers import SortedList

from protocol.documents import is_among
from protocol.errors import NotOffered
from protocol.messages import Announce, Offer
from protocol.rules import LimitsSection, Rules
from protocol.work import Kind, PublicPart, Work
from tracker.fitting import Constraints, Judged, Reason, fitting_offers, judge, measures
from tracker.lifecycle import Job
from tracker.lines import Lines, Rank
from tracker.payers import Payers
from tracker.pricing import price
from tracker.waits import units

#: How many jobs at a bucket's head are looked at for one worker.
SCAN = 16
#: How many at most, with those that this worker had already.
SCAN_HAD = 256


@dataclass(frozen=True, slots=True)
class Waiting:
    """A waiting job as the queue sees it. payer: the account that asked. carried: others carry part of its price. user:
    a service's pseudonym of its user, for whom it asks. service: its name."""

    handle: bytes
    attempt: int
    request: bytes
    work: Work
    constraints: Constraints
    rank: Rank
    origin: str
    since: int
    excluded: frozenset[bytes]
    max_price: int
    held: int
    payer: int = 0
    carried: bool = False
    user: bytes = b""
    service: str = ""

    @classmethod
    def of(cls, job: Job, constraints: Constraints) -> Waiting:
        """The job, ranked: accounts by score, anonymous people below all, then by age."""
        return cls(
            handle=job.handle,
            attempt=job.attempt,
            request=job.request,
            work=job.work,
            constraints=constraints,
            rank=(job.anonymous, -job.score, job.admitted, job.handle),
            origin=job.origin,
            since=job.admitted,
            excluded=job.excluded,
            max_price=job.public.max_price,
            held=job.held,
            payer=job.payer,
            carried=job.carried,
            user=job.user,
            service=job.facts.service,
        )

    @classmethod
    def unborn(
        cls,
        public: PublicPart,
        constraints: Constraints,
        origin: str,
        now: int,
        *,
        score: int = 0,
        carried: bool = False,
        payer: int = 0,
        service: str = "",
    ) -> Waiting:
        """A job that a request will have, or might, as far as matching it needs to know."""
        return cls(
            handle=b"",
            attempt=0,
            request=b"",
            work=public.work,
            constraints=constraints,
            rank=(constraints.anonymous, -score, now, b""),
            origin=origin,
            since=now,
            excluded=frozenset(),
            max_price=public.max_price,
            held=0,
            payer=payer,
            carried=carried,
            service=service,
        )


@dataclass(frozen=True)
class Named:
    """Accounts that a worker has named: it serves them not at all, or before others."""

    declined: frozenset[int] = frozenset()
    friends: frozenset[int] = frozenset()


NOBODY = Named()


@dataclass(slots=True)
class Worker:
    """A worker that is here: what it announced, and which leases it has. judged: see `fitting`; the same for all that
    announced the same, but for the accounts that they named."""

    key: bytes
    owner: int
    announce: Announce
    leases: set[tuple[bytes, int]] = field(default_factory=set)
    promised: int = 0  # leases that are being committed
    named: Named = NOBODY
    judged: Judged = field(default_factory=dict, repr=False, compare=False)

    @property
    def load(self) -> int:
        """Jobs that it has or is about to get."""
        return len(self.leases) + self.promised

    @property
    def is_idle(self) -> bool:
        """Whether a slot is free."""
        return self.load < self.announce.slots

    @property
    def has_room(self) -> bool:
        """Whether it takes another lease, be it ahead of time."""
        return self.load < self.announce.slots + self.announce.ahead

    def is_friend(self, account: int) -> bool:
        """Whether it serves this account before others: what the account cannot pay is a gift then, for who chooses
        whom to serve could else have his own strangers' jobs minted."""
        return account in self.named.friends

    def fitting(self, constraints: Constraints) -> tuple[Offer, ...] | Reason:
        """What `fitting_offers` finds, once for each announce."""
        return judge(self.judged, constraints, self.announce)


@dataclass(frozen=True)
class Terms:
    """What of the rules matters for a pair: prices, and how much of a free part is minted at the moment."""

    rules: Rules
    mint_rate: int = 1000


def why_not(job: Waiting, worker: Worker, terms: Terms) -> Offer | Reason:
    """The offer by which the worker can serve the job, or the first reason against the pair."""
    own = job.payer == worker.owner
    found = fitting_offers(job.constraints, worker.announce, own=own)
    return found if isinstance(found, Reason) else why_not_pair(job, worker, found, terms, own=own)


def why_not_pair(
    job: Waiting, worker: Worker, offers: Sequence[Offer], terms: Terms, *, own: bool = False
) -> Offer | Reason:
    """What differs from job to job within a bucket; `offers` meet the bucket's constraints. own: the worker's own
    account asked."""
    if worker.key in job.excluded:
        return Reason.HAD_IT
    if own:
        return next((offer for offer in offers if _why_not_size(job, offer) is None), Reason.TOO_LARGE)
    if job.payer in worker.named.declined:
        return Reason.ACCOUNT
    return why_not_terms(job, worker.announce, offers, terms)


#: What speaks against a pair alone, and says nothing about the next job in line.
_OF_THE_PAIR = frozenset({Reason.HAD_IT, Reason.ACCOUNT, Reason.NO_SERVICES})


def why_not_terms(job: Waiting, announce: Announce, offers: Sequence[Offer], terms: Terms) -> Offer | Reason:
    """The same, whichever of the workers that announced this it is."""
    if job.service and is_among(job.service, announce.not_services):
        return Reason.NO_SERVICES
    found: Offer | Reason = Reason.OTHER_KIND
    for offer in offers:
        found = _why_not_size(job, offer) or _why_not_price(job, announce, offer, terms) or offer
        if isinstance(found, Offer):
            break
    return found


def _why_not_size(job: Waiting, offer: Offer) -> Reason | None:
    size, length = measures(job.work)
    if job.constraints.kind == "image":
        if size > offer.max_pixels:
            return Reason.TOO_LARGE
        return Reason.TOO_MANY_STEPS if length > offer.max_steps else None
    return Reason.TOO_LONG if size > offer.max_context or length > offer.max_tokens else None


def _why_not_price(job: Waiting, announce: Announce, offer: Offer, terms: Terms) -> Reason | None:
    try:
        cost = price(terms.rules, job.work, offer.model)
    except NotOffered:  # the rules priced it when the job was admitted, and do so no more
        return Reason.NOT_OFFERED
    if job.max_price and cost > job.max_price:
        return Reason.OVER_MAX_PRICE
    if cost > job.held and terms.mint_rate < announce.min_free_rate:
        return Reason.FREE_RATE
    return None


class _Bucket:
    """Waiting jobs with the same constraints: by rank, and by origin in the order in which they came. Of carried ones
    those that lie apart are known by rank too, so that positions can be told."""

    def __init__(self) -> None:
        self.by_rank: Any = SortedList()  # of (rank, handle), as the other two
        self.carried: Any = SortedList()  # all of them
        self.shown: Any = SortedList()  # those of them that are in by_rank
        self.units = 0  # of work, of all jobs
        self.by_origin: dict[str, OrderedDict[bytes, None]] = {}
        self.turns: Any = SortedList()  # of (since when this origin waits, origin)
        self.turn_of: dict[str, int] = {}

    def add(self, job: Waiting, served: int) -> None:
        self.by_rank.add((job.rank, job.handle))
        if job.carried:
            self.shown.add((job.rank, job.handle))
        jobs = self.by_origin.setdefault(job.origin, OrderedDict())
        jobs[job.handle] = None
        if job.origin not in self.turn_of:
            self._set_turn(job.origin, max(job.since, served))

    def remove(self, job: Waiting) -> None:
        self.by_rank.remove((job.rank, job.handle))
        if job.carried:
            self.shown.remove((job.rank, job.handle))
        jobs = self.by_origin[job.origin]
        del jobs[job.handle]
        if not jobs:
            del self.by_origin[job.origin]
            self.turns.remove((self.turn_of.pop(job.origin), job.origin))

    def sort_first(self, served: Mapping[str, int]) -> None:
        """Whoever was served since it stood first in this line goes further back, until somebody stands first who
        was not."""
        while self.turns:
            turn, origin = self.turns[0]
            if served.get(origin, 0) <= turn:
                return
            self._set_turn(origin, served[origin])

    def _set_turn(self, origin: str, since: int) -> None:
        if origin in self.turn_of:
            self.turns.remove((self.turn_of[origin], origin))
        self.turn_of[origin] = since
        self.turns.add((since, origin))

    def before(self, entry: tuple[Rank, bytes], kept_back: int) -> int:
        """How many go before one of this rank; all that are kept back are taken to be among those before it."""
        apart: int = self.carried.bisect_left(entry) - self.shown.bisect_left(entry) if self.carried else 0
        shown: int = self.by_rank.bisect_left(entry)
        return shown + max(0, apart - kept_back)

    def __len__(self) -> int:
        return len(self.by_rank) + len(self.carried) - len(self.shown)


class Queue:
    """All jobs that wait and whose requester is there; those of absent requesters are kept apart."""

    def __init__(self, limits: LimitsSection | None = None) -> None:
        self.lines = Lines(limits or LimitsSection(), self._show, self._hide)
        self._jobs: dict[bytes, Waiting] = {}  # whose requester is there
        self._buckets: dict[Constraints, _Bucket] = {}
        self._by_model: dict[tuple[Kind, str], dict[Constraints, None]] = {}
        self._alike: dict[Constraints, dict[Constraints, None]] = {}  # those of buckets, by what they are bare
        self._payers = Payers()
        self._requests: dict[bytes, dict[bytes, Waiting]] = {}  # all, by request
        self._away: set[bytes] = set()  # requests whose requester is not there
        self._leases: Counter[str] = Counter()
        # When an origin was served last, and how many of its jobs can be matched, by kind.
        self._served: dict[Kind, dict[str, int]] = {"image": {}, "text": {}}
        self._present: Counter[tuple[Kind, str]] = Counter()

    def __len__(self) -> int:
        return sum(len(jobs) for jobs in self._requests.values())

    def get(self, handle: bytes) -> Waiting | None:
        """The waiting job, if its requester is there."""
        return self._jobs.get(handle)

    def holds(self, handle: bytes, request: bytes, attempt: int) -> bool:
        """Whether this job waits, not having been leased since `attempt`."""
        job = self._requests.get(request, {}).get(handle)
        return job is not None and job.attempt == attempt

    def add(self, job: Waiting, *, present: bool) -> None:
        """A job begins to wait."""
        self._requests.setdefault(job.request, {})[job.handle] = job
        if present:
            self._enter(job)
        else:
            self._away.add(job.request)

    def of(self, payer: int) -> list[Waiting]:
        """All waiting jobs of an account, whether it is there or not."""
        return [job for jobs in self._requests.values() for job in jobs.values() if job.payer == payer]

    def remove(self, handle: bytes, request: bytes) -> Waiting | None:
        """The job waits no more (or is being leased)."""
        jobs = self._requests.get(request, {})
        job = jobs.pop(handle, None)
        if job is not None and handle in self._jobs:
            self._leave(job)
        if not jobs:
            self._requests.pop(request, None)
            self._away.discard(request)
        return job

    def set_present(self, request: bytes, *, present: bool) -> list[Waiting]:
        """A requester came or went: its jobs of this request become matchable or not; returns those that did."""
        if request not in self._requests or present != (request in self._away):
            return []
        jobs = list(self._requests[request].values())
        for job in jobs:
            if present:
                self._enter(job)
            else:
                self._leave(job)
        (self._away.discard if present else self._away.add)(request)
        return jobs

    def _enter(self, job: Waiting) -> None:
        self._jobs[job.handle] = job
        bucket = self._buckets.get(job.constraints)
        if bucket is None:
            bucket = self._buckets[job.constraints] = _Bucket()
            self._alike.setdefault(job.constraints.bare, {})[job.constraints] = None
            for model in job.constraints.models or ("",):
                self._by_model.setdefault((job.constraints.kind, model), {})[job.constraints] = None
        self._present[job.constraints.kind, job.origin] += 1
        self._payers.add(job)
        bucket.units += units(job.work)
        if job.carried:
            bucket.carried.add((job.rank, job.handle))
            self.lines.add(job)
        else:
            self._show(job.handle)

    def _show(self, handle: bytes) -> None:
        """From now on this job can be matched."""
        job = self._jobs[handle]
        self._buckets[job.constraints].add(job, self._served[job.constraints.kind].get(job.origin, 0))

    def _hide(self, handle: bytes) -> None:
        job = self._jobs[handle]
        self._buckets[job.constraints].remove(job)

    def _leave(self, job: Waiting) -> None:
        if job.carried:
            self.lines.remove(job)
            self._buckets[job.constraints].carried.remove((job.rank, job.handle))
        else:
            self._hide(job.handle)
        del self._jobs[job.handle]
        self._payers.remove(job)
        name = job.constraints.kind, job.origin
        self._present[name] -= 1
        if not self._present[name]:
            del self._present[name]
            self._served[job.constraints.kind].pop(job.origin, None)
        bucket = self._buckets[job.constraints]
        bucket.units -= units(job.work)
        if not bucket:
            del self._buckets[job.constraints]
            alike = self._alike[job.constraints.bare]
            del alike[job.constraints]
            if not alike:
                del self._alike[job.constraints.bare]
            for model in job.constraints.models or ("",):
                swarm = self._by_model[job.constraints.kind, model]
                del swarm[job.constraints]
                if not swarm:
                    del self._by_model[job.constraints.kind, model]

    def next_for(self, worker: Worker, terms: Terms, every: int) -> tuple[Waiting, Offer] | None:
        """The job that this worker should get now: one of its own account, else of a friend, else the first by rank, or
        (each `every`-th time in a swarm) the oldest of the origin that waited longest."""
        found = self.next_own(worker, terms) or self._of(worker, worker.named.friends, terms, own=False)
        if found is not None:
            return found
        for constraints, bucket in self._candidates(worker):
            offers = worker.fitting(constraints)
            if isinstance(offers, Reason):
                continue
            fair = every > 0 and (self._leases[offers[0].model] + 1) % every == 0
            best = self._first(bucket, worker, offers, terms, fair=fair)
            if best is not None and (found is None or self._before(best[0], found[0], bucket, fair=fair)):
                found = best
        return found

    def next_own(self, worker: Worker, terms: Terms) -> tuple[Waiting, Offer] | None:
        """The job of its own account that this worker should get now."""
        return self._of(worker, frozenset({worker.owner}), terms, own=True)

    def _of(self, worker: Worker, accounts: frozenset[int], terms: Terms, *, own: bool) -> tuple[Waiting, Offer] | None:
        """The first job by rank that one of these accounts asked for and that this worker can serve."""
        found: list[tuple[Waiting, Offer]] = []
        for account in self._payers.among(accounts):
            for constraints, handles in self._payers.of(account).items():
                fits = fitting_offers(constraints, worker.announce, own=True) if own else worker.fitting(constraints)
                if isinstance(fits, Reason):
                    continue
                for job in (self._jobs[handle] for handle in islice(handles, SCAN)):
                    offer = why_not_pair(job, worker, fits, terms, own=own)
                    if isinstance(offer, Offer) and (own or not self.lines.keeps_back(job)):
                        found.append((job, offer))
        return min(found, key=lambda pair: pair[0].rank, default=None)

    def _candidates(self, worker: Worker) -> Iterator[tuple[Constraints, _Bucket]]:
        seen: set[Constraints] = set()
        for offer in worker.announce.offers:
            for model in (offer.model, ""):
                for constraints in self._by_model.get((offer.kind, model), {}):
                    if constraints not in seen:
                        seen.add(constraints)
                        yield constraints, self._buckets[constraints]

    def _first(
        self, bucket: _Bucket, worker: Worker, offers: Sequence[Offer], terms: Terms, *, fair: bool
    ) -> tuple[Waiting, Offer] | None:
        looked_at = 0
        if fair:
            bucket.sort_first(self._served[offers[0].kind])
        for handle in _by_turn(bucket) if fair else (handle for _, handle in bucket.by_rank.islice(0, SCAN_HAD)):
            job = self._jobs[handle]
            found = why_not_pair(job, worker, offers, terms)
            if isinstance(found, Offer):
                return job, found
            # A worker that was away for a while would else be kept from all by those that it missed.
            looked_at += found not in _OF_THE_PAIR
            if looked_at == SCAN:
                return None
        return None

    def _before(self, one: Waiting, other: Waiting, bucket: _Bucket, *, fair: bool) -> bool:
        if fair:
            theirs = self._buckets[other.constraints].turn_of[other.origin]
            return bucket.turn_of[one.origin] < theirs
        return one.rank < other.rank

    def leased(self, job: Waiting, model: str, now: int, *, own: bool = False) -> None:
        """A lease of this swarm went to this job's origin, which goes to the end of the line, whatever else it asked
        for. own: the worker is the requester's own, so that nobody carries the job."""
        if job.carried and not own:
            self.lines.started(job.handle, job.origin, anonymous=job.constraints.anonymous, user=job.user)
        self._leases[model] += 1
        if job.handle in self._jobs:
            self._served[job.constraints.kind][job.origin] = now

    def ahead_of(self, job: Waiting) -> int:
        """Jobs with the same constraints, whoever asks, that rank before this one, but for those of other origins that
        are kept back by a bound, as far as they can be told apart."""
        entry = job.rank, job.handle
        before = sum(self.before(alike, entry)[0] for alike in self._alike.get(job.constraints.bare, ()))
        is_apart = job.handle in self._jobs and self.lines.keeps_back(job)
        return before + self.lines.before(job) if is_apart else before

    def before(self, constraints: Constraints, entry: tuple[Rank, bytes]) -> tuple[int, float]:
        """How many jobs with these constraints go before one of this rank, and how many units of work each has on
        average."""
        bucket = self._buckets.get(constraints)
        if bucket is None:
            return 0, 0.0
        return bucket.before(entry, self.lines.kept_back[constraints]), bucket.units / len(bucket)

    def rivals(self, names: Iterable[tuple[Kind, str]]) -> Iterator[Constraints]:
        """Constraints of waiting jobs that may be served by one of these models; some of them more than once."""
        for name in names:
            yield from self._by_model.get(name, {})

    def heads(self, count: int) -> Iterator[Waiting]:
        """The first jobs of each bucket, and of those in it that others carry, be they kept back or not."""
        for bucket in list(self._buckets.values()):
            for _, handle in dict.fromkeys((*bucket.by_rank.islice(0, count), *bucket.carried.islice(0, count))):
                yield self._jobs[handle]

    def reasons_for(self, worker: Worker, terms: Terms, otherwise: Reason = Reason.BUSY) -> Counter[Reason]:
        """Why this worker gets none of the waiting jobs: how many for each reason. Of a bucket the first
        jobs are looked at, and the others are taken to be like the last of these. otherwise: the reason for what it
        could serve."""
        reasons: Counter[Reason] = Counter()
        for constraints, bucket in self._buckets.items():
            kept_back = self.lines.kept_back[constraints]
            judged = [why_not(self._jobs[handle], worker, terms) for _, handle in bucket.by_rank.islice(0, SCAN)]
            for found in judged:
                reasons[found if isinstance(found, Reason) else otherwise] += 1
            if judged:
                reasons[found if isinstance(found, Reason) else otherwise] += len(bucket) - kept_back - len(judged)
            if kept_back:
                fits = worker.fitting(constraints)
                reasons[fits if isinstance(fits, Reason) else Reason.RUNNING_LIMIT] += kept_back
        reasons[Reason.REQUESTER_AWAY] += sum(len(self._requests[request]) for request in self._away)
        return +reasons

    def counts(self) -> Counter[tuple[Kind, str]]:
        """Waiting jobs by kind and model; those that name none count under an empty name."""
        counts: Counter[tuple[Kind, str]] = Counter()
        for constraints, bucket in self._buckets.items():
            for model in constraints.models or ("",):
                counts[constraints.kind, model] += len(bucket)
        return counts

    def work(self) -> Counter[tuple[Kind, str]]:
        """Units of work of the same jobs."""
        work: Counter[tuple[Kind, str]] = Counter()
        for constraints, bucket in self._buckets.items():
            for model in constraints.models or ("",):
                work[constraints.kind, model] += bucket.units
        return work

    def by_kind(self) -> dict[Kind, tuple[int, int]]:
        """Waiting jobs and their units of work by kind, each job once."""
        found: dict[Kind, tuple[int, int]] = {"image": (0, 0), "text": (0, 0)}
        for constraints, bucket in self._buckets.items():
            jobs, work = found[constraints.kind]
            found[constraints.kind] = jobs + len(bucket), work + bucket.units
        return found


def _by_turn(bucket: _Bucket) -> Iterator[bytes]:
    for _, origin in bucket.turns.islice(0, SCAN_HAD):
        yield next(iter(bucket.by_origin[origin]))
