"""`potluck-tracker admin warn`, `suspend`, `ban` ...: acts of moderators, signed here and entered by the tracker."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, TypeVar

import msgspec

from protocol import documents
from protocol.amounts import read_account, read_kudos
from protocol.documents import MAX_VALIDITY_MS, Document
from protocol.envelope import Envelope, check_document_context
from protocol.errors import BadKey, Refusal
from protocol.governing import MAX_REASON_CHARACTERS, MAX_RULE_CHARACTERS, Act, Answer, Appeal
from protocol.keys import parse_key
from tracker.commands.exits import BAD_COMMAND_LINE, NOT_DONE, CommandError
from tracker.commands.place import Place
from tracker.commands.talk import ask_appeals, fetch, present

D = TypeVar("D", bound=Document)

_SPANS = {"m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 7 * 86_400_000}
#: So many first letters of a digest are enough to name an act.
LEAST_LETTERS = 6
#: Parts of the log that are read for one act.
MAX_PARTS = 200


@dataclass(frozen=True)
class Done:
    """An act that was taken. about: the one of which it speaks, if it speaks of one."""

    act: Act
    digest: bytes
    about: Act | None = None


def act(place: Place, kind: str, rule: str, reason: str, now: int, **fields: Any) -> Done:
    """Sign an act and hand it over; raises `CommandError`. fields: those of `Act`, as they were typed."""
    about = None
    values = {name: _READERS[name](found, now) for name, found in fields.items() if found is not None}
    if isinstance(named := values.get("about"), str):
        values["about"], about = asyncio.run(find_act(place, named))
    for name, text, most in (("--rule", rule, MAX_RULE_CHARACTERS), ("--reason", reason, MAX_REASON_CHARACTERS)):
        if not 1 <= len(text.strip()) <= most:
            found = len(text.strip())
            raise CommandError(
                f"{name}: wanted 1 to {most} characters, for everybody to read; found {found} of them", BAD_COMMAND_LINE
            )
    try:
        said = msgspec.convert(
            {
                "nonce": secrets.token_bytes(16),
                "valid_until": now + MAX_VALIDITY_MS // 2,
                "act": kind,
                "rule": rule.strip(),
                "reason": reason.strip(),
                **values,
            },
            Act,
        )
    except msgspec.ValidationError as error:
        raise CommandError(str(error), BAD_COMMAND_LINE) from error
    envelope = documents.sign(said, place.key, place.root)
    asyncio.run(present(place, envelope))
    return Done(said, envelope.digest, about)


def appeals(place: Place) -> list[dict[str, object]]:
    """The appeals that nobody has answered, each with the act that it is about; raises `CommandError`."""
    found = asyncio.run(ask_appeals(place))
    rows = []
    for one in found.entries:
        try:
            said, about = _signed(place, one.appeal, Appeal)[1], _signed(place, one.entry.act, Act)[1]
        except Refusal as error:
            raise CommandError(f"the tracker shows an appeal that nobody has signed: {error}", NOT_DONE) from error
        rows.append(
            {
                "account": one.account,
                "text": said.text,
                "about": said.about.hex(),
                "number": one.entry.number,
                "act": about.act,
                "state": one.entry.state,
                "rule": about.rule,
                "reason": about.reason,
            }
        )
    return rows


def answer(place: Place, named: str, rules: int, text: str, now: int) -> Answer:
    """Say what became of a proposal, named by its number; raises `CommandError`."""
    if not (named.isascii() and named.isdecimal() and len(named) <= 9):
        raise CommandError(f"{named[:80]!r}: wanted a proposal's number, as /proposals shows it", BAD_COMMAND_LINE)
    content = asyncio.run(fetch(place, f"proposals?before={int(named) + 1}"))
    row = next((row for row in content["proposals"] if row["number"] == int(named)), None)
    if row is None:
        raise CommandError(f"there is no proposal {named} in this horde", NOT_DONE)
    try:
        said = msgspec.convert(
            {
                "nonce": secrets.token_bytes(16),
                "valid_until": now + MAX_VALIDITY_MS // 2,
                "proposal": bytes.fromhex(row["digest"]),
                "rules": rules,
                "text": text.strip(),
            },
            Answer,
        )
    except msgspec.ValidationError as error:
        raise CommandError(str(error), BAD_COMMAND_LINE) from error
    asyncio.run(present(place, documents.sign(said, place.key, place.root)))
    return said


def log(place: Place, before: int | None) -> dict[str, Any]:
    """A part of the public log; raises `CommandError`."""
    content: dict[str, Any] = asyncio.run(fetch(place, f"acts?before={before}" if before else "acts"))
    return content


async def find_act(place: Place, named: str) -> tuple[bytes, Act]:
    """The digest and the words of an act that is named by its number in the log, or by first letters of its digest.

    What the tracker shows is checked: nobody agrees to another act than the one that is read here.
    """
    number = int(named) if named.isascii() and named.isdecimal() and len(named) < LEAST_LETTERS else 0
    if not number and not re.fullmatch(rf"[0-9a-f]{{{LEAST_LETTERS},64}}", named.lower()):
        raise CommandError(
            f"{named[:80]!r}: wanted an act's number in the log, or {LEAST_LETTERS} first letters of its digest",
            BAD_COMMAND_LINE,
        )
    before = number + 1 if number else 0
    for _ in range(MAX_PARTS):
        content = await fetch(place, f"acts?before={before}" if before else "acts")
        for row in content["acts"]:
            if row["number"] == number or (not number and row["digest"].startswith(named.lower())):
                return _read_act(place, row)
        before = content["before"]
        if number or not before:
            break
    raise CommandError(f"no act {named[:80]} is in this horde's log: `potluck-tracker admin log` shows it", NOT_DONE)


def _read_act(place: Place, row: dict[str, Any]) -> tuple[bytes, Act]:
    try:
        envelope, said = _signed(place, base64.b64decode(row["document"], validate=True), Act)
    except (Refusal, binascii.Error) as error:
        raise CommandError(f"act {row['number']} of the log cannot be spoken of: {error}", NOT_DONE) from error
    return envelope.digest, said


def _signed(place: Place, raw: bytes, of: type[D]) -> tuple[Envelope, D]:
    """A document of this horde with a signature that holds; raises a `Refusal`."""
    envelope = documents.parse_document(raw, of)
    check_document_context(envelope, place.root)
    envelope.verify()
    return envelope, documents.open_document(envelope, of)


def _account(text: str, _now: int) -> int:
    try:
        return read_account(text)
    except ValueError as error:
        raise CommandError(str(error), BAD_COMMAND_LINE) from error


def _kudos(text: str, _now: int) -> int:
    try:
        return read_kudos(text)
    except ValueError as error:
        raise CommandError(str(error), BAD_COMMAND_LINE) from error


def read_until(text: str, now: int) -> int:
    """The moment that `text` means: a span such as `12h` or `7d` from now, or a day (UTC); raises `CommandError`."""
    if span := re.fullmatch(r"([1-9][0-9]{0,4})([mhdw])", text.strip()):
        return now + int(span[1]) * _SPANS[span[2]]
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise CommandError(
            f"--until {text[:40]!r}: wanted a span such as 12h, 7d or 4w, or a day such as 2030-01-31",
            BAD_COMMAND_LINE,
        ) from error
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _worker(text: str, _now: int) -> bytes:
    try:
        return sha256(parse_key(text)).digest()
    except BadKey as error:
        raise CommandError(f"--worker: {error}", BAD_COMMAND_LINE) from error


def _as_it_is(found: Any, _now: int) -> Any:
    return found


_READERS = {
    "account": _account,
    "to": _account,
    "amount": _kudos,
    "until": read_until,
    "worker": _worker,
    "open_jobs": _as_it_is,
    "block": _as_it_is,
    "about": _as_it_is,
}
