"""Accounts at the coordinator, where several sessions of one person say things at the same moment."""

from protocol.documents import Lease
from protocol.messages import Account, AskQuote, Quote, Refused, Register
from protocol.rules import AccountsSection, Rules
from tests.support.builders import a_delegation_to, a_leaving, a_nonce, a_profile, a_public_part, a_rotation
from tests.support.peers import Desk


async def a_member(desk: Desk, number: int = 1):
    """A peer with an account, however the horde takes new ones."""
    peer = await desk.peer(number)
    account = await desk.store.register(peer.key.public, desk.clock.now)
    await peer.come_back()
    return peer, account


async def test_a_closed_horde_opens_no_account_for_who_gives_one_up_at_that_moment(tmp_path):
    """The key is still the account's when `register` comes in, and is so no more when it is carried out."""
    async with Desk.open(tmp_path / "horde.db", Rules(accounts=AccountsSection(registration="closed"))) as desk:
        leaves, _ = await a_member(desk, 1)
        rotates, number = await a_member(desk, 2)
        successor = await desk.peer(3)
        await leaves.present(a_leaving())
        await leaves.say(Register())
        await successor.present(a_rotation(rotates.key, successor.key), rotates.key)
        await rotates.say(Register())
        await desk.quiet()
        for peer in (leaves, rotates):
            assert (await desk.store.acting(peer.key.public, desk.clock.now)).account == 0
            assert (await peer.hear(Refused)).code == "not_registered"
        assert (await desk.store.acting(successor.key.public, desk.clock.now)).account == number
        await successor.say(Register())
        await desk.quiet()
        assert (await successor.hear(Account)).number == number, "who has an account hears so"


async def test_a_worker_whose_delegation_changes_is_told_and_serves_again_by_the_next_one(desk):
    owner = await desk.requester(1, account=True)
    machine = await desk.peer(2)
    await owner.present(a_delegation_to(machine.key, work=True, nonce=a_nonce(1)))
    await machine.hear(Account)
    await machine.show_record()
    await machine.announce()
    await owner.present(a_delegation_to(machine.key, ask=True, nonce=a_nonce(2)))
    assert (await machine.hear(Account)).number == owner.account
    asker = await desk.requester(3)
    await asker.ask()
    await machine.hears_nothing_of(Lease)
    await machine.announce()
    assert (await machine.hear(Refused)).code == "not_allowed"
    await owner.present(a_delegation_to(machine.key, work=True, nonce=a_nonce(3)))
    assert (await machine.hear(Account)).number == owner.account
    await machine.announce()
    assert (await machine.hear(Lease)).worker == machine.key.public


async def test_a_delegate_is_quoted_what_its_delegation_leaves_it(desk):
    owner = await desk.rich(1)
    machine = await desk.peer(2)
    await owner.present(a_delegation_to(machine.key, ask=True, kudos=1_000, nonce=a_nonce(1)))
    await machine.hear(Account)
    for left in (1_000, 0):
        await machine.say(AskQuote(public=a_public_part()))
        assert (await machine.hear(Quote)).held == left
        await machine.ask()


async def test_workers_hear_of_a_service_as_soon_as_it_says_that_it_is_one(desk):
    worker, asker = await desk.worker(slots=3), await desk.requester(2, account=True)
    names = []
    for version, service in enumerate((False, True, False), 1):
        await asker.present(a_profile("Ada", service=service, version=version))
        await asker.ask()
        names.append((await worker.hear(Lease)).asker.service)
    assert names == ["", f"Ada#{asker.account}", ""]
