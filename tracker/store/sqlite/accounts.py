"""Accounts: whose key is whose, and how each stands."""

from __future__ import annotations

import sqlite3

from protocol.errors import UnknownJob
from protocol.rules import Rules
from tracker.ledger import decayed
from tracker.store.base import AccountState
from tracker.store.sqlite.ledger import Ledger


def account_of(connection: sqlite3.Connection, key: bytes) -> int:
    """The number of the account of `key`, 0 if it has none."""
    row = connection.execute("SELECT account FROM keys WHERE key = ?", (key,)).fetchone()
    return row[0] if row else 0


def register(connection: sqlite3.Connection, ledger: Ledger, key: bytes, now: int) -> int:
    """The number of the account of `key`, opened now if it had none."""
    number = account_of(connection, key)
    if not number:
        number = ledger.open_account(connection, now)
        connection.execute("INSERT INTO keys (key, account, since) VALUES (?, ?, ?)", (key, number, now))
    return number


def state_of(connection: sqlite3.Connection, number: int, now: int, rules: Rules) -> AccountState:
    """How an account stands."""
    row = connection.execute(
        "SELECT balance, held, earned, spent, taken_free, free_now, free_at, jobs_done, jobs_received FROM accounts"
        " WHERE account = ?",
        (number,),
    ).fetchone()
    if row is None:
        raise UnknownJob(f"there is no account {number}")
    free_now = decayed(row[5], row[6], now, rules.matching.half_life_days)
    return AccountState(number, row[0], row[1], row[2], row[3], row[4], free_now, row[7], row[8])


def count_done(connection: sqlite3.Connection, owner: int, earned: int) -> None:
    """A worker's account has done a job."""
    connection.execute(
        "UPDATE accounts SET earned = earned + ?, jobs_done = jobs_done + 1 WHERE account = ?", (earned, owner)
    )


def count_received(
    connection: sqlite3.Connection, payer: int, *, held: int, spent: int, uncovered: int, rules: Rules, now: int
) -> None:
    """A payer's account has got a result. held: what of its holds that took; uncovered: of it that others carried."""
    before = state_of(connection, payer, now, rules)
    connection.execute(
        "UPDATE accounts SET held = held - ?, spent = spent + ?, taken_free = taken_free + ?, free_now = ?,"
        " free_at = ?, jobs_received = jobs_received + 1 WHERE account = ?",
        (held, spent, uncovered, before.free_now + uncovered, now, payer),
    )
