"""What the tests with clients of others share: where these are, a gateway as a process, programs run against it."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from protocol.messages import Account
from tests.support.horde import PATIENCE_S, Horde, Process, until

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / ".venv-clients"
BIN = CLIENTS / ("Scripts" if sys.platform == "win32" else "bin")
DEEP_CHAT = CLIENTS / "page" / "node_modules" / "deep-chat" / "dist"
PAGES = ROOT / "tests" / "clients" / "page"
CHROMIUM = shutil.which("chromium")

NO_CLIENTS = "no .venv-clients here: make clients makes it"
NO_CHROMIUM = "no Chromium here"
with_clients = pytest.mark.skipif(not (CLIENTS / ".installed").exists(), reason=NO_CLIENTS)
with_chromium = pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)


@dataclass(frozen=True)
class Gateway:
    """One that serves. url: without a slash at its end. certificate: the file, where it serves https."""

    url: str
    key: str
    process: Process
    certificate: str = ""


@dataclass(frozen=True)
class Place:
    """A horde with one worker, and the gateway of alice, who has an account with kudos in it."""

    horde: Horde
    worker: Process
    gateway: Gateway


#: What the worker pretends to have: quick and slow ones, so that a test can be in the middle of something.
MODELS = ("image:model=paint", "image:model=slow-paint,step_ms=400", "text:model=quick", "text:model=slow,step_ms=120")


@asynccontextmanager
async def a_place(folder: Path, *options: str) -> AsyncIterator[Place]:
    """A horde of processes with such a gateway; its books are right behind the block."""
    async with Horde.open(folder) as horde:
        models = [word for model in MODELS for word in ("--dry-run", model)]
        worker = await horde.worker("bob", *models)
        horde.join("alice")
        async with horde.client("alice") as alice:
            await endow(horde, await alice.register())
        async with a_gateway(horde, "alice", *options) as gateway:
            yield Place(horde, worker, gateway)
        assert (await horde.audit())["ok"]


async def standing(horde: Horde, name: str) -> Account:
    """How the account of this home stands."""
    async with horde.client(name) as client:
        return await client.account()


async def endow(horde: Horde, whose: Account) -> None:
    """The operator gives this account more kudos than a test can spend."""
    assert horde.door is not None
    words = (str(whose.number), "100000", "--reason", "for a test", "--url", horde.door.url)
    await horde.run("tracker", "admin", "award", str(horde.tracker_folder), *words)


@asynccontextmanager
async def a_gateway(horde: Horde, name: str, *options: str) -> AsyncIterator[Gateway]:
    """`potluck gateway` for the home of this name, which has joined the horde; it has ended behind the block."""
    arguments = ("gateway", "--home", str(horde.folder / name), "--listen", "127.0.0.1:0", "--json", *options)
    logs = horde.folder / "logs"
    process = await Process.start(f"gateway-{len(list(logs.iterdir()))}", logs, "peer", *arguments)
    try:
        serving = await process.line(lambda line: line.get("event") == "serving")
        key = Path(serving["key_file"]).read_text("utf-8").strip()
        yield Gateway(serving["url"].rstrip("/"), key, process, serving.get("certificate", ""))
    finally:
        await process.end()


@asynccontextmanager
async def started(
    folder: Path, name: str, *command: str, env: Mapping[str, str] | None = None
) -> AsyncIterator[Process]:
    """A program of others, its output in a file; killed behind the block if it is still there."""
    folder.mkdir(parents=True, exist_ok=True)
    output = folder / f"{name}.out"
    with output.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=ROOT,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env={**os.environ, "NO_COLOR": "1", "PYTHONUNBUFFERED": "1", **(env or {})},
        )
    program = Process(name, process, output)
    try:
        yield program
    finally:
        await program.kill()


@asynccontextmanager
async def a_program(
    folder: Path, name: str, *arguments: str, env: Mapping[str, str] | None = None
) -> AsyncIterator[Process]:
    """One of `tests/clients/programs`, run by the clients' Python."""
    command = (str(BIN / "python"), "-m", f"tests.clients.programs.{name}", *arguments)
    async with started(folder, name, *command, env=env) as program:
        yield program


async def told(
    folder: Path, name: str, *arguments: str, env: Mapping[str, str] | None = None, patience_s: float = PATIENCE_S
) -> list[dict[str, Any]]:
    """What such a program has said when it has come to its end, which has to be a good one."""
    async with a_program(folder, name, *arguments, env=env) as program:
        await ended(program, patience_s)
        return program.lines()


async def ended(program: Process, patience_s: float = PATIENCE_S) -> None:
    """Wait for a program's good end."""
    async with asyncio.timeout(patience_s):
        code = await program.process.wait()
    assert code == 0, f"{program.name} ended with {code}:\n{program.text()[-6000:]}"


def steps(lines: list[dict[str, Any]], step: str) -> list[dict[str, Any]]:
    """The lines of one step."""
    return [line for line in lines if line.get("step") == step]


def the(lines: list[dict[str, Any]], step: str, **fields: Any) -> dict[str, Any]:
    """The one line of this step with these fields."""
    [found] = [line for line in steps(lines, step) if fields.items() <= line.items()]
    return found


async def until_halted(worker: Process, total: int, since: int = 0) -> int:
    """Wait until the worker has ended a job of so many steps or tokens before its time; how far it came. since: how
    many lines it had said before that job was asked for."""

    def of_job(event: str) -> dict[str, dict[str, Any]]:
        lines = worker.lines()[since:]
        return {line["job"]: line for line in lines if line.get("event") == event and "job" in line}

    def look() -> int | None:
        ends = of_job("made") | of_job("dropped") | of_job("failed") | of_job("settled")
        far = [line["done"] for job, line in of_job("progress").items() if line["total"] == total and job in ends]
        return max(far) if far else None

    done: int = await until(look, f"no job of {total} was ended:\n{worker.text()[-3000:]}")
    assert done < total
    return done
