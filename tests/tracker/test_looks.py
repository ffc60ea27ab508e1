"""Who is asked to come by the other version of IP too, and what of that is kept."""

import ipaddress
from typing import Any

import pytest

from tests.support import builders as b
from tracker.looks import Looks
from tracker.meeting import TOKEN_MS

V4, V6 = ipaddress.ip_address("11.0.0.7"), ipaddress.ip_address("2a00::7")


def invited(looks: Looks, here: Any, now: int = b.NOW) -> Any:
    """What this peer is told."""
    return looks.invitation(here, now)


class _Here:
    def __init__(self, address: Any) -> None:
        self.address = address


def a_peer(address: Any) -> Any:
    """A conversation with a peer that comes from this address."""
    return _Here(address)


@pytest.mark.parametrize(("own", "other"), [(V4, V6), (V6, V4)])
def test_who_comes_by_one_version_is_asked_for_the_other_and_seen_once(own, other):
    looks, here = Looks(), a_peer(address=own)
    look = invited(looks, here, b.NOW)

    assert look.family == other.version
    assert invited(looks, here, b.NOW) is None
    assert looks.arrive(bytes(16), other, b.NOW) is None
    assert looks.arrive(look.token, other, b.NOW) == here
    assert looks.other(here) == other
    assert looks.arrive(look.token, V6, b.NOW) is None


@pytest.mark.parametrize("seen", [V4, None])
def test_an_address_of_the_version_that_is_known_is_none(seen):
    looks, here = Looks(), a_peer(address=V4)

    assert looks.arrive(invited(looks, here, b.NOW).token, seen, b.NOW) == here
    assert looks.other(here) is None


def test_a_token_is_over_in_time_and_then_there_may_be_another():
    looks, here = Looks(), a_peer(address=V4)
    look = invited(looks, here, b.NOW)

    assert looks.arrive(look.token, V6, b.NOW + TOKEN_MS + 1) is None
    assert invited(looks, here, b.NOW + TOKEN_MS + 1).token != look.token


def test_of_who_has_gone_nothing_stays_and_its_token_serves_no_more():
    looks, here, gone = Looks(), a_peer(address=V4), a_peer(address=V4)
    assert invited(looks, a_peer(address=None), b.NOW) is None
    looks.arrive(invited(looks, here, b.NOW).token, V6, b.NOW)
    look = invited(looks, gone, b.NOW)
    for conversation in (here, gone):
        looks.drop(conversation)

    assert looks.arrive(look.token, V6, b.NOW) is None
    assert len(looks) == 0
