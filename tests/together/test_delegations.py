"""Delegations, and the services that ask for users of their own. Real trackers, real sockets."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from protocol import codec
from protocol.digests import private_digest
from protocol.documents import Lease, Receipt, Request, Settlement, sign
from protocol.keys import SigningKey, parse_key, show_key
from protocol.links import Link
from protocol.messages import Account, Announce, AskDelegations, Delegations, Private, Queued, Refused
from protocol.work import PublicPart, TextPrivate, TextWork
from tests.support.builders import but
from tests.support.horde import Horde
from tests.support.people import (
    HALF_AN_HOUR,
    a_delegation,
    a_leaving,
    a_profile,
    a_recovery,
    a_revocation,
    account,
    again,
    get,
    present,
    refusal,
    refused,
)
from tests.support.raw_peer import RawPeer, a_picture, fund, now_ms

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def horde(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Horde]:
    folder: Path = tmp_path_factory.mktemp("horde")
    async with Horde.open(folder) as horde:
        yield horde
        report = await horde.audit()
        assert report["ok"], report["findings"]


@pytest.fixture
def link(horde: Horde) -> Link:
    assert horde.link is not None
    return horde.link


async def ask(peer: RawPeer, public: PublicPart, private: Any, **fields: Any) -> Refused | Queued:
    """Send a request; the answer, whichever it is."""
    raw = codec.encode(private)
    body: dict[str, Any] = {
        "nonce": secrets.token_bytes(16),
        "valid_until": now_ms() + HALF_AN_HOUR,
        "public": public,
        "private_digest": private_digest(raw),
        "job_key": SigningKey.generate().public,
    }
    await peer.say(Private(private=raw))
    await peer.send(sign(Request(**body | fields), peer.key, peer.root).raw)
    while True:
        for envelope in peer.heard:
            if envelope.kind in (Refused.KIND, Queued.KIND):
                peer.heard.remove(envelope)
                return envelope.open(Refused) if envelope.kind == Refused.KIND else envelope.open(Queued)
        await peer.changed()


def a_text(model: str, **measures: int) -> tuple[PublicPart, TextPrivate]:
    public = PublicPart(work=TextWork(**measures), models=(model,))
    return public, TextPrivate(prompt="why", salt=secrets.token_bytes(32))


async def serve_one(worker: RawPeer, requester: RawPeer, asked: Any) -> Settlement:
    """Serve the next job that the worker is leased, to its settlement."""
    lease, _ = await worker.lease()
    receipt = worker.receipt(lease)
    await worker.deliver(receipt)
    await requester.send(asked.acknowledgement(requester.root, receipt).raw)
    assert receipt.open(Receipt).job == lease.job
    return (await requester.envelope("settlement")).open(Settlement)


# What a delegation lets a key do


async def test_a_signed_document_lets_a_key_work_for_an_account(link: Link) -> None:
    async with RawPeer.open(link) as owner, RawPeer.open(link) as machine, RawPeer.open(link) as anybody:
        number = (await owner.register()).number
        await present(owner, a_delegation(machine.key.public, ask=False))
        assert (await machine.expect(Account)).number == number  # a session that was there before
        await machine.serve("for the owner")
        paid = await serve_one(machine, anybody, await anybody.ask(*a_picture("for the owner")))
        assert (await account(owner)).balance == paid.minted > 0


@pytest.mark.ci_slow
async def test_a_delegate_asks_and_the_account_pays(link: Link) -> None:
    key, machine_key = SigningKey.generate(), SigningKey.generate()
    await fund(link, key)
    async with RawPeer.open(link, key) as owner, RawPeer.open(link) as worker:
        await present(owner, a_delegation(machine_key.public))
        before = await account(owner)
        await worker.serve("paid by the owner")
        async with RawPeer.open(link, machine_key) as machine:
            assert (await machine.register()).number == before.number  # it acts for one, and gets none of its own
            paid = await serve_one(worker, machine, await machine.ask(*a_picture("paid by the owner")))
        assert paid.paid > 0
        assert (await account(owner)).balance == before.balance - paid.paid - paid.burned


async def test_jobs_between_keys_of_one_account_move_no_kudos(link: Link) -> None:
    key = SigningKey.generate()
    await fund(link, key)
    async with RawPeer.open(link, key) as owner, RawPeer.open(link) as machine:
        await present(owner, a_delegation(machine.key.public, ask=False))
        await machine.expect(Account)
        before = await account(owner)
        await machine.serve("at home")
        paid = await serve_one(machine, owner, await owner.ask(*a_picture("at home")))
        assert (paid.paid, paid.minted, paid.burned) == (0, 0, 0)
        after = await account(owner)
        assert (after.balance, after.earned, after.spent) == (before.balance, before.earned, before.spent)


# Limits


@pytest.mark.parametrize(
    ("bounds", "fits", "beyond", "named"),
    [
        ({"max_pixels": 64 * 64}, {}, {"side": 128}, "pixels 16384"),
        ({"max_steps": 30}, {}, {"steps": 31}, "steps 31"),
    ],
    ids=["size", "steps"],
)
async def test_a_delegation_is_limited_by(
    link: Link, bounds: dict[str, int], fits: dict[str, int], beyond: dict[str, int], named: str
) -> None:
    async with RawPeer.open(link) as owner, RawPeer.open(link) as machine:
        await owner.register()
        await present(owner, a_delegation(machine.key.public, **bounds))
        await machine.expect(Account)
        found = await ask(machine, *a_picture("any", **beyond))
        assert isinstance(found, Refused)
        assert found.code == "not_allowed"
        assert named in found.text
        assert isinstance(await ask(machine, *a_picture("any", **fits)), Queued)


async def test_a_delegation_is_limited_by_tokens_and_context(link: Link) -> None:
    async with RawPeer.open(link) as owner, RawPeer.open(link) as machine:
        await owner.register()
        await present(owner, a_delegation(machine.key.public, max_tokens=64, max_context=1024))
        await machine.expect(Account)
        for measures in ({"max_tokens": 65, "context_tokens": 1024}, {"max_tokens": 64, "context_tokens": 1025}):
            found = await ask(machine, *a_text("any", **measures))
            assert isinstance(found, Refused)
            assert found.code == "not_allowed"
        assert isinstance(await ask(machine, *a_text("any", max_tokens=64, context_tokens=1024)), Queued)


async def test_a_delegation_is_limited_by_models(link: Link) -> None:
    async with RawPeer.open(link) as owner, RawPeer.open(link) as machine:
        await owner.register()
        await present(owner, a_delegation(machine.key.public, models=("one", "two")))
        await machine.expect(Account)
        public, private = a_picture("three")
        for models in (("three",), ("one", "three"), ()):
            found = await ask(machine, PublicPart(work=public.work, models=models), private)
            assert isinstance(found, Refused)
            assert found.code == "not_allowed"
            assert "one, two" in found.text
        assert isinstance(await ask(machine, *a_picture("two")), Queued)


async def test_a_delegation_is_limited_by_role(link: Link) -> None:
    async with RawPeer.open(link) as owner, RawPeer.open(link) as works, RawPeer.open(link) as asks:
        await owner.register()
        await present(owner, a_delegation(works.key.public, ask=False))
        await present(owner, a_delegation(asks.key.public, work=False))
        found = await ask(works, *a_picture("any"))
        assert isinstance(found, Refused)
        assert found.code == "not_allowed"
        await asks.say(Announce(offers=()))
        assert (await refusal(asks)).code == "not_allowed"


async def test_a_delegation_is_limited_by_kudos_and_beyond_them_jobs_are_free(link: Link) -> None:
    key = SigningKey.generate()
    await fund(link, key)
    async with RawPeer.open(link, key) as owner, RawPeer.open(link) as machine, RawPeer.open(link) as worker:
        delegation = await present(owner, a_delegation(machine.key.public, kudos=4_000))
        await machine.expect(Account)
        await worker.serve("up to four")
        paid = [await serve_one(worker, machine, await machine.ask(*a_picture("up to four"))) for _ in range(3)]
        spent = [settlement.paid + settlement.burned for settlement in paid]
        assert spent[0] > 0
        assert spent[-1] == 0  # not refused
        assert paid[-1].minted > 0
        assert sum(spent) == 4_000
        await owner.say(AskDelegations())
        [given] = (await owner.expect(Delegations)).entries
        assert (given.delegation, given.used) == (delegation.raw, 4_000)


async def test_a_delegation_ends_when_it_expires(link: Link) -> None:
    async with RawPeer.open(link) as owner, RawPeer.open(link) as machine:
        number = (await owner.register()).number
        await present(owner, a_delegation(machine.key.public, expires=now_ms() + 1_500))
        assert (await machine.expect(Account)).number == number
        await machine.serve_as("until it ends")
        assert (await machine.expect(Account)).number == 0  # said when it is so
        async with RawPeer.open(link) as anybody:
            asked = await anybody.ask(*a_picture("until it ends"))
            assert len(asked.jobs) == 1
            assert (await account(machine)).number == 0
            assert not [said for said in machine.heard if said.kind == "lease"]
        assert (await refused(owner, a_delegation(machine.key.public, expires=1))).code == "not_allowed"


async def test_a_newer_delegation_takes_the_place_of_the_one_before(link: Link) -> None:
    async with RawPeer.open(link) as owner, RawPeer.open(link) as machine:
        await owner.register()
        await present(owner, a_delegation(machine.key.public, max_steps=10))
        await machine.expect(Account)
        assert isinstance(await ask(machine, *a_picture("any")), Refused)
        await present(owner, a_delegation(machine.key.public, max_steps=30))
        await machine.expect(Account)
        assert isinstance(await ask(machine, *a_picture("any")), Queued)
        await owner.say(AskDelegations())
        assert len((await owner.expect(Delegations)).entries) == 1


# Revocation


@pytest.mark.ci_slow
async def test_revoked_at_once_in_sessions_that_are_open(link: Link) -> None:
    async with RawPeer.open(link) as owner, RawPeer.open(link) as machine, RawPeer.open(link) as anybody:
        await owner.register()
        delegation = await present(owner, a_delegation(machine.key.public))
        await machine.expect(Account)
        await machine.serve_as("revoked")
        waiting = await ask(machine, *a_picture("nobody's"))
        assert isinstance(waiting, Queued)
        first = await anybody.ask(*a_picture("revoked"))
        lease, _ = await machine.lease()
        revocation = await present(owner, a_revocation(delegation.digest))
        assert (await machine.expect(Account)).number == 0
        await again(owner, revocation)
        # No new lease; what is under way goes on, and the account earns.
        await anybody.ask(*a_picture("revoked"))
        receipt = machine.receipt(lease)
        await machine.deliver(receipt)
        await anybody.send(first.acknowledgement(anybody.root, receipt).raw)
        paid = (await anybody.envelope("settlement")).open(Settlement)
        assert paid.minted > 0
        assert (await account(owner)).earned == paid.minted
        assert (await account(machine)).number == 0
        assert not [said for said in machine.heard if said.kind in ("lease", "ended")]
        await machine.say(Announce(offers=()))
        assert (await refusal(machine)).code == "not_registered"


async def test_a_revocation_of_what_was_never_delegated_is_refused(link: Link) -> None:
    async with RawPeer.open(link) as owner, RawPeer.open(link) as other, RawPeer.open(link) as machine:
        await owner.register()
        await other.register()
        delegation = await present(owner, a_delegation(machine.key.public))
        assert (await refused(other, a_revocation(delegation.digest))).code == "unknown_account"
        await machine.expect(Account)
        assert isinstance(await ask(machine, *a_picture("any")), Queued)


# What a delegate cannot do


async def test_a_delegate_changes_nothing_about_the_account(link: Link) -> None:
    async with RawPeer.open(link) as owner, RawPeer.open(link) as machine:
        await owner.register()
        delegation = await present(owner, a_delegation(machine.key.public))
        await machine.expect(Account)
        key = SigningKey.generate().public
        for document in (
            a_profile("Mine"),
            a_delegation(key),
            a_revocation(delegation.digest),
            a_recovery(key),
            a_leaving(),
        ):
            assert (await refused(machine, document)).code == "not_allowed"
        await machine.say(AskDelegations())
        assert (await refusal(machine)).code == "not_allowed"


async def test_a_key_with_an_account_and_anothers_delegate_cannot_be_delegates(link: Link) -> None:
    async with RawPeer.open(link) as owner, RawPeer.open(link) as other, RawPeer.open(link) as machine:
        await owner.register()
        await other.register()
        assert (await refused(owner, a_delegation(other.key.public))).code == "not_allowed"
        await present(owner, a_delegation(machine.key.public))
        assert (await refused(other, a_delegation(machine.key.public))).code == "not_allowed"
        assert (await refused(owner, a_delegation(bytes(32)))).code == "bad_key"
        await present(other, a_leaving())  # and then it is nobody's to take, whoever knows it as a worker's
        assert (await refused(owner, a_delegation(other.key.public))).code == "not_allowed"


# As people do it


async def test_shared_keys_to_hand_out_and_a_key_per_machine(horde: Horde, link: Link, tmp_path: Path) -> None:
    owner = str(horde.join("ivy").folder)
    number = json.loads(await horde.run("peer", "account", "--register", "--json", "--home", owner))["account"]
    file = tmp_path / "friends.key"
    made = json.loads(
        await horde.run(
            *("peer", "delegate", "make", "--key-file", str(file), "--ask", "--kudos", "20", "--expires", "90d"),
            *("--label", "friends", "--json", "--home", owner),
        )
    )
    await horde.run("peer", "delegate", "use", "--home", owner, code=2)  # its own account
    stranger, nobody = horde.join("stranger"), tmp_path / "nobody.key"
    own = stranger.key()
    await horde.run("peer", "account", "export", str(nobody), "--home", str(horde.join("nobody").folder))
    await horde.run("peer", "delegate", "use", str(nobody), "--force", "--home", str(stranger.folder), code=4)
    assert stranger.key() == own, "a key that acts for nobody takes no other's place"
    past = ("--ask", "--expires", "2020-01-01", "--home", owner)
    await horde.run("peer", "delegate", "make", "--key-file", str(tmp_path / "past.key"), *past, code=4)
    assert not (tmp_path / "past.key").exists()
    friend = str(tmp_path / "friend")
    await horde.run("peer", "join", str(link), "--offline", "--home", friend)
    assert str(number) in await horde.run("peer", "delegate", "use", str(file), "--home", friend)
    machine = horde.join("attic")
    shown = show_key(machine.key().public)
    await horde.run("peer", "delegate", "make", shown, "--work", "--label", "attic", "--home", owner)
    await horde.run("peer", "delegate", "use", "--home", str(machine.folder))
    await horde.run("peer", "account", "rotate", "--home", str(machine.folder), code=2)
    assert machine.key().public == parse_key(shown), "it is not its account's key, so nothing has changed"
    worker = await horde.worker("attic", "--dry-run", "image")
    said = await worker.line(lambda line: line.get("event") == "joined")
    assert f"account {number}" in said["text"]
    listed = json.loads(await horde.run("peer", "delegate", "list", "--json", "--home", owner))["delegations"]
    assert [(one["label"], one["used"]) for one in listed] == [("friends", 0), ("attic", 0)]
    assert listed[0]["delegation"] == made["delegation"]
    await horde.run("peer", "delegate", "revoke", "friends", "--home", owner)
    await horde.run("peer", "delegate", "revoke", "friends", "--home", owner, code=2)
    await horde.run("peer", "delegate", "make", show_key(SigningKey.generate().public), "--ask", "--home", owner)
    await horde.run("peer", "delegate", "revoke", "", "--home", owner, code=2)  # not the one that has no label
    assert json.loads(await horde.run("peer", "account", "--json", "--home", friend))["account"] == 0
    await horde.run("peer", "delegate", "revoke", "attic", "--home", owner)
    await worker.line(lambda line: line.get("event") == "account" and "none any more" in line.get("text", ""))
    assert await worker.stop() == 0
    # It was a delegate here, and does not open an account of its own.
    await horde.run("peer", "worker", "--dry-run", "image", "--home", str(machine.folder), code=4)


# Services


async def test_an_integrators_jobs_carry_a_pseudonym_that_workers_do_not_see(link: Link) -> None:
    user = secrets.token_bytes(16)
    async with RawPeer.open(link) as service, RawPeer.open(link) as worker:
        number = (await service.register()).number
        found = await ask(service, *a_picture("for users"), user=user)
        assert isinstance(found, Refused)
        assert found.code == "bad_value"
        await present(service, a_profile("Pictures for all", service=True))
        await worker.serve("for users")
        assert isinstance(await ask(service, *a_picture("for users"), user=user), Queued)
        lease, envelope = await worker.lease()
        assert lease.asker.service == f"Pictures for all#{number}"
        assert user not in envelope.raw


async def test_a_service_names_its_users_and_the_pseudonym_is_keyed_per_service(horde: Horde) -> None:
    from peer.keyring import pseudonym

    one, other = horde.join("service-one"), horde.join("service-two")
    assert pseudonym(one, "alice") == pseudonym(one, "alice")
    assert len({pseudonym(one, "alice"), pseudonym(one, "bob"), pseudonym(other, "alice")}) == 3
    home = str(one.folder)
    await horde.run("peer", "account", "--register", "--home", home)
    picture = ("peer", "image", "x", "-o", str(horde.folder / "x.png"), "--width", "64", "--height", "64")
    await horde.run(*picture, "--user", "alice", "--home", home, code=4)
    await horde.run("peer", "account", "name", "One", "--home", home)
    await horde.run("peer", "account", "service", "on", "--home", home)
    worker = await horde.worker("wim", "--dry-run", "image")
    await horde.run(*picture, "--user", "alice", "--home", home)
    assert await worker.stop() == 0


@pytest.mark.ci_slow
async def test_limits_work_per_user_of_a_service_so_that_one_of_them_does_not_take_all(tmp_path: Path) -> None:
    alice, bob = secrets.token_bytes(16), secrets.token_bytes(16)
    rules = "times.accept = 120\ntimes.open = 120\nlimits.without_kudos_running = 3\nlimits.user_running = 2\n"
    async with Horde.open(tmp_path, rules + "limits.user_open_jobs = 5\n") as horde:
        link = horde.link
        assert link is not None
        async with RawPeer.open(link) as service, RawPeer.open(link) as worker:
            await service.register()
            await present(service, a_profile("Pictures for all", service=True))
            await worker.serve("for users", ahead=50)

            async def leased(user: bytes, n: int) -> dict[bytes, Lease]:
                """What of these jobs runs when the tracker has nothing left to do: it answers in order."""
                public, private = a_picture("for users")
                queued = await ask(service, but(public, n=n), private, user=user)
                assert isinstance(queued, Queued)
                await account(service)
                await account(worker)
                found = (envelope.open(Lease) for envelope in worker.heard if envelope.kind == "lease")
                return {lease.job: lease for lease in found if lease.job in queued.jobs}

            hers = await leased(alice, 5)
            assert len(hers) == 2, "by the rule limits.user_running"
            public, private = a_picture("for users")
            beyond = await ask(service, public, private, user=alice)
            assert isinstance(beyond, Refused)
            assert beyond.code == "over_limit"
            assert "limits.user_open_jobs; wait until 1 of them has ended" in beyond.text
            assert len(await leased(bob, 2)) == 1, "the service as a whole has as much as any account"
        assert (await horde.audit())["ok"]


async def test_what_each_service_gave_and_took_is_public(horde: Horde, link: Link) -> None:
    key = SigningKey.generate()
    earned = await fund(link, key)
    async with RawPeer.open(link, key) as service, RawPeer.open(link) as worker:
        await present(service, a_profile("Open books", service=True))
        number = (await service.expect(Account)).number
        await worker.serve("for a service")
        paid = await serve_one(worker, service, await service.ask(*a_picture("for a service")))
    status, page = await get(horde, f"/accounts/{number}")
    assert status == 200
    assert page["gave"] == {"jobs": 1, "kudos": earned}
    assert page["took"] == {"jobs": 1, "kudos": paid.paid + paid.burned, "free": 0}
    listed = (await get(horde, "/services"))[1]["services"]
    assert number in [one["account"] for one in listed]
