"""What a tracker publishes about its horde, over plain HTTP on the address of its link."""

from __future__ import annotations

from typing import Any

from peer.events import Unreachable
from protocol.links import Link


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

    import aiohttp

    from peer.tracker_tls import other_certificate, tls_of

    url = f"{http_url(link)}/{what}"
    try:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(url, allow_redirects=False, ssl=tls_of(link)) as answer,
        ):
            raw = await answer.content.read(MAX_BYTES)
            if answer.status == 404:
                raise NoSuchPage(f"{url}: the tracker has nothing there")
            if answer.status != 200:
                raise Unreachable(f"{url} answers with HTTP status {answer.status}: is this the address of a tracker?")
        found = json.loads(raw)
    except aiohttp.ServerFingerprintMismatch as error:
        raise Unreachable(other_certificate(link)) from error
    except (aiohttp.ClientError, OSError) as error:  # a time-out too
        raise Unreachable(f"no tracker answers at {url}: is it running, is the address right?") from error
    except ValueError as error:
        raise Unreachable(f"{url} answers something else than JSON: is this the address of a tracker?") from error
    if not isinstance(found, dict):
        raise Unreachable(f"{url} answers no JSON object: is this the address of a tracker?")
    return found
