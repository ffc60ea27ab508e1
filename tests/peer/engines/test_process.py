"""What all engines' processes have in common: how they fail, hang, chatter, and are replaced."""

import asyncio
import contextlib
import os
import stat
import sys
from pathlib import Path

import psutil
import pytest

from peer.engines import pipe, process
from peer.engines.base import EngineError, StepsDone
from peer.engines.pipe import BadPipe, Run
from peer.engines.process import ProcessEngine
from peer.engines.spec import EngineSpec
from tests.peer.engines.contract import end_of, events_of, is_gone, picture, result_of, text, to_the_end, until_gone

NOISY = """
import os, sys
from peer.engines.base import ArtifactMade, Done, StepsDone
from peer.engines.maker import Maker
from protocol.messages import Offer

def maker(spec):
    print("printed while loading")
    return Noisy()

class Noisy(Maker):
    def load(self):
        os.write(1, b"written to the first pipe\\n")
        return [Offer(kind="image", model="noise", engine="noisy", max_pixels=9999, max_steps=9)]

    def make(self, job):
        print("printed in a job", flush=True)
        os.write(1, b"written in a job\\n")
        os.system("echo told by a grandchild")
        assert sys.stdin.read() == ""
        if job.task.seed == 2:
            raise KeyError(job.task.private.prompt)
        if job.task.seed == 3:
            raise MemoryError
        job.say(StepsDone(1, 1))
        job.say(ArtifactMade("image/png", b"noise"))
        return Done(1)
"""

BLINKING = """
import threading
from peer.engines.base import Done
from peer.engines.maker import Maker
from protocol.messages import Offer

ON = [Offer(kind="text", model="blink", engine="blinking", max_tokens=9, max_context=999)]

def maker(spec):
    return Blinking()

class Blinking(Maker):
    def __init__(self):
        self.made = threading.Semaphore(0)

    def load(self):
        return []

    def watch(self, offer):
        offer([], "not yet")
        offer(ON, "")
        self.made.acquire()
        offer([], "no more")

    def make(self, job):
        self.made.release()
        return Done(0)
"""


def dry(**options) -> EngineSpec:
    return EngineSpec(engine="dry-run", model="nothing", options=options)


def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: str) -> None:
    """An engine of somebody else's, installed as its entry point says."""
    (tmp_path / f"{name}.py").write_text(code)
    about = tmp_path / f"{name}-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    (about / "entry_points.txt").write_text(f"[potluck.engines]\n{name} = {name}:maker\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


@pytest.fixture
def noisy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EngineSpec:
    install(tmp_path, monkeypatch, "noisy", NOISY)
    return EngineSpec(engine="noisy", model="noise", options={"anything": "goes"})


async def test_an_engine_of_somebody_else_is_found_and_its_chatter_goes_to_the_log(noisy, tmp_path, capfd):
    log = tmp_path / "engine.log"
    async with ProcessEngine(noisy, log=log) as engine:
        assert await result_of(engine, picture("noise")) == b"noise"

    said = log.read_text()
    for line in ("printed while loading", "written to the first pipe", "printed in a job", "told by a grandchild"):
        assert line in said
    assert capfd.readouterr() == ("", "")


async def test_what_an_engine_serves_may_come_and_go(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, "blinking", BLINKING)
    news: asyncio.Queue[tuple[int, str]] = asyncio.Queue()
    async with ProcessEngine(EngineSpec(engine="blinking", model="blink")) as engine:
        engine.when_reoffered(lambda text: news.put_nowait((len(engine.offers), text)))
        while not engine.offers:  # what it told while it was started is not told again
            assert await news.get() in {(0, "not yet"), (1, "")}
        assert end_of(await events_of(engine, text("blink", tokens=9))).used == 0
        while engine.offers:
            assert await news.get() in {(1, ""), (0, "no more")}
        with pytest.raises(EngineError) as refused:
            await events_of(engine, text("blink", tokens=9))

    assert refused.value.code == "unavailable"


async def test_an_unforeseen_error_is_told_without_its_words(noisy, tmp_path):
    log = tmp_path / "engine.log"
    async with ProcessEngine(noisy, log=log) as engine:
        with pytest.raises(EngineError, match="failed with KeyError") as failed:
            await events_of(engine, picture("noise", seed=2, prompt="a secret wish"))
        with pytest.raises(EngineError, match="out of memory"):
            await events_of(engine, picture("noise", seed=3))
        assert await result_of(engine, picture("noise")) == b"noise"

    assert failed.value.code == "failed"
    assert "a secret wish" not in str(failed.value)
    assert "noisy.py" in log.read_text()
    assert "a secret wish" not in log.read_text()


async def test_the_log_is_for_the_owner_only_and_does_not_grow_for_ever(tmp_path):
    log = tmp_path / "engine.log"
    log.write_bytes(b"x" * (process.MAX_LOG_BYTES + 1))
    async with ProcessEngine(dry(), log=log):
        pass

    assert (tmp_path / "engine.log.old").stat().st_size == process.MAX_LOG_BYTES + 1
    assert log.stat().st_size == 0
    if sys.platform != "win32":  # which has no such modes
        assert stat.S_IMODE(log.stat().st_mode) == 0o600


async def test_an_engine_that_says_it_failed_goes_on():
    async with ProcessEngine(dry(fail_at=5)) as engine:
        pid = engine.pid
        with pytest.raises(EngineError, match="told to fail at step 5") as failed:
            await events_of(engine, picture("nothing", steps=9))
        assert await result_of(engine, picture("nothing"))
        assert engine.pid == pid

    assert failed.value.code == "failed"


