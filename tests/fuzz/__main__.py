"""Fuzzing guided by coverage: `python -m tests.fuzz --seconds 60`, one process for each target, one after the other.

What makes a target fail is written to build/fuzz/TARGET, with the command that replays it; what reaches new code is
kept there too, and starts the next run; `--keep` takes what is short of it into the corpus that is kept in git.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz.registry import CORPUS, EVERY, TARGETS, feed
from tests.fuzz.target import MAX_GROWTH, MIB

WORK = Path("build/fuzz")
#: The longest input; more bytes reach no more code.
MAX_BYTES = 4096
#: The longest one that is kept in git.
MAX_KEPT_BYTES = 512
#: One input that takes longer has hung.
INPUT_SECONDS = 25
#: How much a process with its instrumentation and corpus may take in all.
PROCESS_MIB = 2048


def arguments() -> argparse.Namespace:
    """What the command was given."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--runs", type=int, default=-1, help="inputs for each target; so many, or until time is over")
    parser.add_argument("--seed", type=int, default=1, help="of the fuzzer's chance")
    parser.add_argument("--target", action="append", choices=EVERY, help="only this one; may come again")
    parser.add_argument("--work", type=Path, default=WORK, help="where failures and new inputs go")
    parser.add_argument("--keep", action="store_true", help="take what reached new code into the corpus of git")
    parser.add_argument("--replay", type=Path, help="feed this one input, without a fuzzer")
    return parser.parse_args()


def main() -> int:
    """0 if no target failed."""
    given = arguments()
    names = given.target or list(TARGETS)
    if given.replay:
        return replay(names, given.replay)
    failed = [name for name in names if not fuzz(name, given)]
    if given.keep:
        for name in names:
            keep(given.work / name / "corpus", CORPUS / name)
    if failed:
        print(f"FAILED: {', '.join(failed)}")
    return 1 if failed else 0


def replay(names: list[str], path: Path) -> int:
    """Feed one input to one target; an exception shows what is wrong."""
    if len(names) != 1:
        print("--replay needs to know whose input it is: add --target NAME")
        return 2
    with tempfile.TemporaryDirectory() as folder:
        feed(EVERY[names[0]](Path(folder)), [path.read_bytes()])
    print(f"{names[0]}: nothing is wrong with {path}")
    return 0


def fuzz(name: str, given: argparse.Namespace) -> bool:
    """Run one target; whether it found nothing."""
    work: Path = given.work / name
    found = work / "corpus"
    found.mkdir(parents=True, exist_ok=True)
    (work / "report.json").unlink(missing_ok=True)
    before = set(work.glob("*-*"))
    with tempfile.TemporaryDirectory() as folder, (work / "log").open("wb") as log:
        kept = [CORPUS / name] if (CORPUS / name).exists() else []
        code = subprocess.run(
            [
                *(sys.executable, "-m", "tests.fuzz.child", name, folder),
                *(f"-artifact_prefix={work}/", f"-max_len={MAX_BYTES}", f"-timeout={INPUT_SECONDS}"),
                *(f"-rss_limit_mb={PROCESS_MIB}", f"-seed={given.seed}"),
                *(f"-max_total_time={given.seconds}", f"-runs={given.runs}", *map(str, [found, *kept])),
            ],
            stdout=log,
            stderr=log,
        ).returncode
        report = Path(folder) / "report.json"
        seen = json.loads(report.read_text("utf-8")) if report.exists() else {"inputs": 0, "growth": 0}
    print(
        f"{name:14} {seen['inputs']:8} inputs, memory grew by {seen['growth'] / MIB:.1f} MiB (below "
        f"{MAX_GROWTH // MIB}): {'nothing found' if code == 0 else f'FAILED, see {work}/log'}",
        flush=True,
    )
    for path in sorted(set(work.glob("*-*")) - before):
        print(f"  replay it: python -m tests.fuzz --target {name} --replay {path}", flush=True)
    return code == 0


def keep(found: Path, kept: Path) -> None:
    """Copy the short ones of what a fuzzer found, named by their content."""
    kept.mkdir(parents=True, exist_ok=True)
    for path in found.iterdir():
        raw = path.read_bytes()
        if len(raw) <= MAX_KEPT_BYTES:
            (kept / hashlib.sha256(raw).hexdigest()[:12]).write_bytes(raw)


if __name__ == "__main__":
    sys.exit(main())
