"""What every relay does, the tracker's own and a volunteer's: who may come in, who meets whom, and how much may pass.

A relay moves bytes between two ends and cannot read them: what passes is one TLS connection from requester to worker.
Here are its decisions, with the time as an argument; `protocol.pump` waits for the ends and moves what they say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

from protocol.documents import RelayEntry, RelayTicket, open_document, parse_document
from protocol.envelope import check_document_context
from protocol.errors import BadTicket, NoPath, OverTicket, Refusal, RelayFull, TooSlow
from protocol.keys import show_key

Side = Literal["requester", "worker"]
#: Handle of the job, and number.
Attempt = tuple[bytes, int]
T = TypeVar("T")

#: The largest message that a relay reads, and all that it holds of each direction.
MAX_MESSAGE_BYTES = 64 * 1024
#: An end that has come waits so long for the other one.
MEET_MS = 30_000
#: Two are parted when one takes nothing for so long, or neither says anything.
STALLED_MS = 30_000
SILENT_MS = 60_000
#: After a pause, the bytes of so many milliseconds may pass at once.
BURST_MS = 250
#: How often attempts whose tickets are over are forgotten.
FORGET_MS = 60_000


@dataclass(frozen=True)
class Admitted:
    """Somebody who may come in. Two of the same attempt meet, whichever of its tickets each shows."""

    terms: RelayTicket
    side: Side

    @property
    def attempt(self) -> Attempt:
        """What it comes for. Whoever asks for paths again gets new tickets, and no more of a relay by that."""
        return self.terms.job, self.terms.attempt


def check_entry(raw: bytes, challenge: bytes, *, root: bytes, serving: bytes, relay: bytes, now: int) -> Admitted:
    """Who comes in with this `relay_entry`; raises `Refusal`, of which `BadTicket` for what is sound and does not open
    this relay. relay: this relay's key. now: by the tracker's clock."""
    entry = parse_document(raw, RelayEntry)
    check_document_context(entry, root)
    entry.verify()
    body = open_document(entry, RelayEntry)
    if body.challenge != challenge:
        raise BadTicket("an entry for another connection: sign for the challenge of this one")
    ticket = parse_document(body.ticket, RelayTicket)
    check_document_context(ticket, root)
    if ticket.key != serving:
        raise BadTicket(
            f"a ticket by key {show_key(ticket.key)[:8]}…, which does not serve this horde: ask for a new one"
        )
    ticket.verify()
    terms = open_document(ticket, RelayTicket)
    if terms.relay != relay:
        raise BadTicket(f"a ticket for relay {show_key(terms.relay)[:8]}…, and this is {show_key(relay)[:8]}…")
    if entry.key not in (terms.requester, terms.worker):
        raise BadTicket("a ticket of two others: only those that it names come in with it")
    if terms.requester == terms.worker:
        raise BadTicket("a ticket for one: there is nobody to meet")
    if now > terms.valid_until:
        raise BadTicket(f"a ticket until {terms.valid_until}, and it is {now}: ask for a new one")
    return Admitted(terms, "requester" if entry.key == terms.requester else "worker")


class Meter:
    """How much one attempt has used: bytes in all, and how fast they pass; exact, in whole numbers."""

    def __init__(self, max_bytes: int, max_rate: int) -> None:
        self.carried = 0
        self._max_bytes = max_bytes
        self._max_rate = max_rate
        self._level = 0  # of a bucket that leaks at max_rate, in thousandths of bytes
        self._looked = 0

    def take(self, size: int, now: int) -> int:
        """Count so many bytes; the milliseconds to wait before they are passed on. Raises `OverTicket`."""
        if self.carried + size > self._max_bytes:
            raise OverTicket(f"{self._max_bytes} bytes may pass here for an attempt, and they are used up")
        self.carried += size
        leaked = self._max_rate * max(0, now - self._looked)
        self._looked = max(now, self._looked)
        self._level = max(0, self._level - leaked) + size * 1000
        above = self._level - self._max_rate * BURST_MS
        return max(0, -(-above // self._max_rate))


class End(Protocol):
    """One end's socket, as far as a relay needs it. Both may raise `ConnectionError`."""

    async def read(self) -> bytes:
        """The next message, at most `MAX_MESSAGE_BYTES`; empty when the end has gone."""

    async def write(self, data: bytes) -> None:
        """Send one message; waits while the end takes no more."""


def _nobody() -> None:
    pass


