"""The keys in a peer's folder beside its own: the next one while a rotation is under way, former ones, the one of its
users' pseudonyms; and for which hordes the peer's own key is somebody else's delegate.

```
key.next        the key that a rotation is about to put in place of `key`
key.XXXXXXXX    a key that was in place before, by its first letters
users.key       by which the users of a service get their pseudonyms
delegate.json   hordes in which the key acts for an account of somebody, with that account's number
```
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from peer.events import Refused
from peer.home import Home, HomeError, write_file
from protocol.keys import SigningKey, show_key
from protocol.work import PSEUDONYM_BYTES

#: Letters of a key in the name of the file that keeps it.
LETTERS = 8
USERS_KEY_BYTES = 32
DELEGATE = "delegate.json"


def read_key(path: Path) -> SigningKey:
    """The key in a file; raises `HomeError` for one that cannot be used."""
    from protocol.keyfiles import KeyFileError, load_key  # `cryptography` is slow to load

    try:
        return load_key(path)
    except KeyFileError as error:
        raise HomeError(str(error)) from error


def write_key(path: Path, key: SigningKey) -> None:
    """Keep a key in a new file; raises `HomeError` rather than replace one."""
    from protocol.keyfiles import save_key

    try:
        save_key(path, key)
    except FileExistsError as error:
        raise HomeError(f"{path}: is there already: a key is never overwritten; name another file") from error
    except OSError as error:
        raise HomeError(f"{path}: cannot be written: {error.strerror}") from error


@contextmanager
def kept_key(path: Path, key: SigningKey) -> Iterator[None]:
    """Keep a key in a new file before anybody counts on it. If the horde refuses that, the file goes again."""
    write_key(path, key)
    try:
        yield
    except Refused:
        path.unlink(missing_ok=True)
        raise


def next_key(home: Home) -> SigningKey:
    """The key of the rotation that is under way; a fresh one, kept before anything is said of it, if none is."""
    path = _next_file(home)
    if not path.exists():
        write_key(path, SigningKey.generate())
    return read_key(path)


def take_next(home: Home) -> Path:
    """The rotation is done everywhere: its key is the peer's own from now on. Where the former one is kept."""
    aside = set_aside(home)
    _next_file(home).replace(home.key_file)
    return aside


def set_aside(home: Home) -> Path:
    """Keep the peer's key under another name too, so that another one can take its place; where it is. At no moment is
    the folder without a key: whoever looked then would make a new one."""
    key = read_key(home.key_file)
    path = home.key_file.with_name(f"key.{show_key(key.public)[:LETTERS]}")
    if not path.exists():
        write_key(path, key)
    elif read_key(path).public != key.public:
        raise HomeError(f"{path}: holds another key than its name says: move it away")
    return path


def adopt(home: Home, key: SigningKey, *, force: bool = False) -> Path | None:
    """Make a key the peer's own. One that is in place is set aside if `force` says so, and where is returned; else
    `HomeError`."""
    if not home.key_file.exists():
        write_key(home.key_file, key)
        return None
    if read_key(home.key_file).public == key.public:
        return None
    if not force:
        raise HomeError(f"{home.key_file}: this peer has a key: set it aside with --force, or use another --home")
    if _next_file(home).exists():
        raise HomeError(f"{_next_file(home)}: a rotation is under way: finish it first, with `potluck account rotate`")
    from protocol.keyfiles import key_pem

    aside = set_aside(home)
    (home.folder / DELEGATE).unlink(missing_ok=True)  # it told of the key that goes
    write_file(home.key_file, key_pem(key))
    return aside


def _next_file(home: Home) -> Path:
    return home.key_file.with_name("key.next")


# Users of a service


def pseudonym(home: Home, user: str) -> bytes:
    """The 16 bytes that stand for a user of this service: the same each time, and of no use to anybody else."""
    path = home.folder / "users.key"
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        key = secrets.token_bytes(USERS_KEY_BYTES)
        write_file(path, key)
    except OSError as error:
        raise HomeError(f"{path}: cannot be read: {error.strerror}") from error
    if len(key) != USERS_KEY_BYTES:
        raise HomeError(f"{path}: holds {len(key)} bytes: wanted {USERS_KEY_BYTES}; restore it, or move it away")
    return hmac.digest(key, user.encode(), hashlib.sha256)[:PSEUDONYM_BYTES]


# Whose delegate the key is


def delegated_account(home: Home, root: bytes) -> int:
    """The account for which the key acts in a horde by what this folder knows; 0 if it acts for itself."""
    return _delegated(home).get(show_key(root), 0)


def mark_delegate(home: Home, root: bytes, account: int) -> None:
    """From now on this peer works for that account in that horde, and never opens one of its own there."""
    marks = {**_delegated(home), show_key(root): account}
    write_file(home.folder / DELEGATE, msgspec.json.format(msgspec.json.encode(marks), indent=2) + b"\n")


def _delegated(home: Home) -> dict[str, int]:
    path = home.folder / DELEGATE
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, int])
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise HomeError(f"{path}: cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise HomeError(
            f"{path}: not a list of accounts ({error}): move it away, then `potluck delegate use`"
        ) from error
