"""Entries of the ledger, the balances that follow from them, and the tree over them."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from protocol import documents, postings
from protocol.codec import encode
from protocol.digests import new_salt
from protocol.documents import Checkpoint, Evidence, Leaf
from protocol.envelope import parse
from protocol.keys import SigningKey
from protocol.merkle import Frontier
from protocol.postings import Postings
from tracker.ledger import Entry, make_entry
from tracker.store.sqlite.accounts import Accounts
from tracker.store.sqlite.journal import Journal
from tracker.store.sqlite.people import People
from tracker.values import replace

#: How the bytes of every settle leaf begin: the head of its map, then the event.
_SETTLE = encode(Leaf(event="settle", day=0, postings=(), hold=bytes(32), evidence=bytes(32))).split(b"\xa3day")[0]


@dataclass(frozen=True)
class Books:
    """The tree as it stands, the newest checkpoint over it, how many settlements it holds: kept in memory."""

    tree: Frontier
    checkpoint: bytes
    checkpoint_size: int
    next_account: int
    settled: int = 0


class Ledger:
    """Appends entries and moves balances, within the transaction of whoever calls it."""

    def __init__(
        self,
        key: SigningKey,
        root: bytes,
        epoch: int,
        accounts: Accounts | None = None,
        people: People | None = None,
    ) -> None:
        self._accounts = accounts or Accounts(Journal())
        self._people = people or People(Journal())
        self._key = key
        self._root = root
        self._epoch = epoch
        self._books = Books(Frontier(), b"", -1, postings.FIRST_PERSON)

    def load(self, connection: sqlite3.Connection) -> None:
        """Read the tree from its leaves' hashes, and the newest checkpoint."""
        tree, settled = Frontier(), 0
        rows = connection.execute(
            "SELECT hash, substr(leaf, 1, ?) = ? FROM entries ORDER BY entry", (len(_SETTLE), _SETTLE)
        )
        for hashed, is_settlement in rows:
            tree = tree.append(hashed)
            settled += is_settlement
        row = connection.execute("SELECT size, document FROM checkpoints ORDER BY size DESC LIMIT 1").fetchone()
        size, checkpoint = row or (-1, b"")
        highest = connection.execute("SELECT max(account) FROM accounts").fetchone()[0] or 0
        self._books = Books(tree, checkpoint, size, max(postings.FIRST_PERSON, highest + 1), settled)

    @property
    def books(self) -> Books:
        """What is kept in memory: to come back to."""
        return self._books

    def go_back(self, books: Books) -> None:
        """All is as it was with these books."""
        self._books = books

    @property
    def size(self) -> int:
        """Entries so far."""
        return self._books.tree.size

    @property
    def root(self) -> bytes:
        """The tree's root hash."""
        return self._books.tree.root()

    @property
    def settled(self) -> int:
        """Settlements so far; what was entered again after a restore is not counted anew."""
        return self._books.settled

    @property
    def checkpoint(self) -> bytes:
        """The newest checkpoint's envelope."""
        return self._books.checkpoint

    def append(
        self, connection: sqlite3.Connection, event: str, moved: Postings, evidence: Evidence
    ) -> tuple[int, Entry]:
        """Enter an event and move the balances; returns its index and the entry."""
        entry = make_entry(event, moved, evidence)
        index = self._books.tree.size
        connection.execute(
            "INSERT INTO entries (entry, leaf, hash, evidence) VALUES (?, ?, ?, ?)",
            (index, entry.leaf, entry.hash, entry.evidence),
        )
        settled = self._books.settled + (event == "settle")
        self._books = replace(self._books, tree=self._books.tree.append(entry.hash), settled=settled)
        self._accounts.move(connection, moved)
        return index, entry

    def seal(self, connection: sqlite3.Connection, now: int) -> bytes | None:
        """Sign a checkpoint, unless the newest one covers all entries."""
        tree = self._books.tree
        if tree.size == self._books.checkpoint_size:
            return None
        # A clock that was set back must not make a later checkpoint look like an earlier one: a smaller ledger that was
        # signed later is what convicts a tracker.
        before = self._books.checkpoint
        time = max(now, documents.open_document(parse(before), Checkpoint).time) if before else now
        checkpoint = Checkpoint(size=tree.size, root=tree.root(), time=time, epoch=self._epoch)
        raw = documents.sign(checkpoint, self._key, self._root).raw
        connection.execute("INSERT INTO checkpoints (size, document) VALUES (?, ?)", (tree.size, raw))
        self._books = replace(self._books, checkpoint=raw, checkpoint_size=tree.size)
        return raw

    def account_for(self, connection: sqlite3.Connection, key: bytes, now: int) -> int:
        """The number of the account that is, or for which acts, `key`; opened now if there was none."""
        number = self._people.acting(connection, key, now).account
        if number:
            return number
        number = self._books.next_account
        self._accounts.open(connection, number, now)
        self._people.begin(connection, key, number, now)
        self._books = replace(self._books, next_account=number + 1)
        return number


def new_evidence(
    now: int,
    rules: int,
    job: bytes | None = None,
    attempt: int = 0,
    proofs: tuple[bytes, ...] = (),
    *,
    received: int = 0,
) -> Evidence:
    """Evidence with a fresh salt."""
    return Evidence(
        time=now, rules=rules, salt=new_salt(), job=job, attempt=attempt, received=received, documents=proofs
    )
