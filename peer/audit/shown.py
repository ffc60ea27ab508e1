"""The checkpoints that this peer was shown: each binds the tracker to the whole ledger up to then.

One file each: the last few, the newest of each hour for two weeks, and the newest of each day. Hours and days are those
in which they came, by this machine's clock: so a tracker that dates them as it likes has no more of them forgotten.
Nothing waits for the disk to be durable: losing the newest few only means that a little less can be compared.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterable
from pathlib import Path

from peer.home import write_file
from protocol.documents import Checkpoint, Settlement, open_document, parse_document
from protocol.envelope import Envelope, check_document_context
from protocol.errors import Refusal
from protocol.keys import show_key

log = logging.getLogger(__name__)

HOUR_MS = 3_600_000
HOURS_A_DAY = 24
#: The newest so many stay, and of each hour and each day the newest one, for so many of them.
LATEST = 8
MAX_HOURS = 14 * HOURS_A_DAY
MAX_DAYS = 1000

FOLDER = "checkpoints"

#: <hour in which it came>-<size>-<digest>
_NAME = re.compile(r"([0-9]{7,})-[0-9]{12,}-[0-9a-f]{16}")


class Shown:
    """What one peer was shown by one horde. Its methods wait for the disk."""

    def __init__(self, folder: Path, root: bytes) -> None:
        self._folder = folder / FOLDER / show_key(root)
        self._root = root

    def came(self, raw: bytes, now: int) -> None:
        """Keep a checkpoint that the tracker sent or named; what cannot be kept is logged."""
        try:
            self.keep(raw, now)
        except (Refusal, OSError) as error:
            log.warning("a checkpoint that was shown could not be kept: %s", error)

    def of_settlement(self, settlement: Envelope, now: int) -> None:
        """Keep the checkpoint that a settlement names; what cannot be kept is logged."""
        self.came(open_document(settlement, Settlement).checkpoint, now)

    def keep(self, raw: bytes, now: int) -> None:
        """Keep a checkpoint, and forget those that say little beside it; raises `Refusal` for what is none."""
        envelope, said = read_checkpoint(raw, self._root)
        # Two histories give two files, so that neither hides the other.
        about = f"-{said.size:012}-{envelope.digest[:8].hex()}"
        names = self._names()
        if any(name.endswith(about) for name in names):
            return
        name = f"{now // HOUR_MS:07}{about}"
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_file(self._folder / name, raw, synced=False)
        for old in superfluous([*names, name]):
            (self._folder / old).unlink(missing_ok=True)

    def all(self) -> list[bytes]:
        """All that are kept, oldest first, but for copies that the disk has spoilt."""
        found = []
        for name in self._names():
            with contextlib.suppress(OSError, Refusal):  # another program may have forgotten it just now
                raw = (self._folder / name).read_bytes()
                read_checkpoint(raw, self._root)
                found.append(raw)
        return found

    def _names(self) -> list[str]:
        if not self._folder.is_dir():
            return []
        return sorted(path.name for path in self._folder.iterdir() if _NAME.fullmatch(path.name))


def superfluous(names: Iterable[str]) -> list[str]:
    """Which of these files, named by hour and size, are not needed beside the others."""
    ordered = sorted(names)
    of_hour: dict[int, str] = {}
    of_day: dict[int, str] = {}
    for name in ordered:
        hour = int(name.partition("-")[0])
        of_hour[hour] = of_day[hour // HOURS_A_DAY] = name
    since = max(of_hour, default=0) - MAX_HOURS
    hours = {name for hour, name in of_hour.items() if hour > since}
    kept = {*ordered[-LATEST:], *hours, *list(of_day.values())[-MAX_DAYS:]}
    return [name for name in ordered if name not in kept]


def read_checkpoint(raw: bytes, root: bytes) -> tuple[Envelope, Checkpoint]:
    """A checkpoint of this horde whose signature holds; who signed it has to be looked at besides. Raises `Refusal`."""
    envelope = parse_document(raw, Checkpoint)
    check_document_context(envelope, root)
    envelope.verify()
    return envelope, open_document(envelope, Checkpoint)
