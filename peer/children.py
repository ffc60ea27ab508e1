"""Other programs of ours as child processes, which end when this one does, whatever the cause.

Each child watches its standard input, a pipe whose other end only this process has. Closing it, or dying, ends them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

#: How long a child may take to end by itself, and after it was told to.
END_SECONDS = 15.0
KILL_SECONDS = 5.0
#: A line longer than this is none that a child of ours prints.
LINE_BYTES = 256 * 1024
TAIL_LINES = 15


class ChildFailed(Exception):
    """A child ended that should not have; the text holds its code and the end of its log."""

    def __init__(self, name: str, code: int, tail: str) -> None:
        super().__init__(f"{name} ended with code {code}; the end of its log:\n{tail}")
        self.code = code


class Child:
    """A process that prints one JSON object a line. log: what it printed, standard error included."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.log = log
        self._process = process
        self._said: list[dict[str, Any]] = []
        self._changed = asyncio.Event()
        self._listening = asyncio.create_task(self._listen())

    async def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first thing that it said, or will say, for which `wanted` holds; raises `ChildFailed` if it ends."""
        seen = 0
        while True:
            for said in self._said[seen:]:
                if wanted(said):
                    return said
            seen = len(self._said)
            if self._listening.done():
                code = await self._process.wait()
                raise ChildFailed(self.name, code, self.tail())
            self._changed.clear()
            await self._changed.wait()

    async def end(self) -> None:
        """Let it end; make it end if it does not."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        for seconds, harder in ((END_SECONDS, self._process.terminate), (KILL_SECONDS, self._process.kill)):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._process.wait()
                break
            with contextlib.suppress(ProcessLookupError):
                harder()
        await self._process.wait()
        await self._listening

    def tail(self) -> str:
        """The end of its log."""
        lines = self.log.read_text("utf-8", "replace").splitlines()
        return "\n".join(lines[-TAIL_LINES:])

    async def _listen(self) -> None:
        assert self._process.stdout is not None  # noqa: S101
        with self.log.open("ab") as log:
            async for line in self._process.stdout:
                log.write(line)
                log.flush()
                with contextlib.suppress(ValueError):
                    said = json.loads(line)
                    if isinstance(said, dict):
                        self._said.append(said)
                        self._changed.set()
        self._changed.set()


@contextlib.asynccontextmanager
async def child(name: str, words: Sequence[str], log: Path) -> AsyncIterator[Child]:
    """`python -m` these words, until the block ends; its standard error goes to `log` as well."""
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            *words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            limit=LINE_BYTES,
            env=_environment(),
            **_own_group(),
        )
    running = Child(name, process, log)
    try:
        yield running
    finally:
        await running.end()


async def run(words: Sequence[str]) -> tuple[int, str, str]:
    """`python -m` these words to their end: exit code, standard output, standard error."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        *words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_environment(),
        **_own_group(),
    )
    try:
        out, errors = await process.communicate()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    return process.returncode or 0, out.decode("utf-8", "replace"), errors.decode("utf-8", "replace")


def _environment() -> dict[str, str]:
    # Lines are wanted when they are printed, and in one encoding on every system.
    return os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}


if sys.platform == "win32":

    def _own_group() -> dict[str, Any]:
        """Ctrl+C reaches this process only, which then ends its children in order."""
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}

else:

    def _own_group() -> dict[str, Any]:
        """Ctrl+C reaches this process only, which then ends its children in order."""
        return {"start_new_session": True}
