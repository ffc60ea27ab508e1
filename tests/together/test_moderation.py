"""Moderation in the open: acts by key from anywhere, brought to bear, in a public log, appealed against, audited."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest

from peer.client import Client
from peer.events import Refused, Settled
from protocol.documents import open_document
from protocol.envelope import parse
from protocol.governing import Act
from protocol.keyfiles import create_key, load_key
from protocol.keys import show_key
from tests.support.horde import PATIENCE_S, POLL_S, Horde
from tests.support.people import get
from tests.support.rewriting import sign_act_anew
from tests.together.test_public_ledger import audit, covered

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

IMAGE = ("--dry-run", "image")


class Office:
    """The keys of moderators and of an operator, and `potluck-tracker admin` with them, by the link alone."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.files = {name: folder / name for name in ("one", "other", "operator", "nobody")}
        self.keys = {name: show_key(create_key(file).public) for name, file in self.files.items()}

    @property
    def rules(self) -> str:
        moderators = json.dumps([self.keys["one"], self.keys["other"]])
        operators = json.dumps([self.keys["operator"]])
        return f"roles.moderators = {moderators}\nroles.operators = {operators}\nledger.delay_days = 0\n"

    async def do(self, horde: Horde, who: str, act: str, *words: str, code: int = 0) -> dict[str, Any]:
        """An act by that key, from anywhere."""
        file = str(self.files[who])
        text = await horde.run("tracker", "admin", act, str(horde.door), *words, "--key", file, "--json", code=code)
        found: dict[str, Any] = json.loads(text) if text.strip() else {}
        return found


BECAUSE = ("--rule", "filter.hate", "--reason", "prompts against a neighbour")


async def picture(client: Client) -> Settled:
    [settled] = [
        event
        async for event in client.image("a red circle", width=64, height=64, steps=3)
        if isinstance(event, Settled)
    ]
    return settled


async def number_of(horde: Horde, name: str) -> int:
    found = json.loads(await horde.run("peer", "account", "--register", "--json", "--home", str(horde.folder / name)))
    return int(found["account"])


async def own_acts(horde: Horde, name: str) -> list[dict[str, Any]]:
    found = json.loads(await horde.run("peer", "acts", "--json", "--home", str(horde.folder / name)))
    acts: list[dict[str, Any]] = found["acts"]
    return acts


