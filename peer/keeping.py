"""What a peer keeps of its settlements for some days: should the tracker have to go on from an older copy, it shows
those that the copy lacks, and the tracker enters them again.

```
<horde>/<day>     settlements of that day since 1970 with what lies behind each: bodies of `kept`, behind their lengths
<horde>/shown     version of the delegation under which the tracker has answered all that it lacked
```
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from peer.home import write_file
from protocol import codec
from protocol.documents import Serving, Settlement, open_document, parse_document
from protocol.errors import Refusal
from protocol.keys import show_key
from protocol.messages import Kept, SessionMessage

#: A copy of the ledger that is older than this cannot be filled up again.
KEEP_DAYS = 7
DAY_MS = 86_400_000

#: Refusals that pass: what they answered is shown again on the next connection.
PASSING = frozenset({"busy", "internal", "stopping", "too_slow"})

_LENGTH_BYTES = 4
_SHOWN = "shown"


class Keeping:
    """The folder in which one peer keeps settlements of one horde. Its methods wait for the disk, but not for its
    being durable: a peer and the tracker would have to lose their power at once."""

    def __init__(self, folder: Path, root: bytes) -> None:
        self._folder = folder / show_key(root)

    def keep(self, kept: Kept) -> None:
        """Keep a settlement, and forget those that are too old."""
        day = open_document(parse_document(kept.settlement, Settlement), Settlement).settled // DAY_MS
        path = self._folder / str(day)
        if not path.exists():
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._forget_before(day - KEEP_DAYS)
        body = codec.encode(kept)
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
        with os.fdopen(handle, "ab") as file:
            file.write(len(body).to_bytes(_LENGTH_BYTES, "big") + body)

    def to_show(self, delegation: Serving) -> dict[bytes, Kept]:
        """What the ledger lacks by this delegation, by the settlement's digest; nothing if all was answered."""
        entries = {former.key: former.entries for former in delegation.former}
        found: dict[bytes, Kept] = {}
        if not entries or self.shown() >= delegation.version:
            return found
        for day in self._days():
            for kept in _read(self._folder / str(day)):
                with contextlib.suppress(Refusal):  # a copy that cannot be read any more
                    envelope = parse_document(kept.settlement, Settlement)
                    if open_document(envelope, Settlement).entry >= entries.get(envelope.key, codec.MAX_INTEGER):
                        found[envelope.digest] = kept
        return found

    def all(self) -> Iterator[Kept]:
        """Everything that is kept, oldest first."""
        for day in self._days():
            yield from _read(self._folder / str(day))

    def answered(self, version: int) -> None:
        """The tracker has answered all that it lacks by the delegation of this version."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_file(self._folder / _SHOWN, str(version).encode())

    def shown(self) -> int:
        """Version of the delegation under which all was answered last, 0 for none."""
        try:
            return int((self._folder / _SHOWN).read_text("ascii"))
        except (OSError, ValueError):
            return 0

    def _days(self) -> list[int]:
        if not self._folder.is_dir():
            return []
        return sorted(int(path.name) for path in self._folder.iterdir() if path.name.isdigit())

    def _forget_before(self, day: int) -> None:
        for old in self._days():
            if old < day:
                (self._folder / str(old)).unlink(missing_ok=True)


def _read(path: Path) -> Iterator[Kept]:
    """Everything in a file, up to where it was broken off; nothing if another program has just removed it."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return
    start = 0
    while start < len(content):
        start += _LENGTH_BYTES
        end = start + int.from_bytes(content[start - _LENGTH_BYTES : start], "big")
        with contextlib.suppress(Refusal):
            yield codec.decode(content[start:end], Kept)
        start = end


class Line(Protocol):
    """What showing needs of the connection."""

    async def say(self, message: SessionMessage) -> bytes | None:
        """Send a session message; the digest of what was signed, None if not connected."""


class Showing:
    """Shows what the tracker lacks, after each holding, until all of it was answered."""

    def __init__(self, keeping: Keeping) -> None:
        self._keeping = keeping
        self._version = 0
        self._waiting: dict[bytes, bytes] = {}

    async def begin(self, line: Line, delegation: Serving) -> None:
        """A connection stands under this delegation."""
        self._version = delegation.version
        to_show = self._keeping.to_show(delegation)
        self._waiting = dict.fromkeys(to_show, b"")
        if delegation.former and not to_show:
            self._look()
        for settlement, kept in to_show.items():
            if (digest := await line.say(kept)) is None:
                return
            if settlement in self._waiting:
                self._waiting[settlement] = digest

    def taken(self, documents: tuple[bytes, ...]) -> None:
        """The tracker has these."""
        for digest in documents:
            if self._waiting.pop(digest, None) is not None:
                self._look()

    def refused(self, about: bytes, code: str) -> bool:
        """The tracker refused something; whether that was shown here. What is refused for good counts as answered."""
        settlement = next((one for one, digest in self._waiting.items() if digest == about and about), None)
        if settlement is None:
            return False
        if code not in PASSING:
            del self._waiting[settlement]
            self._look()
        return True

    def _look(self) -> None:
        if not self._waiting and self._version > self._keeping.shown():
            self._keeping.answered(self._version)
