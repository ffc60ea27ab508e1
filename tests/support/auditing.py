"""A public ledger that is audited without sockets, and what those who lived through it know of it."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import msgspec

from peer.audit.audit import Options, audit
from peer.audit.histories import Contradiction, check_contradiction
from peer.audit.mine import Known
from peer.audit.report import Report
from peer.audit.source import Source
from peer.audit.votes import Counted, Row, Rows
from peer.events import Refused
from protocol.documents import Leaf, Settlement, open_document
from protocol.envelope import parse
from protocol.public import Balances, Consistency, Head, Inclusion, Part, Service
from protocol.rules import LedgerSection, Rules
from tests.support.builders import ROOT
from tests.support.history import BEN, History, live_through_everything
from tracker.public.reader import PublicLedger
from tracker.store.sqlite import voting

#: Entries can be read without waiting for the day to be over.
AT_ONCE = Rules(ledger=LedgerSection(delay_days=0))


class FromDatabase:
    """A public ledger without sockets. parts: how many were asked for."""

    is_live = True
    name = "here"

    def __init__(self, path: Path, now: int) -> None:
        self._ledger = PublicLedger(path)
        self._path = path
        self._now = now
        self.parts = 0

    async def head(self) -> Head:
        """Where it stands."""
        return self._ledger.head(self._now)

    async def part(self, first: int, epoch: int) -> Part:
        """Entries from one number on."""
        assert epoch == 0
        self.parts += 1
        return self._ledger.part(first, self._now)[0]

    async def rules(self, version: int) -> bytes:
        """A version of the rules."""
        return self._ledger.rules(version)

    async def proposals(self) -> Sequence[Row]:
        """What was proposed, as it would be served."""
        shown = msgspec.json.encode({"proposals": self._ledger.proposals()})
        return msgspec.json.decode(shown, type=Rows).proposals

    async def counted(self, vote: bytes) -> Counted:
        """Where a vote stands, as the tracker would show it."""
        with closing(sqlite3.connect(self._path)) as connection:
            found = voting.proof_of_vote(connection, parse(vote))
        if found is None:
            raise Refused("bad_value", "this vote was not counted, or the vote goes on")
        place, size, proof = found
        return Counted(place, size, tuple(node.hex() for node in proof))

    async def balances(self, size: int) -> Balances:
        """What an audit goes on from."""
        return self._ledger.balances(size)

    async def services(self) -> Sequence[Service]:
        """All services."""
        return self._ledger.services(0).services

    async def inclusion(self, entry: int, size: int) -> Inclusion:
        """A proof."""
        return self._ledger.inclusion(entry, size)

    async def consistency(self, earlier: int, later: int) -> Consistency:
        """A proof."""
        return self._ledger.consistency(earlier, later)


@asynccontextmanager
async def lived(path: Path) -> AsyncIterator[tuple[History, Known]]:
    """A ledger with a history, and what those who lived through it know of it."""
    async with History.open(path, AT_ONCE) as history:
        settlements = await live_through_everything(history)
        await history.award(history.accounts[BEN.public], 5000)
        await history.store.seal(history.tick())
        checkpoints = [open_document(parse(raw), Settlement).checkpoint for raw in settlements]
        yield history, Known(settlements, list(dict.fromkeys(checkpoints)))


async def audited(path: Path, known: Known, now: int, *, others: tuple[bytes, ...] = (), full: bool = True) -> Report:
    """What an audit of the ledger in this database finds."""
    return await found_in(FromDatabase(path, now), path.parent / "audit", known, now, others=others, full=full)


async def found_in(source: Source, folder: Path, known: Known, now: int, **options: Any) -> Report:
    """What an audit of this ledger finds, with what it keeps in a folder."""
    chosen = Options(**{"root": ROOT.public, "version": 0, "full": True, "folder": folder, "now": now, **options})
    return (await audit(source, chosen, known, lambda _, __: None)).report


def kinds(report: Report) -> set[str]:
    """The kinds of what was found."""
    return {finding.kind for finding in report.findings}


def evidence_of(report: Report) -> list[str]:
    """What each file of evidence shows to anybody."""
    paths = [finding.evidence for finding in report.findings if finding.evidence]
    return [check_contradiction(msgspec.json.decode(Path(path).read_bytes(), type=Contradiction)) for path in paths]


def entry_of(path: Path, event: str) -> int:
    """The first entry of an event that moves something."""
    with closing(sqlite3.connect(path)) as connection:
        for entry, raw in connection.execute("SELECT entry, leaf FROM entries ORDER BY entry"):
            leaf = msgspec.msgpack.decode(raw, type=Leaf)
            if leaf.event == event and leaf.postings:
                return int(entry)
    raise AssertionError(f"no {event}")
