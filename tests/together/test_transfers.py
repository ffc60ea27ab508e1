"""Transfers `on`, `limited` and `off`; never anonymous; idempotent."""

from __future__ import annotations

import asyncio
import json
import secrets
from pathlib import Path
from typing import Any

import pytest

from peer.client import Client
from peer.giving import transfer as give
from protocol.documents import Transfer, sign
from protocol.envelope import parse
from protocol.keys import SigningKey
from protocol.messages import Account, AskAccount, Refused
from tests.support.builders import a_delegation_to
from tests.support.horde import PATIENCE_S, Horde, until
from tests.support.raw_peer import RawPeer, fund, now_ms


def a_gift(to: int, amount: int) -> Transfer:
    return Transfer(nonce=secrets.token_bytes(16), valid_until=now_ms() + 60_000, to=to, amount=amount)


async def answer(peer: RawPeer, said: Transfer) -> str:
    """What the tracker answers to a transfer: `taken`, or the code and the text of its refusal."""
    peer.heard.clear()
    envelope = sign(said, peer.key, peer.root)
    await peer.send(envelope.raw)

    def look() -> str:
        for heard in peer.heard:
            if heard.kind == "taken":
                return "taken"
            if heard.kind == "refused":
                refused = heard.open(Refused)
                assert refused.about == envelope.digest
                return f"{refused.code}: {refused.text}"
        return ""

    found: str = await until(look, "no answer to a transfer", PATIENCE_S)
    return found


async def account(peer: RawPeer) -> Account:
    peer.heard.clear()
    await peer.say(AskAccount())
    return await peer.expect(Account)


async def transfer(horde: Horde, name: str, *words: str, code: int = 0) -> dict[str, Any]:
    """`potluck transfer --json`."""
    said = await horde.run("peer", "transfer", *words, "--json", "--home", str(horde.folder / name), code=code)
    found: dict[str, Any] = json.loads(said)
    return found


async def test_transfers_on_a_thank_you_moves_kudos_once_and_is_never_anonymous(tmp_path: Path) -> None:
    async with Horde.open(tmp_path, 'transfers.mode = "on"') as horde:
        assert horde.link is not None
        home = horde.join("ann")
        earned = await fund(horde.link, home.key())
        async with RawPeer.open(horde.link) as ben, RawPeer.open(horde.link) as nobody:
            number = (await ben.register()).number
            done = await transfer(horde, "ann", f"Ben#{number}", "2.5")
            assert done == {"to": number, "amount": 2_500, "balance": earned - 2_500, "again": False}
            assert (await account(ben)).balance == 2_500

            # The same document again moves nothing, and is answered as the first time.
            said = a_gift(100, 500)
            for _ in range(3):
                assert await answer(ben, said) == "taken"
                assert (await account(ben)).balance == 2_000

            assert (await answer(nobody, a_gift(number, 1))).startswith("not_registered")
            assert (await answer(ben, a_gift(100, 2_001))).startswith(
                "no_kudos: 2.001 kudos to give, and the balance is 2"
            )
            assert (await answer(ben, a_gift(4711, 1))).startswith("unknown_account")
            assert (await answer(ben, a_gift(number, 1))).startswith("bad_value")
        refused = await transfer(horde, "ann", "4711", "1", code=4)
        assert refused["error"] == "unknown_account"
        await transfer(horde, "ann", "Ben", "1", code=2)
        report = await horde.audit()
        assert report["ok"]
        assert report["minted"] == earned


@pytest.mark.slow
async def test_transfers_idempotent_one_that_broke_off_unanswered_is_typed_again_and_moves_kudos_once(
    tmp_path: Path,
) -> None:
    async with Horde.open(tmp_path, 'transfers.mode = "on"') as horde:
        assert horde.link is not None
        home = horde.join("ann")
        earned = await fund(horde.link, home.key())
        to = await another_account(horde)
        kept = home.unanswered_transfer(horde.link.root)
        async with Client(horde.link, home=home) as client:
            giving = asyncio.create_task(give(client, to, 2_000, kept))
            while not kept.exists():
                assert not giving.done(), "it was answered before anybody saw that it was kept"
                await asyncio.sleep(0)
            giving.cancel()
            await asyncio.wait([giving])
            # The worst case: it arrived all the same, and the answer was lost.
            await client.hand_over(parse(kept.read_bytes()))
        once = await transfer(horde, "ann", str(to), "2")
        assert once == {"to": to, "amount": 2_000, "balance": earned - 2_000, "again": True}
        assert not kept.exists()
        another = await transfer(horde, "ann", str(to), "2")
        assert another == {"to": to, "amount": 2_000, "balance": earned - 4_000, "again": False}
        await transfer(horde, "ann", "4711", "2", code=4)
        assert not kept.exists()
        assert (await horde.audit())["ok"]


