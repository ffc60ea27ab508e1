"""A worker that leans on llama.cpp's own server, each in a process of its own, as whole jobs of a real horde."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from peer.client import Client
from peer.engines.spec import SMOLLM2_MODEL
from peer.events import Leased, Received, Requeued, Settled, TextPiece
from tests.support.following import Following, followed
from tests.support.horde import Horde, Process

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

LOADING_S = 120.0
KEY = "sk-hush-hush"
TEXT: dict[str, Any] = {"models": [SMOLLM2_MODEL], "max_tokens": 12, "context": 256}
LONG: dict[str, Any] = {"models": [SMOLLM2_MODEL], "max_tokens": 200, "context": 512, "seed": 11}


class Llama:
    """The server; it comes back where it was."""

    def __init__(self, horde: Horde, key_file: Path) -> None:
        self._horde = horde
        self._key_file = key_file
        self._process: Process | None = None
        self.url = ""

    async def start(self) -> None:
        port = self.url.rpartition(":")[2] or "0"
        words = ("tests.support.llama_server", port, str(self._key_file))
        name = f"llama-{len(self._horde.processes)}"
        self._process = await Process.start(name, self._horde.folder / "logs", *words)
        self._horde.processes.append(self._process)
        self.url = (await self._process.line(lambda line: line.get("event") == "serving", LOADING_S))["url"]

    async def kill(self) -> None:
        assert self._process is not None
        await self._process.kill()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def horde(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Horde]:
    async with Horde.open(tmp_path_factory.mktemp("horde")) as horde:
        yield horde
        assert (await horde.audit())["ok"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def llama(horde: Horde) -> AsyncIterator[Llama]:
    key_file = horde.folder / "server.key"
    key_file.touch(0o600)
    key_file.write_text(KEY)
    llama = Llama(horde, key_file)
    await llama.start()
    yield llama


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker(horde: Horde, llama: Llama) -> Process:
    return await horde.worker("ann", "--openai", f"{llama.url},key_file={horde.folder / 'server.key'}")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def asker(horde: Horde) -> AsyncIterator[Client]:
    horde.join("bob")
    async with horde.client("bob") as client:
        yield client


async def offers(worker: Process, begins: str) -> None:
    """Wait until it has said that from now on it serves something that begins so."""
    await worker.line(lambda line: line.get("event") == "offers" and str(line["text"]).startswith(begins))


@pytest.mark.ci_slow
async def test_a_whole_job_by_a_server_that_is_no_part_of_us(
    horde: Horde, llama: Llama, worker: Process, asker: Client
) -> None:
    job = await followed(asker.text("Tell me of the sea.", **TEXT))

    assert len(job.all(TextPiece)) > 1
    job.check_acknowledged()
    received = job.one(Received)
    assert 0 < received.used <= TEXT["max_tokens"]
    assert received.engine.startswith("openai llama.cpp ")
    assert len(job.all(Settled)) == 1
    assert job.check_kept(horde.home("bob")).lease.model == SMOLLM2_MODEL


@pytest.mark.slow
async def test_a_server_that_dies_costs_an_attempt_and_no_job_comes_until_it_is_back(
    horde: Horde, llama: Llama, worker: Process, asker: Client
) -> None:
    job = Following()
    coming = asker.text("Tell me a long story of a ship, a storm and a far island.", **LONG)
    await job.until(coming, 3, TextPiece)
    await llama.kill()
    await job.until(coming, 1, Requeued)
    await offers(worker, "none for now: http://127.0.0.1:")
    other = await horde.worker("cid", "--dry-run", f"text:model={SMOLLM2_MODEL},length=20")
    await job.until_done(coming)
    job.check_acknowledged()
    assert [leased.attempt for leased in job.all(Leased)] == [1, 2]
    assert (await followed(asker.text("Say hi.", **TEXT))).one(Received).engine.startswith("dry-run")
    assert "declined" not in {line.get("event") for line in worker.lines()}

    await other.stop()
    await llama.start()
    await offers(worker, SMOLLM2_MODEL)
    after = await followed(asker.text("Say hi.", **TEXT))
    assert after.one(Received).engine.startswith("openai llama.cpp ")


@pytest.mark.slow
async def test_a_cancelled_job_leaves_the_server_free(llama: Llama, worker: Process, asker: Client) -> None:
    job = Following()
    coming = asker.text("Count for ever.", **LONG)
    await job.until(coming, 3, TextPiece)
    await coming.aclose()

    # The server makes one text at a time: were it still at the first one, this one would be far behind.
    after = await followed(asker.text("Say hi.", **TEXT | {"max_tokens": 1}))
    assert after.one(Received).used == 1


@pytest.mark.slow
async def test_the_servers_key_is_in_no_argument_and_no_log(horde: Horde, llama: Llama, worker: Process) -> None:
    files = [path for path in horde.folder.rglob("*") if path.is_file() and path.name != "server.key"]
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []
    assert KEY.encode() in (horde.folder / "server.key").read_bytes()


@pytest.mark.slow
async def test_a_worker_may_be_started_before_its_server(horde: Horde, llama: Llama, asker: Client) -> None:
    """Last in this file, for it takes the server away from the others."""
    await llama.kill()
    words = ("--openai", f"late={llama.url},key_file={horde.folder / 'server.key'},max_tokens=20")
    late = await horde.worker("cid", *words)
    await offers(late, "none for now: ")
    asked = asyncio.create_task(followed(asker.text("Say hi.", **TEXT | {"models": ["late"]})))
    await llama.start()

    job = await asked
    assert job.check_kept(horde.home("bob")).lease.model == "late"
