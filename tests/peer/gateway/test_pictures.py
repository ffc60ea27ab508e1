"""Pictures are what a front-end asked for, whatever a worker sent."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from io import BytesIO

import pytest
from PIL import Image

from peer.engines.dry_run import png
from peer.gateway import pictures
from peer.gateway.pictures import JPEG, MAX_PIXELS, PNG, WEBP, CannotConvert, kind, to

KINDS = (PNG, JPEG, WEBP)


def painted(side: int = 16) -> bytes:
    return png(b"".join(bytes((x * 8, y * 8, 90)) for y in range(side) for x in range(side)), side, side)


def opened(content: bytes) -> Image.Image:
    return Image.open(BytesIO(content))


def header_of(width: int, height: int) -> bytes:
    """A PNG that says it is so large, and holds nothing of it."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


@pytest.mark.parametrize("source", KINDS)
@pytest.mark.parametrize("wanted", KINDS)
async def test_every_kind_is_made_of_every_other(source: str, wanted: str) -> None:
    original = painted()
    converted = await to(await to(original, source), wanted)

    assert kind(converted) == wanted
    assert opened(converted).size == (16, 16)
    red, green, blue = opened(converted).convert("RGB").getpixel((8, 8))  # type: ignore[misc]
    assert abs(red - 64) + abs(green - 64) + abs(blue - 90) < 40


async def test_a_picture_of_the_wanted_kind_stays_byte_for_byte_as_it_came() -> None:
    original = painted()

    assert await to(original, PNG) is original


async def test_transparency_stays_where_there_can_be_any() -> None:
    file = BytesIO()
    Image.new("RGBA", (16, 16), (200, 0, 0, 100)).save(file, "PNG")

    assert opened(await to(file.getvalue(), WEBP)).mode == "RGBA"
    assert opened(await to(file.getvalue(), JPEG)).mode == "RGB"


async def test_what_a_file_says_besides_its_picture_is_left_behind() -> None:
    file = BytesIO()
    exif = Image.Exif()
    exif[270] = "taken at home"
    Image.new("RGB", (16, 16)).save(file, "JPEG", exif=exif, comment=b"mine")

    plain = await to(file.getvalue(), PNG)

    assert b"home" not in plain
    assert b"mine" not in plain


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no picture at all",
        painted()[:60],
        painted()[:100] + bytes(100) + painted()[200:],
        b"RIFF\x10\0\0\0WEBPVP8 " + bytes(30),
        b"GIF89a" + bytes(40),
    ],
    ids=["empty", "text", "cut off", "broken", "hollow", "another kind"],
)
async def test_what_is_no_picture_is_refused_in_words(content: bytes) -> None:
    with pytest.raises(CannotConvert, match="cannot be read"):
        await to(content, JPEG)


@pytest.mark.parametrize(("width", "height"), [(4096, 4104), (12_000, 12_000), (60_000, 60_000)])
async def test_a_small_file_that_says_it_is_huge_is_not_decoded(width: int, height: int) -> None:
    assert width * height > MAX_PIXELS
    with pytest.raises(CannotConvert):
        await to(header_of(width, height), JPEG)


async def test_a_kind_that_nobody_writes_is_named() -> None:
    with pytest.raises(CannotConvert, match="image/tiff"):
        await to(painted(), "image/tiff")


def test_pillow_is_loaded_only_when_it_is_needed() -> None:
    program = (
        "import asyncio, sys\n"
        "from peer.gateway import pictures\n"
        f"content = {painted()!r}\n"
        "assert asyncio.run(pictures.to(content, 'image/png')) is content\n"
        "assert 'PIL' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


async def test_without_pillow_the_answer_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(CannotConvert, match=r"potluck\[gateway\]"):
        await pictures.to(painted(), WEBP)
