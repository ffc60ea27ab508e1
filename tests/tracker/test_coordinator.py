"""What a tracker keeps in memory: it follows what is durable, and what has ended leaves nothing behind."""

from protocol.rules import PricesSection, Rules
from tests.support.builders import a_public_part, but
from tests.support.peers import Desk, delivered

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
