"""All requests of one client that are under way, and their jobs by handle."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from peer.asking import Asking
from peer.events import Refused
from peer.follow import LeaseCame, SettlementCame
from peer.job import Job
from protocol import messages
from protocol.envelope import Envelope
from protocol.messages import Held


class Askings:
    """Those whose last job has not ended. Any of them may end while they are gone through."""

    def __init__(self) -> None:
        self._askings: dict[bytes, Asking] = {}
        self._jobs: dict[bytes, Job] = {}
        self._ended = asyncio.Event()

    def __iter__(self) -> Iterator[Asking]:
        return iter(list(self._askings.values()))

    def __len__(self) -> int:
        return len(self._askings)

    def __contains__(self, asking: Asking) -> bool:
        return asking.nonce in self._askings

    def add(self, asking: Asking) -> None:
        """A request is about to be sent."""
        self._askings[asking.nonce] = asking

    def finished(self, asking: Asking) -> None:
        """Nothing of it is under way any more."""
        self._askings.pop(asking.nonce, None)
        for job in asking.jobs:
            self._jobs.pop(job.handle, None)
        self.stir()

    def stir(self) -> None:
        """Whoever waits for a change looks again."""
        self._ended.set()

    async def changed(self) -> None:
        """Wait until another one has ended, or until somebody stirs."""
        self._ended.clear()
        await self._ended.wait()

    def fail(self, error: BaseException) -> None:
        """None of them can go on."""
        for asking in self:
            asking.fail(error)

    def close(self, error: BaseException) -> None:
        """Their readers hear nothing more than this."""
        for asking in self:
            asking.inbox.close(error)

    # What the tracker says of them

    def held(self) -> Iterator[Held]:
        """What we hold of all of them."""
        return (held for asking in self for held in asking.held())

    def queued(self, queued: messages.Queued) -> None:
        """A request was taken in, and has these jobs now."""
        for asking in self:
            if asking.envelope.digest != queued.request:
                continue
            if len(queued.jobs) != asking.n:
                text = f"the tracker made {len(queued.jobs)} jobs of a request for {asking.n}"
                asking.fail(Refused("bad_body", text))
            before = list(asking.jobs)
            for job in asking.queued(queued):
                self._jobs[job.handle] = job
            for job in before:
                if job not in asking.jobs:
                    self._jobs.pop(job.handle, None)

    def tell(
        self, handle: bytes, said: LeaseCame | SettlementCame | messages.Position | messages.Requeued | messages.Ended
    ) -> None:
        """Something about one job."""
        if handle in self._jobs:
            self._jobs[handle].tell(said)

    def told(self, message: messages.Meet | messages.Punch | messages.Paths) -> None:
        """Something about the way to the worker of a job."""
        if message.job in self._jobs:
            self._jobs[message.job].told(message)

    def refused(self, refused: messages.Refused) -> bool:
        """The tracker refuses something; whether it was one of these, or about the way to a worker."""
        if any(job.refused(refused) for job in self._jobs.values()):
            return True
        for asking in self:
            if asking.envelope.digest == refused.about:
                asking.fail(Refused(refused.code, refused.text))
                return True
        return False

    def stated(self, digest: bytes) -> tuple[Job, Envelope] | None:
        """The statement with this digest, and the job that it is about."""
        for asking in self:
            for job in asking.jobs:
                if job.statement is not None and job.statement.digest == digest:
                    return job, job.statement
        return None
