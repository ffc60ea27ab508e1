"""Reads the public side of a ledger from its database, beside the tracker that writes it."""

from __future__ import annotations

import sqlite3
import threading
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

from protocol import codec, documents
from protocol.documents import (
    Checkpoint,
    Document,
    Evidence,
    Leaf,
    Request,
    RulesDocument,
    Serving,
    Settlement,
    open_document,
    parse_document,
    shown_name,
)
from protocol.envelope import Envelope, check_document_context, parse
from protocol.errors import BadValue, NotAllowed, UnknownJob
from protocol.keys import show_key
from protocol.public import (
    OPEN_EVENTS,
    PART_ENTRIES,
    SERVICES_SHOWN,
    AskDisclosure,
    Balances,
    Consistency,
    End,
    Head,
    Inclusion,
    Opened,
    OpenedEntry,
    Part,
    Row,
    Service,
    Services,
)
from protocol.rules import from_json
from tracker.audit.opening import Opening
from tracker.ledger import DAY_MS, day_of
from tracker.proposals import as_shown
from tracker.public.archived import evidence_of
from tracker.public.tree import Nodes
from tracker.store.base import StoreError
from tracker.store.sqlite import voting
from tracker.store.sqlite.checkpoints import newest_before

#: How leaves begin whose evidence is public: the head of the map, then the event.
_OPEN = tuple(
    codec.encode(Leaf(event=event, day=0, postings=(), hold=bytes(32), evidence=bytes(32))).split(b"\xa3day")[0]
    for event in OPEN_EVENTS
)
#: The entries of a job lie around the moments of its hold and its settlement; so many before and behind are looked at.
AROUND = 2000


