"""Who is at the door: addresses that nobody can choose, and places that are given back."""

import ipaddress

import pytest

from tracker.doors import Places, block_of, client_address, household_of, parse_address

PROXIES = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1"))


@pytest.mark.parametrize(
    ("remote", "forwarded", "client"),
    [
        ("203.0.113.7", [], "203.0.113.7"),
        ("203.0.113.7", ["198.51.100.1"], "203.0.113.7"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["1.1.1.1", "198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["198.51.100.1, 10.9.9.9"], "198.51.100.1"),
        ("10.0.0.1", ["10.9.9.9"], "10.9.9.9"),
        ("10.0.0.1", ["nonsense"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1, nonsense"], "10.0.0.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("::1", ["[2001:db8::1]"], "2001:db8::1"),
        ("::ffff:10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("::ffff:203.0.113.7", ["198.51.100.1"], "203.0.113.7"),
        ("", ["198.51.100.1"], None),
    ],
)
def test_only_a_trusted_proxy_speaks_for_others(remote, forwarded, client):
    found = client_address(remote, forwarded, PROXIES)

    assert found == (client and ipaddress.ip_address(client))


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

    assert [places.enter("a"), places.enter("a"), places.enter("a"), places.enter("b")] == [True, True, False, True]
    places.leave("a")
    assert places.enter("a")
    for household in ("a", "a", "b"):
        places.leave(household)
    assert len(places) == 0
