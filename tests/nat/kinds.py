"""The ways in which a machine is connected to the internet, and the packet filters that make them."""

from __future__ import annotations

from enum import Enum


class Kind(Enum):
    """How a peer is connected. The value is its name in tables."""

    #: An address of its own of each family, and nothing in between.
    PUBLIC = "public"
    #: Behind a router that gives one address to all at home, keeps ports, and passes on whatever comes from outside.
    FULL_CONE = "full cone"
    #: The same, but in comes only what answers something, from where that went to.
    PORT_RESTRICTED = "port-restricted"
    #: The same, and every connection leaves from another port, drawn at random.
    SYMMETRIC = "symmetric"
    #: An IPv4 address of its own, behind a filter that lets nothing in but answers.
    BLOCKED = "inbound blocked"
    #: IPv6 addresses only, behind such a filter, as home routers have it.
    IPV6_ONLY = "IPv6 only"

    @property
    def is_translated(self) -> bool:
        """Whether the peer's own address is not the one that others see."""
        return self in (Kind.FULL_CONE, Kind.PORT_RESTRICTED, Kind.SYMMETRIC)

    @property
    def has_ipv4(self) -> bool:
        """Whether the peer reaches IPv4 addresses."""
        return self is not Kind.IPV6_ONLY

    @property
    def has_ipv6(self) -> bool:
        """Whether the peer reaches IPv6 addresses."""
        return self in (Kind.PUBLIC, Kind.IPV6_ONLY)


#: The device of a router that leads to the internet, and the one that leads to the peer.
OUTSIDE, INSIDE = "wan", "lan"

#: What a router answers to those who knock at itself: nothing, also no RST.
_SILENT = f"""
table inet home {{
    counter dropped {{ }}
    chain at_home {{
        type filter hook input priority filter
        iifname {OUTSIDE} ct state established,related accept
        iifname {OUTSIDE} meta l4proto icmpv6 accept
        iifname {OUTSIDE} counter name dropped drop
    }}
}}
"""

_ANSWERS_ONLY = f"""
table inet home {{
    chain through {{
        type filter hook forward priority filter
        iifname {OUTSIDE} ct state established,related accept
        iifname {OUTSIDE} counter name dropped drop
    }}
}}
"""

_TRANSLATED = """
table ip home_nat {{
    chain out {{
        type nat hook postrouting priority srcnat
        oifname {outside} masquerade {how}
    }}
}}
"""


def router_rules(kind: Kind, peer: str) -> str:
    """What the router in front of a peer of this kind is told; `peer` is the peer's address at home."""
    if kind is Kind.PUBLIC:
        raise ValueError("a public peer has no router")
    if kind is Kind.FULL_CONE:
        return _SILENT + _translated() + _passed_on_to(peer)
    if kind is Kind.PORT_RESTRICTED:
        return _SILENT + _ANSWERS_ONLY + _translated()
    if kind is Kind.SYMMETRIC:
        return _SILENT + _ANSWERS_ONLY + _translated("fully-random")
    return _SILENT + _ANSWERS_ONLY


def _translated(how: str = "") -> str:
    return _TRANSLATED.format(outside=OUTSIDE, how=how)


def _passed_on_to(peer: str) -> str:
    return f"""
table ip home_nat {{
    chain in {{
        type nat hook prerouting priority dstnat
        iifname {OUTSIDE} meta l4proto tcp dnat to {peer}
    }}
}}
"""