class PublicLedger:
    """One ledger. Its methods wait for the disk, and may be called from several threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._nodes = Nodes()
        self._lock = threading.Lock()
        self._in_force = (0, 0)

    # What anybody may read

    def head(self, now: int) -> Head:
        """Where the ledger stands."""
        with self._open() as connection:
            root, delegation = connection.execute("SELECT root, delegation FROM horde").fetchone()
            rules, delay_days = self._rules_in_force(connection)
            return Head(
                root=show_key(root),
                delegation=delegation,
                checkpoint=_newest(connection),
                public=_public(connection, delay_days, now),
                rules=rules,
                delay_days=delay_days,
                archives=tuple(_ends(connection)),
            )

    def balances(self, size: int) -> Balances:
        """What an audit goes on from where an archive ends; raises `BadValue` where none does."""
        with self._open() as connection:
            row = connection.execute("SELECT document, books FROM archives WHERE size = ?", (size,)).fetchone()
            if row is None:
                ends = ", ".join(str(end.size) for end in _ends(connection))
                raise BadValue(f"size={size}: no archive ends there: wanted one of {ends or 'none, for there is none'}")

            def read(start: int, stop: int) -> Sequence[bytes]:
                return _hashes(connection, start, stop)

            with self._lock:
                self._nodes.grow(size, read)
                peaks = self._nodes.peaks(size, read)
        return Balances(document=row[0], balances=tuple(codec.decode(row[1], Opening).balances), peaks=tuple(peaks))

    def part(self, first: int, now: int, epoch: int | None = None) -> tuple[Part, bool]:
        """Entries from one number on, and whether these will stay all of this part in the ledger's epoch, which is the
        one that was named; raises `BadValue`."""
        with self._open() as connection:
            size = _size_of(_public(connection, self._rules_in_force(connection)[1], now))
            if first % PART_ENTRIES or first > size:
                raise BadValue(
                    f"from={first}: wanted a multiple of {PART_ENTRIES} that is at most {size}, for so many entries can"
                    " be read by now"
                )
            stop = min(first + PART_ENTRIES, size)
            # Who names an epoch that is still to come must not leave these in a cache for then.
            lasting = stop == first + PART_ENTRIES and epoch == _checkpoint(_newest(connection)).epoch
            return Part(first=first, rows=tuple(_rows(connection, first, stop))), lasting

    def rules(self, version: int) -> bytes:
        """A version of the rules, as signed; empty if there is none."""
        with self._open() as connection:
            row = connection.execute("SELECT document FROM rules WHERE version = ?", (version,)).fetchone()
            return row[0] if row else b""

    def proposals(self) -> list[dict[str, object]]:
        """All that was proposed, the newest first, with outcomes and answers."""
        with self._open() as connection:
            return [as_shown(one) for one in voting.proposals(connection, 2**62, -1)]

    def services(self, after: int, most: int = SERVICES_SHOWN) -> Services:
        """Accounts of services, those above a number."""
        with self._open() as connection:
            rows = connection.execute(
                "SELECT account, name FROM profiles WHERE service = 1 AND account > ? ORDER BY account LIMIT ?",
                (after, most),
            ).fetchall()
        found = tuple(Service(account=account, name=shown_name(name, account)) for account, name in rows)
        return Services(services=found, after=found[-1].account if len(found) == most else None)

    def inclusion(self, entry: int, size: int) -> Inclusion:
        """The proof that an entry is among the first `size`; raises `BadValue`."""
        with self._open() as connection:
            _check_sizes(connection, size)
            if not 0 <= entry < size:
                raise BadValue(f"entry={entry}: wanted one of the {size} that size={size} means")
            proof = self._inclusion(connection, entry, size)
            [leaf] = _hashes(connection, entry, entry + 1)
        return Inclusion(entry=entry, size=size, leaf=leaf.hex(), proof=tuple(one.hex() for one in proof))

    def consistency(self, earlier: int, later: int) -> Consistency:
        """The proof that the tree of `later` entries continues that of `earlier`; raises `BadValue`."""
        with self._open() as connection:
            _check_sizes(connection, later)
            if not 0 < earlier <= later:
                raise BadValue(f"from={earlier}&to={later}: wanted sizes that rise, from 1 on")

            def read(start: int, stop: int) -> Sequence[bytes]:
                return _hashes(connection, start, stop)

            with self._lock:
                self._nodes.grow(later, read)
                root = self._nodes.root(0, earlier, read)
                proof = self._nodes.consistency(earlier, later, read)
        return Consistency(earlier=earlier, later=later, root=root.hex(), proof=tuple(node.hex() for node in proof))

    # What the parties may read

    def opened(self, asked: AskDisclosure) -> Opened:
        """What the commitments of a job's entries hide, for who shows its settlement; raises `Refusal`."""
        with self._open() as connection:
            root, delegation = connection.execute("SELECT root, delegation FROM horde").fetchone()
            settlement = _shown(asked.settlement, Settlement, root)
            _check_served(settlement, delegation)
            said = open_document(settlement, Settlement)
            row = connection.execute(
                "SELECT leaf, hash, evidence FROM entries WHERE entry = ?", (said.entry,)
            ).fetchone()
            if row is None or row[1] != said.leaf:
                raise UnknownJob(f"entry {said.entry} is not the one that this settlement names: a restore has cut it")
            checkpoint = _newest(connection)
            size = _size_of(checkpoint)
            request = _shown(asked.request, Request, root) if asked.request else None
            if row[2]:
                found = [(said.entry, row[0], row[2])]
                if request is not None:
                    found += list(_others(connection, said, request))
            else:
                moved = evidence_of(connection, self._path, said, request.digest if request else None)
                found = [(entry, _leaf(connection, entry), evidence) for entry, evidence in moved]
            entries = tuple(
                OpenedEntry(
                    entry=entry, leaf=leaf, evidence=evidence, proof=tuple(self._inclusion(connection, entry, size))
                )
                for entry, leaf, evidence in sorted(found)
                if entry < size
            )
            return Opened(delegation=delegation, checkpoint=checkpoint, entries=entries)

    # Below

    def _rules_in_force(self, connection: sqlite3.Connection) -> tuple[int, int]:
        """Their version, and how many days after its own an entry can be read."""
        [version] = connection.execute("SELECT max(version) FROM rules").fetchone()
        if self._in_force[0] != version:
            [raw] = connection.execute("SELECT document FROM rules WHERE version = ?", (version,)).fetchone()
            rules = from_json(open_document(parse(raw), RulesDocument).rules)
            self._in_force = version, rules.ledger.delay_days
        return self._in_force

    def _inclusion(self, connection: sqlite3.Connection, entry: int, size: int) -> list[bytes]:
        def read(start: int, stop: int) -> Sequence[bytes]:
            return _hashes(connection, start, stop)

        with self._lock:
            self._nodes.grow(size, read)
            return self._nodes.inclusion(entry, size, read)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The database at one moment."""
        uri = f"{self._path.resolve().as_uri()}?mode=ro"
        try:
            with closing(sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)) as connection:
                connection.execute("PRAGMA busy_timeout = 5000")
                connection.execute("BEGIN")
                yield connection
        except sqlite3.Error as error:
            raise StoreError(f"{self._path}: cannot be read ({error})") from error


def _newest(connection: sqlite3.Connection) -> bytes:
    row = connection.execute("SELECT document FROM checkpoints ORDER BY size DESC LIMIT 1").fetchone()
    return bytes(row[0])


def _public(connection: sqlite3.Connection, delay_days: int, now: int) -> bytes:
    """The newest checkpoint of before the days that cannot be read yet; the first of all if there is none."""
    if not delay_days:
        return _newest(connection)
    before = (now // DAY_MS - delay_days + 1) * DAY_MS
    if found := newest_before(connection, before):
        return found
    row = connection.execute("SELECT document FROM checkpoints ORDER BY size LIMIT 1").fetchone()
    return bytes(row[0])


def _ends(connection: sqlite3.Connection) -> Iterator[End]:
    for (raw,) in connection.execute("SELECT document FROM archives ORDER BY number"):
        said = open_document(parse(raw), documents.Balances)
        yield End(size=said.size, day=day_of(said.time))


def _leaf(connection: sqlite3.Connection, entry: int) -> bytes:
    [leaf] = connection.execute("SELECT leaf FROM entries WHERE entry = ?", (entry,)).fetchone()
    return bytes(leaf)


def _checkpoint(raw: bytes) -> Checkpoint:
    return open_document(parse(raw), Checkpoint)


def _size_of(raw: bytes) -> int:
    return _checkpoint(raw).size


def _check_sizes(connection: sqlite3.Connection, size: int) -> None:
    """Nothing is proved of what no checkpoint covers yet."""
    newest = _size_of(_newest(connection))
    if not 0 < size <= newest:
        raise BadValue(f"a tree of {size} entries: wanted 1 to {newest}, which the newest checkpoint covers")


def _hashes(connection: sqlite3.Connection, start: int, stop: int) -> list[bytes]:
    rows = connection.execute("SELECT hash FROM entries WHERE entry >= ? AND entry < ? ORDER BY entry", (start, stop))
    return [hashed for (hashed,) in rows]


def _rows(connection: sqlite3.Connection, start: int, stop: int) -> Iterator[Row]:
    for leaf, evidence in connection.execute(
        "SELECT leaf, evidence FROM entries WHERE entry >= ? AND entry < ? ORDER BY entry", (start, stop)
    ):
        if not leaf.startswith(_OPEN):
            yield Row(leaf=leaf)
            continue
        row = connection.execute(
            "SELECT raw FROM documents WHERE digest = ? AND kind IN ('act', 'award', 'epoch')",
            (codec.decode(evidence, Evidence).documents[0],),
        ).fetchone()
        yield Row(leaf=leaf, evidence=evidence, document=row[0] if row else b"")


D = TypeVar("D", bound=Document)


def _shown(raw: bytes, of: type[D], root: bytes) -> Envelope:
    """A document that a party shows; whose it is has to be looked at besides."""
    envelope = parse_document(raw, of)
    check_document_context(envelope, root)
    envelope.verify()
    return envelope


def _check_served(envelope: Envelope, delegation: bytes) -> None:
    """Anybody could sign a settlement that names an entry: only this horde's own opens anything."""
    said = open_document(parse(delegation), Serving)
    if envelope.key not in {said.serving, *(former.key for former in said.former)}:
        raise NotAllowed(f"a settlement of key {show_key(envelope.key)[:8]}…, which never served this horde")


