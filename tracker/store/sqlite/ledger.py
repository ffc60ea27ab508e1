"""Entries of the ledger, the balances that follow from them, and the tree over them."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, replace

from protocol import documents, postings
from protocol.codec import encode
from protocol.digests import new_salt
from protocol.documents import Checkpoint, Evidence, Leaf
from protocol.keys import SigningKey
from protocol.merkle import Frontier
from protocol.postings import Postings
from tracker.ledger import Entry, day_of, make_entry

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

    def __init__(self, key: SigningKey, root: bytes, epoch: int) -> None:
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

    def snapshot(self) -> object:
        """See `writer.State`."""
        return self._books

    def restore(self, snapshot: object) -> None:
        """See `writer.State`."""
        assert isinstance(snapshot, Books)  # noqa: S101 (told to the type checker: it is what snapshot returned)
        self._books = snapshot

    def before_commit(self, connection: sqlite3.Connection) -> None:
        """Nothing of the ledger waits for the commit."""

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
        connection.executemany(
            "UPDATE accounts SET balance = balance + ? WHERE account = ?",
            [(amount, account) for account, amount in moved],
        )
        return index, entry

    def seal(self, connection: sqlite3.Connection, now: int) -> bytes | None:
        """Sign a checkpoint, unless the newest one covers all entries."""
        tree = self._books.tree
        if tree.size == self._books.checkpoint_size:
            return None
        checkpoint = Checkpoint(size=tree.size, root=tree.root(), time=now, epoch=self._epoch)
        raw = documents.sign(checkpoint, self._key, self._root).raw
        connection.execute("INSERT INTO checkpoints (size, document) VALUES (?, ?)", (tree.size, raw))
        self._books = replace(self._books, checkpoint=raw, checkpoint_size=tree.size)
        return raw

    def open_account(self, connection: sqlite3.Connection, now: int) -> int:
        """A new person's account, with nothing in it."""
        number = self._books.next_account
        connection.execute("INSERT INTO accounts (account, since) VALUES (?, ?)", (number, now))
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


# The day's mint


def budget_used(connection: sqlite3.Connection, now: int) -> int:
    """What of today's budget is minted or set aside, in thousandths."""
    row = connection.execute("SELECT reserved + minted FROM mint_days WHERE day = ?", (day_of(now),)).fetchone()
    return row[0] if row else 0


def reserve(connection: sqlite3.Connection, day: int, amount: int) -> None:
    """Set so much of a day's budget aside (or give it back, below zero)."""
    if amount:
        connection.execute(
            "INSERT INTO mint_days (day, reserved) VALUES (?, ?)"
            " ON CONFLICT (day) DO UPDATE SET reserved = reserved + excluded.reserved",
            (day, amount),
        )


def count_minted(connection: sqlite3.Connection, day: int, amount: int) -> None:
    """So much was minted on the account of that day's budget."""
    if amount:
        connection.execute(
            "INSERT INTO mint_days (day, minted) VALUES (?, ?)"
            " ON CONFLICT (day) DO UPDATE SET minted = minted + excluded.minted",
            (day, amount),
        )
