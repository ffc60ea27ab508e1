"""Waiting jobs by who asked for them, for workers that serve some people before others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from protocol.postings import ANONYMOUS

if TYPE_CHECKING:
    from tracker.fitting import Constraints
    from tracker.matching import Waiting


class Payers:
    """The jobs that wait with their requester present, by account and constraints, in the order in which they came."""

    def __init__(self) -> None:
        self._jobs: dict[int, dict[Constraints, dict[bytes, None]]] = {}

    def add(self, job: Waiting) -> None:
        """A job waits."""
        if job.payer != ANONYMOUS:
            self._jobs.setdefault(job.payer, {}).setdefault(job.constraints, {})[job.handle] = None

    def remove(self, job: Waiting) -> None:
        """It waits no more."""
        if job.payer == ANONYMOUS:
            return
        alike = self._jobs[job.payer][job.constraints]
        del alike[job.handle]
        if not alike:
            del self._jobs[job.payer][job.constraints]
            if not self._jobs[job.payer]:
                del self._jobs[job.payer]

    def among(self, accounts: frozenset[int]) -> Iterator[int]:
        """Those of the accounts that have jobs here."""
        return (account for account in accounts if account in self._jobs)

    def of(self, account: int) -> Mapping[Constraints, Mapping[bytes, None]]:
        """The jobs of one account."""
        return self._jobs.get(account, {})
