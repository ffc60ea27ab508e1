"""How often the tracker's core met each turn in a job's life, written down where the real code takes it.

A hit is a line `situation | event | result`. Decisions are heard at the one function that takes them
(`lifecycle.decide`), admissions, leases and restarts at the store.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from protocol import prices
from protocol.errors import Refusal
from protocol.postings import ANONYMOUS
from protocol.rules import Rules
from tracker import lifecycle
from tracker.lifecycle import LIVE, Attempt, Event, Job, Outcome, Stage, State

if TYPE_CHECKING:
    from tracker.store.base import Admitted, Leased, Standing, Store

Decide = Callable[[Job, Attempt | None, Event, Rules, int], Outcome]


@dataclass
class Tally:
    """Counts of hits. cause: what is going on just now, where that tells two hits apart; started: when the tracker
    was started last, None for the first time; faults: what must not have happened."""

    hits: Counter[str] = field(default_factory=Counter)
    cause: str = ""
    started: int | None = None
    faults: list[str] = field(default_factory=list)

    def hit(self, *parts: str) -> None:
        """Count one."""
        self.hits[" | ".join(parts)] += 1

    @contextmanager
    def listening(self, decide: Decide = lifecycle.decide) -> Iterator[None]:
        """While the block runs, every decision of the tracker is heard; it is taken by `decide`."""
        real = lifecycle.decide

        def heard(job: Job, attempt: Attempt | None, event: Event, rules: Rules, now: int) -> Outcome:
            try:
                outcome = decide(job, attempt, event, rules, now)
            except Refusal as refusal:
                self.hit(situation(job, attempt), self._name(job, attempt, event), refusal.code)
                raise
            result = outcome.job.state.value if outcome.changed else "nothing"
            self.hit(situation(job, attempt), self._name(job, attempt, event), result)
            if outcome.changed:
                self._took(job, attempt, event, outcome, rules, now)
            return outcome

        users = [module for name, module in sys.modules.items() if name.startswith("tracker.")]
        patched = [module for module in users if getattr(module, "decide", None) is real]
        assert len(patched) > 1, "nobody but its own module knows `decide`: this recorder would hear nothing"
        for module in patched:
            vars(module)["decide"] = heard
        try:
            yield
        finally:
            for module in patched:
                vars(module)["decide"] = real

    def _name(self, job: Job, attempt: Attempt | None, event: Event) -> str:
        match event:
            case lifecycle.Declined() if attempt is not None and attempt.stage is not Stage.PUSHED:
                return "declined after acceptance"
            case lifecycle.WorkerFailed(reason="gone"):
                return f"gone: {'not among what it holds' if self.cause == 'a worker is back' else 'no connection'}"
            case lifecycle.Received():
                return _name_receipt("receipt", job, attempt, event)
            case lifecycle.Acknowledged(receipt=receipt):
                return _name_receipt("acknowledgement", job, attempt, receipt)
            case _:
                return EVENTS[type(event)]

    def _took(self, job: Job, attempt: Attempt | None, event: Event, outcome: Outcome, rules: Rules, now: int) -> None:
        """What a change tells beside its name."""
        if outcome.payment is not None and attempt is not None:
            self.hit("settled", _name_payment(job, attempt, outcome))
        counted = outcome.job.failed - job.failed
        if isinstance(event, lifecycle.NotAccepted) and counted:
            self.faults.append("a lease that was not accepted counted as failed")
        if self.started is None or attempt is None or attempt.issued >= self.started:
            return
        grace = rules.times.restart_grace * 1000
        if isinstance(event, lifecycle.NotAccepted):
            self.hit("restart", "a life sign from before it was awaited anew, and did not come")
            if now < self.started + grace + rules.times.accept * 1000:
                self.faults.append("a restart gave no grace for an acceptance")
        if isinstance(event, lifecycle.Overdue) and now < self.started + grace:
            self.faults.append("a restart gave no grace for a deadline")

    # At the store

    def admitted(self, admitted: Admitted, rules: Rules) -> None:
        """A request is in."""
        if admitted.again:
            self.hit("-", "request", "the same again")
            return
        for job in admitted.jobs:
            self.hit("-", "request", "leased at once" if job.state is State.LEASED else "waiting")
            dear = prices.price(rules, job.work, job.public.models[0]) + prices.tax(rules)
            part = "anonymous" if job.payer == ANONYMOUS else "none" if not job.held else "some"
            self.hit("-", "hold", "all" if job.held == dear else part)

    def leased(self, leased: Leased | None) -> None:
        """A waiting job has got a lease, or somebody else was first."""
        if leased is None:
            self.hit("waiting", "lease", "nothing")
            return
        self.hit("waiting", "lease", self.cause if self.cause in LEASE_CAUSES else "a worker was free")
        if leased.attempt.worker in leased.job.excluded:
            self.faults.append("a job came back to a worker that shall not get it again")

    def taken_up(self, standing: Standing, how: str) -> None:
        """A job was live when the tracker was started again."""
        job, attempt = standing.job, standing.attempt
        stage = ""
        if job.state is State.LEASED and attempt is not None:
            stage = ", called off" if job.cancelled else f", {attempt.stage.value}"
        self.hit("restart", how, job.state.value + stage)


#: What brings a lease about, where it is worth telling.
LEASE_CAUSES = frozenset({"a requester is back", "a worker announces"})

EVENTS: dict[type[Event], str] = {
    lifecycle.Accepted: "accepted",
    lifecycle.Declined: "declined",
    lifecycle.NotAccepted: "not accepted",
    lifecycle.Opened: "opened",
    lifecycle.NotOpened: "not opened",
    lifecycle.WorkerFailed: "failed",
    lifecycle.Overdue: "deadline",
    lifecycle.CannotReach: "unreachable",
    lifecycle.Denied: "denial",
    lifecycle.Silence: "silence",
    lifecycle.Cancelled: "cancel",
    lifecycle.CancelOver: "time for a partial receipt over",
    lifecycle.Expired: "time to live over",
    lifecycle.Barred: "who asked was suspended",
}


def situation(job: Job, attempt: Attempt | None) -> str:
    """Where a job stood, seen from the attempt that an event speaks of."""
    if job.state not in LIVE:
        return "ended"
    called_off = ", called off" if job.cancelled else ""
    earlier = attempt is not None and attempt.attempt != job.attempt
    return job.state.value + called_off + (", an earlier attempt" if earlier else "")


def _name_receipt(what: str, job: Job, attempt: Attempt | None, receipt: lifecycle.Received) -> str:
    if what == "receipt" and attempt is not None and attempt.receipt == receipt.digest:
        return "the same receipt"
    if receipt.used > prices.STEPS_PRICED:
        return f"{what} that claims too much"
    return f"partial {what}" if receipt.partial else what


def _name_payment(job: Job, attempt: Attempt, outcome: Outcome) -> str:
    payment = outcome.payment
    assert payment is not None
    if job.payer == attempt.owner:
        return "nothing, within one account"
    if payment.paid and payment.minted:
        return "from the hold and from the mint"
    if payment.paid:
        return "from the hold"
    return "from the mint" if payment.minted else "nothing, the mint is used up"


class Counting:
    """A store that tells a tally of admissions, leases and restarts; all else goes straight through."""

    def __init__(self, store: Store, tally: Tally, how: str) -> None:
        self._store = store
        self._tally = tally
        self._how = how

    @classmethod
    def around(cls, store: Store, tally: Tally, how: str) -> Store:
        """The store, counted. how: the tracker's last end, empty if this is its first start."""
        return cast("Store", cls(store, tally, how))

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    async def admit(self, *arguments: object, **more: object) -> Admitted:
        """See `Store`."""
        admitted = await self._store.admit(*arguments, **more)  # type: ignore[arg-type]
        self._tally.admitted(admitted, more["rules"].rules)  # type: ignore[attr-defined]
        return admitted

    async def lease(self, *arguments: object) -> Leased | None:
        """See `Store`."""
        leased = await self._store.lease(*arguments)  # type: ignore[arg-type]
        self._tally.leased(leased)
        return leased

    async def live(self) -> object:
        """See `Store`."""
        standings = await self._store.live()
        for standing in standings if self._how else ():
            self._tally.taken_up(standing, self._how)
        return standings
