"""What a client of AUTOMATIC1111's API writes, and what is asked of a horde for it.

Such clients send every field that they know, most of them with what the program does anyway. What would make another
picture and cannot be had here is refused when it is switched on; what only tunes a sampler or saves files is ignored.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from peer.gateway.a1111.samplers import Sampler, find
from peer.gateway.asks import ImageAsk
from peer.gateway.errors import Troubled
from protocol.work import MAX_N

#: What a picture has if the client does not say, as that program has it.
SIDE, STEPS, GUIDANCE = 512, 50, 7.0
CHECKPOINT = "sd_model_checkpoint"

#: Behind a model's name in that program: its file's ending, and the beginning of its digest.
_ENDING = re.compile(r"(\.(safetensors|ckpt|pt|gguf))?( \[[0-9a-f]+\])?$", re.IGNORECASE)


class TextToImage(msgspec.Struct):
    """The body of `txt2img`, as far as it is read. A field that is null is one that was not sent."""

    prompt: str | None = None
    negative_prompt: str | None = None
    seed: int | None = None
    steps: int | None = None
    cfg_scale: float | None = None
    width: int | None = None
    height: int | None = None
    batch_size: int | None = None
    n_iter: int | None = None
    sampler_name: str | None = None
    sampler_index: str | None = None
    scheduler: str | None = None
    override_settings: dict[str, Any] | None = None
    send_images: bool | None = None
    # Refused when they are switched on.
    enable_hr: bool | None = None
    restore_faces: bool | None = None
    tiling: bool | None = None
    subseed_strength: float | None = None
    script_name: str | None = None
    alwayson_scripts: dict[str, Any] | None = None
    refiner_checkpoint: str | None = None

    @property
    def checkpoint(self) -> str:
        """The model that is wanted for this once; empty if none is named."""
        found = (self.override_settings or {}).get(CHECKPOINT)
        if found is not None and not isinstance(found, str):
            raise Troubled("bad_value", f"{CHECKPOINT}: wanted a model's name", CHECKPOINT)
        return found or ""

    @property
    def sampler(self) -> Sampler:
        """The sampler that is wanted; raises `Troubled`."""
        return find(self.sampler_name or self.sampler_index or "", self.scheduler or "")

    @property
    def batch(self) -> int:
        """How many of the pictures that program would paint at once."""
        return _at_least_one("batch_size", self.batch_size)


def ask_of(body: TextToImage, model: str) -> ImageAsk:
    """What to ask for. model: by the name that a horde announces; empty for any. Raises `Troubled`."""
    _refuse_what_cannot_be_had(body)
    return ImageAsk(
        prompt=body.prompt or "",
        negative_prompt=body.negative_prompt or "",
        models=(model,) if model else (),
        width=SIDE if body.width is None else body.width,
        height=SIDE if body.height is None else body.height,
        steps=STEPS if body.steps is None else body.steps,
        guidance=GUIDANCE if body.cfg_scale is None else body.cfg_scale,
        seed=None if body.seed in {None, -1} else body.seed,
        sampler=body.sampler.ours,
        n=_count(body),
    )


def _count(body: TextToImage) -> int:
    # What is above that no horde takes, and each is given room here before a horde is asked.
    if (n := body.batch * _at_least_one("n_iter", body.n_iter)) > MAX_N:
        raise Troubled("bad_value", f"batch_size times n_iter: wanted {MAX_N} pictures or fewer in one call", "n_iter")
    return n


def _at_least_one(name: str, value: int | None) -> int:
    if value is not None and value < 1:
        raise Troubled("bad_value", f"{name} {value}: wanted 1 or more", name)
    return value or 1


def _refuse_what_cannot_be_had(body: TextToImage) -> None:
    wanted = {
        "enable_hr": "a second pass at a higher resolution",
        "restore_faces": "restored faces",
        "tiling": "a picture that can be tiled",
        "subseed_strength": "a variation of a seed",
        "refiner_checkpoint": "a refiner",
    }
    for field, what in wanted.items():
        if getattr(body, field):
            raise Troubled("unsupported", f"{field}: a horde does not make {what}; switch it off", field)
    if body.script_name:
        raise Troubled(
            "unsupported", f"Script '{body.script_name[:40]}' not found: a horde has no scripts", "script_name"
        )
    for name in body.alwayson_scripts or ():
        raise Troubled(
            "unsupported", f"always on script {name[:40]} not found: a horde has no extensions", "alwayson_scripts"
        )


def model_of(wanted: str, served: Sequence[str]) -> str:
    """The served model that a checkpoint's name means: with its file's ending and digest or without, in upper or lower
    case. What fits none comes back as it is, for the catalogue to say what is wrong with it."""
    if not wanted or wanted in served:
        return wanted
    bare = _ENDING.sub("", wanted)
    alike = [name for name in served if _ENDING.sub("", name).lower() == bare.lower()]
    return bare if bare in served else alike[0] if len(alike) == 1 else wanted
