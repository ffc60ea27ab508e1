"""The checkpoints that this peer was shown: each binds the tracker to the whole ledger up to then.

One file each, of which the newest of each day stays and the last few. Nothing waits for the disk to be durable: losing
the newest few only means that a little less can be compared.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from protocol.documents import Checkpoint, Settlement, open_document, parse_document
from protocol.envelope import Envelope, check_document_context
from protocol.errors import Refusal
from protocol.keys import show_key

log = logging.getLogger(__name__)

DAY_MS = 86_400_000
#: The newest so many stay, and of each day before the newest one, for so many days.
LATEST = 8
MAX_DAYS = 1000

FOLDER = "checkpoints"


class Shown:
    """What one peer was shown by one horde. Its methods wait for the disk."""

    def __init__(self, folder: Path, root: bytes) -> None:
        self._folder = folder / FOLDER / show_key(root)
        self._root = root

    def of_settlement(self, settlement: Envelope) -> None:
        """Keep the checkpoint that a settlement names; what cannot be kept is logged."""
        try:
            self.keep(open_document(settlement, Settlement).checkpoint)
        except (Refusal, OSError) as error:
            log.warning("a checkpoint that a settlement names could not be kept: %s", error)

    def keep(self, raw: bytes) -> None:
        """Keep a checkpoint, and forget those that say little beside it; raises `Refusal` for what is none."""
        envelope, said = read_checkpoint(raw, self._root)
        # Two histories give two files, so that neither hides the other.
        path = self._folder / f"{said.time // DAY_MS:06}-{said.size:012}-{envelope.digest[:8].hex()}"
        if path.exists():
            return
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = self._folder / f".new-{secrets.token_hex(4)}"
        with os.fdopen(
            os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600), "wb"
        ) as f:
            f.write(raw)
        new.replace(path)
        for old in superfluous(self._names()):
            (self._folder / old).unlink(missing_ok=True)

    def all(self) -> list[bytes]:
        """All that are kept, oldest first."""
        return [(self._folder / name).read_bytes() for name in self._names()]

    def _names(self) -> list[str]:
        if not self._folder.is_dir():
            return []
        return sorted(path.name for path in self._folder.iterdir() if not path.name.startswith("."))


def superfluous(names: Iterable[str]) -> list[str]:
    """Which of these files, named by day and size, are not needed beside the others."""
    ordered = sorted(names)
    newest_of_day = {name.partition("-")[0]: name for name in ordered}
    kept = {*ordered[-LATEST:], *sorted(newest_of_day.values())[-MAX_DAYS:]}
    return [name for name in ordered if name not in kept]


def read_checkpoint(raw: bytes, root: bytes) -> tuple[Envelope, Checkpoint]:
    """A checkpoint of this horde whose signature holds; who signed it has to be looked at besides. Raises `Refusal`."""
    envelope = parse_document(raw, Checkpoint)
    check_document_context(envelope, root)
    envelope.verify()
    return envelope, open_document(envelope, Checkpoint)
