"""The store on SQLite: the contract, and what is particular to a file."""

import asyncio
import sqlite3
import threading
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import count

import pytest

from protocol import codec
from protocol.documents import Serving
from protocol.errors import BadSignature, Equivocation, JobsUnderWay
from protocol.postings import MINT
from protocol.rules import Rules
from tests.support.books import check_books
from tests.support.builders import (
    NOW,
    REQUESTER,
    ROOT,
    SERVING,
    a_delegation,
    a_digest,
    a_key,
    a_leaving,
    a_public_part,
    an_acknowledgement,
    but,
    signed,
)
from tests.support.clerk import Clerk
from tests.support.rules import plain
from tests.tracker.store.contract import StoreContract, everything
from tests.tracker.store.people_contract import PeopleContract
from tracker.lifecycle import State
from tracker.store.base import Choice, StoreError, StoreFull
from tracker.store.sqlite import SqliteStore, admission, database, rows, writer
from tracker.store.sqlite.database import APPLICATION_ID, connect, migrations
from tracker.store.sqlite.mint import Between


class SqliteBackend:
    """A file that is not there yet."""

    def __init__(self, path):
        self.path = path

    def create(self, rules: Rules) -> None:
        SqliteStore.create(self.path, a_delegation(), rules, SERVING, NOW)

    def open(self):
        return SqliteStore.open(self.path, SERVING)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "horde.db"


@pytest.fixture
def backend(path):
    return SqliteBackend(path)


class TestSqliteStore(StoreContract, PeopleContract):
    """Every promise of the contract; and after each test the books in the file are right."""

    @pytest.fixture
    def backend(self, path):
        yield SqliteBackend(path)
        check_books(path)


@pytest.fixture
async def store(backend):
    backend.create(plain())
    async with backend.open() as store:
        yield store


@pytest.fixture
async def clerk(store):
    return await Clerk.at(store)


@dataclass
class Steps:
    """What a query found, and how many steps SQLite's machine took for it."""

    found: list[object]
    count: int = 0


def steps(path, query) -> Steps:
    with closing(connect(path)) as connection:
        taken = Steps([])

        def count() -> int:
            taken.count += 1
            return 0

        connection.set_progress_handler(count, 1)
        taken.found = query(connection)
    return taken


def read(path, sql):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def write(path, *statements):
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


async def on_the_writer(store, run):
    return await store._writer.step(run)


# Durable


@pytest.mark.parametrize(
    ("pragma", "wanted"),
    [("synchronous", 2), ("journal_mode", "wal"), ("foreign_keys", 1), ("ignore_check_constraints", 0)],
)
async def test_the_connection_that_writes_syncs_every_commit(store, pragma, wanted):
    def run(connection):
        return connection.execute(f"PRAGMA {pragma}").fetchone()[0]

    assert await on_the_writer(store, run) == wanted


async def test_what_was_confirmed_is_in_the_file_for_others_to_read(store, clerk, path):
    job = await clerk.ask_one()
    assert read(path, "SELECT job, state FROM jobs") == [(job.handle, "waiting")]


async def test_leaving_costs_the_same_however_many_jobs_of_others_are_under_way(store, clerk):
    """What is refused stores nothing, so anybody can ask for it again and again."""
    number = await clerk.account()
    said = a_leaving()
    leaving = signed(said)

    taken: list[str] = []
    costs = []
    for many in (1, 50):
        for _ in range(many):
            await clerk.ask_one()
        await clerk.ask_one(payer=number)
        await on_the_writer(store, lambda connection: connection.set_progress_handler(lambda: taken.append("step"), 1))
        taken.clear()
        with pytest.raises(JobsUnderWay):
            await store.leave(leaving, said, clerk.now)
        costs.append(len(taken))
        await on_the_writer(store, lambda connection: connection.set_progress_handler(None, 1))
    assert costs[0] >= costs[1]


