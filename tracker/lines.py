"""How many jobs that others carry run at once for one origin, and what becomes of those above that bound: they wait.

A job is carried if its requester's kudos do not cover its price. Of the carried jobs of one origin (an account, or an
address block of people without one) only so many run at once. Those that wait stand in lines: one for each origin and
kind of job, alike in all that matters to a worker, so that a job that nobody takes keeps back none that somebody takes.
As long as the origin has room, the first few of each line stand in the queue among all others; as soon as it has none,
none of them do, so that nobody who looks for the next job looks at them again and again. Bringing the lines back takes
in no more than those few of so many lines, however long and however many they are; with more lines, others are in front
each time.

Users of a service have lines and a bound of their own, and what their bound lets through stands in the service's lines:
one of them who asks for much stands behind himself, and the service has no more room than any account.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from protocol.rules import LimitsSection
from protocol.work import Work

if TYPE_CHECKING:
    from tracker.fitting import Constraints
    from tracker.matching import Waiting

#: How many of a line stand in the queue. More than one, since the first may be nothing for the worker that comes.
SHOWN = 4

#: How many lines of an origin stand in the queue. More than people without an account have jobs, by default: what one
#: of them asks for shall not keep his neighbours back.
LINES = 64

#: Constraints, work, price cap, and whether a worker has failed at the job: what one worker must not have again keeps
#: nobody from the jobs behind it.
Name = tuple["Constraints", Work, int, bool]
#: Anonymous or not, minus the score, when it was admitted, handle.
Rank = tuple[int, int, int, bytes]
Line = list[tuple[Rank, bytes]]


@dataclass(slots=True)
class _Party:
    """What is known of one origin, or of one user. reserved: places for jobs that are being admitted. is_open: whether
    its lines are shown. front, rest: names of the lines that are shown then, and of those that are not."""

    anonymous: bool
    running: set[bytes] = field(default_factory=set)
    reserved: int = 0
    is_open: bool = True
    lines: dict[Name, Line] = field(default_factory=dict)
    front: dict[Name, None] = field(default_factory=dict)
    rest: dict[Name, None] = field(default_factory=dict)

    def line(self, name: Name) -> Line:
        """The line of that name, which is begun if there is none."""
        found = self.lines.get(name)
        if found is None:
            found = self.lines[name] = []
            (self.front if len(self.front) < LINES else self.rest)[name] = None
        return found

    def end_line(self, name: Name) -> Line:
        """Nobody stands in it any more; the line that comes to the front for it, if one does."""
        del self.lines[name]
        if name not in self.front:
            del self.rest[name]
            return []
        del self.front[name]
        following = next(iter(self.rest), None)
        if following is None:
            return []
        del self.rest[following]
        self.front[following] = None
        return self.lines[following]

    def rotate(self) -> None:
        """Others are in front."""
        if self.rest:
            names = iter([*self.rest, *self.front])
            self.front = dict.fromkeys(islice(names, LINES))
            self.rest = dict.fromkeys(names)

    def heads(self) -> list[bytes]:
        """Those that are shown while there is room."""
        return [handle for name in self.front for _, handle in self.lines[name][:SHOWN]]


class _Level:
    """Parties of one sort, each with lines and a bound. bound: how many jobs of a party run at once, which depends on
    whether it is anonymous. show, hide: see `Lines`. kept_back: where those that wait for nothing but the bound are
    counted."""

    def __init__(
        self,
        bound: Callable[[bool], int],
        party_of: Callable[[Waiting], str],
        show: Callable[[bytes], None],
        hide: Callable[[bytes], None],
        kept_back: Counter[Constraints],
    ) -> None:
        self.parties: dict[str, _Party] = {}
        self._bound = bound
        self._party_of = party_of
        self._show = show
        self._hide = hide
        self._kept_back = kept_back

    def turn_all(self) -> None:
        """The bound is another one."""
        for party in self.parties.values():
            self._turn(party)

    def room(self, name: str, *, anonymous: bool) -> int:
        known = self.parties.get(name)
        return self._room(known) if known else self._bound(anonymous)

    def is_waiting(self, name: str) -> bool:
        known = self.parties.get(name)
        return known is not None and bool(known.lines)

    def keeps_back(self, job: Waiting) -> bool:
        known = self.parties.get(self._party_of(job))
        return known is not None and not known.is_open

    def add(self, job: Waiting) -> None:
        party, name = self._of(self._party_of(job), anonymous=job.constraints.anonymous), name_of(job)
        line = party.line(name)
        entry = job.rank, job.handle
        insort(line, entry)
        if not party.is_open:
            self._kept_back[job.constraints] += 1
        elif name in party.front and bisect_left(line, entry) < SHOWN:
            self._show(job.handle)
            if len(line) > SHOWN:
                self._hide(line[SHOWN][1])

    def remove(self, job: Waiting) -> None:
        party, name = self.parties[self._party_of(job)], name_of(job)
        line = party.lines[name]
        at = bisect_left(line, (job.rank, job.handle))
        del line[at]
        if not party.is_open:
            self._count_back(job.constraints, -1)
        elif name in party.front and at < SHOWN:
            self._hide(job.handle)
            if len(line) >= SHOWN:
                self._show(line[SHOWN - 1][1])
        if not line:
            following = party.end_line(name)
            if party.is_open:
                for _, handle in following[:SHOWN]:
                    self._show(handle)
            self._forget(self._party_of(job))

    def before(self, job: Waiting) -> int:
        known = self.parties.get(self._party_of(job))
        line = known.lines.get(name_of(job), []) if known else []
        return bisect_left(line, (job.rank, job.handle))

    def reserve(self, name: str, places: int, *, anonymous: bool) -> None:
        known = self._of(name, anonymous=anonymous)
        known.reserved += places
        self._turn(known)

    def unreserve(self, name: str, places: int) -> list[bytes]:
        known = self.parties.get(name)
        if known is None or not places:
            return []
        known.reserved -= places
        return self._opened(name, known)

    def started(self, handle: bytes, name: str, *, anonymous: bool) -> None:
        known = self._of(name, anonymous=anonymous)
        known.running.add(handle)
        self._turn(known)

    def ended(self, handle: bytes, name: str) -> list[bytes]:
        known = self.parties.get(name)
        if known is None or handle not in known.running:
            return []
        known.running.discard(handle)
        return self._opened(name, known)

    def _opened(self, name: str, party: _Party) -> list[bytes]:
        was_open = party.is_open
        self._turn(party)
        self._forget(name)
        return [] if was_open or not party.is_open else party.heads()

    def _turn(self, party: _Party) -> None:
        """Show the lines or hide them, as there is room or none."""
        is_open = self._room(party) > 0
        if is_open == party.is_open:
            return
        party.is_open = is_open
        for name, line in party.lines.items():
            self._count_back(name[0], -len(line) if is_open else len(line))
        for handle in party.heads():
            (self._show if is_open else self._hide)(handle)
        if not is_open:
            party.rotate()

    def _room(self, party: _Party) -> int:
        return self._bound(party.anonymous) - len(party.running) - party.reserved

    def _of(self, name: str, *, anonymous: bool) -> _Party:
        known = self.parties.get(name)
        if known is None:
            known = self.parties[name] = _Party(anonymous)
        return known

    def _forget(self, name: str) -> None:
        party = self.parties[name]
        if not (party.running or party.reserved or party.lines):
            del self.parties[name]

    def _count_back(self, constraints: Constraints, number: int) -> None:
        self._kept_back[constraints] += number
        if not self._kept_back[constraints]:
            del self._kept_back[constraints]


class Lines:
    """The carried jobs of all origins: those that run, and those that wait with their requester present.

    show, hide: called with the handle of a job that from now on stands in the queue, or stands there no more.
    kept_back: by constraints, how many wait for nothing but a bound. A `user` is a service's pseudonym of one of its
    users; it is empty for all others, to whom only the bound of their origin applies.
    """

    def __init__(self, limits: LimitsSection, show: Callable[[bytes], None], hide: Callable[[bytes], None]) -> None:
        self.kept_back: Counter[Constraints] = Counter()
        self._limits = limits
        self._of_users: dict[bytes, Waiting] = {}  # that stand in lines of users
        self._origins = _Level(self._origin_bound, lambda job: job.origin, show, hide, self.kept_back)
        self._users = _Level(self._user_bound, _user_of, self._let_in, self._take_out, self.kept_back)

    @property
    def is_empty(self) -> bool:
        """Whether nothing runs, is about to, or waits here."""
        return not (self._origins.parties or self._users.parties or self._of_users or self.kept_back)

    def set_limits(self, limits: LimitsSection) -> None:
        """Other rules are in force."""
        self._limits = limits
        self._users.turn_all()
        self._origins.turn_all()

    def room(self, origin: str, *, anonymous: bool, user: bytes = b"") -> int:
        """How many more carried jobs of this origin, or of this user of it, may run now."""
        room = self._origins.room(origin, anonymous=anonymous)
        return min(room, self._users.room(party(origin, user), anonymous=False)) if user else room

    def is_waiting(self, origin: str, user: bytes = b"") -> bool:
        """Whether carried jobs of this origin, or of this user of it, wait here."""
        return self._users.is_waiting(party(origin, user)) if user else self._origins.is_waiting(origin)

    def keeps_back(self, job: Waiting) -> bool:
        """Whether this job waits because as many of its origin, or of its user, run as may."""
        return job.carried and (self._origins.keeps_back(job) or (bool(job.user) and self._users.keeps_back(job)))

    def turns(self, job: Waiting) -> Iterator[tuple[int, int]]:
        """For each bound that lets no job like this run now: its place in that line, and how many of it run at once."""
        anonymous = job.constraints.anonymous
        if job.user and self._users.room(party(job.origin, job.user), anonymous=False) <= 0:
            yield self._users.before(job), self._limits.user_running
        if self._origins.room(job.origin, anonymous=anonymous) <= 0:
            yield self._origins.before(job), self._origin_bound(anonymous)

    # Jobs that wait

    def add(self, job: Waiting) -> None:
        """A carried job waits."""
        if job.user:
            self._of_users[job.handle] = job
            self._users.add(job)
        else:
            self._origins.add(job)

    def remove(self, job: Waiting) -> None:
        """It waits no more."""
        if job.user:
            self._users.remove(job)
            del self._of_users[job.handle]
        else:
            self._origins.remove(job)

    def before(self, job: Waiting) -> int:
        """How many of its own line stand, or would stand, before this one."""
        return (self._users if job.user and self._users.keeps_back(job) else self._origins).before(job)

    def _let_in(self, handle: bytes) -> None:
        self._origins.add(self._of_users[handle])

    def _take_out(self, handle: bytes) -> None:
        self._origins.remove(self._of_users[handle])

    # Jobs that run

    def reserve(self, origin: str, places: int, *, anonymous: bool, user: bytes = b"") -> None:
        """So many jobs are being admitted, each of which may turn out to be a carried one that runs at once."""
        if places:
            if user:
                self._users.reserve(party(origin, user), places, anonymous=False)
            self._origins.reserve(origin, places, anonymous=anonymous)

    def unreserve(self, origin: str, places: int, user: bytes = b"") -> list[bytes]:
        """They are admitted, or are not to be; the jobs that may be leased again by that."""
        of_user = self._users.unreserve(party(origin, user), places) if user else []
        return _each(of_user, self._origins.unreserve(origin, places))

    def started(self, handle: bytes, origin: str, *, anonymous: bool, user: bytes = b"") -> None:
        """A carried job runs, or is about to."""
        if user:
            self._users.started(handle, party(origin, user), anonymous=False)
        self._origins.started(handle, origin, anonymous=anonymous)

    def ended(self, handle: bytes, origin: str, user: bytes = b"") -> list[bytes]:
        """A job runs no more, if it did; the jobs that may be leased again by that."""
        of_user = self._users.ended(handle, party(origin, user)) if user else []
        return _each(of_user, self._origins.ended(handle, origin))

    def _origin_bound(self, anonymous: bool) -> int:
        return self._limits.anonymous_running if anonymous else self._limits.without_kudos_running

    def _user_bound(self, _: bool) -> int:
        return self._limits.user_running


def party(origin: str, user: bytes) -> str:
    """By what one user of a service is known among all origins and users."""
    return f"{origin} {user.hex()}" if user else origin


def _user_of(job: Waiting) -> str:
    return party(job.origin, job.user)


def _each(*found: list[bytes]) -> list[bytes]:
    """All of them, each once."""
    return list(dict.fromkeys(handle for handles in found for handle in handles))


def name_of(job: Waiting) -> Name:
    """What makes a job alike with others: where there is no worker for one, there is none for them."""
    return job.constraints, job.work, job.max_price, bool(job.excluded)
