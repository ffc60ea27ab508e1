"""Two that cannot connect to each other meet at a relay: a real tracker, scripted peers, and whoever wants more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from protocol.documents import RelayTicket, sign
from protocol.keyfiles import load_key
from protocol.keys import SigningKey
from protocol.links import Link
from protocol.messages import AskPaths, Meet, OfferRelay, Paths, Reached, Refused
from tests.support.answering import Answering, Proving
from tests.support.builders import but
from tests.support.horde import Horde, until
from tests.support.meeting import AtRelay, Two, met, terms_of
from tests.support.raw_peer import RawPeer, now_ms

pytestmark = pytest.mark.asyncio(loop_scope="module")

STRANGER = SigningKey.generate()
#: Jobs that a former test left do not keep those of the next one from running.
RULES = "relays.of_one = 3\nlimits.anonymous_running = 100\n"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def horde(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Horde]:
    async with Horde.open(tmp_path_factory.mktemp("horde"), RULES) as horde:
        yield horde


@pytest.fixture
def link(horde: Horde) -> Link:
    assert horde.link is not None
    return horde.link


@pytest.fixture
def serving_key(horde: Horde) -> SigningKey:
    return load_key(horde.tracker_folder / "serving.key")


async def tickets(two: Two) -> tuple[bytes, ...]:
    """What both are given when the requester asks."""
    await two.ask()
    found = await two.requester.expect(Paths)
    assert found == await two.worker.expect(Paths)
    assert (found.job, found.attempt) == (two.lease.job, two.lease.attempt)
    return found.tickets


async def own_ticket(two: Two) -> bytes:
    """The one for the tracker's relay."""
    return (await tickets(two))[-1]


async def refusal(peer: RawPeer) -> str:
    """The code of the next refusal."""
    await until(lambda: any(found.kind == "refused" for found in peer.heard), "nothing was refused")
    [found] = [found for found in peer.heard if found.kind == "refused"]
    peer.heard.remove(found)
    return found.open(Refused).code


# Tickets


async def test_both_get_the_same_ticket_by_the_serving_key(link: Link, serving_key: SigningKey) -> None:
    async with Two.open(link) as two:
        terms = terms_of(await own_ticket(two))

        assert terms.relay == serving_key.public
        assert (terms.requester, terms.worker) == (two.asked.job_key.public, two.worker.key.public)
        assert (terms.url, terms.certificate) == (link.url, b"")
        assert (terms.max_bytes, terms.max_rate) == (268_435_456, 4_194_304)
        assert 0 < terms.valid_until - now_ms() <= 600_000


async def test_who_hides_its_address_is_not_invited_to_a_meeting(link: Link) -> None:
    async with Two.open(link) as two:
        await two.ask(relays_only=True, reason="relays_only")
        await two.requester.expect(Paths)
        await two.worker.expect(Paths)
        assert not any(found.kind == "meet" for peer in (two.requester, two.worker) for found in peer.heard)
    async with Two.open(link) as two:
        await two.ask()
        assert await two.requester.expect(Meet) != await two.worker.expect(Meet)


async def test_only_the_requester_of_an_attempt_asks_for_paths_and_not_all_the_time(link: Link) -> None:
    async with Two.open(link) as two, RawPeer.open(link) as other:
        job = two.lease.job
        for asks in (other, two.worker):
            await asks.say(AskPaths(job=job, attempt=1, reason="timeout"))
            assert await refusal(asks) == "unknown_job"
        await two.requester.say(AskPaths(job=job, attempt=2, reason="timeout"))
        assert await refusal(two.requester) == "fenced"
        await two.ask()
        await two.ask()
        assert await refusal(two.requester) == "busy"


# What passes


