"""Processes that are told what to do: JSON lines in, one JSON line out for each."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

#: A guard against hanging, not a claim about speed.
PATIENCE_S = 900.0
MAX_LINE_BYTES = 256 * 1024 * 1024

Answer = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any] | None]]


class Child:
    """The process at the other end."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, errors: Path) -> None:
        self.name = name
        self.process = process
        self.watched = psutil.Process(process.pid)
        self._errors = errors

    @classmethod
    async def start(cls, name: str, folder: Path, module: str, *arguments: str, prefix: Sequence[str] = ()) -> Child:
        """Start `python -m module`, behind the words of `prefix`; what it writes to standard error is kept in
        `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        errors = folder / f"{name}.err"
        with errors.open("ab") as file:
            process = await asyncio.create_subprocess_exec(
                *prefix,
                sys.executable,
                "-m",
                module,
                *arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=file,
                limit=MAX_LINE_BYTES,
            )
        return cls(name, process, errors)

    async def ask(self, do: str, /, **about: Any) -> dict[str, Any]:
        """Tell it to do something; what it answers when it is done."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps({"do": do, **about}).encode() + b"\n")
        async with asyncio.timeout(PATIENCE_S):
            await stdin.drain()
            line = await stdout.readline()
        found: dict[str, Any] = json.loads(line) if line else {"fault": "it ended"}
        if "fault" in found:
            text = self._errors.read_text("utf-8", "replace")[-3000:]
            raise RuntimeError(f"{self.name}, told to {do}: {found['fault']}\n{text}")
        return found

    async def end(self) -> None:
        """Close its standard input, upon which it ends; it is killed if it does not."""
        if self.process.returncode is None and self.process.stdin is not None:
            self.process.stdin.close()
        try:
            async with asyncio.timeout(20):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()


async def obey(answer: Answer) -> None:
    """Answer each line of standard input, one after the other, until it ends."""
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[bytes] = asyncio.Queue()

    def read() -> None:
        while line := sys.stdin.buffer.readline():
            loop.call_soon_threadsafe(lines.put_nowait, line)
        loop.call_soon_threadsafe(lines.put_nowait, b"")

    threading.Thread(target=read, name="stdin", daemon=True).start()
    while line := await lines.get():
        about = json.loads(line)
        try:
            found = await answer(about.pop("do"), about)
        except Exception as error:
            _say({"fault": f"{type(error).__name__}: {error}"})
            raise
        _say(found or {})


def _say(found: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run `main` in the fastest loop that there is, as tracker and worker do."""

    async def whole() -> None:
        await main()

    if sys.platform == "win32":
        asyncio.run(whole())
    else:
        import uvloop

        uvloop.run(whole())
