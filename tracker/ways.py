"""How peers that cannot connect to each other meet all the same: tests of reachability, meetings, relays.

What peers say comes in through conversations; what is decided stands in `reach`, `meeting` and `relaying`; the sockets
of `/meet` and `/relay` are those of `web_ways`.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from protocol import documents
from protocol.documents import Lease
from protocol.envelope import parse
from protocol.errors import Fenced, NoPath, NotAllowed, NotRegistered, Stopping, UnknownJob
from protocol.keys import SigningKey, show_key
from protocol.messages import AskPaths, OfferRelay, Paths, Reached, SessionMessage
from protocol.relay import Limits, Rooms, Side
from protocol.rules import Rules
from tracker import meeting, reach, relaying
from tracker.doors import household_of
from tracker.forwarded import Client, IPAddress, Trust, parse_address
from tracker.jobs import Jobs
from tracker.leases import LiveLease
from tracker.looks import Looks
from tracker.meeting import Meeting, Meetings
from tracker.presence import Listener, Presence
from tracker.reach import NOWHERE, Home, Name, Probes, Result, Role, Target
from tracker.registry import Registry
from tracker.relaying import Askings, Avoided, Volunteer, Volunteers
from tracker.store.base import Store

if TYPE_CHECKING:
    from tracker.conversation import Conversation

log = logging.getLogger(__name__)

#: How often what attempts that are over have left is swept out.
SWEEP_MS = 60_000
ROLES: tuple[Role, ...] = ("worker", "relay")
#: Reasons for which people ask; all others are counted as one.
REASONS = frozenset({"timeout", "no_connection", "no_address", "relays_only", "broken"})


@dataclass(frozen=True)
class Place:
    """Where the horde is. url: as the link says it. trust: proxies, whose own addresses are nobody's."""

    url: str
    trust: Trust

    @property
    def home(self) -> Home:
        """In what kind of network that is."""
        return reach.home_of(self.url)

    @property
    def has_name(self) -> bool:
        """Whether it may be found by both versions of IP."""
        return parse_address(urlsplit(self.url).hostname or "") is None


@dataclass(frozen=True)
class _Wish:
    """A peer wants to be reached: who says so, at which ports, under which certificate."""

    conversation: Conversation
    ports: tuple[int, ...]
    certificate: bytes


def _version(address: IPAddress | None) -> int:
    """Of IP; 0 where the address is not known."""
    return address.version if address else 0


