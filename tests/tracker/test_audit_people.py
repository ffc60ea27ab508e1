"""The audit of accounts: whose key was whose, delegations and their bounds, rotations, profiles, leaving."""

import asyncio
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.builders import (
    DELEGATE,
    NOW,
    RECOVERY,
    REQUESTER,
    ROOT,
    SERVING,
    SUCCESSOR,
    a_delegation_to,
    a_key,
    a_leaving,
    a_nonce,
    a_profile,
    a_recovery,
    a_revocation,
    a_rotation,
    but,
    signed,
)
from tests.support.builders import (
    a_delegation as the_roots,
)
from tests.support.clerk import Clerk, worker_key
from tests.support.rules import plain
from tests.tracker.store.people_contract import take
from tracker.audit import audit
from tracker.store.sqlite import SqliteStore

MACHINE, GONE, HANDED_OUT = worker_key(9), a_key(70), a_key(71)


async def live(path: Path) -> None:
    """Everything that people do with accounts."""
    async with SqliteStore.open(path, SERVING) as store:
        clerk = await Clerk.at(store)
        owner = await clerk.earn(REQUESTER, 6)
        await take(store, a_profile("Ada", service=True), now=clerk.now)
        await take(store, a_recovery(), now=clerk.now)
        await take(store, a_delegation_to(ask=True, kudos=20_000, max_steps=30), now=clerk.now)
        asked = await clerk.ask(request=but(clerk.request(), user=a_nonce(73)), requester=DELEGATE, payer=owner)
        await clerk.acknowledge(clerk.receipt(await clerk.lease(asked.jobs[0])))
        await clerk.ask_one(requester=DELEGATE, payer=owner)
        # A machine of its own works for it, until that is taken back; another delegation expires.
        clerk.keys[MACHINE.public] = MACHINE
        work = await take(store, a_delegation_to(MACHINE, work=True, nonce=a_nonce(70)), now=clerk.now)
        await clerk.acknowledge(clerk.receipt(await clerk.lease(await clerk.ask_one(), 9)))
        clerk.now += 1_000
        await take(store, a_revocation(work.digest), now=clerk.now)
        await take(
            store, a_delegation_to(HANDED_OUT, ask=True, expires=clerk.now + 5, nonce=a_nonce(71)), now=clerk.now
        )
        clerk.now += 1_000
        # The key changes, twice.
        said = a_rotation(REQUESTER, SUCCESSOR)
        await store.rotate(signed(said), said, sender=SUCCESSOR.public, now=clerk.now)
        clerk.now += 1_000
        third = a_key(72)
        said = but(a_rotation(REQUESTER, third), nonce=a_nonce(72))
        await store.rotate(signed(said, RECOVERY), said, sender=third.public, now=clerk.now)
        await store.register(HANDED_OUT.public, clerk.now)
        # Somebody leaves, with something left.
        await clerk.earn(GONE, 2)
        await take(store, a_leaving(), GONE, clerk.now)
        await store.seal(clerk.now)


@pytest.fixture(scope="module")
def lived(tmp_path_factory):
    path = tmp_path_factory.mktemp("people") / "horde.db"
    SqliteStore.create(path, the_roots(), plain(), SERVING, NOW)
    asyncio.run(live(path))
    return path


def test_everything_that_people_did_follows_from_their_documents(lived):
    report = audit(lived, root=ROOT.public)
    assert report.ok, report.findings


