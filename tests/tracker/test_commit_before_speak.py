"""Nothing is said before it is durable, and a store that fails loses nothing: steps held back or failing at will."""

import asyncio
from typing import Any, cast

import pytest

from protocol import prices
from protocol.documents import Lease, Settlement
from protocol.envelope import parse
from protocol.messages import (
    Announce,
    AskAccount,
    Ended,
    Position,
    Private,
    Progress,
    Queued,
    Refused,
    Report,
    Requeued,
    Taken,
)
from protocol.rules import LimitsSection, Rules, TimesSection
from tests.support.books import check_books
from tests.support.builders import (
    IMAGE_MODEL,
    SECOND,
    a_cancel,
    a_denial,
    a_public_part,
    an_acknowledgement,
    an_image_private,
)
from tests.support.peers import A_TEXT_OFFER, AN_OFFER, Desk, leased, states
from tracker.store.base import Store, StoreError, StoreFull

PRICE = prices.price(Rules(), a_public_part().work, IMAGE_MODEL)
TIMES = TimesSection()
SECRET = "a purple giraffe that nobody else would ask for"


async def until(condition):
    """Wait for what another thread does."""
    while not condition():  # noqa: ASYNC110 (it cannot set an event of ours)
        await asyncio.sleep(0.001)


class SlowStore:
    """A store whose answers are held back after their steps have become durable, or whose steps fail.

    only: of steps with this argument. before: hold the step itself back, and not only its answer.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.gate = asyncio.Event()
        self.gate.set()
        self.only: object = None
        self.before = False
        self.fails: StoreError | None = None
        self.held_back: list[str] = []

    def __getattr__(self, name):
        step = getattr(self._store, name)

        async def held_back(*arguments, **more):
            if self.before:
                await self._hold(name, arguments)
            if self.fails is not None:
                raise self.fails
            try:
                return await step(*arguments, **more)
            finally:
                await self._hold(name, arguments)

        return held_back

    async def _hold(self, name, arguments):
        if not self.gate.is_set() and (self.only is None or self.only in arguments):
            self.held_back.append(name)
            await self.gate.wait()

    async def holds(self, name, times=1):
        await until(lambda: self.held_back.count(name) >= times)


@pytest.fixture
async def slow(path) -> Any:
    """A tracker over such a store."""
    async with Desk.open(path, wrap=lambda store: cast("Store", SlowStore(store))) as desk:
        yield desk
        store: Any = desk.store
        store.gate.set()
        store.fails = None
        await desk.quiet()
    check_books(path)


# Held back


@pytest.mark.parametrize("what", ["request", "receipt", "acknowledge", "deny", "cancel", "failed"])
async def test_nobody_hears_of_what_is_not_durable_yet(slow, what):
    worker, requester, lease = await leased(slow)
    receipt = worker.receipt(lease)
    key = requester.asked[0].key
    asked = requester.prepare()
    await requester.say(Private(private=asked.private))
    if what in ("acknowledge", "deny"):
        await worker.send(receipt)
        await worker.hear(Taken)
    await slow.quiet()
    heard = len(worker.heard), len(requester.heard)
    slow.store.gate.clear()
    step = {"request": "admit", "receipt": "receive", "failed": "happen"}.get(what, what)
    if what == "request":
        await requester.send(asked.envelope)
    elif what == "receipt":
        await worker.send(receipt)
    elif what == "acknowledge":
        await requester.present(an_acknowledgement(receipt), key)
    elif what == "deny":
        await requester.present(a_denial(receipt, lease), key)
    elif what == "cancel":
        await requester.present(a_cancel(lease.job), key)
    else:
        failed = Progress(job=lease.job, attempt=1, state="failed", reason="engine")
        await worker.say(Report(leases=(failed,)))
    await slow.store.holds(step)
    assert (len(worker.heard), len(requester.heard)) == heard, "nothing is said before the step has returned"
    slow.store.gate.set()
    await slow.quiet()
    assert (len(worker.heard), len(requester.heard)) != heard


async def a_worker_that_has_not_announced(desk, *offers):
    worker = await desk.peer(0)
    await worker.register()
    await worker.show_record()
    if offers:
        await worker.announce(*offers)
    await desk.quiet()
    return worker


async def test_a_lease_is_pushed_when_it_is_durable_and_not_before(slow):
    requester = await slow.requester()
    await requester.ask()
    worker = await a_worker_that_has_not_announced(slow, A_TEXT_OFFER)
    slow.store.gate.clear()
    await worker.say(Announce(offers=(AN_OFFER,)))
    await slow.store.holds("lease")
    assert states(slow) == ["leased"]
    assert not [body for body in (*worker.heard, *requester.heard) if isinstance(body, Lease)]
    slow.store.gate.set()
    assert await worker.hear(Lease) == await requester.hear(Lease)


async def test_a_job_whose_lease_is_on_its_way_is_not_leased_twice(slow):
    requester = await slow.requester()
    await requester.ask()
    worker = await a_worker_that_has_not_announced(slow, A_TEXT_OFFER)
    slow.store.gate.clear()
    await worker.say(Announce(offers=(AN_OFFER,)))
    await slow.store.holds("lease")
    slow.store.gate.set()
    other = await slow.worker(1)
    await worker.hear(Lease)
    await other.hears_nothing_of(Lease)
    assert slow.store.held_back.count("lease") == 1


async def test_an_announce_while_a_lease_is_on_its_way_takes_no_place_for_good(slow):
    worker, requester = await slow.worker(), await slow.requester()
    asked = requester.prepare()
    await requester.say(Private(private=asked.private))
    await slow.quiet()
    slow.store.gate.clear()
    await requester.send(asked.envelope)
    await slow.store.holds("admit")
    await worker.say(Announce(offers=(AN_OFFER,), ahead=0))
    slow.store.gate.set()
    await slow.quiet()
    await requester.acknowledge(await worker.deliver(await worker.hear(Lease)))
    await requester.ask()
    await worker.hear(Lease)


@pytest.mark.parametrize("then", ["announces anew", "leaves"])
async def test_a_worker_that_goes_on_while_its_return_is_looked_into_is_where_it_is_now(slow, then):
    worker, requester, _ = await leased(slow)
    other = await slow.requester(101)
    await worker.come_back()
    await worker.show_record()
    slow.store.gate.clear()
    await worker.say(Announce(offers=(AN_OFFER,), slots=5))
    await slow.store.holds("happen")  # the lease that it came back without is lost
    if then == "leaves":
        worker.hang_up()
    else:
        await worker.say(Announce(offers=(A_TEXT_OFFER,)))
    slow.store.gate.set()
    await slow.quiet()
    await other.ask()
    assert states(slow) == ["waiting", "waiting"]
    assert slow.coordinator.scrape()["workers"] == (0 if then == "leaves" else 1)
    assert (await requester.hear(Requeued)).reason == "gone"


async def test_a_worker_that_was_kept_for_a_request_that_failed_serves_who_waited_meanwhile(slow):
    requester, other = await slow.requester(), await slow.requester(101)
    first = requester.prepare()
    await requester.send_in(first)
    await requester.cancel()
    worker = await slow.worker()
    again = requester.prepare(private=an_image_private(seed=8), nonce=first.request.nonce)
    await requester.say(Private(private=again.private))
    asked = other.prepare()
    await other.say(Private(private=asked.private))
    await slow.quiet()
    slow.store.gate.clear()
    slow.store.only = parse(again.envelope.raw)
    await requester.send(again.envelope)
    await slow.store.holds("admit")
    await other.send(asked.envelope)
    await other.hear(Position)  # the worker is promised to the first
    slow.store.gate.set()
    assert await requester.refused() == "equivocation"
    lease = await worker.hear(Lease)
    assert lease.job_key == asked.request.job_key


async def test_a_cancel_and_the_lease_that_it_meets_end_in_order(slow):
    requester = await slow.requester()
    await requester.ask()
    worker = await a_worker_that_has_not_announced(slow, A_TEXT_OFFER)
    slow.store.gate.clear()
    await worker.say(Announce(offers=(AN_OFFER,)))
    await slow.store.holds("lease")
    await requester.present(a_cancel(), requester.asked[0].key)
    await slow.store.holds("cancel")
    slow.store.gate.set()
    await slow.quiet()
    lease = await worker.hear(Lease)
    await slow.later(TIMES.cancel)
    assert (await requester.hear(Ended)).state == "cancelled"
    await worker.send(worker.receipt(lease))
    assert await worker.refused() == "too_late"
    assert slow.coordinator.scrape()["leased"] == 0


# Failing


@pytest.mark.parametrize("failure", [StoreFull("the disk is full"), StoreError("broken")])
async def test_a_step_that_cannot_be_stored_is_refused_as_busy_and_can_be_tried_again(slow, failure):
    worker, requester, lease = await leased(slow)
    receipt = worker.receipt(lease)
    asked = requester.prepare()
    await requester.say(Private(private=asked.private))
    await slow.quiet()
    slow.store.fails = failure
    await worker.send(receipt)
    assert await worker.refused() == "busy"
    await requester.send(asked.envelope)
    assert await requester.refused() == "busy"
    slow.store.fails = None
    await worker.send(receipt)
    await worker.hear(Taken)
    await requester.send(asked.envelope)
    await requester.hear(Queued)
    await requester.acknowledge(receipt, key=requester.asked[0].key)
    await requester.hear(Settlement)
    assert slow.coordinator._jobs.open_jobs == {requester.origin: 1}


async def test_what_time_brings_is_tried_until_it_is_stored(slow, caplog):
    _, requester, _ = await leased(slow, stage="pushed")
    waiting = await slow.requester(101)
    await waiting.ask(a_public_part(models=("another",)))
    slow.store.fails = StoreError("broken")
    await slow.later(TIMES.accept)
    await slow.later(TIMES.waiting)
    assert states(slow) == ["leased", "waiting"]
    slow.store.fails = None
    await slow.later(2)
    assert (await waiting.hear(Ended)).state == "expired"
    assert (await requester.hear(Requeued)).reason in ("not_accepted", "deadline")
    assert "broken" in caplog.text


async def test_a_lease_that_could_not_be_stored_is_made_when_it_can_be(slow):
    requester = await slow.requester()
    await requester.ask()
    worker = await a_worker_that_has_not_announced(slow, A_TEXT_OFFER)
    slow.store.fails = StoreFull("the disk is full")
    await worker.announce()
    await slow.later(1)
    await worker.hears_nothing_of(Lease)
    slow.store.fails = None
    await slow.later(1)
    await worker.hear(Lease)
    assert len(slow.coordinator._jobs.queue) == 0


async def test_a_job_whose_time_ran_out_while_its_lease_was_on_its_way_expires(slow):
    requester = await slow.requester()
    await requester.ask()
    worker = await a_worker_that_has_not_announced(slow, A_TEXT_OFFER)
    slow.store.before = True
    slow.store.gate.clear()
    await worker.say(Announce(offers=(AN_OFFER,)))
    await slow.store.holds("lease")
    slow.clock.now += TIMES.waiting * SECOND
    slow.coordinator._jobs.tick(slow.clock.now)
    slow.store.fails = StoreFull("the disk is full")
    slow.store.gate.set()
    await slow.quiet()
    worker.hang_up()
    slow.store.fails = None
    await slow.later(2)
    assert (await requester.hear(Ended)).state == "expired"


async def test_a_job_that_expired_while_nothing_could_be_stored_expires(slow):
    requester = await slow.requester()
    await requester.ask()
    worker = await a_worker_that_has_not_announced(slow, A_TEXT_OFFER)
    slow.store.fails = StoreFull("the disk is full")
    await worker.announce()
    worker.hang_up()
    for _ in range(3):
        await slow.later(TIMES.waiting)
    slow.store.fails = None
    await slow.later(5)
    assert (await requester.hear(Ended)).state == "expired"


# Faults of ours


async def test_a_fault_of_ours_is_told_by_a_number_and_touches_nobody_else(desk, caplog, monkeypatch):
    requester, other = await desk.requester(), await desk.requester(101)

    async def broken(*arguments):
        raise RuntimeError(SECRET)

    with monkeypatch.context() as patched:
        patched.setattr(desk.coordinator.registry, "tell_account", broken)
        await requester.say(AskAccount())
        refused = await requester.hear(Refused)
    assert (refused.code, refused.final) == ("internal", False)
    assert SECRET not in refused.text
    assert refused.text.split("number ")[1].split(" ")[0] in caplog.text
    await requester.ask()
    await other.ask()


@pytest.mark.parametrize("rules", [Rules(limits=LimitsSection(anonymous_open_jobs=50))])
async def test_many_messages_at_once_are_carried_out_in_order(desk):
    requester = await desk.requester()
    asked = [requester.prepare(private=an_image_private(seed=number)) for number in range(40)]
    for each in asked:
        await requester.say(Private(private=each.private))
        await requester.send(each.envelope)
    queued = [(await requester.hear(Queued)).request for _ in asked]
    assert queued == [each.envelope.digest for each in asked]
