"""The race for a path to a worker: what `peer.paths.choice` decides, on sockets and tasks.

The first path is waited for; a better one that comes later is shown in `better`, as long as the race is not over.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp.abc import AbstractResolver

from peer.paths.addresses import Address, dial
from peer.paths.choice import TIMING, Ask, Choice, Drop, Effect, GiveUp, Path, Timing, Try, Use, Way
from peer.paths.connector import Connector, WrongCertificate
from peer.paths.punch import NoMeeting, Punching, meeting_of
from peer.paths.relay_end import NotRelayed, RelayEnds, Ticket, Tracker, check_ticket
from protocol.errors import Busy, Refusal
from protocol.keys import SigningKey
from protocol.messages import AskPaths, Meet, Paths, Punch, Refused

#: Trackers refuse to be asked about one attempt twice within a second.
ASK_AGAIN_SECONDS = 1.1
#: How many relays are remembered for having let us down, and how long.
MAX_DOUBTED = 64
DOUBTED_SECONDS = 600.0

Said = Meet | Punch | Paths

log = logging.getLogger(__name__)


class NoPath(Exception):
    """No way leads to the worker. reason: a code; the text says what was tried."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True)
class Taken:
    """A path that stands. name: of its connection. reason: why this one, for people. relay: the key of the one that it
    leads through, if there is any."""

    path: Path
    name: str
    reason: str
    relay: bytes = b""


@dataclass
class Guide:
    """The tracker's help for one attempt. attempt: job and number. key: the job key. say: a session message, None if it
    cannot be sent now. now: the tracker's clock. tracker: how it is reached. asked: digest of our question; asked_at:
    when it was put, on the loop's clock, also if that was for an earlier opening of the attempt. open_ms: so long the
    tracker gives from the lease to the opening, 0 where that is not known."""

    attempt: tuple[bytes, int]
    key: SigningKey
    root: bytes
    serving: Callable[[], bytes | None]
    say: Callable[[AskPaths], Awaitable[bytes | None]]
    now: Callable[[], int]
    tracker: Tracker
    relays_only: bool = False
    open_ms: int = 0
    asked: bytes | None = None
    asked_at: float | None = None
    _listener: Callable[[Said | Refused], None] | None = None

    def told(self, message: Said) -> None:
        """The tracker says something about this attempt; nobody hears it but a race that is under way."""
        if self._listener is not None and (message.job, message.attempt) == self.attempt:
            self._listener(message)

    def refused(self, message: Refused) -> bool:
        """The tracker refuses something; whether it was our question."""
        if self.asked is None or message.about != self.asked:
            return False
        if self._listener is not None:
            self._listener(message)
        return True

    def listen(self, listener: Callable[[Said | Refused], None] | None) -> None:
        """From now on this one hears what is said."""
        self._listener = listener


@dataclass(frozen=True)
class Ground:
    """What all races of a requester share. relays: None where nothing is relayed. connect_seconds: for each
    connection, and again for its handshake. doubted: relays over which a stream has broken, and until when, on the
    loop's clock, they are tried after all others."""

    connector: Connector
    relays: RelayEnds | None
    resolver: AbstractResolver
    connect_seconds: float
    private_too: bool
    timing: Timing = TIMING
    doubted: dict[bytes, float] = field(default_factory=dict)

    def doubt(self, relay: bytes) -> None:
        """For a while this relay is tried after all others: it may be the one that broke a stream."""
        if relay:
            self.doubted.pop(relay, None)
            self.doubted[relay] = asyncio.get_running_loop().time() + DOUBTED_SECONDS
        while len(self.doubted) > MAX_DOUBTED:
            del self.doubted[next(iter(self.doubted))]

    def doubts(self, ticket: Ticket) -> bool:
        """Whether the relay of this ticket is tried after all others."""
        return self.doubted.get(ticket.terms.relay, 0.0) > asyncio.get_running_loop().time()


@dataclass(eq=False)
class _Run:
    """One way under way. name: of its connection, once that stands."""

    task: asyncio.Task[None] | None = None
    name: str = ""
    punching: Punching | None = None