async def test_what_is_told_of_all_accounts_costs_the_same_however_many_they_are(store, clerk):
    said: list[str] = []
    costs = []
    for many in (1, 50):
        for number in range(many):
            await clerk.account(a_key(5_000 + number))
        await on_the_writer(store, lambda connection: connection.set_progress_handler(lambda: said.append("step"), 1))
        said.clear()
        await store.gifts()
        costs.append(len(said))
        await on_the_writer(store, lambda connection: connection.set_progress_handler(None, 1))
    assert costs[0] >= costs[1]


async def commits_of_many(store, clerk, monkeypatch, step_seconds):
    """How many commits one step makes, and 49 that come while it is committed, if each takes so long."""
    commits = []
    begun, go_on = threading.Event(), threading.Event()
    loop = threading.current_thread()
    looks = count()

    def trace(sql):
        if sql == "COMMIT" and threading.current_thread() is not loop:  # there, nothing was written
            commits.append(sql)
            begun.set()
            go_on.wait()

    monkeypatch.setattr(store._writer, "_clock", lambda: next(looks) * step_seconds)
    await on_the_writer(store, lambda connection: connection.set_trace_callback(trace))
    first = asyncio.create_task(clerk.account(a_key(0)))
    while not begun.is_set():  # noqa: ASYNC110 (another thread sets it)
        await asyncio.sleep(0.001)
    steps = [asyncio.create_task(clerk.account(a_key(number))) for number in range(1, 50)]
    await asyncio.sleep(0)
    go_on.set()
    numbers = await asyncio.gather(first, *steps)
    await on_the_writer(store, lambda connection: connection.set_trace_callback(None))
    assert len(set(numbers)) == 50
    return len(commits)


async def test_steps_that_come_together_share_a_commit(store, clerk, monkeypatch):
    assert await commits_of_many(store, clerk, monkeypatch, 0) == 2, (
        "one for the first, one for all that came meanwhile"
    )


async def test_steps_that_take_long_together_leave_the_loop_its_turn(store, clerk, monkeypatch):
    seven = writer.MAX_BATCH_SECONDS / 6.5  # in so many turns the time is over
    assert await commits_of_many(store, clerk, monkeypatch, seven) == 1 + 49 / 7


async def test_a_full_disk_fails_the_step_and_changes_nothing(store, clerk, path):
    job = await clerk.ask_one()
    before = await everything(store)

    def fill(connection):
        [pages] = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")

    await on_the_writer(store, fill)

    async def go_on() -> None:
        for number in range(1_000, 2_000):
            await clerk.account(a_key(number))

    with pytest.raises(StoreFull, match="make room"):
        await go_on()
    accounts = read(path, "SELECT max(account) FROM accounts")
    await on_the_writer(store, lambda connection: connection.execute("PRAGMA max_page_count = 1000000"))
    check_books(path)
    assert (await everything(store))[3] == before[3]
    number = await clerk.account(a_key(5_000))
    assert [(number - 1,)] == accounts, "what is kept in memory went back as well"
    await clerk.acknowledge(clerk.receipt(await clerk.lease(job)))


async def test_a_step_of_a_closed_store_is_refused(backend):
    backend.create(plain())
    async with backend.open() as store:
        pass
    with pytest.raises(StoreError, match="closed"):
        await store.ledger_head()


async def test_steps_that_were_asked_for_before_the_end_are_carried_out(backend, path):
    backend.create(plain())
    async with backend.open() as store:
        clerk = await Clerk.at(store)
        steps = [asyncio.create_task(clerk.account(a_key(number))) for number in range(20)]
        await asyncio.sleep(0)
    assert len(await asyncio.gather(*steps)) == 20
    assert len(read(path, "SELECT key FROM keys")) == 20


