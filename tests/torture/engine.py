"""`python -m tests.torture.engine`: the process of a dry-run engine, with places where it can be killed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

from peer.engines import child, dry_run
from peer.engines.base import Done, StepsDone
from peer.engines.maker import Job, Maker, Said
from peer.engines.spec import EngineSpec
from protocol.messages import Offer
from tests.torture.seams import wrap
from tests.torture.trap import FAULT, Trap


class Doomed(Maker):
    """A maker that passes places on its way."""

    def __init__(self, maker: Maker, trap: Trap) -> None:
        self._maker = maker
        self._trap = trap

    def load(self) -> Sequence[Offer]:
        """As the maker does."""
        self._trap.passes("loading")
        return self._maker.load()

    def make(self, job: Job) -> Done:
        """As the maker does."""
        self._trap.passes("a job came")
        job.say = self._saying(job.say)  # type: ignore[assignment, method-assign]
        done = self._maker.make(job)
        self._trap.passes("before done")
        return done

    def _saying(self, say: Callable[[Said], None]) -> Callable[[Said], None]:
        def said(event: Said) -> None:
            if isinstance(event, StepsDone):
                self._trap.passes("a step made")
            else:
                self._trap.passes("before handing over what it made")
            say(event)

        return said


def _stay() -> None:
    """Do not end with the worker."""

    def never(_: int) -> NoReturn:
        while True:
            time.sleep(1)

    child._end_with_parent = lambda: None
    os._exit = never  # type: ignore[assignment]


def main() -> None:
    """Serve the worker at the other end of the pipes."""
    trap = Trap.of_environment("engine")
    if os.environ.get(FAULT) == "orphans":
        _stay()
    make = dry_run.maker

    def maker(spec: EngineSpec) -> Maker:
        return Doomed(make(spec), trap)

    dry_run.maker = maker
    wrap(trap, child.Mouth, "say", after=lambda _, __, message: "after done" if isinstance(message, Done) else "")
    child.main()


if __name__ == "__main__":
    main()