class Ways:
    """What one tracker process does so that peers can reach each other."""

    def __init__(
        self,
        store: Store,
        presence: Presence,
        jobs: Jobs,
        registry: Registry,
        *,
        root: bytes,
        key: SigningKey,
        clock: Callable[[], int],
        chance: random.Random,
    ) -> None:
        self.meetings = Meetings()
        self.rooms = Rooms(self._limits)
        self.place: Place | None = None  # known once somebody can come
        self.counts: Counter[str] = Counter()
        self.root = root
        self.key = key
        self.clock = clock
        self._store = store
        self._presence = presence
        self._jobs = jobs
        self._registry = registry
        self._probes = Probes(chance)
        self._volunteers = Volunteers(chance)
        self._askings = Askings()
        self._looks = Looks()
        self._wishes: dict[tuple[bytes, Role], _Wish] = {}
        self._offers: dict[bytes, OfferRelay] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._swept = 0

    @property
    def rules(self) -> Rules:
        """The rules in force."""
        return self._jobs.rules.rules

    def _limits(self) -> Limits:
        return Limits(self.rules.relays.streams, self.rules.relays.of_one)

    def tick(self, now: int) -> None:
        """Begin the tests that are due, forget what is over."""
        for name, target in self._probes.start(now, self.rules.reach):
            task = asyncio.create_task(self._probe(name, target), name="probe")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self.meetings.sweep(now)
        if now - self._swept >= SWEEP_MS:
            self._swept = now
            self._askings.keep({lease.name for lease in self._jobs.leases.all()})

    async def stop(self) -> None:
        """End what runs."""
        self.hang_up()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def hang_up(self) -> None:
        """Part from all who meet here."""
        self.meetings.clear(f"{Stopping.code}: the tracker is stopping")
        self.rooms.clear(Stopping("the tracker is stopping: come back in a moment"))

    def left(self, conversation: Conversation) -> None:
        """A connection is gone, and with it what was known by it."""
        self._looks.drop(conversation)
        for role in self._roles(conversation):
            self._forget(conversation.key, role)

    def _roles(self, conversation: Conversation) -> list[Role]:
        """In which roles this connection speaks for its peer."""
        if not conversation.is_open:
            return []
        wishes = {role: self._wishes.get((conversation.key, role)) for role in ROLES}
        return [role for role, wish in wishes.items() if wish is not None and wish.conversation is conversation]

    def _forget(self, key: bytes, role: Role) -> None:
        del self._wishes[key, role]
        for version in (0, 4, 6):
            self._probes.drop((key, role, version))
        if role == "relay":
            self._offers.pop(key, None)
            self._volunteers.remove(key)

    # Reachability

    def announced(self, conversation: Conversation) -> None:
        """A worker is here, under the record that it has shown."""
        record = conversation.record
        if record is not None and not conversation.is_closed:
            self._want("worker", _Wish(conversation, reach.ports_of(record), record.certificate))

    async def offer(self, conversation: Conversation, offer: OfferRelay) -> None:
        """A peer volunteers to relay, or does no more."""
        await self._registry.await_account(conversation)
        if not offer.streams:
            if (conversation.key, "relay") in self._wishes:
                self._forget(conversation.key, "relay")
            return
        if not conversation.account:
            raise NotRegistered("a relay needs an account, so that others can rely on it: send `register` first")
        rules = self.rules
        if not (rules.relays.volunteers and rules.reach.test):
            raise NotAllowed("this horde asks no peers to relay: the rules relays.volunteers and reach.test say so")
        if conversation.is_closed:
            return
        self._offers[conversation.key] = offer
        ports = (offer.port,) if offer.port >= reach.LOWEST_PORT else ()
        self._want("relay", _Wish(conversation, ports, offer.certificate), is_asked=True)
        self._name_relay(conversation.key)  # reached before, under the same address: other terms

    def _want(self, role: Role, wish: _Wish, *, is_asked: bool = False) -> None:
        """Have a peer tested wherever it comes from, and ask it to come by the other version of IP too. is_asked: it
        waits for an answer, also if nothing new is to be said."""
        place, conversation = self.place, wish.conversation
        if place is None or not self.rules.reach.test:
            return
        former = self._wishes.get((conversation.key, role))
        self._wishes[conversation.key, role] = wish
        is_news = is_asked or former is None or former.conversation is not conversation
        address, other = conversation.address, self._looks.other(conversation)
        known = (address,) if other is None else (address, other)
        for at in known:
            self._want_at(place, role, wish, at, is_news=is_news)
        for version in {0, 4, 6} - {_version(at) for at in known}:  # where another connection came from
            self._probes.drop((conversation.key, role, version))
        if place.has_name and not place.trust.covers(address) and not self._looks.knows(conversation):
            self._look(conversation)

    def _look(self, conversation: Conversation) -> None:
        if (look := self._looks.invitation(conversation, self.clock())) is not None:
            conversation.tell(look)

    def looked(self, token: bytes, client: Client) -> bool:
        """Somebody comes to `/meet`; whether it is one that was asked to come a second time."""
        conversation, place = self._looks.arrive(token, client.address, self.clock()), self.place
        if conversation is None or place is None:
            return False
        address = self._looks.other(conversation)
        # An address to which nobody may be sent is none; there is still the first one.
        if address is not None and self._refusal(place, address, (reach.LOWEST_PORT,)) is None:
            for role in self._roles(conversation):
                self._want_at(place, role, self._wishes[conversation.key, role], address, is_news=False)
        return True

    def _want_at(self, place: Place, role: Role, wish: _Wish, address: IPAddress | None, *, is_news: bool) -> None:
        """Have a peer tested at one address, where that may be; else tell it why not. is_news: what is known already is
        told as well."""
        key = wish.conversation.key
        name, target = (key, role, _version(address)), Target(key, address or NOWHERE, wish.ports, wish.certificate)
        if (refusal := self._refusal(place, address, wish.ports)) is None:
            self._probes.want(name, target, self.clock())
            if is_news and (known := self._probes.result(name)) is not None:
                self._say(name, known)
        elif is_news or self._probes.result(name) != refusal:
            self._probes.settle(name, target, refusal)
            self._heard(name, refusal)

    def _refusal(self, place: Place, address: IPAddress | None, ports: tuple[int, ...]) -> Result | None:
        if address is None or place.trust.covers(address):
            text = "the tracker cannot see from where this connection comes: a proxy hides it, or it is a web page's"
            return Result("", "no_address", text)
        ours = place.home is Home.PUBLIC and reach.is_ours(address)
        if fault := reach.why_not(address, place.home, ours=ours):
            return Result("", "private_address", f"{fault}, and the horde is elsewhere: nobody is sent there")
        if not ports:
            return Result("", "port", f"no port from {reach.LOWEST_PORT} to 65535 was named: nothing else is tried")
        return None

    async def _probe(self, name: Name, target: Target) -> None:
        result = Result("", "timeout", "the test was broken off")
        try:
            result = await reach.probe(target, self.root)
        finally:
            if self._probes.done(name, target, result, self.clock(), self.rules.reach):
                self._heard(name, result)

    def _heard(self, name: Name, result: Result) -> None:
        """A test has a result: the peer hears of it, and a relay may be named from now on, or no more."""
        self.counts["tests"] += 1
        key, role, version = name
        conversation = self._wishes[key, role].conversation
        if role == "relay":
            self._name_relay(key)
        outcome = f"not reachable: {result.reason}" if result.reason else "reachable"
        log.info("%s %s is %s", role, show_key(key)[:8], outcome)
        self._say(name, result)
        if not result.reachable and version != _version(conversation.address):
            self._look(conversation)  # it may have another one by now

    def _say(self, name: Name, result: Result) -> None:
        key, role, _ = name
        self._wishes[key, role].conversation.tell(
            Reached(address=result.address, reachable=result.reachable, reason=result.reason, text=result.text[:2000])
        )

    def _name_relay(self, key: bytes) -> None:
        """From now on this peer is a relay under the addresses at which it was reached, if there are any."""
        offer, wish = self._offers.get(key), self._wishes.get((key, "relay"))
        if offer is None or wish is None or wish.conversation.address is None:
            return
        own = wish.conversation.address
        results = [self._probes.result((key, "relay", version)) for version in (own.version, 10 - own.version)]
        addresses = tuple(result.address for result in results if result is not None and result.reachable)
        if addresses:
            self._volunteers.add(Volunteer(key, addresses, household_of(own), wish.conversation.account, offer))
        else:
            self._volunteers.remove(key)

    # Meeting

    async def ask(self, conversation: Conversation, asked: AskPaths) -> None:
        """A requester has no direct path to its worker: tell both how they can meet."""
        lease = self._jobs.leases.of_job(asked.job)
        if lease is None or lease.request not in conversation.requests:
            raise UnknownJob("this session has no such job under way")
        if lease.attempt != asked.attempt:
            raise Fenced(f"attempt {asked.attempt} is over: {lease.attempt} is the latest")
        now = self.clock()
        self._askings.ask(lease.name, now)
        standing = await self._store.standing(lease.job, lease.attempt)
        if standing is None:
            raise UnknownJob("there is no such attempt")
        self.counts[f"asked: {asked.reason if asked.reason in REASONS else 'other'}"] += 1
        if asked.reason in ("timeout", "no_connection"):
            for version in (4, 6):
                self._probes.doubt((lease.worker, "worker", version), now, self.rules.reach)
        if self.rules.meet.punching and not asked.relays_only:
            self._arrange(lease, conversation, now)
        terms = documents.open_document(parse(standing.lease), Lease)
        given = self._tickets(terms, now, conversation, hides=asked.relays_only)
        self.counts["tickets"] += len(given)
        paths = Paths(job=lease.job, attempt=lease.attempt, tickets=given, reason="" if given else "no_path")
        self._tell(lease, "worker", paths)
        self._tell(lease, "requester", paths)

    def _tickets(self, lease: Lease, now: int, requester: Conversation, *, hides: bool) -> tuple[bytes, ...]:
        rules, terms = self.rules.relays, []
        if rules.volunteers:
            sides = self._addresses_of(requester), self._worker_addresses(lease.worker)
            versions = [frozenset(address.version for address in side) for side in sides]
            # Who wants to hide from the worker is not sent to the worker's own house.
            worker = self._wishes.get((lease.worker, "worker"))
            avoided = Avoided()
            if hides and worker is not None:
                avoided = Avoided(frozenset(map(household_of, sides[1])), worker.conversation.account)
            chosen = self._volunteers.choose(lease, now, versions, avoided)
            terms += [relaying.ticket_of(lease, rules, now, volunteer) for volunteer in chosen]
        if rules.tracker and self.place is not None:
            terms.append(relaying.ticket(lease, rules, now, key=self.key, url=self.place.url))
        return relaying.tickets(terms, self.key, self.root)

    def _addresses_of(self, conversation: Conversation) -> list[IPAddress]:
        found = (conversation.address, self._looks.other(conversation))
        return [address for address in found if address is not None]

    def _worker_addresses(self, key: bytes) -> list[IPAddress]:
        wish = self._wishes.get((key, "worker"))
        return self._addresses_of(wish.conversation) if wish is not None else []

    def _arrange(self, lease: LiveLease, requester: Conversation, now: int) -> None:
        """Invite both sides to a meeting."""
        if self._listener(lease, "worker") is None:
            return
        worker = self._wishes.get((lease.worker, "worker"))
        family = meeting.common_family(requester.address, worker.conversation.address if worker else None)
        arranged = self.meetings.arrange(lease.job, lease.attempt, self.rules.meet.tries, now, family)
        self.counts["meetings"] += 1
        for side in meeting.OTHER:
            self._tell(lease, side, arranged.invitation(side))

    def _listener(self, lease: LiveLease, side: Side) -> Listener | None:
        return self._presence.worker(lease.worker) if side == "worker" else self._presence.requester(lease.request)

    def _tell(self, lease: LiveLease, side: Side, message: SessionMessage) -> None:
        if (listener := self._listener(lease, side)) is not None:
            listener.tell(message)

    def arrive(self, token: bytes, client: Client) -> meeting.Seat:
        """Somebody comes to `/meet`; raises `BadToken`."""
        return self.meetings.arrive(token, client, self.clock())

    def ready(self, held: Meeting) -> None:
        """Somebody who came is known. When both are, they begin."""
        if held.is_ready and not held.is_over and not held.has_begun:
            held.has_begun = True
            task = asyncio.create_task(self._lead(held), name="meeting")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _lead(self, held: Meeting) -> None:
        """Try after try, until somebody has what it wanted."""
        try:
            place = self.place
            fault = "the tracker is not open" if place is None else held.why_not(place.home)
            for number in range(1, held.tries + 1) if not fault else ():
                lease = self._jobs.leases.of_job(held.job)
                if lease is None or lease.attempt != held.attempt:
                    fault = "the attempt is over"
                    break
                self.counts["punches"] += 1
                for side in meeting.OTHER:
                    self._tell(lease, side, held.punch(side, number))
                await asyncio.wait((held.over,), timeout=meeting.TRY_S)
                if held.is_over:
                    self.counts["met"] += 1
                    return
            self.meetings.end(held, f"{NoPath.code}: {fault or 'no try was left'}")
        finally:
            self.meetings.end(held, f"{NoPath.code}: a fault of the tracker")

    # Numbers

    def scrape(self) -> dict[str, object]:
        """How it goes, in numbers that concern nobody in particular."""
        rooms, counts = self.rooms, self.counts
        return {
            "reach": {"workers": self._probes.counts("worker"), "relays": self._probes.counts("relay")},
            "paths": {name: counts[name] for name in sorted(counts)},
            "relayed": {
                "streams": rooms.streams,
                "pairs": rooms.pairs,
                "bytes": rooms.carried,
                "text": f"this tracker passed on {rooms.carried:,} bytes for people who could not connect: a gift",
            },
        }
