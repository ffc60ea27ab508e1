"""Having a say: who has served proposes and votes, the result is signed and published, the operator answers."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from peer.acts import propose, vote
from peer.events import Refused
from peer.proposing import keep_vote
from protocol.envelope import Envelope
from protocol.merkle import leaf_hash, verify_inclusion
from tests.support.horde import PATIENCE_S, POLL_S, Horde
from tests.support.people import get
from tests.together.test_moderation import IMAGE, number_of, picture
from tests.together.test_public_ledger import audit, covered

pytestmark = pytest.mark.slow

RULES = """
votes.standing = 1000
votes.quorum = 2
votes.open = 10
ledger.delay_days = 0
"""


async def command(horde: Horde, name: str, *words: str, code: int = 0) -> dict[str, Any]:
    text = await horde.run("peer", *words, "--json", "--home", str(horde.folder / name), code=code)
    found: dict[str, Any] = json.loads(text) if text.strip() else {}
    return found


@pytest.mark.timeout(300)
async def test_having_a_say_those_who_served_decide_on_a_rule_and_the_operator_applies_it(tmp_path: Path) -> None:
    async with Horde.open(tmp_path, RULES) as horde:
        for name in ("ann", "ben"):
            worker = await horde.worker(name, *IMAGE)
            async with horde.client() as nobody:
                await picture(nobody)
            await worker.stop()
            await horde.workers(0)
        horde.join("cid")
        await number_of(horde, "cid")

        # Who has not served has no voice; what could not be applied is not proposed.
        refused = await command(horde, "cid", "propose", "limits.max_n", "30", "sheets", code=4)
        assert refused["error"] == "not_allowed"
        refused = await command(horde, "ann", "propose", "limits.max_m", "30", "sheets", code=4)
        assert refused["error"] == "bad_value"

        async with horde.client("ann") as ann, horde.client("ben") as ben, horde.client("cid") as cid:
            proposal = await propose(ann, "limits.max_n", "30", "contact sheets of thirty pictures")
            await vote(ann, proposal.digest, yes=False)
            await vote(ann, proposal.digest, yes=True)
            ballot = await vote(ben, proposal.digest, yes=True)
            with pytest.raises(Refused, match="has no voice"):
                await vote(cid, proposal.digest, yes=False)
        shown = await ended(horde)
        assert shown["outcome"] == {"yes": 2, "no": 0, "accepted": True}
        assert (shown["key"], shown["was"], shown["value"], shown["voices"]) == ("limits.max_n", "20", "30", 2)
        await command(horde, "ben", "vote", "1", "no", code=4)
        assert await is_counted(horde, ballot, shown["digest"])

        # The operator cannot say that it is applied before it is.
        words = (
            "tracker",
            "admin",
            "answer",
            str(horde.tracker_folder),
            "1",
            "--url",
            str(horde.door and horde.door.url),
        )
        await horde.run(*words, "--rules", "3", "--text", "done", code=6)
        horde.add_rules("limits.max_n = 30")
        assert horde.tracker is not None
        await horde.tracker.stop()
        await horde.serve()
        await horde.run(*words, "--rules", "3", "--text", "there are workers enough")
        [shown] = (await command(horde, "cid", "proposals"))["proposals"]
        assert shown["answer"] == {"rules": 3, "text": "there are workers enough"}

        # Anybody counts the voices again; who has voted finds that it was counted.
        await covered(horde)
        assert horde.link is not None
        keep_vote(horde.home("ben"), horde.link.root, ballot)
        found = await audit(horde, "ben")
        assert found["ok"], found["findings"]
        assert (found["proposals"], found["votes"]) == (1, 1)
        await horde.run("tracker", "export", str(horde.tracker_folder), str(tmp_path / "export"))
        found = await audit(horde, "cid", str(tmp_path / "export"))
        assert found["ok"], found["findings"]
        assert (found["proposals"], found["votes"]) == (1, 0)
        report = await horde.audit()
        assert report["ok"], report["findings"]


async def is_counted(horde: Horde, ballot: Envelope, proposal: str) -> bool:
    """Whether the tracker shows that this vote is among those of the outcome."""
    assert horde.door is not None
    url = horde.door.url.replace("ws", "http", 1)
    async with aiohttp.ClientSession() as http, http.post(f"{url}/proposals/proof", data=ballot.raw) as answer:
        found = await answer.json()
    _, content = await get(horde, "/proposals")
    [shown] = content["proposals"]
    assert shown["digest"] == proposal
    proof = [bytes.fromhex(one) for one in found["proof"]]
    root = bytes.fromhex(shown["outcome"]["root"])
    return verify_inclusion(leaf_hash(ballot.raw), found["place"], found["size"], proof, root)


async def ended(horde: Horde) -> dict[str, Any]:
    """The one proposal, once it was counted."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            [shown] = (await command(horde, "cid", "proposals"))["proposals"]
            if shown["outcome"]:
                found: dict[str, Any] = shown
                return found
            await asyncio.sleep(POLL_S)
