"""What a tracker publishes about its horde, over plain HTTP on the address of its link."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peer.events import Unreachable
from protocol.links import Link

if TYPE_CHECKING:
    import aiohttp


class NoSuchPage(Unreachable):
    """A tracker answers, and has nothing at this address."""


MAX_BYTES = 4 * 1024 * 1024
TIMEOUT_SECONDS = 20


def http_url(link: Link) -> str:
    """Where the tracker answers HTTP."""
    return link.url.replace("ws", "http", 1)


async def fetch(link: Link, what: str = "scrape") -> dict[str, Any]:
    """`/scrape`, `/rules` or `/healthz` of the tracker; raises `Unreachable`."""
    import json

    url = f"{http_url(link)}/{what}"
    try:
        found = json.loads(await fetch_bytes(link, what))
    except ValueError as error:
        raise Unreachable(f"{url} answers something else than JSON: is this the address of a tracker?") from error
    if not isinstance(found, dict):
        raise Unreachable(f"{url} answers no JSON object: is this the address of a tracker?")
    return found


async def fetch_bytes(link: Link, what: str, limit: int = MAX_BYTES) -> bytes:
    """What the tracker answers under this path, `limit` bytes of it at most; raises `Unreachable`."""
    import aiohttp

    from peer.tracker_tls import other_certificate, tls_of

    url = f"{http_url(link)}/{what}"
    try:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(url, allow_redirects=False, ssl=tls_of(link)) as answer,
        ):
            raw = await _read(answer.content, limit)
            if answer.status == 404:
                raise NoSuchPage(f"{url}: the tracker has nothing there")
            if answer.status != 200:
                raise Unreachable(f"{url} answers with HTTP status {answer.status}: is this the address of a tracker?")
            return raw
    except aiohttp.ServerFingerprintMismatch as error:
        raise Unreachable(other_certificate(link)) from error
    except (aiohttp.ClientError, OSError) as error:  # a time-out too
        raise Unreachable(f"no tracker answers at {url}: is it running, is the address right?") from error


async def _read(content: aiohttp.StreamReader, limit: int) -> bytes:
    """All that comes, up to a limit; one `read` gives what is there already."""
    raw = bytearray()
    while len(raw) < limit and (more := await content.read(limit - len(raw))):
        raw += more
    return bytes(raw)
