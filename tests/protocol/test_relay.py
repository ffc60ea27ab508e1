"""What relays share: who comes in, what a ticket allows, who meets whom, and when they are parted."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import codec, pump, relay
from protocol.envelope import Envelope, seal
from protocol.errors import BadTicket, NoPath, OutOfTurn, OverTicket, Refusal, RelayFull, TooSlow
from protocol.pump import attend
from protocol.relay import Admitted, End, Limits, Meter, Rooms, check_entry
from tests.support import builders as b

pytestmark = pytest.mark.asyncio

VOLUNTEER = b.a_key(30)
CHALLENGE = b.a_nonce(30)
TICKET = b.a_relay_ticket(relay=VOLUNTEER)


def entry(ticket=None, key=b.JOB_KEY, challenge: bytes = CHALLENGE, root=b.ROOT) -> bytes:
    """What one side shows."""
    return b.signed(b.a_relay_entry(ticket or b.signed(TICKET), challenge), key, root).raw


#: A ticket whose bounds somebody has raised.
FORGED = seal("relay_ticket", codec.encode(b.but(TICKET, max_bytes=10**9)), b.SERVING, b.ROOT.public)
FORGED = Envelope(
    FORGED.kind,
    FORGED.key,
    FORGED.context,
    FORGED.body,
    b.signed(TICKET).signature,
    codec.encode([1, FORGED.kind, FORGED.key, FORGED.context, FORGED.body, b.signed(TICKET).signature]),
)


def judged(raw: bytes, now: int = b.NOW) -> Admitted:
    return check_entry(raw, CHALLENGE, root=b.ROOT.public, serving=b.SERVING.public, relay=VOLUNTEER.public, now=now)


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pump, "LOOK_S", 0.01)


# Who comes in


async def test_both_sides_of_a_ticket_come_in_with_their_own_keys() -> None:
    requester, worker = judged(entry()), judged(entry(key=b.WORKER))

    assert (requester.side, worker.side) == ("requester", "worker")
    assert requester.attempt == worker.attempt == (TICKET.job, TICKET.attempt)
    assert requester.terms == TICKET


@pytest.mark.parametrize(
    ("code", "raw"),
    [
        ("bad_ticket", entry(key=b.a_key(31))),
        ("bad_ticket", entry(key=VOLUNTEER)),
        ("bad_ticket", entry(challenge=b.a_nonce(31))),
        ("bad_ticket", entry(b.signed(TICKET, b.a_key(31)))),
        ("bad_ticket", entry(b.signed(TICKET, b.ROOT))),
        ("bad_ticket", entry(b.signed(b.a_relay_ticket(relay=b.a_key(31))))),
        ("bad_ticket", entry(b.signed(b.but(TICKET, worker=b.JOB_KEY.public)))),
        ("wrong_horde", entry(root=b.a_key(31))),
        ("wrong_horde", entry(b.signed(TICKET, root=b.a_key(31)))),
        ("bad_signature", entry()[:-1] + bytes([entry()[-1] ^ 1])),
        ("bad_signature", entry(FORGED)),
        ("unknown_kind", entry(b.signed(b.a_lease()))),
        ("unknown_kind", b.signed(TICKET).raw),
        ("malformed", b""),
        ("malformed", b"\xc1" * 16),
        ("too_large", bytes(8193)),
    ],
)
async def test_a_forged_ticket_or_entry_opens_nothing(code: str, raw: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        judged(raw)

    assert refused.value.code == code


async def test_a_ticket_serves_until_its_last_moment() -> None:
    assert judged(entry(), now=TICKET.valid_until).terms == TICKET
    with pytest.raises(BadTicket, match="ask for a new one"):
        judged(entry(), now=TICKET.valid_until + 1)


# How much


async def test_bytes_are_counted_in_both_directions_and_to_the_last() -> None:
    meter = Meter(1_000, 1_000_000)

    assert meter.take(600, b.NOW) == meter.take(400, b.NOW) == 0
    with pytest.raises(OverTicket, match="1000 bytes"):
        meter.take(1, b.NOW)
    assert meter.carried == 1_000


@given(
    rate=st.integers(1, 10**7),
    steps=st.lists(st.tuples(st.integers(1, relay.MAX_MESSAGE_BYTES), st.integers(0, 3_000)), min_size=1, max_size=60),
)
async def test_who_waits_as_told_is_never_faster_than_its_ticket(rate: int, steps: list[tuple[int, int]]) -> None:
    meter, now = Meter(10**9, rate), b.NOW
    passed = 0
    for size, pause in steps:
        now += pause
        now += meter.take(size, now)
        passed += size

        assert (passed - size) * 1000 <= rate * (now - b.NOW + relay.BURST_MS) or passed * 1000 <= rate * (
            now - b.NOW + relay.BURST_MS
        )


async def test_who_never_pauses_gets_the_whole_rate() -> None:
    meter, now = Meter(10**9, 1_000_000), b.NOW
    for _ in range(1_000):
        now += meter.take(10_000, now)

    assert (10_000_000 - 250_000 - 10_000) / 1_000 <= now - b.NOW <= 10_000


# Who meets whom


class Memory:
    """One end, and the peer that holds it: what it says and what it was told."""

    def __init__(self) -> None:
        self.said: asyncio.Queue[bytes] = asyncio.Queue()
        self.heard: asyncio.Queue[bytes] = asyncio.Queue()
        self.takes = asyncio.Event()
        self.takes.set()
        self.is_broken = False

    async def read(self) -> bytes:
        return await self.said.get()

    async def write(self, data: bytes) -> None:
        await self.takes.wait()
        if self.is_broken:
            raise ConnectionResetError
        self.heard.put_nowait(data)


class Relay:
    """A relay over ends in memory, with a clock that stands still unless it is moved."""

    def __init__(self, streams: int = 8, of_one: int = 8, max_rate: int = 0) -> None:
        self.now = b.NOW
        self.rooms = Rooms(lambda: Limits(streams, of_one, max_rate))

    def admit(self, raw: bytes, challenge: bytes) -> Admitted:
        return check_entry(
            raw, challenge, root=b.ROOT.public, serving=b.SERVING.public, relay=VOLUNTEER.public, now=self.now
        )

    def attend(self, end: End, household: str = "here") -> asyncio.Task[None]:
        return asyncio.create_task(attend(end, self.rooms, household, self.admit, lambda: self.now))

    async def come(self, key, ticket=None, household: str = "here") -> tuple[Memory, asyncio.Task[None]]:
        end = Memory()
        task = self.attend(end, household)
        end.said.put_nowait(entry(ticket, key, await end.heard.get()))
        return end, task


@asynccontextmanager
async def met(**limits: int) -> AsyncIterator[tuple[Relay, Memory, Memory, list[asyncio.Task[None]]]]:
    """A relay at which requester and worker of a ticket have met."""
    here = Relay(**limits)
    requester, first = await here.come(b.JOB_KEY)
    worker, second = await here.come(b.WORKER)
    assert await requester.heard.get() == await worker.heard.get() == b""
    yield here, requester, worker, [first, second]
    for end in (requester, worker):
        end.takes.set()
        end.said.put_nowait(b"")
    await asyncio.gather(first, second, return_exceptions=True)
    assert here.rooms.streams == 0


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 (what is waited for is nothing that tells)
            await asyncio.sleep(0)


async def test_what_one_says_the_other_hears_both_ways() -> None:
    async with met() as (here, requester, worker, _):
        requester.said.put_nowait(b"hello")
        worker.said.put_nowait(b"and to you")
        assert (await worker.heard.get(), await requester.heard.get()) == (b"hello", b"and to you")
        await until(lambda: here.rooms.carried == 15)

    assert here.rooms.pairs == 1


async def test_when_one_goes_the_other_goes() -> None:
    async with met() as (here, requester, _, tasks):
        requester.said.put_nowait(b"")
        assert await asyncio.gather(*tasks) == [None, None]
        assert here.rooms.streams == 0


async def test_when_one_breaks_the_other_goes() -> None:
    async with met() as (_, requester, worker, tasks):
        worker.is_broken = True
        requester.said.put_nowait(b"hello")
        assert await asyncio.gather(*tasks) == [None, None]


async def test_a_ticket_is_used_up_and_both_hear_it() -> None:
    async with met() as (here, _, worker, tasks):
        size = 100_000 // 2
        for _ in range(TICKET.max_bytes // size + 1):
            worker.said.put_nowait(bytes(size))
        assert [type(found) for found in await asyncio.gather(*tasks, return_exceptions=True)] == [OverTicket] * 2
        assert here.rooms.carried == TICKET.max_bytes

    here_again, _ = await here.come(b.JOB_KEY)
    worker, second = await here.come(b.WORKER)
    assert await worker.heard.get() == b""
    here_again.said.put_nowait(b"one more")
    with pytest.raises(OverTicket):
        await second


async def test_a_ticket_ends_in_time_whatever_flows() -> None:
    async with met() as (here, _, _, tasks):
        here.now = TICKET.valid_until + 1
        assert [type(found) for found in await asyncio.gather(*tasks, return_exceptions=True)] == [OverTicket] * 2


async def test_an_end_that_takes_nothing_is_cut_off() -> None:
    async with met() as (here, requester, worker, tasks):
        requester.takes.clear()
        worker.said.put_nowait(b"take this")
        await until(lambda: any(stay.giving_since for stay in here.rooms._here.values()))
        here.now += relay.STALLED_MS + 1
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(one) for one in found] == [TooSlow] * 2
        assert "took nothing" in str(found[0])


async def test_two_that_say_nothing_are_parted() -> None:
    async with met() as (here, _, _, tasks):
        here.now += relay.SILENT_MS + 1
        assert [type(found) for found in await asyncio.gather(*tasks, return_exceptions=True)] == [TooSlow] * 2


async def test_who_waits_alone_is_sent_away() -> None:
    here = Relay()
    _, task = await here.come(b.WORKER)
    await until(lambda: here.rooms.streams == 1)
    here.now += relay.MEET_MS + 1
    with pytest.raises(NoPath):
        await task
    assert here.rooms.streams == 0


async def test_who_waits_alone_and_goes_leaves_nothing() -> None:
    here = Relay()
    end, task = await here.come(b.WORKER)
    await until(lambda: here.rooms.streams == 1)
    end.said.put_nowait(b"")
    await task
    assert here.rooms.streams == 0


async def test_who_speaks_before_the_other_is_there_is_sent_away() -> None:
    here = Relay()
    end, task = await here.come(b.WORKER)
    end.said.put_nowait(b"too early")
    with pytest.raises(OutOfTurn):
        await task


async def test_who_shows_nothing_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pump, "ENTRY_S", 0.01)
    with pytest.raises(TooSlow):
        await Relay().attend(Memory())


async def test_who_comes_again_takes_its_own_place() -> None:
    async with met(streams=1, of_one=1) as (here, _, _, tasks):
        again, task = await here.come(b.JOB_KEY)
        assert await asyncio.gather(*tasks) == [None, None]
        worker, other = await here.come(b.WORKER)
        assert await again.heard.get() == await worker.heard.get() == b""
        again.said.put_nowait(b"")
        await asyncio.gather(task, other)


async def test_who_asks_again_and_again_has_no_more_of_a_relay_by_that() -> None:
    here = Relay(streams=1, of_one=1)
    tickets = [b.signed(b.but(TICKET, valid_until=TICKET.valid_until - number)) for number in range(9)]
    waiting = [(await here.come(b.WORKER, ticket))[1] for ticket in tickets]
    assert await asyncio.gather(*waiting[:-1]) == [None] * 8
    requester, first = await here.come(b.JOB_KEY, tickets[3])  # another one than the worker's: they meet all the same
    assert await requester.heard.get() == b""
    for _ in range(TICKET.max_bytes // 50_000 + 1):
        requester.said.put_nowait(bytes(50_000))
    assert [type(one) for one in await asyncio.gather(first, waiting[-1], return_exceptions=True)] == [OverTicket] * 2

    worker, second = await here.come(b.WORKER)
    requester, _ = await here.come(b.JOB_KEY)
    assert await requester.heard.get() == await worker.heard.get() == b""
    worker.said.put_nowait(b"one more")
    with pytest.raises(OverTicket):
        await second


async def test_tickets_of_two_jobs_do_not_meet() -> None:
    here = Relay()
    other = b.signed(b.but(TICKET, attempt=2))
    ends = [await here.come(b.JOB_KEY), await here.come(b.WORKER, other)]
    await until(lambda: here.rooms.streams == 2)
    assert here.rooms.pairs == 0
    for end, task in ends:
        end.said.put_nowait(b"")
        await task


async def test_a_full_relay_and_a_full_household_are_said() -> None:
    here = Relay(streams=2, of_one=1)
    ends = [await here.come(b.JOB_KEY)]
    await until(lambda: here.rooms.streams == 1)
    _, refused = await here.come(b.JOB_KEY, b.signed(b.but(TICKET, attempt=2)))
    with pytest.raises(RelayFull, match="your place has 1"):
        await refused
    ends.append(await here.come(b.JOB_KEY, b.signed(b.but(TICKET, attempt=3)), household="there"))
    await until(lambda: here.rooms.streams == 2)
    _, refused = await here.come(b.JOB_KEY, b.signed(b.but(TICKET, attempt=4)), household="elsewhere")
    with pytest.raises(RelayFull, match="this relay has 2"):
        await refused
    ends.append(await here.come(b.WORKER))  # a ticket that is here already needs no room
    await until(lambda: here.rooms.pairs == 1)
    for end, task in ends:
        end.said.put_nowait(b"")
        await task
    assert here.rooms.streams == 0


async def test_nothing_is_kept_of_tickets_that_are_over() -> None:
    here = Relay()
    for attempt in range(1, 50):
        ticket = b.signed(b.but(TICKET, attempt=attempt, valid_until=here.now + 1_000))
        requester, first = await here.come(b.JOB_KEY, ticket)
        worker, second = await here.come(b.WORKER, ticket)
        assert await worker.heard.get() == b""
        requester.said.put_nowait(b"x")
        assert await worker.heard.get() == b"x"
        worker.said.put_nowait(b"")
        await asyncio.gather(first, second)
        here.now += relay.FORGET_MS // 4

    assert len(here.rooms._meters) <= 5


async def test_a_relay_of_its_own_rate_gives_no_more() -> None:
    here = Relay(max_rate=1)
    meter = here.rooms.meter(Admitted(TICKET, "worker"))

    assert meter.take(2, b.NOW) == 1_750
