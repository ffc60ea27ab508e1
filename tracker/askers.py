"""What leases say of who asks, remembered for a while, so that not every request has to be looked up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol.postings import ANONYMOUS
from tracker.lifecycle import NO_FACTS, Facts

if TYPE_CHECKING:
    from tracker.store.base import Store

#: What is known of an account holds for so long.
FRESH_MS = 60_000
#: Accounts that are remembered.
KEPT = 10_000


class Askers:
    """Facts about the accounts that asked lately."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[int, tuple[int, Facts]] = {}

    async def facts(self, account: int, labels: tuple[str, ...], now: int) -> Facts:
        """What leases say of a request of this account with these labels."""
        found = NO_FACTS if account == ANONYMOUS else await self._of(account, now)
        return Facts(labels, found.service, found.give_back)

    async def _of(self, account: int, now: int) -> Facts:
        since, found = self._known.get(account, (0, NO_FACTS))
        if not 0 <= now - since < FRESH_MS:
            found = await self._store.facts(account, now)
            if len(self._known) >= KEPT:
                self._known.clear()
            self._known[account] = now, found
        return found

    def forget(self, account: int) -> None:
        """Something about it has changed."""
        self._known.pop(account, None)
