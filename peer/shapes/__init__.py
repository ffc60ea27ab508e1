"""A small picture model that comes with the package, so that demo and tests need no download.

It is an ordinary diffusers pipeline of about 6 MB that draws one shape on a plain background. Importing this
package is cheap: torch is needed by ``peer.shapes.train`` and ``peer.shapes.score`` only.
"""

from pathlib import Path

NAME = "shapes"

SIDE = 32  # width and height in pixels at which it was trained; other sizes are not promised to look like anything
STEPS = 24
GUIDANCE = 2.0


def folder() -> Path:
    """The folder of the saved pipeline, for ``DiffusionPipeline.from_pretrained``; it is inside this package."""
    return Path(__file__).with_name("weights")
