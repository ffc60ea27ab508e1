"""What an attempt made, on disk from the first byte to the settlement: one folder for each attempt.

`frames` holds the numbered frames of the stream, one after the other, as they are sent; `meta`, written when the
result is whole, the lease and the receipt. The private part is never written. After a crash a broken tail of `frames`
is cut; a spool without a receipt is of no use to anybody then, since nothing was signed.

Nothing here waits for a reader: the engine appends, and any number of readers follow at their own pace.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from array import array
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import NamedTuple

from protocol import codec
from protocol.codec import Body
from protocol.digests import Artifact, output_digest
from protocol.documents import Lease, Receipt, open_document, parse_document
from protocol.envelope import Envelope
from protocol.errors import Refusal
from protocol.frames import (
    CHUNK_BYTES,
    LENGTH_BYTES,
    MAX_FRAME_BYTES,
    Chunk,
    Final,
    Numbered,
    Start,
    Text,
    decode_frame,
    encode_frame,
)
from protocol.work import ImageWork, Work

TEXT_TYPE = "text/plain; charset=utf-8"

_FRAMES = "frames"
_META = "meta"
_NEW_META = "meta.new"

#: Room beyond what is counted by pixels or tokens: frame headers, file headers, stop texts.
_ROOM_BYTES = 1024 * 1024
_BYTES_PER_PIXEL = 8
_BYTES_PER_TOKEN = 256


class Attempt(NamedTuple):
    """One lease of one job: what everything at a worker is filed under."""

    job: bytes
    number: int

    def __str__(self) -> str:
        return f"{self.job.hex()}-{self.number}"


class SpoolError(Exception):
    """A spool that cannot be used, or is full; the text says why."""


class Meta(Body, frozen=True, kw_only=True):
    """What lies beside the frames of a whole result: lease and receipt (their envelopes), what else the final frame
    says, and how many frames come before it."""

    lease: bytes
    receipt: bytes
    salt: bytes
    finish: str
    frames: int


def limit_for(work: Work) -> int:
    """The most bytes that the result of such work may take."""
    if isinstance(work, ImageWork):
        return work.width * work.height * _BYTES_PER_PIXEL + _ROOM_BYTES
    return work.max_tokens * _BYTES_PER_TOKEN + _ROOM_BYTES


class Spool:
    """One attempt's frames. Made by `create` or `reopen`; whoever made it closes or removes it."""

    def __init__(self, folder: Path, lease: Envelope, limit: int) -> None:
        self.folder = folder
        self.lease = lease
        self.receipt: Envelope | None = None
        body = open_document(lease, Lease)
        self.attempt = Attempt(body.job, body.attempt)
        self._limit = limit
        #: Where each frame begins, and where the last one ends.
        self._offsets = array("Q", [0])
        self._writer: FileIO | None = None
        self._artifacts: list[Artifact] = []
        self._text: _Sum | None = None

    @classmethod
    def create(cls, root: Path, lease: Envelope, prefix: str = "") -> Spool:
        """A new, empty spool below `root`; one that was left there for this attempt is removed. `prefix`: text of an
        earlier attempt that belongs to the result."""
        body = open_document(lease, Lease)
        folder = root / str(Attempt(body.job, body.attempt))
        shutil.rmtree(folder, ignore_errors=True)
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
        spool = cls(folder, lease, limit_for(body.public.work))
        spool._writer = FileIO(folder / _FRAMES, "x")
        if not isinstance(body.public.work, ImageWork):
            spool._text = _Sum()
            spool._text.add(prefix.encode())
        return spool

    @classmethod
    def reopen(cls, folder: Path) -> Spool:
        """The whole spool in `folder`; raises `SpoolError` for one without receipt or with frames missing."""
        try:
            meta = codec.decode((folder / _META).read_bytes(), Meta)
            spool = cls(folder, parse_document(meta.lease, Lease), limit=0)
            spool._cut(meta.frames)
            spool._writer = FileIO(folder / _FRAMES, "a")
            spool.finish(parse_document(meta.receipt, Receipt), meta.salt, meta.finish)
        except (OSError, Refusal) as error:
            raise SpoolError(f"{folder}: {error}") from error
        return spool

    @property
    def frames(self) -> int:
        """How many numbered frames there are; the next one's number."""
        return len(self._offsets) - 1

    @property
    def is_whole(self) -> bool:
        """Whether the final frame, with the receipt, is there."""
        return self.receipt is not None

    def add_text(self, text: str) -> None:
        """The next piece of the answer; raises `SpoolError` beyond what the request allows."""
        if self._text is None:
            raise SpoolError("a piece of text for a job of another kind")
        if text:
            self._append_bounded(Text(self.frames, text))
            self._text.add(text.encode())

    def add_artifact(self, media_type: str, content: bytes) -> None:
        """One file of the result, whole; raises `SpoolError` beyond what the request allows."""
        if self._text is not None:
            raise SpoolError(f"a {media_type} for a job whose result is its text")
        self._append_bounded(Start(self.frames, media_type, len(content)))
        for start in range(0, len(content), CHUNK_BYTES):
            self._append_bounded(Chunk(self.frames, content[start : start + CHUNK_BYTES]))
        self._artifacts.append(Artifact.of(media_type, content))

    def output_digest(self, salt: bytes) -> bytes:
        """The salted digest of all that was added; a text is one artifact, with the prefix at its beginning."""
        return output_digest(salt, [self._text.artifact()] if self._text else self._artifacts)

    def sync(self) -> None:
        """Return when all frames so far are on disk. Blocks; may run in a thread while nobody closes or removes."""
        if self._writer is not None:
            os.fsync(self._writer.fileno())

    def keep_receipt(self, receipt: Envelope, salt: bytes, finish: str) -> None:
        """Put the receipt beside the frames, durably. Blocks like `sync`; readers see it after `finish`."""
        meta = Meta(lease=self.lease.raw, receipt=receipt.raw, salt=salt, finish=finish, frames=self.frames)
        _write_meta(self.folder, meta)

    def finish(self, receipt: Envelope, salt: bytes, finish: str) -> None:
        """Add the final frame, once all before it and the receipt are on disk; it can be made again from `meta`."""
        self._append(Final(self.frames, salt, finish, receipt.raw))
        self.receipt = receipt
        self.close()

    def read(self, number: int, most: int) -> tuple[bytes, int]:
        """Whole frames from `number` on, as many as fit into `most` bytes but at least one, and the number after
        them; nothing where nothing is yet."""
        if number >= self.frames:
            return b"", number
        start = self._offsets[number]
        after = number + 1
        while after < self.frames and self._offsets[after + 1] - start <= most:
            after += 1
        # Opened for each read: no handle lies around when the folder is removed, which Windows would refuse.
        with FileIO(self.folder / _FRAMES, "r") as file:
            file.seek(start)
            return _read_exactly(file, self._offsets[after] - start), after

    def close(self) -> None:
        """Let go of the file; what is there can still be read."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def remove(self) -> None:
        """Delete it all."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _cut(self, frames: int) -> None:
        """Take the first frames of the file as ours and cut the rest off."""
        for end in _whole_frames(self.folder / _FRAMES):
            self._offsets.append(end)
        if self.frames < frames:
            raise SpoolError(f"{self.folder}: {self.frames} of {frames} frames are left")
        del self._offsets[frames + 1 :]
        os.truncate(self.folder / _FRAMES, self._offsets[-1])

    def _append_bounded(self, frame: Numbered) -> None:
        raw = encode_frame(frame)
        if self._offsets[-1] + len(raw) > self._limit:
            raise SpoolError(f"the result takes more than the {self._limit} bytes that such a request allows")
        self._write(raw)

    def _append(self, frame: Numbered) -> None:
        self._write(encode_frame(frame))

    def _write(self, raw: bytes) -> None:
        if self._writer is None:
            raise SpoolError("nothing can be added to a spool that is closed")
        left = memoryview(raw)
        while left:
            left = left[self._writer.write(left) :]
        self._offsets.append(self._offsets[-1] + len(raw))


