"""The audit is silent about a true ledger, and names what is wrong with any other."""

import asyncio
import base64
import json
import random
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from protocol import codec, merkle, prices
from protocol.documents import Checkpoint, Evidence, Leaf, Settlement, sign
from protocol.envelope import parse
from protocol.keys import show_key
from protocol.postings import BURN, MINT
from tests.support.builders import NOW, ROOT, SERVING, a_key, a_public_part, a_settlement, a_text_work, but, signed
from tests.support.history import ANN, BEN, CARL, NOBODY, History, live_through_everything
from tracker import lifecycle
from tracker.audit import Report, audit, read_head
from tracker.audit.head import BadHead
from tracker.audit.report import MAX_FINDINGS
from tracker.ledger import make_entry
from tracker.store.base import StoreError
from tracker.store.sqlite import SqliteStore, admission, settling


@pytest.fixture(scope="module")
def lived(tmp_path_factory):
    """A database with jobs in every state, and the settlements that its peers kept."""
    path = tmp_path_factory.mktemp("lived") / "horde.db"

    async def live():
        async with History.open(path) as history:
            return await live_through_everything(history)

    return path, asyncio.run(live())


@pytest.fixture
def database(lived, tmp_path):
    """A copy that a test may damage."""
    return Path(shutil.copy(lived[0], tmp_path / "horde.db"))


@pytest.fixture
def settlements(lived):
    return lived[1]


def damage(path: Path, *statements: str | tuple[str, tuple[object, ...]]) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            text, values = statement if isinstance(statement, tuple) else (statement, ())
            assert connection.execute(text, values).rowcount, f"changed nothing: {text}"
        connection.commit()


def look(path: Path, query: str, *values: object) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query, values).fetchall()


def entries_of(path: Path, event: str) -> list[tuple[int, Leaf, Evidence]]:
    rows = look(path, "SELECT entry, leaf, evidence FROM entries ORDER BY entry")
    found = [(entry, codec.decode(leaf, Leaf), codec.decode(evidence, Evidence)) for entry, leaf, evidence in rows]
    return [row for row in found if row[1].event == event]


def told(report: Report) -> str:
    return "\n".join(str(finding) for finding in report.findings)


def test_a_true_ledger_passes(database):
    report = audit(database, root=ROOT.public)

    assert report.ok, told(report)
    assert report.findings == ()
    assert report.sum == 0
    assert report.entries == look(database, "SELECT count(*) FROM entries")[0][0]
    assert report.root == show_key(ROOT.public)
    assert -report.minted == look(database, "SELECT balance FROM accounts WHERE account = ?", MINT)[0][0]
    assert report.burned == look(database, "SELECT balance FROM accounts WHERE account = ?", BURN)[0][0]
    assert list(report.lines())[-1] == "everything is as the evidence says"


def test_the_history_has_everything_that_can_happen(database):
    """So that passing says something."""
    states = {state for (state,) in look(database, "SELECT DISTINCT state FROM jobs")}
    assert states == {state.value for state in lifecycle.State}
    assert all(entries_of(database, event) for event in ("hold", "settle", "release", "refund"))
    counts = {len(evidence.documents) for _, _, evidence in entries_of(database, "settle")}
    assert counts == {2, 3}
    assert any(evidence.documents for _, _, evidence in entries_of(database, "release"))
    assert look(database, "SELECT count(*) FROM equivocations")[0][0] == 1
    paid = [
        codec.decode(parse(raw).body, Settlement)
        for (raw,) in look(database, "SELECT raw FROM documents WHERE kind = 'settlement'")
    ]
    assert any(said.paid and said.minted for said in paid)
    assert any(said.paid and said.burned == 3_000 for said in paid)
    assert any(said.minted and not said.paid for said in paid)
    assert any(said.partial for said in paid)


async def test_it_works_while_the_tracker_writes_and_changes_nothing(tmp_path):
    path = tmp_path / "horde.db"
    async with History.open(path) as history:
        await history.serve(NOBODY, ANN)
        before = await asyncio.to_thread(audit, path)
        await history.serve(ANN, BEN)
        after = await asyncio.to_thread(audit, path)

    assert before.ok
    assert after.ok
    assert after.entries > before.entries
    content = path.read_bytes()
    assert audit(path).ok
    assert path.read_bytes() == content


def test_a_database_alone_in_a_folder_can_be_read(database):
    assert not database.with_name("horde.db-wal").exists()
    assert audit(database).ok
    assert [file.name for file in database.parent.iterdir()] == ["horde.db"]


