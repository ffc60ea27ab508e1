"""The meeting place for hole punching: who may come, from where each came, and when both start. No sockets here.

Each side of an attempt gets a token of its own. Who comes with it to `/meet` shows by that connection which address and
port its router gives it, and how far it is. When both are there, they are told each other's at the same moment.
"""

from __future__ import annotations

import asyncio
import base64
import re
import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Literal

from protocol.errors import BadToken
from protocol.messages import Meet, Punch
from protocol.relay import Side
from tracker.forwarded import Client, IPAddress
from tracker.reach import Home, shown, why_not

#: A token serves so long.
TOKEN_MS = 10_000
#: Between the beginnings of two tries.
TRY_S = 1.5
#: Meetings at once; the oldest makes room for one more.
MAX_MEETINGS = 1024
TOKEN_BYTES = 16
MAX_DELAY_MS = 2_000

OTHER: dict[Side, Side] = {"requester": "worker", "worker": "requester"}


@dataclass(eq=False)
class Seat:
    """One side's place at a meeting. client: from where it came. rtt: milliseconds there and back, once measured."""

    meeting: Meeting
    side: Side
    token: bytes
    client: Client | None = None
    rtt: int | None = None


@dataclass(eq=False)
class Meeting:
    """Two that are to connect to each other. until: both have to have come. family: by which version of IP, 0
    for any. has_begun: the first try was told. over: set, with what is to be said, when there is nothing left to do."""

    job: bytes
    attempt: int
    tries: int
    until: int
    family: Literal[0, 4, 6] = 0
    has_begun: bool = False
    seats: dict[Side, Seat] = field(default_factory=dict)
    over: asyncio.Future[str] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to do."""
        return self.over.done()

    def end(self, why: str) -> None:
        """There is nothing left to do."""
        if not self.over.done():
            self.over.set_result(why)

    @property
    def is_ready(self) -> bool:
        """Whether both are there and known."""
        return all(seat.client is not None and seat.rtt is not None for seat in self.seats.values())

    def invitation(self, side: Side) -> Meet:
        """What one side is told first."""
        return Meet(
            job=self.job, attempt=self.attempt, token=self.seats[side].token, tries=self.tries, family=self.family
        )

    def punch(self, side: Side, number: int) -> Punch:
        """What one side is told when both are ready: the nearer one waits until the farther one has heard it too."""
        own, other = self.seats[side], self.seats[OTHER[side]]
        client = other.client
        if client is None or client.address is None or client.port is None:
            raise ValueError("a meeting that is not ready")
        ahead = ((other.rtt or 0) - (own.rtt or 0)) // 2
        return Punch(
            job=self.job,
            attempt=self.attempt,
            number=number,
            address=shown(client.address, client.port),
            delay=min(max(0, ahead), MAX_DELAY_MS),
        )

    def why_not(self, home: Home) -> str:
        """Why these two cannot connect to each other, as far as can be told; empty if nothing speaks against it."""
        clients = [seat.client for seat in self.seats.values()]
        families = set()
        for client in clients:
            if client is None or client.address is None or client.port is None:
                return "the tracker cannot see address and port of both: it is behind a proxy that does not tell"
            if fault := why_not(client.address, home, ours=False):
                return fault
            families.add(client.address.version)
        return "" if len(families) == 1 else "one came by IPv4 and the other by IPv6"


class Meetings:
    """All meetings that are arranged and not over."""

    def __init__(self) -> None:
        self._by_token: OrderedDict[bytes, Seat] = OrderedDict()
        self._by_attempt: dict[tuple[bytes, int], Meeting] = {}

    def __len__(self) -> int:
        return len(self._by_attempt)

    def arrange(self, job: bytes, attempt: int, tries: int, now: int, family: Literal[0, 4, 6] = 0) -> Meeting:
        """A meeting of this attempt's two sides, by this version of IP; a former one ends."""
        self.sweep(now)
        if (former := self._by_attempt.get((job, attempt))) is not None:
            self.end(former, "another meeting of this attempt was asked for")
        while len(self._by_attempt) >= MAX_MEETINGS:
            self.end(next(iter(self._by_attempt.values())), "more meetings than the tracker holds: ask again")
        meeting = Meeting(job, attempt, tries, now + TOKEN_MS, family)
        for side in OTHER:
            seat = meeting.seats[side] = Seat(meeting, side, secrets.token_bytes(TOKEN_BYTES))
            self._by_token[seat.token] = seat
        self._by_attempt[job, attempt] = meeting
        return meeting

    def arrive(self, token: bytes, client: Client, now: int) -> Seat:
        """Somebody comes with a token, which serves no more; raises `BadToken`."""
        seat = self._by_token.pop(token, None)
        if seat is None or seat.meeting.is_over or now > seat.meeting.until:
            raise BadToken("no such token, or one that was used or is older than 10 s: ask for paths again")
        seat.client = client
        return seat

    def end(self, meeting: Meeting, why: str) -> None:
        """There is nothing left to do at this one."""
        meeting.end(why)
        for seat in meeting.seats.values():
            self._by_token.pop(seat.token, None)
        if self._by_attempt.get((meeting.job, meeting.attempt)) is meeting:
            del self._by_attempt[meeting.job, meeting.attempt]

    def clear(self, why: str) -> None:
        """End all of them."""
        for meeting in list(self._by_attempt.values()):
            self.end(meeting, why)

    def sweep(self, now: int) -> None:
        """Meetings to which somebody did not come in time are over. Tokens lie in the order of their ends."""
        while self._by_token:
            meeting = next(iter(self._by_token.values())).meeting
            if now <= meeting.until:
                return
            self.end(meeting, "one side did not come in time")


def common_family(one: IPAddress | None, other: IPAddress | None) -> Literal[0, 4, 6]:
    """By which version of IP two should come whose connections come from these addresses; 0 if that is not known.

    Who has both comes by IPv6 as a rule, so that of two who differ the one that came by IPv4 had no choice.
    """
    if one is None or other is None:
        return 0
    return 6 if one.version == other.version == 6 else 4


def read_token(text: str) -> bytes:
    """The token as `/meet` is asked for with it; raises `BadToken`."""
    if not re.fullmatch(r"[a-z2-7]{26}", text):
        raise BadToken(f"{text[:40]!r} is no token: wanted the 26 characters of a `meet`")
    return base64.b32decode(text.upper() + "======")
