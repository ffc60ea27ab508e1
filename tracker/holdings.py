"""What a peer and the tracker hold of each other's, and what either lacks once they have said so.

Requests that a requester made, leases and receipts of a worker: after a lost connection, or a restart of either side,
each is taken up where it stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from protocol.messages import Held, Queued, Taken, Withdrawn
from tracker import lifecycle
from tracker.jobs import Jobs, ended
from tracker.lifecycle import State
from tracker.presence import Presence
from tracker.store.base import Standing, Store

if TYPE_CHECKING:
    from tracker.conversation import Conversation


class Holdings:
    """Those of everybody who is here."""

    def __init__(self, store: Store, presence: Presence, jobs: Jobs) -> None:
        self._store = store
        self._presence = presence
        self._jobs = jobs

    async def of(self, conversation: Conversation) -> list[Held]:
        """What the tracker holds for a peer: leases and receipts of a worker, requests of a requester."""
        held = [
            Held(
                kind="receipt" if lease.receipt else "lease",
                job=lease.job,
                attempt=lease.attempt,
                digest=lease.receipt or lease.digest,
            )
            for lease in self._jobs.leases.of_worker(conversation.key)
        ]
        for nonce, digest in await self._store.open_requests(conversation.key):
            held.append(Held(kind="request", job=nonce, digest=digest))
        return held

    async def reconcile(self, conversation: Conversation, held: Sequence[Held]) -> None:
        """A peer has said what it holds: give it what it lacks."""
        attempts = [(entry.job, entry.attempt) for entry in held if entry.kind in ("lease", "receipt")]
        if attempts:
            conversation.held = frozenset(attempts)
        for entry in held:
            if entry.kind == "request":
                await self.resume_request(conversation, entry.job, entry.digest)
            elif entry.kind in ("lease", "receipt"):
                lease = self._jobs.leases.find(conversation.key, entry.job, entry.attempt)
                if lease is None:
                    await self._tell_ended_lease(conversation, entry)
                elif entry.kind == "receipt" and lease.receipt == entry.digest:
                    conversation.tell(Taken(documents=(entry.digest,)))
                elif lease.cancelled and not lease.receipt:
                    conversation.tell(Withdrawn(job=lease.job, attempt=lease.attempt, reason="cancelled"))

    async def _tell_ended_lease(self, conversation: Conversation, entry: Held) -> None:
        """A worker holds what has ended here: the settlement, if it was paid for; else that it can let go."""
        standing = await self._store.standing(entry.job, entry.attempt)
        if standing is not None and standing.job.settled == entry.attempt and standing.settlement:
            conversation.hand(standing.settlement)
        elif entry.kind == "lease" or standing is None or standing.job.state not in lifecycle.LIVE:
            conversation.tell(Withdrawn(job=entry.job, attempt=entry.attempt, reason=_why_over(standing)))

    async def resume_request(self, conversation: Conversation, nonce: bytes, digest: bytes) -> None:
        """Where a request stands that was taken in before, if it is the same."""
        found = await self._store.standing_of_request(conversation.key, nonce)
        if found is not None and found[0] == digest:
            self.tell_request(conversation, *found)

    def tell_request(self, conversation: Conversation, digest: bytes, standings: Sequence[Standing]) -> None:
        """Where a request stands, job by job; from now on this connection follows it."""
        if conversation.is_closed:
            return
        if any(standing.job.state in lifecycle.LIVE for standing in standings):
            self.watch(conversation, digest)
        jobs = tuple(standing.job.handle for standing in standings)
        conversation.tell(Queued(request=digest, jobs=jobs, held=sum(standing.job.held for standing in standings)))
        for standing in standings:
            job, attempt = standing.job, standing.attempt
            if standing.settlement:
                conversation.hand(standing.settlement)
            elif job.state not in lifecycle.LIVE:
                conversation.tell(ended(job, 0))
            elif attempt is not None and job.state is not State.WAITING:
                self._presence.hand_lease(conversation, attempt.worker, standing.lease)
        self._jobs.follow_request(digest)

    def watch(self, conversation: Conversation, request: bytes) -> None:
        """From now on this connection follows the request."""
        if not conversation.is_closed:
            self._presence.set_requester(request, conversation)
            conversation.requests.add(request)


def _why_over(standing: Standing | None) -> str:
    """The word by which a worker hears that its lease is over."""
    if standing is not None and standing.job.state in lifecycle.LIVE:
        return "replaced"
    return "settled" if standing is not None and standing.job.state is State.SETTLED else "ended"
