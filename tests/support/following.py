"""What a requester was shown of one job, event by event, and what must hold of it in the end."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TypeVar

from peer.client import Client
from peer.events import Event, Picture, Received, Restarted, TextPiece
from peer.evidence import Evidence
from peer.home import Home
from peer.verify import Verified, verify_content

E = TypeVar("E", bound=Event)


@dataclass
class Following:
    """One job's events as they come; `shown` is what its user has before the eyes."""

    events: list[Event] = field(default_factory=list)
    shown: bytes = b""

    async def until_done(self, coming: AsyncIterator[Event]) -> None:
        """Take everything."""
        async for event in coming:
            self.take(event)

    async def until(self, coming: AsyncIterator[Event], number: int, of: type[E]) -> E:
        """Take events until so many of this type have come; the last one."""
        async for event in coming:
            self.take(event)
            found = self.all(of)
            if len(found) == number:
                return found[-1]
        raise AssertionError(f"the job ended before {number} of {of.__name__}: {self.events}")

    def take(self, event: Event) -> None:
        """One event."""
        self.events.append(event)
        match event:
            case TextPiece(text=text):
                self.shown += text.encode()
            case Restarted():
                self.shown = b""
            case Picture(content=content):
                self.shown = content
            case _:
                pass

    def all(self, of: type[E]) -> list[E]:
        """Every event of this type so far."""
        return [event for event in self.events if isinstance(event, of)]

    def one(self, of: type[E]) -> E:
        """The one event of this type."""
        (event,) = self.all(of)
        return event

    def check_acknowledged(self) -> None:
        """What was shown is what was signed for and acknowledged."""
        received = self.one(Received)
        assert received.acknowledged_digest == received.receipt_digest
        assert [artifact.sha256 for artifact in received.artifacts] == [hashlib.sha256(self.shown).digest()]

    def check_kept(self, home: Home) -> Verified:
        """What was shown passes by the proofs that were kept of it, settlement included."""
        evidence = Evidence(home.results_folder)
        verified = verify_content(self.shown, evidence.proofs(hashlib.sha256(self.shown).digest()))
        assert verified.settlement is not None
        return verified


async def followed(coming: AsyncIterator[Event]) -> Following:
    """A whole job."""
    following = Following()
    await following.until_done(coming)
    return following


async def balance(client: Client) -> int:
    """What can be spent; nothing is held when this is asked."""
    account = await client.account()
    assert account.held == 0
    return account.balance