async def test_a_step_that_refuses_after_it_wrote_is_undone_alone_in_memory_too(store, clerk, path):
    class Late(Exception):
        pass

    number = await clerk.account(a_key(1))
    tables = store._tables
    taken = []

    def pay(connection):
        taken.append(tables.accounts.state_of(connection, number, clerk.now, Rules()).balance)
        tables.accounts.move(connection, ((number, 5), (MINT, -5)))

    def regret(connection):
        tables.accounts.move(connection, ((number, 70), (MINT, -70)))
        tables.mint.count(connection, 1, 70, Between(number, "203.0.113.0/24"))
        connection.execute("INSERT INTO mint_days (day) VALUES (2)")
        raise Late

    results = await asyncio.gather(*(on_the_writer(store, run) for run in (pay, regret, pay)), return_exceptions=True)
    assert [type(result) for result in results] == [type(None), Late, type(None)]
    assert await clerk.balance(number) == 10
    assert read(path, f"SELECT balance FROM accounts WHERE account = {number}") == [(10,)]
    assert read(path, "SELECT * FROM mint_days WHERE reserved OR minted OR day = 2") == []
    assert read(path, "SELECT * FROM mint_shares WHERE reserved OR minted") == []
    assert taken[-2:] == [0, 5], "each saw what the one before had left, and nothing of what was undone"
    await on_the_writer(store, lambda c: tables.accounts.move(c, ((number, -10), (MINT, 10))))


async def test_what_could_not_be_committed_is_gone_from_memory_too(store, clerk, path, monkeypatch):
    number = await clerk.account(a_key(1))
    job = await clerk.ask_one()
    whole = store._tables.before_commit

    def fail(connection):
        whole(connection)
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(store._tables, "before_commit", fail)
    with pytest.raises(StoreFull):
        await on_the_writer(store, lambda c: store._tables.accounts.move(c, ((number, 5), (MINT, -5))))
    choice = Choice(a_key(1).public, number, job.public.models[0])
    with pytest.raises(StoreFull):
        await store.lease(job.handle, 0, choice, clerk.rules, clerk.now)
    monkeypatch.undo()
    assert await clerk.balance(number) == 0
    leased = await store.lease(job.handle, 0, choice, clerk.rules, clerk.now)
    assert leased is not None
    assert leased.job.attempt == 1
    assert await store.standing(job.handle, 1) is not None


async def test_a_step_that_nobody_waits_for_any_more_hurts_nobody(store, clerk):
    step = asyncio.create_task(clerk.account(a_key(1)))
    await asyncio.sleep(0)
    step.cancel()
    assert await clerk.account(a_key(2))


# The control of the contract


class NaiveStore(SqliteStore):
    """Looks whether a job waits, and leases it in a second step: what the contract must find."""

    async def lease(self, handle, attempt, choice, rules, now):
        job = await self._step(lambda connection: rows.job(connection, handle))
        if job is None or job.state is not State.WAITING or job.attempt != attempt:
            return None

        def run(connection):
            again = rows.job(connection, handle)
            assert again is not None
            return admission.lease(connection, self._tables, replace(again, state=State.WAITING), choice, rules, now)

        return await self._step(run)


async def test_the_contract_finds_a_store_that_selects_and_then_updates(path):
    SqliteBackend(path).create(plain())
    async with NaiveStore.open(path, SERVING) as store:
        clerk = await Clerk.at(store)
        with pytest.raises(AssertionError):
            await TestSqliteStore().test_a_job_is_leased_to_one_worker_only(clerk)


# Whose file it is


async def test_a_file_that_holds_a_horde_is_not_overwritten(backend, path):
    backend.create(plain())
    before = read(path, "SELECT * FROM horde")
    with pytest.raises(StoreError, match="holds a horde already"):
        backend.create(plain())
    assert read(path, "SELECT * FROM horde") == before


async def test_a_file_that_is_not_there_is_not_made_by_opening_it(backend, path):
    with pytest.raises(StoreError, match="init"):
        async with backend.open():
            pass
    assert not path.exists()


async def test_an_empty_database_is_no_horde(backend, path):
    connect(path).close()
    with pytest.raises(StoreError, match="holds no horde"):
        async with backend.open():
            pass


