"""The certificate with which a worker answers: self-signed, made afresh at each start, pinned by the peer record.

The key is ECDSA on P-256, which every TLS library takes; Ed25519 certificates some do not.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import secrets
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from protocol.keyfiles import write_secret

_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "potluck worker")])
#: Nobody looks at the dates, for the peer record vouches; these are those of RFC 5280 for "no end".
_FROM = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
_UNTIL = dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC)
_FILES = "tls-*.pem"


@dataclass(frozen=True)
class Certificate:
    """digest: SHA-256 of the certificate in DER. context: serves with it, TLS 1.3 only."""

    digest: bytes
    context: ssl.SSLContext


def fresh_certificate(folder: Path) -> Certificate:
    """A new key and certificate. For a moment the key lies in `folder`, readable to its owner only, since TLS
    libraries read keys from files; what a crash in that moment left there goes too."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in folder.glob(_FILES):
        left.unlink()
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_NAME)
        .issuer_name(_NAME)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_FROM)
        .not_valid_after(_UNTIL)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ) + certificate.public_bytes(serialization.Encoding.PEM)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    path = folder / _FILES.replace("*", secrets.token_hex(8))
    try:
        write_secret(path, pem)
        context.load_cert_chain(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
    return Certificate(certificate.fingerprint(hashes.SHA256()), context)
