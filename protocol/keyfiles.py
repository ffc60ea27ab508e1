"""Private keys on disk: PKCS #8 in PEM, mode 0600, never overwritten."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.keys import SigningKey


class KeyFileError(Exception):
    """A key file that cannot be used; the text says what to do."""


def write_secret(path: Path, content: bytes) -> None:
    """Write a new file that only its owner may read, durably; raises `FileExistsError` rather than replace one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def create_key(path: Path) -> SigningKey:
    """Make a fresh key and keep it in `path`; raises `FileExistsError` rather than replace one."""
    key = SigningKey.generate()
    save_key(path, key)
    return key


def save_key(path: Path, key: SigningKey) -> None:
    """Keep `key` in `path`; raises `FileExistsError` rather than replace one."""
    write_secret(path, key_pem(key))


def key_pem(key: SigningKey) -> bytes:
    """The content of a key file."""
    return Ed25519PrivateKey.from_private_bytes(key.seed).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def load_key(path: Path) -> SigningKey:
    """The key in `path`; refuses a file that others may read (where the system knows such modes)."""
    try:
        mode = path.stat().st_mode
        content = path.read_bytes()
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be read: {error.strerror}") from error
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise KeyFileError(f"{path}: mode {stat.S_IMODE(mode):04o} lets others read this key: chmod 600 it")
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyFileError(f"{path}: not a private key in PEM: restore it from a copy") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"{path}: holds a key of another kind: wanted Ed25519")
    return SigningKey(key.private_bytes_raw())


def load_or_create_key(path: Path) -> SigningKey:
    """The key in `path`, made now if there is none."""
    try:
        return create_key(path)
    except FileExistsError:
        return load_key(path)
