"""docs/python.md, example for example, as programs of their own; and what Ctrl+C does to one without `async`."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.horde import PATIENCE_S, POLL_S, Horde, Process, until

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "python.md"

# One horde serves these tests, so they share its loop too.
in_its_loop = pytest.mark.asyncio(loop_scope="module")


def examples() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def horde(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Horde]:
    async with Horde.open(tmp_path_factory.mktemp("horde")) as horde:
        await horde.worker("fast", "--dry-run", "image:model=shapes", "--dry-run", "text:length=10")
        yield horde


@pytest_asyncio.fixture(loop_scope="module")
async def slow(horde: Horde) -> AsyncIterator[None]:
    """A worker whose jobs nobody waits for to the end."""
    worker = await horde.worker("slow", "--dry-run", "image:model=slow,step_ms=2000")
    yield
    await worker.end()
    await horde.workers(1)


async def run(horde: Horde, folder: Path, program: str) -> str:
    """A program with the horde's link in LINK, to its end; what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        "-c",
        f"LINK = {str(horde.link)!r}\n{program}",
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE_S):
        out, err = await process.communicate()
    assert process.returncode == 0, f"{program}\n{err.decode()}"
    assert err.decode() == ""
    return out.decode()


@in_its_loop
@pytest.mark.ci_slow
async def test_every_example_of_the_page_runs_as_it_stands(horde: Horde, tmp_path: Path) -> None:
    # One after the other in one process, so that what they import is loaded once; each has names of its own.
    all_of_them = f"for program in {examples()!r}:\n    exec(program, {{'LINK': LINK}})\n    print('=====')\n"
    *said, end = (await run(horde, tmp_path, all_of_them)).split("=====\n")
    assert end == ""
    shown = dict(zip(("one", "many", "events", "text", "sync", "notebook", "errors", "account"), said, strict=True))
    assert "tokens by dry-run-text" in shown["one"]
    assert shown["many"].count(",") == 2
    assert "0: its worker got " in shown["events"]
    assert "1: its worker got " in shown["events"]
    assert len(shown["text"].strip()) > 10
    assert len(shown["sync"].strip()) > 20
    assert "this cannot be asked for: " in shown["errors"]
    assert re.search(r"account 10\d has .* kudos\na picture costs .*\na picture \(image/png, ", shown["account"])
    assert (tmp_path / "circle.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "ann" / "key").stat().st_mode & 0o077 == 0


INTERRUPTED = """
from peer import Horde, Progress

horde = Horde(LINK).open()
asked = [lambda: horde.picture("slow", models=["slow"], width=64, height=64, steps=40),
         lambda: next(event for event in horde.image("slow", models=["slow"], width=64, height=64, steps=40)
                      if event.__class__.__name__ == "Settled")]
for ask in asked:
    try:
        ask()
    except KeyboardInterrupt:
        print('{"event": "interrupted"}', flush=True)
print(len(horde.picture("fast", models=["shapes"], width=64, height=64, steps=4).content))
horde.close()
print('{"event": "closed"}', flush=True)
"""


async def ended(horde: Horde) -> int:
    counts = (await horde.scrape())["since_start"]
    return sum(counts.get(name, 0) for name in ("settled", "cancelled"))


async def leases(horde: Horde) -> int:
    return int((await horde.scrape())["since_start"].get("leases", 0))


@in_its_loop
@pytest.mark.usefixtures("slow")
@pytest.mark.slow
async def test_ctrl_c_cancels_what_is_waited_for_and_the_horde_stays_open(horde: Horde) -> None:
    program = f"LINK = {str(horde.link)!r}\n{INTERRUPTED}"
    (horde.folder / "interrupted.py").write_text(program, "utf-8")
    before, leased = await ended(horde), await leases(horde)
    process = await Process.start(
        "interrupted",
        horde.folder / "logs",
        "interrupted",
        env={"PYTHONPATH": os.pathsep.join((str(horde.folder), str(ROOT)))},
    )
    horde.processes.append(process)
    for number in (1, 2):
        async with asyncio.timeout(PATIENCE_S):
            while await leases(horde) < leased + number:  # noqa: ASYNC110 (asked of a process)
                await asyncio.sleep(POLL_S)
        process.process.send_signal(signal.SIGINT)
        await until(lambda: process.text().count('"interrupted"') >= number, "it was not cancelled")  # noqa: B023
    await process.line(lambda line: line.get("event") == "closed")
    assert await process.process.wait() == 0, process.text()
    assert await ended(horde) == before + 3, "none of the three is made on for nobody"


IN_A_LOOP = """
import asyncio, threading
from peer import Horde

async def cell():
    assert asyncio.get_running_loop().is_running()
    with Horde(LINK) as horde:
        return str(horde.answer("hello", max_tokens=20))

print(asyncio.run(cell()))
assert threading.active_count() == 1
"""

LEFT_OPEN = """
from peer import Horde

horde = Horde(LINK).open()
events = horde.image("slow", models=["slow"], width=64, height=64, steps=40)
print(type(next(events)).__name__)
"""

AFTER_THE_END = """
from peer import Horde

with Horde(LINK) as horde:
    events = horde.image("slow", models=["slow"], width=64, height=64, steps=40)
    print(type(next(events)).__name__)
try:
    next(events)
except Exception as error:
    print(f"{type(error).__name__}: {error}")
"""


@in_its_loop
@pytest.mark.usefixtures("slow")
@pytest.mark.slow
async def test_it_works_in_a_loop_that_runs_already_and_ends_however_it_is_left(horde: Horde, tmp_path: Path) -> None:
    assert len(await run(horde, tmp_path, IN_A_LOOP)) > 10
    before = await ended(horde)
    assert await run(horde, tmp_path, LEFT_OPEN) == "Queued\n"
    assert await ended(horde) == before + 1, "it is cancelled when the program ends"
    said = await run(horde, tmp_path, AFTER_THE_END)
    assert re.fullmatch(r"Queued\nRuntimeError: .*closed.*\n", said), said


@pytest.mark.slow
def test_the_examples_are_typed(tmp_path: Path) -> None:
    for number, program in enumerate(examples()):
        (tmp_path / f"example_{number}.py").write_text(f'LINK = ""\n{program}', "utf-8")
    (tmp_path / "wrong.py").write_text("from peer import Horde\n\nHorde('').picture('x', width='wide')\n", "utf-8")
    found = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "setup.cfg"), str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    faults = [line for line in found.stdout.splitlines() if ": error:" in line and str(tmp_path.name) in line]
    assert len(faults) == 1, found.stdout + found.stderr
    assert "wrong.py:3" in faults[0]