async def test_another_programs_database_is_refused_and_left_alone(backend, path):
    write(path, "CREATE TABLE bookmarks (url TEXT)", "INSERT INTO bookmarks VALUES ('a')")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="another program"):
        backend.create(plain())
    with pytest.raises(StoreError, match="another program"):
        async with backend.open():
            pass
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"this is no database at all" * 200, b"SQLite format 3\0" + bytes(100)])
async def test_a_file_that_is_no_database_is_refused_and_left_alone(backend, path, content):
    path.write_bytes(content)
    with pytest.raises(StoreError, match="restore it from a backup"):
        async with backend.open():
            pass
    assert path.read_bytes() == content


async def test_another_serving_key_does_not_open_it(backend, path):
    backend.create(plain())
    with pytest.raises(StoreError, match="another serving key"):
        async with SqliteStore.open(path, a_key(50)):
            pass


async def test_a_delegation_that_somebody_tampered_with_is_found(backend, path):
    backend.create(plain())
    forged = signed(Serving(serving=a_key(50).public, version=2), a_key(50))
    raw = codec.encode([1, "serving", ROOT.public, ROOT.public, forged.body, forged.signature])
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE horde SET delegation = ?", (raw,))
        connection.commit()
    with pytest.raises(BadSignature):
        async with SqliteStore.open(path, a_key(50)):
            pass


# Migrations


def test_a_fresh_database_has_the_newest_version_and_our_mark(path):
    connect(path).close()
    assert read(path, "PRAGMA user_version") == [(migrations()[-1][0],)]
    assert read(path, "PRAGMA application_id") == [(APPLICATION_ID,)]


def test_migrations_are_numbered_from_one_without_a_gap():
    assert [number for number, _ in migrations()] == list(range(1, len(migrations()) + 1))


async def test_a_database_of_a_newer_program_is_refused(backend, path):
    backend.create(plain())
    write(path, f"PRAGMA user_version = {migrations()[-1][0] + 1}")
    with pytest.raises(StoreError, match="update it"):
        async with backend.open():
            pass


async def test_a_missing_migration_is_applied_and_all_data_is_kept(backend, path, monkeypatch):
    backend.create(plain())
    async with backend.open() as store:
        clerk = await Clerk.at(store)
        await clerk.earn(REQUESTER, 1)
        before = await everything(store)
    known = migrations()
    number = known[-1][0] + 1
    monkeypatch.setattr(database, "migrations", lambda: [*known, (number, "CREATE TABLE more (one INTEGER) STRICT;")])
    async with backend.open() as store:
        assert await everything(store) == before
    assert read(path, "PRAGMA user_version") == [(number,)]
    assert read(path, "SELECT * FROM more") == []


async def test_a_migration_that_fails_leaves_the_database_as_it_was(backend, path, monkeypatch):
    backend.create(plain())
    known = migrations()
    broken = "CREATE TABLE more (one INTEGER) STRICT; INSERT INTO nowhere VALUES (1);"
    with monkeypatch.context() as patched:
        patched.setattr(database, "migrations", lambda: [*known, (known[-1][0] + 1, broken)])
        with pytest.raises(StoreError, match="the database is as it was"):
            async with backend.open():
                pass
    assert read(path, "PRAGMA user_version") == [(known[-1][0],)]
    assert read(path, "SELECT name FROM sqlite_schema WHERE name = 'more'") == []
    async with backend.open() as store:
        assert (await store.rules_in_force()).version == 1


# What costs the same however much there is


async def test_what_a_peer_has_under_way_is_found_as_quickly_however_much_it_has_asked_for(store, clerk, path):
    await clerk.ask_one()
    before = steps(path, lambda c: rows.open_requests(c, REQUESTER.public))
    for number in range(200):
        await clerk.cancel(await clerk.ask_one(), nonce=number)
    after = steps(path, lambda c: rows.open_requests(c, REQUESTER.public))
    assert after.found == before.found
    assert after.count < 2 * before.count


