"""`potluck gateway` as people start it: its key, its certificate, several hordes, trackers that go away, its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from peer.commands.exits import Exit
from peer.gateway.key import key_file
from peer.home import Home
from protocol.links import parse_link
from tests.support.gateway import Gateway
from tests.support.horde import Horde, Process, until
from tests.support.marked import marked, new_mark

pytestmark = pytest.mark.timeout(300)

#: A horde whose tracker nobody runs.
SILENT = "potluck:?tr=ws%3A%2F%2F127.0.0.1%3A9&id=xtlcxjf5mx6xrn5tcmd5ppqdwbumwwz26vhitlkzlpcqm6euh5xa&name=silent"
#: What who comes in hears there.
LET_IN = 503
HELLO = [{"role": "user", "content": "hello there"}]
#: Tokens that would take a minute.
LONG = 200


@asynccontextmanager
async def gateway(home: Home, name: str, *arguments: str, env: dict[str, str] | None = None) -> AsyncIterator[Process]:
    """One that has said that it serves."""
    words = ("peer", "gateway", "--home", str(home.folder), "--listen", "127.0.0.1:0", *arguments)
    process = await Process.start(name, home.folder.parent / "logs", *words, env=env)
    try:
        yield process
    finally:
        await process.end()


async def serving(process: Process) -> dict[str, Any]:
    return await process.line(lambda line: line.get("event") == "serving")


async def status(url: str, key: str, **more: Any) -> int:
    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession() as session, session.get(f"{url}/v1/models", headers=headers, **more) as answer:
        return answer.status


def joined(folder: Path, link: str = SILENT) -> Home:
    home = Home(folder / "me")
    home.key()
    home.join(parse_link(link))
    return home


# The key and the certificate


@pytest.mark.ci_slow
async def test_the_key_is_shown_once_and_kept_for_its_owner(tmp_path: Path) -> None:
    home = joined(tmp_path)

    async with gateway(home, "first", "--json") as first:
        said = await serving(first)
        key = said["key"]
        assert re.fullmatch(r"[\w-]{22}", key)
        assert Path(said["key_file"]) == key_file(home.folder)
        assert os.name != "posix" or stat.S_IMODE(key_file(home.folder).stat().st_mode) == 0o600
        assert await status(said["url"], key) == LET_IN
        assert await status(said["url"], key[:-1] + "!") == 401
        assert await first.stop() == Exit.OK
    async with gateway(home, "second", "--tls", "--new-key", "--json") as second:
        said = await serving(second)
        tls = aiohttp.Fingerprint(bytes.fromhex(said["certificate_sha256"]))
        assert said["url"].startswith("https://127.0.0.1:")
        assert await status(said["url"], key, ssl=tls) == 401
        assert await status(said["url"], said["key"], ssl=tls) == LET_IN
        key = said["key"]
    async with gateway(home, "third") as third:
        await until(lambda: "serving silent" in third.text(), "it did not say that it serves")
        await until(lambda: "access-key" in third.text(), "it did not say where the key is")
        assert key not in third.text()


# Several hordes


class Chats:
    """A program that asks through a gateway, and knows which worker answers: each has another length of answer."""

    def __init__(self, gateway: Gateway, session: aiohttp.ClientSession) -> None:
        self.url = f"{gateway.url}/v1"
        self.session = session
        self.headers = gateway.bearer

    async def models(self) -> dict[str, str]:
        async with self.session.get(f"{self.url}/models", headers=self.headers) as answer:
            return {model["id"]: model["owned_by"] for model in (await answer.json())["data"]}

    async def ask(self, model: str) -> tuple[int, int]:
        """Status, and tokens of the answer."""
        body = {"model": model, "messages": HELLO, "max_tokens": 20}
        async with self.session.post(f"{self.url}/chat/completions", json=body, headers=self.headers) as answer:
            said = await answer.json()
            return answer.status, said.get("usage", {}).get("completion_tokens", 0)

    async def has(self, wanted: tuple[int, int], model: str) -> None:
        """Wait until asking for this model gives that."""
        async with asyncio.timeout(60):
            while await self.ask(model) != wanted:  # noqa: ASYNC110 (another process cannot set an event of ours)
                await asyncio.sleep(0.05)


@pytest.mark.slow
async def test_a_models_name_says_which_horde_is_asked_and_one_horde_may_go_away(tmp_path: Path) -> None:
    async with (
        Horde.open(tmp_path / "one") as one,
        Horde.open(tmp_path / "two") as two,
        aiohttp.ClientSession() as http,
    ):
        await one.worker("w", "--dry-run", "text:model=shared,length=1", "--dry-run", "text:model=first,length=2")
        await two.worker("w", "--dry-run", "text:model=shared,length=3", "--dry-run", "text:model=second,length=4")
        home = one.join("me")
        assert two.link is not None
        home.join(two.link, "other")
        chats = Chats(await Gateway.start(one, "me"), http)

        assert await chats.models() == {
            "shared": "a-test",
            "first": "a-test",
            "second": "other",
            "a-test/shared": "a-test",
            "a-test/first": "a-test",
            "other/shared": "other",
            "other/second": "other",
        }
        for model, length in {"shared": 1, "first": 2, "other/shared": 3, "second": 4, "other/second": 4}.items():
            assert await chats.ask(model) == (200, length)
        assert await chats.ask("other/first") == (404, 0)
        assert await chats.ask("third") == (404, 0)

        assert one.tracker is not None
        await one.tracker.kill()
        assert await chats.ask("second") == (200, 4)
        await one.serve()
        await one.workers(1)
        await chats.has((200, 2), "first")
        assert (await one.audit())["ok"]
        assert (await two.audit())["ok"]


# The end


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT cannot be sent to one process there")
async def test_ctrl_c_calls_off_what_is_under_way_and_leaves_nothing_behind(tmp_path: Path) -> None:
    async with Horde.open(tmp_path) as horde, aiohttp.ClientSession() as http:
        worker = await horde.worker("slow", "--dry-run", "text:model=slow,step_ms=300")
        mark = new_mark()
        async with gateway(horde.join("me"), "gateway", "--json", env=mark) as process:
            said = await serving(process)
            body = {"model": "slow", "messages": HELLO, "max_tokens": LONG, "stream": True}
            headers = {"Authorization": f"Bearer {said['key']}"}
            async with http.post(f"{said['url']}/v1/chat/completions", json=body, headers=headers) as answer:
                await answer.content.readline()
                await worker.line(lambda line: line.get("event") == "progress")
                if sys.platform != "win32":  # for the type checker
                    os.killpg(process.process.pid, signal.SIGINT)
                with contextlib.suppress(aiohttp.ClientError):
                    await answer.read()
            assert await process.process.wait() == Exit.INTERRUPTED
        assert marked(mark) == []
        settled = await worker.line(lambda line: line.get("event") == "settled")
        done = max(line["done"] for line in worker.lines() if line.get("event") == "progress")
        assert 0 < done < LONG
        assert settled["earned"] > 0
        assert (await horde.audit())["ok"]
