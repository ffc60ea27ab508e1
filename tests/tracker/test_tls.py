"""Certificates of the tracker: those of an authority, those signed by themselves, and files that cannot be used."""

import hashlib
import os
import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from tests.support.proxies import Authority
from tracker.tls import BadCertificate, make_self_signed, read_certificate

NO_MODES = "signals and file modes of POSIX"


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    certificate, private_key = tmp_path / "tls.crt", tmp_path / "tls.key"
    for file, content in zip((certificate, private_key), make_self_signed("203.0.113.7"), strict=True):
        file.write_bytes(content)
        file.chmod(0o600)
    return certificate, private_key


def test_a_self_signed_certificate_is_known_by_its_digest(files):
    found = read_certificate(*files)
    der = ssl.PEM_cert_to_DER_cert(files[0].read_text("ascii"))

    assert found.is_self_signed
    assert found.pin == found.digest == hashlib.sha256(der).digest()
    assert found.context is not None
    assert found.context.minimum_version is ssl.TLSVersion.TLSv1_3


def test_one_of_an_authority_needs_no_digest_in_links_wherever_its_file_ends(tmp_path):
    authority = Authority.make(tmp_path)
    authority.certificate.write_bytes(authority.certificate.read_bytes() + authority.file.read_bytes())
    found = read_certificate(authority.certificate, authority.private_key)

    assert (found.digest, found.pin, found.is_self_signed) == (authority.digest, b"", False)


def test_what_a_proxy_shows_needs_no_key(files):
    found = read_certificate(files[0], None)

    assert found.context is None
    assert found.pin


def test_every_one_is_made_anew(files):
    assert make_self_signed("203.0.113.7")[0] != files[0].read_bytes()


@pytest.mark.parametrize("host", ["203.0.113.7", "2001:db8::7", "horde.example.org", "localhost"])
def test_one_can_be_made_for_any_host(tmp_path, host):
    (tmp_path / "c").write_bytes(make_self_signed(host)[0])

    assert read_certificate(tmp_path / "c", None).is_self_signed


def test_a_missing_file_is_named(files, tmp_path):
    with pytest.raises(BadCertificate, match=r"no\.crt: cannot be read: "):
        read_certificate(tmp_path / "no.crt", files[1])
    with pytest.raises(BadCertificate, match=r"no\.key: cannot be read: "):
        read_certificate(files[0], tmp_path / "no.key")


def test_what_is_no_certificate_and_what_is_no_key_is_refused(files):
    with pytest.raises(BadCertificate, match=r"tls\.key: holds no certificate in PEM"):
        read_certificate(files[1], files[1])
    with pytest.raises(BadCertificate, match="is not the key of"):
        read_certificate(files[0], files[0])


def test_a_key_of_another_certificate_is_refused(files):
    files[1].write_bytes(make_self_signed("203.0.113.7")[1])

    with pytest.raises(BadCertificate, match=r"tls\.key: is not the key of .*tls\.crt"):
        read_certificate(*files)


def test_a_key_behind_a_password_is_refused_and_nobody_is_asked(files):
    key = serialization.load_pem_private_key(files[1].read_bytes(), None)
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )

    with pytest.raises(BadCertificate, match="needs a password: store the key without one"):
        read_certificate(*files)


@pytest.mark.skipif(os.name != "posix", reason=NO_MODES)
def test_a_key_that_others_can_read_is_refused(files):
    files[1].chmod(0o640)

    with pytest.raises(BadCertificate, match=r"tls\.key: mode 0640 lets others read this key: chmod 600 it"):
        read_certificate(*files)
