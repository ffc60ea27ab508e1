"""`potluck demo --json`, as a script runs it."""

from __future__ import annotations

import hashlib
import json
import signal
import sys
import tomllib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from PIL import Image

from peer import shapes
from peer.commands.exits import Exit
from tests.support.horde import Process, run, until
from tests.support.marked import marked, new_mark

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]


@dataclass
class Demo:
    """A demo that has ended: what it printed, one object for each line."""

    home: Path
    lines: list[dict[str, Any]]

    @property
    def last(self) -> dict[str, Any]:
        return self.lines[-1]

    @property
    def folder(self) -> Path:
        return Path(self.last["folder"])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def demo(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Demo]:
    home: Path = tmp_path_factory.mktemp("demo")
    mark = new_mark()
    process = await Process.start("demo", home, "peer", "demo", "--json", "--home", str(home / "demo"), env=mark)
    try:
        code = await process.process.wait()
    finally:
        await process.end()
    assert code == Exit.OK, process.text()[-4000:]
    assert marked(mark) == [], "processes are left"
    yield Demo(home / "demo", [json.loads(line) for line in process.text().splitlines()])


async def test_the_picture_is_the_one_that_was_signed_for_acknowledged_and_settled(demo: Demo) -> None:
    image = demo.last["image"]
    content = Path(image["path"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == image["sha256"]
    assert image["receipt_digest"] == image["acknowledged_digest"]
    assert image["settled"] is True
    with Image.open(BytesIO(content)) as picture:
        assert picture.size == (shapes.SIDE, shapes.SIDE)
    with Image.open(image["enlarged"]) as enlarged:
        assert enlarged.width > shapes.SIDE
    picture_events = [line for line in demo.lines if line.get("event") == "picture"]
    assert len(picture_events) == image["count"]


async def test_the_text_is_the_one_that_came_piece_by_piece(demo: Demo) -> None:
    text = demo.last["text"]
    pieces = [line["text"] for line in demo.lines if line.get("event") == "text_piece"]
    assert len(pieces) > 1
    assert text["content"] == "".join(pieces)
    assert text["receipt_digest"] == text["acknowledged_digest"]
    assert text["settled"] is True


async def test_the_pictures_were_free_and_the_text_was_paid_from_what_they_earned(demo: Demo) -> None:
    image, text, balances = demo.last["image"], demo.last["text"], demo.last["balances"]
    assert balances["before"] == {"pictures": 0, "texts": 0}
    assert (image["paid"], image["burned"]) == (0, 0)
    assert balances["between"] == {"pictures": image["minted"] * image["count"], "texts": 0}
    assert text["minted"] == 0
    assert text["burned"] > 0
    assert balances["after"] == {
        "pictures": balances["between"]["pictures"] - text["paid"] - text["burned"],
        "texts": text["paid"],
    }


async def test_the_demo_has_rules_of_its_own_and_says_so(demo: Demo) -> None:
    assert any("Its rules are the demo's own" in line.get("text", "") for line in demo.lines)
    rules = tomllib.loads((demo.folder / "tracker" / "horde.toml").read_text("utf-8"))
    assert (rules["mint"]["owners"], rules["earning"]["withheld"]) == (1, 0)


async def test_the_books_pass_in_the_demo_and_afterwards(demo: Demo) -> None:
    audit = demo.last["audit"]
    assert audit["ok"] is True
    assert audit["sum"] == 0
    assert audit["entries"] > 0
    again = json.loads(await run("tracker", "audit", str(demo.folder / "tracker"), "--json"))
    assert (again["ok"], again["entries"], again["tree"]) == (True, audit["entries"], audit["tree"])


async def test_everything_lies_in_the_folder_that_it_names(demo: Demo) -> None:
    assert demo.folder.parent == demo.home
    for path in (demo.last["image"]["path"], demo.last["image"]["enlarged"]):
        assert Path(path).parent == demo.folder


async def test_the_saved_picture_can_be_verified_afterwards(demo: Demo) -> None:
    image = demo.last["image"]
    found = json.loads(await run("peer", "verify", image["path"], "--home", str(demo.folder / "texts"), "--json"))
    assert found["verified"] is True
    assert (found["sha256"], found["output_digest"]) == (image["sha256"], image["receipt_digest"])
    assert found["settled"] is True


@pytest.mark.parametrize("how", ["SIGINT", "SIGKILL"])
@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals there")
@pytest.mark.ci_slow
async def test_a_demo_that_is_ended_early_leaves_no_process(tmp_path: Path, how: str) -> None:
    mark = new_mark()
    process = await Process.start("demo", tmp_path, "peer", "demo", "--json", "--home", str(tmp_path), env=mark)
    # Itself, a tracker, two workers and at least one engine.
    await until(lambda: len(marked(mark)) >= 5, "the demo started no processes")
    process.process.send_signal(signal.Signals[how])
    code = await process.process.wait()
    assert code == (Exit.INTERRUPTED if how == "SIGINT" else -signal.Signals[how]), process.text()[-4000:]
    if how == "SIGINT":
        assert marked(mark) == []
    await until(lambda: not marked(mark), "processes are left")
