"""The demo's parts: what it computes, and the processes that it starts. tests/together runs the whole of it."""

import os
import sys
from pathlib import Path

import psutil
import pytest

from peer import demo, shapes
from peer.children import ChildFailed, child, run
from peer.commands.demo import as_typed
from peer.demo import PICTURE, TEXT, pictures_needed
from peer.engines.spec import SMOLLM2_MODEL
from protocol import prices
from protocol.rules import PricesSection, Rules


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

    others = set(psutil.Process().children())  # of other tests in this process, such as multiprocessing's own helper
    async with child("the tracker", words, tmp_path / "log") as running:
        said = await running.until(lambda said: said.get("event") == "serving" and "link" in said)
        assert said["link"].startswith("potluck:")
        processes = set(psutil.Process().children()) - others
        assert processes

    assert not [process for process in processes if process.is_running()]
    assert "standard input was closed" in (tmp_path / "log").read_text()


async def test_a_command_that_fails_gives_its_code_and_its_words() -> None:
    code, out, errors = await run(["tracker", "serve", "no-such-folder"])

    assert code != 0
    assert out == ""
    assert "no-such-folder" in errors


def test_commands_are_named_as_they_can_be_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / ("potluck.exe" if os.name == "nt" else "potluck")
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert as_typed("potluck", "peer").endswith("-m peer")

    script.write_text("")
    script.chmod(0o700)
    assert as_typed("potluck", "peer") == script.name

    monkeypatch.setenv("PATH", str(tmp_path))
    assert as_typed("potluck", "peer") == "potluck"


def test_the_demo_asks_for_what_the_shipped_model_was_made_for() -> None:
    assert (PICTURE.width, PICTURE.height, PICTURE.steps) == (shapes.SIDE, shapes.SIDE, shapes.STEPS)
    assert demo.SEED
