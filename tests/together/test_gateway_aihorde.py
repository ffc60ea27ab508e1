"""AI Horde's door of a real gateway: tracker, workers and a client, each a process or a socket of its own."""

from __future__ import annotations

import asyncio
import base64
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from PIL import Image

from peer.acts import show
from tests.support.gateway import Gateway
from tests.support.horde import POLL_S, Horde, Process, until
from tests.support.raw_peer import fund

NOBODY = "0000000000"
SMALL = {"width": 64, "height": 64, "steps": 4}
#: What no worker of a test comes to the end of.
ENDLESS = {"width": 64, "height": 64, "steps": 50}


class Program:
    """A client of AI Horde. key: what it sends in the header `apikey`, if anything."""

    def __init__(self, session: aiohttp.ClientSession, gateway: Gateway, key: str = "", at: str = "/api/v2") -> None:
        self._session = session
        self.url = gateway.url + at
        self.headers = {"apikey": key} if key else {}

    async def ask(self, what: str, body: object = None, status: int = 200, method: str = "") -> Any:
        """GET, or POST with a body; the answer, which has to have this status."""
        method = method or ("GET" if body is None else "POST")
        async with self._session.request(method, self.url + what, json=body, headers=self.headers) as answer:
            assert answer.status == status, await answer.text()
            return await answer.json()

    async def done(self, look: str, id: str) -> dict[str, Any]:
        """Poll until it is done, as clients do: without a key."""
        async with asyncio.timeout(60):
            while True:
                async with self._session.get(f"{self.url}{look}/{id}") as answer:
                    assert answer.status == 200, await answer.text()
                    found: dict[str, Any] = await answer.json()
                if found["done"]:
                    return found
                await asyncio.sleep(POLL_S)

    async def download(self, url: str) -> tuple[str, bytes]:
        async with self._session.get(url) as answer:
            assert answer.status == 200, await answer.text()
            return answer.headers["Content-Type"], await answer.read()


async def begun(program: Program, look: str, id: str) -> None:
    """Wait until a worker has it."""
    async with asyncio.timeout(60):
        while True:
            if (await program.ask(f"{look}/{id}"))["processing"]:
                return
            await asyncio.sleep(POLL_S)


def reached(worker: Process) -> int:
    """The last step that the worker says it made."""
    return max((line["done"] for line in worker.lines() if line.get("event") == "progress"), default=0)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_client_of_ai_horde_is_served_as_it_expects(tmp_path: Path) -> None:
    async with Horde.open(tmp_path, 'transfers.mode = "on"') as horde, aiohttp.ClientSession() as session:
        await horde.worker("ann", "--dry-run", "image:model=painter", "--dry-run", "text:model=teller")
        slow = await horde.worker("slow", "--dry-run", "image:model=slow,step_ms=300")
        assert horde.link is not None
        await fund(horde.link, horde.join("me").key())
        gateway = await Gateway.start(horde, "me")
        member, anybody = Program(session, gateway, gateway.key), Program(session, gateway)

        await _pictures(member)
        await _pictures(Program(session, gateway, NOBODY, "/v2"))
        await _texts(anybody)
        await _a_price_and_no_work(member)
        await _one_that_is_taken_back(anybody, slow)
        await _what_is_published(anybody)
        await _people(member, anybody, horde)
        await _what_goes_wrong(member, anybody, Program(session, gateway, "x" * 22))
        assert "a secret wish" not in gateway.process.text()


async def _account(horde: Horde, name: str) -> int:
    """The number of a new account."""
    horde.join(name)
    async with horde.client(name) as client:
        return (await client.register()).number


async def _pictures(program: Program) -> None:
    wish = {"prompt": "a secret wish ### blue", "params": {**SMALL, "n": 2, "seed": "5"}, "models": ["painter"]}
    taken = await program.ask("/generate/async", {**wish, "an unknown field": {"a": 1}}, 202)
    assert taken["kudos"] > 0
    checked = await program.done("/generate/check", taken["id"])
    assert set(checked) == {
        "finished",
        "processing",
        "restarted",
        "waiting",
        "done",
        "faulted",
        "wait_time",
        "queue_position",
        "kudos",
        "is_possible",
    }
    assert (checked["finished"], checked["faulted"], checked["is_possible"]) == (2, False, True)

    found = await program.ask(f"/generate/status/{taken['id']}")
    first, second = found["generations"]
    assert (first["seed"], second["seed"]) == ("5", "6")
    assert {"id", "censored", "gen_metadata", "worker_id", "worker_name", "model", "state", "img"} <= set(first)
    assert (first["model"], first["state"], first["censored"]) == ("painter", "ok", False)
    kind, content = await program.download(first["img"])
    assert kind == "image/webp"
    assert Image.open(BytesIO(content)).size == (64, 64)
    assert Image.open(BytesIO(content)).format == "WEBP"

    bare = await program.ask("/generate/async", {**wish, "r2": False}, 202)
    await program.done("/generate/check", bare["id"])
    again = (await program.ask(f"/generate/status/{bare['id']}"))["generations"]
    assert base64.b64decode(again[0]["img"], validate=True) == content
    assert again[0]["id"] != first["id"]


async def _texts(program: Program) -> None:
    wish = {"prompt": "once upon a time", "models": [], "params": {"max_length": 6, "max_context_length": 1024}}
    taken = await program.ask("/generate/text/async", wish, 202)
    found = await program.done("/generate/text/status", taken["id"])
    (told,) = found["generations"]
    assert len(told["text"].split()) == 6
    assert isinstance(told["seed"], int)
    assert told["model"] == "teller"
    assert "message" not in found
    params = {"max_length": 6, "seed": told["seed"]}
    again = await program.ask("/generate/text/async", {**wish, "params": params}, 202)
    repeated = await program.done("/generate/text/status", again["id"])
    assert repeated["generations"][0]["text"] == told["text"]


