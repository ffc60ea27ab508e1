"""Port mapping: the home's router is asked, by UPnP, to let requesters in at a port that it passes on to us.

Needs the extra `nat`. Whoever answers the search in the local network may be anybody, so that it is asked at its own
address alone, wherever its description leads; and who comes to the outer address that it names expects our certificate
there.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import random
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import IPv4Address
from urllib.parse import urlsplit

import aiohttp
from async_upnp_client.aiohttp import AiohttpSessionRequester
from async_upnp_client.client_factory import UpnpFactory
from async_upnp_client.exceptions import UpnpActionError, UpnpError
from async_upnp_client.profiles.igd import IgdDevice
from async_upnp_client.search import async_search
from async_upnp_client.utils import CaseInsensitiveDict

from peer.paths.addresses import is_private

DESCRIPTION = "potluck"
#: A mapping that nobody renews ends by itself.
LEASE = timedelta(hours=1)
RENEW_SECONDS = LEASE.total_seconds() / 3
#: After no router answered, or none would.
AGAIN_SECONDS = 15 * 60.0
SEARCH_SECONDS = 3
ASK_SECONDS = 10.0
FAREWELL_SECONDS = 3.0
#: Ports tried where the one wanted is taken by somebody else's mapping.
TRIES = 4
#: So many who claim to be routers are asked.
MAX_ROUTERS = 4

_ANYBODY = IPv4Address(0)
#: UPnP's own codes: another mapping has this port; only mappings without an end are made.
_CONFLICT = 718
_ONLY_PERMANENT = 725

Search = Callable[[], Awaitable[Sequence[str]]]

log = logging.getLogger(__name__)


class NotMapped(Exception):
    """No router lets anybody in; the text says why."""


@dataclass(frozen=True)
class Mapping:
    """One port at the router that leads to us. router: where its description is."""

    router: str
    host: str
    port: int

    @property
    def address(self) -> str:
        """For the peer record; empty if nobody out there could use it."""
        return "" if is_private(self.host) else f"{self.host}:{self.port}"

    @property
    def text(self) -> str:
        """For people."""
        if self.address:
            return f"the router passes {self.address} on to us"
        return f"the router has opened a port, but stands behind another one itself ({self.host})"


async def keep_mapped(
    port: int,
    changed: Callable[[str, str], Awaitable[None]],
    *,
    search: Search | None = None,
    renew_seconds: float = RENEW_SECONDS,
    again_seconds: float = AGAIN_SECONDS,
    chance: random.Random | None = None,
) -> None:
    """Have this port mapped until cancelled, then no more. changed: called with the outer address, empty if there is
    none, and a sentence, whenever that is different from before."""
    said: tuple[str, str] | None = None
    mapping: Mapping | None = None
    try:
        while True:
            try:
                mapping = await _map(port, mapping, search or routers, chance or random.SystemRandom())
                now, pause = (mapping.address, mapping.text), renew_seconds
            except NotMapped as error:
                mapping, now, pause = None, ("", str(error)), again_seconds
            if now != said:
                said = now
                await changed(*now)
            await asyncio.sleep(pause)
    finally:
        if mapping is not None:
            await _unmap(mapping)


async def routers() -> Sequence[str]:
    """Where the descriptions of routers are that answer in the local network."""
    found: dict[str, None] = {}

    async def answered(headers: CaseInsensitiveDict) -> None:
        location, sender = str(headers.get("location", "")), str(headers.get("_host", ""))
        # Else anybody here could have us ask for anything anywhere.
        if urlsplit(location).scheme == "http" and urlsplit(location).hostname == sender and is_private(sender):
            found[location] = None

    async with asyncio.TaskGroup() as group:
        for kind in IgdDevice.DEVICE_TYPES:
            group.create_task(async_search(answered, timeout=SEARCH_SECONDS, search_target=kind))
    return list(found)[:MAX_ROUTERS]


async def _map(port: int, former: Mapping | None, search: Search, chance: random.Random) -> Mapping:
    """Make or renew a mapping, at the router that made it before if there is one; raises `NotMapped`."""
    if former is not None:
        with contextlib.suppress(NotMapped):
            return await _map_at(former.router, port, [former.port], chance)
    try:
        found = await search()
    except (OSError, UpnpError, ExceptionGroup) as error:
        raise NotMapped(f"the local network cannot be searched for a router: {error}") from error
    refusals: list[str] = []
    for router in found:
        try:
            return await _map_at(router, port, [port], chance)
        except NotMapped as error:
            refusals.append(str(error))
    raise NotMapped("; ".join(refusals) or "no router here lets its ports be mapped (UPnP)")


async def _map_at(router: str, port: int, wanted: list[int], chance: random.Random) -> Mapping:
    wanted = wanted + [chance.randrange(20_000, 60_000) for _ in range(TRIES - len(wanted))]
    try:
        async with asyncio.timeout(ASK_SECONDS), _session(router) as http:
            device = await _device(router, http)
            host = str(await device.async_get_external_ip_address() or "")
            ipaddress.IPv4Address(host)
            inside = IPv4Address(_local_address(router))
            for outer in wanted:
                if await _ask(device, outer, port, inside):
                    return Mapping(router, host, outer)
    except TimeoutError as error:
        raise NotMapped(f"{router}: no answer within {ASK_SECONDS:g} s") from error
    except (UpnpError, aiohttp.ClientError, OSError, ValueError) as error:
        raise NotMapped(f"{router}: {str(error) or type(error).__name__}") from error
    raise NotMapped(f"{router}: somebody else has every port that was asked for")


async def _ask(device: IgdDevice, outer: int, port: int, inside: IPv4Address) -> bool:
    """Whether the router passes this port on to us now; false if it is somebody else's."""
    for lease in (LEASE, timedelta(0)):  # none at all is without an end
        try:
            await device.async_add_port_mapping(_ANYBODY, outer, "TCP", port, inside, True, DESCRIPTION, lease)
        except UpnpActionError as error:
            if error.error_code == _CONFLICT:
                return False
            if error.error_code != _ONLY_PERMANENT or not lease:
                raise
        else:
            return True
    return False


