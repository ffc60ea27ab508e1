"""`python -m tests.simulate`: play a horde's days with rules of one's own, and see who waits and who gains."""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from protocol.rules import Rules, to_json
from tests.simulate.attacks import ATTACKS
from tests.simulate.plots import draw
from tests.simulate.process import Task, play_one, quiet
from tests.simulate.world import GROUPS, World
from tracker.config import ConfigError, load

OUT = Path("build/simulate")
INTERRUPTED = 130
BAD_RULES = 2
HONEST = "none"
#: What is played if no attack is named: all that gain, or would without a defence.
USUAL = (
    *(
        HONEST,
        "honest",
        "farm",
        "accounts",
        "models",
        "split",
        "split-few",
        "split-farm",
        "hops",
        "midnight",
        "cancels",
    ),
    *("picky", "twins", "circle"),
)

#: Student's t for a one-sided 95% bound, by degrees of freedom; beyond these the normal distribution's.
T95 = {1: 6.31, 2: 2.92, 3: 2.35, 4: 2.13, 5: 2.02, 6: 1.94, 7: 1.90, 8: 1.86, 9: 1.83, 14: 1.76, 19: 1.73}


def main(arguments: Sequence[str] | None = None) -> int:
    """Play what was asked for; 0 when all of it is done, 130 if it was interrupted, 2 where rules are not any."""
    options = _parser().parse_args(arguments)
    try:
        rules = load(options.rules).rules if options.rules else Rules()
    except ConfigError as error:
        print(error, file=sys.stderr)
        return BAD_RULES
    world = replace(World(), days=options.days, load=options.load)
    options.out.mkdir(parents=True, exist_ok=True)
    text = to_json(rules)
    tasks = [
        (name, seed, world, text, _kept(options.out, name, seed, world, text))
        for seed in range(options.first, options.first + options.seeds)
        for name in options.attack or USUAL
    ]
    code = _play_all([task for task in tasks if not task[4].exists()], options.jobs)
    results: dict[str, list[dict[str, Any]]] = {}
    for name, _, _, _, path in tasks:
        if path.exists():
            results.setdefault(name, []).append(json.loads(path.read_text("utf-8")))
    if not results:
        return code
    found = {"world": asdict(world), "rules": json.loads(text), "results": results}
    (options.out / "simulate.json").write_text(json.dumps(_strict(found), indent=1, allow_nan=False) + "\n", "utf-8")
    print(json.dumps(_strict(found), allow_nan=False) if options.json else table(results))
    if not options.no_plots:
        print(*draw(results, options.out), sep="\n", file=sys.stderr)
    return code


def _strict(found: Any) -> Any:
    """The same with null for what is infinite, for which JSON has no word."""
    match found:
        case dict():
            return {name: _strict(one) for name, one in found.items()}
        case list() | tuple():
            return [_strict(one) for one in found]
        case float() if not math.isfinite(found):
            return None
        case _:
            return found


def _play_all(tasks: Sequence[Task], jobs: int) -> int:
    """Whatever is not kept yet; each result is kept as soon as it is there."""
    done = 0
    if not tasks:
        return 0
    pool = ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"), initializer=quiet)
    try:
        for ended in as_completed([pool.submit(play_one, task) for task in tasks]):
            name, seed, seconds = ended.result()
            done += 1
            print(f"{done} of {len(tasks)}: {name}, seed {seed}, {seconds:.0f} s", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        print(f"\ninterrupted after {done} of {len(tasks)}: the same command goes on from there", file=sys.stderr)
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.kill()
        return INTERRUPTED
    pool.shutdown()
    return 0


def _kept(folder: Path, name: str, seed: int, world: World, rules: str) -> Path:
    """Where a result lies; other days, load or rules lie elsewhere."""
    import hashlib

    mark = hashlib.sha256(f"{asdict(world)} {rules}".encode()).hexdigest()[:10]
    (folder / "seeds").mkdir(exist_ok=True)
    return folder / "seeds" / f"{name}-{seed}-{mark}.json"


def upper(values: Sequence[float]) -> float:
    """The upper 95% bound of the mean; of a single value there is none."""
    if len(values) < 2:
        return math.inf
    known = max(degrees for degrees in T95 if degrees < len(values))
    return statistics.mean(values) + T95[known] * statistics.stdev(values) / math.sqrt(len(values))


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """What people read."""
    lines = []
    for name, played in results.items():
        mean = {key: statistics.mean([one[key] for one in played]) for key in ("load", "minted", "burned", "inflation")}
        lines.append(
            f"\n{name}: {len(played)} seeds, load {mean['load']:.3f}, minted {mean['minted']:,.0f}, burned"
            f" {mean['burned']:,.0f}, inflation {mean['inflation']:.2f}, p99 of the anonymous"
            f" {max(one['anonymous_over_median'] for one in played):.1f} times the median of all (worst seed)"
        )
        if "ratio" in played[0]:
            ratios = [one["ratio"] for one in played]
            lines.append(
                f"  kudos a GPU second, of the honest worker's: {statistics.mean(ratios):.3f},"
                f" upper 95% bound {upper(ratios):.3f}"
            )
        for group in ("all", *GROUPS):
            waits = [statistics.mean([one[f"{figure}_{group}"] for one in played]) for figure in ("median", "p99")]
            lost = statistics.mean([one[f"unserved_{group}"] for one in played])
            lines.append(f"  {group:13} median {waits[0]:7.0f} s   p99 {waits[1]:7.0f} s   never served {lost:.2%}")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulate",
        description="Play days of a horde in virtual time, with the real tracker core and your rules: who waits how"
        " long, how much kudos is made, and what attackers gain. docs/simulation.md says what is modelled.",
        epilog="To judge rules of your own: --rules horde.toml --days 1 --seeds 4. What is done is kept, so that the"
        " same command goes on where it was interrupted. A day takes about half a minute for each attack and seed.",
    )
    parser.add_argument("--days", type=float, default=7.0, help="virtual days (%(default)s)")
    parser.add_argument("--seeds", type=int, default=20, help="how many different courses of chance (%(default)s)")
    parser.add_argument("--first", type=int, default=1, help="the first seed (%(default)s)")
    parser.add_argument("--load", type=float, default=0.9, help="work offered, of what machines can do (%(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="worlds that are played at once (%(default)s)")
    parser.add_argument("--rules", type=Path, help="a horde.toml; the usual rules without it")
    parser.add_argument(
        "--attack",
        action="append",
        choices=[HONEST, *ATTACKS],
        default=[],
        help=f"only this one; may be repeated. {HONEST} is a world without, honest one more honest worker",
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON instead of a table")
    parser.add_argument("--no-plots", action="store_true", help="leave out the picture")
    parser.add_argument("--out", type=Path, default=OUT, help=f"where results and plots are written; {OUT} without it")
    return parser


if __name__ == "__main__":
    sys.exit(main())
