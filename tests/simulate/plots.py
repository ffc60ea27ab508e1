"""What was measured, as pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.simulate.world import GROUPS

Results = Mapping[str, Sequence[dict[str, Any]]]


def draw(results: Results, folder: Path) -> list[Path]:
    """Write the plots of all that was played, by attack; where they are."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(17, 5))
    played = results.get("none") or next(iter(results.values()))
    _waits(axes[0], played)
    _kudos(axes[1], results)
    _ratios(axes[2], results)
    figure.tight_layout()
    path = folder / "simulate.png"
    figure.savefig(path, dpi=100)
    plt.close(figure)
    return [path]


def _waits(axes: Any, played: Sequence[dict[str, Any]]) -> None:
    for offset, name in ((-0.2, "median"), (0.2, "p99")):
        heights = [_mean([one[f"{name}_{group}"] for one in played]) for group in GROUPS]
        drawn = [height if math.isfinite(height) else 0.0 for height in heights]
        bars = axes.bar([place + offset for place in range(len(GROUPS))], drawn, width=0.4, label=name)
        axes.bar_label(bars, ["" if math.isfinite(height) else "∞" for height in heights])  # never served
    axes.set_xticks(range(len(GROUPS)), GROUPS)
    axes.set_ylabel("seconds from request to result")
    axes.set_title("waiting")
    axes.legend()


def _kudos(axes: Any, results: Results) -> None:
    for offset, name in ((-0.2, "minted"), (0.2, "burned")):
        heights = [_mean([one[name] for one in played]) for played in results.values()]
        axes.bar([place + offset for place in range(len(results))], heights, width=0.4, label=name)
    axes.set_xticks(range(len(results)), list(results), rotation=60)
    axes.set_ylabel("kudos")
    axes.set_title("minted and burned")
    axes.legend()


def _ratios(axes: Any, results: Results) -> None:
    names = [name for name, played in results.items() if "ratio" in played[0]]
    for place, name in enumerate(names):
        axes.plot([place] * len(results[name]), [one["ratio"] for one in results[name]], "o", alpha=0.5)
    axes.axhline(1.05, linestyle="--", color="gray")
    axes.set_xticks(range(len(names)), names, rotation=60)
    axes.set_ylabel("kudos a GPU second, of the honest worker's")
    axes.set_title("attackers")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
