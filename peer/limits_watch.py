"""A worker's limits as they stand: `peer.toml`, what the command line says beyond it, and whether it is paused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec

from peer.home import Home, write_file
from peer.limits import FILE_NAME, Limits, load

#: What is seen of a file: when it was written last, and how large it is; nothing if there is none.
_Stamp = tuple[int, int] | None


class LimitsWatch:
    """The limits of the worker in a home. anonymous, min_free_rate: what the command line says, None for nothing."""

    def __init__(self, home: Home, *, anonymous: bool | None = None, min_free_rate: int | None = None) -> None:
        self._file = limits_file(home)
        self._pause = pause_file(home)
        said = {"anonymous": anonymous, "min_free_rate": min_free_rate}
        self._said = {name: value for name, value in said.items() if value is not None}
        self._seen: tuple[_Stamp] | None = None  # of the file that was read; None before the first look
        self._last: tuple[_Stamp] | None = None  # of the file at the last look
        self._written = Limits()
        self._paused: bool | None = None

    def look(self) -> Limits | None:
        """The limits, if anything has changed since the last look; raises `ConfigError` for a file that cannot be
        followed, once for each change. Whether the worker is paused is seen whatever is wrong with the file.

        A change is followed at the second look that finds it: many editors empty a file before they write it, and a
        worker without limits would take what its owner does not want."""
        seen, was_paused = (_stamp(self._file),), self._paused
        stands, self._last = self._seen is None or seen == self._last, seen
        if is_anew := stands and seen != self._seen:
            self._seen = seen
            self._written = load(self._file)
        self._paused = self._pause.exists()
        if not is_anew and self._paused == was_paused:
            return None
        people = msgspec.structs.replace(self._written.people, **self._said)
        return replace(self._written, people=people, paused=self._paused)


def limits_file(home: Home) -> Path:
    """Where a worker's owner writes the limits down."""
    return home.folder / FILE_NAME


def pause_file(home: Home) -> Path:
    """What pauses the worker of this home as long as it is there."""
    return home.worker_folder / "paused"


def pause(home: Home, *, on: bool) -> bool:
    """Let the worker of this home serve its own account alone, or everybody again; whether that is a change."""
    file = pause_file(home)
    was = file.exists()
    if on and not was:
        write_file(file, b"")
    elif not on:
        file.unlink(missing_ok=True)
    return was != on


def _stamp(file: Path) -> _Stamp:
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size
