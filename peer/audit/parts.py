"""Entries of a public ledger that this peer has read, in files: so an audit that was broken off goes on, and the next
one reads only what is new.

```
<epoch>/<first entry>   a whole part: its SHA-256, then the bytes as the tracker gave them
<epoch>/checked         how many entries of these gave a root that the horde had signed for
```

They are copies. One that is damaged is read again, and what no signed root has confirmed convicts nobody.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from peer.audit.source import BadSource, Source
from peer.home import write_file
from protocol import codec
from protocol.errors import Refusal
from protocol.public import PART_ENTRIES, Part, Row, part_name

log = logging.getLogger(__name__)

_CHECKED = "checked"
_DIGEST_BYTES = 32


class Parts:
    """The parts of one epoch. used: whether any of them was read from a file. Its methods wait for the disk."""

    def __init__(self, folder: Path, source: Source, epoch: int) -> None:
        self._all = folder
        self._folder = folder / str(epoch)
        self._source = source
        self._epoch = epoch
        self._has_room = True
        self.used = False

    async def rows(self, first: int, count: int) -> Sequence[Row]:
        """So many entries from `first` on; raises `BadSource` if there are fewer."""
        if (kept := self._kept(first)) is not None:
            self.used = True
            return kept[:count]
        return (await self._read(first, count))[:count]

    async def renew(self, size: int) -> int | None:
        """Read all that was kept again. The first entry that is another one now, of those that once gave a root that
        the horde had signed for; None if there is none."""
        checked, changed = self._checked(), None
        for first in range(0, size, PART_ENTRIES):
            before = self._kept(first)
            if before is None:
                continue
            now = await self._read(first, min(PART_ENTRIES, size - first))
            if changed is None:
                pairs = enumerate(zip(before[: max(0, checked - first)], now, strict=False), first)
                changed = next((entry for entry, (old, new) in pairs if old != new), None)
        return changed

    def confirm(self, size: int) -> None:
        """The first `size` entries give the root that was signed for. Those of other epochs are of no use any more."""
        if self._source.is_live and self._folder.is_dir():
            self._write(_CHECKED, str(size).encode())
            for other in self._all.iterdir():
                if other != self._folder:
                    shutil.rmtree(other, ignore_errors=True)

    def forget(self) -> None:
        """What was read gives no root that was signed for: read all of it anew the next time."""
        if self._source.is_live:
            shutil.rmtree(self._folder, ignore_errors=True)

    async def _read(self, first: int, count: int) -> Sequence[Row]:
        part = await self._source.part(first, self._epoch)
        if part.first != first or len(part.rows) < count:
            raise BadSource(f"{self._source.name}: part {first} has {len(part.rows)} entries: wanted {count}")
        if len(part.rows) == PART_ENTRIES and self._source.is_live:
            content = codec.encode(part)
            self._write(part_name(first), hashlib.sha256(content).digest() + content)
        return part.rows

    def _write(self, name: str, content: bytes) -> None:
        """Keep a copy; an audit needs none, so a full disk does not end it."""
        if self._has_room:
            try:
                write_file(self._folder / name, content)
            except OSError as error:
                self._has_room = False
                log.warning("%s: what is read is not kept for the next audit: %s", self._folder, error.strerror)

    def _kept(self, first: int) -> Sequence[Row] | None:
        if not self._source.is_live:
            return None
        try:
            content = (self._folder / part_name(first)).read_bytes()
            digest, content = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
            if hashlib.sha256(content).digest() != digest:
                return None
            part = codec.decode(content, Part)
        except (OSError, Refusal):
            return None
        return part.rows if part.first == first and len(part.rows) == PART_ENTRIES else None

    def _checked(self) -> int:
        try:
            return int((self._folder / _CHECKED).read_text("ascii"))
        except (OSError, ValueError):
            return 0
