"""Being seen by the tracker by the other version of IP: one more connection to it, which says nothing but a token."""

from __future__ import annotations

import asyncio
import logging

import aiohttp

from peer.paths.punch import FAMILIES, MEET_PATH, refuse_redirect, show_token
from peer.paths.relay_end import Tracker
from protocol.messages import Look

#: So long it may take.
LOOK_SECONDS = 10.0
MAX_MESSAGE_BYTES = 4096

log = logging.getLogger(__name__)


async def be_seen(message: Look, tracker: Tracker) -> None:
    """Come as the tracker asks. Who has no such version of IP, or whose tracker has none, is not seen; nothing is lost
    by that."""
    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(refuse_redirect)
    connector = aiohttp.TCPConnector(family=FAMILIES[message.family])
    try:
        async with (
            asyncio.timeout(LOOK_SECONDS),
            aiohttp.ClientSession(
                connector=connector, trace_configs=[trace], cookie_jar=aiohttp.DummyCookieJar()
            ) as http,
            http.ws_connect(
                f"{tracker.url}{MEET_PATH}",
                params={"token": show_token(message.token)},
                ssl=tracker.tls,
                max_msg_size=MAX_MESSAGE_BYTES,
                compress=0,
                timeout=aiohttp.ClientWSTimeout(ws_close=0.0),
            ) as socket,
        ):
            await socket.receive()
    except (aiohttp.ClientError, OSError) as error:  # a time-out is an OSError
        log.info("not seen by IPv%d: %s", message.family, str(error) or type(error).__name__)
