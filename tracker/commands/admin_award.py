"""`potluck-tracker admin award`: kudos for somebody, made by a signed act of the operator that everybody can read."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass
from pathlib import Path

import msgspec

from protocol import documents
from protocol.amounts import read_account, read_kudos
from protocol.documents import MAX_VALIDITY_MS, Award
from tracker.commands.exits import BAD_COMMAND_LINE, CommandError
from tracker.commands.place import find_place
from tracker.commands.talk import present


@dataclass(frozen=True)
class Awarded:
    """What was given. document: the digest of the award."""

    account: int
    amount: int
    reason: str
    document: bytes


def award(
    horde: str, account: str, kudos: str, reason: str, *, key: Path | None = None, url: str | None, now: int
) -> Awarded:
    """Make kudos for an account at a horde that must be served now; raises `CommandError`."""
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
    place = find_place(horde, key, url)
    envelope = documents.sign(said, place.key, place.root)
    asyncio.run(present(place, envelope))
    return Awarded(number, amount, said.reason, envelope.digest)
