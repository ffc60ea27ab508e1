"""Who is at the door: addresses, as far as a proxy may speak for them, and how many connections each has.

An address is what the connection comes from. A proxy that the operator trusts may name another one in
`X-Forwarded-For`; the header of anybody else is ignored, so that nobody can choose an address.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
from collections.abc import Callable, Sequence

from tracker.config import IPNetwork

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

#: What stands for a connection that has no address that could be read.
UNKNOWN = "unknown"

REFUSAL = (
    b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"
    b"over_limit: this address has as many connections here as the rules allow: close some, then try again\n"
)


def parse_address(text: str) -> IPAddress | None:
    """The address in `text`, an IPv4 one if it is that in IPv6 clothes; None if it is none."""
    try:
        address = ipaddress.ip_address(text.strip().strip("[]"))
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped or address
    return address


def is_trusted(address: IPAddress | None, proxies: Sequence[IPNetwork]) -> bool:
    """Whether the operator trusts this address to speak for others."""
    return address is not None and any(address in network for network in proxies)


def client_address(remote: str, forwarded: Sequence[str], proxies: Sequence[IPNetwork]) -> IPAddress | None:
    """Where a request really comes from: the last address, going back through `forwarded`, that is no trusted proxy.

    forwarded: the values of all `X-Forwarded-For` headers, in order.
    """
    address = parse_address(remote)
    named = [part for value in forwarded for part in value.split(",")]
    while named and is_trusted(address, proxies):
        before = parse_address(named.pop())
        if before is None:
            break
        address = before
    return address


def block_of(address: IPAddress | None) -> str:
    """The address block for which limits and fairness count people without an account; loopback is one block."""
    if address is None:
        return UNKNOWN
    if address.is_loopback:
        return str(address)
    bits = 24 if address.version == 4 else 48
    return str(ipaddress.ip_network((address, bits), strict=False))


def household_of(address: IPAddress | None) -> str:
    """What connections are counted for: an IPv4 address, or the /64 that one IPv6 subscriber has at least."""
    if address is None:
        return UNKNOWN
    return str(address) if address.version == 4 else str(ipaddress.ip_network((address, 64), strict=False))


class Places:
    """How many connections each address has, and whether it may have one more."""

    def __init__(self, limit: Callable[[], int]) -> None:
        self._limit = limit
        self._taken: Counter[str] = Counter()

    def enter(self, household: str) -> bool:
        """Take a place; False if this address has none left."""
        if self._taken[household] >= self._limit():
            return False
        self._taken[household] += 1
        return True

    def leave(self, household: str) -> None:
        """Give a place back."""
        self._taken[household] -= 1
        if not self._taken[household]:
            del self._taken[household]

    def __len__(self) -> int:
        return self._taken.total()


class Door(asyncio.Protocol):
    """Stands before the HTTP protocol of one connection and counts it from its first moment.

    A proxy's connections are not counted here, but by the addresses that it names.
    """

    def __init__(self, behind: Callable[[], asyncio.Protocol], places: Places, proxies: Sequence[IPNetwork]) -> None:
        self._behind = behind
        self._inner: asyncio.Protocol | None = None
        self._places = places
        self._proxies = proxies
        self._household = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let the connection in, or turn it away with a word."""
        peer = transport.get_extra_info("peername")
        address = parse_address(peer[0]) if isinstance(peer, tuple) else None
        if not is_trusted(address, self._proxies):
            household = household_of(address)
            if not self._places.enter(household):
                if isinstance(transport, asyncio.WriteTransport):
                    transport.write(REFUSAL)
                transport.close()
                return
            self._household = household
        self._inner = self._behind()
        self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the place back."""
        if self._household:
            self._places.leave(self._household)
        if self._inner is not None:
            self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Pass on."""
        if self._inner is not None:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """Pass on."""
        return self._inner.eof_received() if self._inner is not None else None

    def pause_writing(self) -> None:
        """Pass on."""
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass on."""
        if self._inner is not None:
            self._inner.resume_writing()
