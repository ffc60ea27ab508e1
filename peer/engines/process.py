"""The worker's side of an engine: a process of its own, replaced when it crashes or hangs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Any

from peer.engines import pipe
from peer.engines.base import (
    ArtifactMade,
    Done,
    Engine,
    EngineError,
    Event,
    PreviewMade,
    StepsDone,
    Task,
    TextMade,
)
from peer.engines.fits import why_not
from peer.engines.pipe import BadPipe, Drop, Dropped, Failed, Load, Message, Ready, Run, Stop
from peer.engines.spec import EngineSpec
from protocol.messages import Offer

MODULE = "peer.engines.child"
#: A log beyond this size is set aside as *.old when the engine's process starts.
MAX_LOG_BYTES = 4 * 1024 * 1024
#: How long an engine that was told to go may take before it is killed.
CLOSE_S = 5.0
_READ_AHEAD = 1024 * 1024


class ProcessEngine(Engine):
    """An engine in a child process that ends when this one does.

    log: the file that gets whatever the engine's libraries print; without it that is thrown away. stall_s: so long
    without a sign of life within a job, and the child counts as hung. grace_s: so long may it take to obey. load_s: so
    long may loading take, a download included. A child that crashed or hung is replaced at once: the job fails, the
    next one runs.
    """

    def __init__(
        self,
        spec: EngineSpec,
        *,
        log: Path | None = None,
        stall_s: float = 300.0,
        grace_s: float = 30.0,
        load_s: float = 3600.0,
    ) -> None:
        self.spec = spec
        self._log = log
        self._stall_s = stall_s
        self._grace_s = grace_s
        self._load_s = load_s
        self._offers: tuple[Offer, ...] = ()
        self._why = ""
        self._reoffered: Callable[[str], None] = lambda text: None
        self._child: asyncio.Task[_Child] | None = None
        self._turn = asyncio.Lock()

    @property
    def offers(self) -> Sequence[Offer]:
        return self._offers

    def when_reoffered(self, call: Callable[[str], None]) -> None:
        self._reoffered = call
        if self._why:
            call(self._why)

    @property
    def pid(self) -> int | None:
        """The process that runs now, if one does: for whoever watches over processes."""
        task = self._child
        if task is None or not task.done() or task.cancelled() or task.exception():
            return None
        return task.result().pid

    async def open(self) -> None:
        if self._child is not None:
            raise RuntimeError("this engine is open already")
        self._replace()
        try:
            await self._ready()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        task, self._child = self._child, None
        if task is None:
            return
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
        if not task.cancelled() and not task.exception():
            await task.result().end()

    async def run(self, task: Task, stop: asyncio.Event) -> AsyncGenerator[Event, None]:
        """As in `Engine`; a second call waits until the first one has ended."""
        refusal = why_not(task, self._offers)
        if refusal is not None:
            raise refusal
        async with self._turn:
            child = await self._ready()
            stopper: asyncio.Task[None] | None = None
            try:
                await child.say(Run(task))
                stopper = asyncio.create_task(self._pass_on(stop, child))
                async with contextlib.aclosing(self._answers(child)) as answers:
                    async for event in answers:
                        yield event
            finally:
                if stopper is not None:
                    stopper.cancel()
                await self._settle(child)

    async def _answers(self, child: _Child) -> AsyncGenerator[Event, None]:
        while True:
            message = await self._next(child)
            match message:
                case Done():
                    child.busy = False
                    yield message
                    return
                case StepsDone() | PreviewMade() | TextMade() | ArtifactMade():
                    yield message
                case Failed():
                    child.busy = False
                    raise EngineError(message.code, message.text)
                case _:
                    await child.kill()
                    raise EngineError("crashed", f"the engine's process said {type(message).__name__} out of turn")

    async def _next(self, child: _Child) -> Message:
        try:
            async with asyncio.timeout(self._stall_s):
                return await child.hear()
        except TimeoutError:
            await child.kill()
            raise EngineError("hung", f"the engine gave no sign of life for {self._stall_s:g} s") from None
        except (EOFError, BadPipe) as error:
            await child.kill()
            if child.disobeyed:
                raise EngineError("hung", f"the engine did not stop within {self._grace_s:g} s") from None
            raise EngineError("crashed", _epitaph(child, error)) from error

    async def _pass_on(self, stop: asyncio.Event, child: _Child) -> None:
        """Tell the child to stop when it is time, and see to it that it does."""
        await stop.wait()
        await child.say(Stop())
        await asyncio.sleep(self._grace_s)
        if child.busy:
            child.disobeyed = True
            await child.kill()

    async def _settle(self, child: _Child) -> None:
        """Bring the child to rest after a job, or replace it."""
        try:
            if child.busy and child.code is None:
                async with asyncio.timeout(self._grace_s):
                    await child.say(Drop())
                    while child.busy:
                        child.busy = not isinstance(await child.hear(), Done | Dropped | Failed)
        except (TimeoutError, EOFError, BadPipe):
            await child.kill()
        except BaseException:
            child.kill_now()
            raise
        finally:
            if child.code is not None or child.busy:
                self._replace(child)

    def _replace(self, gone: _Child | None = None) -> None:
        """Start a child, unless the engine was closed, or has got another one already."""
        old = self._child
        if gone is not None and (old is None or not old.done() or old.cancelled() or old.exception()):
            return
        if gone is not None and old is not None and old.result() is not gone:
            return
        self._child = asyncio.create_task(self._start(gone))
        # A failure shows when the next job asks for the child; until then nobody has to look.
        self._child.add_done_callback(lambda task: None if task.cancelled() else task.exception() and None)

    async def _ready(self) -> _Child:
        """The child that is loaded; one that could not be loaded is tried once more for each job."""
        if self._child is None:
            raise RuntimeError("this engine is not open")
        if self._child.done() and self._child.exception():
            self._child = None
            self._replace()
        assert self._child is not None  # noqa: S101
        return await asyncio.shield(self._child)

    async def _start(self, gone: _Child | None = None) -> _Child:
        if gone is not None:
            await gone.kill()
        child = await _Child.spawn(self._log)
        try:
            async with asyncio.timeout(self._load_s):
                await child.say(Load(self.spec))
                answer = await child.hear()
            if isinstance(answer, Failed):
                raise EngineError(answer.code, answer.text)
            if not isinstance(answer, Ready):
                raise BadPipe(f"said {type(answer).__name__} before it was ready")
        except TimeoutError:
            await child.kill()
            raise EngineError("hung", f"{self.spec.model!r} was not loaded within {self._load_s:g} s") from None
        except (EOFError, BadPipe) as error:
            await child.kill()
            raise EngineError("crashed", f"{_epitaph(child, error)}, loading {self.spec.model!r}") from error
        except BaseException:
            await child.kill()
            raise
        child.when_ready(self._serve)
        return child

    def _serve(self, ready: Ready) -> None:
        if (ready.offers, ready.text) != (self._offers, self._why):
            self._offers, self._why = ready.offers, ready.text
            self._reoffered(ready.text)


class _Child:
    """One process and its two pipes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None  # noqa: S101
        assert process.stdout is not None  # noqa: S101
        self._process = process
        self._mouth = process.stdin
        self._ears = process.stdout
        self.busy = False
        self.disobeyed = False
        self._heard: deque[Message] = deque()
        self._woken = asyncio.Event()
        self._silence: Exception | None = None
        self._ready: Ready | None = None
        self._call: Callable[[Ready], None] = lambda ready: None
        # All the time, and not in jobs only: what is served can change between them.
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def spawn(cls, log: Path | None) -> _Child:
        """Start the process; its standard output and input are ours alone, what it prints goes to the log."""
        chatter = _open_log(log)
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-X", "utf8", "-m", MODULE),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=chatter,
                close_fds=True,
                limit=_READ_AHEAD,
                env=_environment(),
                **_apart(),
            )
        finally:
            os.close(chatter)
        return cls(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def code(self) -> int | None:
        """How it ended; none while it runs."""
        return self._process.returncode

    async def say(self, message: Message) -> None:
        """Send a message; if the process is gone, `hear` will tell."""
        if isinstance(message, Run):
            self.busy = True
            self.disobeyed = False
        with contextlib.suppress(OSError, RuntimeError):  # uvloop: RuntimeError once the transport is closed
            self._mouth.write(pipe.pack(message))
            await self._mouth.drain()

    def when_ready(self, call: Callable[[Ready], None]) -> None:
        """Call this with what is served now, and again whenever that changes."""
        self._call = call
        if self._ready is not None:
            call(self._ready)

    async def hear(self) -> Message:
        """The next message, but for what is served from now on; raises `EOFError` when the process is gone and
        `BadPipe` for what is none."""
        while not self._heard:
            if self._silence is not None:
                raise self._silence
            self._woken.clear()
            await self._woken.wait()
        return self._heard.popleft()

    async def _listen(self) -> None:
        try:
            while True:
                head = await self._ears.readexactly(pipe.LENGTH_BYTES)
                message = pipe.unpack(await self._ears.readexactly(pipe.length_of(head)))
                if isinstance(message, Ready):
                    self._ready, first = message, self._ready is None
                    if not first:
                        self._call(message)
                        continue
                self._heard.append(message)
                self._woken.set()
        except BadPipe as error:
            self._silence = error
        except (EOFError, OSError) as error:
            self._silence = EOFError(str(error))
        finally:
            if self._silence is None:  # also when it is told to listen no more
                self._silence = EOFError()
            self._woken.set()

    async def end(self) -> None:
        """Let it go; it is gone when this returns."""
        with contextlib.suppress(OSError, RuntimeError):
            self._mouth.close()
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._process.wait()
        except TimeoutError:
            pass
        finally:
            await self.kill()

    def kill_now(self) -> None:
        """End it by force, without waiting until it is gone."""
        if self.code is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            if sys.platform == "win32":
                self._process.kill()
            else:  # and not `kill`, which first looks whether it is gone: how it ended would then be lost to asyncio
                os.kill(self.pid, signal.SIGKILL)

    async def kill(self) -> None:
        """End it by force; it is gone when this returns."""
        self.kill_now()
        self._listening.cancel()
        await asyncio.wait({self._listening})
        # asyncio takes a process for gone only when its pipes are empty as well; a RuntimeError: `hear` empties it.
        with contextlib.suppress(OSError, RuntimeError):
            while await self._ears.read(_READ_AHEAD):
                pass
        await self._process.wait()
        with contextlib.suppress(OSError, RuntimeError):
            self._mouth.close()


def _epitaph(child: _Child, error: Exception) -> str:
    what = f" ({error})" if isinstance(error, BadPipe) else ""
    return f"the engine's process ended with code {child.code}{what}; its log may say why"


def _open_log(log: Path | None) -> int:
    if log is None:
        return os.open(os.devnull, os.O_WRONLY)
    with contextlib.suppress(OSError):  # there is none yet, or somebody reads it on Windows: then it grows on
        if log.stat().st_size > MAX_LOG_BYTES:
            log.replace(log.with_name(log.name + ".old"))
    return os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def _environment() -> dict[str, str]:
    """Ours, and the place from which this very package came, which need not be installed."""
    home = str(Path(__file__).parents[2])
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if Path(home).name in {"site-packages", "dist-packages"} or home in paths:
        return dict(os.environ)
    return os.environ | {"PYTHONPATH": os.pathsep.join([*filter(None, paths), home])}


def _apart() -> dict[str, Any]:
    """Out of reach of the terminal's Ctrl+C, which is for the worker: it decides what becomes of its engines."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    else:  # noqa: RET505 (so that a type checker for the one system does not read the other's lines)
        return {"start_new_session": True}
