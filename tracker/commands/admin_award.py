"""`potluck-tracker admin award`: kudos for somebody, made by a signed act of the operator that everybody can read."""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
from dataclasses import dataclass
from pathlib import Path

import msgspec

from protocol import documents
from protocol.amounts import read_account, read_kudos
from protocol.documents import MAX_VALIDITY_MS, Award
from tracker.commands.exits import BAD_COMMAND_LINE, BAD_HORDE, CommandError
from tracker.commands.folder import (
    check_appointment,
    read_certificate_of,
    read_config,
    read_delegation,
    read_serving_key,
)
from tracker.commands.talk import present
from tracker.config import Settings


@dataclass(frozen=True)
class Awarded:
    """What was given. document: the digest of the award."""

    account: int
    amount: int
    reason: str
    document: bytes


def award(folder: Path, account: str, kudos: str, reason: str, *, url: str | None, now: int) -> Awarded:
    """Make kudos for an account at the horde in `folder`, which must be served now; raises `CommandError`."""
    try:
        number, amount = read_account(account), read_kudos(kudos)
    except ValueError as error:
        raise CommandError(str(error), BAD_COMMAND_LINE) from error
    try:
        said = msgspec.convert(
            {
                "nonce": secrets.token_bytes(16),
                "valid_until": now + MAX_VALIDITY_MS // 2,
                "account": number,
                "amount": amount,
                "reason": reason.strip(),
            },
            Award,
        )
    except msgspec.ValidationError as error:
        found = f"found {len(reason.strip())} of them"
        raise CommandError(
            f"--reason: wanted 1 to 200 characters, for everybody to read; {found}", BAD_COMMAND_LINE
        ) from error
    settings = read_config(folder).settings
    key, delegation = read_serving_key(settings), read_delegation(settings)
    if fault := check_appointment(delegation, key, now):
        raise CommandError(f"{settings.serving_key}: {fault}", BAD_HORDE)
    envelope = documents.sign(said, key, delegation.key)
    certificate = read_certificate_of(settings)
    pin = certificate.digest if certificate and (url is None or certificate.is_self_signed) else b""
    asyncio.run(present(url or local_url(settings), delegation.key, key, envelope, pin))
    return Awarded(number, amount, said.reason, envelope.digest)


def local_url(settings: Settings) -> str:
    """Where the tracker of these settings is met from its own machine, without the proxy before it."""
    if not settings.port:
        raise CommandError("server.listen leaves the port to the system: say where it is with --url", BAD_COMMAND_LINE)
    try:
        everywhere = ipaddress.ip_address(settings.host).is_unspecified
    except ValueError:
        everywhere = False
    host = ("[::1]" if ":" in settings.host else "127.0.0.1") if everywhere else settings.host
    return f"{settings.scheme}://{f'[{host}]' if ':' in host and host[0] != '[' else host}:{settings.port}"
