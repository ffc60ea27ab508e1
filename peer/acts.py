"""What a person does with its account, as a series of messages: how it is shown, who else may act, its key, its end;
what moderators did about it, and the answer to that.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from msgspec import ValidationError, convert

from peer.client import Client
from peer.events import BadRequest
from peer.moderation import Told, read
from protocol.documents import Delegation, Leaving, Profile, Recovery, Revocation, Rotation, open_document
from protocol.envelope import Envelope, parse
from protocol.governing import MAX_APPEAL_CHARACTERS, MAX_PROPOSAL_CHARACTERS, Appeal, Proposal, Vote
from protocol.keys import SigningKey, show_key
from protocol.messages import Account

#: How long a document may be taken in; within this time it is sent again after a lost connection.
VALID_MS = 30 * 60 * 1000
NONCE_BYTES = 16
#: So many first letters or digits are enough to name a delegation, if no other one begins so.
LEAST_LETTERS = 4
#: The same for an act of moderators.
LEAST_OF_ACT = 6


@dataclass(frozen=True)
class Delegate:
    """A delegation that stands. digest: its name; used: thousandths held or spent through it."""

    digest: bytes
    terms: Delegation
    used: int


async def own_account(horde: Client) -> Account:
    """Our account; raises `BadRequest` if we have none."""
    found = await horde.account()
    if not found.number:
        raise BadRequest("this key has no account here: `potluck account --register` makes it one")
    return found


async def show(
    horde: Client, *, name: str | None = None, public: bool | None = None, service: bool | None = None
) -> Account:
    """Change how our account is shown; what is not given stays. The account."""
    found = await own_account(horde)
    if name is None and not (name := found.name):
        raise BadRequest("this account has no name yet: choose one first, with `potluck account name NAME`")
    try:
        profile = Profile(
            version=horde.now(),
            name=name,
            public=found.public if public is None else public,
            service=found.service if service is None else service,
        )
    except ValueError as error:
        raise BadRequest(str(error)) from error
    await horde.present(profile)
    return await horde.account()


async def delegate(horde: Client, key: bytes, **bounds: object) -> Delegate:
    """Let another key act for our account, within bounds (fields of `Delegation`)."""
    await own_account(horde)
    terms = Delegation(nonce=_nonce(), valid_until=_valid_until(horde), delegate=key, **bounds)  # type: ignore[arg-type]
    envelope = await horde.present(terms)
    return Delegate(envelope.digest, terms, 0)


async def delegates(horde: Client) -> Sequence[Delegate]:
    """All delegations of our account that stand, the oldest first."""
    await own_account(horde)
    found = []
    for given in await horde.delegations():
        envelope = parse(given.delegation)
        found.append(Delegate(envelope.digest, open_document(envelope, Delegation), given.used))
    return found


async def revoke(horde: Client, which: str) -> Delegate:
    """Take back the delegation that is named by the beginning of its digest, by its delegate's key, or by its label."""
    standing = await delegates(horde)
    named = [one for one in standing if _is_named(one, which)]
    if not named:
        raise BadRequest(f"no delegation {which!r} stands: `potluck delegate list` shows all")
    if len(named) > 1:
        raise BadRequest(
            f"{len(named)} delegations are meant by {which!r}: name one by the first letters of its digest"
        )
    revocation = Revocation(nonce=_nonce(), valid_until=_valid_until(horde), delegation=named[0].digest)
    await horde.present(revocation)
    return named[0]


def _is_named(one: Delegate, which: str) -> bool:
    shown = one.digest.hex()
    if len(which) >= LEAST_LETTERS and shown.startswith(which.lower()):
        return True
    return bool(which) and which in (one.terms.label, show_key(one.terms.delegate))  # nothing names what has no label


async def name_recovery(horde: Client, key: bytes) -> None:
    """Name a key, kept apart, that may give our account another key when this one is lost."""
    await own_account(horde)
    await horde.present(Recovery(version=horde.now(), recovery=key))


async def rotate(horde: Client, former: bytes, signer: SigningKey) -> Account:
    """Give the account of `former` the key of this client. signer: that former key, or the recovery key."""
    rotation = Rotation(nonce=_nonce(), valid_until=_valid_until(horde), former=former, key=horde.key.public)
    await horde.present(rotation, signer)
    return await horde.account()


async def leave(horde: Client) -> Account:
    """End our account: what it has is burned. The account as it was."""
    found = await own_account(horde)
    await horde.present(Leaving(nonce=_nonce(), valid_until=_valid_until(horde)))
    return found


async def told(horde: Client) -> Sequence[Told]:
    """The acts that concern our account, the newest first."""
    await own_account(horde)
    return read(await horde.acts(), horde.link.root, horde.rules, horde.serving)


async def appeal(horde: Client, named: str, text: str) -> Told:
    """Answer to an act that is named by its number or the first letters of its digest; the act."""
    fits = [
        one
        for one in await told(horde)
        if named == str(one.number) or (len(named) >= LEAST_OF_ACT and one.digest.hex().startswith(named.lower()))
    ]
    if len(fits) != 1:
        raise BadRequest(f"{len(fits)} acts about your account are meant by {named[:80]!r}: `potluck acts` shows them")
    fields = {"nonce": _nonce(), "valid_until": _valid_until(horde)}
    try:
        said = convert({**fields, "about": fits[0].digest, "text": text.strip()}, Appeal)
    except ValidationError as error:
        raise BadRequest(
            f"an appeal has 1 to {MAX_APPEAL_CHARACTERS} characters: this one has {len(text.strip())}"
        ) from error
    await horde.present(said)
    return fits[0]


async def propose(horde: Client, key: str, value: str, text: str) -> Envelope:
    """Propose to change one rule to a value in JSON, or a word as it is; the proposal."""
    await own_account(horde)
    try:
        json.loads(value)
    except ValueError:
        value = json.dumps(value, ensure_ascii=False)
    fields = {"nonce": _nonce(), "valid_until": _valid_until(horde), "key": key, "value": value, "text": text.strip()}
    try:
        said = convert(fields, Proposal)
    except ValidationError as error:
        raise BadRequest(
            f"a proposal has a rule, a value, and 1 to {MAX_PROPOSAL_CHARACTERS} characters: {error}"
        ) from error
    return await horde.present(said)


async def vote(horde: Client, proposal: bytes, *, yes: bool) -> Envelope:
    """Vote on a proposal; the newest vote of an account counts."""
    await own_account(horde)
    return await horde.present(Vote(version=horde.now(), proposal=proposal, yes=yes))


Opened = Callable[[SigningKey], AbstractAsyncContextManager[Client]]


async def rotate_if_needed(open_as: Opened, former: SigningKey, following: SigningKey) -> int:
    """Rotate in one horde, unless there is nothing to rotate or that was done before; the account's number, 0 for none.

    open_as: a client of that horde with a given key.
    """
    async with open_as(former) as horde:
        account = await horde.account()
    async with open_as(following) as horde:
        if not account.number:  # the former key is none's: either never was, or no more
            return (await horde.account()).number
        return (await rotate(horde, former.public, former)).number


def _nonce() -> bytes:
    return secrets.token_bytes(NONCE_BYTES)


def _valid_until(horde: Client) -> int:
    return horde.now() + VALID_MS
