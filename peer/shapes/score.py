"""Measure whether pictures show what their captions say, by their pixels and nothing learned.

    python -m peer.shapes.score [--quick] [--json] [--grid FILE] [--weights FOLDER]

The scorer takes the background from the border, the colour from the pixels that stand out from it most, and then
asks of each shape: if it had this area and this centre of gravity, how well would it cover what is seen? No search
and no fitted numbers: area and centre of gravity give the extent and the place by arithmetic.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from peer import shapes
from peer.shapes import draw
from peer.shapes.draw import Colour, Combination, Placing

Numbers = NDArray[np.float64]

# What is less alike than this to every shape is none of them; drawn pictures reach 0.9 and more.
LEAST_OVERLAP = 0.8
# A colour farther than this from all names (in RGB) has no name; names are at least 100 apart.
FARTHEST_COLOUR = 60.0
# Half way between the largest small and the smallest large.
SIZE_BORDER = (draw.HALF_EXTENTS["small"][1] + draw.HALF_EXTENTS["large"][0]) / 2

SEEDS_EACH = 5
FIRST_SEED = 1_000_000
BATCH = 52
DRAWN = 1000
FIXED_PROMPTS = 24


@dataclass(frozen=True)
class Seen:
    """What a picture shows; None where it shows nothing that has a name."""

    size: str | None
    colour: str | None
    shape: str | None
    background: str | None
    overlap: float

    def right(self, wanted: Combination) -> dict[str, bool]:
        """Word by word, and whether all four are right."""
        words = {word: getattr(self, word) == getattr(wanted, word) for word in WORDS}
        return {**words, "all": all(words.values())}


WORDS = ("shape", "colour", "background", "size")


def nearest(colour: Numbers, names: dict[str, Colour]) -> str | None:
    """The name whose colour is nearest, or None where none is near."""
    distances = {name: float(np.linalg.norm(colour - np.array(named))) for name, named in names.items()}
    best = min(distances, key=lambda name: distances[name])
    return best if distances[best] <= FARTHEST_COLOUR else None


@cache
def _proportions(shape: str) -> tuple[float, float]:
    """Area, and how far the centre of gravity lies below the centre, of a shape with a half extent of 1."""
    half = 12.0
    covered = np.asarray(draw.coverage(shape, Placing(half, draw.SIDE / 2, draw.SIDE / 2)), np.float64) / 255
    rows = np.arange(draw.SIDE) + 0.5
    low = float((covered.sum(axis=1) * rows).sum() / covered.sum())
    return float(covered.sum()) / half**2, (low - draw.SIDE / 2) / half


def _overlap(seen: Numbers, shape: str) -> tuple[float, float]:
    """Shared over joint coverage with the shape of that area and centre of gravity, and its half extent."""
    area, drop = _proportions(shape)
    total = float(seen.sum())
    half = (total / area) ** 0.5
    middles = np.arange(draw.SIDE) + 0.5
    x = float((seen.sum(axis=0) * middles).sum()) / total
    y = float((seen.sum(axis=1) * middles).sum()) / total - drop * half
    ideal = np.asarray(draw.coverage(shape, Placing(half, x, y)), np.float64) / 255
    return float(np.minimum(seen, ideal).sum() / np.maximum(seen, ideal).sum()), half


def look(picture: Image.Image) -> Seen:
    """Measure one picture of SIDE pixels square; another size is a ValueError."""
    if picture.size != (draw.SIDE, draw.SIDE):
        raise ValueError(f"the picture is {picture.size}, wanted {draw.SIDE} pixels square")
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float64)
    border = np.concatenate([pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]])
    ground = np.median(border, axis=0)
    background = nearest(ground, draw.BACKGROUNDS)
    away: Numbers = np.linalg.norm(pixels - ground, axis=2)
    # The 20 pixels that stand out most are well inside even the smallest shape, clear of its blended edge.
    furthest = np.argsort(away, axis=None)[-20:]
    ink = np.median(pixels.reshape(-1, 3)[furthest], axis=0)
    contrast = float(np.linalg.norm(ink - ground))
    if contrast < FARTHEST_COLOUR / 2:
        return Seen(None, None, None, background, 0.0)
    covered: Numbers = np.clip(away / contrast, 0, 1)
    # Below this it is the unevenness of a generated background, not an edge.
    covered[covered < 0.1] = 0
    overlaps = {shape: _overlap(covered, shape) for shape in draw.SHAPES}
    shape = max(overlaps, key=lambda name: overlaps[name][0])
    overlap, half = overlaps[shape]
    size = "small" if half < SIZE_BORDER else "large"
    named = overlap >= LEAST_OVERLAP
    return Seen(size if named else None, nearest(ink, draw.COLOURS), shape if named else None, background, overlap)


# --- counting ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Count:
    """How many of the pictures were right, word by word."""

    pictures: int
    right: dict[str, int]

    def share(self, word: str) -> float:
        return self.right[word] / self.pictures if self.pictures else 0.0


def count(pairs: Iterable[tuple[Seen, Combination]]) -> Count:
    """Add up the judgements of pictures, each with what was wanted of it."""
    judged = [seen.right(wanted) for seen, wanted in pairs]
    return Count(len(judged), {word: sum(one[word] for one in judged) for word in (*WORDS, "all")})


def shuffled(wanted: Sequence[Combination]) -> list[Combination]:
    """The same captions dealt out anew: what pictures score that have nothing to do with their captions."""
    dealt = list(wanted)
    draw.chance_of("shuffle").shuffle(dealt)
    return dealt


def drawn_check(pictures: int = DRAWN) -> Count:
    """The scorer on pictures from the drawing code, where what they show is known."""
    chance = draw.chance_of("scorer check")
    everything = draw.combinations()
    wanted = [chance.choice(everything) for _ in range(pictures)]
    return count((look(draw.draw(one, chance)), one) for one in wanted)


# --- drawing with the model --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Order:
    """A picture to be generated."""

    wanted: Combination
    seed: int


def all_orders() -> list[Order]:
    """Every combination with its own five seeds. Training takes its noise from 60-bit seeds, none of them these."""
    return [
        Order(wanted, FIRST_SEED + SEEDS_EACH * number + extra)
        for number, wanted in enumerate(draw.combinations())
        for extra in range(SEEDS_EACH)
    ]


def fixed_orders() -> list[Order]:
    """Every 17th combination, going round until there are 24, each with the first of its seeds.

    17 has no factor in common with the number of combinations, so all words come up; nobody chose the pictures.
    """
    first_seeds = all_orders()[::SEEDS_EACH]
    return [first_seeds[17 * number % len(first_seeds)] for number in range(FIXED_PROMPTS)]


Report = Callable[[int, int], None]


def silent(done: int, total: int) -> None:
    """Report nothing."""


def on_stderr(done: int, total: int) -> None:
    """Report on one line of the terminal; standard output stays free for the scores."""
    sys.stderr.write(f"\r{done} of {total} pictures" + ("\n" if done == total else ""))
    sys.stderr.flush()


def load(weights: Path) -> Any:
    """The pipeline in that folder, on the CPU in full precision; from here on torch uses one thread.

    On a busy machine a second thread makes batches this small many times slower, on an idle one hardly faster; and
    with one, the bytes do not depend on the number of cores.
    """
    import torch
    from diffusers import StableDiffusionPipeline

    torch.set_num_threads(1)

    pipeline = StableDiffusionPipeline.from_pretrained(
        weights, safety_checker=None, dtype=torch.float32, low_cpu_mem_usage=False
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def hush() -> None:
    """Keep the libraries' progress bars and remarks on loading out of the report."""
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()