def _others(connection: sqlite3.Connection, said: Settlement, request: Envelope) -> Iterator[tuple[int, bytes, bytes]]:
    """The hold of a job, and what came back of it: entries about the job that pay nobody else."""
    row = connection.execute("SELECT request, admitted FROM jobs WHERE job = ?", (said.job,)).fetchone()
    if row is None or row[0] != request.digest:
        raise NotAllowed("this request is not the one behind the settlement: show the one that asked for the job")
    [size] = connection.execute("SELECT max(entry) + 1 FROM entries").fetchone()
    last = next(reversed(list(_ends(connection))), End(size=0, day=-1))
    seen: set[int] = set()
    windows = [(said.entry - AROUND, said.entry + AROUND)]
    if day_of(row[1]) > last.day:
        hold = _first_since(connection, row[1], last.size, size)
        windows.append((hold - AROUND, hold + AROUND))
    else:  # before an archive's end the evidence of most entries is elsewhere, and with it their time
        windows.append((0, last.size + AROUND))
    for begin, end in windows:
        for entry, leaf, evidence in connection.execute(
            "SELECT entry, leaf, evidence FROM entries WHERE entry >= ? AND entry < ? AND instr(evidence, ?)",
            (begin, end, said.job),
        ):
            about = codec.decode(evidence, Evidence).job == said.job
            if about and entry != said.entry and entry not in seen:
                seen.add(entry)
                yield entry, leaf, evidence


def _first_since(connection: sqlite3.Connection, time: int, begin: int, size: int) -> int:
    """The first entry, from one on, that is not older than this; clocks go forward, or nearly."""

    def time_of(entry: int) -> int:
        [raw] = connection.execute("SELECT evidence FROM entries WHERE entry = ?", (entry,)).fetchone()
        return codec.decode(raw, Evidence).time

    return begin + bisect_left(range(begin, size), time, key=time_of)
