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
from peer.proposing import votes_in
from protocol.documents import Settlement, open_document, parse_document
from protocol.envelope import check_document_context, parse
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
    """settlements, checkpoints, votes: envelopes, each once. rules: the newest version that this peer was sent, its
    envelope.

    A copy that has suffered on this machine's disk is not among them: it says nothing about the tracker.
    """

    settlements: list[bytes] = field(default_factory=list)
    checkpoints: list[bytes] = field(default_factory=list)
    rules: bytes = b""
    votes: list[bytes] = field(default_factory=list)


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
        checkpoints[open_document(parse(raw), Settlement).checkpoint] = None
    rules = home.rules(root)
    sent = rules.raw if rules is not None else b""
    return Known(list(settlements), list(checkpoints), sent, votes_in(home, root))


def _settlements(home: Home, root: bytes) -> Iterator[bytes]:
    for party in parties(home, root):
        yield party.settlement
    for path in sorted((home.results_folder / "content").glob("*/*.json")):
        with contextlib.suppress(OSError, msgspec.DecodeError):
            proof = msgspec.json.decode(path.read_bytes(), type=Proof)
            if proof.root == root and _is_settlement(proof.settlement, root):
                yield proof.settlement


def parties(home: Home, root: bytes) -> Iterator[Party]:
    """Every settlement of the last days with what lies behind it, as requester and as worker."""
    for folder in (home.results_folder, home.worker_folder):
        for kept in Keeping(folder / "settled", root).all():
            if _is_settlement(kept.settlement, root):
                yield Party(kept.settlement, kept.lease, kept.receipt, kept.request)


def _is_settlement(raw: bytes, root: bytes) -> bool:
    """Whether this is one of this horde, with a signature that holds; who signed it has to be looked at besides."""
    try:
        envelope = parse_document(raw, Settlement)
        check_document_context(envelope, root)
        envelope.verify()
        open_document(envelope, Settlement)
    except Refusal:
        return False
    return True


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
