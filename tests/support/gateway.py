"""A gateway of a test's horde: the real command in a process of its own."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

from tests.support.horde import Horde, Process


@dataclass(frozen=True)
class Gateway:
    """One that serves. url: of its front page, without a slash at the end. key: what opens it."""

    url: str
    key: str
    process: Process

    @classmethod
    async def start(cls, horde: Horde, name: str, *arguments: str) -> Gateway:
        """Start one whose home is the folder of this name, which joins the horde if it has not; it ends with the
        horde's other processes."""
        horde.join(name)
        home = str(horde.folder / name)
        words = ("peer", "gateway", "--home", home, "--listen", "127.0.0.1:0", "--json", *arguments)
        process = await Process.start(f"{name}-gateway", horde.folder / "logs", *words)
        horde.processes.append(process)
        serving = await process.line(lambda line: line.get("event") == "serving")
        return cls(serving["url"], Path(serving["key_file"]).read_text("utf-8").strip(), process)

    @property
    def bearer(self) -> dict[str, str]:
        """The key as OpenAI's clients send it."""
        return {"Authorization": f"Bearer {self.key}"}

    @property
    def basic(self) -> dict[str, str]:
        """The key as a password, as clients of AUTOMATIC1111 send it."""
        return {"Authorization": f"Basic {base64.b64encode(f'anybody:{self.key}'.encode()).decode()}"}
