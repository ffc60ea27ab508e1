"""The direct stream: what a worker sends to a requester over HTTPS, frame by frame.

Each frame is a length (4 bytes, big-endian) and a msgpack array that begins with its kind. Numbered frames are the
result and come again from any number on; the others (progress, previews, signs of life) exist only in their moment.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from protocol import codec
from protocol.errors import Malformed, TooLarge

LENGTH_BYTES = 4
MAX_FRAME_BYTES = 1024 * 1024
CHUNK_BYTES = 256 * 1024


class Text(msgspec.Struct, frozen=True, array_like=True, tag="text"):
    """A piece of the answer, as soon as it is made."""

    number: int
    text: str


class Start(msgspec.Struct, frozen=True, array_like=True, tag="start"):
    """An artifact begins: its media type and size in bytes. Its chunks follow."""

    number: int
    media_type: str
    size: int


class Chunk(msgspec.Struct, frozen=True, array_like=True, tag="chunk"):
    """Bytes of the artifact that began last."""

    number: int
    content: bytes


class Final(msgspec.Struct, frozen=True, array_like=True, tag="final"):
    """The end. salt: of the output digest. finish: `stop`, `length` or `cancelled`. receipt: its envelope."""

    number: int
    salt: bytes
    finish: str
    receipt: bytes


class Progressed(msgspec.Struct, frozen=True, array_like=True, tag="progress"):
    """Steps or tokens done, of how many. Not numbered: the latest counts."""

    done: int
    total: int


class Preview(msgspec.Struct, frozen=True, array_like=True, tag="preview"):
    """A small JPEG of the picture so far. Not numbered: the latest counts."""

    jpeg: bytes


class Failed(msgspec.Struct, frozen=True, array_like=True, tag="failed"):
    """The attempt ended without a result. Not numbered."""

    code: str
    text: str


class Alive(msgspec.Struct, frozen=True, array_like=True, tag="alive"):
    """Nothing new; the worker is there. Not numbered."""


Numbered = Text | Start | Chunk | Final
Frame = Text | Start | Chunk | Final | Progressed | Preview | Failed | Alive


def encode_frame(frame: Frame) -> bytes:
    """The frame behind its length."""
    raw = codec.encode(frame)
    if len(raw) > MAX_FRAME_BYTES:
        raise TooLarge(f"a frame of {len(raw)} bytes: at most {MAX_FRAME_BYTES}")
    return len(raw).to_bytes(LENGTH_BYTES, "big") + raw


_FRAME: msgspec.msgpack.Decoder[Frame] = msgspec.msgpack.Decoder(Frame)


@dataclass
class FrameReader:
    """Bytes in, frames out; holds at most one frame. Raises `TooLarge` or `Malformed`, after which it is of no use."""

    _buffer: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that `data` completes."""
        buffer = self._buffer
        if buffer:
            buffer += data
        used = 0
        try:
            # Frames that came whole are read where they are; only what is left of one is ever put aside.
            with memoryview(buffer or data) as view:
                while len(view) - used >= LENGTH_BYTES:
                    length = int.from_bytes(view[used : used + LENGTH_BYTES], "big")
                    if length > MAX_FRAME_BYTES:
                        raise TooLarge(f"a frame of {length} bytes: at most {MAX_FRAME_BYTES}")
                    end = used + LENGTH_BYTES + length
                    if len(view) < end:
                        break
                    with view[used + LENGTH_BYTES : end] as raw:
                        frame = decode_frame(raw)
                    used = end
                    yield frame
        finally:
            if buffer:
                del buffer[:used]
            else:
                buffer += memoryview(data)[used:]


#: How a chunk begins: an array of three, and its kind. With a number and bytes of the right types behind that, nothing
#: is left that could break the strict form: its content need not be decoded a second time to see whether it does.
_CHUNK = codec.encode(Chunk(0, b""))[:-3]  # without the number 0 and the header of no bytes


def decode_frame(raw: bytes | memoryview) -> Frame:
    """The frame in `raw` (without its length); raises `Malformed`."""
    is_chunk = raw[: len(_CHUNK)] == _CHUNK
    if not is_chunk:
        codec.check_strict(bytes(raw))
    try:
        frame = _FRAME.decode(raw)
    except msgspec.DecodeError as error:
        raise Malformed(f"not a frame: {error}") from error
    if is_chunk and isinstance(frame, Chunk) and frame.number > codec.MAX_INTEGER:
        raise Malformed(f"not a frame: an integer above {codec.MAX_INTEGER}")
    return frame


class OpenBody(msgspec.Struct, frozen=True, array_like=True):
    """What a requester posts to open a stream: the opening's envelope; then, the first time, the private part and the
    text already shown by an earlier attempt."""

    opening: bytes
    private: bytes = b""
    prefix: str = ""