@pytest.mark.parametrize(
    ("table", "column", "found"),
    [
        ("entries", "leaf", "leaf"),
        ("entries", "hash", "the stored hash of the leaf"),
        ("entries", "evidence", ""),
        ("documents", "raw", "document"),
        ("documents", "digest", "digest"),
        ("documents", "signer", "signer"),
        ("documents", "identity", "identity"),
        ("checkpoints", "document", "checkpoint"),
        ("rules", "document", "rules version 1"),
        ("rules", "digest", "digest"),
        ("equivocations", "raw", "equivocation"),
        ("equivocations", "first", "equivocation"),
        ("requests", "public", "request"),
        ("requests", "nonce", "nonce"),
        ("requests", "private_digest", "private digest"),
        ("requests", "job_key", "job key"),
        ("attempts", "worker", "worker"),
        ("attempts", "lease", "lease"),
    ],
)
def test_a_flipped_byte_is_found_wherever_it_is(database, table, column, found):
    chance = random.Random(f"{table} {column}")
    key = {"documents": "digest", "equivocations": "digest", "requests": "request", "entries": "entry"}.get(table)
    key = key or {"attempts": "lease", "checkpoints": "size", "rules": "version"}[table]
    rows = look(database, f"SELECT {key}, {column} FROM {table} ORDER BY 1")
    for name, content in chance.sample(rows, min(5, len(rows))):
        at = chance.randrange(len(content))
        flipped = content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :]
        damaged = Path(shutil.copy(database, database.with_name("damaged.db")))
        damage(damaged, (f"UPDATE {table} SET {column} = ? WHERE {key} = ?", (flipped, name)))
        report = audit(damaged)
        assert not report.ok
        assert found in told(report)
        if table == "entries":
            assert name in {finding.entry for finding in report.findings}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("UPDATE accounts SET balance = balance + 1 WHERE account = 100", "account 100: stored balance"),
        ("UPDATE accounts SET held = held + 1 WHERE account = 100", "account 100: stored held"),
        ("UPDATE accounts SET earned = earned + 1 WHERE account = 101", "account 101: stored earned"),
        ("UPDATE accounts SET spent = 0 WHERE account = 100", "account 100: stored spent"),
        ("UPDATE accounts SET taken_free = 0 WHERE account = 4", "account 4: stored taken_free"),
        ("UPDATE accounts SET jobs_done = 99 WHERE account = 100", "account 100: stored jobs_done"),
        ("UPDATE accounts SET jobs_received = 99 WHERE account = 100", "account 100: stored jobs_received"),
        ("DELETE FROM accounts WHERE account = 1", "account 1, which entries name: found nothing"),
        ("UPDATE mint_days SET minted = minted + 1", "stored mint:"),
        ("UPDATE mint_days SET reserved = reserved + 1", "stored mint set aside"),
        ("UPDATE jobs SET state = 'failed' WHERE state = 'settled'", "which is failed: the attempt that was paid"),
        ("UPDATE jobs SET state = 'waiting' WHERE state = 'refunded'", "the job's state: found waiting, wanted an end"),
        ("UPDATE jobs SET state = 'settled' WHERE state = 'expired'", "its settlement: found nothing"),
        ("UPDATE jobs SET held = held + 1 WHERE state = 'waiting'", "what its hold contains"),
        ("UPDATE jobs SET settled = 2 WHERE state = 'settled'", "the job's state"),
        ("UPDATE jobs SET attempt = attempt + 1 WHERE state = 'leased'", "its latest attempt"),
        ("UPDATE jobs SET signer = zeroblob(32) WHERE state = 'waiting'", "who asked for it"),
        ("UPDATE attempts SET price = price + 1 WHERE price > 0", "price: found"),
        ("UPDATE attempts SET tax = 0 WHERE tax > 0", "the attempt's free part and tax"),
        ("UPDATE requests SET payer = 101 WHERE payer = 102", "payer: found 101, wanted 102"),
        ("UPDATE attempts SET owner = 102 WHERE owner = 101", "the worker's account"),
        ("DELETE FROM documents WHERE kind = 'receipt'", "the receipt of the evidence: found nothing"),
        ("DELETE FROM documents WHERE kind = 'acknowledgement'", "the acknowledgement of the evidence: found nothing"),
        ("DELETE FROM documents WHERE kind = 'request'", "a request that is kept"),
        ("DELETE FROM documents WHERE kind = 'denial'", "one denial"),
        ("DELETE FROM documents WHERE kind = 'cancel'", "the cancel behind it"),
        ("DELETE FROM documents WHERE kind = 'lease'", "a lease that is kept"),
        ("DELETE FROM documents WHERE kind = 'settlement'", "the settlement of the evidence: found nothing"),
        ("DELETE FROM rules", "the rules: found nothing"),
        ("DELETE FROM attempts WHERE attempt = 1", "the attempt: found nothing"),
        ("DELETE FROM jobs WHERE state = 'settled'", "the job of the evidence"),
        ("DELETE FROM checkpoints WHERE size > 5 AND size < 20", "the settlement's checkpoint"),
        ("UPDATE rules SET version = 7", "the rules' numbers: found 7, wanted 1"),
        ("UPDATE horde SET epoch = -1", "epoch"),
    ],
)  # fmt: skip
def test_an_edited_table_is_found_and_named(database, change, found):
    damage(database, change)

    report = audit(database)

    assert not report.ok
    assert found in told(report)


