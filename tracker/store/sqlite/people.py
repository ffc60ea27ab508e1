"""Whose key is whose, who acts for whom, and how accounts are shown.

Each job asks for the keys of its requester and its worker, and for its requester's profile. So what was asked for
lately is kept in memory; what is spent through delegations is written once for each commit, as balances are.
"""

from __future__ import annotations

import sqlite3

from protocol import documents
from protocol.documents import Delegation, Profile, Recovery, shown_name
from protocol.envelope import Envelope, parse
from tracker.accounts import NOBODY, Acting, Grant, has_expired
from tracker.store.base import Face, Granted
from tracker.store.sqlite.journal import Journal

#: Keys, delegations and profiles that are kept in memory between two commits.
MOST = 4096

_GRANTED = (
    "SELECT g.account, g.delegation, d.raw FROM delegations g"
    " JOIN documents d ON d.identity = g.nonce AND d.kind = 'delegation' AND d.signer = g.signer WHERE g.until = 0"
)


FACELESS = Face()


class People:
    """The keys of all accounts, delegations, profiles. See `Accounts` for when they are written."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._acting: dict[bytes, Acting] = {}
        self._faces: dict[int, Face] = {}
        self._used: dict[bytes, int] = {}
        self._terms: dict[bytes, Delegation] = {}  # what a document of that digest says, whatever becomes of it
        self._changed: set[bytes] = set()

    # Keys

    def acting(self, connection: sqlite3.Connection, key: bytes, now: int) -> Acting:
        """For which account a key acts at that time."""
        found = self._acting.get(key)
        if found is None:
            found = _find_acting(connection, key)
            if found.account:  # keys without an account are many, and come once
                self._acting[key] = found
        return found.at(now)

    def key_of(self, connection: sqlite3.Connection, account: int) -> bytes:
        """The key of an account; none if there is no such account, or it has left."""
        row = connection.execute("SELECT key FROM keys WHERE account = ? AND until = 0", (account,)).fetchone()
        return row[0] if row else b""

    def account_that_had(self, connection: sqlite3.Connection, key: bytes) -> int:
        """The account whose key this is, or was last; 0 if it never was one's."""
        row = connection.execute(
            "SELECT account FROM keys WHERE key = ? ORDER BY until = 0 DESC, until DESC LIMIT 1", (key,)
        ).fetchone()
        return row[0] if row else 0

    def accounts_of(self, connection: sqlite3.Connection, key: bytes, now: int) -> set[int]:
        """Every account that somebody with this key is known by: for which it acts, or whose own key it ever was."""
        rows = connection.execute("SELECT account FROM keys WHERE key = ?", (key,)).fetchall()
        return {account for (account,) in rows} | {self.acting(connection, key, now).account} - {0}

    def was_of_others(self, connection: sqlite3.Connection, key: bytes, account: int) -> bool:
        """Whether the key is, or ever was, the key or a delegate of another account than this."""
        row = connection.execute(
            "SELECT 1 FROM keys WHERE key = ?1 AND account <> ?2"
            " UNION ALL SELECT 1 FROM delegations WHERE delegate = ?1 AND account <> ?2 LIMIT 1",
            (key, account),
        ).fetchone()
        return row is not None

    def begin(self, connection: sqlite3.Connection, key: bytes, account: int, now: int, by: bytes = b"") -> None:
        """This is the account's key from now on. by: digest of the rotation."""
        self._end_expired(connection, key, now)
        connection.execute("INSERT INTO keys (key, account, since, begun) VALUES (?, ?, ?, ?)", (key, account, now, by))
        self._journal.put(self._acting, key, Acting(account))

    def end(self, connection: sqlite3.Connection, account: int, now: int, by: bytes) -> bytes:
        """The account's key is so no more; that key."""
        key = self.key_of(connection, account)
        connection.execute("UPDATE keys SET until = ?, ended = ? WHERE account = ? AND until = 0", (now, by, account))
        self._journal.put(self._acting, key, NOBODY)
        return key

    # Delegations

    def delegate(
        self, connection: sqlite3.Connection, envelope: Envelope, said: Delegation, account: int, now: int
    ) -> None:
        """A key acts for an account from now on; what it did so before, by whatever delegation, is over."""
        self._end_expired(connection, said.delegate, now)
        self.revoke(connection, said.delegate, now, envelope.digest)
        connection.execute(
            "INSERT INTO delegations (delegation, account, signer, nonce, delegate, since) VALUES (?, ?, ?, ?, ?, ?)",
            (envelope.digest, account, envelope.key, said.nonce, said.delegate, now),
        )
        self._journal.put(self._acting, said.delegate, Acting(account, Grant(envelope.digest, said)))

    def revoke(self, connection: sqlite3.Connection, delegate: bytes, now: int, by: bytes) -> None:
        """A key acts for nobody any more."""
        connection.execute(
            "UPDATE delegations SET until = ?, ended = ? WHERE delegate = ? AND until = 0", (now, by, delegate)
        )
        self._journal.put(self._acting, delegate, NOBODY)

    def _end_expired(self, connection: sqlite3.Connection, delegate: bytes, now: int) -> None:
        """What has expired by itself is in nobody's way."""
        grant = _find_acting(connection, delegate).grant
        if grant is not None and has_expired(grant.terms, now):
            self.revoke(connection, delegate, grant.terms.expires, b"")

    def delegation(self, connection: sqlite3.Connection, account: int, digest: bytes) -> tuple[bytes, bool] | None:
        """The delegate of a delegation by this account, and whether it stands; None if there is no such delegation."""
        row = connection.execute(
            "SELECT delegate, until = 0 FROM delegations WHERE delegation = ? AND account = ?", (digest, account)
        ).fetchone()
        return (row[0], bool(row[1])) if row else None

    def delegates(self, connection: sqlite3.Connection, account: int) -> list[bytes]:
        """Keys that act for an account, those among them whose delegation has expired."""
        rows = connection.execute("SELECT delegate FROM delegations WHERE account = ? AND until = 0", (account,))
        return [key for (key,) in rows]

    def granted(self, connection: sqlite3.Connection, account: int, now: int) -> list[Granted]:
        """The delegations of an account that stand, the oldest first."""
        rows = connection.execute(f"{_GRANTED} AND g.account = ? ORDER BY g.since, g.delegation", (account,)).fetchall()
        found = [(Grant(digest, self._terms_of(digest, raw)), raw) for _, digest, raw in rows]
        return [
            Granted(grant.digest, grant.terms, self.used(connection, grant.digest), raw)
            for grant, raw in found
            if not has_expired(grant.terms, now)
        ]

    def _terms_of(self, digest: bytes, raw: bytes) -> Delegation:
        """Owners ask for all of theirs, and each costs more to decode than to find."""
        found = self._terms.get(digest)
        if found is None:
            found = self._terms[digest] = _terms(raw)
        return found

    def used(self, connection: sqlite3.Connection, delegation: bytes) -> int:
        """Thousandths that are held or spent through a delegation."""
        found = self._used.get(delegation)
        if found is None:
            row = connection.execute("SELECT used FROM delegations WHERE delegation = ?", (delegation,)).fetchone()
            found = self._used[delegation] = row[0] if row else 0
        return found

    def use(self, connection: sqlite3.Connection, delegation: bytes, amount: int) -> None:
        """So much more is held through a delegation (below zero: it went back)."""
        if delegation and amount:
            self._journal.put(self._used, delegation, self.used(connection, delegation) + amount)
            self._changed.add(delegation)

    # How accounts are shown

    def face(self, connection: sqlite3.Connection, account: int) -> Face:
        """How an account is shown."""
        found = self._faces.get(account)
        if found is None:
            row = connection.execute(
                "SELECT version, digest, signer, name, public, service FROM profiles WHERE account = ?", (account,)
            ).fetchone()
            found = Face(row[0], row[1], row[2], row[3], bool(row[4]), bool(row[5])) if row else FACELESS
            self._faces[account] = found
        return found

    def service_name(self, connection: sqlite3.Connection, account: int) -> str:
        """The name of a service account as people see it; empty for all others."""
        face = self.face(connection, account)
        return shown_name(face.name, account) if face.service else ""

    def show(self, connection: sqlite3.Connection, envelope: Envelope, said: Profile, account: int) -> None:
        """From now on the account is shown so."""
        connection.execute(
            "INSERT OR REPLACE INTO profiles (account, version, signer, digest, name, public, service)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (account, said.version, envelope.key, envelope.digest, said.name, said.public, said.service),
        )
        face = Face(said.version, envelope.digest, envelope.key, said.name, said.public, said.service)
        self._journal.put(self._faces, account, face)

    def hide(self, connection: sqlite3.Connection, account: int) -> None:
        """The account has no name any more."""
        connection.execute("DELETE FROM profiles WHERE account = ?", (account,))
        self._journal.put(self._faces, account, FACELESS)

    def recovery(self, connection: sqlite3.Connection, account: int) -> tuple[int, bytes, bytes, bytes]:
        """Of the newest document that names a key for an account's rotation: version, digest, that key, signer."""
        row = connection.execute(
            "SELECT version, digest, recovery, signer FROM recoveries WHERE account = ?", (account,)
        ).fetchone()
        return row or (0, b"", b"", b"")

    def keep_recovery(self, connection: sqlite3.Connection, envelope: Envelope, said: Recovery, account: int) -> None:
        """From now on that key may."""
        connection.execute(
            "INSERT OR REPLACE INTO recoveries (account, version, signer, digest, recovery) VALUES (?, ?, ?, ?, ?)",
            (account, said.version, envelope.key, envelope.digest, said.recovery),
        )

    # In memory

    def write(self, connection: sqlite3.Connection) -> None:
        """Write what has changed."""
        if self._changed:
            rows = [(self._used[digest], digest) for digest in self._changed if digest in self._used]
            connection.executemany("UPDATE delegations SET used = ? WHERE delegation = ?", rows)
            self._changed.clear()

    def shrink(self) -> None:
        """Keep no more than so many; nothing may wait to be written."""
        for table in (self._acting, self._faces, self._used, self._terms):
            if len(table) > MOST:
                table.clear()


def _find_acting(connection: sqlite3.Connection, key: bytes) -> Acting:
    row = connection.execute("SELECT account FROM keys WHERE key = ? AND until = 0", (key,)).fetchone()
    if row:
        return Acting(row[0])
    row = connection.execute(f"{_GRANTED} AND g.delegate = ?", (key,)).fetchone()
    return Acting(row[0], Grant(row[1], _terms(row[2]))) if row else NOBODY


def _terms(raw: bytes) -> Delegation:
    return documents.open_document(parse(raw), Delegation)
