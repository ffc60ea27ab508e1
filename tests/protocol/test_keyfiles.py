"""Key files: for their owner's eyes only, never written over."""

import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from protocol.keyfiles import KeyFileError, create_key, load_key, load_or_create_key, save_key, write_secret
from tests.support.builders import a_key

posix = os.name == "posix"


def test_a_key_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "peer.key"

    assert load_key_after(create_key(path).seed, path)
    assert path.read_text("ascii").startswith("-----BEGIN PRIVATE KEY-----\n")


def load_key_after(seed: bytes, path: Path) -> bool:
    return load_key(path).seed == seed


def test_a_given_key_is_kept(tmp_path: Path) -> None:
    save_key(tmp_path / "key", a_key(5))

    assert load_key(tmp_path / "key") == a_key(5)


def test_only_the_owner_can_read_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        create_key(tmp_path / "key")
    finally:
        os.umask(before)

    # Windows keeps no such modes; there the file inherits who may read the owner's folder.
    assert not posix or stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o601, 0o777])
def test_a_key_that_others_may_read_is_refused_where_modes_exist(tmp_path: Path, mode: int) -> None:
    create_key(tmp_path / "key")
    (tmp_path / "key").chmod(mode)

    if posix:
        with pytest.raises(KeyFileError, match="chmod 600"):
            load_key(tmp_path / "key")
    else:
        load_key(tmp_path / "key")


def test_nothing_is_written_over(tmp_path: Path) -> None:
    key = create_key(tmp_path / "key")

    with pytest.raises(FileExistsError):
        create_key(tmp_path / "key")
    with pytest.raises(FileExistsError):
        save_key(tmp_path / "key", a_key())
    with pytest.raises(FileExistsError):
        write_secret(tmp_path / "key", b"another")
    assert load_key(tmp_path / "key") == key


def test_a_key_is_made_once_and_then_found(tmp_path: Path) -> None:
    assert load_or_create_key(tmp_path / "key") == load_or_create_key(tmp_path / "key")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="absent"):
        load_key(tmp_path / "absent")


@pytest.mark.parametrize("content", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_file_without_a_key_is_refused(tmp_path: Path, content: bytes) -> None:
    write_secret(tmp_path / "key", content)

    with pytest.raises(KeyFileError, match="key"):
        load_key(tmp_path / "key")


def pem(encryption: serialization.KeySerializationEncryption) -> bytes:
    key = generate_private_key(SECP256R1())
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def test_a_key_of_another_kind_and_one_behind_a_password_are_refused(tmp_path: Path) -> None:
    write_secret(tmp_path / "other", pem(serialization.NoEncryption()))
    write_secret(tmp_path / "locked", pem(serialization.BestAvailableEncryption(b"password")))

    with pytest.raises(KeyFileError, match="Ed25519"):
        load_key(tmp_path / "other")
    with pytest.raises(KeyFileError, match="not a private key"):
        load_key(tmp_path / "locked")