CHANGES = {
    "a key of another account": "UPDATE keys SET account = account + 1000 WHERE begun <> x'' AND until = 0",
    "another key": "UPDATE keys SET key = zeroblob(32) WHERE begun <> x'' AND until = 0",
    "a rotation that nobody signed": "UPDATE keys SET begun = zeroblob(32) WHERE begun <> x''",
    "a key that went without a document": "UPDATE keys SET ended = x'' WHERE until <> 0",
    "a key that never went": "UPDATE keys SET until = 0, ended = x'' WHERE key IN"
    " (SELECT key FROM keys WHERE until <> 0 AND account NOT IN (SELECT account FROM keys WHERE until = 0))",
    "a key of before that nobody registered": "INSERT INTO keys (key, account, since, until, ended)"
    " SELECT zeroblob(32), account, since, until, ended FROM keys WHERE until <> 0 AND begun = x'' LIMIT 1",
    "a key that went by another rotation": "UPDATE keys SET ended = (SELECT begun FROM keys WHERE until = 0"
    " AND begun <> x'') WHERE begun = x'' AND until <> 0 AND account IN (SELECT account FROM keys WHERE begun <> x'')",
    "a key that came before the one before it went": "UPDATE keys SET since = since - 1 WHERE begun <> x''",
    "a key that was registered before its account was opened": "UPDATE keys SET since = since - 1 WHERE begun = x''",
    "an account that was opened earlier": "UPDATE accounts SET since = since - 1 WHERE account >= 100",
    "an account without a key": "DELETE FROM keys WHERE until = 0 AND begun = x''",
    "nothing under way": "UPDATE accounts SET under_way = 0 WHERE under_way > 0",
    "spent through a delegation": "UPDATE delegations SET used = used + 1 WHERE used > 0",
    "another delegate": "UPDATE delegations SET delegate = zeroblob(32) WHERE until = 0",
    "a delegation of another account": "UPDATE delegations SET account = account + 1 WHERE until = 0",
    "a delegation of before its signer had the account": "UPDATE delegations SET since = 1 WHERE until = 0",
    "a revocation without effect": "UPDATE delegations SET until = 0, ended = x'' WHERE ended <> x''",
    "a delegation that ended by nothing": "UPDATE delegations SET ended = zeroblob(32) WHERE ended <> x''",
    "a delegation that is not there": "DELETE FROM delegations WHERE until = 0",
    "a request by no delegation": "UPDATE requests SET delegation = x'' WHERE delegation <> x''",
    "a request by a delegation": "UPDATE requests SET delegation = (SELECT delegation FROM delegations WHERE until = 0)"
    " WHERE delegation = x''",
    "a request for another account": "UPDATE requests SET payer = payer + 1 WHERE delegation <> x''",
    "another user": "UPDATE requests SET user = zeroblob(16) WHERE user <> x''",
    "another name": "UPDATE profiles SET name = 'Eve'",
    "no service any more": "UPDATE profiles SET service = 0",
    "another recovery key": "UPDATE recoveries SET recovery = zeroblob(32)",
    "a recovery key by a stranger": "UPDATE recoveries SET account = account + 1",
    "a worker of another owner": "UPDATE attempts SET owner = owner + 1 WHERE worker ="
    " (SELECT delegate FROM delegations WHERE ended <> x'')",
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_no_document_says_is_found(lived, tmp_path, change):
    copy = tmp_path / "changed.db"
    shutil.copy(lived, copy)
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute(CHANGES[change]).rowcount, "something was changed"
        connection.commit()
    assert not audit(copy, root=ROOT.public).ok


def test_a_request_beyond_its_delegation_is_found(lived, tmp_path):
    """As a tracker would enter it that does not care."""
    copy = tmp_path / "changed.db"
    shutil.copy(lived, copy)
    narrow = signed(a_delegation_to(ask=True, max_steps=1))
    with closing(sqlite3.connect(copy)) as connection:
        connection.execute(
            "UPDATE documents SET raw = ?, digest = ? WHERE kind = 'delegation' AND identity = ?",
            (narrow.raw, narrow.digest, a_nonce(7)),
        )
        connection.execute("UPDATE delegations SET delegation = ? WHERE delegate = ?", (narrow.digest, DELEGATE.public))
        connection.execute("UPDATE requests SET delegation = ? WHERE delegation <> x''", (narrow.digest,))
        connection.commit()
    report = audit(copy, root=ROOT.public)
    assert {finding.what.split(": ")[-1] for finding in report.findings} == {"what its delegation allows"}
    assert "steps 30" in report.findings[0].found
