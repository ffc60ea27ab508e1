"""The tracker's own TLS: certificates from files, and one of its own making for hordes without a name in the DNS.

Nobody vouches for a self-signed certificate, so the link carries its digest and peers take no other; the serving key
signs the digest too, so that a link with another certificate written into it leads nowhere.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import ssl
import stat
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

#: Nobody looks at the dates of a certificate that is pinned; these are those of RFC 5280 for "no end".
_FROM = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
_UNTIL = dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC)


class BadCertificate(Exception):
    """Certificate files that cannot be used; the text says what to do."""


@dataclass(frozen=True)
class Certificate:
    """What is shown to those who connect. context: serves with it; None where a proxy does. digest: SHA-256 of the
    certificate in DER. is_self_signed: whether peers know it by its digest alone. until: when it ends, milliseconds."""

    context: ssl.SSLContext | None
    digest: bytes
    is_self_signed: bool
    until: int

    @property
    def pin(self) -> bytes:
        """The digest that links have to carry; empty where an authority vouches for the certificate."""
        return self.digest if self.is_self_signed else b""


def read_certificate(certificate: Path, private_key: Path | None) -> Certificate:
    """The certificate in these files, PEM, with those that vouch for it behind it; raises `BadCertificate`.

    private_key: None where a reverse proxy holds it.
    """
    try:
        first = x509.load_pem_x509_certificates(certificate.read_bytes())[0]
    except OSError as error:
        raise BadCertificate(f"{certificate}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise BadCertificate(f"{certificate}: holds no certificate in PEM") from error
    context = None if private_key is None else _context(certificate, private_key)
    until = int(first.not_valid_after_utc.timestamp() * 1000)
    return Certificate(context, first.fingerprint(hashes.SHA256()), _is_self_signed(first), until)


def make_self_signed(host: str) -> tuple[bytes, bytes]:
    """A new private key and a certificate for `host` that has no end, both in PEM: (certificate, key)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "potluck tracker")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_FROM)
        .not_valid_after(_UNTIL)
        .add_extension(x509.SubjectAlternativeName([_alternative_name(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return made.public_bytes(serialization.Encoding.PEM), pem


def _context(certificate: Path, private_key: Path) -> ssl.SSLContext:
    """TLS 1.3 only, which every peer speaks."""
    try:
        mode = private_key.stat().st_mode
    except OSError as error:
        raise BadCertificate(f"{private_key}: cannot be read: {error.strerror}") from error
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        text = f"{private_key}: mode {stat.S_IMODE(mode):04o} lets others read this key: chmod 600 it"
        raise BadCertificate(text)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        # A password is never asked for: nobody sits before a server.
        context.load_cert_chain(certificate, private_key, password=_no_password)
    except _Encrypted as error:
        raise BadCertificate(f"{private_key}: needs a password: store the key without one, mode 0600") from error
    except (ssl.SSLError, OSError) as error:
        text = f"{private_key}: is not the key of {certificate} ({error}): name the files that belong together"
        raise BadCertificate(text) from error
    return context


class _Encrypted(Exception):
    pass


def _no_password() -> str:
    raise _Encrypted


def _is_self_signed(certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(certificate)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _alternative_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
