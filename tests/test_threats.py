"""docs/threats.md names the tests that show what it says."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent
THREATS = TESTS.parent / "docs" / "threats.md"


def missing(text: str) -> list[str]:
    """Tests that the text names and that do not exist."""
    known = {name for path in TESTS.rglob("*.py") for name in re.findall(r"def (test_\w+)\(", path.read_text("utf-8"))}
    return sorted(set(re.findall(r"`(test_\w+)`", text)) - known)


def test_every_test_that_the_page_names_exists() -> None:
    text = THREATS.read_text("utf-8")

    assert len(re.findall(r"`test_\w+`", text)) > 20
    assert missing(text) == []


def test_a_test_that_does_not_exist_is_found() -> None:
    assert missing("shown by `test_that_pigs_fly`") == ["test_that_pigs_fly"]
