"""Moderation as peers meet it: acts taken and brought to bear, told to whom they concern, and answered.

Each act is durable first. Then what stands is read anew, workers are taken out of the pool or come back to it, jobs of
who may not ask any more end, and everybody whom the act concerns hears of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence, Set
from typing import TYPE_CHECKING

from protocol.documents import Award
from protocol.envelope import Envelope
from protocol.errors import WrongSigner
from protocol.governing import Act, Appeal
from protocol.messages import MAX_ACT_ENTRIES, MAX_APPEAL_ENTRIES, ActEntry, Acts, AppealEntry, Appeals, Taken
from protocol.postings import ANONYMOUS
from tracker import lifecycle
from tracker.jobs import Jobs
from tracker.sanctions import WORDS, Sanctions, check_role
from tracker.store.base import Logged, Store

if TYPE_CHECKING:
    from tracker.conversation import Conversation

log = logging.getLogger(__name__)


class Moderation:
    """What stands at one tracker process. feed: gives a session's worker its leases, or keeps it from them."""

    def __init__(
        self,
        store: Store,
        jobs: Jobs,
        conversations: Set[Conversation],
        feed: Callable[[Conversation], None],
        *,
        serving: bytes,
        clock: Callable[[], int],
    ) -> None:
        self._store = store
        self._jobs = jobs
        self._conversations = conversations
        self._feed = feed
        self._serving = serving
        self._clock = clock
        self._next_end = 0
        self.sanctions = Sanctions()
        jobs.bars = self._bars

    async def load(self) -> None:
        """Read what stands."""
        now = self._clock()
        self.sanctions = Sanctions(await self._store.sanctions(now))
        self._next_end = self.sanctions.next_end(now)

    def tick(self, now: int) -> None:
        """Acts that have come to their end by now keep nobody from anything."""
        if self._next_end and now > self._next_end:
            self._next_end = self.sanctions.next_end(now)
            self._feed_all(now)

    # What stands against whom

    def _bars(self, account: int) -> bool:
        return self.sanctions.bar(account, self._clock()) is not None

    def check_ask(self, conversation: Conversation, payer: int, open_jobs: int, n: int) -> None:
        """Refuse a request that an act forbids."""
        if payer == ANONYMOUS:
            self.check_network(conversation)
        else:
            self.sanctions.check_ask(payer, open_jobs, n, self._clock())

    def check_network(self, conversation: Conversation) -> None:
        """Refuse people without an account from a network that is blocked."""
        self.sanctions.check_block(conversation.block, self._clock())

    def keeps_from_work(self, conversation: Conversation) -> bool:
        """Whether an act keeps the session's worker from leases."""
        found = self.sanctions.keeps_from_work(conversation.account, conversation.key, self._clock())
        return found is not None

    # What moderators and people say

    async def take(self, conversation: Conversation, envelope: Envelope, said: Act | Appeal) -> None:
        """An act, or an appeal against one."""
        if envelope.key != conversation.key:
            raise WrongSigner(f"a {envelope.kind} by another key than this session's")
        now = self._clock()
        if isinstance(said, Appeal):
            acted = await self._store.appeal(envelope, said, now)
        else:
            acted = await self._store.act(envelope, said, now)
            log.info("act %d: %s, account %d", acted.number, said.act, acted.account)
            await self._bring_to_bear(acted.account)
        conversation.tell(Taken(documents=(envelope.digest,)))
        if acted.account:
            await self._tell_all(acted.account)

    async def _bring_to_bear(self, account: int) -> None:
        await self.load()
        now = self._clock()
        self._feed_all(now)
        if self.sanctions.bar(account, now) is not None:
            for waiting in self._jobs.queue.of(account):
                self._jobs.happen(waiting.handle, 0, lifecycle.Barred())

    def _feed_all(self, now: int) -> None:
        """Workers that may not work any more go, those that may again come back."""
        for conversation in list(self._conversations):
            if conversation.is_open and conversation.announced is not None and conversation.account:
                kept = self.sanctions.keeps_from_work(conversation.account, conversation.key, now)
                if (kept is None) != (conversation.key in self._jobs.pool.workers):
                    self._feed(conversation)

    # Answers

    async def greet(self, conversation: Conversation) -> None:
        """A peer has said who it is: it hears of what stands against its account, or waits for a second signature."""
        if conversation.account:
            found = await self._store.acts_of(conversation.account, self._clock(), MAX_ACT_ENTRIES)
            if standing := [one for one in found if _matters(one)]:
                conversation.tell(Acts(entries=_entries(standing)))

    async def tell_acts(self, conversation: Conversation) -> None:
        """All acts that concern the peer's account."""
        account = conversation.account
        found = await self._store.acts_of(account, self._clock(), MAX_ACT_ENTRIES) if account else ()
        conversation.tell(Acts(entries=_entries(found)))

    async def _tell_all(self, account: int) -> None:
        for conversation in list(self._conversations):
            if conversation.is_open and conversation.account == account:
                await self.tell_acts(conversation)

    async def tell_appeals(self, conversation: Conversation) -> None:
        """The appeals that nobody has answered, for who has a role."""
        check_role(conversation.key, self._jobs.rules.rules, self._serving)
        found, more = await self._store.appeals(self._clock(), MAX_APPEAL_ENTRIES)
        entries = tuple(AppealEntry(account=one.account, appeal=one.document, entry=_entry(one.about)) for one in found)
        conversation.tell(Appeals(entries=entries, more=more))


def _matters(one: Logged) -> bool:
    """Whether an act means something for its account now; words on other acts do as long as they wait."""
    if one.kind in WORDS:
        return one.state == "proposed"
    return one.state != "over" and one.kind != Award.KIND


def _entries(found: Sequence[Logged]) -> tuple[ActEntry, ...]:
    return tuple(_entry(one) for one in found if one.kind != Award.KIND)


def _entry(one: Logged) -> ActEntry:
    return ActEntry(number=one.number, act=one.document, state=one.state, appeals=one.appeals)
