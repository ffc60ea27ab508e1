"""The access key: what a program shows to ask as this gateway's account."""

from __future__ import annotations

import os
import re
import secrets
import stat
from pathlib import Path

from peer.home import HomeError, write_file
from protocol.keyfiles import write_secret

#: As clients of AI Horde want it, whose keys have exactly 22 characters: 16 random bytes in base 64.
KEY_BYTES = 16
_KEY = re.compile(r"[A-Za-z0-9_-]{22}")


def key_file(folder: Path) -> Path:
    """Where the key is, below a peer's folder."""
    return folder / "gateway" / "access-key"


def load_or_create(folder: Path, *, new: bool = False) -> tuple[str, bool]:
    """The key, and whether it was made just now. new: make another in place of the one that there is. Raises
    `HomeError` for a file that cannot be used."""
    path = key_file(folder)
    made = secrets.token_urlsafe(KEY_BYTES)
    content = f"{made}\n".encode()
    try:
        if new:
            write_file(path, content)
        else:
            write_secret(path, content)
    except FileExistsError:
        return _load(path), False
    except OSError as error:
        raise HomeError(f"{path}: cannot be written: {error.strerror}; choose another folder with --home") from error
    return made, True


def _load(path: Path) -> str:
    try:
        mode = path.stat().st_mode
        key = path.read_text("ascii", errors="replace").strip()
    except OSError as error:
        raise HomeError(f"{path}: cannot be read: {error.strerror}") from error
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise HomeError(f"{path}: mode {stat.S_IMODE(mode):04o} lets others read this key: chmod 600 it")
    if not _KEY.fullmatch(key):
        raise HomeError(f"{path}: holds no key of 22 letters, digits, - and _: make another with --new-key")
    return key
