"""A ledger that anyone can check, over real sockets: with a tracker that rewrites it, and one that shows two of it."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from peer.audit.mine import parties, shown_by
from peer.audit.shown import read_checkpoint
from peer.events import Settled
from protocol.documents import Leaf, Settlement, open_document, parse_document
from protocol.keyfiles import load_key
from tests.support.following import Following, followed
from tests.support.horde import PATIENCE_S, POLL_S, Horde, Process, until
from tests.support.raw_peer import fund
from tests.support.rewriting import dearer, rewrite, same

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

RULES = "ledger.delay_days = 0\n"


async def picture(horde: Horde, name: str) -> Following:
    async with horde.client(name) as client:
        return await followed(client.image("a red circle", width=64, height=64, steps=3))


async def audit(horde: Horde, name: str, *arguments: str, code: int = 0) -> dict[str, Any]:
    """What `potluck audit` of this home prints."""
    text = await horde.run("peer", "audit", *arguments, "--home", str(horde.folder / name), "--json", code=code)
    report: dict[str, Any] = json.loads(text)
    return report


def kinds(report: dict[str, Any]) -> set[str]:
    return {finding["kind"] for finding in report["findings"]}


def database(horde: Horde) -> Path:
    return horde.tracker_folder / "horde.db"


def change_entry(horde: Horde, event: str, *, how: Any) -> None:
    """What the operator does to the first entry of this event, while the tracker does not run."""
    with closing(sqlite3.connect(database(horde))) as connection:
        rows = connection.execute("SELECT entry, leaf FROM entries ORDER BY entry").fetchall()
    decoded = [(entry, msgspec.msgpack.decode(raw, type=Leaf)) for entry, raw in rows]
    entry = next(entry for entry, leaf in decoded if leaf.event == event and leaf.postings)
    rewrite(database(horde), load_key(horde.tracker_folder / "serving.key"), entry, how)


async def covered(horde: Horde) -> None:
    """Wait for a checkpoint that covers everything."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            ledger = (await horde.scrape())["ledger"]
            if ledger["entries"] == ledger["checkpoint"]["size"]:
                return
            await asyncio.sleep(POLL_S)


def paid_for(worker: Process) -> int:
    """How many settlements the worker has, each of which it keeps before it tells of it."""
    return sum(line.get("event") == "settled" for line in worker.lines())


async def stop(horde: Horde) -> None:
    assert horde.tracker is not None
    assert await horde.tracker.stop() == 0


async def test_a_ledger_that_anyone_can_check_is_caught_when_it_is_rewritten_and_not_when_the_root_restores_it(
    tmp_path: Path,
) -> None:
    async with Horde.open(tmp_path, RULES) as horde:
        ann = await horde.worker("ann", "--dry-run", "image")
        for name in ("payer", "stranger"):
            horde.join(name)
        assert horde.link is not None
        await fund(horde.link, horde.home("payer").key())
        await picture(horde, "payer")
        await horde.run("tracker", "backup", str(horde.tracker_folder), str(tmp_path / "copy.db"))
        job = (await picture(horde, "payer")).one(Settled)
        assert job.paid
        await until(lambda: paid_for(ann) == 2, "the worker heard of both settlements")
        await covered(horde)

        # Who comes again is shown a checkpoint over its own entry.
        async with horde.client("payer"):
            pass
        assert covering_own(horde)

        # Everybody finds the same, from the tracker and from files; those who know something find it by proof.
        http = horde.link.url.replace("ws", "http", 1)
        nobody = await audit(horde, "nobody", http)
        payer = await audit(horde, "payer")
        worker = await audit(horde, "ann", "--mine")
        await horde.run("tracker", "export", str(horde.tracker_folder), str(tmp_path / "export"))
        files = await audit(horde, "stranger", str(tmp_path / "export"))
        assert (nobody["known"], payer["known"], files["known"]) == (False, True, True)
        assert nobody["read"] == payer["read"] == files["read"] == nobody["size"] > 0
        assert worker["read"] is None
        assert (payer["own"], worker["own"]) == (2, 2)
        assert payer["shown"]
        assert worker["shown"]
        await no_party_is_named(http)

        # The payer shows somebody what it paid.
        disclosure = tmp_path / "disclosure.json"
        opened = await audit(horde, "payer", "--open", job_of(horde), "--save", str(disclosure))
        assert [entry["event"] for entry in opened["entries"]][:2] == ["hold", "settle"]
        assert (await audit(horde, "stranger", "--check", str(disclosure)))["kind"] == "disclosure"

        # A restart is nothing; a rewritten entry is found by all who knew better, and they can show it.
        await stop(horde)
        change_entry(horde, "settle", how=same)
        await horde.serve()
        assert (await audit(horde, "payer"))["ok"]
        await stop(horde)
        change_entry(horde, "settle", how=dearer)
        await horde.serve()
        found = await audit(horde, "payer", code=6)
        assert "rewritten" in kinds(found)
        assert "rewritten" in kinds(await audit(horde, "ann", "--mine", code=6))
        [evidence, *_] = [finding["evidence"] for finding in found["findings"] if finding["evidence"]]
        shown = await audit(horde, "stranger", "--check", evidence)
        assert shown["kind"] == "two_histories"
        assert shown["horde"] == found["root"]
        await tampered_evidence_shows_nothing(horde, Path(evidence))

        # The root goes on from the copy: what it cut is told, and no finding.
        await stop(horde)
        await horde.run("tracker", "restore", str(horde.tracker_folder), str(tmp_path / "copy.db"))
        await horde.serve()
        await covered(horde)
        after = await audit(horde, "payer")
        assert after["epoch"] == 1
        assert after["cut"]
        assert after["own"]