def generate(
    pipeline: Any,
    orders: Sequence[Order],
    steps: int = shapes.STEPS,
    guidance: float = shapes.GUIDANCE,
    report: Report = silent,
) -> list[Image.Image]:
    """One picture per order, in order. The same orders give the same bytes on the same machine."""
    import torch

    pictures: list[Image.Image] = []
    for first in range(0, len(orders), BATCH):
        part = orders[first : first + BATCH]
        answer = pipeline(
            [order.wanted.caption for order in part],
            generator=[torch.Generator().manual_seed(order.seed) for order in part],
            num_inference_steps=steps,
            guidance_scale=guidance,
            width=draw.SIDE,
            height=draw.SIDE,
        )
        pictures.extend(answer.images)
        report(len(pictures), len(orders))
    return pictures


def grid(orders: Sequence[Order], pictures: Sequence[Image.Image], columns: int = 6, scale: int = 4) -> Image.Image:
    """The pictures enlarged, pixels kept square, each over its caption."""
    side, line, gap = draw.SIDE * scale, 14, 8
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (gap + columns * (side + gap), gap + rows * (side + 2 * line + gap)), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (order, picture) in enumerate(zip(orders, pictures, strict=True)):
        x = gap + number % columns * (side + gap)
        y = gap + number // columns * (side + 2 * line + gap)
        sheet.paste(picture.resize((side, side), Image.Resampling.NEAREST), (x, y))
        pen.rectangle((x, y, x + side - 1, y + side - 1), outline="lightgrey")
        first, second = order.wanted.caption.split(" on ")
        pen.text((x + 2, y + side), f"{first}\non {second}", fill="black", spacing=1)
    return sheet


