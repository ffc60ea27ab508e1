"""What every engine promises, whatever makes its pictures and texts."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE
from typing import Any

import msgspec
import psutil
import pytest

from peer.engines import process
from peer.engines.base import ArtifactMade, Done, EngineError, Event, StepsDone, Task, TextMade
from peer.engines.process import ProcessEngine
from peer.engines.spec import EngineSpec
from protocol.work import ImagePrivate, ImageWork, TextPrivate, TextWork, kind_of

SALT = bytes(range(32))
#: In every prompt, and nowhere else: what must not be found in a log.
SECRET = "xylophonequince"

PARENT = """
import asyncio, msgspec, sys
from peer.engines.base import Task
from peer.engines.process import ProcessEngine
from peer.engines.spec import EngineSpec

async def main():
    spec, task = msgspec.json.decode(sys.argv[1], type=EngineSpec), msgspec.json.decode(sys.argv[2], type=Task)
    async with ProcessEngine(spec) as engine:
        print(engine.pid, flush=True)
        async for event in engine.run(task, asyncio.Event()):
            print(event, flush=True)

asyncio.run(main())
"""


def picture(model: str, *, seed: int = 1, steps: int = 4, side: int = 32, guidance: int = 3_000, **private) -> Task:
    """A small picture; `private` are further fields of its private part."""
    said: dict[str, Any] = {"prompt": f"a small red circle on blue {SECRET}"} | private
    return Task(
        model,
        ImageWork(width=side, height=side, steps=steps, guidance_passes=2 if guidance > 1_000 else 1),
        ImagePrivate(salt=SALT, guidance=guidance, **said),
        seed,
    )


def text(model: str, *, seed: int = 1, tokens: int = 16, context: int = 512, prefix: str = "", **private) -> Task:
    """A short text; `private` are further fields of its private part, a raw prompt if they bring no messages."""
    asked: dict[str, Any] = {} if "messages" in private else {"prompt": f"The {SECRET} is a fruit that"}
    said = asked | private
    return Task(
        model,
        TextWork(max_tokens=tokens, context_tokens=context),
        TextPrivate(salt=SALT, **said),
        seed,
        prefix,
    )


async def events_of(engine: ProcessEngine, task: Task, stop: asyncio.Event | None = None) -> list[Event]:
    return await to_the_end(engine.run(task, stop or asyncio.Event()))


def made(events: Sequence[Event]) -> bytes:
    """What the requester gets: the picture's bytes, or the whole text."""
    pieces = [event.text.encode() for event in events if isinstance(event, TextMade)]
    return b"".join(pieces + [event.content for event in events if isinstance(event, ArtifactMade)])


async def to_the_end(running: AsyncIterator[Event]) -> list[Event]:
    return [event async for event in running]


def end_of(events: Sequence[Event]) -> Done:
    done = events[-1]
    assert isinstance(done, Done)
    return done


async def result_of(engine: ProcessEngine, task: Task) -> bytes:
    return made(await events_of(engine, task))


