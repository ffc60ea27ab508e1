"""The example of a price plug-in, installed as an operator would install it."""

from __future__ import annotations

from pathlib import Path

from tests.support.examples import install_example


def install(folder: Path) -> Path:
    """Build the example and install it; what is to stand on the path of Python for it to be found."""
    return install_example("prices_plugin", folder)
