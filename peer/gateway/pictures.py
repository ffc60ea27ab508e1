"""Pictures in the form that a front-end wants.

A horde's pictures come from strangers, mostly as PNG. Pillow decodes them, in a thread, and is loaded when the first
picture has to be another kind than it came as.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from types import MappingProxyType
from typing import Any

from peer.events import PotluckError

PNG, JPEG, WEBP = "image/png", "image/jpeg", "image/webp"
#: What a picture begins with, by its kind; WebP's name stands behind eight bytes.
_MARKS = MappingProxyType({PNG: b"\x89PNG\r\n\x1a\n", JPEG: b"\xff\xd8\xff", WEBP: b"RIFF"})
#: Pillow's name of each kind, and how a file of it is written. Lossy ones at what people do not tell from the original.
_WRITTEN: MappingProxyType[str, tuple[str, dict[str, Any]]] = MappingProxyType(
    {PNG: ("PNG", {}), JPEG: ("JPEG", {"quality": 95}), WEBP: ("WEBP", {"quality": 95})}
)
#: As large as the protocol lets anybody ask for. A small file can say that it is far larger.
MAX_PIXELS = 4096 * 4096
#: Threads of their own, and few: what is decoded is large, and other work in threads should not wait behind it.
_THREADS = ThreadPoolExecutor(2, "pictures")


class CannotConvert(PotluckError):
    """A picture came that cannot be made into the kind that was asked for; the text says why."""


def kind(content: bytes) -> str:
    """The media type of these bytes by how they begin; empty if they are no picture of the three kinds."""
    for media_type, mark in _MARKS.items():
        if content.startswith(mark) and (media_type != WEBP or content[8:12] == b"WEBP"):
            return media_type
    return ""


async def to(content: bytes, media_type: str) -> bytes:
    """The picture as a file of this media type (PNG, JPEG or WebP): the same bytes if it is one already.

    Raises `CannotConvert`.
    """
    if media_type not in _WRITTEN:
        raise CannotConvert(f"no picture can be written as {media_type!r}: wanted {', '.join(_WRITTEN)}")
    if kind(content) == media_type:
        return content
    return await asyncio.get_running_loop().run_in_executor(_THREADS, _converted, content, media_type)


def _converted(content: bytes, media_type: str) -> bytes:
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise CannotConvert(
            f"a picture cannot be written as {media_type} without Pillow: pip install 'potluck[gateway]'"
        ) from error
    name, options = _WRITTEN[media_type]
    written = BytesIO()
    try:
        with Image.open(BytesIO(content), formats=[name for name, _ in _WRITTEN.values()]) as image:
            if image.width * image.height > MAX_PIXELS:
                raise CannotConvert(f"a picture of {image.width}x{image.height}: at most {MAX_PIXELS} pixels")
            # A file's own chunks stay behind: what a worker's file says besides the picture is nobody's business.
            plain = image.convert(_mode(image.mode, media_type))
            plain.info = {}
            plain.save(written, name, **options)
    except CannotConvert:
        raise
    # Hostile files end in whatever a decoder raises: SyntaxError, struct.error, its warnings turned to errors.
    except Exception as error:
        raise CannotConvert(f"the picture that came cannot be read: {type(error).__name__}") from error
    return written.getvalue()


def _mode(found: str, media_type: str) -> str:
    """The pixels' form: transparency is kept where a file of that kind has any."""
    transparent = found in {"RGBA", "LA", "PA"} and media_type != JPEG
    return "RGBA" if transparent else "RGB"
