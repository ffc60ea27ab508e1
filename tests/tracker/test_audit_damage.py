"""One byte that changed anywhere in ledger or evidence is found, and the entry that it concerns is named.

Which columns there are is read from the database, so that a new one is covered, or stands below with its reason.
"""

import asyncio
import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from protocol import codec
from protocol.documents import Evidence, Leaf
from protocol.keys import SIGNATURE_BYTES
from tests.support.builders import DAY, ROOT
from tests.support.history import BEN, History, live_through_everything
from tracker.__main__ import cli
from tracker.audit import Report, audit
from tracker.commands import exits
from tracker.store.base import StoreError

#: The ledger, what it rests on, and the sums that are kept of it.
LEDGER_AND_EVIDENCE = (
    "accounts", "awards", "checkpoints", "documents", "entries", "equivocations", "faults", "horde", "mint_days",
    "mint_shares", "rules",
)  # fmt: skip

#: Tables of work under way. What of them an entry rests on is compared with it (test_audit, test_recovery).
WORK = (
    "attempts", "delegations", "invites", "jobs", "keys", "profiles", "recovered", "recoveries", "requests",
)  # fmt: skip

#: What was said about people and rules: a log or a vote that was changed is found (test_sqlite_moderation,
#: test_sqlite_voting). Strikes and the secret of pseudonyms are evidence of nothing.
SAID = ("acts", "appeals", "proposals", "pseudonyms", "strikes", "voices")

#: What has moved away, and the books behind which it lies (test_archives).
ARCHIVED = ("archives",)

#: Columns that say nothing about kudos or proofs.
NO_EVIDENCE = {
    ("accounts", "since"): "when it was opened",
    ("accounts", "free_now"): "free work with half of it forgotten now and then: for the rank alone",
    ("accounts", "free_at"): "the moment of that",
    ("equivocations", "taken"): "when the proof came; it proves at any time",
    ("horde", "faults_from"): "from when on refunds are kept beside the ledger; accounts.fault is what decides",
    ("horde", "one"): "keeps the table to one row",
    ("horde", "shares_from"): "from which day on shares are kept beside the entries that they are counted from",
}

#: So many rows of a table are damaged in each column; of `documents` so many of each kind.
ROWS = 3

Row = dict[str, Any]


@pytest.fixture(scope="module")
def lived(tmp_path_factory):
    """A database with jobs in every state."""
    path = tmp_path_factory.mktemp("lived") / "horde.db"

    async def live():
        async with History.open(path) as history:
            await live_through_everything(history)
            history.tick(8 * DAY)
            await history.transfer(BEN, 102, 1_000)
            await history.award(102, 5_000)
            await history.store.seal(history.tick())

    asyncio.run(live())
    return path


