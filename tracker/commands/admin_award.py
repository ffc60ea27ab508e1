"""`potluck-tracker admin award`: kudos for somebody, made by a signed act of the operator that everybody can read."""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path

import msgspec

from protocol import documents
from protocol.documents import MAX_AMOUNT, MAX_VALIDITY_MS, Award
from protocol.postings import FIRST_PERSON
from tracker.commands.exits import BAD_COMMAND_LINE, BAD_HORDE, CommandError
from tracker.commands.folder import check_appointment, read_config, read_delegation, read_serving_key
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
    number, amount = read_account(account), read_kudos(kudos)
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
        raise CommandError(
            f"--reason: wanted 1 to 200 characters, for everybody to read ({error})", BAD_COMMAND_LINE
        ) from error
    settings = read_config(folder).settings
    key, delegation = read_serving_key(settings), read_delegation(settings)
    if fault := check_appointment(delegation, key, now):
        raise CommandError(f"{settings.serving_key}: {fault}", BAD_HORDE)
    envelope = documents.sign(said, key, delegation.key)
    asyncio.run(present(url or local_url(settings), delegation.key, key, envelope))
    return Awarded(number, amount, said.reason, envelope.digest)


def read_account(text: str) -> int:
    """The number of an account, as it stands alone or behind a name; raises `CommandError`."""
    number = text.rpartition("#")[2]
    if not (number.isascii() and number.isdigit()) or int(number) < FIRST_PERSON:
        wanted = (
            f"wanted an account's number, {FIRST_PERSON} or more, or its name with the number, as Ada#{FIRST_PERSON}"
        )
        raise CommandError(f"ACCOUNT {text!r}: {wanted}", BAD_COMMAND_LINE)
    return int(number)


def read_kudos(text: str) -> int:
    """Thousandths of a number of kudos with at most three decimals; raises `CommandError`."""
    amount = Decimal(0)
    with suppress(InvalidOperation):
        amount = Decimal(text) * 1000
    if not amount.is_finite() or amount != amount.to_integral_value() or not 1 <= amount <= MAX_AMOUNT:
        wanted = f"wanted 0.001 to {MAX_AMOUNT // 1000}, with at most three decimals"
        raise CommandError(f"KUDOS {text!r}: {wanted}", BAD_COMMAND_LINE)
    return int(amount)


def local_url(settings: Settings) -> str:
    """Where the tracker of these settings is met from its own machine, without the proxy before it."""
    if not settings.port:
        raise CommandError("server.listen leaves the port to the system: say where it is with --url", BAD_COMMAND_LINE)
    try:
        everywhere = ipaddress.ip_address(settings.host).is_unspecified
    except ValueError:
        everywhere = False
    host = ("[::1]" if ":" in settings.host else "127.0.0.1") if everywhere else settings.host
    return f"ws://{f'[{host}]' if ':' in host and host[0] != '[' else host}:{settings.port}"
