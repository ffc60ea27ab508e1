"""The meeting place for hole punching: tokens, pairs, and when both start."""

import ipaddress

import pytest

from protocol.errors import BadToken
from tests.support import builders as b
from tracker import meeting
from tracker.forwarded import Client
from tracker.meeting import Meetings, read_token
from tracker.reach import Home

pytestmark = pytest.mark.asyncio

JOB = b.a_handle()


def a_client(text: str = "11.0.0.7", port: int | None = 50_123) -> Client:
    return Client(ipaddress.ip_address(text), port)


def met(meetings: Meetings, requester=None, worker=None, rtts=(10, 10), now: int = b.NOW):
    """A meeting to which both have come."""
    arranged = meetings.arrange(JOB, 1, 3, now)
    requester, worker = requester or a_client(), worker or a_client("11.0.1.7", 50_124)
    first = meetings.arrive(arranged.invitation("requester").token, requester, now)
    second = meetings.arrive(arranged.invitation("worker").token, worker, now)
    first.rtt = rtts[0]
    second.rtt = rtts[1]
    return arranged


async def test_each_side_has_a_token_of_its_own_and_comes_with_it_once():
    meetings = Meetings()
    arranged = meetings.arrange(JOB, 1, 3, b.NOW)
    first, second = arranged.invitation("requester"), arranged.invitation("worker")

    assert first.token != second.token
    assert (first.job, first.attempt, first.tries) == (JOB, 1, 3)
    assert meetings.arrive(first.token, a_client(), b.NOW).side == "requester"
    with pytest.raises(BadToken):
        meetings.arrive(first.token, a_client(), b.NOW)
    with pytest.raises(BadToken):
        meetings.arrive(b.a_nonce(99), a_client(), b.NOW)


async def test_a_token_serves_ten_seconds():
    meetings = Meetings()
    arranged = meetings.arrange(JOB, 1, 3, b.NOW)
    assert meetings.arrive(arranged.invitation("worker").token, a_client(), b.NOW + 10_000).side == "worker"
    with pytest.raises(BadToken, match="10 s"):
        meetings.arrive(arranged.invitation("requester").token, a_client(), b.NOW + 10_001)


async def test_each_is_told_where_the_other_one_is():
    arranged = met(Meetings())

    assert arranged.punch("requester", 2).address == "11.0.1.7:50124"
    assert arranged.punch("worker", 2).address == "11.0.0.7:50123"
    assert arranged.punch("worker", 2).number == 2
    assert met(Meetings(), worker=a_client("2a00::7")).punch("requester", 1).address == "[2a00::7]:50123"


@pytest.mark.parametrize(
    ("rtts", "delays"), [((10, 10), (0, 0)), ((10, 110), (50, 0)), ((201, 0), (0, 100)), ((0, 10**9), (2_000, 0))]
)
async def test_the_nearer_one_waits_until_the_farther_one_has_heard_it(rtts, delays):
    arranged = met(Meetings(), rtts=rtts)

    assert (arranged.punch("requester", 1).delay, arranged.punch("worker", 1).delay) == delays


@pytest.mark.parametrize(
    ("client", "home", "fault"),
    [
        (a_client(), Home.PUBLIC, ""),
        (a_client(port=None), Home.PUBLIC, "address and port"),
        (Client(None), Home.PUBLIC, "address and port"),
        (a_client("2a00::7"), Home.PUBLIC, "IPv4"),
        (a_client("192.168.1.7"), Home.PUBLIC, "not reachable from everywhere"),
        (a_client("192.168.1.7"), Home.PRIVATE, ""),
        (a_client("127.0.0.1"), Home.PRIVATE, "loopback"),
        (a_client("127.0.0.1"), Home.LOOPBACK, ""),
    ],
)
async def test_nobody_is_sent_where_nobody_may_be_sent(client, home, fault):
    found = met(Meetings(), requester=client).why_not(home)

    assert fault in found
    assert bool(found) == bool(fault)


async def test_a_meeting_to_which_one_does_not_come_is_over():
    meetings = Meetings()
    arranged = meetings.arrange(JOB, 1, 3, b.NOW)
    meetings.arrive(arranged.invitation("worker").token, a_client(), b.NOW)
    meetings.sweep(b.NOW + 10_000)
    assert not arranged.is_over
    meetings.sweep(b.NOW + 10_001)

    assert arranged.over.result() == "one side did not come in time"
    assert len(meetings) == len(meetings._by_token) == 0


async def test_a_new_meeting_of_the_same_attempt_ends_the_former():
    meetings = Meetings()
    former = met(meetings)
    meetings.arrange(JOB, 1, 3, b.NOW)

    assert former.is_over
    assert len(meetings) == 1


async def test_there_are_no_more_meetings_than_the_tracker_holds():
    meetings = Meetings()
    first = meetings.arrange(JOB, 1, 3, b.NOW)
    for attempt in range(2, 2 + 2 * meeting.MAX_MEETINGS):
        meetings.arrange(JOB, attempt, 3, b.NOW)

    assert first.is_over
    assert len(meetings) == meeting.MAX_MEETINGS
    assert len(meetings._by_token) == 2 * meeting.MAX_MEETINGS


async def test_nothing_is_left_of_meetings_that_ended():
    meetings = Meetings()
    held = met(meetings)
    meetings.end(held, "done")
    meetings.end(held, "again")
    met(meetings)
    meetings.clear("bye")

    assert held.over.result() == "done"
    assert len(meetings) == len(meetings._by_token) == 0


@pytest.mark.parametrize("text", ["", "a" * 25, "a" * 27, "A" * 26, "1" * 26, "a" * 25 + "=", "ａ" * 26])
async def test_what_is_no_token_is_refused(text):
    with pytest.raises(BadToken):
        read_token(text)


async def test_a_token_is_read_as_keys_are_shown():
    assert read_token("a" * 26) == bytes(16)


async def test_a_meeting_is_ready_when_both_are_there_and_known():
    meetings, ready = Meetings(), []
    arranged = meetings.arrange(JOB, 1, 3, b.NOW)
    for side in meeting.OTHER:
        seat = meetings.arrive(arranged.invitation(side).token, a_client(), b.NOW)
        ready.append(arranged.is_ready)
        seat.rtt = 10
        ready.append(arranged.is_ready)

    assert ready == [False, False, False, True]