@pytest.mark.parametrize("which", ["first", "middle", "last"])
def test_a_removed_entry_is_found(database, which):
    size = audit(database).entries
    entry = {"first": 0, "middle": size // 2, "last": size - 1}[which]
    damage(database, ("DELETE FROM entries WHERE entry = ?", (entry,)))

    report = audit(database)

    assert not report.ok
    if which == "last":
        assert "the ledger's tail was cut" in told(report)
    else:
        assert f"entry {entry + 1}: the entry's number" in told(report)


def test_an_entry_is_named_by_its_number_when_its_postings_are_changed_with_their_hash(database):
    entry, leaf, evidence = entries_of(database, "settle")[3]
    forged = make_entry("settle", tuple((account, amount * 2) for account, amount in leaf.postings), evidence)
    damage(
        database,
        ("UPDATE entries SET leaf = ?, hash = ? WHERE entry = ?", (forged.leaf, forged.hash, entry)),
    )

    report = audit(database)

    assert f"entry {entry}: minted" in told(report)
    assert "root of the tree" in told(report)


def test_an_attempt_that_is_paid_twice_is_found(database):
    _, leaf, evidence = entries_of(database, "settle")[0]
    size = audit(database).entries
    again = make_entry("settle", leaf.postings, evidence)
    insert = "INSERT INTO entries (entry, leaf, hash, evidence) VALUES (?, ?, ?, ?)"
    damage(database, (insert, (size, again.leaf, again.hash, again.evidence)))
    for account, amount in leaf.postings:
        damage(database, ("UPDATE accounts SET balance = balance + ? WHERE account = ?", (amount, account)))

    report = audit(database)

    assert f"entry {size}: the settlement's entry" in told(report)


def test_postings_that_make_kudos_from_nothing_are_found(database):
    entry, leaf, _ = entries_of(database, "settle")[0]
    raw = codec.encode(Leaf(event="settle", day=leaf.day, postings=((100, 5),), hold=leaf.hold, evidence=leaf.evidence))
    damage(database, ("UPDATE entries SET leaf = ?, hash = ? WHERE entry = ?", (raw, merkle.leaf_hash(raw), entry)))

    report = audit(database)

    assert f"entry {entry}: the sum of the postings: found 5, wanted 0" in told(report)
    assert report.sum


def test_an_event_that_nothing_proves_is_found(database):
    size = audit(database).entries
    gift = make_entry("award", ((MINT, -5), (100, 5)), entries_of(database, "hold")[0][2])
    insert = "INSERT INTO entries (entry, leaf, hash, evidence) VALUES (?, ?, ?, ?)"
    damage(database, (insert, (size, gift.leaf, gift.hash, gift.evidence)))

    assert f"entry {size}: the award of the evidence" in told(audit(database))


def test_a_checkpoint_of_another_tree_is_found_though_it_is_signed(database):
    size = audit(database).entries
    false = sign(Checkpoint(size=size, root=merkle.leaf_hash(b""), time=NOW), SERVING, ROOT.public).raw
    damage(database, ("UPDATE checkpoints SET document = ? WHERE size = ?", (false, size)))

    assert f"checkpoint {size}: root of the tree" in told(audit(database))


def test_documents_by_a_key_that_was_not_appointed_are_found(database):
    [(raw,)] = look(database, "SELECT raw FROM documents WHERE kind = 'settlement' LIMIT 1")
    said = codec.decode(parse(raw).body, Settlement)
    forged = sign(said, a_key(99), ROOT.public)
    damage(
        database,
        (
            "UPDATE documents SET raw = ?, digest = ?, signer = ? WHERE raw = ?",
            (forged.raw, forged.digest, forged.key, raw),
        ),
    )

    assert "by another key than the serving key" in told(audit(database))


def test_another_hordes_database_is_not_taken_for_the_one_that_is_known(database):
    with pytest.raises(StoreError, match="delegation"):
        audit(database, root=a_key(99).public)


# A tracker that signs what it likes


class Dishonest:
    """Steps of the store that are not as the standard says."""

    def __init__(self, monkeypatch):
        self._patch = monkeypatch

    def pays(self, **more):
        def decide(*arguments):
            outcome = lifecycle.decide(*arguments)
            if outcome.payment is None:
                return outcome
            changed = {name: getattr(outcome.payment, name) + extra for name, extra in more.items()}
            return replace(outcome, payment=replace(outcome.payment, **changed))

        self._patch.setattr(settling, "decide", decide)

    def hurries(self, early):
        def decide(job, attempt, event, rules, now):
            return lifecycle.decide(job, attempt, event, rules, now + early * isinstance(event, lifecycle.Silence))

        self._patch.setattr(settling, "decide", decide)

    def charges(self, extra):
        self._patch.setattr(admission, "price", lambda *arguments: prices.price(*arguments) + extra)


@pytest.fixture
def dishonest(monkeypatch):
    return Dishonest(monkeypatch)


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ({"minted": 7}, "minted: found"),
        ({"minted": -7}, "minted: found"),
        ({"paid": 7}, "the postings: found"),
        ({"paid": -7}, "the postings: found"),
        ({"tax": 7}, "the postings: found"),
        ({"uncovered": 7}, "stored taken_free"),
    ],
)
async def test_a_tracker_that_pays_too_much_or_too_little_is_found_out(tmp_path, dishonest, more, found):
    path = tmp_path / "horde.db"
    async with History.open(path) as history:
        for _ in range(3):
            await history.serve(NOBODY, ANN)
        dishonest.pays(**more)
        await history.serve(ANN, BEN, a_public_part(a_text_work()))
        await history.serve(NOBODY, ANN)
        await history.store.seal(history.tick())

    report = audit(path)

    assert not report.ok
    assert found in told(report)
    assert "root of the tree" not in told(report)