class Damage:
    """Copies of a database, each damaged in one place."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.path = path
        self.copy = folder / "damaged.db"

    def rows(self, table: str) -> list[Row]:
        with closing(sqlite3.connect(self.path)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(f"SELECT * FROM {table}")]

    def change(self, *steps: tuple[str, tuple[object, ...]]) -> Report | None:
        """The report on a copy in which these statements were carried out; None if it cannot even be read, or if the
        database itself does not allow the change."""
        shutil.copy(self.path, self.copy)
        with closing(sqlite3.connect(self.copy)) as connection:
            connection.execute("PRAGMA ignore_check_constraints = 1")
            try:
                for statement, values in steps:
                    assert connection.execute(statement, values).rowcount, statement
            except sqlite3.IntegrityError:
                return None
            connection.commit()
        try:
            return audit(self.copy, root=ROOT.public)
        except StoreError:
            return None

    def set(self, table: str, row: Row, column: str, value: object) -> Report | None:
        where = " AND ".join(f"{name} IS ?" for name in row)
        return self.change((f"UPDATE {table} SET {column} = ? WHERE {where}", (value, *row.values())))


@pytest.fixture
def damage(lived, tmp_path):
    return Damage(lived, tmp_path)


def flipped(value: object, at: int, bit: int = 0) -> object:
    """The value with one bit of one byte changed."""
    match value:
        case bytes():
            at %= len(value)
            return value[:at] + bytes([value[at] ^ 1 << bit]) + value[at + 1 :]
        case str():
            at %= len(value)
            return value[:at] + chr(ord(value[at]) ^ 1 << bit) + value[at + 1 :]
        case int():
            return value ^ 1 << 8 * (at % 2)
    raise TypeError(value)


def chosen(table: str, rows: list[Row], chance: random.Random) -> Iterator[Row]:
    groups: dict[object, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.get("kind"), []).append(row)
    if table == "entries":
        yield from rows
    else:
        for group in groups.values():
            yield from chance.sample(group, min(ROWS, len(group)))


def resting(damage: Damage, digest: object) -> int | None:
    """The first entry that rests on this document."""
    for row in sorted(damage.rows("entries"), key=lambda row: row["entry"]):
        if digest in codec.decode(row["evidence"], Evidence).documents:
            return int(row["entry"])
    return None


def test_every_table_of_the_database_is_thought_of(damage):
    with closing(sqlite3.connect(damage.path)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    assert tables == set(LEDGER_AND_EVIDENCE) | set(WORK) | set(SAID) | set(ARCHIVED)
    columns = {(table, column) for table in LEDGER_AND_EVIDENCE for column in damage.rows(table)[0]}
    assert set(NO_EVIDENCE) <= columns


@pytest.mark.parametrize("table", LEDGER_AND_EVIDENCE)
def test_a_flipped_byte_in_any_column_is_found(damage, table):
    rows, chance = damage.rows(table), random.Random(table)
    for column in rows[0]:
        if (table, column) in NO_EVIDENCE:
            continue
        tried = 0
        for row in chosen(table, rows, chance):
            if row[column] in (b"", ""):
                continue
            report = damage.set(table, row, column, flipped(row[column], chance.randrange(1000), chance.randrange(7)))
            tried += 1
            assert report is None or not report.ok, (column, row)
            if report is None:
                continue
            named = {finding.entry for finding in report.findings}
            if table == "entries" and column != "entry":
                assert row["entry"] in named, column
            if table == "documents" and (entry := resting(damage, row["digest"])) is not None:
                assert entry in named, (column, row)
        assert tried, column


def test_the_check_would_notice_a_column_that_nobody_looks_at(damage):
    """The control: what the list above leaves out does pass."""
    for table, column in NO_EVIDENCE:
        row = damage.rows(table)[0]
        report = damage.set(table, row, column, flipped(row[column], 0))
        assert report is not None, column
        assert report.ok, column


@pytest.mark.slow
def test_no_byte_of_an_entry_can_change(damage):
    """One entry of each event, byte by byte."""
    entries = {codec.decode(row["leaf"], Leaf).event: row for row in damage.rows("entries")}
    assert {"hold", "settle", "release", "refund", "transfer", "award"} <= set(entries)
    for row in entries.values():
        for column in ("leaf", "hash", "evidence"):
            for at in range(len(row[column])):
                report = damage.set("entries", row, column, flipped(row[column], at))
                assert report is not None
                assert row["entry"] in {finding.entry for finding in report.findings}, (column, at)


def test_a_replaced_signature_is_found_and_names_the_entry(damage):
    rows = [row for row in damage.rows("documents") if resting(damage, row["digest"]) is not None]
    kinds = {row["kind"] for row in rows}
    assert {"request", "lease", "receipt", "acknowledgement", "denial", "cancel", "transfer", "award"} <= kinds
    for kind in sorted(kinds):
        first = next(row for row in rows if row["kind"] == kind)
        other = next(row for row in damage.rows("documents") if row["digest"] != first["digest"])
        with_anothers = first["raw"][:-SIGNATURE_BYTES] + other["raw"][-SIGNATURE_BYTES:]
        report = damage.set("documents", first, "raw", with_anothers)
        assert report is not None
        assert resting(damage, first["digest"]) in {finding.entry for finding in report.findings}, kind


@pytest.mark.parametrize("apart", [1, 7])
def test_swapped_entries_are_found_and_named(damage, apart):
    events = [codec.decode(row["leaf"], Leaf).event for row in damage.rows("entries")]
    size = len(events)
    for entry in range(0, size - apart, 5):
        swap = "UPDATE entries SET entry = ? WHERE entry = ?"
        report = damage.change(
            (swap, (-1, entry)), (swap, (entry, entry + apart)), (swap, (entry + apart, -1))
        )  # fmt: skip
        assert report is not None
        assert not report.ok
        named = {finding.entry for finding in report.findings}
        # Nothing else says when an award came: of that the tree alone knows.
        assert named & {entry, entry + apart} or "award" in (events[entry], events[entry + apart]), named


def test_a_doubled_entry_is_found_and_named(damage):
    size = len(damage.rows("entries"))
    for entry in range(0, size, 5):
        at_the_end = "INSERT INTO entries SELECT ?, leaf, hash, evidence FROM entries WHERE entry = ?"
        report = damage.change((at_the_end, (size, entry)))
        assert report is not None
        assert size in {finding.entry for finding in report.findings}, entry
        report = damage.change(
            ("UPDATE entries SET entry = -entry - 1 WHERE entry > ?", (entry - 1,)),
            ("INSERT INTO entries SELECT ?, leaf, hash, evidence FROM entries WHERE entry = ?", (entry, -entry - 1)),
            ("UPDATE entries SET entry = -entry WHERE entry < 0", ()),
        )
        assert report is not None
        assert entry + 1 in {finding.entry for finding in report.findings}, entry


def test_the_command_ends_with_a_code_of_its_own_and_names_the_entry(damage):
    row = damage.rows("entries")[4]
    assert damage.set("entries", row, "evidence", flipped(row["evidence"], 20)) is not None
    ended = CliRunner().invoke(cli, ["audit", str(damage.copy)])
    assert ended.exit_code == exits.FOUND_FAULTS
    assert f"FAULT entry {row['entry']}: " in ended.stdout
    assert CliRunner().invoke(cli, ["audit", str(damage.path)]).exit_code == exits.OK
