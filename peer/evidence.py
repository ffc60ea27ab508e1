"""What a requester keeps of its results, in files: proofs by content, and statements that await their settlement.

```
content/<SHA-256>/<job>-<attempt>.json     all that shows where content of this digest came from (`Proof`)
saved/<SHA-256 of a path>                  SHA-256 of the content that was saved under that path
unsettled/<horde>/<job>-<attempt>.json     an acknowledgement or denial that the tracker has not answered (`Unsettled`)
checkpoints/<horde>/                       checkpoints of its ledger that this peer was shown (`peer.audit.shown`)
settled/<horde>/                           settlements of the last days, with what lies behind them (`peer.keeping`)
```
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from peer.home import write_file
from peer.keeping import Keeping
from protocol.digests import Artifact
from protocol.envelope import parse
from protocol.keys import show_key
from protocol.messages import Kept

K = TypeVar("K")


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """Where a result came from. artifacts: all of it, as the output digest binds them. All but root and salt are
    envelopes as they travelled; settlement is empty until it came. delegation: the root's, where another serving key
    signed the settlement than the lease."""

    root: bytes
    job: bytes
    attempt: int
    artifacts: tuple[Artifact, ...]
    salt: bytes
    lease: bytes
    receipt: bytes
    acknowledgement: bytes
    settlement: bytes = b""
    delegation: bytes = b""


class Unsettled(msgspec.Struct, frozen=True, kw_only=True):
    """A statement about an attempt that is to be sent until it is answered. document: its envelope. contents: digests
    of the contents whose proofs still lack the settlement. request, lease, receipt: envelopes that are kept with an
    acknowledgement's settlement for some days; empty if this peer cannot show them later."""

    job: bytes
    attempt: int
    document: bytes
    contents: tuple[bytes, ...] = ()
    request: bytes = b""
    lease: bytes = b""
    receipt: bytes = b""


class Evidence:
    """The folder in which one peer keeps proofs. All methods wait for the disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, proof: Proof) -> None:
        """Keep a proof beside those of the same content."""
        content = msgspec.json.encode(proof)
        for artifact in proof.artifacts:
            write_file(self._proof_file(artifact.sha256, proof.job, proof.attempt), content)

    def await_settlement(self, root: bytes, unsettled: Unsettled) -> None:
        """Keep a statement until `settle` or `forget`."""
        path = self._unsettled_file(root, unsettled.job, unsettled.attempt)
        write_file(path, msgspec.json.encode(unsettled))

    def unsettled(self, root: bytes) -> list[Unsettled]:
        """The statements that this horde has not answered."""
        return [
            found
            for path in sorted((self._folder / "unsettled" / show_key(root)).glob("*.json"))
            if (found := _read(path, Unsettled)) is not None
        ]

    def keeping(self, root: bytes) -> Keeping:
        """The settlements of one horde's last days."""
        return Keeping(self._folder / "settled", root)

    def settle(self, root: bytes, unsettled: Unsettled, settlement: bytes, delegation: bytes = b"") -> None:
        """Put the settlement to the proofs of this attempt; the statement about it has done its work."""
        for content in unsettled.contents:
            proof = _read(self._proof_file(content, unsettled.job, unsettled.attempt), Proof)
            if proof is not None:
                same = not delegation or parse(proof.lease).key == parse(settlement).key
                replaced = msgspec.structs.replace(proof, settlement=settlement, delegation=b"" if same else delegation)
                self.keep(replaced)
        if unsettled.request:
            self.keeping(root).keep(
                Kept(settlement=settlement, lease=unsettled.lease, receipt=unsettled.receipt, request=unsettled.request)
            )
        self.forget(root, unsettled)

    def forget(self, root: bytes, unsettled: Unsettled) -> None:
        """The tracker has answered this statement."""
        self._unsettled_file(root, unsettled.job, unsettled.attempt).unlink(missing_ok=True)

    def saved(self, path: Path, sha256: bytes) -> None:
        """Remember that content of this digest was saved as `path`, so that a later change of the file is noticed."""
        write_file(self._saved_file(path), sha256.hex().encode())

    def saved_as(self, path: Path) -> bytes | None:
        """Digest of the content that was last saved as `path`."""
        try:
            return bytes.fromhex(self._saved_file(path).read_text("ascii"))
        except (OSError, ValueError):
            return None

    def proofs(self, sha256: bytes) -> Sequence[Proof]:
        """The proofs of content with this digest."""
        folder = self._folder / "content" / sha256.hex()
        found = (_read(path, Proof) for path in sorted(folder.glob("*.json")))
        return [proof for proof in found if proof is not None]

    def _proof_file(self, sha256: bytes, job: bytes, attempt: int) -> Path:
        return self._folder / "content" / sha256.hex() / f"{job.hex()}-{attempt}.json"

    def _unsettled_file(self, root: bytes, job: bytes, attempt: int) -> Path:
        return self._folder / "unsettled" / show_key(root) / f"{job.hex()}-{attempt}.json"

    def _saved_file(self, path: Path) -> Path:
        return self._folder / "saved" / hashlib.sha256(str(path.resolve()).encode()).hexdigest()


def _read(path: Path, of: type[K]) -> K | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=of)
    except (OSError, msgspec.DecodeError):
        return None  # a copy that a person can no longer read is no proof, and no reason to stop
