"""Having a say as peers meet it: proposals, votes, answers; and votes that come to their end."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from protocol.documents import open_document
from protocol.envelope import Envelope, parse
from protocol.errors import WrongSigner
from protocol.governing import Answer, Outcome, Proposal, Vote
from protocol.messages import Taken
from tracker.store.base import Store, StoreError

if TYPE_CHECKING:
    from tracker.conversation import Conversation

log = logging.getLogger(__name__)

#: Votes are counted so soon after their end.
COUNT_MS = 1000


class Votes:
    """The votes of one tracker process."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._counted = 0

    async def tick(self, now: int) -> None:
        """Count what has come to its end."""
        if now - self._counted < COUNT_MS:
            return
        self._counted = now
        try:
            for raw in await self._store.end_votes(now):
                outcome = open_document(parse(raw), Outcome)
                log.info("a vote has ended: %d yes, %d no", outcome.yes, outcome.no)
        except StoreError as error:
            log.error("votes are not counted: %s", error)  # noqa: TRY400

    async def take(
        self, conversation: Conversation, envelope: Envelope, said: Proposal | Vote | Answer, now: int
    ) -> None:
        """What somebody says about the rules."""
        if envelope.key != conversation.key:
            raise WrongSigner(f"a {envelope.kind} by another key than this session's")
        if isinstance(said, Answer):
            await self._store.answer(envelope, said, now)
        elif isinstance(said, Proposal):
            number = await self._store.propose(envelope, said, now)
            log.info("proposal %d: %s", number, said.key)
        else:
            await self._store.vote(envelope, said, now)
        conversation.tell(Taken(documents=(envelope.digest,)))
