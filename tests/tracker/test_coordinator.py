"""What a tracker keeps in memory: it follows what is durable, and what has ended leaves nothing behind."""

from protocol.rules import PricesSection, Rules
from tests.support.builders import a_public_part, but
from tests.support.database import count
from tests.support.peers import Desk, delivered
from tracker.audit import audit

DEARER = Rules(prices=PricesSection(image_base=1_000_000))


async def test_a_job_that_new_rules_price_beyond_its_bound_waits_on_after_a_restart(path):
    async with Desk.open(path) as desk:
        requester = await desk.requester()
        await requester.ask(but(a_public_part(), max_price=20_000))
        await desk.store.publish_rules(DEARER, desk.clock.now)

    async with Desk.open(path) as desk:
        assert desk.coordinator.scrape()["waiting"] == 1


async def test_a_job_that_has_ended_leaves_no_deadline_behind(desk):
    before = len(desk.coordinator._jobs._timers)
    _, requester, _, receipt = await delivered(desk)
    assert len(desk.coordinator._jobs._timers) > before
    await requester.acknowledge(receipt)
    await desk.quiet()
    assert len(desk.coordinator._jobs._timers) == before


async def test_where_a_worker_was_is_forgotten_when_it_leaves_with_nothing_under_way(desk):
    records = desk.coordinator._presence._records
    worker = await desk.peer(5)
    await worker.show_record()
    again = await desk.peer(5)
    await again.show_record(2)
    await desk.quiet()
    worker.hang_up()
    assert worker.key.public in records
    again.hang_up()
    assert worker.key.public not in records


async def test_where_a_worker_was_is_known_as_long_as_it_owes_a_result(desk):
    worker, *_ = await delivered(desk)
    worker.hang_up()
    assert worker.key.public in desk.coordinator._presence._records


async def test_once_an_hour_what_limits_were_counted_by_is_tidied(desk):
    _, requester, _, receipt = await delivered(desk)
    await requester.acknowledge(receipt)
    await desk.later(1)
    assert count(desk.path, "mint_shares") > 0
    await desk.later(9 * 86_400)
    assert count(desk.path, "mint_shares") == 0
    assert audit(desk.path).ok
