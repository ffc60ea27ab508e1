"""Leases whose jobs have not ended, as the tracker remembers them; the store knows the rest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tracker.lifecycle import Attempt, Job, Stage, State


@dataclass(slots=True)
class LiveLease:
    """One lease. receipt: digest, once its worker has delivered. cancelled: its requester wants it no more."""

    job: bytes
    attempt: int
    worker: bytes
    request: bytes
    stage: Stage
    digest: bytes
    deadline: int
    receipt: bytes = b""
    cancelled: bool = False

    @property
    def name(self) -> tuple[bytes, int]:
        """Job and attempt."""
        return self.job, self.attempt


class Leases:
    """All live leases, by worker and by job."""

    def __init__(self) -> None:
        self._of_worker: dict[bytes, dict[tuple[bytes, int], LiveLease]] = {}
        self._of_job: dict[bytes, LiveLease] = {}

    def __len__(self) -> int:
        return len(self._of_job)

    def remember(self, job: Job, attempt: Attempt) -> LiveLease:
        """The lease of a job's latest attempt, as it now stands."""
        lease = LiveLease(
            job=job.handle,
            attempt=attempt.attempt,
            worker=attempt.worker,
            request=job.request,
            stage=attempt.stage,
            digest=attempt.lease,
            deadline=attempt.deadline,
            receipt=attempt.receipt if job.state is State.DELIVERED else b"",
            cancelled=bool(job.cancelled),
        )
        self._of_worker.setdefault(attempt.worker, {})[lease.name] = lease
        self._of_job[job.handle] = lease
        return lease

    def drop(self, lease: LiveLease) -> None:
        """The lease has ended."""
        leases = self._of_worker.get(lease.worker, {})
        leases.pop(lease.name, None)
        if not leases:
            self._of_worker.pop(lease.worker, None)
        if self._of_job.get(lease.job) is lease:
            del self._of_job[lease.job]

    def of_job(self, handle: bytes) -> LiveLease | None:
        """The live lease of a job."""
        return self._of_job.get(handle)

    def of_worker(self, worker: bytes) -> list[LiveLease]:
        """The live leases of a worker."""
        return list(self._of_worker.get(worker, {}).values())

    def find(self, worker: bytes, job: bytes, attempt: int) -> LiveLease | None:
        """One live lease of a worker."""
        return self._of_worker.get(worker, {}).get((job, attempt))

    def all(self) -> Iterable[LiveLease]:
        """Every live lease."""
        return self._of_job.values()
