"""The engine's own process: loads one engine and makes job after job, until its standard input ends.

Its standard input ends when the worker's program ends, whatever the cause, and then this process ends too, whatever
it is doing.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from queue import SimpleQueue

from peer.engines import pipe
from peer.engines.base import EngineError
from peer.engines.fits import why_not
from peer.engines.maker import Dropped, Job, Maker
from peer.engines.pipe import BadPipe, Drop, Failed, Load, Message, Ready, Run, Stop
from peer.engines.spec import EngineMissing, EngineSpec, SpecError
from protocol.messages import Offer

ENTRY_POINTS = "potluck.engines"
#: Where our own makers are; their libraries are imported by the one that is needed only.
OWN = {
    "diffusers": "peer.engines.diffusers",
    "text": "peer.engines.text",
    "dry-run": "peer.engines.dry_run",
    "openai": "peer.engines.openai.back_end",
}
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve the worker at the other end of the pipes."""
    ears, mouth = _take_pipes()
    faulthandler.enable()
    _end_with_parent()
    say = Mouth(mouth).say
    try:
        first = _read(ears)
        if not isinstance(first, Load):
            raise BadPipe(f"{type(first).__name__} came first; wanted Load")
    except (BadPipe, EOFError):
        return
    jobs: SimpleQueue[Job] = SimpleQueue()
    threading.Thread(target=_listen, args=(ears, jobs, say), daemon=True, name="ears").start()
    loaded = _load(first.spec, say)
    if loaded is not None:
        maker, offers = loaded
        served = Served(offers, say)
        threading.Thread(target=_watch, args=(maker, served), daemon=True, name="watch").start()
        while True:
            job = jobs.get()
            say(_outcome(maker, served.offers, job))


def _take_pipes() -> tuple[int, int]:
    """Move the two pipes to numbers of their own, so that no library can write into one or read from the other.

    What libraries write to standard output goes where standard error goes: to the log.
    """
    ears, mouth = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return ears, mouth


def _end_with_parent() -> None:
    """On Linux the kernel ends us too, even inside a call that keeps Python from running. Elsewhere the end of
    standard input has to do."""
    if sys.platform == "linux":
        import ctypes

        with contextlib.suppress(OSError, AttributeError):  # a C library without it
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Mouth:
    """Says messages whole, from any thread."""

    def __init__(self, pipe_end: int) -> None:
        self._end = pipe_end
        self._lock = threading.Lock()

    def say(self, message: Message) -> None:
        """Write one message; without a listener the process ends."""
        left = memoryview(pipe.pack(message))
        with self._lock:
            try:
                while left:
                    left = left[os.write(self._end, left) :]
            except OSError:
                os._exit(0)


class Served:
    """What the maker serves now."""

    def __init__(self, offers: tuple[Offer, ...], say: Callable[[Message], None]) -> None:
        self.offers = offers
        self._say = say
        self._lock = threading.Lock()

    def offer(self, offers: Sequence[Offer], text: str) -> None:
        """It serves these from now on. May be called from any thread."""
        with self._lock:
            self.offers = tuple(offers)
            self._say(Ready(self.offers, text))


def _watch(maker: Maker, served: Served) -> None:
    try:
        maker.watch(served.offer)
    except Exception as error:  # noqa: BLE001 (whatever a library raises is for the operator to read)
        traceback.print_exc()
        served.offer((), f"the engine's watch ended with {type(error).__name__}; its log says where")


def _read(ears: int) -> Message:
    return pipe.unpack(_exactly(ears, pipe.length_of(_exactly(ears, pipe.LENGTH_BYTES))))


def _exactly(ears: int, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = os.read(ears, size - len(parts))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)


def _listen(ears: int, jobs: SimpleQueue[Job], say: Callable[[Message], None]) -> None:
    """Take what the worker says; when it says no more, end at once."""
    job: Job | None = None
    try:
        while True:
            message = _read(ears)
            if isinstance(message, Run):
                job = Job(message.task, say)
                jobs.put(job)
            elif job is not None and isinstance(message, Stop):
                job.stop()
            elif job is not None and isinstance(message, Drop):
                job.drop()
    except BadPipe as error:
        sys.stderr.write(f"the worker's program wrote no message: {error}\n")
    finally:
        os._exit(0)


def _maker_of(spec: EngineSpec) -> Maker:
    if spec.engine in OWN:
        make: Callable[[EngineSpec], Maker] = importlib.import_module(OWN[spec.engine]).maker
        return make(spec)
    for point in entry_points(group=ENTRY_POINTS, name=spec.engine):
        foreign: Callable[[EngineSpec], Maker] = point.load()
        return foreign(spec)
    known = ", ".join([*OWN, *sorted(point.name for point in entry_points(group=ENTRY_POINTS))])
    raise SpecError(f"no engine is called {spec.engine!r}; there are {known}")


def _load(spec: EngineSpec, say: Callable[[Message], None]) -> tuple[Maker, tuple[Offer, ...]] | None:
    try:
        maker = _maker_of(spec)
        offers = tuple(maker.load())
    except EngineError as error:
        say(Failed(error.code, str(error)))
    except (SpecError, EngineMissing) as error:
        say(Failed("unsupported", str(error)))
    except Exception as error:  # noqa: BLE001 (whatever a library raises while it loads is for the operator to read)
        traceback.print_exc()
        say(Failed("failed", f"{spec.engine} cannot load {spec.model!r}: {type(error).__name__}: {error}"))
    else:
        say(Ready(offers))
        return maker, offers
    return None


def _outcome(maker: Maker, offers: Sequence[Offer], job: Job) -> Message:
    try:
        job.check()
        refusal = why_not(job.task, offers)
        if refusal is not None:
            return Failed(refusal.code, str(refusal))
        done = maker.make(job)
        job.check()
    except Dropped:
        return pipe.Dropped()
    except EngineError as error:
        return Failed(error.code, str(error))
    except Exception as error:  # noqa: BLE001 (the edge behind which anything may be raised)
        return _failed(error)
    return done


def _failed(error: Exception) -> Failed:
    """What to tell of an unforeseen error: where it was and of which kind, but not its words, for they may quote the
    prompt, and this goes to a log and to the tracker."""
    name = type(error).__name__
    sys.stderr.write(f"{name} in a job, at\n{''.join(traceback.format_tb(error.__traceback__))}")
    sys.stderr.flush()
    if isinstance(error, MemoryError) or name == "OutOfMemoryError":
        return Failed("failed", "out of memory: the job is too large for this machine")
    return Failed("failed", f"the engine failed with {name}; its log says where")


if __name__ == "__main__":
    main()
