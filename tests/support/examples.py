"""The example packages, installed as whoever uses them would install them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


def install_example(name: str, folder: Path) -> Path:
    """Build this example and install it; what is to stand on the path of Python for it to be found."""
    source, place = folder / "source", folder / "installed"
    shutil.copytree(EXAMPLES / name, source, ignore=shutil.ignore_patterns("__pycache__"))
    words = ["install", "--quiet", "--no-index", "--no-build-isolation", "--no-deps", "--target", str(place)]
    done = subprocess.run([sys.executable, "-m", "pip", *words, str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return place