# Evidence


async def test_two_documents_that_contradict_each_other_are_both_kept(store, clerk, path):
    receipt = clerk.receipt(await clerk.lease(await clerk.ask_one()))
    await clerk.acknowledge(receipt)
    other = an_acknowledgement(receipt, a_digest("something else"))
    for _ in range(2):
        with pytest.raises(Equivocation):
            await clerk.acknowledge(receipt, said=other)
    [(first, raw)] = read(path, "SELECT first, raw FROM equivocations")
    kept = dict(read(path, "SELECT digest, kind FROM documents"))
    assert kept[first] == "acknowledgement"
    key = clerk.keys[(await store.standing(other.job, 1)).job.job_key]
    assert raw == signed(other, key).raw


async def test_a_different_request_is_kept_as_proof(clerk, path):
    request = clerk.request()
    await clerk.ask(request=request)
    other = but(request, public=a_public_part(n=2))
    with pytest.raises(Equivocation):
        await clerk.ask(request=other)
    assert read(path, "SELECT first, raw FROM equivocations") == [(signed(request).digest, signed(other).raw)]


async def test_who_contradicts_itself_again_and_again_fills_no_disk(clerk, path):
    request = clerk.request()
    await clerk.ask(request=request)
    others = [but(request, public=a_public_part(n=number)) for number in (2, 3, 4)]
    for other in others:
        with pytest.raises(Equivocation):
            await clerk.ask(request=other)
    assert read(path, "SELECT raw FROM equivocations") == [(signed(others[0]).raw,)]


async def test_what_is_refused_is_not_kept(clerk, path):
    leased = await clerk.lease(await clerk.ask_one())
    before = read(path, "SELECT count(*) FROM documents")
    with pytest.raises(Exception, match="the lease allows"):
        await clerk.receive(clerk.receipt(leased, used=31))
    assert read(path, "SELECT count(*) FROM documents") == before


async def test_whatever_stops_a_commit_the_next_one_is_made(store, clerk, monkeypatch):
    class Odd(Exception):
        pass

    def fail(connection):
        raise Odd("something that nobody thought of")

    monkeypatch.setattr(store._tables, "before_commit", fail)
    with pytest.raises(StoreError, match="nobody thought of"):
        await clerk.account(a_key(70))
    monkeypatch.undo()

    assert await clerk.account(a_key(71)) >= 100


class Worn:
    """A connection whose next statements of these fail."""

    def __init__(self, connection, *fails):
        self._connection = connection
        self._fails = list(fails)

    def __getattr__(self, name):
        return getattr(self._connection, name)

    def execute(self, sql, *values):
        if sql in self._fails:
            self._fails.remove(sql)
            raise sqlite3.OperationalError("disk I/O error")
        return self._connection.execute(sql, *values)


async def test_a_commit_that_cannot_even_be_undone_stops_nobody_for_good(store, clerk, monkeypatch):
    number = await clerk.account(a_key(70))
    worn = Worn(store._writer._connection, "COMMIT", "ROLLBACK")
    monkeypatch.setattr(store._writer, "_connection", worn)
    for _ in range(2):
        with pytest.raises(StoreError):
            await clerk.account(a_key(71))

    assert await clerk.account(a_key(72)) == number + 1


async def test_a_transaction_that_sqlite_has_given_up_takes_none_of_its_steps_apart(store, clerk, path):
    def run_out_of_memory(connection):
        connection.execute("ROLLBACK")
        raise MemoryError

    steps = [clerk.account(a_key(80)), on_the_writer(store, run_out_of_memory), clerk.account(a_key(81))]
    results = await asyncio.gather(*steps, return_exceptions=True)

    assert [type(result) for result in results] == [StoreError] * 3
    known = {key for (key,) in read(path, "SELECT key FROM keys")}
    assert not known & {a_key(80).public, a_key(81).public}
    assert await clerk.account(a_key(81)) >= 100