class _Sum:
    """Size and SHA-256 of a text as it grows."""

    def __init__(self) -> None:
        self._size = 0
        self._sha256 = hashlib.sha256()

    def add(self, content: bytes) -> None:
        self._size += len(content)
        self._sha256.update(content)

    def artifact(self) -> Artifact:
        return Artifact(TEXT_TYPE, self._size, self._sha256.digest())


def reopen_all(root: Path) -> list[Spool]:
    """Every whole spool below `root`; all else there is removed."""
    spools = []
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        try:
            spools.append(Spool.reopen(folder))
        except SpoolError:
            shutil.rmtree(folder, ignore_errors=True)
    return spools


def _whole_frames(path: Path) -> Iterator[int]:
    """Where each frame ends, as far as they are whole and numbered one after the other."""
    number = end = 0
    with contextlib.suppress(OSError, Refusal), path.open("rb") as file:
        while len(head := file.read(LENGTH_BYTES)) == LENGTH_BYTES:
            length = int.from_bytes(head, "big")
            raw = file.read(min(length, MAX_FRAME_BYTES))
            if len(raw) < length or not _is_numbered(raw, number):
                return
            number += 1
            end += LENGTH_BYTES + length
            yield end


def _is_numbered(raw: bytes, number: int) -> bool:
    frame = decode_frame(raw)
    return isinstance(frame, Numbered) and frame.number == number


def _write_meta(folder: Path, meta: Meta) -> None:
    new = folder / _NEW_META
    with new.open("wb") as file:
        file.write(codec.encode(meta))
        file.flush()
        os.fsync(file.fileno())
    new.replace(folder / _META)
    _sync_folder(folder)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # elsewhere a folder cannot be opened, and the rename is as durable as it gets
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read_exactly(file: FileIO, size: int) -> bytes:
    parts: list[bytes] = []
    while size:
        part = file.read(size)
        if not part:
            raise SpoolError(f"{file.name!r} is shorter than it was")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)  # of a single one it is that very one, not a copy