async def test_bytes_pass_both_ways_and_are_counted_as_a_gift(horde: Horde, link: Link) -> None:
    before = (await horde.scrape())["relayed"]
    async with Two.open(link) as two:
        ticket = await own_ticket(two)
        async with met(link, two, ticket) as (requester, worker):
            assert (await horde.scrape())["relayed"]["streams"] == 1
            there, back = bytes(range(256)) * 1_000, bytes(reversed(range(256))) * 2_000
            for end, content in ((requester, there), (worker, back)):
                for at in range(0, len(content), 64 * 1024):
                    await end.socket.send_bytes(content[at : at + 64 * 1024])
            assert await worker.hear_all(len(there)) == there
            assert await requester.hear_all(len(back)) == back
            await worker.socket.close()
            assert await requester.end() == ""
    after = (await horde.scrape())["relayed"]
    assert after["bytes"] - before["bytes"] == len(there) + len(back)
    assert after["pairs"] - before["pairs"] == 1
    assert "gift" in after["text"]


async def test_who_comes_again_goes_on_with_what_is_left(link: Link, serving_key: SigningKey) -> None:
    async with Two.open(link) as two:
        ticket = made(two, serving_key, max_bytes=50_000)
        for number in (1, 2):
            async with met(link, two, ticket) as (requester, worker):
                await worker.socket.send_bytes(bytes(30_000))
                if number == 1:
                    assert len(await requester.hear_all(30_000)) == 30_000
                else:
                    assert "over_ticket" in await requester.end()


def made(two: Two, key: SigningKey, /, *, root: bytes = b"", **terms: Any) -> bytes:
    """A ticket of the test's own making."""
    root = root or two.worker.root
    body = but(_terms(two, key), **terms)
    return sign(body, key, root).raw


def _terms(two: Two, key: SigningKey) -> RelayTicket:
    return RelayTicket(
        job=two.lease.job,
        attempt=two.lease.attempt,
        relay=key.public,
        url="ws://127.0.0.1:1",
        requester=two.asked.job_key.public,
        worker=two.worker.key.public,
        max_bytes=10**9,
        max_rate=10**9,
        valid_until=now_ms() + 600_000,
    )


async def test_a_ticket_is_for_so_many_bytes(link: Link, serving_key: SigningKey) -> None:
    async with (
        Two.open(link) as two,
        met(link, two, made(two, serving_key, max_bytes=100_000)) as (requester, worker),
    ):
        heard = asyncio.create_task(_all(requester))
        for _ in range(20):
            await worker.socket.send_bytes(bytes(7_000))
        content, reason = await heard
        assert reason.startswith("over_ticket")
        assert len(content) == 14 * 7_000
        assert (await worker.end()).startswith("over_ticket")


async def _all(end: AtRelay) -> tuple[bytes, str]:
    found = b""
    while True:
        message = await end.socket.receive()
        if message.type is not aiohttp.WSMsgType.BINARY:
            return found, str(message.extra or "")
        found += message.data