@dataclass(eq=False)
class Stay:
    """One end's time at a relay, from its entry to its leaving.

    other: the stay of who was met, None before. is_over: whether it has ended, and why, if there is a reason. wake:
    called whenever these have changed. heard: when this end last said something. giving_since: since when the other end
    has been taking what this one said; 0 while it takes nothing.
    """

    admitted: Admitted
    end: End
    household: str
    came: int
    heard: int
    giving_since: int = 0
    other: Stay | None = None
    is_over: bool = False
    why: Refusal | None = None
    wake: Callable[[], None] = _nobody

    def check(self, now: int) -> None:
        """Raise what ends this stay at `now`, if anything does."""
        until = self.admitted.terms.valid_until
        if now > until:
            raise OverTicket(f"this ticket was until {until}, and it is {now}: ask for a new one")
        if self.other is None:
            if now - self.came > MEET_MS:
                raise NoPath(f"the other side did not come within {MEET_MS // 1000} s: ask for paths again")
        elif self.giving_since and now - self.giving_since > STALLED_MS:
            raise TooSlow(f"one side took nothing for {STALLED_MS // 1000} s: connect again and read")
        elif now - max(self.heard, self.other.heard) > SILENT_MS:
            raise TooSlow(f"neither side said anything for {SILENT_MS // 1000} s: connect again")


@dataclass(frozen=True)
class Limits:
    """What a relay takes on. streams: attempts at once. of_one: ends of one side from one household. max_rate: bytes a
    second of one attempt, where that is less than the ticket's; 0 for no bound of its own."""

    streams: int
    of_one: int
    max_rate: int = 0


class Rooms:
    """Who is at this relay, waiting or met, and what is left for each attempt.

    carried: bytes that have passed; pairs: how many have met. Neither earns anything: they are a gift.
    """

    def __init__(self, limits: Callable[[], Limits]) -> None:
        self.carried = 0
        self.pairs = 0
        self._limits = limits
        self._here: dict[tuple[Attempt, Side], Stay] = {}
        self._attempts: Counter[Attempt] = Counter()
        self._households: Counter[tuple[str, Side]] = Counter()
        self._meters: dict[Attempt, tuple[Meter, int]] = {}
        self._forgot = 0

    @property
    def streams(self) -> int:
        """Attempts with somebody here."""
        return len(self._attempts)

    def enter(self, admitted: Admitted, end: End, household: str, now: int) -> Stay:
        """Come in; raises `RelayFull`. Who comes again takes the place of its former connection."""
        name = admitted.attempt, admitted.side
        if (former := self._here.get(name)) is not None:
            self.leave(former)
        limits = self._limits()
        if admitted.attempt not in self._attempts and len(self._attempts) >= limits.streams:
            raise RelayFull(f"this relay has {limits.streams} streams, as many as it takes: try another one, or later")
        if self._households[household, admitted.side] >= limits.of_one:
            raise RelayFull(f"your place has {limits.of_one} streams here, as many as one may have: end one, or wait")
        self._forget(now)
        stay = self._here[name] = Stay(admitted, end, household, came=now, heard=now)
        self._attempts[admitted.attempt] += 1
        self._households[household, admitted.side] += 1
        other = self._here.get((admitted.attempt, "worker" if admitted.side == "requester" else "requester"))
        if other is not None:
            self.pairs += 1
            stay.heard = other.heard = now
            stay.other, other.other = other, stay
            other.wake()
        return stay

    def leave(self, stay: Stay, why: Refusal | None = None) -> None:
        """Go, and with it the one that was met, who hears why. Nothing happens for who has gone already."""
        name = stay.admitted.attempt, stay.admitted.side
        if self._here.get(name) is not stay:
            return
        del self._here[name]
        _less(self._attempts, stay.admitted.attempt)
        _less(self._households, (stay.household, stay.admitted.side))
        stay.is_over, stay.why = True, why
        stay.wake()
        if stay.other is not None:
            self.leave(stay.other, why)

    def clear(self, why: Refusal) -> None:
        """Send everybody away."""
        for stay in list(self._here.values()):
            self.leave(stay, why)

    def meter(self, admitted: Admitted) -> Meter:
        """What counts the bytes of this attempt, from its first ticket's use to its last one's end, however often the
        two come back."""
        terms, own = admitted.terms, self._limits().max_rate
        meter, until = self._meters.get(admitted.attempt, (None, 0))
        meter = meter or Meter(terms.max_bytes, min(terms.max_rate, own) if own else terms.max_rate)
        self._meters[admitted.attempt] = meter, max(until, terms.valid_until)
        return meter

    def _forget(self, now: int) -> None:
        """Tickets that are over are refused at the door: nobody needs to know what was left for their attempt."""
        if now - self._forgot >= FORGET_MS:
            self._forgot = now
            self._meters = {attempt: known for attempt, known in self._meters.items() if known[1] >= now}


def _less(counter: Counter[T], name: T) -> None:
    counter[name] -= 1
    if not counter[name]:
        del counter[name]