def is_gone(pid: int | None) -> bool:
    """Whether this process has ended; one that nobody has buried yet has."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


async def until_gone(pid: int) -> None:
    while not is_gone(pid):  # noqa: ASYNC110 (another process has no event to wait for)
        await asyncio.sleep(0.01)


@pytest.mark.asyncio(loop_scope="class")
class EngineContract:
    """A subclass says what engine it is, and what it can be asked for. Its tests share one engine, which has to survive
    what they do to it."""

    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls, tmp_path_factory: pytest.TempPathFactory) -> EngineSpec:
        raise NotImplementedError

    def a_task(self, spec: EngineSpec, seed: int = 1) -> Task:
        """Something quick, of a few steps."""
        raise NotImplementedError

    def a_long_task(self, spec: EngineSpec) -> Task:
        """Something of a hundred steps at least."""
        raise NotImplementedError

    def too_large(self, spec: EngineSpec) -> list[Task]:
        """Tasks beyond each of the offer's limits."""
        raise NotImplementedError

    async def test_it_offers_its_model_with_an_engine_class(self, spec, engine):
        [offer] = engine.offers

        assert offer.model == spec.model
        assert offer.kind == kind_of(self.a_task(spec).work)
        assert offer.engine

    async def test_the_steps_are_counted_up_to_the_last_event(self, spec, engine):
        events = await events_of(engine, self.a_task(spec))

        steps = [event for event in events if isinstance(event, StepsDone)]
        done = end_of(events)
        assert sum(isinstance(event, Done) for event in events) == 1
        assert [step.done for step in steps] == sorted(step.done for step in steps)
        assert {step.total for step in steps} == {steps[0].total}
        assert steps[-1].done == done.used <= steps[-1].total
        assert done.finish in {"stop", "length"}
        assert made(events)

    async def test_the_same_seed_gives_the_same_bytes_and_another_one_does_not(self, spec, engine):
        first = await result_of(engine, self.a_task(spec, seed=11))
        other = await result_of(engine, self.a_task(spec, seed=12))
        again = await result_of(engine, self.a_task(spec, seed=11))

        assert first == again
        assert first != other

    async def test_a_stop_in_mid_job_gives_what_there_is(self, spec, engine):
        before = await result_of(engine, self.a_task(spec))
        stop = asyncio.Event()
        events = []
        async for event in engine.run(self.a_long_task(spec), stop):
            events.append(event)
            if isinstance(event, StepsDone) and event.done == 3:
                stop.set()

        done = end_of(events)
        total = next(event.total for event in events if isinstance(event, StepsDone))
        assert isinstance(done, Done)
        assert done.finish == "cancelled"
        assert 3 <= done.used < total
        assert made(events)
        assert await result_of(engine, self.a_task(spec)) == before

    async def test_a_stop_before_the_first_step_gives_nothing(self, spec, engine):
        stop = asyncio.Event()
        stop.set()

        events = await events_of(engine, self.a_long_task(spec), stop)

        done = end_of(events)
        assert done.finish == "cancelled"
        # The stop may arrive a little after the job.
        assert bool(done.used) == bool(made(events))

    async def test_a_closed_iterator_leaves_the_engine_usable(self, spec, engine):
        before = await result_of(engine, self.a_task(spec))
        pid = engine.pid
        async with contextlib.aclosing(engine.run(self.a_long_task(spec), asyncio.Event())) as running:
            async for event in running:
                if isinstance(event, StepsDone):
                    break

        assert await result_of(engine, self.a_task(spec)) == before
        assert engine.pid == pid

    async def test_a_cancelled_task_leaves_the_engine_usable(self, spec, engine):
        begun = asyncio.get_running_loop().create_future()

        async def use():
            async for event in engine.run(self.a_long_task(spec), asyncio.Event()):
                if isinstance(event, StepsDone) and not begun.done():
                    begun.set_result(None)

        using = asyncio.create_task(use())
        await asyncio.wait({using, begun}, return_when=asyncio.FIRST_COMPLETED)
        using.cancel()
        await asyncio.wait({using})

        assert using.cancelled()
        assert await result_of(engine, self.a_task(spec))

    async def test_the_event_loop_stays_free(self, spec, engine):
        turns = 0
        turns_at_events = []

        async def turn():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        turning = asyncio.create_task(turn())
        stop = asyncio.Event()
        async for event in engine.run(self.a_long_task(spec), stop):
            turns_at_events.append(turns)
            if isinstance(event, StepsDone) and event.done >= 20:
                stop.set()
        turning.cancel()

        assert turns_at_events[-1] - turns_at_events[0] > 20

    async def test_what_exceeds_the_offer_is_refused(self, spec, engine):
        for task in self.too_large(spec):
            with pytest.raises(EngineError) as refused:
                await events_of(engine, task)
            assert refused.value.code == "unsupported"

    async def test_what_is_not_offered_is_refused(self, spec, engine):
        other_kind = text(spec.model) if engine.offers[0].kind == "image" else picture(spec.model)
        for task in (replace(self.a_task(spec), model="another"), other_kind):
            with pytest.raises(EngineError) as refused:
                await events_of(engine, task)
            assert refused.value.code == "unsupported"

    async def test_a_given_text_is_continued_by_those_that_say_so(self, spec, engine):
        if engine.offers[0].continues:
            task = text(spec.model, tokens=24, temperature=0)
            whole = await events_of(engine, task)
            pieces = [event.text for event in whole if isinstance(event, TextMade)]
            shown, rest = "".join(pieces[:10]), "".join(pieces[10:])

            continued = await events_of(engine, replace(task, prefix=shown))

            assert made(continued).decode() == rest
            assert end_of(continued).used < end_of(whole).used
            assert end_of(continued).context_used == end_of(whole).context_used
        else:
            with pytest.raises(EngineError) as refused:
                await events_of(engine, replace(self.a_task(spec), prefix="once"))
            assert refused.value.code == "prefix_unsupported"

    async def test_a_killed_child_costs_one_job_and_is_replaced_by_one_that_makes_the_same(self, spec, engine):
        before = await result_of(engine, self.a_task(spec))
        pid = engine.pid
        running = engine.run(self.a_long_task(spec), asyncio.Event())
        await anext(running)
        psutil.Process(pid).kill()
        with pytest.raises(EngineError) as crashed:
            await to_the_end(running)

        assert crashed.value.code == "crashed"
        assert await result_of(engine, self.a_task(spec)) == before
        assert engine.pid != pid
        assert is_gone(pid)

    async def test_the_log_holds_no_prompt(self, spec, engine, log):
        await events_of(engine, self.a_task(spec))

        assert SECRET not in log.read_text("utf-8")

    async def test_closing_in_mid_job_leaves_no_process(self, spec, monkeypatch):
        # The child ends because its pipe does, as it would if this program had died; it is not killed.
        monkeypatch.setattr(process, "CLOSE_S", 3600)
        engine = ProcessEngine(spec)
        await engine.open()
        pid = engine.pid
        running = engine.run(self.a_long_task(spec), asyncio.Event())
        await anext(running)
        await engine.close()

        assert is_gone(pid)
        assert engine.pid is None
        with pytest.raises(EngineError):
            await to_the_end(running)

    async def test_the_child_ends_when_its_parent_is_killed_in_mid_job(self, spec, tmp_path):
        script = tmp_path / "parent.py"
        script.write_text(PARENT)
        words = [msgspec.json.encode(part).decode() for part in (spec, self.a_long_task(spec))]
        with (tmp_path / "errors").open("wb") as errors:
            parent = await asyncio.create_subprocess_exec(
                *(sys.executable, str(script), *words), stdout=PIPE, stderr=errors, env=with_our_packages()
            )
        assert parent.stdout is not None
        try:
            pid = int(await parent.stdout.readline())
            assert await parent.stdout.readline(), (tmp_path / "errors").read_text()
            assert not is_gone(pid)
        finally:
            parent.kill()
            await parent.communicate()

        await until_gone(pid)


def with_our_packages() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
