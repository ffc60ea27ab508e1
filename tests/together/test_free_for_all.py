"""Free for all: limits for anonymous people and for accounts without kudos, what they say, places, waits and quotes.

Real processes and sockets; each test is named by the promise that it shows to be kept (docs/tests.md).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from protocol.documents import Lease
from protocol.keys import SigningKey
from protocol.messages import AskQuote, AskWhy, Position, Quote, Refused, Why
from protocol.work import PublicPart, TextWork
from tests.support.builders import but
from tests.support.database import job_states, tables
from tests.support.horde import Horde, until
from tests.support.raw_peer import Asked, RawPeer, a_picture, fund

MODEL = "raw"
#: Nothing may happen by itself while a test looks.
CALM = """
times.accept = 120
times.open = 120
"""
#: So that a test can come from several addresses, as if by way of a proxy.
PROXY = """
server.trusted_proxies = ["127.0.0.0/8"]
"""
HOME, NEIGHBOUR, ELSEWHERE = "203.0.113.77", "203.0.113.201", "198.51.100.9"
NOTICE = "This horde is free for everyone, always"


def pictures(n: int = 1, side: int = 64, steps: int = 30) -> PublicPart:
    return but(a_picture(MODEL, side=side, steps=steps)[0], n=n)


async def ask(peer: RawPeer, n: int = 1) -> Asked:
    return await peer.ask(pictures(n), a_picture(MODEL)[1])


async def refused(peer: RawPeer, public: PublicPart) -> Refused:
    """A quote is refused wherever the request would be."""
    await peer.say(AskQuote(public=public))
    return (await peer.envelope("refused")).open(Refused)


def leases(worker: RawPeer) -> list[Lease]:
    return [envelope.open(Lease) for envelope in worker.heard if envelope.kind == "lease"]


async def finish(worker: RawPeer, requester: RawPeer, asked: Asked, lease: Lease) -> None:
    """The worker delivers and is paid."""
    receipt = worker.receipt(lease)
    await worker.deliver(receipt)
    await requester.send(asked.acknowledgement(requester.root, receipt).raw)
    await requester.envelope("settlement")


@asynccontextmanager
async def a_horde(folder: Path, rules: str = "") -> AsyncIterator[Horde]:
    async with Horde.open(folder, CALM + rules) as horde:
        assert horde.link is not None
        yield horde
        assert (await horde.audit())["ok"]


def states(horde: Horde) -> list[str]:
    return sorted(job_states(horde.tracker_folder).values())


async def test_anonymous_people_have_limits_on_size_steps_tokens_and_jobs_at_once_also_per_address_block(
    tmp_path: Path,
) -> None:
    rules = PROXY + "limits.anonymous_running = 2\nlimits.anonymous_open_jobs = 6\n"
    async with a_horde(tmp_path, rules) as horde:
        link = horde.link
        assert link is not None
        async with (
            RawPeer.open(link) as worker,
            RawPeer.open(link, address=HOME) as one,
            RawPeer.open(link, address=NEIGHBOUR) as neighbour,
            RawPeer.open(link, address=ELSEWHERE) as elsewhere,
        ):
            await worker.serve(MODEL)
            assert (await refused(one, pictures(side=2048))).code == "over_limit"
            assert (await refused(one, pictures(steps=51))).code == "over_limit"
            assert (await refused(one, pictures(n=5))).code == "over_limit"
            for long in (TextWork(max_tokens=513), TextWork(context_tokens=8_193)):
                assert (await refused(one, PublicPart(work=long, models=(MODEL,)))).code == "over_limit"
            await ask(one, 3)
            await ask(neighbour, 3)
            await until(lambda: states(horde) == ["leased"] * 2 + ["waiting"] * 4, "two run, the others wait")
            too_many = await refused(neighbour, pictures())
            assert "limits.anonymous_open_jobs" in too_many.text
            await ask(elsewhere, 3)
            await until(lambda: states(horde) == ["leased"] * 4 + ["waiting"] * 5, "another block has room of its own")


@pytest.mark.slow
async def test_accounts_without_kudos_have_a_limit_only_on_how_many_of_their_jobs_run_at_once(tmp_path: Path) -> None:
    async with a_horde(tmp_path, "limits.without_kudos_running = 3\n") as horde:
        link = horde.link
        assert link is not None
        rich = SigningKey.generate()
        await fund(link, rich)
        async with RawPeer.open(link) as worker, RawPeer.open(link) as poor, RawPeer.open(link, rich) as other:
            await worker.serve(MODEL, ahead=50)
            await poor.register()
            asked = await ask(poor, 12)
            await until(lambda: len(leases(worker)) == 3, "three run")
            assert states(horde) == ["leased"] * 3 + ["settled"] + ["waiting"] * 9, "what is above waits, not refused"
            waits = next(job for job in asked.jobs if job not in {lease.job for lease in leases(worker)})
            await poor.say(AskWhy(job=waits))
            assert (await poor.expect(Why)).reasons == (("running_limit", 1),)
            for _ in range(12):
                lease, _ = await worker.lease()
                await finish(worker, poor, asked, lease)
            assert states(horde) == ["settled"] * 13, "each of them is served"

            await ask(other, 4)
            await until(lambda: states(horde).count("leased") == 4, "whose kudos cover them runs any number")


@pytest.mark.slow
async def test_when_a_limit_is_met_the_answer_says_which_until_when_and_what_would_lift_it(tmp_path: Path) -> None:
    async with a_horde(tmp_path, "limits.open_jobs = 5\nlimits.max_pixels = 2_097_152\n") as horde:
        link = horde.link
        assert link is not None
        async with RawPeer.open(link) as peer:
            size = await refused(peer, pictures(side=1200))
            assert "limits.anonymous_max_pixels" in size.text
            assert "no time lifts" in size.text
            assert "or register, which is free: with an account it is 2097152" in size.text
            await peer.register()
            larger = await refused(peer, pictures(side=2048))
            assert "limits.max_pixels" in larger.text
            assert "ask for less" in larger.text
            await ask(peer, 4)
            public, private = pictures(3), a_picture(MODEL)[1]
            asked = await refused(peer, public)
            assert "limits.open_jobs" in asked.text
            assert "wait until 2 of them have ended, or cancel some" in asked.text
            assert private.prompt not in asked.text


async def test_only_keyed_hashes_of_addresses_are_kept(tmp_path: Path) -> None:
    async with a_horde(tmp_path, PROXY) as horde:
        link = horde.link
        assert link is not None
        async with RawPeer.open(link) as worker, RawPeer.open(link, address=HOME) as requester:
            await worker.serve(MODEL)
            asked = await ask(requester, 2)
            lease, _ = await worker.lease()
            await finish(worker, requester, asked, lease)
            await refused(requester, pictures(side=4096))
        async with RawPeer.connect(link, address=HOME) as rude:
            await rude.send(b"no envelope")
            await rude.closed()
        tracker = horde.tracker
        assert tracker is not None
        await tracker.stop()
        files = [path for path in horde.tracker_folder.rglob("*") if path.is_file()] + [tracker.output]
        found = [path.name for path in files if any(mark in path.read_bytes() for mark in MARKS)]
        assert found == [], "neither the address nor its block, as text or as bytes"
        assert tracker.output.stat().st_size > 0

        # The control: an address that does lie there is found.
        planted = horde.tracker_folder / "planted"
        planted.write_bytes(b"\x00" + HOME.encode() + b"\x00")
        assert any(mark in planted.read_bytes() for mark in MARKS)


#: An address and its block, as people and as machines write them.
MARKS = (b"203.0.113", bytes([203, 0, 113, 77]), bytes([203, 0, 113, 0]))


async def test_queue_position_and_expected_wait_from_measured_speeds_and_a_report_of_how_well_they_came_true(
    tmp_path: Path,
) -> None:
    async with a_horde(tmp_path) as horde:
        link = horde.link
        assert link is not None
        async with RawPeer.open(link) as worker, RawPeer.open(link) as requester:
            await worker.serve(MODEL, ahead=0)
            await requester.register()
            first = await ask(requester)
            lease, _ = await worker.lease()
            await finish(worker, requester, first, lease)
            running = await ask(requester)
            waiting = await ask(requester)
            position = await requester.expect(Position)
            assert (position.job, position.ahead, position.workers) == (waiting.jobs[0], 0, 1)
            assert position.wait >= 1
            lease, _ = await worker.lease()
            await finish(worker, requester, running, lease)
            lease, _ = await worker.lease()
            assert lease.job == waiting.jobs[0]
            report = (await horde.scrape())["waits"]
            assert (report["predicted"], report["unserved"]) == (1, 0)
            assert 0 <= report["median"] == report["p90"]


@pytest.mark.slow
async def test_dry_run_quotes_without_asking_for_work(tmp_path: Path) -> None:
    async with Horde.open(tmp_path, "limits.anonymous_max_steps = 40\n") as horde:
        await horde.worker("ann", "--dry-run", "image", "--dry-run", "text")
        horde.join("bob")
        (database,) = horde.tracker_folder.glob("*.db")
        before = tables(database)
        command = ("peer", "image", "a red circle", "--dry-run", "--home", str(tmp_path / "bob"))
        said = json.loads(await horde.run(*command, "--width", "512", "--height", "512", "-n", "2", "--json"))
        assert said == {
            "price": said["price"],
            "tax": 3_000,
            "held": 0,
            "free": 2 * said["price"],
            "workers": 1,
            "ahead": 0,
            "wait": 1,
        }
        assert said["price"] == 7_600
        text = await horde.run("peer", "text", "hello", "--dry-run", "--home", str(tmp_path / "bob"))
        for word in ("price", "tax 3, burned", "held", "free", "workers     1", "place       behind 0", "about 1 s"):
            assert word in text
        refusal = json.loads(await horde.run(*command, "--steps", "41", "--json", code=4))
        assert refusal["error"] == "over_limit"
        assert "limits.anonymous_max_steps" in refusal["text"]
        assert tables(database) == before, "nothing was stored"
        assert (await horde.scrape())["since_start"].get("requests", 0) == 0


async def test_a_quote_is_what_the_request_then_costs(tmp_path: Path) -> None:
    async with a_horde(tmp_path) as horde:
        link = horde.link
        assert link is not None
        key = SigningKey.generate()
        await fund(link, key)
        async with RawPeer.open(link) as worker, RawPeer.open(link, key) as requester:
            await worker.serve(MODEL)
            await requester.say(AskQuote(public=pictures()))
            quote = await requester.expect(Quote)
            asked = await ask(requester)
            lease, _ = await worker.lease()
            assert (lease.price, lease.paid, lease.free) == (quote.price, quote.price, 0)
            await finish(worker, requester, asked, lease)


@pytest.mark.slow
async def test_the_answer_to_a_registration_carries_the_notice_and_clients_show_it(tmp_path: Path) -> None:
    async with Horde.open(tmp_path) as horde:
        horde.join("bob")
        home = ("--home", str(tmp_path / "bob"))
        assert NOTICE in await horde.run("peer", "account", "--register", *home)
        again = json.loads(await horde.run("peer", "account", "--json", *home))
        assert again["notice"].startswith(NOTICE)
        worker = await horde.worker("ann", "--dry-run", "image")
        assert NOTICE in worker.text(), "a worker registers by itself"