@pytest.mark.parametrize("extra", [100, -100])
async def test_a_tracker_with_prices_of_its_own_is_found_out(tmp_path, dishonest, extra):
    path = tmp_path / "horde.db"
    async with History.open(path) as history:
        for _ in range(3):
            await history.serve(NOBODY, ANN)
        dishonest.charges(extra)
        await history.serve(ANN, BEN)

    report = audit(path)

    assert "the amount of a hold" in told(report)
    assert "the lease's price" in told(report)


async def test_a_tracker_that_goes_beyond_the_highest_price_that_was_offered_is_found_out(tmp_path):
    path = tmp_path / "horde.db"
    async with History.open(path) as history:
        for _ in range(3):
            await history.serve(NOBODY, ANN)
        await history.serve(ANN, BEN, but(a_public_part(), max_price=1_000))

    assert "the amount of a hold" in told(audit(path))
    assert "the lease's price: found" in told(audit(path))


async def test_a_tracker_that_pays_before_the_silence_is_over_is_found_out(tmp_path, dishonest):
    path = tmp_path / "horde.db"
    async with History.open(path) as history:
        rules = history.rules.rules
        for early in (0, 1):
            dishonest.hurries(early)
            asked = await history.ask(NOBODY, served_by=ANN)
            await history.deliver(await history.receipt(asked.admitted.leases[0].document, ANN))
            await history.store.silence(asked.job, rules, history.tick(rules.times.silence * 1000 - early))
            assert audit(path).ok == (not early)
        last = (await history.store.ledger_head()).size - 1

    assert f"entry {last}: paid without an acknowledgement" in told(audit(path))


