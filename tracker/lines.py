"""How many jobs that others carry run at once for one origin, and what becomes of those above that bound: they wait.

A job is carried if its requester's kudos do not cover its price. Of the carried jobs of one origin (an account, or an
address block of people without one) only so many run at once. Those that wait stand in lines: one for each origin and
constraints. As long as the origin has room, the first few of each line stand in the queue among all others; as soon as
it has none, none of them do, so that nobody who looks for the next job looks at them again and again. Bringing a line
back takes in no more than those few, however long it is.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from protocol.rules import LimitsSection

if TYPE_CHECKING:
    from tracker.matching import Constraints, Waiting

#: How many of a line stand in the queue. More than one, since the first may be nothing for the worker that comes.
SHOWN = 4

#: Constraints, and whether a worker has failed at the job: what one worker must not have again keeps nobody from the
#: jobs behind it.
Name = tuple["Constraints", bool]
#: Anonymous or not, minus the score, when it was admitted, handle.
Rank = tuple[int, int, int, bytes]
Line = list[tuple[Rank, bytes]]


@dataclass(slots=True)
class _Origin:
    """What is known of one origin. reserved: places for jobs that are being admitted. is_open: whether its lines stand
    in the queue."""

    anonymous: bool
    running: set[bytes] = field(default_factory=set)
    reserved: int = 0
    is_open: bool = True
    lines: dict[Name, Line] = field(default_factory=dict)


class Lines:
    """The carried jobs of all origins: those that run, and those that wait with their requester present.

    show, hide: called with the handle of a job that from now on stands in the queue, or stands there no more.
    kept_back: by constraints, how many wait for nothing but their origin's bound.
    """

    def __init__(self, limits: LimitsSection, show: Callable[[bytes], None], hide: Callable[[bytes], None]) -> None:
        self.kept_back: Counter[Constraints] = Counter()
        self._limits = limits
        self._show = show
        self._hide = hide
        self._origins: dict[str, _Origin] = {}

    def set_limits(self, limits: LimitsSection) -> None:
        """Other rules are in force."""
        self._limits = limits
        for origin in self._origins.values():
            self._turn(origin)

    def bound(self, *, anonymous: bool) -> int:
        """How many carried jobs of one origin run at once."""
        return self._limits.anonymous_running if anonymous else self._limits.without_kudos_running

    def room(self, origin: str, *, anonymous: bool) -> int:
        """How many more carried jobs of this origin may run now."""
        known = self._origins.get(origin)
        return self._room(known) if known else self.bound(anonymous=anonymous)

    def is_waiting(self, origin: str) -> bool:
        """Whether carried jobs of this origin wait here."""
        known = self._origins.get(origin)
        return known is not None and bool(known.lines)

    def keeps_back(self, job: Waiting) -> bool:
        """Whether this job waits because as many of its origin run as may."""
        known = self._origins.get(job.origin)
        return job.carried and known is not None and not known.is_open

    # Jobs that wait

    def add(self, job: Waiting) -> None:
        """A carried job waits."""
        origin, name = self._of(job.origin, anonymous=job.constraints.anonymous), _name(job)
        line = origin.lines.setdefault(name, [])
        entry = job.rank, job.handle
        insort(line, entry)
        if not origin.is_open:
            self.kept_back[job.constraints] += 1
        elif bisect_left(line, entry) < SHOWN:
            self._show(job.handle)
            if len(line) > SHOWN:
                self._hide(line[SHOWN][1])

    def remove(self, job: Waiting) -> None:
        """It waits no more."""
        origin, name = self._origins[job.origin], _name(job)
        line = origin.lines[name]
        at = bisect_left(line, (job.rank, job.handle))
        del line[at]
        if not origin.is_open:
            self._count_back(job.constraints, -1)
        elif at < SHOWN:
            self._hide(job.handle)
            if len(line) >= SHOWN:
                self._show(line[SHOWN - 1][1])
        if not line:
            del origin.lines[name]
            self._forget(job.origin)

    def before(self, job: Waiting) -> int:
        """How many of its own line stand, or would stand, before this one."""
        known = self._origins.get(job.origin)
        line = known.lines.get(_name(job), []) if known else []
        return bisect_left(line, (job.rank, job.handle))

    # Jobs that run

    def reserve(self, origin: str, places: int, *, anonymous: bool) -> None:
        """So many jobs are being admitted, each of which may turn out to be a carried one that runs at once."""
        if places:
            known = self._of(origin, anonymous=anonymous)
            known.reserved += places
            self._turn(known)

    def unreserve(self, origin: str, places: int) -> list[bytes]:
        """They are admitted, or are not to be; the jobs that may be leased again by that."""
        known = self._origins.get(origin)
        if known is None or not places:
            return []
        known.reserved -= places
        return self._opened(origin, known)

    def started(self, handle: bytes, origin: str, *, anonymous: bool) -> None:
        """A carried job runs, or is about to."""
        known = self._of(origin, anonymous=anonymous)
        known.running.add(handle)
        self._turn(known)

    def ended(self, handle: bytes, origin: str) -> list[bytes]:
        """A job runs no more, if it did; the jobs that may be leased again by that."""
        known = self._origins.get(origin)
        if known is None or handle not in known.running:
            return []
        known.running.discard(handle)
        return self._opened(origin, known)

    def _opened(self, name: str, origin: _Origin) -> list[bytes]:
        was_open = origin.is_open
        self._turn(origin)
        self._forget(name)
        return [] if was_open or not origin.is_open else list(_heads(origin))

    def _turn(self, origin: _Origin) -> None:
        """Bring the lines into the queue or take them out, as there is room or none."""
        is_open = self._room(origin) > 0
        if is_open == origin.is_open:
            return
        origin.is_open = is_open
        for (constraints, _), line in origin.lines.items():
            self._count_back(constraints, -len(line) if is_open else len(line))
        for handle in list(_heads(origin)):
            (self._show if is_open else self._hide)(handle)

    def _room(self, origin: _Origin) -> int:
        return self.bound(anonymous=origin.anonymous) - len(origin.running) - origin.reserved

    def _of(self, origin: str, *, anonymous: bool) -> _Origin:
        known = self._origins.get(origin)
        if known is None:
            known = self._origins[origin] = _Origin(anonymous)
        return known

    def _forget(self, name: str) -> None:
        origin = self._origins[name]
        if not (origin.running or origin.reserved or origin.lines):
            del self._origins[name]

    def _count_back(self, constraints: Constraints, number: int) -> None:
        self.kept_back[constraints] += number
        if not self.kept_back[constraints]:
            del self.kept_back[constraints]


def _name(job: Waiting) -> Name:
    return job.constraints, bool(job.excluded)


def _heads(origin: _Origin) -> Iterator[bytes]:
    for line in origin.lines.values():
        for _, handle in line[:SHOWN]:
            yield handle
