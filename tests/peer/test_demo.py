"""The demo: what it computes, what it insists on, and that it leaves nothing behind."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from peer import demo, shapes
from peer.children import ChildFailed, child, run
from peer.demo import PICTURE, TEXT, pictures_needed
from peer.engines.spec import SMOLLM2_MODEL
from protocol import prices
from protocol.rules import PricesSection, Rules
from tests.support.horde import PATIENCE_S, Process


@pytest.mark.parametrize("tax", [0, 3_000, 50_000])
@pytest.mark.parametrize("base", [0, 2_500, 100_000])
def test_the_pictures_earn_what_the_text_costs_and_not_one_too_many(tax: int, base: int) -> None:
    rules = Rules(prices=PricesSection(tax=tax, image_base=base))
    needed = pictures_needed(rules)
    each = prices.price(rules, PICTURE, shapes.NAME)
    cost = prices.price(rules, TEXT, SMOLLM2_MODEL) + tax

    assert needed >= 1
    assert needed * each >= cost
    assert needed == 1 or (needed - 1) * each < cost


async def test_a_child_that_fails_is_shown_with_the_end_of_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with child("the child", ["no_such_module_of_ours"], log) as running:
        with pytest.raises(ChildFailed, match=r"the child ended with code 1(.|\n)*no_such_module_of_ours"):
            await running.until(lambda said: True)


async def test_a_child_says_things_and_ends_when_its_standard_input_does(tmp_path: Path) -> None:
    words = ["tracker", "serve", str(tmp_path / "horde"), "--until-stdin-closes"]
    code, _, _ = await run(["tracker", "init", str(tmp_path / "horde"), "--listen", "127.0.0.1:0"])
    assert code == 0

    async with child("the tracker", words, tmp_path / "log") as running:
        said = await running.until(lambda said: said.get("event") == "serving" and "link" in said)
        assert said["link"].startswith("potluck:")
        processes = psutil.Process().children()

    assert not [process for process in processes if process.is_running()]
    assert "standard input was closed" in (tmp_path / "log").read_text()


async def test_a_command_that_fails_gives_its_code_and_its_words() -> None:
    code, out, errors = await run(["tracker", "serve", "no-such-folder"])

    assert code != 0
    assert out == ""
    assert "no-such-folder" in errors


async def started(folder: Path) -> Process:
    return await Process.start("demo", folder, "peer", "demo", "--json", "--home", str(folder / "state"))


def check(outcome: dict[str, Any]) -> None:
    image, text, balances = outcome["image"], outcome["text"], outcome["balances"]
    for part in (image, text):
        assert part["settled"]
        assert part["receipt_digest"] == part["acknowledged_digest"]
    assert (image["paid"], image["burned"]) == (0, 0)
    assert image["minted"] > 0
    assert (text["minted"], text["burned"]) == (0, 3_000)
    assert text["content"]
    assert balances["between"]["pictures"] == image["count"] * image["minted"]
    assert balances["after"]["pictures"] == balances["between"]["pictures"] - text["paid"] - text["burned"]
    assert balances["after"]["texts"] == text["paid"]
    assert outcome["audit"]["ok"]
    assert outcome["audit"]["sum"] == 0
    assert outcome["audit"]["entries"] >= image["count"] + 2


@pytest.mark.ci_slow
async def test_the_demo_shows_what_it_promises_and_leaves_no_process(tmp_path: Path) -> None:
    process = await started(tmp_path)
    began = psutil.Process(process.process.pid)
    await process.line(lambda line: line.get("event") == "leased")
    family = began.children(recursive=True)

    assert await process.process.wait() == 0

    outcome = process.lines()[-1]
    check(outcome)
    assert Path(outcome["image"]["path"]).is_file()
    assert Path(outcome["image"]["enlarged"]).stat().st_size > 0
    assert len(family) >= 3
    assert not [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
    code, out, _ = await run(
        ["peer", "verify", outcome["image"]["path"], "--json", "--home", str(Path(outcome["folder"]) / "texts")]
    )
    assert code == 0
    assert json.loads(out)["output_digest"] == outcome["image"]["receipt_digest"]


@pytest.mark.ci_slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no such signal")
@pytest.mark.parametrize("how", ["SIGINT", "SIGKILL"])
async def test_the_demo_leaves_no_process_when_it_is_ended_half_way(tmp_path: Path, how: str) -> None:
    process = await started(tmp_path)
    began = psutil.Process(process.process.pid)
    await process.line(lambda line: line.get("event") == "leased")
    family = began.children(recursive=True)

    os.kill(process.process.pid, signal.Signals[how])
    code = await process.process.wait()
    gone, alive = await asyncio.to_thread(psutil.wait_procs, family, PATIENCE_S)

    assert code == (130 if how == "SIGINT" else -signal.SIGKILL)
    assert len(gone) >= 3
    assert not alive


def test_the_demo_asks_for_what_the_shipped_model_was_made_for() -> None:
    assert (PICTURE.width, PICTURE.height, PICTURE.steps) == (shapes.SIDE, shapes.SIDE, shapes.STEPS)
    assert demo.SEED
