"""What people say about their accounts, by hand: documents that are right unless a test changes them."""

from __future__ import annotations

import secrets
from typing import Any

import aiohttp

from protocol.documents import Delegation, Document, Leaving, Profile, Recovery, Revocation, Rotation, sign
from protocol.envelope import Envelope
from protocol.keys import SigningKey
from protocol.messages import Account, AskAccount, Refused, Taken
from tests.support.horde import Horde
from tests.support.raw_peer import RawPeer, now_ms

HALF_AN_HOUR = 30 * 60 * 1000


def once() -> dict[str, Any]:
    """Nonce and validity of a fresh document."""
    return {"nonce": secrets.token_bytes(16), "valid_until": now_ms() + HALF_AN_HOUR}


def a_profile(name: str, **fields: Any) -> Profile:
    """A profile that replaces the one before."""
    values: dict[str, Any] = {"version": now_ms(), "name": name}
    return Profile(**values | fields)


def a_delegation(delegate: bytes, **bounds: Any) -> Delegation:
    """A delegation to a key, by which it may work and ask unless `bounds` say otherwise."""
    return Delegation(**once() | {"delegate": delegate, "work": True, "ask": True} | bounds)


def a_revocation(delegation: bytes) -> Revocation:
    """A delegation is taken back."""
    return Revocation(**once(), delegation=delegation)


def a_recovery(key: bytes) -> Recovery:
    """A recovery key is named."""
    return Recovery(version=now_ms(), recovery=key)


def a_rotation(former: bytes, key: bytes) -> Rotation:
    """An account gets another key."""
    return Rotation(**once(), former=former, key=key)


def a_leaving() -> Leaving:
    """An account ends."""
    return Leaving(**once())


async def present(peer: RawPeer, document: Document, key: SigningKey | None = None) -> Envelope:
    """Hand a document over, by the peer's key unless another one is given; it must be taken."""
    envelope = sign(document, key or peer.key, peer.root)
    await again(peer, envelope)
    return envelope


async def again(peer: RawPeer, envelope: Envelope) -> None:
    """The same bytes; they must be taken."""
    await peer.send(envelope.raw)
    taken = await peer.expect(Taken)
    assert taken.documents == (envelope.digest,)


async def refused(peer: RawPeer, document: Document, key: SigningKey | None = None) -> Refused:
    """Hand a document over that must be refused; how it was."""
    envelope = sign(document, key or peer.key, peer.root)
    await peer.send(envelope.raw)
    found = await refusal(peer)
    assert found.about == envelope.digest
    return found


async def refusal(peer: RawPeer) -> Refused:
    """The refusal that comes next."""
    return (await peer.envelope("refused")).open(Refused)


async def account(peer: RawPeer) -> Account:
    """How the peer's account stands, asked for now."""
    peer.heard = [envelope for envelope in peer.heard if envelope.kind != "account"]
    await peer.say(AskAccount())
    return await peer.expect(Account)


async def get(horde: Horde, path: str) -> tuple[int, dict[str, Any]]:
    """What anybody reads at the tracker: status and content."""
    assert horde.door is not None
    url = horde.door.url.replace("ws", "http", 1) + path
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        content: dict[str, Any] = await answer.json()
        return answer.status, content
