"""What is wrong with an archive or with what is kept of it is found; the commands say what they do and need."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from peer.keeping import KEEP_DAYS
from protocol import codec
from protocol.documents import MAX_VALIDITY_MS, Balances, open_document, sign
from protocol.envelope import parse
from protocol.keyfiles import save_key
from protocol.keys import parse_key
from tests.support.archiving import (
    Killed,
    archive,
    archive_files,
    audited,
    audited_whole,
    change,
    checkpoints,
    killed_at,
    look,
    raw_file,
)
from tests.support.builders import DAY, NOW, ROOT, SERVING, a_key, but
from tests.support.builders import a_delegation as the_roots
from tests.tracker.test_archives import everything
from tests.tracker.test_audit_damage import flipped
from tracker.__main__ import cli
from tracker.archives.whole import listed, whole
from tracker.audit import audit
from tracker.audit.opening import Opening, digest_of
from tracker.commands import exits
from tracker.commands.archive import LEAST_DAYS
from tracker.commands.folder import take_archives
from tracker.commands.init import init
from tracker.store.base import StoreError


@pytest.fixture(scope="module")
def lived(tmp_path_factory):
    """A database in which everything was lived through."""
    folder = tmp_path_factory.mktemp("lived")
    asyncio.run(everything(folder / "everything.db"))
    return folder


# Damage


@pytest.fixture(scope="module")
def cut_once(lived, tmp_path_factory):
    path = Path(shutil.copy(lived / "everything.db", tmp_path_factory.mktemp("cut") / "horde.db"))
    for said in (checkpoints(path)[4], checkpoints(path)[7]):
        archive(path, said.time + 1)
    return path.parent


@pytest.fixture
def cut(cut_once, tmp_path):
    """A database with two archives, which a test may damage."""
    return Path(shutil.copytree(cut_once, tmp_path / "cut")) / "horde.db"


def test_a_byte_that_is_flipped_anywhere_in_an_archive_is_found_and_the_file_is_named(cut):
    audited_whole(cut)
    chance = random.Random(7)
    for path in archive_files(cut) * 20:
        at, bit = chance.randrange(path.stat().st_size), 1 << chance.randrange(8)
        with raw_file(path) as content:
            content[at] ^= bit
        text = f"{path.name}: SHA-256 .* or it was damaged; bring it from where it is kept"
        with pytest.raises(StoreError, match=text), whole(cut, cut.parent / "archives", 0):
            pass
        with raw_file(path) as content:
            content[at] ^= bit
    audited_whole(cut)


def test_an_archive_that_is_missing_or_cut_short_is_named(cut):
    first, second = archive_files(cut)
    with raw_file(second) as content:
        del content[-1:]
    with pytest.raises(StoreError, match=f"{second.name}: .* bytes, and the archive that was signed for has"):
        audited_whole(cut)
    second.unlink()
    with pytest.raises(StoreError, match=f"{second.name}: the archive is not there: bring it"):
        audited_whole(cut)
    first.unlink()
    audited(cut)


def test_an_archive_in_the_place_of_another_one_is_found(cut, lived, tmp_path):
    """Also one of the same horde, of the same size, for the same entries."""
    (tmp_path / "other").mkdir()
    other = Path(shutil.copy(lived / "everything.db", tmp_path / "other" / "horde.db"))
    archive(other, checkpoints(other)[4].time + 1)
    [path] = archive_files(other)
    with raw_file(path) as content:
        content[-1] ^= 1
    place = archive_files(cut)[0]
    assert path.stat().st_size == place.stat().st_size
    shutil.copy(path, place)

    with pytest.raises(StoreError, match="this is another file"):
        audited_whole(cut)


def test_two_archives_that_changed_places_are_found(cut):
    first, second = archive_files(cut)
    first.rename(first.with_suffix(".aside"))
    second.rename(first)
    first.with_suffix(".aside").rename(second)

    with pytest.raises(StoreError, match="archive that was signed for"):
        audited_whole(cut)


def resign(path: Path, place: int, *, key=SERVING, **changes: object) -> None:
    """The operator signs something else for an archive."""
    [(raw,)] = look(path, "SELECT document FROM archives WHERE number = ?", place)
    said = but(open_document(parse(raw), Balances), **changes)
    change(path, "UPDATE archives SET document = ? WHERE number = ?", sign(said, key, ROOT.public).raw, place)


def change_books(path: Path, number: int) -> bytes:
    """Somebody has a thousandth more in the books of an archive's end."""
    [(raw,)] = look(path, "SELECT books FROM archives WHERE number = ?", number)
    opening = codec.decode(raw, Opening)
    account, sums = opening.accounts[-1]
    changed = codec.encode(but(opening, accounts=(*opening.accounts[:-1], (account, (sums[0] + 1, *sums[1:])))))
    change(path, "UPDATE archives SET books = ? WHERE number = ?", changed, number)
    return digest_of(changed)


