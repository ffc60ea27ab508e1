"""Hole punching: which addresses are connected to, from which port, and how long it is tried."""

from __future__ import annotations

import asyncio
import socket

import pytest

from peer.paths.punch import TRY_SECONDS, LocalPort, Meeting, NoMeeting, Punching, meeting_of, show_token
from protocol.messages import Meet, Punch
from tests.support.builders import a_handle, a_nonce
from tests.support.horde import until
from tests.support.paths import MeetingPlace
from tracker.meeting import TRY_S


def a_punch(address: str, number: int = 1) -> Punch:
    return Punch(job=a_handle(), attempt=1, number=number, address=address)


def test_two_sockets_of_one_port_connect_and_listen_side_by_side() -> None:
    port = LocalPort()
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as other,
        port.new_socket(socket.AF_INET) as first,
        port.new_socket(socket.AF_INET) as second,
        port.new_socket(socket.AF_INET) as listening,
    ):
        first.connect(one.getsockname())
        second.connect(other.getsockname())
        listening.listen()

        assert {each.getsockname()[1] for each in (first, second, listening)} == {port.port}


def test_a_token_is_shown_as_the_standard_says() -> None:
    assert show_token(bytes(16)) == "a" * 26


def test_what_the_invitation_says_is_kept() -> None:
    invited = Meet(job=a_handle(), attempt=1, token=a_nonce(3), tries=2, family=4)

    assert meeting_of(invited, "wss://x", True, private_too=False) == Meeting("wss://x", True, a_nonce(3), False, 2, 4)


PRIVATE = ["127.0.0.1:80", "192.168.1.1:443", "[::1]:9", "[::ffff:10.0.0.1]:9", "224.0.0.1:9", "0.0.0.0:9"]


@pytest.mark.parametrize("address", [*PRIVATE, "localhost:80", "router.local:80", "no address", "1.2.3.4:0"])
async def test_nobody_is_led_into_a_private_network_nor_by_a_name(address: str) -> None:
    place = MeetingPlace(lambda side, punch: None)
    async with place.serving():
        meeting = Meeting(place.url, True, _token("requester"), private_too=False)
        punching = Punching(meeting, seconds=5)
        punching.told(a_punch(address))
        with pytest.raises(NoMeeting) as caught:
            await punching.connect()

    assert caught.value.reason == "bad_address"


async def test_who_does_not_come_is_not_waited_for() -> None:
    place = MeetingPlace(lambda side, punch: None)
    async with place.serving():
        punching = Punching(Meeting(place.url, True, _token("requester"), private_too=True), seconds=0.2)
        with pytest.raises(NoMeeting) as caught:
            await punching.connect()

    assert caught.value.reason == "timeout"


async def test_every_try_that_was_announced_is_made_and_then_no_more() -> None:
    place = MeetingPlace(lambda side, punch: None)
    async with place.serving():
        meeting = Meeting(place.url, True, _token("requester"), private_too=True, tries=2)
        punching = Punching(meeting, seconds=10, try_seconds=0.1)
        for number in (1, 2, 3):
            punching.told(a_punch("127.0.0.1:1", number))
        with pytest.raises(NoMeeting, match=r"try 2"):
            await punching.connect()


async def test_a_try_lasts_until_the_next_is_told() -> None:
    place = MeetingPlace(lambda side, punch: None)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        async with place.serving():
            meeting = Meeting(place.url, True, _token("requester"), private_too=True, tries=2)
            punching = Punching(meeting, seconds=30, try_seconds=60)
            punching.told(a_punch("127.0.0.1:1"))
            connecting = asyncio.create_task(punching.connect())
            await until(lambda: punching._trouble != "no answer", "the first try was not made")
            punching.told(a_punch(f"127.0.0.1:{port}", 2))
            met, address = await connecting

    with met:
        assert address.port == port


def test_a_try_outlasts_the_first_packet_that_is_sent_anew_and_the_pause_before_the_next_try() -> None:
    first_sent_anew = 1.0  # RFC 6298, 2.1

    assert min(TRY_SECONDS, TRY_S) > first_sent_anew
    assert TRY_SECONDS > TRY_S


async def test_a_tracker_that_is_not_there_is_said() -> None:
    with pytest.raises(NoMeeting) as caught:
        await Punching(Meeting("ws://127.0.0.1:1", True, bytes(16), private_too=True)).connect()

    assert caught.value.reason == "no_meeting"


def _token(side: str) -> bytes:
    return MeetingPlace(lambda side, punch: None).invitation(side).token
