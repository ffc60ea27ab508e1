"""What the steps work with: the ledger, accounts, the day's mint, jobs and attempts, the rules, and the serving key."""

from __future__ import annotations

import sqlite3

from protocol.documents import Serving
from protocol.keys import SigningKey
from tracker.pseudonyms import Pseudonyms
from tracker.store.sqlite.accounts import Accounts
from tracker.store.sqlite.journal import Journal
from tracker.store.sqlite.ledger import Books, Ledger
from tracker.store.sqlite.mint import Mint
from tracker.store.sqlite.people import People
from tracker.store.sqlite.rows import Live
from tracker.store.sqlite.versions import Versions


class Tables:
    """The tables as one process writes them, with what it keeps of them in memory (`writer.State`)."""

    def __init__(self, key: SigningKey, root: bytes, delegation: Serving, epoch: int) -> None:
        self._journal = Journal()
        self.accounts = Accounts(self._journal)
        self.mint = Mint(self._journal)
        self.live = Live(self._journal)
        self.versions = Versions(self._journal)
        self.people = People(self._journal)
        self.ledger = Ledger(key, root, epoch, self.accounts, self.people)
        self.key = key
        self.root = root
        self.delegation = delegation
        #: The key that serves, and those that served before, the last one first.
        self.keys = (key.public, *(former.key for former in reversed(delegation.former)))

    def load(self, connection: sqlite3.Connection) -> None:
        """Read what is kept in memory from the first step on."""
        self.pseudonyms = Pseudonyms(connection.execute("SELECT secret FROM pseudonyms").fetchone()[0])
        self.ledger.load(connection)
        self.accounts.load(connection)

    def snapshot(self) -> object:
        """See `writer.State`."""
        return self._journal.mark, self.ledger.books

    def restore(self, snapshot: object) -> None:
        """See `writer.State`."""
        match snapshot:
            case (int(mark), Books() as books):
                self._journal.undo(mark)
                self.ledger.go_back(books)

    def before_commit(self, connection: sqlite3.Connection) -> None:
        """See `writer.State`."""
        self.accounts.write(connection)
        self.mint.write(connection)
        self.people.write(connection)

    def committed(self) -> None:
        """See `writer.State`."""
        self._journal.forget()
        self.accounts.shrink()
        self.live.shrink()
        self.people.shrink()
        self.mint.shrink()
