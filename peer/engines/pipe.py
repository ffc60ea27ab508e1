"""What a worker and its engine's process say to each other, over the process's two pipes.

Each message is a length (4 bytes, big-endian), one byte for its kind, and msgpack. Both ends come from the same
installation, so this is no protocol that others have to follow.
"""

from __future__ import annotations

from typing import Any

import msgspec

from peer.engines.base import ArtifactMade, Done, PreviewMade, StepsDone, Task, TextMade
from peer.engines.spec import EngineSpec
from protocol.messages import Offer

LENGTH_BYTES = 4
#: Room for the largest picture that can be asked for, uncompressed.
MAX_MESSAGE_BYTES = 256 * 1024 * 1024


class Load(msgspec.Struct, frozen=True):
    """To the engine, first of all: be this."""

    spec: EngineSpec


class Run(msgspec.Struct, frozen=True):
    """To the engine: make this. It answers with events, and at last with `Done`, `Failed` or `Dropped`."""

    task: Task


class Stop(msgspec.Struct, frozen=True):
    """To the engine: end within a step with what there is. Without a job it means nothing."""


class Drop(msgspec.Struct, frozen=True):
    """To the engine: end within a step with nothing. Without a job it means nothing."""


class Ready(msgspec.Struct, frozen=True):
    """From the engine: it is loaded and serves these; later, also within a job, that it serves these from now on.

    text: why it serves nothing, for whoever runs the worker.
    """

    offers: tuple[Offer, ...]
    text: str = ""


class Failed(msgspec.Struct, frozen=True):
    """From the engine: an `EngineError` ended the job, or the loading."""

    code: str
    text: str


class Dropped(msgspec.Struct, frozen=True):
    """From the engine: the job was dropped as told."""


ToEngine = Load | Run | Stop | Drop
FromEngine = Ready | StepsDone | PreviewMade | TextMade | ArtifactMade | Done | Failed | Dropped
Message = ToEngine | FromEngine

_KINDS: tuple[type[Message], ...] = (
    Load,
    Run,
    Stop,
    Drop,
    Ready,
    StepsDone,
    PreviewMade,
    TextMade,
    ArtifactMade,
    Done,
    Failed,
    Dropped,
)
_NUMBERS = {kind: number for number, kind in enumerate(_KINDS)}
_DECODERS = [msgspec.msgpack.Decoder[Any](kind) for kind in _KINDS]


class BadPipe(Exception):
    """What came through the pipe is no message: somebody else wrote to it."""


def pack(message: Message) -> bytes:
    """The message behind its length and kind."""
    body = msgspec.msgpack.encode(message)
    return (len(body) + 1).to_bytes(LENGTH_BYTES, "big") + bytes((_NUMBERS[type(message)],)) + body


def length_of(head: bytes) -> int:
    """How many bytes follow these first four; raises `BadPipe`."""
    length = int.from_bytes(head, "big")
    if not 1 <= length <= MAX_MESSAGE_BYTES:
        raise BadPipe(f"a message of {length} bytes: wanted 1 to {MAX_MESSAGE_BYTES}")
    return length


def unpack(raw: bytes) -> Message:
    """The message in what follows the length; raises `BadPipe`."""
    if raw[0] >= len(_KINDS):
        raise BadPipe(f"a message of kind {raw[0]}: wanted less than {len(_KINDS)}")
    try:
        message: Message = _DECODERS[raw[0]].decode(memoryview(raw)[1:])
    except msgspec.DecodeError as error:
        raise BadPipe(f"{_KINDS[raw[0]].__name__}: {error}") from error
    return message
