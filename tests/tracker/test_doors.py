"""Who is at the door: blocks and households, and places that are given back."""

import pytest

from tracker.doors import TURNS_A_MINUTE, Places, block_of, household_of
from tracker.forwarded import parse_address


@pytest.mark.parametrize(
    ("address", "block", "household"),
    [
        ("203.0.113.7", "203.0.113.0/24", "203.0.113.7"),
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("::1", "::1", "::/64"),
        ("2001:db8:1:2:3::4", "2001:db8:1::/48", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.7", "203.0.113.0/24", "203.0.113.7"),
        ("nonsense", "unknown", "unknown"),
    ],
)
def test_blocks_and_households(address, block, household):
    assert block_of(parse_address(address)) == block
    assert household_of(parse_address(address)) == household


def test_places_are_limited_for_each_address_and_given_back():
    places = Places(lambda: 2)

    assert [places.enter(household, 0) for household in "aaab"] == [True, True, False, True]
    places.leave("a")
    assert places.enter("a", 0)
    for household in ("a", "a", "b"):
        places.leave(household)
    assert len(places) == 0


def test_an_address_that_comes_too_often_waits_for_the_next_minute():
    places = Places(lambda: 2)

    def comes(household, now):
        came = places.enter(household, now)
        if came:
            places.leave(household)
        return came

    assert [comes("a", 59.0) for _ in range(2 * TURNS_A_MINUTE + 1)] == [True] * 2 * TURNS_A_MINUTE + [False]
    assert comes("b", 59.0)
    assert comes("a", 60.0)
