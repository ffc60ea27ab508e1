"""One target under atheris, in a process of its own: `python -m tests.fuzz.child TARGET FOLDER LIBFUZZER_ARGUMENTS`.

Our code is instrumented as it is imported, hence the imports inside.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import atheris

#: What coverage is measured of.
OURS = ["protocol", "tracker", "peer"]


def main(name: str, work: Path, arguments: list[str]) -> None:
    """Fuzz until libFuzzer has had enough; it ends the process itself."""
    with atheris.instrument_imports(include=OURS, enable_loader_override=False):
        from tests.fuzz.registry import EVERY
        from tests.fuzz.target import Memory, traced
    target, memory, count = EVERY[name](Path(tempfile.mkdtemp(dir=work))), Memory(), 0

    def take(raw: bytes) -> None:
        nonlocal count
        count += 1
        target.feed(raw)
        if memory.look():
            target.check()
            found = {"inputs": count, "growth": memory.growth}
            (work / "report.json").write_text(json.dumps(found), "utf-8")

    with traced():
        target.open()
        atheris.Setup([sys.argv[0], *arguments], take)
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
