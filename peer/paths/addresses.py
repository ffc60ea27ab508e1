"""Addresses that others name: how they are written, and which of them may be connected to."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import aiohappyeyeballs
from aiohttp.abc import AbstractResolver, ResolveResult

from protocol.links import is_private_host

AddrInfo: TypeAlias = "tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[str, int]]"

#: Between two addresses of one name.
NEXT_SECONDS = 0.25

#: Names that are looked up at once.
MAX_LOOKUPS = 4
_LOOKUPS = ThreadPoolExecutor(MAX_LOOKUPS, "names")
_NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
#: Addresses of that version of IP only which is there; with it Windows finds no `localhost` where there is no network.
_FLAGS = socket.AI_ADDRCONFIG if sys.platform != "win32" else 0

#: Of IPv6, what is reached from everywhere; and what NAT64 makes of the addresses of IPv4, also for names.
_GLOBAL = ipaddress.ip_network("2000::/3")
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")


class BadAddress(ValueError):
    """No address, or one that may not be connected to."""


@dataclass(frozen=True)
class Address:
    """Where somebody listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """`host:port`, IPv6 hosts in brackets; raises `BadAddress`."""
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise BadAddress(f"{text[:80]!r} is no address: wanted host:port")
    if not host or bracketed != (":" in host) or any(letter in host for letter in "/?#@% \\"):
        raise BadAddress(f"{text[:80]!r} is no address: wanted host:port, IPv6 hosts in brackets")
    return Address(host, int(port))


def is_private(host: str) -> bool:
    """Whether `host` lies in somebody's own network, also as an IPv4 address in IPv6's clothes to which a router would
    lead, or is no one's."""
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(host)
        if isinstance(address, ipaddress.IPv6Address):
            hidden = address.ipv4_mapped or address.sixtofour
            if hidden is None and address in _TRANSLATED:
                hidden = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
            if hidden is None and address not in _GLOBAL:
                return True
            address = hidden or address
        return is_private_host(str(address)) or address.is_multicast or address.is_unspecified
    return is_private_host(host)


class Resolver(AbstractResolver):
    """Resolves names that others chose, in threads of its own: who lets us wait for names holds up nothing else."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of `host`; raises `OSError`."""
        look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM, family=family, flags=_FLAGS)
        infos = await asyncio.get_running_loop().run_in_executor(_LOOKUPS, look_up)
        return [
            ResolveResult(
                hostname=host, host=str(where[0]), port=int(where[1]), family=found, proto=proto, flags=_NUMERIC
            )
            for found, _, proto, _, where in infos
        ]

    async def close(self) -> None:
        """Nothing is held."""


class PublicResolver(AbstractResolver):
    """Resolves names, but to no private address: nobody leads us into our own network."""

    def __init__(self) -> None:
        self._inner = Resolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of `host`; raises `OSError` if there is none that is public."""
        found = [result for result in await self._inner.resolve(host, port, family) if not is_private(result["host"])]
        if not found:
            raise OSError(None, f"{host} leads to private addresses only")
        return found

    async def close(self) -> None:
        """Nothing is held."""
        await self._inner.close()


def resolver(*, private_too: bool) -> AbstractResolver:
    """Resolves names, to private addresses only if that is allowed."""
    return Resolver() if private_too else PublicResolver()


async def dial(address: Address, names: AbstractResolver) -> socket.socket:
    """A socket that is connected to this address; raises `OSError`."""
    if (family := family_of(address.host)) is not None:
        infos: list[AddrInfo] = [(family, socket.SOCK_STREAM, 0, "", (address.host, address.port))]
    else:
        infos = [
            (one["family"], socket.SOCK_STREAM, one["proto"], "", (one["host"], one["port"]))
            for one in await names.resolve(address.host, address.port, socket.AF_UNSPEC)
        ]
    try:
        return await aiohappyeyeballs.start_connection(infos, happy_eyeballs_delay=NEXT_SECONDS)
    except RuntimeError as error:  # of uvloop, for an address that it does not like
        raise OSError(None, str(error)) from error


def family_of(host: str) -> socket.AddressFamily | None:
    """The family of an address; None of a name."""
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return None
    return socket.AF_INET if version == 4 else socket.AF_INET6