async def _unmap(mapping: Mapping) -> None:
    """The router need not let anybody in any more."""
    with contextlib.suppress(UpnpError, aiohttp.ClientError, OSError):
        async with asyncio.timeout(FAREWELL_SECONDS), _session(mapping.router) as http:
            device = await _device(mapping.router, http)
            await device.async_delete_port_mapping(_ANYBODY, mapping.port, "TCP")


def _session(router: str) -> aiohttp.ClientSession:
    """For requests to this router's host and no other one: its description could name anybody's address as its own."""
    host = urlsplit(router).hostname

    async def check(_session: aiohttp.ClientSession, _context: object, params: aiohttp.TraceRequestStartParams) -> None:
        if params.url.host != host:
            raise aiohttp.ClientConnectionError(f"what calls itself a router sends us to {params.url.host}")

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(check)
    trace.on_request_redirect.append(_refuse_redirect)
    return aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), trace_configs=[trace])


async def _refuse_redirect(
    _session: aiohttp.ClientSession, _context: object, _params: aiohttp.TraceRequestRedirectParams
) -> None:
    raise aiohttp.ClientConnectionError("what calls itself a router sends us elsewhere")


async def _device(router: str, http: aiohttp.ClientSession) -> IgdDevice:
    factory = UpnpFactory(AiohttpSessionRequester(http), non_strict=True)
    return IgdDevice(await factory.async_create_device(router), None)


def _local_address(router: str) -> str:
    """From which address of ours the router is reached."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as towards:
        towards.connect((urlsplit(router).hostname, urlsplit(router).port or 80))
        return str(towards.getsockname()[0])
