"""What a person does with an account: opening it, showing it, letting other keys act for it, changing its key, leaving.

Each function is a step of the store. What refuses does so before anything is written.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Protocol

from protocol import postings
from protocol.documents import Delegation, Leaving, Profile, Recovery, Revocation, Rotation
from protocol.envelope import Envelope
from protocol.errors import (
    BadInvite,
    JobsUnderWay,
    NotAllowed,
    NotRegistered,
    OutOfTurn,
    OverLimit,
    UnknownAccount,
    WrongSigner,
)
from protocol.keys import check_key, show_key
from tracker.accounts import MAX_DELEGATIONS, check_own, invite_hash, until
from tracker.store.base import Page
from tracker.store.sqlite import papers
from tracker.store.sqlite.ledger import new_evidence
from tracker.store.sqlite.tables import Tables


class _Once(Protocol):
    """A document whose identity is a nonce."""

    @property
    def nonce(self) -> bytes: ...

    @property
    def valid_until(self) -> int: ...


def register(connection: sqlite3.Connection, tables: Tables, key: bytes, now: int, invite: str | None) -> int:
    """See `Store.register`."""
    number = tables.people.acting(connection, key, now).account
    if number:
        return number
    if invite is None:
        return tables.ledger.account_for(connection, key, now)
    hashed = invite_hash(invite)
    if not invite:
        raise BadInvite("accounts here are by invitation: ask the operator for a code; you are served without one")
    row = connection.execute("SELECT used FROM invites WHERE hash = ?", (hashed,)).fetchone()
    if row is None:
        raise BadInvite("this horde knows no such invitation: copy the code again, or ask the operator for another")
    if row[0]:
        raise BadInvite("this invitation was used, and serves once: ask the operator for another")
    number = tables.ledger.account_for(connection, key, now)
    connection.execute("UPDATE invites SET used = ?, account = ? WHERE hash = ?", (now, number, hashed))
    return number


def add_invites(connection: sqlite3.Connection, hashes: Sequence[bytes], now: int) -> None:
    """See `Store.add_invites`."""
    connection.executemany("INSERT INTO invites (hash, made) VALUES (?, ?)", [(hashed, now) for hashed in hashes])


def owner_of(connection: sqlite3.Connection, tables: Tables, key: bytes, what: str, now: int) -> int:
    """The account whose own key this is; raises `NotRegistered` or `NotAllowed`. what: the kind of document."""
    acting = tables.people.acting(connection, key, now)
    if not acting.account:
        raise NotRegistered(f"a {what} by a key that has no account here: send `register` first, it is free")
    check_own(acting, what)
    return acting.account


def profile(connection: sqlite3.Connection, tables: Tables, envelope: Envelope, said: Profile, now: int) -> None:
    """See `Store.profile`."""
    number = owner_of(connection, tables, envelope.key, envelope.kind, now)
    known = tables.people.face(connection, number)
    if known.digest == envelope.digest:
        return
    _check_version(connection, envelope, said.version, known.version, known.digest, known.signer)
    papers.take(connection, envelope, papers.version_identity(said.version))
    papers.forget(connection, known.signer, Profile.KIND, papers.version_identity(known.version))
    tables.people.show(connection, envelope, said, number)


def _check_version(
    connection: sqlite3.Connection, envelope: Envelope, version: int, known: int, digest: bytes, signer: bytes
) -> None:
    """A higher version replaces; another document of the same one is an equivocation if one key signed both."""
    if version == known and signer == envelope.key:
        raise papers.Conflict(envelope, digest)
    if version <= known:
        raise OutOfTurn(f"a {envelope.kind} of version {version}, and {known} was taken: raise its version")


def delegate(connection: sqlite3.Connection, tables: Tables, envelope: Envelope, said: Delegation, now: int) -> None:
    """See `Store.delegate`."""
    if papers.is_known(connection, envelope, said.nonce, said.valid_until, now):
        return
    number = owner_of(connection, tables, envelope.key, envelope.kind, now)
    check_key(said.delegate)
    if said.expires and said.expires < now:
        raise NotAllowed(f"a delegation{until(said)}, which has passed: give it a later end, or none")
    acting = tables.people.acting(connection, said.delegate, now)
    if (acting.account and acting.grant is None) or tables.people.was_of_others(connection, said.delegate, number):
        raise NotAllowed(
            f"key {show_key(said.delegate)[:8]}… has an account of its own, or was somebody else's before: make a fresh"
            " key"
        )
    if not acting.account and len(tables.people.granted(connection, number, now)) >= MAX_DELEGATIONS:
        raise OverLimit(f"{MAX_DELEGATIONS} delegations of this account stand, and more cannot: revoke some first")
    papers.take(connection, envelope, said.nonce)
    tables.people.delegate(connection, envelope, said, number, now)


def revoke(connection: sqlite3.Connection, tables: Tables, envelope: Envelope, said: Revocation, now: int) -> bytes:
    """See `Store.revoke`."""
    if papers.is_known(connection, envelope, said.nonce, said.valid_until, now):
        return b""
    number = owner_of(connection, tables, envelope.key, envelope.kind, now)
    found = tables.people.delegation(connection, number, said.delegation)
    if found is None:
        raise UnknownAccount("this account has made no such delegation: `potluck delegate list` shows those that stand")
    papers.take(connection, envelope, said.nonce)
    delegate, stands = found
    if stands:
        tables.people.revoke(connection, delegate, now, envelope.digest)
    return delegate


def name_recovery(connection: sqlite3.Connection, tables: Tables, envelope: Envelope, said: Recovery, now: int) -> None:
    """See `Store.name_recovery`."""
    number = owner_of(connection, tables, envelope.key, envelope.kind, now)
    version, digest, _, signer = tables.people.recovery(connection, number)
    if digest == envelope.digest:
        return
    _check_version(connection, envelope, said.version, version, digest, signer)
    check_key(said.recovery)
    if said.recovery == envelope.key:
        raise NotAllowed("a recovery key that is the account's own would be lost with it: make another one")
    papers.take(connection, envelope, papers.version_identity(said.version))
    tables.people.keep_recovery(connection, envelope, said, number)


def rotate(
    connection: sqlite3.Connection, tables: Tables, envelope: Envelope, said: Rotation, sender: bytes, now: int
) -> bytes:
    """See `Store.rotate`."""
    if sender != said.key:
        raise WrongSigner("a rotation in another session than that of the new key, which shows that somebody holds it")
    if papers.is_known(connection, envelope, said.nonce, said.valid_until, now):
        return said.former
    number = tables.people.account_that_had(connection, said.former)
    holder = tables.people.key_of(connection, number) if number else b""
    if not holder:
        check_own(tables.people.acting(connection, said.former, now), "rotation")
        raise NotRegistered(f"key {show_key(said.former)[:8]}… is no account's key here: name the account's last one")
    recovery = tables.people.recovery(connection, number)[2]
    if envelope.key not in (recovery, holder if said.former == holder else b""):
        raise WrongSigner("a rotation is signed by the account's key, or by the recovery key that it named")
    if said.key == recovery:
        raise NotAllowed("the recovery key cannot be the account's own, with which it would be lost: make a fresh one")
    if tables.people.acting(connection, said.key, now).account:
        raise NotAllowed("the new key has an account, or acts for one: rotate to a fresh key")
    papers.take(connection, envelope, said.nonce)
    tables.people.end(connection, number, now, envelope.digest)
    tables.people.begin(connection, said.key, number, now, envelope.digest)
    return holder


def leave(connection: sqlite3.Connection, tables: Tables, envelope: Envelope, said: Leaving, now: int) -> list[bytes]:
    """See `Store.leave`."""
    if papers.is_known(connection, envelope, said.nonce, said.valid_until, now):
        return []
    number = owner_of(connection, tables, envelope.key, envelope.kind, now)
    if tables.accounts.under_way(connection, number):
        raise JobsUnderWay(
            f"jobs that account {number} asked for or serves are under way: stop its workers, cancel what waits, and"
            " leave when the rest has been settled"
        )
    papers.take(connection, envelope, said.nonce)
    _burn(connection, tables, envelope, number, now)
    people = tables.people
    gone = [envelope.key, *people.delegates(connection, number)]
    for key in gone[1:]:
        people.revoke(connection, key, now, envelope.digest)
    people.end(connection, number, now, envelope.digest)
    known = people.face(connection, number)
    papers.forget(connection, known.signer, Profile.KIND, papers.version_identity(known.version))
    people.hide(connection, number)
    return gone


def _burn(connection: sqlite3.Connection, tables: Tables, envelope: Envelope, number: int, now: int) -> None:
    """What an account has left is destroyed; that it left is entered also if that is nothing."""
    accounts = tables.accounts
    withheld = accounts.withheld(connection, number)
    balance = accounts.balance(connection, number)
    evidence = new_evidence(now, tables.versions.newest(connection), proofs=(envelope.digest,))
    tables.ledger.append(connection, "leave", postings.leave(number, balance, withheld), evidence)
    accounts.withhold(connection, number, -withheld)


def page(connection: sqlite3.Connection, tables: Tables, number: int, now: int) -> Page | None:
    """See `Store.page`."""
    face = tables.people.face(connection, number)
    return _page(connection, tables, number, now) if face.public or face.service else None


def public(connection: sqlite3.Connection, tables: Tables, numbers: Sequence[int]) -> set[int]:
    """See `Store.public`."""
    faces = ((number, tables.people.face(connection, number)) for number in numbers)
    return {number for number, face in faces if face.public or face.service}


def services(connection: sqlite3.Connection, tables: Tables, now: int, after: int, most: int) -> list[Page]:
    """See `Store.services`."""
    rows = connection.execute(
        "SELECT account FROM profiles WHERE service = 1 AND account > ? ORDER BY account LIMIT ?", (after, most)
    ).fetchall()
    return [_page(connection, tables, number, now) for (number,) in rows]


def _page(connection: sqlite3.Connection, tables: Tables, number: int, now: int) -> Page:
    rules = tables.versions.get(connection).rules
    return Page(tables.people.face(connection, number), tables.accounts.state_of(connection, number, now, rules))
