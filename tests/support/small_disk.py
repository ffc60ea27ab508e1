"""A disk so small that it is full soon: a file system in memory, mounted where a test wants it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MOUNT = ("mount", "-t", "tmpfs")


class SmallDisk:
    """What is mounted at `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def _ballast(self) -> Path:
        return self.folder / "ballast"

    def fill(self) -> None:
        """Take all the room that is left, to the last byte."""
        with self._ballast.open("ab", buffering=0) as file:
            for size in (65_536, 4_096, 1):
                try:
                    while file.write(bytes(size)) == size:
                        pass
                except OSError:
                    continue
        assert not shutil.disk_usage(self.folder).free

    def make_room(self, mib: int) -> None:
        """Give back what was taken, and be larger."""
        self._ballast.unlink(missing_ok=True)
        subprocess.run(("mount", "-o", f"remount,size={mib}m", str(self.folder)), check=True, capture_output=True)


def can_mount() -> bool:
    """Whether this process may mount anything: on Linux, as root."""
    return sys.platform == "linux" and os.geteuid() == 0


@contextmanager
def small_disk(folder: Path, mib: int) -> Iterator[SmallDisk]:
    """A disk of so many MiB at `folder`, gone when the block ends."""
    folder.mkdir(parents=True)
    subprocess.run((*MOUNT, "-o", f"size={mib}m", "tmpfs", str(folder)), check=True, capture_output=True)
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(("umount", "--lazy", str(folder)), check=True, capture_output=True)
