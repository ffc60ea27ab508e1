"""How a picture was made, in the words by which AUTOMATIC1111's users find it again: in the file, and in the answer."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from peer.gateway.asks import ImageAsk, Result
from peer.gateway.pictures import CannotConvert

KEY = "parameters"
VERSION = "potluck"

_MARK = b"\x89PNG\r\n\x1a\n"
#: Chunks that do not change how a picture looks; whatever a worker wrote there stays behind.
_WORDS = frozenset({b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"tIME"})


def infotext(ask: ImageAsk, sampler: str, result: Result) -> str:
    """What made this picture. sampler: its name in menus."""
    about = {
        "Steps": result.used if result.finish == "cancelled" else ask.steps,
        "Sampler": sampler,
        "CFG scale": _plain(ask.guidance),
        "Seed": result.seed,
        "Size": f"{ask.width}x{ask.height}",
        "Model": result.model,
        "Version": VERSION,
    }
    lines = [ask.prompt]
    if ask.negative_prompt:
        lines.append(f"Negative prompt: {ask.negative_prompt}")
    lines.append(", ".join(f"{name}: {_quoted(str(value))}" for name, value in about.items()))
    return "\n".join(lines)


def info(ask: ImageAsk, sampler: str, batch: int, made: Sequence[Result], now: int, comments: str = "") -> str:
    """The answer's `info`: JSON in a text. batch: how many pictures that program would paint at once. comments: why
    some did not come."""
    seeds = [result.seed for result in made]
    first = made[0] if made else None
    about: dict[str, Any] = {
        "prompt": ask.prompt,
        "all_prompts": [ask.prompt] * len(made),
        "negative_prompt": ask.negative_prompt,
        "all_negative_prompts": [ask.negative_prompt] * len(made),
        "seed": first.seed if first else -1 if ask.seed is None else ask.seed,
        "all_seeds": seeds,
        "subseed": -1,
        "all_subseeds": [-1] * len(made),
        "subseed_strength": 0,
        "width": ask.width,
        "height": ask.height,
        "sampler_name": sampler,
        "cfg_scale": ask.guidance,
        "steps": ask.steps,
        "batch_size": batch,
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": first.model if first else "",
        "sd_model_hash": "",
        "sd_vae_name": None,
        "sd_vae_hash": None,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": None,
        "extra_generation_params": {},
        "index_of_first_image": 0,
        "infotexts": [infotext(ask, sampler, result) for result in made],
        "styles": [],
        "job_timestamp": timestamp(now),
        "clip_skip": 1,
        "is_using_inpainting_conditioning": False,
        "version": VERSION,
    }
    return json.dumps(about | ({"comments": comments} if comments else {}), ensure_ascii=False)


def timestamp(now: int) -> str:
    """When, in this machine's time, as that program writes it."""
    return datetime.fromtimestamp(now / 1000, UTC).astimezone().strftime("%Y%m%d%H%M%S")


def with_text(png: bytes, text: str) -> bytes:
    """The PNG file with `text` as its parameters, in place of whatever its worker wrote besides the picture. Pixels
    stay as they are. Raises `CannotConvert` if it is no whole PNG file."""
    header, *others = _chunks(png)
    kept = (chunk for chunk in others if chunk[4:8] not in _WORDS)
    return b"".join((_MARK, header, _text_chunk(text), *kept))


def _chunks(png: bytes) -> Iterator[bytes]:
    at = len(_MARK)
    if not png.startswith(_MARK) or png[at + 4 : at + 8] != b"IHDR":
        raise CannotConvert("what came is no PNG file")
    name = b""
    while name != b"IEND":
        size = int.from_bytes(png[at : at + 4], "big") + 12
        name = png[at + 4 : at + 8]
        if at + size > len(png):
            raise CannotConvert("the PNG file that came is cut off")
        yield png[at : at + size]
        at += size


def _text_chunk(text: str) -> bytes:
    # The older chunk holds Latin-1 only, and is what the simplest readers know.
    try:
        name, body = b"tEXt", KEY.encode() + b"\0" + text.encode("latin-1")
    except UnicodeEncodeError:
        name, body = b"iTXt", KEY.encode() + b"\0\0\0\0\0" + text.encode("utf-8", "replace")
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _plain(number: float) -> str:
    return f"{number:g}"


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if any(mark in value for mark in ',:\n"') else value