async def no_party_is_named(http: str) -> None:
    """What is served says who has which account, and of a job only that it was served."""
    async with aiohttp.ClientSession() as session, session.get(f"{http}/ledger/entries?from=0") as answer:
        raw = await answer.read()
    part = msgspec.msgpack.decode(raw)
    for row in part["rows"]:
        leaf = msgspec.msgpack.decode(row["leaf"], type=Leaf)
        assert sum(account >= 100 for account, _ in leaf.postings) <= 1
        assert set(row) == {"leaf"}


def job_of(horde: Horde) -> str:
    """The job of the newest settlement that the payer keeps."""
    assert horde.link is not None
    *_, party = parties(horde.home("payer"), horde.link.root)
    return open_document(parse_document(party.settlement, Settlement), Settlement).job.hex()


def covering_own(horde: Horde) -> bool:
    """Whether the payer keeps a checkpoint over the entry of its newest settlement."""
    assert horde.link is not None
    home, root = horde.home("payer"), horde.link.root
    *_, party = parties(home, root)
    entry = open_document(parse_document(party.settlement, Settlement), Settlement).entry
    return any(read_checkpoint(raw, root)[1].size > entry for raw in shown_by(home, root).all())


async def tampered_evidence_shows_nothing(horde: Horde, file: Path) -> None:
    content = json.loads(file.read_text("utf-8"))
    content["second"] = content["first"]
    wrong = file.with_name("wrong.json")
    wrong.write_text(json.dumps(content), "utf-8")
    assert (await audit(horde, "stranger", "--check", str(wrong), code=6))["error"] == "not_shown"


async def test_a_tracker_that_shows_two_histories_to_two_peers_is_caught_when_they_compare(tmp_path: Path) -> None:
    async with Horde.open(tmp_path, RULES) as horde:
        await horde.worker("ann", "--dry-run", "image")
        for name in ("one", "two"):
            horde.join(name)
            await picture(horde, name)
        await stop(horde)
        fork = tmp_path / "fork.db"
        shutil.copy(database(horde), fork)
        common = await hand_out(horde, "one")

        # One of them is shown a ledger that goes on with its own job, the other one with another's.
        await horde.serve()
        await horde.workers(1)
        await picture(horde, "one")
        await covered(horde)
        assert (await audit(horde, "one"))["ok"]
        await stop(horde)
        ours = await hand_out(horde, "one")
        for path in database(horde).parent.glob("horde.db*"):
            path.unlink()
        shutil.copy(fork, database(horde))
        await horde.serve()
        await horde.workers(1)
        await picture(horde, "two")
        await picture(horde, "two")
        await covered(horde)

        assert (await audit(horde, "two"))["ok"]
        control = await audit(horde, "two", "--against", str(common))
        assert control["of_others"]
        found = await audit(horde, "two", "--against", str(ours), code=6)
        assert kinds(found) == {"two_histories"}
        evidence = found["findings"][0]["evidence"]
        assert (await audit(horde, "nobody", "--check", evidence))["kind"] == "two_histories"


async def hand_out(horde: Horde, name: str) -> Path:
    file = horde.folder / f"shown-by-{name}-{len(list(horde.folder.glob('shown-*')))}.json"
    await audit(horde, name, "--shown", str(file))
    return file
