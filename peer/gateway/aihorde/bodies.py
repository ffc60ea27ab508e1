"""What clients of AI Horde send, as far as a horde can do something with it, or must say that it cannot.

Everything may be left out or null, and unknown fields are passed over: clients send far more than is documented.
"""

from __future__ import annotations

from typing import Any

import msgspec

#: Some clients have sliders, and send whole numbers with a decimal point.
Number = int | float | None


class ImageParams(msgspec.Struct, frozen=True):
    """How pictures are to be drawn."""

    n: Number = None
    width: Number = None
    height: Number = None
    steps: Number = None
    cfg_scale: Number = None
    seed: int | float | str | None = None
    sampler_name: str | None = None
    karras: bool | None = None
    # What a horde cannot do (yet).
    tiling: bool | None = None
    transparent: bool | None = None
    hires_fix: bool | None = None
    clip_skip: Number = None
    control_type: str | None = None
    workflow: str | None = None
    post_processing: list[Any] | None = None
    loras: list[Any] | None = None
    tis: list[Any] | None = None


class TextParams(msgspec.Struct, frozen=True):
    """How texts are to be written."""

    n: Number = None
    max_length: Number = None
    max_context_length: Number = None
    temperature: Number = None
    top_p: Number = None
    top_k: Number = None
    min_p: Number = None
    rep_pen: Number = None
    stop_sequence: list[str] | None = None
    seed: int | float | str | None = None
    # Ways to draw the next token, or to trim the answer, that a horde has not.
    top_a: Number = None
    tfs: Number = None
    typical: Number = None
    smoothing_factor: Number = None
    dynatemp_range: Number = None
    frmttriminc: bool | None = None
    frmtrmblln: bool | None = None
    frmtrmspch: bool | None = None
    frmtadsnsp: bool | None = None
    singleline: bool | None = None


class _Input(msgspec.Struct, frozen=True):
    """What both kinds of requests have."""

    prompt: str | None = None
    models: list[str] | None = None
    workers: list[str] | None = None
    worker_blacklist: bool | list[str] | None = None
    webhook: str | None = None
    shared: bool | None = None
    extra_source_images: list[Any] | None = None
    dry_run: bool | None = None


class ImageInput(_Input, frozen=True):
    """`POST /generate/async`."""

    params: ImageParams | None = None
    r2: bool | None = None
    source_image: str | None = None
    source_mask: str | None = None


class TextInput(_Input, frozen=True):
    """`POST /generate/text/async`."""

    params: TextParams | None = None


class TransferInput(msgspec.Struct, frozen=True):
    """`POST /kudos/transfer`."""

    username: str | None = None
    amount: Number = None
