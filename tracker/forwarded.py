"""Where a connection comes from, as far as a proxy may speak for others.

A proxy that the operator trusts names whom it speaks for in one header: `X-Forwarded-For`, or `Forwarded` (RFC 7239).
Which of the two is a setting and never guessed: proxies pass on what their clients wrote into a header that they do not
set themselves, so that whoever read both would believe strangers. What anybody else writes is ignored.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

X_FORWARDED_FOR = "X-Forwarded-For"
FORWARDED = "Forwarded"

#: The longest way to write an address and a port, and then some.
_MAX_NODE_CHARACTERS = 64

#: One `name=value` of `Forwarded`, or what separates two; a value is a token or stands in quotes. Blanks can be
#: taken in one way only: strangers choose how many there are.
_PART = re.compile(
    r"""[ \t]*+(?:
        (?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+)=
        (?:(?P<token>[!#$%&'*+.^_`|~0-9A-Za-z-]+)|"(?P<quoted>(?:[^"\\]|\\.)*)")
        [ \t]*+
    )?(?P<end>[,;]|\Z)""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(.)")
_BRACKETED = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::([^:]*))?")
_IPV4 = re.compile(r"([0-9.]+)(?::([^:]*))?")
_PORT = re.compile(r"[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class Client:
    """Who is at the other end. address: None if it could not be read. port: None if nobody says it who may."""

    address: IPAddress | None
    port: int | None = None


NOBODY = Client(None)


@dataclass(frozen=True, slots=True)
class Trust:
    """Whom the operator believes. proxies: who may speak for others. header: where they say it."""

    proxies: tuple[IPNetwork, ...] = ()
    header: str = X_FORWARDED_FOR

    def covers(self, address: IPAddress | None) -> bool:
        """Whether this address may speak for others."""
        return address is not None and any(address in network for network in self.proxies)

    def client(self, source: Client, values: Sequence[str]) -> Client:
        """Whom a request from `source` really comes from: the last one, going back hop by hop, that is not trusted.

        values: of all headers of this name, in order. Where a proxy does not say from whom it has a request, the proxy
        is as far as one can see; its own port is then nobody's.
        """
        if not self.covers(source.address):
            return source
        seen = Client(source.address)
        for hop in self._hops_back(values):
            if hop.address is None:
                return Client(seen.address)
            seen = hop
            if not self.covers(hop.address):
                break
        return seen

    def _hops_back(self, values: Sequence[str]) -> Iterator[Client]:
        read = _forwarded if self.header == FORWARDED else _x_forwarded_for
        for value in reversed(values):
            yield from reversed(read(value))


TRUSTS_NOBODY = Trust()


def parse_address(text: str) -> IPAddress | None:
    """The address in `text`, an IPv4 one if it is that in IPv6 clothes; None if it is none."""
    try:
        address = ipaddress.ip_address(text.strip().strip("[]"))
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped or address
    return address


def parse_port(text: str) -> int | None:
    """The port in `text`; None if it is none."""
    port = int(text) if _PORT.fullmatch(text) else 0
    return port if 0 < port <= 65_535 else None


def _x_forwarded_for(value: str) -> list[Client]:
    """All hops that one header names: addresses, with a port behind some."""
    return [_node(part.strip()) for part in value.split(",")]


def _forwarded(value: str) -> list[Client]:
    """All hops that one header names; a header that is not as RFC 7239 wants it names one that nobody knows."""
    hops: list[Client] = []
    node: str | None = None
    at = 0
    while True:
        part = _PART.match(value, at)
        if part is None:
            return [NOBODY]
        at = part.end()
        if (part["name"] or "").lower() == "for":
            if node is not None:
                return [NOBODY]  # twice in one element
            node = _ESCAPE.sub(r"\1", part["quoted"]) if part["token"] is None else part["token"]
        if part["end"] != ";":
            hops.append(NOBODY if node is None else _node(node, bare_ipv6=False))
            node = None
        if not part["end"]:
            return hops


def _node(text: str, *, bare_ipv6: bool = True) -> Client:
    """Address and port of one hop; `unknown`, made-up names and everything else are nobody."""
    if len(text) > _MAX_NODE_CHARACTERS:
        return NOBODY
    found = _BRACKETED.fullmatch(text) or _IPV4.fullmatch(text)
    if found is not None:
        return Client(parse_address(found[1]), parse_port(found[2] or ""))
    # An IPv6 address without brackets has no port: nobody could tell it from the address's end.
    return Client(parse_address(text)) if bare_ipv6 and "%" not in text else NOBODY
