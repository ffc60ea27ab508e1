"""A small internet in network namespaces: a street to which everybody is connected, and homes with their routers.

Its addresses look public to Python's `ipaddress` as they would to a peer on the internet; no packet leaves it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.nat import tun
from tests.nat.kinds import INSIDE, OUTSIDE, Kind, router_rules
from tests.nat.namespaces import Namespace, wire

TRACKER = "tracker"
#: The name under which peers know the tracker; each finds its address in its own /etc/hosts.
TRACKER_NAME = "tracker.street"
#: A machine somewhere else, for whoever needs a second one to talk to.
ELSEWHERE = "elsewhere"
#: All homes use the same addresses inside, as homes do.
_HOME_HOST, _HOME_ROUTER = "192.168.1.2", "192.168.1.1"


@dataclass
class Place:
    """One machine at this internet.

    number: of its uplink, from which its addresses follow. network: where its programs run. router: in front of it, if
    there is one. outer4, outer6: the addresses that others see it come from, "" where it has none.
    """

    name: str
    kind: Kind
    number: int
    network: Namespace
    router: Namespace | None
    outer4: str
    outer6: str

    @property
    def device(self) -> str:
        """The street's end of its uplink."""
        return f"to{self.number}"

    @property
    def edge(self) -> Namespace:
        """Where its own end of the uplink is."""
        return self.router or self.network

    def outer(self, family: int) -> str:
        """The address that others see, of family 4 or 6."""
        return self.outer4 if family == 4 else self.outer6


class Network:
    """The street, and who lives there by name."""

    def __init__(self, street: Namespace, folder: Path) -> None:
        self.street = street
        self.folder = folder
        self.places: dict[str, Place] = {}
        self._stack = ExitStack()
        self._stack.callback(street.close)

    @classmethod
    @contextmanager
    def open(cls, folder: Path, homes: Mapping[str, Kind], delays_ms: Mapping[str, float] = {}) -> Iterator[Network]:
        """A street with a tracker's machine, one elsewhere, and these homes; all is gone when the block ends.
        delays_ms: by the home's name, how long a packet takes to or from it. folder: for its files."""
        network = cls(Namespace("street"), folder)
        try:
            network.street.forward()
            for name, kind in ({TRACKER: Kind.PUBLIC, ELSEWHERE: Kind.PUBLIC} | dict(homes)).items():
                network._connect(name, kind, delays_ms.get(name, 0.0))
            network._write_hosts()
            yield network
        finally:
            network._stack.close()

    def __getitem__(self, name: str) -> Place:
        return self.places[name]

    def prefix(self, name: str) -> tuple[str, ...]:
        """Words before a command that make it run on that machine, where the tracker's name is known."""
        return self[name].network.prefix(self.folder / "hosts")

    def _namespace(self, name: str) -> Namespace:
        made = Namespace(name)
        self._stack.callback(made.close)
        return made

    def _connect(self, name: str, kind: Kind, delay_ms: float) -> None:
        number = len(self.places) + 1
        network = self._namespace(name)
        router = None if kind is Kind.PUBLIC else self._namespace(f"{name}'s router")
        place = Place(name, kind, number, network, router, "", "")
        self._lay_uplink(place, delay_ms)
        if kind.is_translated:
            _translated_home(self.street, place)
        elif router is not None:
            _routed_home(self.street, place)
        else:
            _uplink_addresses(self.street, place, 4)
            _uplink_addresses(self.street, place, 6)
            place.outer4, place.outer6 = uplink_address(place, 4), uplink_address(place, 6)
        if router is not None:
            router.forward()
            router.nft(router_rules(kind, _HOME_HOST))
        self.places[name] = place

    def _lay_uplink(self, place: Place, delay_ms: float) -> None:
        if delay_ms:
            self._stack.enter_context(tun.delayed(self.street, place.device, place.edge, OUTSIDE, delay_ms))
        else:
            wire(self.street, place.device, place.edge, OUTSIDE)
        self.street.ip(f"link set {place.device} up")
        place.edge.ip(f"link set {OUTSIDE} up")
        if place.router is not None:
            wire(place.router, INSIDE, place.network, OUTSIDE)
            place.router.ip(f"link set {INSIDE} up")
            place.network.ip(f"link set {OUTSIDE} up")

    def _write_hosts(self) -> None:
        tracker = self[TRACKER]
        lines = ["127.0.0.1 localhost", "::1 localhost"]
        lines += [f"{address} {TRACKER_NAME}" for address in (tracker.outer4, tracker.outer6)]
        (self.folder / "hosts").write_text("\n".join(lines) + "\n", "ascii")


def uplink_address(place: Place, family: int, last: int = 2) -> str:
    """An address in the network of a place's uplink; `last` is its last part, 1 the street's own."""
    return f"11.0.{place.number}.{last}" if family == 4 else f"2a00:0:{place.number:x}::{last}"


def _uplink_addresses(street: Namespace, place: Place, family: int) -> None:
    bits = 24 if family == 4 else 64
    street.ip(f"addr add {uplink_address(place, family, 1)}/{bits} dev {place.device}")
    place.edge.ip(
        f"addr add {uplink_address(place, family)}/{bits} dev {OUTSIDE}",
        f"route add default via {uplink_address(place, family, 1)} dev {OUTSIDE}",
    )


def _translated_home(street: Namespace, place: Place) -> None:
    """One IPv4 address for everybody at home, which is the router's."""
    assert place.router is not None
    _uplink_addresses(street, place, 4)
    place.router.ip(f"addr add {_HOME_ROUTER}/24 dev {INSIDE}")
    place.network.ip(f"addr add {_HOME_HOST}/24 dev {OUTSIDE}", f"route add default via {_HOME_ROUTER} dev {OUTSIDE}")
    place.outer4 = uplink_address(place, 4)


def _routed_home(street: Namespace, place: Place) -> None:
    """A network of the home's own, in one family, to which the street knows the way."""
    assert place.router is not None
    family = 4 if place.kind.has_ipv4 else 6
    inner = f"11.1.{place.number}." if family == 4 else f"2a00:1:{place.number:x}::"
    bits = 24 if family == 4 else 64
    _uplink_addresses(street, place, family)
    street.ip(f"route add {inner}{'0' if family == 4 else ''}/{bits} via {uplink_address(place, family)}")
    place.router.ip(f"addr add {inner}1/{bits} dev {INSIDE}")
    place.network.ip(f"addr add {inner}2/{bits} dev {OUTSIDE}", f"route add default via {inner}1 dev {OUTSIDE}")
    if family == 4:
        place.outer4 = f"{inner}2"
    else:
        place.outer6 = f"{inner}2"
