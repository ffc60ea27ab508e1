"""The rules of a horde as a peer follows them: what changed since it last saw them, and every version before.

Each version names the one before it by its digest, so that whoever has one that the horde vouched for can check all
that came before, wherever they come from.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

import msgspec

from peer.events import Unreachable
from peer.scrape import fetch, http_url
from protocol.changes import Change, changes
from protocol.documents import RulesDocument, open_document, parse_document
from protocol.envelope import Envelope, check_document_context
from protocol.errors import Refusal
from protocol.links import Link
from protocol.rules import Rules, from_json


@dataclass(frozen=True)
class Version:
    """One version of the rules, read. envelope: as it was signed."""

    envelope: Envelope
    document: RulesDocument
    rules: Rules


def read(envelope: Envelope) -> Version:
    """A rules document, read; raises `msgspec.DecodeError` for rules that this program does not understand."""
    document = open_document(envelope, RulesDocument)
    return Version(envelope, document, from_json(document.rules))


def changed(before: Envelope | None, after: Rules) -> list[Change]:
    """What differs from the rules that were known before; nothing if none were, or none that can be read."""
    if before is None:
        return []
    try:
        return changes(read(before).rules, after)
    except (Refusal, msgspec.DecodeError):
        return []


async def earlier(link: Link, version: Version) -> Version | None:
    """The version before this one, by its digest; None before the first. Raises `Unreachable` if the tracker does not
    show it, or shows another."""
    if not version.document.previous:
        return None
    number = version.document.version - 1
    what = f"rules?version={number}"
    answer = await fetch(link, what)
    try:
        envelope = parse_document(base64.b64decode(str(answer.get("document", "")), validate=True), RulesDocument)
        check_document_context(envelope, link.root)
        found = read(envelope)
    except (binascii.Error, Refusal, msgspec.DecodeError) as error:
        raise Unreachable(f"{http_url(link)}/{what} shows no rules that can be read: {error}") from error
    if envelope.digest != version.document.previous:
        raise Unreachable(
            f"{http_url(link)}/{what} shows other rules than version {number + 1} names: somebody has rewritten them"
        )
    return found


async def find(link: Link, newest: Version, number: int) -> Version:
    """A version by its number, each on the way to it checked by the one after it; raises `Unreachable`."""
    found = newest
    while found.document.version > number:
        before = await earlier(link, found)
        if before is None:
            break
        found = before
    if found.document.version != number:
        raise Unreachable(f"there is no version {number} of these rules: the newest is {newest.document.version}")
    return found