@pytest.mark.slow
async def test_transfers_are_the_accounts_own_keys_and_no_delegates(tmp_path: Path) -> None:
    async with Horde.open(tmp_path, 'transfers.mode = "on"') as horde:
        assert horde.link is not None
        owner, key = SigningKey.generate(), SigningKey.generate()
        await fund(horde.link, owner)
        async with RawPeer.open(horde.link, owner) as own:
            given = a_delegation_to(
                key, nonce=secrets.token_bytes(16), valid_until=now_ms() + 60_000, work=True, ask=True
            )
            await own.send(sign(given, owner, own.root).raw)
            await own.envelope("taken")
            to = await another_account(horde)
            async with RawPeer.open(horde.link, key) as delegate:
                assert (await answer(delegate, a_gift(to, 1))).startswith("not_allowed")
            assert await answer(own, a_gift(to, 1)) == "taken"
        assert (await horde.audit())["ok"]


async def another_account(horde: Horde) -> int:
    assert horde.link is not None
    async with RawPeer.open(horde.link) as peer:
        return (await peer.register()).number


@pytest.mark.slow
async def test_transfers_limited_by_age_by_the_day_and_to_what_was_earned(tmp_path: Path) -> None:
    rules = 'transfers.mode = "limited"\ntransfers.daily = 5000\ntransfers.age_days = 0'
    async with Horde.open(tmp_path, rules) as horde:
        assert horde.link is not None
        assert horde.door is not None
        key = SigningKey.generate()
        assert await fund(horde.link, key) > 10_000
        async with RawPeer.open(horde.link, key) as ann, RawPeer.open(horde.link) as ben:
            number = (await ben.register()).number
            assert await answer(ann, a_gift(number, 4_000)) == "taken"
            beyond = await answer(ann, a_gift(number, 1_001))
            assert beyond.startswith("not_allowed: an account gives at most 5 kudos a day (rule transfers.daily)")
            assert "the next day (UTC) begins in" in beyond
            assert await answer(ann, a_gift(number, 1_000)) == "taken"
            passed_on = await answer(ben, a_gift(100, 1))
            assert passed_on.startswith("not_allowed: an account gives no more than it has earned by serving")

        horde.add_rules("transfers.age_days = 7")
        assert horde.tracker is not None
        await horde.tracker.stop()
        await horde.serve()
        async with RawPeer.open(horde.link, key) as ann:
            young = await answer(ann, a_gift(number, 1))
            assert young.startswith(
                "not_allowed: an account can give from its day 7 on (rule transfers.age_days): yours in 7"
            )
        assert (await horde.audit())["ok"]


@pytest.mark.slow
async def test_transfers_off_nobody_gives_and_kudos_already_given_stays(tmp_path: Path) -> None:
    async with Horde.open(tmp_path, 'transfers.mode = "on"') as horde:
        assert horde.link is not None
        key = SigningKey.generate()
        await fund(horde.link, key)
        to = await another_account(horde)
        async with RawPeer.open(horde.link, key) as ann:
            given = a_gift(to, 1_000)
            assert await answer(ann, given) == "taken"
        horde.add_rules('transfers.mode = "off"')
        assert horde.tracker is not None
        await horde.tracker.stop()
        await horde.serve()
        async with RawPeer.open(horde.link, key) as ann:
            assert (await answer(ann, a_gift(to, 1))).startswith(
                "not_allowed: transfers are switched off in this horde"
            )
            assert await answer(ann, given) == "taken", "answered as the first time"
        assert (await horde.audit())["ok"]
