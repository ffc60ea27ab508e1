"""Conditions of an uplink: how fast it is, how much it loses, whether it is there at all, under which address.

Each is made by the kernel at the street's end or the home's; `tests.nat.measure` finds out what came of it. How long
packets take is said when the network is made, see `tests.nat.tun`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.nat.kinds import INSIDE, OUTSIDE, Kind
from tests.nat.namespaces import Namespace
from tests.nat.net import Network, Place, uplink_address

#: Bytes that may leave at once on a link of limited rate, and how long packets may wait for their turn.
_BURST, _LATENCY_MS = 16_384, 200
#: Of one packet: larger ones, which the kernel otherwise makes of many, would be lost or delayed as a whole.
_SEGMENT = 1_500


def limit_rate(network: Network, home: str, mbit: float) -> None:
    """Let so many megabits a second through, in each direction."""
    place = network[home]
    plain_segments(network, home)
    for end, device in _ends(network, place):
        end.run(
            *("tc", "qdisc", "replace", "dev", device, "root", "tbf"),
            *("rate", f"{round(mbit * 1000)}kbit", "burst", str(_BURST), "latency", f"{_LATENCY_MS}ms"),
        )


def lose(network: Network, home: str, percent: int) -> None:
    """Lose so many packets of a hundred, drawn at random, in each direction."""
    plain_segments(network, home)
    _street_rules(network, network[home], "loss", f"numgen random mod 100 < {percent} counter drop")


@contextmanager
def cut(network: Network, home: str) -> Iterator[None]:
    """While the block lasts nothing passes, and nobody is told."""
    _street_rules(network, network[home], "cut", "counter drop")
    try:
        yield
    finally:
        network.street.nft("delete table inet cut\n")


def change_address(network: Network, home: str, last: int = 3) -> str:
    """Give the home another IPv4 address, as providers do overnight; what it had open does not come through any more.
    The new address."""
    place = network[home]
    if place.kind in (Kind.BLOCKED, Kind.IPV6_ONLY):
        raise ValueError(f"a home of the kind {place.kind.value!r} has a network of its own, which does not change")
    new = uplink_address(place, 4, last)
    place.edge.ip(
        f"addr del {place.outer4}/24 dev {OUTSIDE}",
        f"addr add {new}/24 dev {OUTSIDE}",
        f"route replace default via {uplink_address(place, 4, 1)} dev {OUTSIDE}",
    )
    place.outer4 = new
    return new


def plain_segments(network: Network, home: str) -> None:
    """Let no device make packets that are larger than a cable's."""
    place = network[home]
    for end, device in _ends(network, place):
        _plain(end, device)
    if place.router is not None:
        _plain(place.router, INSIDE)
        _plain(place.network, OUTSIDE)
    for other in network.places.values():
        _plain(other.network, OUTSIDE)
        _plain(network.street, other.device)


def _plain(end: Namespace, device: str) -> None:
    end.ip(f"link set dev {device} gso_max_size {_SEGMENT} gso_max_segs 1")


def _ends(network: Network, place: Place) -> tuple[tuple[Namespace, str], tuple[Namespace, str]]:
    return (network.street, place.device), (place.edge, OUTSIDE)


def _street_rules(network: Network, place: Place, table: str, rule: str) -> None:
    """A table at the street that applies `rule` to all that comes from and goes to a place."""
    network.street.nft(f"""
table inet {table} {{
    chain coming {{
        type filter hook prerouting priority raw
        iifname {place.device} {rule}
    }}
    chain going {{
        type filter hook postrouting priority raw
        oifname {place.device} {rule}
    }}
}}
""")