# --- the report --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scores:
    """All that the report says."""

    weights: str
    steps: int
    guidance: float
    all: Count
    trained: Count
    held_out: Count
    captions_shuffled: Count
    scorer_on_drawn: Count
    median_overlap: float


def score(
    orders: Sequence[Order], pictures: Sequence[Image.Image], weights: str, steps: int, guidance: float
) -> Scores:
    """Judge pictures that were generated to order."""
    seen = [look(picture) for picture in pictures]
    wanted = [order.wanted for order in orders]
    kept_out = draw.held_out()
    pairs = list(zip(seen, wanted, strict=True))
    return Scores(
        weights=weights,
        steps=steps,
        guidance=guidance,
        all=count(pairs),
        trained=count(pair for pair in pairs if pair[1] not in kept_out),
        held_out=count(pair for pair in pairs if pair[1] in kept_out),
        captions_shuffled=count(zip(seen, shuffled(wanted), strict=True)),
        scorer_on_drawn=drawn_check(),
        median_overlap=round(statistics.median(one.overlap for one in seen), 4),
    )


def as_text(scores: Scores) -> str:
    """The report as a table, percent right."""
    lines = [
        f"weights {scores.weights}, {scores.steps} steps, guidance {scores.guidance}, {draw.SIDE}x{draw.SIDE} pixels",
        f"{'':26}{'pictures':>9}" + "".join(f"{word:>12}" for word in (*WORDS, "all four")),
    ]
    named = {
        "all combinations": scores.all,
        "  seen in training": scores.trained,
        "  kept out of training": scores.held_out,
        "control: captions shuffled": scores.captions_shuffled,
        "scorer on drawn pictures": scores.scorer_on_drawn,
    }
    for name, counted in named.items():
        shares = "".join(f"{100 * counted.share(word):>11.1f}%" for word in (*WORDS, "all"))
        lines.append(f"{name:26}{counted.pictures:>9}{shares}")
    lines.append(f"median overlap with the ideal shape: {scores.median_overlap:.3f}")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Generate, judge, and print the report."""
    parser = argparse.ArgumentParser(prog="python -m peer.shapes.score", description="Score the shapes model.")
    parser.add_argument("--weights", type=Path, default=None, help="another pipeline than the one shipped")
    parser.add_argument("--quick", action="store_true", help="the 24 fixed prompts only, not every combination")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--grid", type=Path, help="draw the 24 fixed prompts into this file, and score nothing")
    parser.add_argument("--steps", type=int, default=shapes.STEPS)
    parser.add_argument("--guidance", type=float, default=shapes.GUIDANCE)
    chosen = parser.parse_args(arguments)
    hush()
    pipeline = load(chosen.weights or shapes.folder())
    orders = fixed_orders() if chosen.quick or chosen.grid else all_orders()
    pictures = generate(pipeline, orders, chosen.steps, chosen.guidance, on_stderr)
    if chosen.grid:
        grid(orders, pictures).save(chosen.grid)
        return 0
    name = str(chosen.weights) if chosen.weights else "as shipped"
    scores = score(orders, pictures, name, chosen.steps, chosen.guidance)
    sys.stdout.write((json.dumps(asdict(scores), indent=2) if chosen.json else as_text(scores)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
