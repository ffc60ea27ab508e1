"""docs/kudos.md, command for command, as it tells people to type it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from tests.support.horde import PATIENCE_S, Horde, Process

pytestmark = pytest.mark.slow

GUIDE = Path(__file__).parents[2] / "docs" / "kudos.md"
RULES = """
accounts.registration = "invited"
transfers.mode = "on"
earning.withheld = 500
"""


def blocks(text: str) -> list[tuple[str, list[str]]]:
    """Who types something, and what, in order."""
    found = []
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        who, *commands = block.splitlines()
        found.append((who.removeprefix("# "), commands))
    return found


class Walk:
    """Everybody in the guide, each in a folder of his own; what they have seen so far."""

    def __init__(self, horde: Horde) -> None:
        self.horde = horde
        self.codes: list[str] = []
        self.said: dict[str, list[str]] = defaultdict(list)
        self.keys: dict[str, str] = {}

    def home(self, who: str) -> Path:
        return self.horde.folder / re.sub(r"\W+", "-", who)

    async def type(self, who: str, command: str) -> str:
        """A command of the guide, with what it names by capitals."""
        program, *words = shlex.split(command)
        horde = self.horde
        assert horde.door is not None
        if program == "potluck-tracker":
            words = [str(horde.tracker_folder) if word == "/var/lib/potluck" else word for word in words]
            # Its port is any free one, which horde.toml does not know.
            words += ["--url", horde.door.url] if "award" in words else []
            return await self.run("tracker", *words)
        names = {"LINK": str(horde.link), **{f"{name}_KEY": key for name, key in self.keys.items()}}
        words = [self.codes.pop() if word == "CODE" else names.get(word, word) for word in words]
        return await self.run("peer", *words, "--home", str(self.home(who)))

    async def run(self, *words: str) -> str:
        """In the folder of all, where their files lie."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            *words,
            cwd=self.horde.folder,
            env={**os.environ, "NO_COLOR": "1", "PYTHONPATH": str(GUIDE.parents[1])},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(PATIENCE_S):
            out, err = await process.communicate()
        assert process.returncode == 0, f"{words} ended with {process.returncode}:\n{out.decode()}\n{err.decode()}"
        return out.decode() + err.decode()

    async def key_of(self, who: str) -> str:
        shown = json.loads(await self.run("peer", "account", "--json", "--home", str(self.home(who))))
        return str(shown["key"])


@pytest.mark.timeout(300)
async def test_the_guide_to_kudos_says_what_works(tmp_path: Path) -> None:
    async with Horde.open(tmp_path, RULES) as horde:
        walk = Walk(horde)
        for who, commands in blocks(GUIDE.read_text("utf-8")):
            for command in commands:
                said = await walk.type(who, command)
                walk.said[who].append(said)
                if "admin invite" in command:
                    walk.codes = said.split()
            if who == "Wim" and len(walk.said[who]) == 3:
                home = str(walk.home(who))
                words = ("peer", "worker", "--home", home, "--dry-run", "image", "--json")
                horde.processes.append(await Process.start("wim", tmp_path / "logs", *words))
                await horde.workers(1)
            elif who == "Ann" and "FORMER" not in walk.keys:
                walk.keys["FORMER"] = await walk.key_of(who)
            elif who == "the attic" and "ATTIC" not in walk.keys:
                walk.keys["ATTIC"] = await walk.key_of(who)
        assert walk.codes == []
        # And it says what the guide says that it does.
        heard = {who: "\n".join(texts) for who, texts in walk.said.items()}
        assert "withheld" in heard["Wim"]
        for who in ("Ann", "a friend", "Ann's new machine"):
            assert "Ann#100" in heard[who], who
        assert (await horde.scrape())["carried"]["jobs"] >= 1
        for name in ("circle.png", "square.png", "alice.png", "ann.key", "drawer.key", "friends.key"):
            assert (tmp_path / name).stat().st_size > 0
        assert (await horde.audit())["ok"]
