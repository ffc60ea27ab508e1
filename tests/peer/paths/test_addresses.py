"""Which addresses lead into somebody's own network, in whatever clothes."""

import asyncio
import contextlib
import socket
import threading
from typing import Any

import pytest

from peer.paths.addresses import MAX_LOOKUPS, Address, dial, is_private, resolver


@pytest.mark.parametrize(
    "host",
    [
        "10.0.0.1",
        "100.64.0.1",
        "64:ff9b::100.64.0.1",
        "2002:6440:1::",
        "::ffff:10.0.0.1",
        "64:ff9b::10.0.0.1",
        "64:ff9b:1::10.0.0.1",
        "2002:a00:1::1",
        "2002:7f00:1::",
        "::10.0.0.1",
        "::ffff:0:10.0.0.1",
        "fec0::1",
        "fd00::1",
        "fe80::1",
        "::1",
        "ff02::1",
    ],
)
def test_nobody_is_led_into_a_network_by_an_address_within_another(host: str) -> None:
    assert is_private(host)


@pytest.mark.parametrize("host", ["11.0.0.7", "2a00::7", "64:ff9b::11.0.0.7", "2002:b00:7::1", "horde.example"])
def test_what_is_reached_from_everywhere_stays_so(host: str) -> None:
    assert not is_private(host)


@pytest.mark.parametrize("private_too", [True, False])
async def test_names_that_nobody_answers_for_hold_up_nothing_else(
    monkeypatch: pytest.MonkeyPatch, private_too: bool
) -> None:
    real, answered, looking = socket.getaddrinfo, threading.Event(), threading.Semaphore(0)

    def slow(host: str, *arguments: Any, **options: Any) -> Any:
        if host != "slow.example":
            return real(host, *arguments, **options)
        looking.release()
        answered.wait()
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    names = resolver(private_too=private_too)
    dials = [asyncio.create_task(dial(Address("slow.example", 1), names)) for _ in range(200)]
    try:
        for _ in range(MAX_LOOKUPS):
            await asyncio.to_thread(looking.acquire)
        assert await asyncio.to_thread(lambda: "done") == "done"
        assert not looking.acquire(blocking=False), "more are looked up at once than may be"
    finally:
        for each in dials:
            each.cancel()
        answered.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*dials, return_exceptions=True)
