"""What becomes of jobs: matched, leased, watched, ended, each step durable before anybody hears of it.

The store decides and keeps (`Store`, `lifecycle`); here the queue, the pool and the timers follow what has become
durable, and then both sides are told.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import lru_cache, partial
from typing import Any, Literal, cast

from protocol.documents import Request
from protocol.errors import ContentRefused, NotAllowed, Refusal
from protocol.messages import UNWANTED_WORDS, Ended, Offer, Requeued, Withdrawn
from protocol.postings import ANONYMOUS, mint_rate
from protocol.work import PublicPart
from tracker import lifecycle
from tracker.draws import Draw, Drawn, Prospect
from tracker.figures import Figures
from tracker.fitting import Constraints, constraints_of
from tracker.forecast import Forecast
from tracker.leases import Leases, LiveLease
from tracker.ledger import day_of
from tracker.lifecycle import NO_FACTS, Attempt, Event, Facts, Job, Stage, State
from tracker.limits import affordable
from tracker.lines import Name, name_of, party
from tracker.matching import Queue, Terms, Waiting, Worker
from tracker.pool import Pool
from tracker.positions import Positions
from tracker.presence import Listener, Presence
from tracker.store.base import Admitted, Choice, Happened, Leased, RulesInForce, Standing, Store, StoreError
from tracker.timers import Timers
from tracker.waits import Predictions

log = logging.getLogger(__name__)

#: Public parts whose constraints are kept: those of a request with many jobs are alike.
KEPT = 1024
#: Owners that could serve a job are counted up to this number, or to the one of the rule if that is larger.
MOST_OWNERS = 64
#: What could not be stored is tried again after so long.
RETRY_MS = 1000
HOUR_MS = 3_600_000


class Jobs:
    """Every job that has not ended, and the workers that may get it."""

    def __init__(
        self,
        store: Store,
        presence: Presence,
        rules: RulesInForce,
        *,
        clock: Callable[[], int],
        chance: random.Random,
    ) -> None:
        self.rules = rules
        self.queue = Queue(rules.rules.limits)
        self.pool = Pool()
        self.forecast = Forecast(self.queue, self.pool)
        self.figures = Figures(self.queue, self.pool, self.forecast)
        self.predictions = Predictions()
        self.leases = Leases()
        self.open_jobs: Counter[str] = Counter()
        self._live: Counter[bytes] = Counter()  # jobs under way, by request
        self.counts: Counter[str] = Counter()
        self._store = store
        self._presence = presence
        self._clock = clock
        self._chance = chance
        self._timers = Timers()
        self._away: dict[bytes, object] = {}  # for each worker that left, a mark of the last time
        self._hour = 0
        self._declines: Counter[int] = Counter()  # of leases, by owner, in that hour
        self._budget_day = 0
        self._budget_used = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.bars: Callable[[int], bool] = lambda _account: False  # whether an account may not ask any more
        self._starved = False
        self._constraints = lru_cache(KEPT)(self._constraints_now)
        self.positions = Positions(
            self.queue, self.pool, self.forecast, self.predictions, presence, clock=clock, terms=self.terms
        )

    def put_in_force(self, rules: RulesInForce) -> None:
        """Go by other rules from now on."""
        self.rules = rules
        self.queue.lines.set_limits(rules.rules.limits)
        self.feed_all()

    def tick(self, now: int) -> None:
        """Look at everything that is due."""
        self._timers.run(now)
        if self._starved:
            self.feed_all()

    async def finish(self) -> None:
        """Wait for what is being committed."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def budget_used(self, now: int) -> int:
        """What of today's mint is spoken for, as far as this process knows."""
        return self._budget_used if self._budget_day == day_of(now) else 0

    # Admission

    def draw(self, request: Request, payer: int, origin: str, now: int, facts: Facts = NO_FACTS) -> Draw:
        """Workers for the jobs of a request that is about to be admitted; their places are promised meanwhile.

        Whether kudos cover a job shows when it is admitted: until then each may be one that others carry.
        """
        public, lines = request.public, self.queue.lines
        anonymous = payer == ANONYMOUS
        self._begun(origin, request.user, public.n)
        constraints = self._constraints(public, self.rules.version, anonymous=anonymous, facts=facts)
        probe = Waiting.unborn(public, constraints, origin, now, payer=payer, service=facts.service)
        owners = self._owners(probe, now)
        room = max(0, lines.room(origin, anonymous=anonymous, user=request.user))
        is_carried = anonymous or (not room and lines.is_waiting(origin, request.user))  # surely, or as good as that
        pairs: list[Drawn | None] = []
        for number in range(public.n):
            is_kept_back = is_carried and number >= room
            pair = self._draw(probe, self.terms(now), kept_back=is_kept_back)
            if pair is not None:
                self.pool.promise(pair[0])
            pairs.append(pair and Drawn(*pair, 0 if pair[0].is_friend(payer) else owners))
        draw = Draw(pairs, origin, room, request.user)
        lines.reserve(origin, len(draw.workers), anonymous=anonymous, user=request.user)
        return draw

    def _draw(self, waiting: Waiting, terms: Terms, *, kept_back: bool) -> tuple[Worker, Offer] | None:
        """A worker for a job. kept_back: as many of its origin run as may, which does not keep its own workers."""
        if kept_back:
            return self.pool.draw_own(waiting, terms)
        return self.pool.draw(waiting, terms, self._chance)

    def _owners(self, waiting: Waiting, now: int) -> int:
        """How many owners could have this job served, as leases say it."""
        most = max(MOST_OWNERS, self.rules.rules.mint.owners)
        return self.pool.owners(waiting, self.terms(now), most)

    def admitted(self, admitted: Admitted, draw: Draw) -> None:
        """A request's jobs are durable: those that were leased are pushed, the others wait."""
        self.counts["requests"] += 1
        self._live[admitted.jobs[0].request] += len(admitted.jobs)
        for worker in draw.workers:
            self.pool.promise_over(worker)
        for leased in admitted.leases.values():
            self._runs(leased.job, leased.attempt)
        opened = self.queue.lines.unreserve(draw.origin, len(draw.workers), draw.user)
        for leased in admitted.leases.values():
            self._push(leased)
        for number, job in enumerate(admitted.jobs):
            if number not in admitted.leases:
                self._wait(job)
                self._match_or_tell(job)
        if len(draw.workers) > len(admitted.leases):  # some were drawn in vain
            for worker in draw.workers:
                self.feed(worker)
        self._match_opened(opened)

    def not_admitted(self, draw: Draw) -> None:
        """Nothing came of a request that workers were drawn for: others may have waited for them meanwhile."""
        self._ended(draw.origin, draw.user, len(draw.pairs))
        opened = self.queue.lines.unreserve(draw.origin, len(draw.workers), draw.user)
        for worker in draw.workers:
            self.pool.promise_over(worker)
        for worker in draw.workers:
            self.feed(worker)
        self._match_opened(opened)

    def _runs(self, job: Job, attempt: Attempt) -> None:
        """A job is leased: if others carry it, it counts for its origin's bound. Who serves himself carries himself."""
        if job.carried and attempt.owner != job.payer:
            self.queue.lines.started(job.handle, job.origin, anonymous=job.anonymous, user=job.user)

    def _runs_no_more(self, job: Job | Waiting) -> list[bytes]:
        """The jobs that may be leased again by that."""
        return self.queue.lines.ended(job.handle, job.origin, job.user)

    def _begun(self, origin: str, user: bytes, jobs: int) -> None:
        for name in {origin, party(origin, user)}:
            self.open_jobs[name] += jobs

    def _ended(self, origin: str, user: bytes, jobs: int) -> None:
        for name in {origin, party(origin, user)}:
            self.open_jobs[name] -= jobs
            if not self.open_jobs[name]:
                del self.open_jobs[name]

    def follow_request(self, request: bytes) -> None:
        """A requester is there again: its waiting jobs can be matched."""
        for waiting in self.queue.set_present(request, present=True):
            self._match(waiting)

    # Matching

    def terms(self, now: int) -> Terms:
        mint = self.rules.rules.mint
        return Terms(self.rules.rules, mint_rate(mint.steps, mint.daily, self.budget_used(now)))

    def _wait(self, job: Job) -> None:
        """A job has a place in the queue, unless who asked may not ask any more."""
        barred = self.bars(job.payer)
        self.queue.add(self._waiting(job), present=not barred and self._presence.is_followed(job.request))
        if barred:
            self.happen(job.handle, 0, lifecycle.Barred())
        due = lifecycle.expires(job, self.rules.rules)
        self._timers.at(due, partial(self._expire, job.handle, job.attempt, job.request), job.handle)

    def _match_or_tell(self, job: Job) -> None:
        """A job that begins to wait gets a worker at once, or hears its position."""
        waiting = self.queue.get(job.handle)
        if waiting is not None and not self._match(waiting):
            self.positions.tell(waiting)

    def _waiting(self, job: Job) -> Waiting:
        return Waiting.of(
            job, self._constraints(job.public, self.rules.version, anonymous=job.anonymous, facts=job.facts)
        )

    def _constraints_now(self, public: PublicPart, version: int, *, anonymous: bool, facts: Facts) -> Constraints:
        """What the jobs of a request have in common under these rules; `version` tells what was kept from the rest."""
        models = public.models
        if models:
            with suppress(Refusal):  # rules may have changed since it was admitted: then no worker fits
                models = affordable(public, self.rules.rules, ())
        return constraints_of(public, models, anonymous=anonymous, facts=facts)

    def _match(self, waiting: Waiting) -> bool:
        """Lease a waiting job if it may be and somebody can take it now."""
        pair = self._draw(waiting, self.terms(self._clock()), kept_back=self.queue.lines.keeps_back(waiting))
        if pair is None:
            return False
        self._spawn(self._lease(waiting, *pair))
        return True

    def _match_opened(self, handles: list[bytes]) -> None:
        """Look for idle workers for jobs that were kept back and are not any more. Where there is none for one, there
        is none for those like it."""
        in_vain: set[tuple[Name, frozenset[bytes]]] = set()
        for handle in handles:
            waiting = self.queue.get(handle)
            if waiting is None:
                continue
            alike = name_of(waiting), waiting.excluded
            if alike not in in_vain and not self._match(waiting):
                in_vain.add(alike)

    def feed(self, worker: Worker) -> None:
        """Give a worker the jobs that it should get now."""
        now = self._clock()
        terms = self.terms(now)
        rests = worker.owner in self.pool.resting
        while worker.has_room and self.pool.workers.get(worker.key) is worker:
            every = self.rules.rules.matching.every
            found = self.queue.next_own(worker, terms) if rests else self.queue.next_for(worker, terms, every)
            if found is None:
                return
            self._spawn(self._lease(found[0], worker, found[1]))

    def feed_all(self) -> None:
        self._starved = False
        for worker in list(self.pool.workers.values()):
            self.feed(worker)

    def _lease(self, waiting: Waiting, worker: Worker, offer: Offer) -> Coroutine[Any, Any, None]:
        """Take the job out of the queue now; commit the lease and push it in what is returned."""
        now = self._clock()
        self.queue.leased(waiting, offer.model, now, own=worker.owner == waiting.payer)
        self.queue.remove(waiting.handle, waiting.request)
        self.pool.promise(worker)
        owners = 0 if worker.is_friend(waiting.payer) else self._owners(waiting, now)
        choice = Choice(worker.key, worker.owner, offer.model, owners)

        async def commit() -> None:
            decided, leased = False, None
            try:
                leased = await self._store.lease(waiting.handle, waiting.attempt, choice, self.rules, now)
                decided = True
            except StoreError:
                self._starved = True
                raise
            except NotAllowed:  # its account ended, or its delegation, while this was under way
                self.pool.remove(worker.key)
            finally:
                self.pool.promise_over(worker)
                opened = [] if leased is not None else self._runs_no_more(waiting)
                if not decided:
                    self.queue.add(waiting, present=self._presence.is_followed(waiting.request))
                    self._expire(waiting.handle, waiting.attempt, waiting.request)  # its time may have passed meanwhile
            if leased is not None:
                self._push(leased)
                return
            self.feed(worker)
            if not decided and (again := self.queue.get(waiting.handle)) is not None:
                self._match(again)
            self._match_opened(opened)

        return commit()

    def _push(self, leased: Leased) -> None:
        """A lease is durable: both sides get it."""
        job, attempt = leased.job, leased.attempt
        self._budget_day, self._budget_used = day_of(attempt.issued), leased.budget_used
        lease = self._remember(job, attempt)
        self._presence.hand_worker(attempt.worker, leased.document)
        requester = self._presence.requester(job.request)
        if requester is not None:
            self._presence.hand_lease(requester, attempt.worker, leased.document)
        self.positions.forget(job.handle)
        self.predictions.served(job.handle, attempt.issued)
        self.counts["leases"] += 1
        self._watch_lease(lease, 0)

    def _remember(self, job: Job, attempt: Attempt) -> LiveLease:
        lease = self.leases.remember(job, attempt)
        if not lease.receipt:
            self.pool.took(attempt.worker, lease.name)
        return lease

    # Time

    def _watch_lease(self, lease: LiveLease, grace: int) -> None:
        """Look again when an acceptance, an opening or the result is overdue."""
        now, times = self._clock(), self.rules.rules.times
        if lease.stage is Stage.PUSHED:
            self._later(now + grace + times.accept * 1000, lease, Stage.PUSHED, lifecycle.NotAccepted())
        elif lease.stage is Stage.ACCEPTED:
            self._later(now + grace + times.open * 1000, lease, Stage.ACCEPTED, lifecycle.NotOpened())
        if lease.stage is Stage.PUSHED or grace:
            due = max(lease.deadline, now + grace)
            self._later(due, lease, None, lifecycle.Overdue())

    def _later(self, due: int, lease: LiveLease, stage: Stage | None, event: Event) -> None:
        def look() -> None:
            if self.leases.of_job(lease.job) is lease and not lease.receipt and stage in (None, lease.stage):
                self.happen(lease.job, lease.attempt, event)

        self._timers.at(due, look, lease.job)

    def _expire(self, handle: bytes, attempt: int, request: bytes) -> None:
        if self.queue.holds(handle, request, attempt):
            self.happen(handle, 0, lifecycle.Expired())

    def expect_return(self, worker: bytes, within_ms: int) -> None:
        """A worker is away: what it does not come back for is lost."""
        away = self._away[worker] = object()

        def look() -> None:
            if self._away.get(worker) is not away:
                return  # it came back meanwhile, and left again
            del self._away[worker]
            if self._presence.worker(worker) is None:
                for lease in self.leases.of_worker(worker):
                    if not lease.receipt:
                        self.happen(lease.job, lease.attempt, lifecycle.WorkerFailed("gone"))

        self._timers.at(self._clock() + within_ms, look)

    def _await_answer(self, job: Job) -> None:
        """A delivered job is paid when its requester says nothing for long enough."""
        due = job.changed + self.rules.rules.times.silence * 1000

        def look() -> None:
            lease = self.leases.of_job(job.handle)
            if lease is not None and lease.receipt and lease.attempt == job.attempt:
                self._spawn(self._until_stored(lambda: self._silence(job.handle)))

        self._timers.at(due, look, job.handle)

    async def _silence(self, handle: bytes) -> None:
        now = self._clock()
        happened = await self._store.silence(handle, self.rules.rules, now)
        self.counts["silences"] += happened.outcome.changed
        self.follow(happened, now)

    # What follows from an event

    def happen(self, handle: bytes, attempt: int, event: Event) -> None:
        """Something that nobody said; what time brings comes once, so that it is tried until it is stored."""
        self._spawn(self._until_stored(lambda: self.carry_out(handle, attempt, event)))

    async def _until_stored(self, step: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await step()
        except StoreError:
            self._timers.at(self._clock() + RETRY_MS, lambda: self._spawn(self._until_stored(step)))
            raise

    async def carry_out(self, handle: bytes, attempt: int, event: Event) -> None:
        now = self._clock()
        is_turned_down = self._is_turned_down(handle, event)
        happened = await self._store.happen(handle, attempt, event, self.rules.rules, now)
        lost = happened.lost or happened.outcome.attempt
        if is_turned_down and happened.outcome.changed and lost:
            self._turned_down(lost.owner, now)
        self.follow(happened, now)

    def _is_turned_down(self, handle: bytes, event: Event) -> bool:
        """Whether a worker does not take a lease, but for what it could see only in the words, once it had accepted."""
        if not isinstance(event, lifecycle.Declined):
            return isinstance(event, lifecycle.NotAccepted)
        lease = self.leases.of_job(handle)
        has_seen = lease is not None and lease.stage is not Stage.PUSHED
        return not (has_seen and event.reason in (UNWANTED_WORDS, ContentRefused.code))

    def _turned_down(self, owner: int, now: int) -> None:
        """An owner's worker did not take a lease. Few do so now and then; who does it to choose what it is paid for
        gets nothing more within this hour."""
        if now // HOUR_MS != self._hour:
            self._hour = now // HOUR_MS
            self._declines.clear()
        self._declines[owner] += 1
        if self._declines[owner] > self.rules.rules.matching.declines and owner not in self.pool.resting:
            self.pool.resting.add(owner)
            self._timers.at((self._hour + 1) * HOUR_MS, partial(self._rested, owner))

    def _rested(self, owner: int) -> None:
        """The hour is over."""
        self.pool.resting.discard(owner)
        for worker in list(self.pool.workers.values()):
            if worker.owner == owner:
                self.feed(worker)

    def follow(self, happened: Happened, now: int) -> None:
        """Bring memory in line with what is now durable, then tell everybody whom it concerns."""
        if not happened.outcome.changed:
            return
        before, job, attempt = happened.before, happened.outcome.job, happened.outcome.attempt
        newest = happened.lost or attempt
        if happened.budget_used is not None:
            self._budget_day, self._budget_used = day_of(now), happened.budget_used
        if before.state is State.WAITING:
            self.queue.remove(job.handle, job.request)
        if before.state is State.LEASED and newest is not None:
            self._follow_lease(happened, newest)
        opened = self._runs_no_more(job) if job.state is not State.LEASED else []
        if job.state is State.SETTLED and attempt is not None:
            self.figures.settled(happened, attempt, now)
        if newest is not None and happened.outcome.withdraw:
            withdrawn = Withdrawn(job=job.handle, attempt=newest.attempt, reason=happened.outcome.withdraw)
            self._presence.tell_worker(newest.worker, withdrawn)
        if job.state is State.DELIVERED and attempt is not None:
            self._remember(job, attempt)
            self._await_answer(job)
            if before.state is State.WAITING:  # the requester may have given this attempt up
                self._spawn(self._hand_lease_again(job, attempt))
        if job.state not in lifecycle.LIVE:
            self._forget(job)
            self.tell_end(self._presence.requester(job.request), happened)
            if attempt is not None and happened.settlement:
                self._presence.hand_worker(attempt.worker, happened.settlement)
                if attempt.owner != job.payer:
                    self.pool.count_settled(attempt.owner)
            self._leave_request(job.request)
        elif happened.outcome.requeued and attempt is not None:
            reason = happened.outcome.requeued
            requeued = Requeued(job=job.handle, attempt=attempt.attempt, reason=reason[:40])
            self._presence.tell_requester(job.request, requeued)
            self._wait(job)
        if newest is not None and newest.worker in self.pool.workers:
            self.feed(self.pool.workers[newest.worker])  # by rank, before this very job is looked after
        self._match_opened(opened)
        if happened.outcome.requeued:
            self._match_or_tell(job)

    async def _hand_lease_again(self, job: Job, attempt: Attempt) -> None:
        """An attempt that was thought lost has delivered: its requester can fetch the result after all. A worker that
        is back and has yet to show where it is tells that with its announce."""
        if not self._presence.is_shown(attempt.worker):
            return
        standing = await self._store.standing(job.handle, attempt.attempt)
        requester = self._presence.requester(job.request)
        if standing is not None and requester is not None:
            self._presence.hand_lease(requester, attempt.worker, standing.lease)

    def _follow_lease(self, happened: Happened, newest: Attempt) -> None:
        """The newest lease went on, or ended: its worker's slot is free, and it is told why if it does not know."""
        job, withdraw = happened.outcome.job, happened.outcome.withdraw
        name = job.handle, newest.attempt
        lease = self.leases.find(newest.worker, *name)
        if job.state is State.LEASED and newest.stage is not Stage.ENDED:
            if lease is not None and lease.stage is not newest.stage:
                lease.stage = newest.stage
                self._watch_lease(lease, 0)
        else:
            self.pool.released(newest.worker, name)
            if job.state is not State.DELIVERED and lease is not None:
                self.leases.drop(lease)
        if withdraw == "cancelled":
            if lease is not None:
                lease.cancelled = True
            due = job.cancelled + self.rules.rules.times.cancel * 1000
            self._timers.at(due, lambda: self.happen(job.handle, 0, lifecycle.CancelOver()), job.handle)

    def _forget(self, job: Job) -> None:
        """A job has ended."""
        lease = self.leases.of_job(job.handle)
        if lease is not None:
            self.pool.released(lease.worker, lease.name)
            self.leases.drop(lease)
        self.positions.forget(job.handle)
        self.predictions.ended(job.handle, unserved=job.state is State.EXPIRED)
        self._timers.forget(job.handle)
        self._ended(job.origin, job.user, 1)
        self.counts[job.state.value] += 1

    def _leave_request(self, request: bytes) -> None:
        """One of its jobs has ended and its requester was told; after the last one nobody needs to be found for it."""
        self._live[request] -= 1
        if not self._live[request]:
            del self._live[request]
            self._presence.forget_request(request)

    def tell_end(self, listener: Listener | None, happened: Happened) -> None:
        """To a requester: how its job ended."""
        job = happened.outcome.job
        if listener is None:
            return
        if happened.settlement:
            listener.hand(happened.settlement)
        elif job.state is not State.SETTLED and job.state not in lifecycle.LIVE:
            listener.tell(ended(job, happened.released))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Carry something out that no message waits for."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a step failed: %s", error, exc_info=None if isinstance(error, StoreError) else error)

    # After a restart

    def take_up(self, standing: Standing) -> None:
        """A job that had not ended when the last process did; life signs are awaited anew, with a grace."""
        job, attempt = standing.job, standing.attempt
        times = self.rules.rules.times
        grace = times.restart_grace * 1000
        self._begun(job.origin, job.user, 1)
        self._live[job.request] += 1
        if job.state is State.WAITING:
            self.queue.add(self._waiting(job), present=False)
            due = max(lifecycle.expires(job, self.rules.rules), self._clock() + grace)
            self._timers.at(due, partial(self._expire, job.handle, job.attempt, job.request), job.handle)
            if self.bars(job.payer):  # the process ended between the act and what follows from it
                self.happen(job.handle, 0, lifecycle.Barred())
        elif attempt is not None:
            if job.state is State.LEASED:
                self._runs(job, attempt)
            lease = self._remember(job, attempt)
            if job.state is State.DELIVERED:
                self._await_answer(job)
                return
            self._watch_lease(lease, grace)
            self.expect_return(attempt.worker, grace + times.worker_grace * 1000)
            if job.cancelled:
                due = self._clock() + grace + times.cancel * 1000
                self._timers.at(due, lambda: self.happen(job.handle, 0, lifecycle.CancelOver()), job.handle)

    def prospect(
        self,
        public: PublicPart,
        payer: int,
        origin: str,
        score: int,
        carried: bool,
        now: int,
        facts: Facts = NO_FACTS,
    ) -> Prospect:
        """What the first job of such a request would meet now, if its rank had this score. Changes nothing."""
        anonymous = payer == ANONYMOUS
        constraints = self._constraints(public, self.rules.version, anonymous=anonymous, facts=facts)
        probe = Waiting.unborn(
            public, constraints, origin, now, score=score, carried=carried, payer=payer, service=facts.service
        )
        workers = self.pool.able(probe, self.terms(now))
        return Prospect(self.queue.ahead_of(probe), workers, self.forecast.wait(probe, now) if workers else 0)


def ended(job: Job, released: int) -> Ended:
    """What a requester is told of a job that ended without settlement."""
    state = cast("Literal['refunded', 'cancelled', 'expired', 'failed']", job.state.value)
    return Ended(job=job.handle, attempt=job.attempt, state=state, reason=job.reason[:40], released=released)
