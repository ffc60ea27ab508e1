"""The guard over skips, tried on small projects of its own: each in a pytest started for it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.skip_policy import BadSkipList, read_skip_list

ROOT = Path(__file__).parents[2]

CONFTEST = """
from pathlib import Path
from tests.support.skip_policy import SkipPolicy, read_skip_list

def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(SkipPolicy(read_skip_list(Path(__file__).with_name("skips.txt")), "skips.txt"))
"""

SKIPPED_TEST = """
import pytest

def test_that_runs():
    pass

@pytest.mark.skip(reason={reason!r})
def test_that_does_not():
    pass
"""

SKIPPED_WHILE_RUNNING = """
import pytest

def test_that_gives_up():
    pytest.skip({reason!r})
"""

SKIPPED_FILE = """
import pytest

pytest.skip({reason!r}, allow_module_level=True)
"""

EXPECTED_FAILURE = """
import pytest

@pytest.mark.xfail(reason={reason!r})
def test_that_is_known_to_fail():
    assert False
"""

WAYS_OF_SKIPPING = {
    "mark": SKIPPED_TEST,
    "call": SKIPPED_WHILE_RUNNING,
    "file": SKIPPED_FILE,
    "expected failure": EXPECTED_FAILURE,
}


def run_project(folder: Path, test: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a project with this one file of tests, in which `the moon is full` is the only reason that is listed."""
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "skips.txt").write_text("# a comment\n\nthe moon is full | nothing can be done about it\n")
    (folder / "test_project.py").write_text(test)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    # Without the plugins of the environment a pytest starts several times as fast.
    environment |= {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("options", [[], ["-p", "xdist", "-n", "1"]], ids=["one process", "xdist"])
@pytest.mark.parametrize("way", WAYS_OF_SKIPPING)
def test_a_skip_with_an_unlisted_reason_fails_the_run(tmp_path: Path, way: str, options: list[str]) -> None:
    run = run_project(tmp_path, WAYS_OF_SKIPPING[way].format(reason="it rains"), *options)

    assert run.returncode == pytest.ExitCode.TESTS_FAILED, run.stdout + run.stderr
    assert "skips that are not allowed" in run.stdout
    assert "it rains" in run.stdout.partition("skips that are not allowed")[2]


@pytest.mark.parametrize("options", [[], ["-p", "xdist", "-n", "1"]], ids=["one process", "xdist"])
@pytest.mark.parametrize("way", ["mark", "call", "expected failure"])
def test_a_skip_with_a_listed_reason_passes(tmp_path: Path, way: str, options: list[str]) -> None:
    run = run_project(tmp_path, WAYS_OF_SKIPPING[way].format(reason="the moon is full"), *options)

    assert run.returncode == pytest.ExitCode.OK, run.stdout + run.stderr
    assert "not allowed" not in run.stdout


def test_a_file_skipped_for_a_listed_reason_is_not_complained_about(tmp_path: Path) -> None:
    run = run_project(tmp_path, SKIPPED_FILE.format(reason="the moon is full"))

    assert run.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, run.stdout + run.stderr
    assert "not allowed" not in run.stdout


def test_half_of_a_listed_reason_is_not_listed(tmp_path: Path) -> None:
    run = run_project(tmp_path, SKIPPED_TEST.format(reason="the moon"))

    assert run.returncode == pytest.ExitCode.TESTS_FAILED, run.stdout + run.stderr


@pytest.mark.parametrize("line", ["a reason alone", "a reason |", "| an excuse alone", "twice | why\ntwice | why"])
def test_a_line_of_another_form_is_refused_with_its_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "skips.txt"
    path.write_text(f"# reasons\n{line}\n")

    with pytest.raises(BadSkipList, match=r"skips\.txt:[23]: "):
        read_skip_list(path)
