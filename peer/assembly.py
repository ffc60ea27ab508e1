"""The numbered frames of one attempt, put together, bounded by what was asked for, and held against the receipt."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

from peer.hashing import FileDigest
from protocol import frames
from protocol.digests import SALT_BYTES, Artifact, output_digest
from protocol.documents import Lease, Receipt, open_document, parse_document
from protocol.envelope import check_document_context
from protocol.errors import Refusal
from protocol.work import ImageWork, TextWork, Work

TEXT_TYPE = "text/plain; charset=utf-8"
PICTURE_TYPES = frozenset({"image/png", "image/webp", "image/jpeg"})
MAX_PICTURES = 1
MAX_PREVIEW_BYTES = 64 * 1024

#: A picture file is not larger than its pixels without compression, at 16 bits in four channels, and this much more.
BYTES_PER_PIXEL = 8
PICTURE_OVERHEAD = 64 * 1024
#: Tokens longer than this are in no vocabulary.
BYTES_PER_TOKEN = 1024


class Misbehaved(Exception):
    """The worker's stream breaks the standard; the text says where."""


@dataclass(frozen=True)
class Fault:
    """What a complete result lacks. keeps_receipt: the receipt itself is true, and part of the denial."""

    reason: str
    text: str
    keeps_receipt: bool


@dataclass(frozen=True)
class Complete:
    """All that came of one attempt. files: media type and content of each file; of a text none, its pieces were the
    result. receipt: its envelope's bytes."""

    artifacts: tuple[Artifact, ...]
    files: tuple[tuple[str, bytes], ...]
    salt: bytes
    finish: str
    receipt: bytes

    @property
    def output_digest(self) -> bytes:
        """The digest of what came."""
        return output_digest(self.salt, self.artifacts)

    @property
    def opened(self) -> Receipt:
        """The receipt, typed; only after `fault` found none."""
        return open_document(parse_document(self.receipt, Receipt), Receipt)

    def fault(self, lease: Lease, root: bytes, *, cancelled: bool) -> Fault | None:
        """Why this is to be denied; None if it is what the lease's worker signed for and the lease allows."""
        try:
            envelope = parse_document(self.receipt, Receipt)
            check_document_context(envelope, root)
            envelope.verify()
            receipt = open_document(envelope, Receipt)
        except Refusal as error:
            return Fault("bad_receipt", f"the worker's receipt is not valid: {error}", keeps_receipt=False)
        if envelope.key != lease.worker:
            return Fault("bad_receipt", "the receipt is signed by another key than the worker's", keeps_receipt=False)
        if (receipt.job, receipt.attempt) != (lease.job, lease.attempt):
            return Fault("bad_receipt", "the receipt is for another job or attempt", keeps_receipt=False)
        if receipt.output_digest != self.output_digest:
            text = "what came is not what the worker signed for: the digests differ"
            return Fault("digest_mismatch", text, keeps_receipt=True)
        if receipt.used > largest_use(lease.public.work):
            text = f"the receipt claims {receipt.used} steps or tokens: more than was asked for"
            return Fault("over_lease", text, keeps_receipt=True)
        if not cancelled and (receipt.partial or not self.artifacts):
            return Fault("partial", "a part only, of a job that was not cancelled", keeps_receipt=True)
        return None


