"""One job under way: carries out what `peer.follow` decides, on sockets, disk and the user's queue of events."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from peer import follow
from peer.events import Event, PotluckError
from peer.evidence import Evidence, Proof, Unsettled
from peer.follow import Follow, FrameCame, Input, Opened, PatienceOver, SettlementCame, State, StreamEnded
from peer.paths.race import Guide, Said
from peer.paths.relay_end import Tracker
from peer.stream_reader import Answered, StreamBroken, StreamReader, Worker
from protocol import codec, frames
from protocol.documents import Acknowledgement, Denial, Opening, sign
from protocol.envelope import Envelope
from protocol.keys import SigningKey
from protocol.messages import Held, Refused, SessionMessage, Unreachable
from protocol.rules import Rules


class Line(Protocol):
    """What a job needs of the connection to the tracker."""

    root: bytes
    serving: bytes | None
    delegation: Envelope | None
    rules: Rules | None

    @property
    def is_ready(self) -> bool:
        """Whether the connection stands."""

    async def wait_ready(self) -> None:
        """Return once it stands."""

    def now(self) -> int:
        """The tracker's time in milliseconds."""

    async def say(self, message: SessionMessage) -> bytes | None:
        """Send a session message, if connected."""

    async def send_document(self, envelope: Envelope) -> None:
        """Send a document, if connected."""


@dataclass(frozen=True)
class Desk:
    """What all jobs of a client share. workers: by key, as their newest peer records say. evidence: None keeps
    nothing. resumable: statements are kept on disk until they are answered, for a later client with the same key.
    spawn: runs a task, and sees to it that its failure is heard of. tracker: how it is reached. relays_only: workers do
    not learn our address."""

    line: Line
    streams: StreamReader
    workers: dict[bytes, Worker]
    evidence: Evidence | None
    resumable: bool
    spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
    tracker: Tracker
    relays_only: bool = False


@dataclass(frozen=True)
class Secrets:
    """What a request's jobs need: the job key and the private part, which nobody else gets, and the request itself."""

    job_key: SigningKey
    private: bytes
    request: bytes