def findings(path: Path) -> str:
    return "\n".join(str(finding) for finding in audit(path, root=ROOT.public).findings)


def test_balances_that_were_changed_are_found(cut):
    digest = change_books(cut, 2)
    assert "digest of its books" in findings(cut)
    # Also if the operator signs for them: the leaves say something else.
    resign(cut, 2, books=digest)
    assert "digest of its balances" in findings(cut)
    assert "balances: found" in findings(cut)


def test_books_that_were_changed_and_signed_for_are_found_with_the_archives(cut):
    """What only evidence shows, as what somebody has earned."""
    [(raw,)] = look(cut, "SELECT books FROM archives WHERE number = 1")
    opening = codec.decode(raw, Opening)
    account, sums = opening.accounts[-1]
    changed = codec.encode(
        but(opening, accounts=(*opening.accounts[:-1], (account, (*sums[:2], sums[2] + 1, *sums[3:]))))
    )
    change(cut, "UPDATE archives SET books = ? WHERE number = 1", changed)
    resign(cut, 1, books=digest_of(changed))
    with whole(cut, cut.parent / "archives", 0) as copy:
        assert "archive-000001" in findings(copy)
        assert ": accounts: found" in findings(copy)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"root": bytes(32)}, "root of the tree"),
        ({"epoch": 1}, "epoch"),
        ({"size": 3}, "end"),
        ({"start": 1}, "beginning"),
        ({"number": 7}, "number that was signed for"),
        ({"previous": bytes(32)}, "the archive before"),
        ({"key": a_key(9)}, "by another key than the serving key"),
    ],
)
def test_whatever_else_is_signed_for_an_archive_is_compared(cut, changes, found):
    resign(cut, 2, **changes)
    assert found in findings(cut)


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("UPDATE entries SET evidence = x'' WHERE entry = (SELECT max(entry) FROM entries)", "leaf or evidence"),
        ("UPDATE entries SET leaf = CAST(leaf || 'x' AS BLOB) WHERE entry = 2", "stored hash of the leaf"),
        ("UPDATE entries SET hash = zeroblob(32) WHERE entry = 2", "stored hash of the leaf"),
        ("DELETE FROM entries WHERE entry = 2", "the entry's number"),
        ("UPDATE accounts SET earned = earned + 1 WHERE account = 100", "stored earned"),
        ("UPDATE mint_days SET minted = minted + 1", "stored mint"),
        ("DELETE FROM archives WHERE number = 1", "number"),
        ("DELETE FROM archives", "leaf or evidence"),
        ("UPDATE archives SET state = 'back'", "leaf or evidence"),
        ("UPDATE archives SET size = size + 1 WHERE number = 2", "end"),
    ],
)
def test_damage_in_what_is_left_is_found_as_ever(cut, statement, found):
    change(cut, statement)
    assert found in findings(cut)


def test_a_flipped_byte_in_what_is_kept_of_an_archive_is_found(cut):
    """Where its file is, and how large, decides nothing: the digest that was signed for does."""
    chance = random.Random(5)
    columns = {name for (_, name, *_) in look(cut, "PRAGMA table_info(archives)")}
    assert columns == {"number", "size", "name", "bytes", "document", "books", "state"}
    for column in ("number", "size", "document", "books"):
        [(value,)] = look(cut, f"SELECT {column} FROM archives WHERE number = 2")
        damaged = flipped(value, chance.randrange(1000), chance.randrange(7))
        change(cut, f"UPDATE archives SET {column} = ? WHERE number = 2", damaged)
        assert findings(cut), column
        change(cut, f"UPDATE archives SET {column} = ? WHERE {column} = ?", value, damaged)
    for column in ("name", "bytes"):
        [(value,)] = look(cut, f"SELECT {column} FROM archives WHERE number = 2")
        change(cut, f"UPDATE archives SET {column} = ? WHERE number = 2", flipped(value, 3))
        with pytest.raises(StoreError), whole(cut, cut.parent / "archives", 0):
            pass
        change(cut, f"UPDATE archives SET {column} = ? WHERE number = 2", value)
    audited_whole(cut)


def test_a_manifest_lies_beside_each_archive(cut):
    for number, path in enumerate(archive_files(cut), 1):
        said = json.loads(path.with_suffix(".json").read_text())
        assert parse_key(said["horde"]) == ROOT.public
        assert said["archive"] == path.name
        assert said["bytes"] == path.stat().st_size
        balances = dict(look(cut, "SELECT account, balance FROM accounts"))
        assert sum(amount for _, amount in said["balances"]) == 0
        assert {account for account, _ in said["balances"]} <= balances.keys()
        assert number == listed(cut)[number - 1].number