# A settlement that somebody kept


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "form",
    [
        lambda raw: raw,
        lambda raw: raw.hex().encode(),
        base64.b64encode,
        base64.encodebytes,
        lambda raw: base64.urlsafe_b64encode(raw).rstrip(b"="),
        lambda raw: json.dumps({"attempt": 1, "settlement": base64.b64encode(raw).decode()}).encode(),
    ],
)
def test_every_settlement_that_was_given_is_still_in_the_ledger(database, settlements, tmp_path, form):
    for number in (0, len(settlements) // 2, -1):
        head = read_head(write(tmp_path / "head", form(settlements[number])))
        report = audit(database, head=head)
        assert report.ok, told(report)
        assert report.head


async def test_a_tail_that_was_cut_is_found_by_a_settlement_that_was_kept(tmp_path):
    path, earlier = tmp_path / "horde.db", tmp_path / "earlier.db"
    async with History.open(path) as history:
        await history.serve(NOBODY, ANN)
        await history.store.seal(history.tick())
    shutil.copy(path, earlier)
    async with SqliteStore.open(path, SERVING) as store:
        history = History(store, await store.rules_in_force())
        history.now = NOW + 1_000_000
        history.accounts = {ANN.public: 100, BEN.public: 101, CARL.public: 102}
        history.number_from(500)
        await history.serve(NOBODY, ANN)
        kept = await history.serve(NOBODY, BEN)

    head = read_head(write(tmp_path / "head", kept))
    assert audit(path, head=head).ok
    assert audit(earlier).ok, "without the kept settlement nothing can be seen"
    report = audit(earlier, head=head)
    assert not report.ok
    assert "entry 2: the ledger's tail was cut: a settlement that was kept names an entry that is gone" in told(report)
    assert "a checkpoint that was kept covers more: found 1 entries, wanted 2" in told(report)


async def test_a_rewritten_past_is_found_by_a_settlement_that_was_kept(tmp_path, settlements):
    path = tmp_path / "horde.db"
    async with History.open(path) as history:
        for _ in range(20):
            await history.serve(NOBODY, BEN)
            await history.store.seal(history.tick())

    assert audit(path).ok
    report = audit(path, head=read_head(write(tmp_path / "head", settlements[6])))
    assert "the leaf that the kept settlement names" in told(report)
    assert "of the kept checkpoint" in told(report)


@pytest.mark.parametrize("key", [SERVING, a_key(99)])
def test_a_settlement_that_the_horde_did_not_sign_proves_nothing(database, tmp_path, key):
    head = read_head(write(tmp_path / "head", sign(a_settlement(), key, a_key(98).public).raw))

    assert "the kept settlement: found a settlement of horde" in told(audit(database, head=head))


def test_a_settlement_by_another_key_is_named(database, settlements, tmp_path):
    said = codec.decode(parse(settlements[0]).body, Settlement)
    head = read_head(write(tmp_path / "head", sign(said, a_key(99), ROOT.public).raw))

    assert "signer of the kept settlement" in told(audit(database, head=head))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b'{"settlement": ""}',
        b"hello",
        b"00ff",
        b"aGVsbG8=",
        signed(Checkpoint(size=0, root=bytes(32), time=NOW)).raw,
    ],
)
def test_what_is_no_settlement_is_refused(tmp_path, content):
    with pytest.raises(BadHead, match="no settlement"):
        read_head(write(tmp_path / "head", content))


def test_a_head_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(BadHead, match="cannot be read"):
        read_head(tmp_path / "none")


# Files that are no ledgers


def test_a_missing_database_is_named(tmp_path):
    with pytest.raises(StoreError, match="there is no database"):
        audit(tmp_path / "none.db")


def test_a_file_of_another_kind_is_named(tmp_path):
    with pytest.raises(StoreError, match="not a database that can be read"):
        audit(write(tmp_path / "x.db", b"not a database at all, but long enough to look at" * 20))


def test_another_programs_database_is_named(tmp_path):
    with closing(sqlite3.connect(tmp_path / "x.db")) as connection:
        connection.execute("CREATE TABLE other (x)")

    with pytest.raises(StoreError, match="is no tracker's database"):
        audit(tmp_path / "x.db")


def test_an_empty_horde_is_named(database):
    damage(database, "DELETE FROM horde")

    with pytest.raises(StoreError, match="holds no horde"):
        audit(database)


def test_a_damaged_file_is_found_or_refused_and_never_breaks_the_audit(database):
    content = database.read_bytes()
    chance = random.Random(7)
    found = 0
    for _ in range(60):
        at = chance.randrange(len(content))
        damaged = bytearray(content)
        damaged[at : at + 64] = chance.randbytes(len(damaged[at : at + 64]))
        try:
            report = audit(write(database.with_name("damaged.db"), bytes(damaged)))
        except StoreError:
            found += 1
        else:
            found += not report.ok
    assert found > 15, "pages that hold nothing can be damaged too"


def test_a_flood_of_findings_is_counted_and_not_listed(database):
    damage(database, f"UPDATE documents SET kind = kind || '{'x' * 10}'")
    report = audit(database)

    assert len(report.findings) <= MAX_FINDINGS
    assert not report.ok
