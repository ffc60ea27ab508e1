"""At which relays two peers may meet: volunteers, and the tracker's own. Who gets which ticket, without I/O."""

from __future__ import annotations

import random
from collections.abc import Sequence, Set
from dataclasses import dataclass, field

from protocol import documents
from protocol.documents import Lease, RelayTicket
from protocol.errors import Busy, OverLimit
from protocol.keys import SigningKey
from protocol.messages import MAX_TICKETS, OfferRelay
from protocol.rules import RelaysSection

#: Tickets of the last so many milliseconds say how busy a volunteer is.
LOAD_MS = 30_000
#: Of the tickets for one attempt, so many at most are for volunteers: a bad one costs time.
MAX_VOLUNTEERS = MAX_TICKETS - 1
#: How often one attempt's requester may ask for paths, and how soon again.
MAX_ASKED = 16
SOON_MS = 1_000


@dataclass
class Volunteer:
    """A peer that relays and was reached. addresses: at which, one of each version of IP, best first. household: of the
    one that its connection comes from. account: whom it acts for. given: when it was first named of late for each
    attempt, so that one that asks again and again makes nobody busy."""

    key: bytes
    addresses: tuple[str, ...]
    household: str
    account: int
    offer: OfferRelay
    given: dict[tuple[bytes, int], int] = field(default_factory=dict)

    @property
    def versions(self) -> frozenset[int]:
        """Of IP, by which it is reached."""
        return frozenset(6 if address.startswith("[") else 4 for address in self.addresses)

    def load(self, now: int) -> float:
        """Which part of its streams is taken, as far as can be told."""
        while self.given and next(iter(self.given.values())) < now - LOAD_MS:
            del self.given[next(iter(self.given))]
        return len(self.given) / self.offer.streams


@dataclass(frozen=True)
class Avoided:
    """Whose relays are not to be named, besides the worker itself."""

    households: frozenset[str] = frozenset()
    account: int = 0

    def covers(self, volunteer: Volunteer) -> bool:
        """Whether this is one of them."""
        return volunteer.household in self.households or (self.account != 0 and volunteer.account == self.account)


NOBODY = Avoided()


class Volunteers:
    """All peers that offer to relay and can be reached."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._known: dict[bytes, Volunteer] = {}

    def __len__(self) -> int:
        return len(self._known)

    def add(self, volunteer: Volunteer) -> None:
        """From now on it may be named; a newer offer takes the place of the one before."""
        former = self._known.get(volunteer.key)
        if former is not None:
            volunteer.given = former.given
        self._known[volunteer.key] = volunteer

    def remove(self, key: bytes) -> None:
        """It is named no more."""
        self._known.pop(key, None)

    def choose(
        self, lease: Lease, now: int, sides: Sequence[Set[int]] = (), avoided: Avoided = NOBODY
    ) -> list[Volunteer]:
        """The least busy ones for this lease, of different households; none twice, and never the worker itself.

        sides: by which versions of IP each of the two comes, as far as is known; who is reached by both goes first.
        """
        ranks = [
            (any(side and not side & volunteer.versions for side in sides), load, self._chance.random(), volunteer)
            for volunteer in self._known.values()
            if volunteer.key != lease.worker and not avoided.covers(volunteer) and (load := volunteer.load(now)) < 1
        ]
        chosen: dict[str, Volunteer] = {}
        for *_, volunteer in sorted(ranks, key=lambda rank: rank[:3]):
            if len(chosen) == MAX_VOLUNTEERS:
                break
            chosen.setdefault(volunteer.household, volunteer)
        for volunteer in chosen.values():
            volunteer.given.setdefault((lease.job, lease.attempt), now)
        return list(chosen.values())


def ticket(lease: Lease, rules: RelaysSection, now: int, *, key: SigningKey, url: str) -> RelayTicket:
    """For the tracker's own relay."""
    return RelayTicket(
        job=lease.job,
        attempt=lease.attempt,
        relay=key.public,
        url=url,
        requester=lease.job_key,
        worker=lease.worker,
        max_bytes=rules.max_bytes,
        max_rate=rules.max_rate,
        valid_until=now + rules.seconds * 1000,
    )


def ticket_of(lease: Lease, rules: RelaysSection, now: int, volunteer: Volunteer) -> RelayTicket:
    """For a volunteer's relay."""
    offer = volunteer.offer
    return RelayTicket(
        job=lease.job,
        attempt=lease.attempt,
        relay=volunteer.key,
        url=f"wss://{volunteer.addresses[0]}",
        also=f"wss://{volunteer.addresses[1]}" if len(volunteer.addresses) > 1 else "",
        certificate=offer.certificate,
        requester=lease.job_key,
        worker=lease.worker,
        max_bytes=rules.max_bytes,
        max_rate=min(rules.max_rate, offer.max_rate) if offer.max_rate else rules.max_rate,
        valid_until=now + rules.seconds * 1000,
    )


def tickets(terms: list[RelayTicket], key: SigningKey, root: bytes) -> tuple[bytes, ...]:
    """The tickets' envelopes."""
    return tuple(documents.sign(each, key, root).raw for each in terms)


class Askings:
    """How often paths were asked for, attempt by attempt, as long as the attempt may live."""

    def __init__(self) -> None:
        self._asked: dict[tuple[bytes, int], tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self._asked)

    def ask(self, name: tuple[bytes, int], now: int) -> None:
        """Paths are asked for; raises `Busy` or `OverLimit`."""
        times, last = self._asked.get(name, (0, now - SOON_MS))
        if times >= MAX_ASKED:
            raise OverLimit(f"paths were asked for {times} times in this attempt: report `unreachable`")
        if now - last < SOON_MS:
            raise Busy("paths were asked for within a second: wait for the answer, then ask again")
        self._asked[name] = times + 1, now

    def keep(self, names: set[tuple[bytes, int]]) -> None:
        """Forget all attempts but these."""
        self._asked = {name: asked for name, asked in self._asked.items() if name in names}