class Race:
    """One race, from entering to leaving its context. guide: None where nobody can help."""

    def __init__(
        self, addresses: Sequence[Address], none_because: str, certificate: bytes, ground: Ground, guide: Guide | None
    ) -> None:
        self.better: Taken | None = None
        #: Called when there is a better path.
        self.on_better: Callable[[], None] = _nothing
        self._addresses = addresses
        self._certificate = certificate
        self._ground = ground
        self._guide = guide
        self._timing = ground.timing.within(guide.open_ms) if guide is not None and guide.open_ms else ground.timing
        self._choice = Choice(
            [str(address) for address in addresses],
            none_because,
            helped=guide is not None,
            relays_only=guide is not None and guide.relays_only,
            timing=self._timing,
        )
        self._runs: dict[Way, _Run] = {}
        self._tickets: list[Ticket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._first: asyncio.Future[Taken] = asyncio.get_running_loop().create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._meeting: Meet | None = None
        self._reason = ""  # for which the tracker was asked

    async def __aenter__(self) -> Race:
        if self._guide is not None:
            self._guide.listen(self._heard)
        self._carry_out(self._choice.begin(self._clock()))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._guide is not None:
            self._guide.listen(None)
        if self._timer is not None:
            self._timer.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for run in self._runs.values():
            self._ground.connector.drop(run.name)
        if self._first.done() and not self._first.cancelled():
            self._first.exception()  # heard of, also where nobody waited for it
        self._first.cancel()

    @property
    def is_over(self) -> bool:
        """Whether nothing better can come any more."""
        return self._choice.is_over and self.better is None

    @property
    def half_seconds(self) -> float:
        """Half of the time that the race has."""
        return self._timing.race / 2000

    async def first(self) -> Taken:
        """The first path that stands; raises `NoPath`."""
        return await self._first

    async def instead(self, taken: Taken, reason: str, text: str) -> Taken:
        """The path that stands in place of the one that was taken, which ended before the worker answered; raises
        `NoPath` if none does in what is left of the race's time."""
        self._ground.doubt(taken.relay)
        if (better := self.take_better()) is not None:
            return better
        self._first = asyncio.get_running_loop().create_future()
        self._carry_out(self._choice.broke(reason, text, self._clock()))
        return await self._first

    def take_better(self) -> Taken | None:
        """The better path, if there is one: it is the caller's from now on."""
        taken, self.better = self.better, None
        return taken

    def _carry_out(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case Try(way):
                    self._runs[way] = run = _Run()
                    run.task = self._spawn(self._try(way, run))
                case Ask(reason):
                    _ = self._spawn(self._ask(reason))
                case Use(way, reason):
                    relay = self._tickets[way.number].terms.relay if way.path is Path.RELAYED else b""
                    self._use(Taken(way.path, self._runs[way].name, reason, relay))
                case Drop(way):
                    run = self._runs[way]
                    if run.task is not None and run.task is not asyncio.current_task():
                        run.task.cancel()
                    self._ground.connector.drop(run.name)
                case GiveUp(reason, text):
                    if not self._first.done():
                        self._first.set_exception(NoPath(reason, text))
        self._set_timer()

    def _use(self, taken: Taken) -> None:
        if not self._first.done():
            self._first.set_result(taken)
            return
        if self.better is not None:
            self._ground.connector.drop(self.better.name)
        self.better = taken
        self.on_better()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if (wake := self._choice.wake) is not None:
            delay = max(0, wake - self._clock()) / 1000
            self._timer = asyncio.get_running_loop().call_later(delay, self._tick)

    def _tick(self) -> None:
        self._carry_out(self._choice.tick(self._clock()))

    # The tracker

    async def _ask(self, reason: str) -> None:
        guide = self._guide
        assert guide is not None  # noqa: S101 (else nothing is asked)
        self._reason = reason
        job, attempt = guide.attempt
        message = AskPaths(job=job, attempt=attempt, relays_only=guide.relays_only, reason=reason[:40])
        clock = asyncio.get_running_loop().time
        if guide.asked_at is not None:
            await asyncio.sleep(max(0.0, guide.asked_at + ASK_AGAIN_SECONDS - clock()))
        guide.asked_at = clock()
        guide.asked = await guide.say(message)
        if guide.asked is None:
            text = "the tracker, which could name another path, cannot be reached now"
            self._carry_out(self._choice.not_asked("no_path", text))

    def _heard(self, message: Said | Refused) -> None:
        now = self._clock()
        match message:
            case Refused(code=Busy.code) if self._choice.is_asking:
                # The two askings of an attempt came closer together than they were put: the net is not even.
                _ = self._spawn(self._ask(self._reason))
            case Refused():
                self._carry_out(self._choice.not_asked(message.code, f"the tracker: {message.text}"))
            case Meet():
                self._meeting = message
                self._carry_out(self._choice.meeting(now))
            case Punch():
                for run in self._runs.values():
                    if run.punching is not None:
                        run.punching.told(message)
            case Paths():
                found, reason = [], message.reason
                for raw in message.tickets:
                    try:
                        found.append(self._checked(raw))
                    except Refusal as error:
                        log.warning("a relay ticket that cannot be used: %s", error.text)
                        reason = error.code
                found.sort(key=self._ground.doubts)
                self._tickets += found
                doubted = sum(map(self._ground.doubts, found))
                self._carry_out(self._choice.relays([ticket.name for ticket in found], reason, now, doubted))

    def _checked(self, raw: bytes) -> Ticket:
        guide = self._guide
        assert guide is not None  # noqa: S101 (it passed the message on)
        return check_ticket(
            raw,
            root=guide.root,
            serving=guide.serving(),
            me=guide.key.public,
            attempt=guide.attempt,
            now=guide.now(),
        )

    # The ways

    async def _try(self, way: Way, run: _Run) -> None:
        try:
            connection = await self._connected(way, run)
            run.name = await self._ground.connector.connect_over(
                connection,
                self._certificate,
                self._ground.connect_seconds,
                # A relay is for one attempt, and holds a place for as long as we stay.
                once=way.path is Path.RELAYED,
            )
        except (NoMeeting, NotRelayed) as error:
            effects = self._choice.failed(way, error.reason, str(error), self._clock())
        except WrongCertificate as error:
            effects = self._choice.failed(way, "wrong_certificate", str(error), self._clock())
        except (OSError, ValueError) as error:  # a name that cannot be one is a ValueError
            reason, text = "no_connection", str(error) or type(error).__name__
            if isinstance(error, TimeoutError):
                reason, text = "timeout", "no answer in time"
            effects = self._choice.failed(way, reason, text, self._clock())
        else:
            effects = self._choice.stands(way, self._clock())
        self._carry_out(effects)

    async def _connected(self, way: Way, run: _Run) -> socket.socket:
        match way.path:
            case Path.DIRECT:
                async with asyncio.timeout(self._ground.connect_seconds):
                    return await dial(self._addresses[way.number], self._ground.resolver)
            case Path.PUNCHED:
                return await self._punched(run)
            case Path.RELAYED:
                guide, relays = self._guide, self._ground.relays
                assert guide is not None  # noqa: S101 (it brought the ticket)
                if relays is None:
                    raise NotRelayed("no_path", "nothing is relayed here")
                return await relays.join(self._tickets[way.number], guide.key, guide.root)

    async def _punched(self, run: _Run) -> socket.socket:
        guide, meet = self._guide, self._meeting
        assert guide is not None  # noqa: S101 (it brought the message)
        assert meet is not None  # noqa: S101
        tracker = guide.tracker
        run.punching = Punching(meeting_of(meet, tracker.url, tracker.tls, private_too=self._ground.private_too))
        connection, _ = await run.punching.connect()
        return connection

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self._first.done():
            self._first.set_exception(error)

    def _clock(self) -> int:
        return int(asyncio.get_running_loop().time() * 1000)


def _nothing() -> None:
    pass
