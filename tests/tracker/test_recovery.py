"""A ledger that goes on from an older copy: what peers show is entered once, and everything else is refused."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from protocol import codec
from protocol.documents import Lease, Receipt, Serving, Settlement, open_document, sign
from protocol.envelope import Envelope, parse
from protocol.errors import Equivocation, OverLimit, ReceiptMismatch, Refusal, WrongSigner
from protocol.keys import SigningKey
from protocol.messages import Kept
from protocol.postings import HELD
from tests.support.builders import ROOT, SERVING, a_key
from tests.support.history import ANN, BEN, CARL, NOBODY, Admission, History
from tracker.audit import Report, audit
from tracker.epochs import appoint
from tracker.lifecycle import State
from tracker.recovery import read_kept
from tracker.store.base import Recovered
from tracker.store.sqlite import SqliteStore
from tracker.store.sqlite.copies import go_on, look_into, make_copy

NEXT_SERVING = a_key(77)


@dataclass
class Job:
    """One job, with all that its two sides keep of it."""

    asked: Admission
    worker: SigningKey
    lease: bytes
    receipt: Envelope
    settlement: bytes = b""

    @property
    def request(self) -> bytes:
        return self.asked.request.raw

    def kept(self, *, by_requester: bool = False, **changes: bytes) -> Kept:
        kept = Kept(
            settlement=self.settlement,
            lease=self.lease,
            receipt=self.receipt.raw,
            request=self.request if by_requester else b"",
        )
        return msgspec.structs.replace(kept, **changes)


async def begin(history: History, by: SigningKey, worker: SigningKey) -> Job:
    asked = await history.ask(by, served_by=worker)
    lease = asked.admitted.leases[0].document
    return Job(asked, worker, lease, await history.receipt(lease, worker))


async def finish(history: History, job: Job) -> Job:
    await history.deliver(job.receipt)
    await history.store.seal(history.tick())
    job.settlement = await history.acknowledge(job.asked, job.receipt)
    return job


async def one(history: History, by: SigningKey, worker: SigningKey) -> Job:
    return await finish(history, await begin(history, by, worker))


@dataclass
class Restored:
    """The store of the next epoch."""

    history: History
    delegation: Serving
    path: Path

    async def show(self, kept: Kept, sender: SigningKey) -> Recovered:
        shown = read_kept(kept, ROOT.public, self.delegation, sender.public)
        return await self.history.store.recover(shown, self.history.tick())

    async def show_both(self, job: Job) -> None:
        await self.show(job.kept(), job.worker)
        await self.show(job.kept(by_requester=True), job.asked.by)

    async def accounts(self) -> dict[str, tuple[int, ...]]:
        return await accounts(self.history)


async def accounts(history: History) -> dict[str, tuple[int, ...]]:
    names = {"ann": ANN, "ben": BEN, "carl": CARL}
    found: dict[str, tuple[int, ...]] = {}
    for name, key in names.items():
        state = await history.store.account(history.accounts[key.public], history.now)
        found[name] = (state.balance, state.held, state.earned, state.spent, state.taken_free, state.jobs_done)
    return found


@asynccontextmanager
async def restored(history: History, copy: Path) -> AsyncIterator[Restored]:
    """Go on from a copy that was made earlier."""
    seen = look_into(copy)
    now = history.tick()
    delegation, epoch = appoint(ROOT, NEXT_SERVING.public, seen.serving, (), size=seen.size, tree=seen.tree, now=now)
    go_on(copy, delegation, epoch, NEXT_SERVING, now)
    async with SqliteStore.open(copy, NEXT_SERVING) as store:
        later = History(store, await store.rules_in_force())
        later.now, later.accounts = now, history.accounts
        later.number_from(500)
        yield Restored(later, open_document(delegation, Serving), copy)


def audited(path: Path, **gap: int) -> Report:
    report = audit(path, root=ROOT.public)
    assert report.ok, report.findings
    [found] = report.gaps
    assert {name: getattr(found, name) for name in gap} == gap
    return report


@pytest.fixture
async def history(tmp_path: Path) -> AsyncIterator[History]:
    async with History.open(tmp_path / "horde.db") as history:
        for _ in range(3):
            await one(history, NOBODY, ANN)
        await history.store.seal(history.tick())
        yield history


@pytest.fixture
def copy_now(tmp_path: Path) -> Callable[[], Path]:
    def make() -> Path:
        make_copy(tmp_path / "horde.db", tmp_path / "copy.db")
        return tmp_path / "copy.db"

    return make


async def test_what_both_sides_show_is_entered_once_and_leaves_nothing_open(
    history: History, copy_now: Callable[[], Path]
) -> None:
    copy = copy_now()
    jobs = [await one(history, ANN, BEN), await one(history, NOBODY, BEN), await one(history, CARL, ANN)]
    before = await accounts(history)
    async with restored(history, copy) as later:
        assert await later.accounts() != before
        entered = await later.show(jobs[0].kept(), BEN)
        assert entered.entered
        assert entered.happened is None
        owed = open_document(parse(jobs[0].settlement), Settlement)
        audited(copy, recovered=1, lacking=owed.paid + owed.burned, missing=0)
        for job in jobs:
            await later.show_both(job)
        assert await later.accounts() == before
        report = audited(copy, recovered=3, lacking=0, missing=0)
        for job in jobs:
            await later.show_both(job)
        assert audited(copy).entries == report.entries


async def test_the_requester_alone_can_show_all_of_it(history: History, copy_now: Callable[[], Path]) -> None:
    copy = copy_now()
    job = await one(history, ANN, BEN)
    before = await accounts(history)
    async with restored(history, copy) as later:
        await later.show(job.kept(by_requester=True), ANN)
        assert await later.accounts() == before
        audited(copy, recovered=1, lacking=0, missing=0)


async def test_a_job_under_way_in_the_copy_ends_by_it(history: History, copy_now: Callable[[], Path]) -> None:
    job, waiting = await begin(history, ANN, BEN), await history.ask(ANN)
    copy = copy_now()
    await finish(history, job)
    lease = await history.lease(waiting, BEN, 0)
    other = await finish(history, Job(waiting, BEN, lease, await history.receipt(lease, BEN)))
    before = await accounts(history)
    async with restored(history, copy) as later:
        # Meanwhile somebody else has got the second one.
        await later.history.lease(waiting, CARL, 0)
        for shown, withdraw in ((job, ""), (other, "settled")):
            happened = (await later.show(shown.kept(), BEN)).happened
            assert happened is not None
            assert happened.outcome.job.state is State.SETTLED
            assert happened.settlement == shown.settlement
            assert happened.outcome.withdraw == withdraw
            assert bool(happened.lost) == bool(withdraw)
        assert await later.accounts() == before
        audited(copy, recovered=2, lacking=0, missing=0)
        # Its requester, who has not heard of it, acknowledges: the answer is the settlement that was.
        assert await later.history.acknowledge(job.asked, job.receipt) == job.settlement


async def test_what_was_settled_anew_is_not_paid_a_second_time(history: History, copy_now: Callable[[], Path]) -> None:
    job = await begin(history, ANN, BEN)
    copy = copy_now()
    await finish(history, job)
    before = await accounts(history)
    async with restored(history, copy) as later:
        await later.history.deliver(job.receipt)
        anew = await later.history.acknowledge(job.asked, job.receipt)
        assert anew != job.settlement
        assert not (await later.show(job.kept(), BEN)).entered
        await later.show(job.kept(by_requester=True), ANN)
        assert await later.accounts() == before
        audited(copy, recovered=0, shown=1, lacking=0, missing=0)


async def test_numbers_tell_how_many_settlements_nobody_has_shown(
    history: History, copy_now: Callable[[], Path]
) -> None:
    copy = copy_now()
    jobs = [await one(history, NOBODY, ANN) for _ in range(4)]
    async with restored(history, copy) as later:
        audited(copy, shown=0, missing=0)
        await later.show(jobs[3].kept(), ANN)
        audited(copy, shown=1, missing=3)
        await later.show(jobs[0].kept(), ANN)
        audited(copy, shown=2, missing=2)
        await one(later.history, NOBODY, ANN)
        audited(copy, shown=2, missing=2)


async def test_an_account_that_is_younger_than_the_copy_is_opened_again(
    history: History, copy_now: Callable[[], Path]
) -> None:
    copy = copy_now()
    newcomer = a_key(90)
    history.accounts[newcomer.public] = await history.store.register(newcomer.public, history.tick())
    served, asked = await one(history, NOBODY, newcomer), await one(history, newcomer, BEN)
    async with restored(history, copy) as later:
        await later.show(asked.kept(by_requester=True), newcomer)
        await later.show(served.kept(), newcomer)
        store = later.history.store
        state = await store.account(await store.account_of(newcomer.public), later.history.now)
        worth = await history.store.account(history.accounts[newcomer.public], history.now)
        assert (state.balance, state.earned, state.spent) == (worth.balance, worth.earned, worth.spent)
        audited(copy, recovered=2, lacking=0, missing=0)


async def test_what_was_not_cut_or_not_signed_by_who_it_should_is_refused(
    history: History, copy_now: Callable[[], Path]
) -> None:
    early = await one(history, ANN, BEN)
    copy = copy_now()
    job, other = await one(history, ANN, BEN), await one(history, CARL, BEN)
    said = open_document(parse(job.settlement), Settlement)

    def forged(key: SigningKey = SERVING, **changes: Any) -> bytes:
        return sign(msgspec.structs.replace(said, **changes), key, ROOT.public).raw

    cases: list[tuple[type[Refusal], Kept, SigningKey]] = [
        (Equivocation, job.kept(settlement=forged(entry=1)), BEN),
        (WrongSigner, job.kept(settlement=forged(a_key(99))), BEN),
        (WrongSigner, job.kept(settlement=forged(NEXT_SERVING)), BEN),
        (ReceiptMismatch, job.kept(settlement=forged(paid=said.paid + 1)), BEN),
        (ReceiptMismatch, job.kept(settlement=forged(minted=said.minted + 1)), BEN),
        (ReceiptMismatch, job.kept(lease=other.lease), BEN),
        (ReceiptMismatch, job.kept(receipt=other.receipt.raw), BEN),
        (WrongSigner, job.kept(), ANN),
        (WrongSigner, job.kept(by_requester=True), BEN),
        (WrongSigner, job.kept(request=other.request), CARL),
        (Refusal, job.kept(lease=b""), BEN),
    ]
    async with restored(history, copy) as later:
        for refusal, kept, sender in cases:
            with pytest.raises(refusal):
                await later.show(kept, sender)
        assert not (await later.show(early.kept(), BEN)).entered
        audited(copy, shown=0, recovered=0)
        await later.show(job.kept(), BEN)
        with pytest.raises(Equivocation):
            await later.show(job.kept(settlement=forged(entry=said.entry + 5)), BEN)


async def test_a_stolen_former_key_mints_no_more_than_a_day_may(history: History, copy_now: Callable[[], Path]) -> None:
    copy = copy_now()
    job = await one(history, NOBODY, BEN)
    lease = codec.decode(parse(job.lease).body, Lease)
    daily = history.rules.rules.mint.daily
    async with restored(history, copy) as later:
        for number, amount in enumerate((daily, 1)):
            handle = bytes([number]) * 16
            much = sign(
                msgspec.structs.replace(lease, job=handle, free=daily, price=daily, paid=0), SERVING, ROOT.public
            )
            receipt = sign(msgspec.structs.replace(open_document(job.receipt, Receipt), job=handle), BEN, ROOT.public)
            said = msgspec.structs.replace(
                open_document(parse(job.settlement), Settlement), job=handle, minted=amount, paid=0, burned=0
            )
            kept = Kept(settlement=sign(said, SERVING, ROOT.public).raw, lease=much.raw, receipt=receipt.raw)
            if number:
                with pytest.raises(OverLimit):
                    await later.show(kept, BEN)
            else:
                await later.show(kept, BEN)
        assert audited(copy, recovered=1).ok


async def test_an_audit_finds_what_is_wrong_with_a_restored_ledger(
    history: History, copy_now: Callable[[], Path], tmp_path: Path
) -> None:
    copy = copy_now()
    job = await one(history, ANN, BEN)
    async with restored(history, copy) as later:
        await later.show_both(job)
        await later.history.store.seal(later.history.tick())
    audited(copy, recovered=1, lacking=0)
    damages = [
        ("UPDATE recovered SET charged = NULL", "the row of a settlement that was entered again"),
        ("DELETE FROM recovered", "the row of a settlement that was entered again"),
        ("UPDATE horde SET epoch = 0", "the stored epoch"),
        ("DELETE FROM documents WHERE kind = 'epoch'", "an epoch"),
        (f"DELETE FROM documents WHERE digest = x'{parse(job.request).digest.hex()}'", "the request of the evidence"),
        ("UPDATE documents SET raw = zeroblob(9) WHERE kind = 'epoch'", "epoch"),
        (f"UPDATE accounts SET balance = balance + 1 WHERE account = {HELD}", "stored balance"),
    ]
    for number, (statement, what) in enumerate(damages):
        damaged = tmp_path / f"{number}.db"
        make_copy(copy, damaged)
        with closing(sqlite3.connect(damaged)) as connection:
            assert connection.execute(statement).rowcount
            connection.commit()
        report = audit(damaged, root=ROOT.public)
        assert any(what in str(finding) for finding in report.findings), (statement, report.findings)