async def test_a_crash_costs_one_job():
    async with ProcessEngine(dry(crash_at=5)) as engine:
        pid = engine.pid
        with pytest.raises(EngineError, match="ended with code 70") as crashed:
            await events_of(engine, picture("nothing", steps=9))
        assert await result_of(engine, picture("nothing"))
        assert engine.pid != pid

    assert crashed.value.code == "crashed"


async def test_a_child_that_dies_between_two_jobs_is_replaced():
    async with ProcessEngine(dry()) as engine:
        before = await result_of(engine, picture("nothing"))
        psutil.Process(engine.pid).kill()
        with contextlib.suppress(EngineError):
            await events_of(engine, picture("nothing"))

        assert await result_of(engine, picture("nothing")) == before


async def test_a_child_without_a_sign_of_life_is_hung_and_replaced():
    async with ProcessEngine(dry(hang_at=5), stall_s=0.2) as engine:
        pid = engine.pid
        with pytest.raises(EngineError, match="no sign of life") as hung:
            await events_of(engine, picture("nothing", steps=9))

        assert is_gone(pid)
        assert await result_of(engine, picture("nothing"))
        assert engine.pid != pid

    assert hung.value.code == "hung"


async def test_a_child_that_does_not_stop_is_hung_and_replaced():
    stop = asyncio.Event()
    async with ProcessEngine(dry(step_ms=5), grace_s=0.2) as engine:
        pid = engine.pid
        running = engine.run(picture("nothing", steps=500), stop)
        await anext(running)
        psutil.Process(pid).suspend()
        stop.set()
        with pytest.raises(EngineError, match="did not stop") as hung:
            await to_the_end(running)

        assert is_gone(pid)
        assert await result_of(engine, picture("nothing"))

    assert hung.value.code == "hung"


async def test_a_child_that_cannot_be_dropped_is_replaced():
    async with ProcessEngine(dry(step_ms=5), grace_s=0.2) as engine:
        pid = engine.pid
        running = engine.run(picture("nothing", steps=500), asyncio.Event())
        await anext(running)
        psutil.Process(pid).suspend()
        await running.aclose()

        assert await result_of(engine, picture("nothing", steps=1))
        assert engine.pid != pid
        assert is_gone(pid)


async def test_a_stop_that_comes_too_late_does_not_touch_the_next_job():
    async with ProcessEngine(dry()) as engine:
        for _ in range(20):
            stop = asyncio.Event()
            async for event in engine.run(picture("nothing", steps=3), stop):
                if event == StepsDone(3, 3):
                    stop.set()
            assert end_of(await events_of(engine, picture("nothing", steps=3))).used == 3


async def test_a_second_job_waits_for_the_first():
    async with ProcessEngine(dry(step_ms=1)) as engine:
        first, second = await asyncio.gather(
            result_of(engine, picture("nothing", seed=1)), result_of(engine, picture("nothing", seed=2))
        )

    assert first != second


async def test_an_opening_that_is_cancelled_leaves_no_process():
    engine = ProcessEngine(dry())
    opening = asyncio.create_task(engine.open())
    before = children()
    while not (new := children() - before):  # noqa: ASYNC110 (a process that starts has no event)
        await asyncio.sleep(0)
    opening.cancel()
    await asyncio.wait({opening})

    for pid in new:
        await until_gone(pid)


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children()}


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (EngineSpec(engine="magic", model="m"), r"no engine is called 'magic'; there are diffusers, text, dry-run"),
        (dry(speed=3), r"unknown field `speed`.*its options are kind, step_ms"),
        (dry(step_ms="quick"), r"Expected `int`.*step_ms"),
    ],
)
async def test_a_spec_that_cannot_be_meant_is_refused_with_what_there_is(spec, said):
    with pytest.raises(EngineError, match=said) as refused:
        await ProcessEngine(spec).open()

    assert refused.value.code == "unsupported"


async def test_the_child_is_out_of_reach_of_the_terminal():
    async with ProcessEngine(dry()) as engine:
        assert engine.pid is not None
        if sys.platform != "win32":  # where it is a group of processes, which cannot be asked for
            assert os.getsid(engine.pid) == engine.pid


async def test_a_pipe_is_not_inherited_by_another_engine():
    async with ProcessEngine(dry()) as one, ProcessEngine(dry()) as other:
        psutil.Process(other.pid).suspend()
        try:
            pid = one.pid
            await one.close()
        finally:
            psutil.Process(other.pid).resume()

        assert is_gone(pid)


def test_a_message_comes_out_of_the_pipe_as_it_went_in():
    for task in (picture("nothing"), text("nothing", stop=("a", "b"))):
        raw = pipe.pack(Run(task))

        assert pipe.length_of(raw[:4]) == len(raw) - 4
        assert pipe.unpack(raw[4:]) == Run(task)


@pytest.mark.parametrize("raw", [b"\xff", b"\x01", b"\x01\x80", b"\x04\x81\xa6offers\x01", b"\x05\xc1"])
def test_what_is_no_message_is_refused(raw):
    with pytest.raises(BadPipe):
        pipe.unpack(raw)


@pytest.mark.parametrize("head", [b"\0\0\0\0", b"\xff\xff\xff\xff"])
def test_a_length_that_cannot_be_is_refused(head):
    with pytest.raises(BadPipe, match="wanted 1 to"):
        pipe.length_of(head)