async def test_and_for_so_many_a_second(link: Link, serving_key: SigningKey) -> None:
    async with Two.open(link) as two:
        rate, size = 200_000, 200_000
        async with met(link, two, made(two, serving_key, max_rate=rate)) as (requester, worker):
            began = time.monotonic()
            for _ in range(size // 10_000):
                await worker.socket.send_bytes(bytes(10_000))
            await requester.hear_all(size)
            # Nothing is said of how slow it may be, only that it was not faster than the ticket allows.
            assert size <= rate * (time.monotonic() - began + 0.25) + 10_000


async def test_and_for_so_long(link: Link, serving_key: SigningKey) -> None:
    async with (
        Two.open(link) as two,
        met(link, two, made(two, serving_key, valid_until=now_ms() + 1_500)) as (requester, worker),
    ):
        ends = await asyncio.gather(requester.end(), worker.end())
        assert all(reason.startswith("over_ticket") for reason in ends)


# Who comes in


async def shown(link: Link, ticket: bytes, key: SigningKey) -> str:
    """With what a ticket is answered that opens nothing."""
    async with AtRelay.open(link.url, link.root) as end:
        await end.enter(ticket, key)
        return await end.end()


async def test_forged_old_and_others_tickets_open_nothing(link: Link, serving_key: SigningKey) -> None:
    async with Two.open(link) as two, Two.open(link) as others:
        own, worker = two.asked.job_key, two.worker.key
        right = made(two, serving_key)
        wrong = {
            "by another key": (made(two, STRANGER), own),
            "by the worker": (made(two, worker), worker),
            "by the requester": (made(two, own), own),
            "old": (made(two, serving_key, valid_until=now_ms() - 1), own),
            "for another relay": (made(two, serving_key, relay=STRANGER.public), own),
            "of another job": (await own_ticket(others), own),
            "shown by a stranger": (right, STRANGER),
            "shown by the tracker": (right, serving_key),
            "of another horde": (made(two, serving_key, root=STRANGER.public), own),
            "changed": (right[:-1] + bytes([right[-1] ^ 1]), own),
        }
        codes = {what: (await shown(link, *case)).partition(":")[0] for what, case in wrong.items()}

        assert codes == dict.fromkeys(wrong, "bad_ticket") | {
            "of another horde": "wrong_horde",
            "changed": "bad_signature",
        }


async def test_an_entry_that_was_overheard_opens_nothing(link: Link, serving_key: SigningKey) -> None:
    async with Two.open(link) as two:
        ticket = made(two, serving_key)
        async with AtRelay.open(link.url, link.root) as requester, AtRelay.open(link.url, link.root) as thief:
            overheard = requester.entry(ticket, two.asked.job_key)
            await requester.socket.send_bytes(overheard.raw)
            await thief.socket.send_bytes(overheard.raw)
            assert (await thief.end()).startswith("bad_ticket")


@pytest.mark.parametrize("said", [b"", b"\xc1", bytes(8_193), "text"])
async def test_what_is_no_entry_is_refused(link: Link, said: bytes | str) -> None:
    async with AtRelay.open(link.url, link.root) as end:
        if isinstance(said, str):
            await end.socket.send_str(said)
        else:
            await end.socket.send_bytes(said)
        reason = await end.end()
        assert reason.partition(":")[0] in ("", "malformed", "too_large")
        assert end.socket.close_code is not None


async def test_a_message_that_is_too_large_ends_both(link: Link, serving_key: SigningKey) -> None:
    async with Two.open(link) as two, met(link, two, made(two, serving_key)) as (requester, worker):
        await worker.socket.send_bytes(bytes(64 * 1024 + 1))
        await asyncio.gather(requester.end(), worker.end())


async def test_a_reader_of_pages_gets_no_further(link: Link) -> None:
    url = link.url.replace("ws", "http", 1)
    async with aiohttp.ClientSession() as session, session.get(f"{url}/relay") as answer:
        assert answer.status == 400


async def test_one_place_does_not_take_the_whole_relay(link: Link, serving_key: SigningKey) -> None:
    async with Two.open(link) as two, AsyncExitStack() as stack:
        for attempt in range(2, 5):  # of_one is 3
            end = await stack.enter_async_context(AtRelay.open(link.url, link.root))
            await end.enter(made(two, serving_key, attempt=attempt), two.asked.job_key)
            await asyncio.sleep(0)
        last = made(two, serving_key, attempt=9)
        found = ""
        while not found:  # until the three are in
            found = await _entered(link, last, two.asked.job_key)
        assert found.startswith("relay_full")


async def _entered(link: Link, ticket: bytes, key: SigningKey) -> str:
    """The reason for which it is sent away; empty if it can stay."""
    async with AtRelay.open(link.url, link.root) as end:
        await end.enter(ticket, key)
        try:
            async with asyncio.timeout(0.2):
                return await end.end()
        except TimeoutError:
            return ""


@pytest.mark.slow
async def test_who_shows_nothing_and_who_takes_nothing_is_cut_off(link: Link, serving_key: SigningKey) -> None:
    async with (
        Two.open(link) as two,
        AtRelay.open(link.url, link.root) as silent,
        met(link, two, made(two, serving_key)) as (requester, worker),
    ):
        # Nobody reads at the requester's: its socket's buffers fill, then the relay waits, then the worker.
        saying = asyncio.create_task(_say_on(worker))
        found = await asyncio.gather(silent.end(), worker.end())
        saying.cancel()
        await asyncio.gather(saying, return_exceptions=True)
        assert found[0].startswith("too_slow")
        assert not requester.socket.closed  # it has not looked yet


async def _say_on(end: AtRelay) -> None:
    while not end.socket.closed:
        await end.socket.send_bytes(bytes(60_000))


# Volunteers


async def test_a_volunteer_that_was_reached_is_named_first_and_no_more_when_it_has_gone(
    link: Link, tmp_path: Path
) -> None:
    key = SigningKey.generate()
    proof = Proving(key, link.root)
    async with Answering.open(tmp_path, proof) as answering, Two.open(link) as two:
        proof.certificate = answering.certificate.digest
        offer = OfferRelay(port=answering.port, certificate=proof.certificate, max_rate=1_000, streams=2)
        async with RawPeer.open(link, key) as volunteer:
            await volunteer.register()
            await volunteer.say(offer)
            assert (await volunteer.expect(Reached)).reachable
            first, second = map(terms_of, await tickets(two))

            assert (first.relay, first.url) == (key.public, f"wss://127.0.0.1:{answering.port}")
            assert (first.certificate, first.max_rate) == (proof.certificate, 1_000)
            assert second.relay != key.public
        await until_ticket(two, key)


async def until_ticket(two: Two, key: SigningKey) -> None:
    """The volunteer of this key is named no more."""
    async with asyncio.timeout(60):
        while True:
            await two.ask()
            while not (two.requester.heard and any(one.kind in ("paths", "refused") for one in two.requester.heard)):
                await two.requester.changed()
            [said] = [one for one in two.requester.heard if one.kind in ("paths", "refused")]
            two.requester.heard.remove(said)
            if said.kind == "paths" and key.public not in [terms_of(raw).relay for raw in said.open(Paths).tickets]:
                return


async def test_a_volunteer_that_was_not_reached_is_not_named(link: Link) -> None:
    async with RawPeer.open(link) as volunteer, Two.open(link) as two:
        await volunteer.register()
        await volunteer.say(OfferRelay(port=1024, certificate=bytes(32), streams=2))
        assert not (await volunteer.expect(Reached)).reachable
        assert len(await tickets(two)) == 1


async def test_where_nobody_relays_both_hear_that_there_is_no_path(tmp_path: Path) -> None:
    rules = "relays.tracker = false\nrelays.volunteers = false\nmeet.punching = false\n"
    async with Horde.open(tmp_path, rules) as horde:
        assert horde.link is not None
        async with Two.open(horde.link) as two:
            await two.ask()
            assert (await two.requester.expect(Paths)).reason == "no_path"
            assert (await two.worker.expect(Paths)).tickets == ()
        url = horde.link.url.replace("ws", "http", 1)
        async with aiohttp.ClientSession() as session, session.get(f"{url}/relay") as answer:
            assert answer.status == 403


async def test_a_tracker_that_stops_parts_from_those_who_meet_there(tmp_path: Path) -> None:
    async with Horde.open(tmp_path) as horde:
        assert horde.link is not None
        assert horde.tracker is not None
        async with Two.open(horde.link) as two:
            ticket = await own_ticket(two)
            async with met(horde.link, two, ticket) as (requester, worker):
                stopped, *reasons = await asyncio.gather(horde.tracker.stop(), requester.end(), worker.end())
    assert stopped == 0
    assert [reason.partition(":")[0] for reason in reasons] == ["stopping"] * 2
