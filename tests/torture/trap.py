"""How a process knows that it is to die at the next passing of a place: by a file that says so.

The file is armed from outside while the process runs. Whoever passes the place for the wanted time takes the file away
by renaming it, which only one can, and ends itself as if somebody had pulled the plug.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NoReturn

import msgspec
import psutil

#: Environment of every process of a horde under torture: where its traps are, and which start of which program it is.
FOLDER = "POTLUCK_TORTURE_FOLDER"
LAUNCH = "POTLUCK_TORTURE_LAUNCH"
#: What programs are made to do wrong, to show that the checks notice: a tracker answers before it has stored (`lazy`),
#: engines do not end with their worker (`orphans`).
FAULT = "POTLUCK_TORTURE_FAULT"


class Arming(msgspec.Struct, frozen=True):
    """Where to die. passing: the how-manieth time from now on. serial: another one begins to count anew."""

    place: str
    passing: int
    serial: int


def arm(folder: Path, role: str, arming: Arming) -> None:
    """From now on the role's process dies there."""
    new = folder / f"{role}.new"
    new.write_bytes(msgspec.json.encode(arming))
    new.replace(folder / f"{role}.armed")


def disarm(folder: Path, role: str) -> bool:
    """Arm it no more, and forget what has sprung; whether it had sprung."""
    (folder / f"{role}.armed").unlink(missing_ok=True)
    sprung = folder / f"{role}.sprung"
    had = sprung.exists()
    sprung.unlink(missing_ok=True)
    return had


class Trap:
    """One process's end of it."""

    def __init__(self, folder: Path, role: str) -> None:
        self._armed = folder / f"{role}.armed"
        self._sprung = folder / f"{role}.sprung"
        self._serial = 0
        self._passed = 0

    @classmethod
    def of_environment(cls, role: str) -> Trap:
        """The trap of this process."""
        return cls(Path(os.environ[FOLDER]), role)

    def passes(self, place: str) -> None:
        """This place is passed now; may be called from any thread."""
        try:
            arming = msgspec.json.decode(self._armed.read_bytes(), type=Arming)
        except FileNotFoundError:
            return
        if arming.serial != self._serial:
            self._serial, self._passed = arming.serial, 0
        if arming.place != place:
            return
        self._passed += 1
        if self._passed >= arming.passing and self._is_ours():
            die()

    def _is_ours(self) -> bool:
        try:
            self._armed.rename(self._sprung)
        except FileNotFoundError:
            return False
        return True


def die() -> NoReturn:
    """End at once, with nothing tidied up."""
    psutil.Process().kill()
    while True:  # the other side of the kill: this thread is not to take another step
        time.sleep(1)
