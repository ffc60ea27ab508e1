"""The tracker under virtual time: the real coordinator over the real store, and a heap of what happens when.

Between two moments everything that the first has caused comes to its end: no step waits for a disk, a socket or a
clock. Three things are left out, none of which the economy can feel: session messages are handed over unsigned
(documents are signed), commits are not synced, rarer and done in line, and checkpoints and positions are rarer.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any, TypeVar, cast
from unittest.mock import patch

from protocol.documents import Document, Serving, sign
from protocol.envelope import Envelope, parse
from protocol.errors import Refusal
from protocol.keys import SigningKey
from protocol.kinds import DOCUMENTS
from protocol.messages import Hello, Refused, SessionMessage
from protocol.rules import Rules
from tracker.conversation import Conversation
from tracker.coordinator import Coordinator
from tracker.session import Effect, Greeted, HangUp, Heard, Presented, Send, State
from tracker.store.sqlite import SqliteStore
from tracker.store.sqlite import store as sqlite_store
from tracker.store.sqlite.database import connect
from tracker.store.sqlite.tables import Tables
from tracker.store.sqlite.writer import Writer

T = TypeVar("T")

SECOND = 1000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
#: Midnight (UTC) of some day: worlds begin there.
BEGIN = 20_000 * DAY

#: The tracker's timers are looked at when one is due, and at least so often.
TICK = 60 * SECOND
CHECKPOINT = 600 * SECOND
POSITIONS = 60 * SECOND
#: Steps of the store that share a commit, at most.
BATCH = 1_000
#: How long a message is under way, either way.
LATENCY = 50

Heard_ = SessionMessage | Document


class InLine:
    """In place of `Writer`: a step is done before its caller goes on, and many of them share a transaction."""

    def __init__(self, connection: Any, tables: Tables) -> None:
        self._connection = connection
        self._tables = tables
        self._steps = 0

    async def step(self, run: Callable[[Any], T]) -> T:
        """Run it."""
        connection, tables = self._connection, self._tables
        if not self._steps:
            connection.execute("BEGIN")
        self._steps += 1
        before, changes = tables.snapshot(), connection.total_changes
        try:
            result = run(connection)
        except Refusal:
            if tables.snapshot() != before or connection.total_changes != changes:
                raise AssertionError("a step has refused after it had written something") from None
            raise
        if self._steps >= BATCH:
            self.commit()
        return result

    def commit(self) -> None:
        """Write what is kept back."""
        if self._steps:
            self._tables.before_commit(self._connection)
            self._connection.execute("COMMIT")
            self._tables.committed()
            self._steps = 0


class Plain:
    """In place of `Session`: says and hears messages as they are, from a peer of this key."""

    def __init__(self, key: bytes) -> None:
        self.peer: bytes | None = None
        self.state = State.GREETING
        self._key = key

    def say(self, message: SessionMessage) -> Any:
        """The message itself."""
        return message

    def refuse(self, refusal: Refusal, about: bytes = b"", *, final: bool = False) -> list[Effect]:
        """See `Session`."""
        said = Refused(code=refusal.code, text=refusal.text[:2000], about=about, final=final)
        effects: list[Effect] = [Send(cast("bytes", said))]
        return [*effects, HangUp(refusal.code)] if final else effects

    def receive(self, said: Any) -> list[Effect]:
        """See `Session`; no message is out of turn here."""
        if isinstance(said, tuple):
            return [Presented(*said)]
        if isinstance(said, Hello):
            self.peer, self.state = self._key, State.OPEN
            return [Greeted(said)]
        return [Heard(said, b"")]


@lru_cache(64)
def _read(raw: bytes) -> Document:
    envelope = parse(raw)
    return envelope.open(DOCUMENTS[envelope.kind])


class Link:
    """A peer's connection. hear: called with whatever the tracker says, when it arrives."""

    def __init__(self, stage: Stage, key: SigningKey, block: str, hear: Callable[[Heard_], None]) -> None:
        self._stage = stage
        self._hear = hear
        self.key = key
        self.conversation = stage.coordinator.open(self, block)
        self.conversation._session = cast("Any", Plain(key.public))
        self.say(Hello(session=bytes(16), software="simulated 1"))

    def send(self, said: Any) -> None:
        """See `Outlet`."""
        body = _read(said) if isinstance(said, bytes) else said
        self._stage.after(LATENCY, lambda: self._hear(body))

    def close(self, reason: str) -> None:
        """See `Outlet`."""
        raise AssertionError(f"the tracker hangs up: {reason}")

    def say(self, message: SessionMessage) -> None:
        """Say something to the tracker, now."""
        self._stage.said(self.conversation, message)

    def present(self, document: Document, key: SigningKey | None = None) -> Envelope:
        """Sign a document and hand it over, now."""
        envelope = sign(document, key or self.key, self._stage.root.public)
        self._stage.said(self.conversation, (envelope, document))
        return envelope

    def again(self, envelope: Envelope, document: Document) -> None:
        """Hand over what is signed already."""
        self._stage.said(self.conversation, (envelope, document))

    def hang_up(self) -> None:
        """The connection is over."""
        self._stage.said(self.conversation, None)


