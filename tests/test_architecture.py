"""The contracts between the parts, in setup.cfg, are kept; and one that is broken is noticed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ("protocol", "tracker", "peer")


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))",
        ],
        cwd=folder,
        # The tree under test comes before an installed Potluck; without colours, so that the text can be read.
        env=os.environ | {"PYTHONPATH": str(folder), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def small_tree(tmp_path: Path) -> Path:
    """Three empty parts under the contracts of the real ones."""
    shutil.copy(ROOT / "setup.cfg", tmp_path)
    for part in PARTS:
        (tmp_path / part).mkdir()
        (tmp_path / part / "__init__.py").touch()
    return tmp_path


def test_the_parts_import_only_what_the_contracts_allow() -> None:
    result = lint_imports(ROOT)

    assert result.returncode == 0, result.stdout + result.stderr


def test_the_contracts_are_kept_by_parts_that_import_what_they_may(small_tree: Path) -> None:
    (small_tree / "tracker" / "web.py").write_text("import aiohttp\nimport protocol\n")
    (small_tree / "peer" / "engine.py").write_text("import torch\nimport protocol\n")

    result = lint_imports(small_tree)

    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 broken" in result.stdout


@pytest.mark.parametrize(
    ("part", "imported"),
    [
        ("protocol", "tracker"),
        ("protocol", "peer"),
        ("tracker", "peer"),
        ("peer", "tracker"),
        ("tracker", "torch"),
        ("protocol", "numpy"),
        ("protocol", "aiohttp"),
    ],
)
@pytest.mark.parametrize("form", ["import {}", "def late():\n    import {}", "from {} import something"])
def test_an_import_against_the_contracts_is_found(small_tree: Path, part: str, imported: str, form: str) -> None:
    (small_tree / part / "culprit.py").write_text(form.format(imported) + "\n")

    result = lint_imports(small_tree)

    assert result.returncode != 0, result.stdout + result.stderr
    assert f"{part}.culprit" in result.stdout


def test_a_way_round_through_another_part_is_found(small_tree: Path) -> None:
    (small_tree / "protocol" / "pictures.py").write_text("import torch\n")
    (small_tree / "tracker" / "filter.py").write_text("from protocol import pictures\n")

    result = lint_imports(small_tree)

    assert result.returncode != 0, result.stdout + result.stderr
    assert "tracker.filter" in result.stdout
