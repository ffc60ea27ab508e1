"""TLS for programs that take nothing but https: a certificate made here, or the user's own.

No authority vouches for one made here. Programs are told to trust this one file, or to compare its SHA-256.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from peer.home import HomeError, write_file

#: Some systems trust none that is valid for longer than 825 days. It is made anew a month before its end.
VALID = dt.timedelta(days=820)
EARLY = dt.timedelta(days=30)
#: Clocks of other machines may be behind.
BEFORE = dt.timedelta(days=1)

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Tls:
    """context: to serve with. certificate: its file, which clients can be told to trust. sha256: of the certificate in
    DER, in hexadecimal. made: whether it was made just now."""

    context: ssl.SSLContext
    certificate: Path
    sha256: str
    made: bool = False


def from_files(certificate: Path, private_key: Path) -> Tls:
    """The user's own certificate, with its chain; raises `HomeError` for files that cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        content = certificate.read_bytes()
        context.load_cert_chain(certificate, private_key, password=_no_password)
        first = x509.load_pem_x509_certificates(content)[0]
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise HomeError(
            f"{certificate} with {private_key}: cannot be used for TLS ({reason}): wanted a certificate in PEM, and the"
            " key that belongs to it, without a password"
        ) from error
    return Tls(context, certificate, first.fingerprint(hashes.SHA256()).hex())


def load_or_create(folder: Path, names: Sequence[str], now: dt.datetime) -> Tls:
    """The certificate made for this gateway, made now if there is none, if it is about to end, or if it lacks one of
    the names by which the gateway is called. folder: a peer's."""
    certificate, private_key = folder / "gateway" / "certificate.pem", folder / "gateway" / "certificate-key.pem"
    wanted = list(dict.fromkeys([*LOCAL_NAMES, *names]))
    made = not _serves(certificate, private_key, wanted, now)
    if made:
        key_pem, certificate_pem = _make(wanted, now)
        try:
            write_file(private_key, key_pem)
            write_file(certificate, certificate_pem)
        except OSError as error:
            raise HomeError(f"{folder}: cannot be written: {error.strerror}; choose another with --home") from error
    found = from_files(certificate, private_key)
    return Tls(found.context, certificate, found.sha256, made)


def _serves(certificate: Path, private_key: Path, names: Sequence[str], now: dt.datetime) -> bool:
    """Whether what is there can be used on."""
    try:
        found = x509.load_pem_x509_certificate(certificate.read_bytes())
        private = serialization.load_pem_private_key(private_key.read_bytes(), None)
        said = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, TypeError, x509.ExtensionNotFound):
        return False
    belongs = private.public_key() == found.public_key()
    lasts = found.not_valid_before_utc <= now < found.not_valid_after_utc - EARLY
    return belongs and lasts and all(_name(name) in said for name in names)


def _make(names: Sequence[str], now: dt.datetime) -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "potluck gateway")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BEFORE)
        .not_valid_after(now - BEFORE + VALID)
        .add_extension(x509.SubjectAlternativeName([_name(name) for name in names]), critical=False)
        # Who trusts this file trusts this one certificate: it can sign no others.
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return key_pem, certificate.public_bytes(serialization.Encoding.PEM)


def _name(name: str) -> x509.GeneralName:
    with contextlib.suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(name))
    return x509.DNSName(name)


def _no_password() -> bytes:
    raise ValueError("it has a password")
