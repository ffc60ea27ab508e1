"""`python -m tests.bench`: measure, print a table, write it all down as JSON."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sqlite3
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from tests.bench.figures import Figure, table
from tests.bench.parts import PARTS
from tests.bench.scale import FULL, QUICK, Bench, Scale

OUT = Path("build/bench.json")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts that were named, or all."""
    options = _parser().parse_args(arguments)
    scale = QUICK if options.quick else FULL
    options.out.parent.mkdir(parents=True, exist_ok=True)
    # Beside the result and not in the system's folder for such things, which may be in memory: commits are measured.
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.out.parent) as folder:
        bench = Bench(scale, Path(folder).resolve(), _say)
        figures, seconds = asyncio.run(_measure(bench, options.only or list(PARTS)))
    found = _as_json(figures, scale, seconds, quick=options.quick)
    options.out.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    if options.json:
        print(json.dumps(found))
    else:
        print(table(figures))
        print(f"\nmedian and spread of {scale.repetitions} repetitions; all of it is in {options.out}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure how fast a horde is.")
    parser.add_argument("--only", action="append", choices=PARTS, metavar="NAME", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="small numbers: shows that it works, and measures nothing")
    parser.add_argument("--json", action="store_true", help="print the result as JSON instead of a table")
    parser.add_argument("--out", type=Path, default=OUT, help=f"where the result is written; {OUT} without it")
    return parser


async def _measure(bench: Bench, names: Sequence[str]) -> tuple[list[Figure], dict[str, float]]:
    figures: list[Figure] = []
    seconds: dict[str, float] = {}
    for name in names:
        began = time.perf_counter()
        figures += await PARTS[name](bench)
        seconds[name] = round(time.perf_counter() - began, 1)
    return figures, seconds


def _as_json(figures: Sequence[Figure], scale: Scale, seconds: dict[str, float], *, quick: bool) -> dict[str, Any]:
    return {
        "conditions": {
            "quick": quick,
            "cores": os.cpu_count(),
            "load_before": [round(one, 2) for one in psutil.getloadavg()],
            "system": platform.system(),
            "machine": platform.machine(),
            "python": platform.python_version(),
            "sqlite": sqlite3.sqlite_version,
            "part_seconds": seconds,
            "scale": {name: getattr(scale, name) for name in scale.__dataclass_fields__},
        },
        "figures": {figure.name: figure.as_json() for figure in figures},
    }


def _say(text: str) -> None:
    print(f"==> {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