class Stage:
    """A tracker, and the time that it lives in."""

    def __init__(self, path: Path, rules: Rules, seed: int) -> None:
        self.path = path
        self.rules = rules
        self.seed = seed
        self.now = BEGIN
        self.root, self.serving = self.new_key("root"), self.new_key("serving")
        self.coordinator = cast("Coordinator", None)
        self.store = cast("SqliteStore", None)
        self.writer = cast("InLine", None)
        self.events = 0
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._order = count()
        self._said: list[tuple[Conversation, Any]] = []
        self._steps: list[Coroutine[Any, Any, None]] = []
        self._ticked = self._committed = 0

    def new_key(self, label: object) -> SigningKey:
        """The same key for the same label and seed."""
        return SigningKey(random.Random(f"{self.seed} {label}").randbytes(32))

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Make the horde and start its tracker."""
        delegation = sign(Serving(serving=self.serving.public, version=1), self.root, self.root.public)
        with _seeded(self.seed):
            SqliteStore.create(self.path, delegation, self.rules, self.serving, self.now)
            connection = connect(self.path)
            connection.execute("PRAGMA synchronous = OFF")
            tables = sqlite_store._load(connection, self.path, self.serving)
            self.writer = InLine(connection, tables)
            self.store = SqliteStore(cast("Writer", self.writer), tables, self.path)
            async with Coordinator.start(
                self.store,
                root=self.root.public,
                key=self.serving,
                delegation=delegation.raw,
                clock=lambda: self.now,
                chance=random.Random(f"{self.seed} draws"),
            ) as self.coordinator:
                try:
                    yield
                finally:
                    self.coordinator._conversations.clear()
            self.writer.commit()
            connection.close()

    # Time

    def at(self, moment: int, action: Callable[[], None]) -> None:
        """Have something happen at a moment, not before now."""
        heapq.heappush(self._heap, (max(moment, self.now), next(self._order), action))

    def after(self, milliseconds: int, action: Callable[[], None]) -> None:
        """Have something happen after so long."""
        self.at(self.now + milliseconds, action)

    def said(self, conversation: Conversation, what: Any) -> None:
        """A peer says something (None: it hangs up); it is taken up before time passes."""
        self._said.append((conversation, what))

    def work(self, step: Coroutine[Any, Any, None]) -> None:
        """Carry out a step of the store before time passes."""
        self._steps.append(step)

    async def run(self, until: int) -> None:
        """Let everything happen that happens before `until`."""
        self.at(until - 1, lambda: None)
        await self._settle()
        while self._heap and self._heap[0][0] < until:
            due = self._next_tick()
            if due < self._heap[0][0]:
                self.now = max(self.now, due)
                self._ticked = self.now
                if self.now - self._committed >= CHECKPOINT:  # as often as what reads whole tables runs, or oftener
                    self._committed = self.now
                    self.writer.commit()
                await self.coordinator.tick(self.now)
            else:
                self.now, _, action = heapq.heappop(self._heap)
                action()
                self.events += 1
            await self._settle()
        self.now = max(self.now, until)

    def _next_tick(self) -> int:
        timers = self.coordinator._jobs._timers
        while timers._heap and timers._heap[0][1] not in timers._actions:
            heapq.heappop(timers._heap)
        most = self._ticked + TICK
        return min(most, timers._heap[0][0]) if timers._heap else most

    async def _settle(self) -> None:
        """Until nothing is being said or carried out."""
        jobs = self.coordinator._jobs
        while self._steps:
            await self._steps.pop()
        touched: list[Conversation] = []
        while self._said or jobs._tasks or any(one._tasks for one in touched):
            said, self._said = self._said, []
            for conversation, what in said:
                if what is None:
                    conversation.closed()
                elif not conversation.is_closed:
                    touched.append(conversation)
                    await conversation.receive(what)
            await asyncio.sleep(0)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Handles, salts and hash keys come from the seed, and the tracker's pace is this stage's."""
    source = random.Random(f"{seed} secrets")
    with (
        patch("secrets.token_bytes", lambda size=32: source.randbytes(size)),
        patch("tracker.coordinator.CHECKPOINT_MS", CHECKPOINT),
        patch("tracker.coordinator.POSITIONS_MS", POSITIONS),
    ):
        yield
