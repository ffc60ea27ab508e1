"""What the page on front-ends says was tried is what the tests have run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def pins() -> dict[str, str]:
    lines = (HERE / "constraints.txt").read_text("utf-8").splitlines()
    found = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    page: dict[str, str] = json.loads((HERE / "page" / "package.json").read_text("utf-8"))["dependencies"]
    return found | page


def tried(document: str) -> dict[str, str]:
    """Names in the first cells of rows whose last cell begins with a release, and that release."""
    rows = re.findall(r"^\| `?([\w-]+)`?[^|]* \|.*\| (\d+(?:\.\d+)+): [^|]*\|$", document, re.MULTILINE)
    return dict(rows)


def test_the_releases_that_were_tried_are_those_of_the_tests() -> None:
    found = tried((ROOT / "docs" / "front-ends.md").read_text("utf-8"))

    assert found.keys() == {"openai", "llm", "horde-sdk", "webuiapi", "deep-chat"}
    assert found == {name: pins()[name] for name in found}


def test_a_row_without_a_release_counts_as_not_tried() -> None:
    assert tried("| `a` | x | y | 1.2: all |\n| b | x | y | by its source |\n") == {"a": "1.2"}


def test_every_package_of_the_clients_is_pinned_once_to_one_release() -> None:
    lines = [line for line in (HERE / "constraints.txt").read_text("utf-8").splitlines() if not line.startswith("#")]

    assert [line for line in lines if not re.fullmatch(r"[\w-]+==[\w.]+", line)] == []
    assert len({line.partition("==")[0].lower() for line in lines}) == len(lines)


@pytest.mark.parametrize("name", ["requirements.txt", "constraints.txt"])
def test_what_is_asked_for_is_pinned(name: str) -> None:
    lines = (HERE / name).read_text("utf-8").splitlines()
    names = {re.split(r"[=<>]", line)[0] for line in lines if line and not line.startswith("#")}

    assert names <= pins().keys()


def test_the_page_has_no_package_but_those_in_its_lock() -> None:
    lock = json.loads((HERE / "page" / "package-lock.json").read_text("utf-8"))

    assert lock["packages"]["node_modules/deep-chat"]["version"] == pins()["deep-chat"]
    assert all("integrity" in package for name, package in lock["packages"].items() if name)