async def test_moderation_in_the_open_every_act_is_signed_has_its_effect_and_can_be_answered(tmp_path: Path) -> None:
    office = Office(tmp_path / "office")
    async with Horde.open(tmp_path, office.rules) as horde:
        worker = await horde.worker("ann", *IMAGE)
        horde.join("ben")
        ben = await number_of(horde, "ben")
        owner = await number_of(horde, "ann")
        async with horde.client("ben") as client:
            await picture(client)

            # Only keys with a role act, and only on who is there.
            await office.do(horde, "nobody", "warn", str(ben), *BECAUSE, code=6)
            await office.do(horde, "one", "warn", "4711", *BECAUSE, code=6)
            await office.do(horde, "one", "suspend", str(ben), *BECAUSE, "--until", "tomorrow", code=2)

            suspended = await office.do(horde, "one", "suspend", f"Ben#{ben}", *BECAUSE, "--until", "7d")
            with pytest.raises(Refused, match=f"account {ben} is suspended: prompts against a neighbour") as refused:
                await picture(client)
            assert refused.value.code == "suspended"

            # The public log names persons by their account's number, and carries what was signed.
            _, content = await get(horde, "/acts")
            [shown] = content["acts"]
            assert (shown["act"], shown["account"], shown["state"]) == ("suspend", ben, "stands")
            assert (shown["rule"], shown["by"]) == ("filter.hate", office.keys["one"])
            envelope = parse(base64.b64decode(shown["document"]))
            envelope.verify()
            assert open_document(envelope, Act).reason == "prompts against a neighbour"
            assert envelope.digest.hex() == suspended["document"]

            # Whom it concerns sees it and answers; moderators read the answer, and lift the act.
            [act] = await own_acts(horde, "ben")
            assert (act["digest"], act["has_role"]) == (suspended["document"], True)
            home = str(horde.folder / "ben")
            await horde.run("peer", "appeal", "1", "that neighbour is a cat", "--home", home)
            assert await office.do(horde, "nobody", "appeals", code=6) == {}
            [appeal] = (await office.do(horde, "other", "appeals"))["appeals"]
            assert (appeal["account"], appeal["text"]) == (ben, "that neighbour is a cat")
            await office.do(horde, "other", "lift", suspended["document"][:8], *BECAUSE)
            assert (await office.do(horde, "other", "appeals"))["appeals"] == []
            await picture(client)

        # A paused worker gets nothing, hears of it at once, and comes back when that is lifted.
        await office.do(horde, "one", "pause", str(owner), *BECAUSE)
        told = await worker.line(lambda line: line.get("event") == "moderation" or line.get("kind") == "moderation")
        assert "pause" in json.dumps(told)
        await horde.workers(0)
        await office.do(horde, "one", "lift", "3", *BECAUSE)
        await horde.workers(1)

        # Two moderators for what cannot be undone.
        balance = await balance_of(horde, "ann")
        assert balance > 0
        await office.do(horde, "operator", "award", str(owner), "100", "--reason", "for a heater")
        taken = await office.do(horde, "one", "return", str(owner), "90", "--to", str(ben), *BECAUSE)
        assert await balance_of(horde, "ann") == balance + 100_000
        await office.do(horde, "one", "agree", taken["document"], *BECAUSE, code=6)
        await office.do(horde, "operator", "agree", taken["document"], *BECAUSE)
        assert await balance_of(horde, "ann") == balance + 10_000
        ban = await office.do(horde, "one", "ban", str(owner), *BECAUSE)
        assert (await horde.scrape())["workers"] == 1, "a proposal has no effect"
        await office.do(horde, "other", "agree", ban["document"], *BECAUSE)
        await horde.workers(0)

        # From a blocked network nobody asks without an account; who has one is served.
        await office.do(horde, "one", "block", "127.0.0.0/24", *BECAUSE, "--until", "1h")
        async with horde.client() as nobody:
            with pytest.raises(Refused, match=r"from 127\.0\.0\.0/24 nobody asks without an account") as refused:
                await picture(nobody)
        assert refused.value.code == "suspended"
        report = await horde.audit()
        assert report["ok"], report["findings"]
        await anybody_checks(horde, office)


async def anybody_checks(horde: Horde, office: Office) -> None:
    """Who stands outside finds every act signed by who had the role; and one that was not, the control."""
    assert horde.link is not None
    http = horde.link.url.replace("ws", "http", 1)
    await covered(horde)
    found = await audit(horde, "outside", http)
    assert found["ok"], found["findings"]
    assert found["read"] == found["size"]
    assert horde.tracker is not None
    assert await horde.tracker.stop() == 0
    serving, nobody = load_key(horde.tracker_folder / "serving.key"), load_key(office.files["nobody"])
    entry = sign_act_anew(horde.tracker_folder / "horde.db", serving, nobody)
    await horde.serve()
    http = horde.link.url.replace("ws", "http", 1)
    found = await audit(horde, "elsewhere", http, code=6)
    faults = [(finding["kind"], finding["entry"]) for finding in found["findings"]]
    assert ("document", entry) in faults
    assert any("no such role" in finding["text"] for finding in found["findings"])


async def waits(horde: Horde) -> None:
    """Return once a job waits."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if (await horde.scrape())["waiting"] == 1:
                return
            await asyncio.sleep(POLL_S)


async def balance_of(horde: Horde, name: str) -> int:
    found = json.loads(await horde.run("peer", "account", "--json", "--home", str(horde.folder / name)))
    return int(found["balance"])


@pytest.mark.ci_slow
async def test_moderation_in_the_open_what_stands_is_there_again_after_a_restart_and_what_waited_ends(
    tmp_path: Path,
) -> None:
    office = Office(tmp_path / "office")
    async with Horde.open(tmp_path, office.rules) as horde:
        horde.join("ben")
        ben = await number_of(horde, "ben")
        async with horde.client("ben") as client:
            waiting = asyncio.create_task(picture(client))
            await waits(horde)
            await office.do(horde, "one", "suspend", str(ben), *BECAUSE, "--until", "7d")
            with pytest.raises(Exception, match="suspended"):
                await waiting
            assert (await horde.scrape())["waiting"] == 0
        assert horde.tracker is not None
        await horde.tracker.stop()
        await horde.serve()
        async with horde.client("ben") as client:
            with pytest.raises(Refused, match="is suspended"):
                await picture(client)
        report = await horde.audit()
        assert report["ok"], report["findings"]
