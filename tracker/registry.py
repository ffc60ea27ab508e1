"""Accounts as people meet them: registering, being shown, letting other keys act, changing the key, leaving.

Each act is durable first. Then every session of a key that gained or lost an account by it has it or not, whatever that
session is doing, and hears of it; a worker whose key lost its account gets no new lease.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Set
from functools import partial
from typing import TYPE_CHECKING

from protocol.documents import (
    Award,
    Delegation,
    Document,
    Leaving,
    Profile,
    Recovery,
    Revocation,
    Rotation,
    Transfer,
)
from protocol.envelope import Envelope
from protocol.errors import NotRegistered, WrongSigner
from protocol.messages import MAX_GIVEN_ENTRIES, Account, Delegations, Given, Register, Taken
from protocol.rules import Rules
from tracker.accounts import Acting, check_own
from tracker.jobs import Jobs
from tracker.store.base import Store
from tracker.timers import Timers

if TYPE_CHECKING:
    from tracker.askers import Askers
    from tracker.conversation import Conversation

log = logging.getLogger(__name__)

_KUDOS = "Kudos is earned by serving, decides who goes first, and cannot be bought."
NOTICE = f"This horde is free for everyone, always, with and without an account. {_KUDOS}"
NOTICE_TO_MEMBERS = f"This horde serves its members, and is free for them, always. {_KUDOS}"


def notice(rules: Rules) -> str:
    """What everybody is told with his account."""
    return NOTICE if rules.accounts.anonymous else NOTICE_TO_MEMBERS


class Registry:
    """The accounts of one tracker process, and which of its sessions has which."""

    def __init__(
        self,
        store: Store,
        jobs: Jobs,
        conversations: Set[Conversation],
        askers: Askers,
        *,
        clock: Callable[[], int],
    ) -> None:
        self._store = store
        self._jobs = jobs
        self._askers = askers
        self._conversations = conversations
        self._clock = clock
        self._timers = Timers()
        self._watched: set[tuple[bytes, int]] = set()  # keys, each with an end that is awaited

    def tick(self, now: int) -> None:
        """Delegations that have expired by now are over."""
        self._timers.run(now)

    @property
    def _notice(self) -> str:
        return notice(self._jobs.rules.rules)

    # Which session has which account

    async def greet(self, conversation: Conversation) -> None:
        """A peer has said who it is."""
        self._act_as(conversation, await self._store.acting(conversation.key, self._clock()))

    async def await_account(self, conversation: Conversation) -> None:
        """A `register` just before may still be on its way to the disk; the store answers in order."""
        if conversation.is_registering and not conversation.account:
            await self.greet(conversation)

    def _act_as(self, conversation: Conversation, acting: Acting) -> bool:
        """From now on the session acts so; whether that is news."""
        before = conversation.acting
        if before == acting:
            return False
        conversation.acting, conversation.account = acting, acting.account
        may_not_work = acting.grant is not None and not acting.grant.terms.work
        # What a session begins as says nothing against the worker that another session of its key speaks for.
        if before.account and (acting.account != before.account or may_not_work):
            self._jobs.pool.remove(conversation.key)
        if acting.expires and (conversation.key, acting.expires) not in self._watched:
            self._watched.add((conversation.key, acting.expires))
            self._timers.at(acting.expires + 1, partial(self._expired, conversation.key, acting.expires))
        return True

    def _expired(self, key: bytes, expires: int) -> None:
        """A delegation has come to its end by itself."""
        self._watched.discard((key, expires))
        for conversation in self._sessions(key):
            if self._act_as(conversation, conversation.acting.at(self._clock())):
                conversation.tell(Account(number=0, notice=self._notice))

    def _sessions(self, key: bytes) -> list[Conversation]:
        return [found for found in self._conversations if found.is_open and found.key == key]

    async def _changed(self, keys: Iterable[bytes], *, but: Conversation) -> None:
        """These keys act for somebody else now, or for nobody: their sessions follow, and hear of it. but: a session
        that is told by its answer."""
        for key in keys:
            acting = await self._store.acting(key, self._clock())
            for conversation in self._sessions(key):
                if self._act_as(conversation, acting) and conversation is not but:
                    await self.tell_account(conversation)

    # What people say

    async def register(self, conversation: Conversation, said: Register) -> None:
        """The peer's key wants to be an account."""
        mode = self._jobs.rules.rules.accounts.registration
        conversation.is_registering = True
        if mode != "closed":
            await self._store.register(conversation.key, self._clock(), said.invite if mode == "invited" else None)
        await self._changed([conversation.key], but=conversation)
        if mode == "closed" and not conversation.account:  # asked of the store: the session may be behind it
            served = self._jobs.rules.rules.accounts.anonymous
            raise NotRegistered(
                "this horde takes no new accounts; you are served without one"
                if served
                else "this horde takes no new accounts and serves only those that it has: ask its operator"
            )
        await self.tell_account(conversation)

    async def take(self, conversation: Conversation, envelope: Envelope, document: Document) -> None:
        """A document about an account."""
        if envelope.key != conversation.key and not isinstance(document, Rotation):
            raise WrongSigner(f"a {envelope.kind} by another key than this session's")
        await self.await_account(conversation)
        now = self._clock()
        changed = await self._carry_out(conversation, envelope, document, now)
        # First, for who hears that it is taken asks at once how it stands.
        await self._changed(changed, but=conversation)
        conversation.tell(Taken(documents=(envelope.digest,)))
        if isinstance(document, Profile | Rotation | Leaving | Transfer):
            await self.tell_account(conversation)

    async def _carry_out(
        self, conversation: Conversation, envelope: Envelope, document: Document, now: int
    ) -> Iterable[bytes]:
        """Store what the document brings about; the keys for which something is different by it."""
        store = self._store
        match document:
            case Profile():
                # Workers are told whether a service asks: what is asked from here on looks that up again, behind this
                # step, and what was being looked up before it is not remembered.
                self._askers.forget(conversation.account)
                await store.profile(envelope, document, now)
                self._askers.forget(conversation.account)
            case Delegation():
                await store.delegate(envelope, document, now)
                return [document.delegate]
            case Revocation():
                return [await store.revoke(envelope, document, now)]
            case Recovery():
                await store.name_recovery(envelope, document, now)
            case Rotation():
                former = await store.rotate(envelope, document, sender=conversation.key, now=now)
                return [former, document.key]
            case Leaving():
                return await store.leave(envelope, document, now)
            case Transfer():
                await store.transfer(envelope, document, now)
            case Award():
                await store.award(envelope, document, now)
                log.info("awarded %d thousandths to account %d", document.amount, document.account)
        return []

    # Answers

    async def tell_account(self, conversation: Conversation, worker: bytes | None = None) -> None:
        """How the peer's account stands, and by what the worker of a key knows it."""
        number, now = conversation.account, self._clock()
        if not number:
            conversation.tell(Account(number=0, notice=self._notice))
            return
        state = await self._store.account(number, now)
        if state.withheld and not state.missing and await self._store.vest(number, self._clock()):
            state = await self._store.account(number, now)
        face = await self._store.face(number)
        conversation.tell(
            Account(
                number=state.number,
                balance=state.balance,
                held=state.held,
                earned=state.earned,
                spent=state.spent,
                taken_free=state.taken_free,
                jobs_done=state.jobs_done,
                jobs_received=state.jobs_received,
                notice=self._notice,
                name=face.name,
                public=face.public,
                service=face.service,
                withheld=state.withheld,
                trust_jobs=state.missing.jobs,
                trust_days=max(state.missing.days, state.missing.fault_days),
                faults=state.faults,
                pseudonym=self._store.pseudonyms.of(worker, number) if worker else b"",
            )
        )

    async def tell_delegations(self, conversation: Conversation) -> None:
        """The delegations of the peer's account that stand, in parts."""
        await self.await_account(conversation)
        check_own(conversation.acting, "question for delegations")
        granted = await self._store.granted(conversation.account, self._clock()) if conversation.account else ()
        given = [Given(delegation=grant.document, used=max(0, grant.used)) for grant in granted]
        for at in range(0, len(given) or 1, MAX_GIVEN_ENTRIES):
            conversation.tell(
                Delegations(
                    entries=tuple(given[at : at + MAX_GIVEN_ENTRIES]), last=at + MAX_GIVEN_ENTRIES >= len(given)
                )
            )
