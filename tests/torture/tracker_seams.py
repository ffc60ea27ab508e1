"""The places of the tracker."""

from __future__ import annotations

import sqlite3
from typing import Any

from protocol.envelope import parse
from protocol.errors import Refusal
from tests.torture.places import STEPS
from tests.torture.seams import wrap
from tests.torture.trap import Trap
from tracker.conversation import Conversation
from tracker.lifecycle import Job, Stage, State
from tracker.store.base import Admitted, Happened, Leased
from tracker.store.sqlite import SqliteStore
from tracker.web import Outlet, Socket

#: A faulty tracker commits only every so many-th time.
LAZY = 40


def install(trap: Trap, fault: str) -> None:
    """Make every place of the tracker one where it can be killed. fault: `lazy` answers before it has stored."""
    commits = _Commits(trap)
    for step in STEPS:
        _watch_step(trap, commits, step)
    _watch_connections(commits, lazy=fault == "lazy")
    wrap(trap, Conversation, "tell", before=_told)
    wrap(trap, Conversation, "hand", before=_handed)
    write_to = Outlet.write_to

    def watched(outlet: Outlet, socket: Socket) -> None:
        write_to(outlet, _Watched(trap, socket))

    Outlet.write_to = watched  # type: ignore[assignment, method-assign]


class _Commits:
    """Which steps the next commit holds."""

    def __init__(self, trap: Trap) -> None:
        self._trap = trap
        self._asked: list[str] = []
        self._begun: list[str] = []

    def asked(self, step: str) -> None:
        """A step was asked for; it is in the first transaction that begins after this."""
        self._asked.append(step)

    def begins(self) -> None:
        """A transaction begins."""
        self._begun, self._asked = self._asked, []

    def ends(self) -> None:
        """A transaction is about to be committed."""
        for step in self._begun:
            self._trap.passes(f"before the commit of {step}")


def _watch_step(trap: Trap, commits: _Commits, name: str) -> None:
    original = getattr(SqliteStore, name)

    async def watched(*given: Any, **named: Any) -> Any:
        commits.asked(name)
        result = await original(*given, **named)
        for place in _became(result):
            trap.passes(place)
        return result

    setattr(SqliteStore, name, watched)


def _became(result: object) -> list[str]:
    """What jobs have become by a step."""
    match result:
        case Admitted(jobs=jobs, leases=leases, again=False):
            return [f"committed: job {'leased' if number in leases else 'waiting'}" for number in range(len(jobs))]
        case Leased():
            return ["committed: job leased"]
        case Happened() if result.outcome.changed:
            return [f"committed: job {_state(result.outcome.job, result)}"]
        case list() | tuple():
            return [place for each in result for place in _became(each)]
        case _:
            return []


def _state(job: Job, happened: Happened) -> str:
    attempt = happened.outcome.attempt
    if job.state is State.WAITING and happened.outcome.requeued:
        return "requeued"
    if job.state is State.LEASED and attempt is not None and attempt.stage is not Stage.PUSHED:
        return attempt.stage.value
    return job.state.value


def _watch_connections(commits: _Commits, *, lazy: bool) -> None:
    connect = sqlite3.connect

    class Connection(sqlite3.Connection):
        """Tells when a transaction begins, and when it is about to end well."""

        begun = 0

        def execute(self, sql: str, *given: Any) -> sqlite3.Cursor:
            if sql.startswith("BEGIN IMMEDIATE"):
                commits.begins()
                if lazy and self.in_transaction:
                    return self.cursor()
            elif sql == "COMMIT":
                commits.ends()
                self.begun += 1
                if lazy and self.begun % LAZY:
                    return self.cursor()
            return super().execute(sql, *given)

    def watched(*given: Any, **named: Any) -> sqlite3.Connection:
        made: sqlite3.Connection = connect(*given, **{"factory": Connection, **named})
        return made

    sqlite3.connect = watched  # type: ignore[assignment]


class _Watched:
    """A socket that tells what has left."""

    def __init__(self, trap: Trap, socket: Socket) -> None:
        self._trap = trap
        self._socket = socket

    async def send_bytes(self, data: bytes) -> None:
        """Send a message."""
        await self._socket.send_bytes(data)
        self._trap.passes(f"after sending {_kind(data)}")

    async def close(self, *, code: int, message: bytes) -> object:
        """End the connection."""
        return await self._socket.close(code=code, message=message)


def _kind(raw: bytes) -> str:
    try:
        return parse(raw).kind
    except Refusal:  # the challenge is no envelope
        return "challenge"


def _side(conversation: Conversation) -> str:
    return "worker" if conversation.announced is not None else "requester"


def _told(conversation: Conversation, *messages: Any) -> str:
    return f"before sending {messages[0].KIND} to {_side(conversation)}" if messages else ""


def _handed(conversation: Conversation, *documents: bytes) -> str:
    return f"before sending {_kind(documents[0])} to {_side(conversation)}" if documents else ""
