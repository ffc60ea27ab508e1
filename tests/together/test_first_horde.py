"""A horde of real processes: pictures and texts, streamed directly, verified, paid for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peer.events import Picture, Settled, TextPiece
from protocol.postings import share
from protocol.prices import price, tax
from protocol.work import ImageWork, TextWork
from tests.support.horde import Horde


async def collect(events: Any) -> list[Any]:
    return [event async for event in events]


async def test_somebody_with_nothing_is_served_and_the_worker_is_paid_from_the_mint(tmp_path: Path) -> None:
    async with Horde.open(tmp_path) as horde:
        await horde.worker("ann", "--dry-run", "image")
        async with horde.client() as anonymous:
            events = await collect(anonymous.image("a red circle", width=64, height=64, steps=5))
            cost = price(anonymous.rules, ImageWork(width=64, height=64, steps=5), "dry-run")
        settled = events[-1]
        assert isinstance(settled, Settled)
        assert (settled.paid, settled.minted, settled.burned) == (0, cost, 0)
        assert any(isinstance(event, Picture) for event in events)
        async with horde.client("ann") as ann:
            assert (await ann.account()).balance == cost
        report = await horde.audit()
        assert report["ok"]


async def test_who_earned_first_pays_exactly_price_and_tax_once(tmp_path: Path) -> None:
    async with Horde.open(tmp_path) as horde:
        await horde.worker("ann", "--dry-run", "image")
        await horde.worker("bob", "--dry-run", "text")
        async with horde.client("bob") as bob:
            await collect(bob.image("pictures", width=64, height=64, steps=5, n=8))
        async with horde.client("ann") as ann:
            before = (await ann.account()).balance
            cost = price(ann.rules, TextWork(max_tokens=16, context_tokens=256), "dry-run")
            burned = tax(ann.rules)
            assert share(cost, burned, before).free == 0
            events = await collect(ann.text("say something", max_tokens=16, context=256))
            after = await ann.account()
        settled = events[-1]
        assert isinstance(settled, Settled)
        assert (settled.paid, settled.minted, settled.burned) == (cost, 0, burned)
        assert after.balance == before - cost - burned
        assert after.held == 0
        assert "".join(event.text for event in events if isinstance(event, TextPiece))
        assert (await horde.audit())["ok"]
