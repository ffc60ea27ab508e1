"""A short run of the fuzzer itself over each target, and what comes of a fault."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

from tests.fuzz.registry import TARGETS

pytestmark = pytest.mark.skipif(find_spec("atheris") is None, reason="no atheris here: make fuzz installs it")

#: Those that stand for the others in CI: what is read first, what a tracker is told, what a worker is asked.
CHOICE = ("codec", "conversation", "worker-web")
SHORT = [
    pytest.param(name, marks=pytest.mark.ci_slow if name in CHOICE else pytest.mark.slow, id=name) for name in TARGETS
]


def fuzz(*arguments, code):
    done = subprocess.run([sys.executable, "-m", "tests.fuzz", *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(320)
@pytest.mark.parametrize("name", SHORT)
def test_a_short_run_finds_nothing(name, tmp_path):
    said = fuzz("--target", name, "--runs", "1000", "--seconds", "10", "--work", str(tmp_path), code=0)
    assert "nothing found" in said
    assert " 0 inputs" not in said


@pytest.mark.ci_slow
def test_a_fault_is_found_and_kept_with_the_command_that_replays_it(tmp_path):
    said = fuzz("--target", "planted", "--seconds", "60", "--work", str(tmp_path), code=1)
    [kept] = (tmp_path / "planted").glob("crash-*")
    assert kept.read_bytes().startswith(b"!")
    assert f"python -m tests.fuzz --target planted --replay {kept}" in said
    assert "FAILED: planted" in said

    replayed = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--target", "planted", "--replay", str(kept)],
        capture_output=True,
        text=True,
    )
    assert replayed.returncode == 1
    assert "Fault: planted" in replayed.stderr
