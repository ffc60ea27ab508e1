"""One request under way: what was signed, its jobs, and the events that wait for whoever asked."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence

from peer import events
from peer.events import BadRequest, Event, PotluckError
from peer.follow import Asked, Follow
from peer.job import Desk, Job, Secrets
from peer.ranges import encoded, explain
from protocol import codec
from protocol.digests import private_digest
from protocol.documents import Cancel, Request, sign
from protocol.envelope import Envelope
from protocol.errors import Refusal
from protocol.keys import SigningKey
from protocol.messages import Held, Private, Queued
from protocol.work import PrivatePart, PublicPart, check_private

#: How long the tracker may take a request in; within this time it is sent again after a lost connection.
VALID_MS = 30 * 60 * 1000
NONCE_BYTES = 16


class Inbox:
    """Events for one reader. Of progress and previews only the latest waits, so that a slow reader costs no memory."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._closed = False
        self._error: BaseException | None = None
        self._changed = asyncio.Event()

    def put(self, event: Event) -> None:
        """Add an event behind the others."""
        last = self._events[-1] if self._events else None
        passing = isinstance(event, events.Progress | events.Preview) and type(last) is type(event)
        if passing and last is not None and last.index == event.index:
            self._events.pop()
        self._events.append(event)
        self._changed.set()

    def close(self, error: BaseException | None = None) -> None:
        """Nothing more comes; after what waits, the reader gets `error`, if there is one. The first close counts."""
        if not self._closed:
            self._closed, self._error = True, error
            self._changed.set()

    async def read(self) -> AsyncIterator[Event]:
        """Everything, in order; raises the error that it was closed with."""
        while True:
            while self._events:
                yield self._events.popleft()
            if self._closed:
                break
            self._changed.clear()
            await self._changed.wait()
        if self._error is not None:
            raise self._error


class Asking:
    """One request, from its signature to the end of its last job.

    finished: called once, when nothing of it is under way any more. user: a service's pseudonym of its user.
    """

    def __init__(
        self,
        public: PublicPart,
        private: PrivatePart,
        key: SigningKey,
        desk: Desk,
        random: random.Random,
        finished: Callable[[Asking], None],
        user: bytes = b"",
    ) -> None:
        self.nonce = secrets.token_bytes(NONCE_BYTES)
        self.inbox = Inbox()
        self.jobs: list[Job] = []
        self.cancelled: Envelope | None = None
        self._public = public
        self._seed = private.seed
        job_key, content = SigningKey.generate(), _checked(public, private)
        self._desk = desk
        self._random = random
        self._finished = finished
        self._ended = 0
        self._error: PotluckError | None = None
        document = Request(
            nonce=self.nonce,
            valid_until=desk.line.now() + VALID_MS,
            public=public,
            private_digest=private_digest(content),
            job_key=job_key.public,
            user=user,
        )
        self.envelope = sign(document, key, desk.line.root)
        self._secrets = Secrets(job_key, content, self.envelope.raw)

    @property
    def n(self) -> int:
        """How many results were asked for."""
        return self._public.n

    def held(self) -> list[Held]:
        """What of this request is to be listed after a reconnect."""
        request = Held(kind="request", job=self.nonce, digest=self.envelope.digest)
        return [request, *(held for job in self.jobs for held in job.held())]

    def statements(self) -> list[Envelope]:
        """Statements that the tracker has not answered, and the cancel, if there was one."""
        stated = [job.statement for job in self.jobs if job.held() and job.statement is not None]
        return [*stated, self.cancelled] if self.cancelled is not None else stated

    async def send(self) -> None:
        """Send the private part, then the request: the same bytes each time."""
        if await self._desk.line.say(Private(private=self._secrets.private)) is not None:
            await self._desk.line.send_document(self.envelope)

    def queued(self, queued: Queued) -> Sequence[Job]:
        """The tracker took the request in; the jobs that are new by this. Said again after a reconnect."""
        if len(queued.jobs) != self.n:
            return []
        if self.jobs:
            return self._queued_anew(queued.jobs)
        self.jobs = [self._job(index, handle) for index, handle in enumerate(queued.jobs)]
        for index, handle in enumerate(queued.jobs):
            self.inbox.put(events.Queued(index, handle, queued.held))
        if self.cancelled is not None:
            for job in self.jobs:
                job.decide.cancel()
        return self.jobs

    def _queued_anew(self, handles: Sequence[bytes]) -> Sequence[Job]:
        """The horde was restored from a copy older than this request: jobs of which nothing was said begin anew, the
        others are not wanted a second time."""
        begun: list[Job] = []
        for index, handle in enumerate(handles):
            job = self.jobs[index]
            if job.handle == handle:
                continue
            if not job.is_under_way:
                _ = self._desk.spawn(self._send_cancel(handle))
                continue
            job.abandon()
            self.jobs[index] = self._job(index, handle)
            begun.append(self.jobs[index])
            self.inbox.put(events.Restarted(index, "the horde was restored from a copy and begins this job anew"))
        return begun

    async def _send_cancel(self, handle: bytes) -> None:
        valid_until = self._desk.line.now() + VALID_MS
        document = Cancel(nonce=secrets.token_bytes(NONCE_BYTES), valid_until=valid_until, job=handle)
        await self._desk.line.send_document(sign(document, self._secrets.job_key, self._desk.line.root))

    async def cancel(self) -> None:
        """Nobody wants the rest any more: say so, once."""
        if self.cancelled is not None or (self.jobs and not any(job.is_under_way for job in self.jobs)):
            return
        valid_until = self._desk.line.now() + VALID_MS
        document = Cancel(nonce=secrets.token_bytes(NONCE_BYTES), valid_until=valid_until)
        self.cancelled = sign(document, self._secrets.job_key, self._desk.line.root)
        for job in self.jobs:
            job.decide.cancel()
        await self._desk.line.send_document(self.cancelled)

    async def cancel_when(self, enough: asyncio.Event) -> None:
        """Cancel as soon as this is set; what its workers have by then still comes."""
        await enough.wait()
        await self.cancel()

    def fail(self, error: BaseException) -> None:
        """End all of it at once."""
        for job in self.jobs:
            job.close()
        self.inbox.close(error)
        self._finished(self)

    def _job(self, index: int, handle: bytes) -> Job:
        asked = Asked(
            self._public,
            private_digest(self._secrets.private),
            self._secrets.job_key.public,
            index,
            self._seed + index,
        )
        decide = Follow(asked, self._desk.line.root, self._random)
        return Job(handle, decide, self._secrets, self._desk, self.inbox.put, self._job_ended)

    def _job_ended(self, error: PotluckError | None) -> None:
        # One that fails does not keep the others from their results; its error comes after them.
        self._error = self._error or error
        self._ended += 1
        if self._ended == len(self.jobs):
            self.inbox.close(self._error)
            self._finished(self)


def _checked(public: PublicPart, private: PrivatePart) -> bytes:
    """The private part as it travels; refuses here what every tracker would."""
    content = encoded(private)
    for part in (public, private):
        try:
            if part is public:
                codec.decode(encoded(public), PublicPart)
            else:
                check_private(content, public.work)
        except Refusal as error:
            text = explain(str(error), part) or f"this cannot be asked for: {error}"
            raise BadRequest(text) from error
    return content
