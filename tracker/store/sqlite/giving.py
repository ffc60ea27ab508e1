"""Kudos that people give each other, that the operator makes for somebody, and that nobody spends."""

from __future__ import annotations

import sqlite3

from protocol import postings
from protocol.documents import Award, Transfer
from protocol.envelope import Envelope
from protocol.postings import SYSTEM
from tracker.ledger import day_of
from tracker.sanctions import check_operator
from tracker.store.base import SHOWN_AWARDS, Awarded, Gifts, RulesInForce
from tracker.store.sqlite import papers
from tracker.store.sqlite.acts import owner_of
from tracker.store.sqlite.ledger import new_evidence
from tracker.store.sqlite.moderating import check_account, check_free, log_award
from tracker.store.sqlite.tables import Tables
from tracker.transfers import Giver, check_transfer


def transfer(connection: sqlite3.Connection, tables: Tables, envelope: Envelope, said: Transfer, now: int) -> None:
    """See `Store.transfer`."""
    if papers.is_known(connection, envelope, said.nonce, said.valid_until, now):
        return
    giver = owner_of(connection, tables, envelope.key, envelope.kind, now)
    check_free(connection, giver, now)  # whoever may lose kudos cannot give them away
    check_account(connection, tables, said.to)
    rules = tables.versions.get(connection)
    check_transfer(rules.rules.transfers, _giver(connection, tables, giver, rules, now), said.to, said.amount, now)
    papers.take(connection, envelope, said.nonce)
    evidence = new_evidence(now, rules.version, proofs=(envelope.digest,))
    tables.ledger.append(connection, "transfer", postings.transfer(giver, said.to, said.amount), evidence)
    tables.accounts.give(connection, giver, said.amount, day_of(now))


def award(connection: sqlite3.Connection, tables: Tables, envelope: Envelope, said: Award, now: int) -> None:
    """See `Store.award`."""
    if papers.is_known(connection, envelope, said.nonce, said.valid_until, now):
        return
    force = tables.versions.get(connection)
    check_operator(envelope.key, force.rules, tables.key.public, "an award")
    check_account(connection, tables, said.account)
    papers.take(connection, envelope, said.nonce)
    evidence = new_evidence(now, force.version, proofs=(envelope.digest,))
    moved = postings.award(said.account, said.amount)
    entry, _ = tables.ledger.append(connection, "award", moved, evidence)
    connection.execute(
        "INSERT INTO awards (entry, account, amount, day, reason) VALUES (?, ?, ?, ?, ?)",
        (entry, said.account, said.amount, day_of(now), said.reason),
    )
    log_award(connection, envelope, said, entry, now)
    connection.execute(
        "DELETE FROM awards WHERE entry NOT IN (SELECT entry FROM awards ORDER BY entry DESC LIMIT ?)", (SHOWN_AWARDS,)
    )


def awards(connection: sqlite3.Connection) -> list[Awarded]:
    """See `Store.awards`."""
    rows = connection.execute("SELECT account, amount, day, reason FROM awards ORDER BY entry DESC")
    return [Awarded(*row) for row in rows]


def gifts(connection: sqlite3.Connection, tables: Tables) -> Gifts:
    """See `Store.gifts`. All balances sum to zero: what people have is what the others lack."""
    unspent = -sum(tables.accounts.balance(connection, account) for account in SYSTEM)
    return Gifts(unspent, *tables.accounts.carried)


def _giver(connection: sqlite3.Connection, tables: Tables, number: int, rules: RulesInForce, now: int) -> Giver:
    state = tables.accounts.state_of(connection, number, now, rules.rules)
    given, today = tables.accounts.given(connection, number, day_of(now))
    return Giver(
        number=number,
        since=state.since,
        balance=state.balance,
        earned=state.earned - state.withheld,
        given=given,
        given_today=today,
    )