class Assembly:
    """What came of one attempt so far. prefix: the text of earlier attempts that this one goes on from."""

    def __init__(self, lease: Lease, root: bytes, prefix: str = "") -> None:
        self.after = -1
        self._work = lease.public.work
        self._text = [prefix] if prefix else []
        self._text_bytes = len(prefix.encode())
        self._files: list[tuple[str, bytes]] = []
        self._artifacts: list[Artifact] = []
        self._start: frames.Start | None = None
        self._content = BytesIO()
        self._digest = FileDigest()

    @property
    def begun(self) -> bool:
        """Whether anything of the result has come."""
        return self.after >= 0

    def take(self, frame: frames.Frame) -> Complete | None:
        """Add one frame; the whole after the last one. Raises `Misbehaved`, and is then as if it had not come."""
        match frame:
            case frames.Text() | frames.Start() | frames.Chunk() | frames.Final():
                if frame.number != self.after + 1:
                    raise Misbehaved(f"frame number {frame.number} where {self.after + 1} is next")
                complete = self._take_numbered(frame)
                self.after = frame.number
                return complete
            case frames.Preview():
                if not isinstance(self._work, ImageWork) or len(frame.jpeg) > MAX_PREVIEW_BYTES:
                    raise Misbehaved(f"a preview of {len(frame.jpeg)} bytes: at most {MAX_PREVIEW_BYTES}, of pictures")
                return None
            case frames.Progressed() | frames.Alive() | frames.Failed():
                return None

    def _take_numbered(self, frame: frames.Numbered) -> Complete | None:
        match frame:
            case frames.Text():
                self._take_text(frame.text)
            case frames.Start():
                self._take_start(frame)
            case frames.Chunk():
                self._take_chunk(frame.content)
            case frames.Final():
                return self._take_final(frame)
        return None

    def _take_text(self, text: str) -> None:
        if not isinstance(self._work, TextWork):
            raise Misbehaved("text in the stream of a picture")
        most = self._work.max_tokens * BYTES_PER_TOKEN
        size = self._text_bytes + len(text.encode())
        if size > most:
            raise Misbehaved(f"more than {most} bytes of text for {self._work.max_tokens} tokens")
        self._text.append(text)
        self._text_bytes = size

    def _take_start(self, start: frames.Start) -> None:
        if not isinstance(self._work, ImageWork):
            raise Misbehaved("a file in the stream of a text")
        if self._start is not None:
            raise Misbehaved("a file that begins inside another one")
        if len(self._files) >= MAX_PICTURES:
            raise Misbehaved(f"more than {MAX_PICTURES} picture for one job")
        if start.media_type not in PICTURE_TYPES:
            raise Misbehaved(f"a file of type {start.media_type[:60]!r}: wanted {', '.join(sorted(PICTURE_TYPES))}")
        most = self._work.width * self._work.height * BYTES_PER_PIXEL + PICTURE_OVERHEAD
        if not 0 < start.size <= most:
            raise Misbehaved(f"a picture of {start.size} bytes: at most {most} for its measures")
        self._start = start
        self._content = BytesIO()
        self._digest = FileDigest()

    def _take_chunk(self, content: bytes) -> None:
        if self._start is None:
            raise Misbehaved("a piece of a file that has not begun")
        if not content or self._content.tell() + len(content) > self._start.size:
            raise Misbehaved(f"an empty piece, or one beyond the {self._start.size} bytes that were announced")
        self._content.write(content)
        self._digest.add(content)
        if self._content.tell() == self._start.size:
            self._files.append((self._start.media_type, self._content.getvalue()))
            self._artifacts.append(Artifact(self._start.media_type, self._start.size, self._digest.digest()))
            self._start = None

    def _take_final(self, final: frames.Final) -> Complete:
        if self._start is not None:
            raise Misbehaved(f"the end after {self._content.tell()} of {self._start.size} bytes")
        if len(final.salt) != SALT_BYTES:
            raise Misbehaved(f"a salt of {len(final.salt)} bytes: wanted {SALT_BYTES}")
        artifacts = self._artifacts
        if isinstance(self._work, TextWork):
            artifacts = [Artifact.of(TEXT_TYPE, "".join(self._text).encode())]
        return Complete(tuple(artifacts), tuple(self._files), final.salt, final.finish[:40], final.receipt)


def largest_use(work: Work) -> int:
    """Steps or tokens that a receipt for this work may claim at most."""
    return work.steps if isinstance(work, ImageWork) else work.max_tokens
