"""Acts of moderators at the coordinator: what they mean for who is connected, whatever else happens at that moment."""

from typing import Any

from protocol.documents import Lease
from protocol.envelope import Envelope
from protocol.keys import show_key
from protocol.messages import Acts, Appeals, AskAppeals, Ended, Private, Refused, Register, Taken
from protocol.rules import RolesSection, Rules
from tests.support.builders import (
    DAY,
    HOUR,
    SERVING,
    a_key,
    a_nonce,
    a_public_part,
    a_rotation,
    a_transfer,
    an_act,
    an_appeal,
    an_image_work,
    signed,
)
from tests.support.peers import Desk, states

ONE, OTHER = a_key(2_701), a_key(2_702)
RULES = Rules(roles=RolesSection(moderators=(show_key(ONE.public), show_key(OTHER.public))))
SMALL = a_public_part(an_image_work(64, 64, steps=30))


class Office:
    """Moderators who act over their own connections."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.count = 8_000

    async def do(self, act: str, number: int = 701, **fields: Any) -> Envelope:
        """The act, taken."""
        self.count += 1
        moderator = await self.desk.peer(number)
        valid_until = self.desk.clock.now + HOUR // 2
        envelope = await moderator.present(an_act(act, nonce=a_nonce(self.count), valid_until=valid_until, **fields))
        await moderator.hear(Taken)
        await self.desk.quiet()
        moderator.hang_up()
        return envelope


async def test_an_act_in_anothers_session_is_refused_and_so_is_one_by_a_key_without_a_role(path):
    async with Desk.open(path, RULES) as desk:
        stranger, moderator = await desk.peer(5), await desk.peer(701)
        account = await stranger.register()
        await stranger.present(an_act(account=account), ONE)
        assert await stranger.refused() == "wrong_signer"
        await stranger.present(an_act(account=account))
        assert await stranger.refused() == "not_allowed"
        await moderator.send(signed(an_act(account=account), ONE, a_key(9)))
        assert await moderator.refused() == "wrong_horde"


async def test_a_new_key_brings_no_kudos_out_of_a_suspended_account(path):
    """The rotation and the transfer come in one breath, before the session could know whose key it has become."""
    async with Desk.open(path, RULES) as desk:
        rich = await desk.rich(1)
        other = await desk.requester(2, account=True)
        desk.clock.now += 10 * DAY
        await Office(desk).do("suspend", account=rich.account, until=desk.clock.now + DAY)
        fresh = await desk.peer(3)
        valid_until = desk.clock.now + 1000
        await fresh.present(a_rotation(rich.key, fresh.key, valid_until=valid_until), rich.key)
        gift = await fresh.present(a_transfer(other.account, 1, valid_until=valid_until))
        assert (await fresh.hear(Refused, about=gift.digest)).code == "suspended"
        assert await other.balance() == 0


async def test_from_a_blocked_network_who_has_an_account_hears_of_it_as_ever(path):
    async with Desk.open(path, RULES) as desk:
        known, stranger = await desk.requester(1, account=True), await desk.requester(2)
        await Office(desk).do("block", block="203.0.113.0/24", until=desk.clock.now + DAY)
        assert await known.register() == known.account
        await known.ask(SMALL)
        await known.come_back()
        assert await known.register() == known.account
        await stranger.say(Register())
        assert await stranger.refused() == "suspended"
        asked = stranger.prepare(SMALL)
        await stranger.say(Private(private=asked.private))
        await stranger.send(asked.envelope)
        assert await stranger.refused() == "suspended"
        desk.clock.now += DAY + 1
        await stranger.register()


async def test_what_waits_of_a_suspended_account_ends_also_if_the_process_ended_before_it_could(path):
    async with Desk.open(path, RULES) as desk:
        asker = await desk.requester(1, account=True)
        await asker.ask(SMALL)
        said = an_act("suspend", account=asker.account, until=desk.clock.now + DAY)
        await desk.store.act(signed(said, SERVING), said, desk.clock.now)
        assert states(desk) == ["waiting"]
    async with Desk.open(path, clock=desk.clock) as again:
        worker = await again.worker(9)
        await again.quiet()
        assert states(again) == ["expired"]
        await worker.hears_nothing_of(Lease)


async def test_a_job_that_comes_back_from_a_worker_waits_no_more_if_its_account_was_suspended_meanwhile(path):
    async with Desk.open(path, RULES) as desk:
        worker, asker = await desk.worker(0), await desk.requester(1, account=True)
        await asker.ask(SMALL)
        lease = await worker.hear(Lease)
        await Office(desk).do("suspend", account=asker.account, until=desk.clock.now + DAY)
        assert states(desk) == ["leased"], "what a worker has begun it may end"
        await worker.report(lease, "declined", "busy")
        await desk.quiet()
        assert (await asker.hear(Ended)).reason
        assert states(desk) == ["expired"]


async def test_a_worker_whose_owner_is_banned_while_it_works_is_paid_for_that_and_gets_nothing_more(path):
    async with Desk.open(path, RULES) as desk:
        worker, asker = await desk.worker(0), await desk.requester(1)
        await asker.ask(SMALL)
        lease = await worker.hear(Lease)
        office = Office(desk)
        ban = await office.do("ban", account=worker.account)
        await office.do("agree", 702, about=ban.digest)
        await worker.deliver(lease)
        await asker.acknowledge(worker.receipts[lease.job, lease.attempt])
        await desk.quiet()
        assert states(desk) == ["settled"]
        await asker.ask(SMALL)
        await worker.announce()
        await worker.hears_nothing_of(Lease)
        lifted = await office.do("lift", about=ban.digest)
        await worker.hears_nothing_of(Lease)
        await office.do("agree", 702, about=lifted.digest)
        await worker.hear(Lease)


async def test_a_key_without_a_role_reads_no_appeals_and_one_that_lost_it_reads_them_no_more(path):
    async with Desk.open(path, RULES) as desk:
        accused, moderator = await desk.requester(1, account=True), await desk.peer(701)
        warning = await Office(desk).do("warn", account=accused.account)
        assert [one.state for one in (await accused.hear(Acts)).entries] == ["stands"]
        await accused.present(an_appeal(warning.digest, valid_until=desk.clock.now + 1000))
        await accused.hear(Taken)
        await accused.say(AskAppeals())
        assert await accused.refused() == "not_allowed"
        await moderator.say(AskAppeals())
        assert [one.account for one in (await moderator.hear(Appeals)).entries] == [accused.account]
        await desk.coordinator.publish(Rules())
        await moderator.say(AskAppeals())
        assert await moderator.refused() == "not_allowed"


async def test_whoever_comes_hears_of_what_stands_and_not_of_every_word_on_it(path):
    async with Desk.open(path, RULES) as desk:
        accused, office = await desk.requester(1, account=True), Office(desk)
        warning = await office.do("warn", account=accused.account)
        await office.do("uphold", about=warning.digest)
        ban = await office.do("ban", account=accused.account)
        await office.do("agree", 702, about=ban.digest)
        await office.do("lift", about=ban.digest)
        limit = await office.do("limit", account=accused.account, open_jobs=1)
        await office.do("lift", about=limit.digest)
        accused.hang_up()
        accused.forget()
        await accused.come_back()
        told = (await accused.hear(Acts)).entries
        assert [(one.number, one.state) for one in told] == [(5, "proposed"), (3, "stands"), (1, "stands")]
