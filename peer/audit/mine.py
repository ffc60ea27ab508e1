"""What this peer itself knows of a ledger: the settlements that it kept, and the checkpoints that it was shown."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from peer.audit.shown import Shown, read_checkpoint
from peer.evidence import Proof
from peer.home import Home
from peer.keeping import Keeping
from protocol.documents import Settlement, open_document, parse_document
from protocol.errors import Refusal
from protocol.keys import parse_key, show_key


class Handed(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="shown"):
    """Checkpoints that one peer was shown, in a file for another one: JSON, documents in base64. horde: its id."""

    horde: str
    checkpoints: tuple[bytes, ...]


class BadHanded(Exception):
    """A file that holds no checkpoints; the text says what was wanted."""


@dataclass
class Known:
    """settlements: envelopes, by what they name. checkpoints: envelopes, each once."""

    settlements: list[bytes] = field(default_factory=list)
    checkpoints: list[bytes] = field(default_factory=list)


@dataclass(frozen=True)
class Party:
    """What one side keeps of a job's settlement: enough to open its commitments. request: empty for the worker."""

    settlement: bytes
    lease: bytes
    receipt: bytes
    request: bytes = b""


def shown_by(home: Home, root: bytes) -> Shown:
    """Where this peer keeps what an audit was shown; requesters keep theirs there too."""
    return Shown(home.results_folder, root)


def known(home: Home, root: bytes) -> Known:
    """All that this peer kept of one horde."""
    settlements = dict.fromkeys(_settlements(home, root))
    checkpoints = dict.fromkeys([*shown_by(home, root).all(), *Shown(home.worker_folder, root).all()])
    for raw in settlements:
        with contextlib.suppress(Refusal):
            checkpoints[open_document(parse_document(raw, Settlement), Settlement).checkpoint] = None
    return Known(list(settlements), list(checkpoints))


def _settlements(home: Home, root: bytes) -> Iterator[bytes]:
    for party in parties(home, root):
        yield party.settlement
    for path in sorted((home.results_folder / "content").glob("*/*.json")):
        with contextlib.suppress(OSError, msgspec.DecodeError):
            proof = msgspec.json.decode(path.read_bytes(), type=Proof)
            if proof.root == root and proof.settlement:
                yield proof.settlement


def parties(home: Home, root: bytes) -> Iterator[Party]:
    """Every settlement of the last days with what lies behind it, as requester and as worker."""
    for folder in (home.results_folder, home.worker_folder):
        for kept in Keeping(folder / "settled", root).all():
            yield Party(kept.settlement, kept.lease, kept.receipt, kept.request)


def hand_out(found: Known, root: bytes) -> bytes:
    """The file that shows somebody else what this peer was shown; it says nothing of what this peer did."""
    handed = Handed(horde=show_key(root), checkpoints=tuple(found.checkpoints))
    return msgspec.json.format(msgspec.json.encode(handed), indent=2) + b"\n"


def read_handed(path: Path, root: bytes) -> list[bytes]:
    """The checkpoints that somebody else was shown; raises `BadHanded`, also for those of another horde."""
    try:
        handed = msgspec.json.decode(path.read_bytes(), type=Handed)
        if parse_key(handed.horde) != root:
            raise BadHanded(f"{path}: is of horde {handed.horde}, not of {show_key(root)}")
        for raw in handed.checkpoints:
            read_checkpoint(raw, root)
    except OSError as error:
        raise BadHanded(f"{path}: cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, Refusal) as error:
        wanted = "wanted a file that `potluck audit --shown` has written"
        raise BadHanded(f"{path}: no checkpoints of a horde ({error}): {wanted}") from error
    return list(handed.checkpoints)
