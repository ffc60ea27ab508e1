"""Accounts. Real trackers, real sockets, and the commands that people type."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from protocol import codec
from protocol.envelope import Envelope, Outbound, seal, session_context
from protocol.keys import SigningKey
from protocol.links import Link
from protocol.messages import Account, Refused, Register
from tests.support.database import count
from tests.support.horde import Horde
from tests.support.people import (
    a_delegation,
    a_leaving,
    a_profile,
    a_recovery,
    a_rotation,
    account,
    again,
    get,
    present,
    refusal,
    refused,
)
from tests.support.raw_peer import RawPeer, a_picture, fund

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

FREE = "This horde is free for everyone"
STRANGER = SigningKey.generate()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def horde(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Horde]:
    folder: Path = tmp_path_factory.mktemp("horde")
    async with Horde.open(folder) as horde:
        yield horde
        assert (await horde.audit())["ok"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def invited(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Horde]:
    folder: Path = tmp_path_factory.mktemp("invited")
    async with Horde.open(folder, 'accounts.registration = "invited"') as horde:
        yield horde
        assert (await horde.audit())["ok"]


@pytest.fixture
def link(horde: Horde) -> Link:
    assert horde.link is not None
    return horde.link


def accounts(horde: Horde) -> int:
    return count(horde.tracker_folder / "horde.db", "accounts")


# Registration


async def test_registration_answers_a_challenge_of_this_very_tracker_with_the_persons_own_key(link: Link) -> None:
    async with RawPeer.open(link) as person:
        registered = await person.register()
        assert registered.number >= 100
        assert registered.notice.startswith(FREE)
        assert (await person.register()).number == registered.number
    async with RawPeer.open(link, person.key) as back:
        assert (await account(back)).number == registered.number


def of_another_tracker(peer: RawPeer) -> Envelope:
    return Outbound(STRANGER.public, peer.outbound.session_id, peer.key, peer.outbound.sequence).seal(
        "register", codec.encode(Register())
    )


def of_another_session(peer: RawPeer) -> Envelope:
    return Outbound(peer.root, bytes(16), peer.key, peer.outbound.sequence).seal("register", codec.encode(Register()))


def of_another_key(peer: RawPeer) -> Envelope:
    context = session_context(peer.root, peer.outbound.session_id, peer.outbound.sequence)
    return seal("register", codec.encode(Register()), STRANGER, context)


@pytest.mark.parametrize(
    ("made", "code"),
    [
        (of_another_tracker, "wrong_horde"),
        (of_another_session, "wrong_session"),
        (of_another_key, "wrong_signer"),
    ],
    ids=["a_challenge_of_another_tracker", "an_old_challenge", "another_keys_challenge"],
)
@pytest.mark.ci_slow
async def test_registration_is_refused_by(
    horde: Horde, link: Link, made: Callable[[RawPeer], Envelope], code: str
) -> None:
    before = accounts(horde)
    async with RawPeer.open(link) as person:
        await person.send(made(person).raw)
        found = await refusal(person)
        assert (found.code, found.final) == (code, True)
    assert accounts(horde) == before


async def test_registration_is_refused_by_a_used_challenge(horde: Horde, link: Link) -> None:
    async with RawPeer.open(link) as person:
        said = await person.say(Register())
        await person.expect(Account)
        before = accounts(horde)
        await person.send(said.raw)
        assert (await refusal(person)).code == "out_of_sequence"
    async with RawPeer.open(link, person.key) as later:
        await later.send(said.raw)
        assert (await refusal(later)).code == "wrong_session"
    assert accounts(horde) == before


async def test_registration_by_invitation_takes_each_code_once(invited: Horde) -> None:
    assert invited.link is not None
    made = json.loads(
        await invited.run("tracker", "admin", "invite", str(invited.tracker_folder), "--count", "2", "--json")
    )
    first, second = made["codes"]
    for code in ("", "aaaaa-bbbbb-ccccc-ddddd"):
        async with RawPeer.open(invited.link) as person:
            await person.say(Register(invite=code))
            assert (await refusal(person)).code == "bad_invite"
            assert (await account(person)).number == 0
    async with RawPeer.open(invited.link) as person:
        await person.say(Register(invite=first.upper().replace("-", " ")))
        number = (await person.expect(Account)).number
        assert number >= 100
        await person.say(Register())  # who has an account needs no code
        assert (await person.expect(Account)).number == number
    async with RawPeer.open(invited.link) as late:
        await late.say(Register(invite=first))
        found = await refusal(late)
        assert found.code == "bad_invite"
        assert "used" in found.text
    await invited.run("peer", "join", str(invited.link), "--home", str(invited.folder / "eve"))
    told = await invited.run("peer", "account", "--invite", second, "--home", str(invited.folder / "eve"))
    assert FREE in told


async def test_registration_by_one_invitation_from_many_at_once_makes_one_account(invited: Horde) -> None:
    assert invited.link is not None
    code = (await invited.run("tracker", "admin", "invite", str(invited.tracker_folder))).strip()

    async def one() -> str:
        assert invited.link is not None
        async with RawPeer.open(invited.link) as person:
            await person.say(Register(invite=code))
            while not any(said.kind in ("refused", "account") for said in person.heard):
                await person.changed()
            return next(said.kind for said in person.heard if said.kind in ("refused", "account"))

    answers = await asyncio.gather(*(one() for _ in range(8)))
    assert sorted(answers) == ["account"] + ["refused"] * 7


async def test_registration_that_is_closed_takes_nobody_and_says_that_all_are_served(tmp_path: Path) -> None:
    async with Horde.open(tmp_path, 'accounts.registration = "closed"') as closed:
        assert closed.link is not None
        async with RawPeer.open(closed.link) as person:
            await person.say(Register())
            found = await refusal(person)
            assert found.code == "not_registered"
            assert "served without one" in found.text
            await person.ask(*a_picture("nobody-serves-this"))


async def test_the_answer_carries_the_notice_that_the_horde_is_free_and_clients_show_it(
    horde: Horde, link: Link
) -> None:
    home = str(horde.join("ann").folder)
    assert FREE in await horde.run("peer", "account", "--register", "--home", home)
    assert FREE in json.loads(await horde.run("peer", "account", "--json", "--home", home))["notice"]
    worker = await horde.worker("wim", "--dry-run", "image")
    said = await worker.line(lambda line: line.get("event") == "account")
    assert FREE in said["text"]
    assert await worker.stop() == 0


# How it is shown


@pytest.mark.ci_slow
async def test_display_names_are_name_and_number_and_can_be_changed(horde: Horde) -> None:
    home = str(horde.join("bea").folder)
    number = json.loads(await horde.run("peer", "account", "--register", "--json", "--home", home))["account"]
    assert f"Bea#{number}" in await horde.run("peer", "account", "name", "Bea", "--home", home)
    changed = json.loads(await horde.run("peer", "account", "name", "Béa of the hills", "--json", "--home", home))
    assert (changed["account"], changed["name"]) == (number, "Béa of the hills")
    await horde.run("peer", "account", "name", "Bea#1", "--home", home, code=2)
    await horde.run("peer", "account", "name", "x" * 31, "--home", home, code=2)


async def test_display_names_need_not_be_unique_and_a_lower_version_is_refused(link: Link) -> None:
    async with RawPeer.open(link) as one, RawPeer.open(link) as other:
        numbers = set()
        for person in (one, other):
            await person.register()
            await present(person, a_profile("Same"))
            shown = await person.expect(Account)
            assert shown.name == "Same"
            numbers.add(shown.number)
        assert len(numbers) == 2
        newest = await present(one, a_profile("Newer"))
        await again(one, newest)
        assert (await refused(one, a_profile("Older", version=1))).code == "out_of_turn"
        assert (await account(one)).name == "Newer"


async def test_the_account_page_is_public_or_private_as_the_owner_wants(horde: Horde) -> None:
    home = str(horde.join("cal").folder)
    number = json.loads(await horde.run("peer", "account", "--register", "--json", "--home", home))["account"]
    assert (await get(horde, f"/accounts/{number}"))[0] == 404
    await horde.run("peer", "account", "public", "--home", home, code=2)  # it has no name yet
    await horde.run("peer", "account", "name", "Cal", "--home", home)
    assert (await get(horde, f"/accounts/{number}"))[0] == 404
    await horde.run("peer", "account", "public", "--home", home)
    status, page = await get(horde, f"/accounts/{number}")
    assert (status, page["name"]) == (200, f"Cal#{number}")
    assert page["gave"] == {"jobs": 0, "kudos": 0}
    await horde.run("peer", "account", "private", "--home", home)
    assert (await get(horde, f"/accounts/{number}"))[0] == 404


# Leaving


@pytest.mark.ci_slow
async def test_leaving_burns_what_is_left_with_the_ledger_still_sound(horde: Horde, link: Link) -> None:
    key = SigningKey.generate()
    earned = await fund(link, key)
    async with RawPeer.open(link, key) as person:
        await present(person, a_profile("Gone", public=True))
        before = await person.expect(Account)
        assert before.balance == earned
        burned = (await horde.scrape())["kudos"]["burned"]
        leaving = await present(person, a_leaving())
        assert (await person.expect(Account)).number == 0
        await again(person, leaving)
        assert (await person.expect(Account)).number == 0
        assert (await get(horde, f"/accounts/{before.number}"))[0] == 404
        anew = await person.register()
        assert anew.number > before.number
        assert anew.balance == 0
    report = await horde.audit()
    assert report["ok"], report["findings"]
    assert report["burned"] >= burned + earned


async def test_leaving_is_refused_while_jobs_are_under_way(link: Link) -> None:
    async with RawPeer.open(link) as person:
        await person.register()
        await person.ask(*a_picture("nobody-serves-this-either"))
        found = await refused(person, a_leaving())
        assert found.code == "jobs_under_way"


async def test_leaving_on_the_command_line_asks_first(horde: Horde) -> None:
    home = str(horde.join("dan").folder)
    await horde.run("peer", "account", "--register", "--home", home)
    await horde.run("peer", "account", "leave", "--home", home, code=1, stdin=b"n\n")
    await horde.run("peer", "account", "leave", "--json", "--home", home, code=2)  # scripts are asked nothing
    assert "has left" in await horde.run("peer", "account", "leave", "--yes", "--home", home)


# Keys


async def test_the_key_is_exported_and_imported(horde: Horde, link: Link, tmp_path: Path) -> None:
    home, other = horde.join("fay").folder, str(tmp_path / "other")
    number = json.loads(await horde.run("peer", "account", "--register", "--json", "--home", str(home)))["account"]
    file = tmp_path / "fay.key"
    await horde.run("peer", "account", "export", str(file), "--home", str(home))
    await horde.run("peer", "account", "export", str(file), "--home", str(home), code=2)
    assert file.stat().st_mode & 0o077 == 0
    await horde.run("peer", "join", str(link), "--home", other)
    await horde.run("peer", "account", "import", str(file), "--home", other, code=2)  # it has a key by now
    await horde.run("peer", "account", "import", str(file), "--force", "--home", other)
    assert json.loads(await horde.run("peer", "account", "--json", "--home", other))["account"] == number


async def test_rotation_the_old_key_signs_the_new_one(horde: Horde) -> None:
    home = horde.join("gil")
    registered = json.loads(await horde.run("peer", "account", "--register", "--json", "--home", str(home.folder)))
    await horde.run("peer", "account", "name", "Gil", "--home", str(home.folder))
    former = home.key()
    rotated = json.loads(await horde.run("peer", "account", "rotate", "--json", "--home", str(home.folder)))
    assert rotated["key"] != registered["key"]
    after = json.loads(await horde.run("peer", "account", "--json", "--home", str(home.folder)))
    assert (after["key"], after["account"], after["name"]) == (rotated["key"], registered["account"], "Gil")
    assert horde.link is not None
    async with RawPeer.open(horde.link, former) as stale:
        assert (await account(stale)).number == 0
        assert (await refused(stale, a_profile("Thief"))).code == "not_registered"


async def test_rotation_is_heard_of_at_once_by_sessions_of_both_keys(link: Link) -> None:
    following = SigningKey.generate()
    async with RawPeer.open(link) as old, RawPeer.open(link, following) as new:
        number = (await old.register()).number
        rotation = await present(new, a_rotation(old.key.public, following.public), old.key)
        assert (await new.expect(Account)).number == number
        assert (await old.expect(Account)).number == 0
        await again(new, rotation)
        assert (await new.expect(Account)).number == number


async def test_rotation_is_refused_from_whom_it_may_not_come(link: Link) -> None:
    async with RawPeer.open(link) as owner, RawPeer.open(link) as thief, RawPeer.open(link) as third:
        number = (await owner.register()).number
        rotation = a_rotation(owner.key.public, thief.key.public)
        assert (await refused(thief, rotation)).code == "wrong_signer"  # signed by the new key itself
        assert (await refused(third, rotation, owner.key)).code == "wrong_signer"  # in another key's session
        await third.register()
        taken = a_rotation(owner.key.public, third.key.public)
        assert (await refused(third, taken, owner.key)).code == "not_allowed"  # that key has an account
        assert (await account(owner)).number == number


@pytest.mark.ci_slow
async def test_rotation_by_the_recovery_key_kept_apart(horde: Horde, link: Link, tmp_path: Path) -> None:
    home = str(horde.join("hal").folder)
    registered = json.loads(await horde.run("peer", "account", "--register", "--json", "--home", home))
    file = tmp_path / "drawer.key"
    await horde.run("peer", "account", "recovery", str(file), "--home", home)
    # The machine is lost: another one, with a key of its own, and what lay in the drawer.
    found = str(horde.join("hal-again").folder)
    told = json.loads(
        await horde.run(
            "peer", "account", "recover", str(file), "--former", registered["key"], "--json", "--home", found
        )
    )
    assert told["account"] == registered["account"]
    assert json.loads(await horde.run("peer", "account", "--json", "--home", home))["account"] == 0


async def test_a_recovery_key_does_nothing_else_and_a_replaced_one_nothing_at_all(link: Link) -> None:
    first, second = SigningKey.generate(), SigningKey.generate()
    async with RawPeer.open(link) as owner, RawPeer.open(link, first) as drawer, RawPeer.open(link) as new:
        await owner.register()
        await present(owner, a_recovery(first.public))
        assert (await refused(drawer, a_leaving())).code == "not_registered"
        assert (await refused(drawer, a_delegation(STRANGER.public))).code == "not_registered"
        await present(owner, a_recovery(second.public))
        rotation = a_rotation(owner.key.public, new.key.public)
        assert (await refused(new, rotation, first)).code == "wrong_signer"
        await present(new, a_rotation(owner.key.public, new.key.public), second)
        assert (await new.expect(Account)).number >= 100


async def test_documents_of_another_horde_or_too_old_are_refused(link: Link) -> None:
    async with RawPeer.open(link) as person:
        await person.register()
        old = a_leaving()
        late = type(old)(nonce=old.nonce, valid_until=1)
        assert (await refused(person, late)).code == "late"
        other = seal("leaving", codec.encode(a_leaving()), person.key, STRANGER.public)
        await person.send(other.raw)
        assert (await refusal(person)).code == "wrong_horde"
        assert isinstance(await account(person), Account)
        assert not [said for said in person.heard if said.kind == Refused.KIND]
