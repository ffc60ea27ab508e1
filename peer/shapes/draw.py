"""The words of the small picture model, and the code that draws what they say.

A picture is one shape of one colour and one size on a plain background. Everything the model was taught comes
from this file, and the scorer takes its templates from it, so the vocabulary is stated once. Nothing here needs
torch.
"""

import math
import random
from dataclasses import dataclass
from itertools import product

from PIL import Image, ImageDraw

SIDE = 32  # width and height of a picture, in pixels

Colour = tuple[int, int, int]
Point = tuple[float, float]

SHAPES = ("circle", "square", "triangle", "diamond", "cross", "heart")
SIZES = ("small", "large")

# No two of these are nearer than 100 in RGB, so that neither jitter nor a pale rendering turns one into another.
COLOURS: dict[str, Colour] = {
    "red": (210, 35, 50),
    "orange": (240, 130, 20),
    "yellow": (255, 235, 60),
    "green": (45, 160, 70),
    "blue": (40, 85, 215),
    "purple": (140, 50, 170),
    "white": (248, 248, 248),
}
BACKGROUNDS: dict[str, Colour] = {
    "black": (15, 15, 15),
    "white": (248, 248, 248),
    "grey": (128, 128, 128),
    "blue": (40, 85, 215),
}

# Half the extent of a shape in pixels. The gap between the two is wide: at 32 pixels "medium" would be a guess.
HALF_EXTENTS: dict[str, tuple[float, float]] = {"small": (5.5, 7.0), "large": (10.0, 12.0)}
MARGIN = 2.0  # pixels at the edge that always show the background
COLOUR_JITTER = 8  # each channel of each colour moves by at most this much
SUPERSAMPLING = 8
HELD_OUT_SHARE = 10  # one combination in so many is kept out of training


@dataclass(frozen=True, order=True)
class Combination:
    """What a caption of the plain form says: four words."""

    size: str
    colour: str
    shape: str
    background: str

    @property
    def caption(self) -> str:
        return f"a {self.size} {self.colour} {self.shape} on {self.background}"


def chance_of(purpose: str | int) -> random.Random:
    """A source of chance that gives the same for the same purpose, on every machine."""
    return random.Random(purpose)  # noqa: S311  pictures are no secret


def combinations() -> list[Combination]:
    """All that can be seen (no blue on blue), in a fixed order."""
    return [
        Combination(size, colour, shape, background)
        for shape, colour, background, size in product(SHAPES, COLOURS, BACKGROUNDS, SIZES)
        if colour != background
    ]


