"""Prices, earning by serving and by awards, probation, the mint."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from peer.client import Client
from peer.events import Settled
from protocol.documents import Award, Denial, Settlement, open_document, sign
from protocol.envelope import parse
from protocol.keys import SigningKey
from protocol.messages import Refused
from protocol.prices import price
from protocol.work import ImageWork
from tests.support.builders import an_award
from tests.support.horde import PATIENCE_S, POLL_S, Horde
from tests.support.people import get
from tests.support.price_plugin import install
from tests.support.raw_peer import RawPeer, a_picture, now_ms

pytestmark = pytest.mark.slow

WORK = ImageWork(width=64, height=64, steps=3)
IMAGE = ("--dry-run", "image")


async def picture(client: Client) -> Settled:
    [settled] = [
        event
        async for event in client.image("a red circle", width=64, height=64, steps=3)
        if isinstance(event, Settled)
    ]
    return settled


async def standing(horde: Horde, name: str) -> dict[str, Any]:
    """What `potluck account --json` says."""
    found: dict[str, Any] = json.loads(await horde.run("peer", "account", "--json", "--home", str(horde.folder / name)))
    return found


async def award(horde: Horde, *words: str, code: int = 0) -> str:
    """`potluck-tracker admin award`."""
    assert horde.door is not None
    return await horde.run(
        "tracker", "admin", "award", str(horde.tracker_folder), *words, "--url", horde.door.url, "--json", code=code
    )


def settlements(horde: Horde) -> list[Settlement]:
    with closing(sqlite3.connect(horde.tracker_folder / "horde.db")) as connection:
        rows = connection.execute("SELECT raw FROM documents WHERE kind = 'settlement' ORDER BY rowid").fetchall()
    return [open_document(parse(raw), Settlement) for (raw,) in rows]


async def test_prices_of_a_plug_in_found_by_its_entry_point_are_paid_and_the_audit_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = install(tmp_path / "plugin")
    path = [str(place), str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    async with Horde.open(tmp_path, 'prices.plugin = "flat"') as horde:
        await horde.worker("ann", *IMAGE)
        async with horde.client() as nobody:
            settled = await picture(nobody)
        assert settled.minted == 9_000
        report = await horde.audit()
        assert report["ok"]
        assert report["by_plugin"] == 1
        text = await horde.run("tracker", "audit", str(horde.tracker_folder))
        assert "a plug-in made the price of 1 leases: it was only checked against max_price" in text


async def test_a_plug_in_that_is_not_installed_is_refused_with_its_line(tmp_path: Path) -> None:
    async with Horde.open(tmp_path) as horde:
        horde.add_rules('prices.plugin = "missing"')
        text = await horde.run("tracker", "check", str(horde.tracker_folder), code=1)
        assert "prices.plugin: no entry point 'missing' in the group potluck.prices" in text


async def test_earning_is_by_serving_and_by_awards_of_the_operator_each_a_signed_act(tmp_path: Path) -> None:
    async with Horde.open(tmp_path) as horde:
        await horde.worker("ann", *IMAGE)
        async with horde.client() as nobody:
            earned = (await picture(nobody)).minted
            number = (await standing(horde, "ann"))["account"]
        done = json.loads(await award(horde, f"Ann#{number}", "7.5", "--reason", "for the pictures of the summer fair"))
        assert done["amount"] == 7_500
        found = await standing(horde, "ann")
        assert (found["balance"], found["earned"]) == (earned + 7_500, earned)

        # Whoever is not the operator makes none, and nobody gets any who is not there.
        await award(horde, "4711", "1", "--reason", "nobody", code=6)
        await award(horde, str(number), "0.0001", "--reason", "too little", code=2)
        await award(horde, str(number), "1", "--reason", "", code=2)
        assert horde.door is not None
        async with RawPeer.open(horde.door) as thief:
            said = an_award(number, valid_until=now_ms() + 60_000)
            await thief.send(sign(said, thief.key, horde.door.root).raw)
            refused = await heard_refused(thief)
            assert refused.code == "wrong_signer"
        assert (await standing(horde, "ann"))["balance"] == earned + 7_500
        report = await horde.audit()
        assert report["ok"]
        assert report["minted"] == earned + 7_500
        with closing(sqlite3.connect(horde.tracker_folder / "horde.db")) as connection:
            [(raw,)] = connection.execute("SELECT raw FROM documents WHERE kind = 'award'").fetchall()
        body = open_document(parse(raw), Award)
        assert body.reason == "for the pictures of the summer fair"
        status, page = await get(horde, "/awards")
        [shown] = page["awards"]
        assert (status, shown.pop("day") > 20_000) == (200, True)
        assert shown == {"account": number, "amount": 7_500, "reason": body.reason}


async def heard_refused(peer: RawPeer) -> Refused:
    while not (found := [one for one in peer.heard if one.kind == "refused"]):
        peer._changed.clear()
        await peer._changed.wait()
    return found[0].open(Refused)


async def test_an_award_needs_a_tracker_that_serves_this_very_horde(tmp_path: Path) -> None:
    async with Horde.open(tmp_path / "one") as one, Horde.open(tmp_path / "other") as other:
        assert one.door is not None
        assert other.door is not None
        folder = str(one.tracker_folder)
        words = ("tracker", "admin", "award", folder, "100", "1", "--reason", "a mistake", "--url")
        await one.run(*words, other.door.url, code=6)
        await one.run(*words, "ws://127.0.0.1:9", code=6)


@pytest.mark.ci_slow
async def test_probation_withholds_a_part_until_trust_and_the_account_shows_how_much_why_and_what_is_missing(
    tmp_path: Path,
) -> None:
    rules = "earning.withheld = 400\nearning.trust_jobs = 3\nearning.trust_days = 0"
    async with Horde.open(tmp_path, rules) as horde:
        await horde.worker("ann", *IMAGE)
        async with horde.client() as nobody:
            each = [(await picture(nobody)).minted for _ in range(2)]
            waits = each[0] * 400 // 1000
            found = await standing(horde, "ann")
            assert (found["earned"], found["withheld"], found["balance"]) == (
                sum(each),
                2 * waits,
                sum(each) - 2 * waits,
            )
            assert found["missing"] == {"jobs": 1, "days": 0, "faults": 0}
            text = await horde.run("peer", "account", "--home", str(horde.folder / "ann"))
            assert "of what it earned: it is yours" in text
            assert "1 more job without a fault" in text
            each.append((await picture(nobody)).minted)
        found = await standing(horde, "ann")
        assert (found["withheld"], found["balance"]) == (0, sum(each))
        assert found["missing"] == {"jobs": 0, "days": 0, "faults": 0}
        assert [said.withheld for said in settlements(horde)] == [waits, waits, 0]
        assert (await horde.audit())["ok"]


async def test_probation_a_denied_result_is_a_fault_that_has_to_pass_first(tmp_path: Path) -> None:
    rules = "earning.withheld = 400\nearning.trust_jobs = 1\nearning.trust_days = 0\nearning.fault_days = 2"
    async with Horde.open(tmp_path, rules) as horde:
        assert horde.link is not None
        key = SigningKey.generate()
        async with RawPeer.open(horde.link, key) as worker, RawPeer.open(horde.link) as asker:
            await worker.serve("raw")
            await deny_one(horde, worker, asker)
        async with Client(horde.link, key) as client:
            found = await client.account()
        assert (found.withheld, found.faults, found.trust_jobs, found.trust_days) == (0, 1, 1, 2)
        assert (await horde.audit())["ok"]


async def deny_one(horde: Horde, worker: RawPeer, asker: RawPeer) -> None:
    """The asker denies what it was never sent."""
    assert horde.link is not None
    asked = await asker.ask(*a_picture("raw"))
    lease, _ = await worker.lease()
    said = Denial(job=lease.job, attempt=lease.attempt, reason="digest_mismatch")
    await asker.send(sign(said, asked.job_key, horde.link.root).raw)
    await asker.envelope("ended")


@pytest.mark.ci_slow
async def test_a_free_part_is_minted_only_where_k_different_owners_could_have_served_it(tmp_path: Path) -> None:
    async with Horde.open(tmp_path, "mint.owners = 3") as horde:
        whole = await price_of(horde)
        await horde.worker("ann", *IMAGE)
        await horde.worker("carl", *IMAGE)
        async with horde.client() as nobody:
            alone = await picture(nobody)
            assert (alone.paid, alone.minted) == (0, 0), "served all the same"
            await horde.worker("ben", *IMAGE)
            assert (await picture(nobody)).minted == whole
        assert (await horde.audit())["ok"]


async def price_of(horde: Horde) -> int:
    async with horde.client() as client:
        return price(client.rules, WORK, "dry-run")


async def test_no_owner_gets_more_than_its_share_of_the_mint_and_for_no_asker_more_is_made(tmp_path: Path) -> None:
    async with Horde.open(tmp_path, "mint.daily = 20000\nmint.owner_share = 500\nmint.asker_share = 300") as horde:
        whole = await price_of(horde)
        assert 6_000 < 3 * whole < 10_000
        await horde.worker("ann", *IMAGE)
        async with horde.client() as nobody:
            minted = [(await picture(nobody)).minted for _ in range(4)]
        assert sum(minted) == 6_000, "the asker's share"
        horde.join("carl")
        async with horde.client("carl") as carl:
            await carl.register()
            minted = [(await picture(carl)).minted for _ in range(3)]
        assert sum(minted) == 4_000, "what was left of the owner's share"
        assert (await horde.audit())["ok"]


async def test_gifts_are_shown_contributors_carried_so_many_jobs_of_people_without_kudos(tmp_path: Path) -> None:
    async with Horde.open(tmp_path) as horde:
        await horde.worker("ann", *IMAGE)
        assert (await horde.scrape())["carried"]["jobs"] == 0
        async with horde.client() as nobody:
            earned = sum([(await picture(nobody)).minted for _ in range(2)])
        found = await until_carried(horde, 2)
        assert found["carried"] == {
            "jobs": 2,
            "kudos": earned,
            "text": "contributors carried 2 jobs of people without kudos",
        }
        assert found["kudos"]["unspent"] == earned
        assert horde.door is not None
        url = horde.door.url.replace("ws", "http", 1)
        async with aiohttp.ClientSession() as session, session.get(f"{url}/") as answer:
            text = await answer.text()
        assert "contributors carried 2 jobs of people without kudos" in text
        assert f"left {earned / 1000:g} kudos unspent" in text


async def until_carried(horde: Horde, jobs: int) -> dict[str, Any]:
    """What the tracker shows is looked up now and then only."""
    async with asyncio.timeout(PATIENCE_S):
        while (found := await horde.scrape())["carried"]["jobs"] != jobs:  # noqa: ASYNC110 (asked of a process)
            await asyncio.sleep(POLL_S)
    return found