async def _a_price_and_no_work(program: Program) -> None:
    wish = {"prompt": "a cup", "params": {**SMALL, "n": 3}, "dry_run": True}
    assert set(await program.ask("/generate/async", wish)) == {"kudos"}
    assert set(await program.ask("/generate/text/async", {"prompt": "a cup", "dry_run": True})) == {"kudos"}


async def _one_that_is_taken_back(program: Program, slow: Process) -> None:
    wish = {"prompt": "a cup", "models": ["slow"], "params": ENDLESS}
    taken = await program.ask("/generate/async", wish, 202)
    await begun(program, "/generate/check", taken["id"])
    left = await program.ask(f"/generate/status/{taken['id']}", method="DELETE")
    assert (left["done"], left["faulted"], left["generations"]) == (True, False, [])
    ends = ("made", "failed", "dropped")
    await until(lambda: any(line.get("event") in ends for line in slow.lines()), "the worker did not stop")
    assert reached(slow) < ENDLESS["steps"]


async def _what_is_published(program: Program) -> None:
    models = {model["name"]: model for model in await program.ask("/status/models?type=text")}
    assert set(models) == {"teller"}
    assert set(models["teller"]) == {"name", "count", "performance", "queued", "jobs", "eta", "type"}
    assert {model["name"] for model in await program.ask("/status/models")} == {"painter", "slow"}
    assert [model["name"] for model in await program.ask("/status/models/teller")] == ["teller"]
    assert (await program.ask("/status/heartbeat"))["message"] == "OK"
    assert (await program.ask("/status/performance"))["worker_count"] == 2
    assert (await program.ask("/status/modes"))["maintenance_mode"] is False
    assert await program.ask("/status/news") == []
    writers = await program.ask("/workers?type=text")
    assert [worker["models"] for worker in writers] == [["teller"]]
    number, _, unit = writers[0]["performance"].partition(" ")
    assert unit == "tokens per second"
    assert float(number) >= 0
    assert (await program.ask(f"/workers/{writers[0]['id']}"))["name"] == writers[0]["name"]
    assert (await program.ask(f"/workers/name/{writers[0]['name']}"))["id"] == writers[0]["id"]
    assert "html" in await program.ask("/documents/terms")
    assert "markdown" in await program.ask("/documents/privacy?format=markdown")


async def _people(member: Program, anybody: Program, horde: Horde) -> None:
    friend = await _account(horde, "friend")
    me = await member.ask("/find_user")
    assert me["username"].endswith(f"#{me['id']}")
    assert (await anybody.ask("/find_user"))["username"] == "Anonymous#0"
    assert (await member.ask(f"/users/{me['id']}"))["kudos"] == me["kudos"]
    gift = {"username": f"somebody#{friend}", "amount": 1}
    refused = await anybody.ask("/kudos/transfer", gift, 403)
    assert refused["rc"] == "AnonForbidden"
    assert (await member.ask("/kudos/transfer", gift)) == {"transferred": 1.0}
    assert (await member.ask("/find_user"))["kudos"] == me["kudos"] - 1
    for amount, to, status, rc in (
        (1_000_000, friend, 400, "KudosTransferNotEnough"),
        (-1, friend, 400, "NegativeKudosTransfer"),
        (1, me["id"], 400, "KudosTransferToSelf"),
        (1, 987_654, 404, "UserNotFound"),
    ):
        refused = await member.ask("/kudos/transfer", {"username": f"x#{to}", "amount": amount}, status)
        assert refused["rc"] == rc, refused
    assert (await anybody.ask(f"/users/{friend}", status=404))["rc"] == "UserNotFound"
    assert await anybody.ask("/users") == []
    seen = await _account(horde, "seen")
    async with horde.client("seen") as client:
        await show(client, name="Fred", public=True)
    assert (await anybody.ask(f"/users/{seen}"))["username"] == f"Fred#{seen}"


async def _what_goes_wrong(member: Program, anybody: Program, stranger: Program) -> None:
    wish = {"prompt": "a cup", "params": SMALL}
    for program, body, status, rc in (
        (stranger, wish, 401, "InvalidAPIKey"),
        (anybody, {"params": SMALL}, 400, "MissingPrompt"),
        (anybody, {**wish, "models": ["nobody's"]}, 400, "UnsupportedModel"),
        (anybody, {**wish, "params": {"width": 65}}, 400, "InvalidSize"),
        (anybody, {**wish, "params": {"width": 1024, "height": 2048}}, 400, "InvalidSize"),
        (anybody, {**wish, "params": {**SMALL, "steps": 120}}, 400, "TooManySteps"),
        (anybody, {**wish, "params": {**SMALL, "n": 20}}, 400, "BadRequest"),
        (member, {**wish, "params": {**SMALL, "steps": 151}}, 400, "TooManySteps"),
    ):
        answer = await program.ask("/generate/async", body, status)
        assert answer["rc"] == rc, answer
        assert answer["message"]
    told = {"prompt": "a cup", "params": {"max_length": 513, "max_context_length": 2048}}
    assert (await anybody.ask("/generate/text/async", told, 400))["rc"] == "TokenOverflow"
    alchemy = {"forms": [{"name": "caption"}], "source_image": "x"}
    assert (await anybody.ask("/interrogate/async", alchemy, 400))["rc"] == "NoValidWorkers"
    gone = "00000000-0000-4000-8000-000000000000"
    assert (await anybody.ask(f"/generate/check/{gone}", status=404))["rc"] == "RequestNotFound"
    assert (await anybody.ask("/workers/nobody", status=404))["rc"] == "WorkerNotFound"