def held_out() -> frozenset[Combination]:
    """The tenth of the combinations that training never sees; the same ones each time."""
    everything = combinations()
    # Not random.Random(n).sample: its result is not promised to be the same in every Python version; random() is.
    chance = chance_of(2024)
    drawn_by_lot = sorted(everything, key=lambda _: chance.random())
    return frozenset(drawn_by_lot[: len(everything) // HELD_OUT_SHARE])


def training_combinations() -> list[Combination]:
    """All combinations but the held-out ones, in a fixed order."""
    kept_out = held_out()
    return [combination for combination in combinations() if combination not in kept_out]


def _heart() -> list[Point]:
    """A heart whose sides are straight and whose lobes are half circles, within -1..1."""
    lobe = 0.5
    left = [(-lobe + lobe * math.cos(a), -0.4 + lobe * math.sin(a)) for a in _angles(math.pi * 0.85, math.pi * 2, 16)]
    right = [(lobe + lobe * math.cos(a), -0.4 + lobe * math.sin(a)) for a in _angles(math.pi, math.pi * 2.15, 16)]
    return [(0.0, 0.95), *left, *right]


def _angles(first: float, last: float, steps: int) -> list[float]:
    return [first + (last - first) * step / steps for step in range(steps + 1)]


ARM = 0.34  # half the width of an arm of the cross

# Corners for a half extent of 1, x to the right and y downwards; the circle is drawn as an ellipse.
CORNERS: dict[str, list[Point]] = {
    "square": [(-0.93, -0.93), (0.93, -0.93), (0.93, 0.93), (-0.93, 0.93)],
    "triangle": [(0.0, -0.95), (1.05, 0.9), (-1.05, 0.9)],
    "diamond": [(0.0, -1.05), (1.05, 0.0), (0.0, 1.05), (-1.05, 0.0)],
    "cross": [
        (-ARM, -1.0),
        (ARM, -1.0),
        (ARM, -ARM),
        (1.0, -ARM),
        (1.0, ARM),
        (ARM, ARM),
        (ARM, 1.0),
        (-ARM, 1.0),
        (-ARM, ARM),
        (-1.0, ARM),
        (-1.0, -ARM),
        (-ARM, -ARM),
    ],
    "heart": _heart(),
}


@dataclass(frozen=True)
class Placing:
    """Where a shape lies, in pixels from the upper left corner of the picture."""

    half_extent: float
    centre_x: float
    centre_y: float


def coverage(shape: str, placing: Placing) -> Image.Image:
    """How much of each pixel the shape covers, 0 to 255 (mode L)."""
    fine = Image.new("L", (SIDE * SUPERSAMPLING, SIDE * SUPERSAMPLING), 0)
    pen = ImageDraw.Draw(fine)
    x, y, half = (SUPERSAMPLING * value for value in (placing.centre_x, placing.centre_y, placing.half_extent))
    # PIL names pixels by their centres, we measure from their edges: hence the half pixel.
    if shape == "circle":
        pen.ellipse((x - half - 0.5, y - half - 0.5, x + half - 0.5, y + half - 0.5), fill=255)
    else:
        pen.polygon([(x + half * u - 0.5, y + half * v - 0.5) for u, v in CORNERS[shape]], fill=255)
    return fine.reduce(SUPERSAMPLING)


def place(size: str, chance: random.Random) -> Placing:
    """A random extent of that size at a random place, clear of the edges."""
    half = chance.uniform(*HALF_EXTENTS[size])
    # 1.05 is the widest any shape reaches. Small ones may wander, but not all the way into a corner.
    slack = min(SIDE / 2 - MARGIN - 1.05 * half, 5.0)
    middle = SIDE / 2
    return Placing(half, middle + chance.uniform(-slack, slack), middle + chance.uniform(-slack, slack))


def _jittered(colour: Colour, chance: random.Random) -> Colour:
    red, green, blue = (min(255, max(0, channel + chance.randint(-COLOUR_JITTER, COLOUR_JITTER))) for channel in colour)
    return red, green, blue


def draw(wanted: Combination, chance: random.Random) -> Image.Image:
    """A picture of the combination, SIDE pixels square, mode RGB; the same chance gives the same picture."""
    picture = Image.new("RGB", (SIDE, SIDE), _jittered(BACKGROUNDS[wanted.background], chance))
    ink = _jittered(COLOURS[wanted.colour], chance)
    picture.paste(ink, (0, 0, SIDE, SIDE), coverage(wanted.shape, place(wanted.size, chance)))
    return picture


# Ways to say the same, most of them the plain form. A word left out (size, background) may be anything in the
# picture, and the words around the plain form teach the model to pass over what it does not know.
PLAIN = "a {size} {colour} {shape} on {background}"
PHRASINGS: list[tuple[str, int]] = [
    (PLAIN, 12),
    ("{size} {colour} {shape} on {background}", 2),
    ("a {size} {colour} {shape} on a {background} background", 2),
    ("a {colour} {shape} on {background}", 2),
    ("a {size} {colour} {shape}", 1),
    ("a {colour} {shape}", 1),
    ("a picture of a {size} {colour} {shape} on {background}", 1),
    ("please draw a {size} {colour} {shape} on {background}, simple and clear", 1),
]


def phrase(shown: Combination, chance: random.Random) -> str:
    """A caption for a picture, in one of the phrasings."""
    phrasings, weights = zip(*PHRASINGS, strict=True)
    form: str = chance.choices(phrasings, weights)[0]
    return form.format(size=shown.size, colour=shown.colour, shape=shown.shape, background=shown.background)
