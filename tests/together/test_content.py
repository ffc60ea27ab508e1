"""The red line at a real horde: refused before any worker, at the tracker and at the worker, with nothing kept."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from peer.client import Client
from peer.events import Refused
from tests.support.horde import Horde, until

pytestmark = pytest.mark.ci_slow

WICKED = "sexual picture of a 12 year old"
CLUB = b"category: other\nlanguage: en\n3 casino*\n"


async def ask(client: Client, prompt: str) -> str:
    """The code with which a picture is refused; empty if it is made."""
    try:
        async for _ in client.image(prompt, width=64, height=64, steps=3):
            pass
    except Refused as refused:
        return refused.code
    return ""


async def test_the_red_line_holds_before_any_worker_and_nothing_of_what_was_said_is_kept(tmp_path: Path) -> None:
    async with Horde.open(tmp_path, 'filter.strikes = 2\nfilter.violence = "replace"') as horde:
        folder = horde.tracker_folder / "filter"
        folder.mkdir()
        (folder / "club.txt").write_bytes(CLUB)
        assert horde.tracker is not None
        await horde.tracker.stop()
        await horde.serve()
        worker = await horde.worker("ann", "--dry-run", "image")
        # Words that this horde wants dropped, not refused: asked again without them.
        horde.join("bea")
        picture, home = tmp_path / "cat.png", str(horde.home("bea").folder)
        size = ("--width", "64", "--height", "64", "--steps", "3")
        said = await horde.run(
            "peer", "image", "a cat, a beheading", "-o", str(picture), *size, "--home", home, "--json"
        )
        assert "asking again without 'beheading'" in said
        assert picture.is_file()
        async with horde.client() as nobody:
            assert await ask(nobody, "a red circle") == ""
            assert [await ask(nobody, prompt) for prompt in (WICKED, "casinos by night", WICKED)] == [
                "content_refused"
            ] * 3
            assert await ask(nobody, "a red circle") == "timed_out"
        started = [line for line in worker.lines() if line.get("event") == "started"]
        assert len(started) == 2, started
        kept = horde.folder / "ann" / "worker" / "filter" / f"{hashlib.sha256(CLUB).hexdigest()}.txt"
        assert await until(kept.exists, "the horde's own list at the worker")
        await worker.stop()  # so that no result of its spool goes while it is looked at
        # What was asked for is in no file of anybody: a tracker's database and log, a worker's log and spool.
        files = [file for file in tmp_path.rglob("*") if file.is_file() and file.suffix != ".txt"]
        assert not [file for file in files if b"year old" in file.read_bytes() or b"by night" in file.read_bytes()]
        assert not [file for file in files if b"beheading" in file.read_bytes()]
