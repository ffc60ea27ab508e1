"""Pictures under names, the access key, the certificate."""

from __future__ import annotations

import datetime as dt
import os
import re
import ssl
import stat
from pathlib import Path

import pytest

from peer.gateway import key, tls
from peer.gateway.files import Files
from peer.home import HomeError

NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
POSIX = pytest.mark.skipif(os.name != "posix", reason="this system knows no such modes")


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000

    def __call__(self) -> int:
        return self.now


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# Pictures


def test_a_picture_is_kept_for_a_while_under_a_name_that_nobody_guesses() -> None:
    clock = Clock()
    files = Files(clock, kept_ms=1000)

    one, two = files.put(b"one", "image/png"), files.put(b"two", "image/webp")

    assert re.fullmatch(r"[\w-]{22}\.png", one)
    assert two.endswith(".webp")
    assert files.get(one) == (b"one", "image/png")
    assert files.get("other.png") is None
    clock.now += 1000
    assert files.get(one) is None


def test_the_oldest_pictures_make_room() -> None:
    files = Files(Clock(), most=10)

    names = [files.put(bytes(4), "image/png") for _ in range(3)]

    assert [files.get(name) is not None for name in names] == [False, True, True]
    assert files.get(files.put(bytes(11), "image/png")) is None


# The key


def test_the_key_is_made_once_and_readable_to_its_owner_only(tmp_path: Path) -> None:
    made, was_made = key.load_or_create(tmp_path)
    again, made_again = key.load_or_create(tmp_path)

    assert (was_made, made_again) == (True, False)
    assert again == made
    assert re.fullmatch(r"[\w-]{22}", made)
    assert os.name != "posix" or mode(key.key_file(tmp_path)) == 0o600


def test_another_key_replaces_it(tmp_path: Path) -> None:
    first, _ = key.load_or_create(tmp_path)

    other, was_made = key.load_or_create(tmp_path, new=True)

    assert was_made
    assert other != first
    assert key.load_or_create(tmp_path) == (other, False)
    assert os.name != "posix" or mode(key.key_file(tmp_path)) == 0o600


@pytest.mark.parametrize("content", [b"", b"short", b"a" * 23, b"\xff" * 22, b"aaaaaaaaaaaaaaaaaaaaa!"])
def test_a_broken_key_file_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = key.key_file(tmp_path)
    key.load_or_create(tmp_path)
    path.write_bytes(content)

    with pytest.raises(HomeError, match="--new-key"):
        key.load_or_create(tmp_path)

    assert path.read_bytes() == content


@POSIX
def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    key.load_or_create(tmp_path)
    key.key_file(tmp_path).chmod(0o644)

    with pytest.raises(HomeError, match="chmod 600"):
        key.load_or_create(tmp_path)


# The certificate


def test_a_certificate_is_made_once_for_all_names(tmp_path: Path) -> None:
    made = tls.load_or_create(tmp_path, ["nas.example", "192.168.0.7"], NOW)
    again = tls.load_or_create(tmp_path, ["nas.example"], NOW + dt.timedelta(days=300))

    assert made.made
    assert not again.made
    assert made.sha256 == again.sha256
    assert len(bytes.fromhex(made.sha256)) == 32
    assert os.name != "posix" or mode(tmp_path / "gateway" / "certificate-key.pem") == 0o600
    assert b"PRIVATE" not in made.certificate.read_bytes()


def test_it_is_made_anew_for_a_new_name_before_its_end_and_when_it_is_broken(tmp_path: Path) -> None:
    first = tls.load_or_create(tmp_path, [], NOW)

    for_more = tls.load_or_create(tmp_path, ["nas.example"], NOW)
    later = tls.load_or_create(tmp_path, ["nas.example"], NOW + dt.timedelta(days=800))
    later.certificate.write_text("broken")
    mended = tls.load_or_create(tmp_path, ["nas.example"], NOW + dt.timedelta(days=800))

    assert len({first.sha256, for_more.sha256, later.sha256, mended.sha256}) == 4


def test_a_client_that_trusts_the_file_connects_by_each_name_and_by_no_other(tmp_path: Path) -> None:
    made = tls.load_or_create(tmp_path, ["nas.example"], dt.datetime.now(dt.UTC))

    for name in ("localhost", "127.0.0.1", "nas.example"):
        shake_hands(made, name)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(made, "evil.example")


def shake_hands(made: tls.Tls, name: str) -> None:
    """TLS between both ends in memory."""
    client_in, client_out = ssl.MemoryBIO(), ssl.MemoryBIO()
    trusting = ssl.create_default_context(cafile=made.certificate)
    client = trusting.wrap_bio(client_in, client_out, server_hostname=name)
    server = made.context.wrap_bio(client_out, client_in, server_side=True)
    done: set[ssl.SSLObject] = set()
    while len(done) < 2:
        for end in (client, server):
            try:
                end.do_handshake()
                done.add(end)
            except ssl.SSLWantReadError:
                pass


def test_files_of_the_users_own_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    one, two = tls.load_or_create(tmp_path / "one", [], NOW), tls.load_or_create(tmp_path / "two", [], NOW)
    key_of_two = two.certificate.with_name("certificate-key.pem")

    assert tls.from_files(two.certificate, key_of_two).sha256 == two.sha256
    for certificate, private_key in ((one.certificate, key_of_two), (tmp_path / "none", key_of_two)):
        with pytest.raises(HomeError, match="cannot be used for TLS"):
            tls.from_files(certificate, private_key)