class Job:
    """One result of a request, on its way.

    emit: takes an event for the user. ended: called once, with the error if there is no result.
    """

    def __init__(
        self,
        handle: bytes,
        decide: Follow,
        secrets: Secrets,
        desk: Desk,
        emit: Callable[[Event], None],
        ended: Callable[[PotluckError | None], None],
    ) -> None:
        self.handle = handle
        self.decide = decide
        self.statement: Envelope | None = None
        self._unsettled: Unsettled | None = None
        self._secrets = secrets
        self._desk = desk
        self._emit = emit
        self._ended = ended
        # Inputs are handled one after the other, in the order in which they came.
        self._turn = asyncio.Lock()
        self._reading: asyncio.Task[None] | None = None
        self._guide: Guide | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether a cancel can still change something."""
        return self.decide.state in (State.WAITING, State.READING, State.GIVEN_UP)

    def held(self) -> list[Held]:
        """The statement that the tracker has not answered yet."""
        if self.statement is None or self.decide.state is State.ENDED or self._unsettled is None:
            return []
        attempt = self._unsettled.attempt
        return [Held(kind=self.statement.kind, job=self.handle, attempt=attempt, digest=self.statement.digest)]

    def tell(self, said: Input) -> None:
        """Let an input take its turn."""
        _ = self._desk.spawn(self._handle(said))

    def told(self, message: Said) -> None:
        """The tracker helps to find a path."""
        if self._guide is not None:
            self._guide.told(message)

    def refused(self, message: Refused) -> bool:
        """The tracker refuses something; whether it was our question for a path."""
        return self._guide is not None and self._guide.refused(message)

    def close(self) -> None:
        """Stop reading, whatever comes of it."""
        if self._reading is not None and self._reading is not asyncio.current_task():
            self._reading.cancel()
        self._reading = None

    def abandon(self) -> None:
        """The horde has forgotten it: nothing comes of it any more, and nobody is told."""
        self.close()
        self.decide.state = State.ENDED

    async def _handle(self, said: Input) -> None:
        async with self._turn:
            if isinstance(said, Opened | FrameCame | StreamEnded) and asyncio.current_task() is not self._reading:
                return  # of a stream that was closed meanwhile
            if isinstance(said, SettlementCame):
                await self._keep_settlement(said)
            for effect in self.decide.receive(said, self._desk.line.now()):
                await self._carry_out(effect)

    async def _carry_out(self, effect: follow.Effect) -> None:
        match effect:
            case follow.Open():
                self._reading = self._desk.spawn(self._read(effect))
            case follow.Close():
                self.close()
            case follow.Emit(event):
                self._emit(event)
            case follow.Acknowledge():
                await self._acknowledge(effect)
            case follow.Deny(attempt, reason, receipt):
                denial = Denial(job=self.handle, attempt=attempt, reason=reason, receipt=receipt)
                envelope = sign(denial, self._secrets.job_key, self._desk.line.root)
                await self._state(envelope, Unsettled(job=self.handle, attempt=attempt, document=envelope.raw), None)
            case follow.TellUnreachable(attempt, reason, text):
                message = Unreachable(job=self.handle, attempt=attempt, reason=reason or "unknown", text=text)
                await self._desk.line.say(message)
            case follow.Wait():
                _ = self._desk.spawn(self._wait(effect))
            case follow.End(error):
                await self._forget()
                self._ended(error)

    async def _wait(self, effect: follow.Wait) -> None:
        await asyncio.sleep(effect.delay_ms / 1000)
        while not self._desk.line.is_ready:
            # What we said may be lost; on its return the tracker says how the job stands, and has its time for that.
            await self._desk.line.wait_ready()
            await asyncio.sleep(effect.delay_ms / 1000)
        await self._handle(PatienceOver(effect.given_up))

    async def _read(self, opening: follow.Open) -> None:
        """Read one stream until it ends, is closed, or breaks."""
        await asyncio.sleep(opening.delay_ms / 1000)
        attempt = opening.lease.attempt
        worker = self._desk.workers.get(opening.lease.worker)
        if worker is None:
            text = "the tracker sent no peer record of the worker"
            await self._handle(StreamEnded(attempt, "no_record", text))
            return
        first, again = self._open_bodies(opening, worker)
        self._guide = self._guide_to(attempt)
        try:
            stream = self._desk.streams.read(worker, first, opening.after, self._guide, again)
            async with contextlib.aclosing(stream):
                async for item in stream:
                    if isinstance(item, Answered):
                        await self._handle(Opened(attempt, item.path, item.reason))
                    else:
                        await self._handle(FrameCame(attempt, item))
                    # The last frame is read past, so that the connection can serve again.
                    if asyncio.current_task() is not self._reading and not isinstance(item, frames.Final):
                        return
        except StreamBroken as error:
            await self._handle(StreamEnded(attempt, error.reason, str(error)))

    def _guide_to(self, attempt: int) -> Guide:
        line, former = self._desk.line, self._guide
        return Guide(
            (self.handle, attempt),
            self._secrets.job_key,
            line.root,
            serving=lambda: line.serving,
            say=line.say,
            now=line.now,
            tracker=self._desk.tracker,
            relays_only=self._desk.relays_only,
            open_ms=line.rules.times.open * 1000 if line.rules is not None else 0,
            asked_at=former.asked_at if former is not None and former.attempt[1] == attempt else None,
        )

    def _open_bodies(self, opening: follow.Open, worker: Worker) -> tuple[bytes, bytes]:
        """What opens the stream, and what opens the same one once more: the private part travels once."""
        document = Opening(
            job=self.handle,
            attempt=opening.lease.attempt,
            certificate=worker.certificate,
            lease=opening.envelope.raw,
        )
        envelope = sign(document, self._secrets.job_key, self._desk.line.root)
        private = self._secrets.private if opening.private else b""
        again = codec.encode(frames.OpenBody(envelope.raw))
        return codec.encode(frames.OpenBody(envelope.raw, private, opening.prefix)), again

    async def _acknowledge(self, effect: follow.Acknowledge) -> None:
        complete, root = effect.complete, self._desk.line.root
        document = Acknowledgement(
            job=self.handle, attempt=effect.attempt, output_digest=complete.output_digest, receipt=complete.receipt
        )
        envelope = sign(document, self._secrets.job_key, root)
        proof = Proof(
            root=root,
            job=self.handle,
            attempt=effect.attempt,
            artifacts=complete.artifacts,
            salt=complete.salt,
            lease=effect.lease,
            receipt=complete.receipt,
            acknowledgement=envelope.raw,
        )
        contents = tuple(artifact.sha256 for artifact in complete.artifacts)
        unsettled = Unsettled(
            job=self.handle,
            attempt=effect.attempt,
            document=envelope.raw,
            contents=contents,
            request=self._secrets.request if self._desk.resumable else b"",
            lease=effect.lease,
            receipt=complete.receipt,
        )
        await self._state(envelope, unsettled, proof)

    async def _state(self, envelope: Envelope, unsettled: Unsettled, proof: Proof | None) -> None:
        """Store a statement, then send it."""
        evidence = self._desk.evidence
        if evidence is not None and proof is not None:
            await asyncio.to_thread(evidence.keep, proof)
        if evidence is not None and self._desk.resumable:
            await asyncio.to_thread(evidence.await_settlement, self._desk.line.root, unsettled)
        self.statement, self._unsettled = envelope, unsettled
        await self._desk.line.send_document(envelope)

    async def _keep_settlement(self, said: SettlementCame) -> None:
        evidence, unsettled = self._desk.evidence, self._unsettled
        if evidence is None or unsettled is None or unsettled.attempt != said.settlement.attempt:
            return
        line = self._desk.line
        delegation = line.delegation.raw if line.delegation is not None else b""
        await asyncio.to_thread(evidence.settle, line.root, unsettled, said.envelope.raw, delegation)

    async def _forget(self) -> None:
        if self._desk.evidence is not None and self._desk.resumable and self._unsettled is not None:
            await asyncio.to_thread(self._desk.evidence.forget, self._desk.line.root, self._unsettled)
