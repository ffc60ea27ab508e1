"""The addresses at which peers may be tested besides those that their connections come from.

A connection comes by one version of IP. Who has both is asked to come a second time by the other one, with a token that
serves once: what the tracker then sees is, as with the connection itself, where somebody of this peer really is.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from protocol.messages import Look
from tracker.forwarded import IPAddress
from tracker.meeting import TOKEN_BYTES, TOKEN_MS

if TYPE_CHECKING:
    from tracker.conversation import Conversation


@dataclass(frozen=True)
class _Awaited:
    conversation: Conversation
    family: Literal[4, 6]
    until: int


class Looks:
    """Who was asked to come a second time, and from where those came who did."""

    def __init__(self) -> None:
        self._awaited: OrderedDict[bytes, _Awaited] = OrderedDict()
        self._tokens: dict[Conversation, bytes] = {}
        self._seen: dict[Conversation, IPAddress] = {}

    def __len__(self) -> int:
        return len(self._awaited) + len(self._seen)

    def invitation(self, conversation: Conversation, now: int) -> Look | None:
        """What this peer is told, whose address is known; None if it is awaited already."""
        self._sweep(now)
        if conversation in self._tokens or conversation.address is None:
            return None
        token = secrets.token_bytes(TOKEN_BYTES)
        family: Literal[4, 6] = 4 if conversation.address.version == 6 else 6
        self._tokens[conversation] = token
        self._awaited[token] = _Awaited(conversation, family, now + TOKEN_MS)
        return Look(token=token, family=family)

    def knows(self, conversation: Conversation) -> bool:
        """Whether this peer was asked to come, or has come."""
        return conversation in self._tokens or conversation in self._seen

    def arrive(self, token: bytes, address: IPAddress | None, now: int) -> Conversation | None:
        """Somebody comes with a token, which serves no more; whose second address is known by that."""
        self._sweep(now)
        awaited = self._awaited.pop(token, None)
        if awaited is None:
            return None
        conversation = awaited.conversation
        del self._tokens[conversation]
        if address is not None and address.version == awaited.family:
            self._seen[conversation] = address
        return conversation

    def other(self, conversation: Conversation) -> IPAddress | None:
        """From where this peer came the second time."""
        return self._seen.get(conversation)

    def drop(self, conversation: Conversation) -> None:
        """Its connection is gone."""
        self._seen.pop(conversation, None)
        if (token := self._tokens.pop(conversation, None)) is not None:
            del self._awaited[token]

    def _sweep(self, now: int) -> None:
        """Who did not come in time has no other address. Tokens lie in the order of their ends."""
        while self._awaited:
            token, awaited = next(iter(self._awaited.items()))
            if now <= awaited.until:
                return
            del self._awaited[token], self._tokens[awaited.conversation]
