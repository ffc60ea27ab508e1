"""A settlement that somebody kept: the witness against a ledger whose tail was cut or rewritten."""

from __future__ import annotations

import base64
import binascii
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from protocol import documents
from protocol.documents import Checkpoint, Settlement
from protocol.envelope import Envelope, check_document_context
from protocol.errors import Refusal
from protocol.keys import show_key
from tracker.audit.papers import Horde
from tracker.audit.report import Findings


class BadHead(Exception):
    """A file in which no settlement could be found; the text says what was wanted."""


@dataclass(frozen=True)
class Head:
    """The settlement in a file, and the checkpoint in it. Nothing of it has been checked."""

    envelope: Envelope
    settlement: Settlement
    checkpoint_envelope: Envelope
    checkpoint: Checkpoint


def read_head(path: Path) -> Head:
    """The settlement in a file: its envelope's bytes, the same in hexadecimal or base64, or the JSON in which a peer
    keeps what shows where a result came from; raises `BadHead`."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadHead(f"{path}: cannot be read: {error.strerror}") from error
    for raw in _readings(content):
        try:
            envelope = documents.parse_document(raw, Settlement)
            settlement = documents.open_document(envelope, Settlement)
            inner = documents.parse_document(settlement.checkpoint, Checkpoint)
            return Head(envelope, settlement, inner, documents.open_document(inner, Checkpoint))
        except Refusal:
            continue
    wanted = "its envelope as bytes, in hexadecimal or in base64, or the JSON file in which a peer keeps it"
    raise BadHead(f"{path}: no settlement: wanted {wanted}")


def check_head(head: Head, horde: Horde, findings: Findings) -> None:
    """Whether the horde signed what was kept."""
    for envelope in (head.envelope, head.checkpoint_envelope):
        try:
            check_document_context(envelope, horde.root)
            envelope.verify()
        except Refusal as refusal:
            findings.add(f"the kept {envelope.kind}", refusal, f"one of horde {show_key(horde.root)}")
        if envelope.key not in horde.keys:
            findings.expect(f"signer of the kept {envelope.kind}", envelope.key, horde.serving)


def compare_head(
    head: Head, horde: Horde, size: int, leaf: bytes | None, root_then: bytes | None, findings: Findings
) -> None:
    """Whether the ledger of `size` entries still contains what was kept, but for what a restore has cut openly.

    leaf: hash of the entry that the settlement names; root_then: the tree's root at the size of its checkpoint.
    """
    said = head.settlement
    if horde.is_cut(head.envelope.key, said.entry):
        pass  # the root has signed for that
    elif leaf is None:
        findings.add(
            "the ledger's tail was cut: a settlement that was kept names an entry that is gone",
            f"{size} entries",
            f"at least {said.entry + 1}",
            said.entry,
        )
    else:
        findings.expect("the leaf that the kept settlement names", leaf, said.leaf, said.entry)
    if head.checkpoint.size and horde.is_cut(head.checkpoint_envelope.key, head.checkpoint.size - 1):
        pass
    elif root_then is None:
        findings.add(
            "the ledger's tail was cut: a checkpoint that was kept covers more", f"{size} entries", head.checkpoint.size
        )
    else:
        findings.expect(
            f"the tree's root at the {head.checkpoint.size} entries of the kept checkpoint",
            root_then,
            head.checkpoint.root,
        )


class _Kept(msgspec.Struct, frozen=True):
    """What of a peer's file matters here; bytes are base64 in JSON."""

    settlement: bytes


def _readings(content: bytes) -> list[bytes]:
    """What the bytes may mean, most direct first."""
    readings = [content]
    with suppress(msgspec.DecodeError):
        readings.append(msgspec.json.decode(content, type=_Kept).settlement)
    text = b"".join(content.split())
    for decode in (bytes.fromhex, _from_base64):
        try:
            readings.append(decode(text.decode("ascii")))
        except (ValueError, binascii.Error):
            continue
    return readings


def _from_base64(text: str) -> bytes:
    padded = text + "=" * (-len(text) % 4)
    return base64.b64decode(padded, altchars=b"-_" if set("-_") & set(padded) else None, validate=True)
