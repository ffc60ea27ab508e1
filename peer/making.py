"""One result in the making: an engine's events into the output, and the receipt for it when it is on disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from peer.connection import Connection
from peer.engines.base import ArtifactMade, Done, Engine, EngineError, Event, PreviewMade, StepsDone, Task, TextMade
from peer.output import Output
from peer.spool import Attempt
from peer.worker_jobs import Job
from protocol.digests import new_salt
from protocol.documents import Receipt, sign
from protocol.envelope import Envelope
from protocol.frames import Preview, Progressed
from protocol.keys import SigningKey
from protocol.work import ImageWork

MAX_PREVIEW_BYTES = 64 * 1024


class Making:
    """The result of one attempt. key: the worker's. progressed: called with steps or tokens done, and all of them."""

    def __init__(
        self,
        job: Job,
        output: Output,
        key: SigningKey,
        connection: Connection,
        progressed: Callable[[Attempt, int, int], None],
    ) -> None:
        self._job = job
        self._output = output
        self._key = key
        self._connection = connection
        self._progressed = progressed

    async def run(self, engine: Engine, stop: asyncio.Event) -> Done:
        """Let the engine make it; how that ended. Raises `EngineError`."""
        running: AsyncGenerator[Event, None] = engine.run(self._task(), stop)
        async with aclosing(running) as events:
            async for event in events:
                if isinstance(event, Done):
                    return event
                self._take(event)
                self._output.changed()
        raise EngineError("crashed", "the engine ended without saying so")

    async def sign(self, done: Done, engine_class: str, *, is_stopped: bool) -> Envelope:
        """Sign for it when it is on disk. is_stopped: whether the engine was told to stop. Raises `EngineError` for
        what is no result, `OSError` and `SpoolError`."""
        work, spool, salt = self._job.lease.public.work, self._output.spool, new_salt()
        if done.finish == "cancelled" and not is_stopped:
            raise EngineError("failed", "the engine stopped without having been told to")
        if isinstance(work, ImageWork) and not spool.frames and done.finish != "cancelled":
            raise EngineError("failed", "the engine ended without a picture")
        if isinstance(work, ImageWork):
            used, context_used = max(0, min(done.used, work.steps)), 0
        else:
            used = max(0, min(done.used, work.max_tokens))
            context_used = max(0, min(done.context_used, work.context_tokens))
        await _in_thread(spool.sync)
        body = Receipt(
            job=self._job.lease.job,
            attempt=self._job.lease.attempt,
            output_digest=spool.output_digest(salt),
            used=used,
            context_used=context_used,
            partial=done.finish == "cancelled",
            engine=engine_class,
            finished=self._connection.now(),
        )
        receipt = sign(body, self._key, self._connection.root)
        await _in_thread(lambda: spool.keep_receipt(receipt, salt, done.finish))
        spool.finish(receipt, salt, done.finish)
        self._output.changed()
        return receipt

    def _task(self) -> Task:
        job = self._job
        assert job.private is not None  # noqa: S101 (no job starts before it is opened)
        previews = self._connection.rules.previews if self._connection.rules is not None else None
        return Task(
            model=job.lease.model,
            work=job.lease.public.work,
            private=job.private,
            seed=job.private.seed + job.lease.index,
            prefix=job.prefix,
            preview_every=previews.every if previews is not None and previews.allowed else 0,
        )

    def _take(self, event: StepsDone | PreviewMade | TextMade | ArtifactMade) -> None:
        output = self._output
        match event:
            case StepsDone(done, total):
                output.progress = Progressed(done, total)
                self._progressed(self._job.attempt, done, total)
            case PreviewMade(jpeg):
                if len(jpeg) <= MAX_PREVIEW_BYTES:
                    output.preview = Preview(jpeg)
            case TextMade(text):
                output.spool.add_text(text)
            case ArtifactMade(media_type, content):
                output.spool.add_artifact(media_type, content)


async def _in_thread(work: Callable[[], None]) -> None:
    """Run what blocks in a thread; when cancelled, wait for its end all the same, for it uses what is then removed."""
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        raise