def test_the_archives_hold_no_more_than_what_moved(cut):
    """Neither accounts nor keys, nor anything else that the live database is for."""
    for path in archive_files(cut):
        names = {name for (name,) in look(path, "SELECT name FROM sqlite_schema WHERE type = 'table'")}
        assert names == {"requests", "jobs", "attempts", "documents", "evidence", "checkpoints"}
        assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("number", [1, 2])
def test_an_archive_can_lie_somewhere_else(cut, tmp_path, number):
    elsewhere = tmp_path / "elsewhere"
    (cut.parent / "archives").rename(elsewhere)
    begin = listed(cut)[number - 1].said.start
    with whole(cut, elsewhere, begin) as copy:
        assert audited(copy).begins == begin
    assert not list(cut.parent.glob(".audit-*"))


def test_what_may_move_is_older_than_anything_that_peers_may_still_show() -> None:
    assert LEAST_DAYS * DAY > MAX_VALIDITY_MS
    assert LEAST_DAYS > KEEP_DAYS


# The commands


@pytest.fixture
def folder(cut, tmp_path):
    """A horde's folder whose database has two archives."""
    found = tmp_path / "horde"
    init(found, {"server.listen": "127.0.0.1:0", "horde.name": "a test"}, NOW)
    for name in ("root.key", "serving.key", "serving.delegation", "horde.db"):
        (found / name).unlink()
    save_key(found / "root.key", ROOT)
    save_key(found / "serving.key", SERVING)
    (found / "serving.delegation").write_bytes(the_roots().raw)
    shutil.copy(cut, found / "horde.db")
    shutil.copytree(cut.parent / "archives", found / "archives")
    return found


def run(*words: object, code: int = exits.OK) -> str:
    """A command line; what it prints."""
    ended = CliRunner().invoke(cli, [str(word) for word in words])
    assert ended.exit_code == code, ended.output
    return ended.stdout + ended.stderr


def test_what_peers_may_still_ask_for_is_not_archived(folder):
    for words in (("--keep-days", 13), ("--before", "2999-01-01")):
        assert "wanted a day at least 14 days ago" in run("archive", folder, *words, code=exits.BAD_COMMAND_LINE)
    assert "wanted one of them" in run(
        "archive", folder, "--keep-days", 90, "--before", "2026-01-01", code=exits.BAD_COMMAND_LINE
    )


def test_the_commands_say_what_they_did_and_what_they_need(folder, tmp_path):
    text = run("archive", folder)
    assert "archive-000003" in text
    assert "Copy it and its .json to where your backups are" in text
    assert "Nothing is old enough to move." in run("archive", folder)
    text = run("audit", folder)
    assert "NOTE evidence was checked from entry" in text
    assert "(audit --archives)" in text
    assert "read with 3 archives" in run("audit", folder, "--archives", "all")
    assert "say by --archives where the archives are" in run("audit", folder, "--from", 1, code=exits.BAD_COMMAND_LINE)
    assert "no archive ends at entry 1" in run("audit", folder, "--archives", "all", "--from", 1, code=exits.BAD_HORDE)
    assert "keep a copy of each there too" in run("backup", folder, tmp_path / "copy.db")
    archive_files(folder / "horde.db")[0].unlink()
    assert "bring it from where it is kept" in run("audit", folder, "--archives", "all", code=exits.BAD_HORDE)
    assert "an audit from the beginning does not" in run("restore", folder, tmp_path / "copy.db")


def test_what_is_half_moved_is_told_and_an_audit_waits_for_it(folder):
    database = folder / "horde.db"
    with pytest.raises(Killed):
        archive(database, checkpoints(database)[-1].time + 1, stage=killed_at("name"))
    assert "is half moved: give `potluck-tracker archive` once more" in run("check", folder)
    assert "is not whole yet" in run("audit", folder, "--archives", "all", code=exits.BAD_HORDE)
    assert "everything is as the evidence says" in run("audit", folder)
    assert "was half moved, and is whole now." in run("archive", folder)
    assert "3, up to entry" in run("check", folder)
    assert "read with 3 archives" in run("audit", folder, "--archives", "all")


def test_two_commands_do_not_archive_at_once(folder):
    with closing(take_archives(folder)):
        assert "wait for it to end" in run("archive", folder, code=exits.BAD_HORDE)


def test_a_ledger_with_faults_is_told_so_by_the_command(folder):
    change(folder / "horde.db", "UPDATE accounts SET balance = balance + 1 WHERE account = 100")
    text = run("archive", folder, code=exits.FOUND_FAULTS)
    assert "account 100: stored balance" in text
    assert "nothing was moved: look into it by potluck-tracker audit" in text
