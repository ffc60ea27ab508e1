"""Prices and tax, as a real tracker asks and pays them. Real sockets; the figures stand here as people know them."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from protocol.documents import Settlement
from protocol.keys import SigningKey
from protocol.links import Link
from protocol.messages import AskQuote, Quote, Refused
from protocol.work import ImageWork, PublicPart, TextPrivate, TextWork, Work
from tests.support.builders import but
from tests.support.horde import Horde
from tests.support.raw_peer import RawPeer, a_picture, fund

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.ci_slow]

RULES = """
prices.image_extras = { upscale = 1000 }
models.dear.price = 2000
models.tiny.millions = 100
models.large.millions = 70000
limits.max_pixels = 4194304
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def horde(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Horde]:
    async with Horde.open(tmp_path_factory.mktemp("horde"), RULES) as horde:
        yield horde
        assert (await horde.audit())["ok"]


@pytest.fixture
def link(horde: Horde) -> Link:
    assert horde.link is not None
    return horde.link


async def quoted(peer: RawPeer, work: Work, model: str = "any") -> Quote:
    await peer.say(AskQuote(public=PublicPart(work=work, models=(model,))))
    return await peer.expect(Quote)


async def served(worker: RawPeer, requester: RawPeer, public: PublicPart, private: object) -> Settlement:
    """One job, to its settlement."""
    asked = await requester.ask(public, private)  # type: ignore[arg-type]
    lease, _ = await worker.lease()
    receipt = worker.receipt(lease)
    await worker.deliver(receipt)
    await requester.send(asked.acknowledgement(requester.root, receipt).raw)
    return (await requester.envelope("settlement")).open(Settlement)


async def test_prices_of_pictures_by_pixels_steps_guidance_passes_and_extras(link: Link) -> None:
    def image(side: int, steps: int = 30, passes: int = 2, extras: tuple[str, ...] = ()) -> ImageWork:
        return ImageWork(width=side, height=side, steps=steps, guidance_passes=passes, extras=extras)

    async with RawPeer.open(link) as person:
        await person.register()
        for work, price in (
            (image(512), 7_600),
            (image(768), 11_800),
            (image(1024), 21_000),
            (image(1536), 57_000),
            (image(2048), 114_000),
            (image(512, steps=50), 11_000),
            (image(512, passes=1), 5_050),
            (image(512, extras=("upscale",)), 8_600),
        ):
            assert (await quoted(person, work)).price == price, work
        await person.say(AskQuote(public=PublicPart(work=image(512, extras=("gold",)), models=("any",))))
        refused = (await person.envelope("refused")).open(Refused)
        assert (refused.code, "offered: upscale" in refused.text) == ("not_offered", True)


async def test_prices_of_texts_by_tokens_context_and_a_model_size_from_the_rules_never_from_the_workers_word(
    link: Link,
) -> None:
    work = TextWork(max_tokens=74, context_tokens=1024)
    async with RawPeer.open(link) as person, RawPeer.open(link) as worker:
        assert (await quoted(person, work)).price == 500 + 74 * 55 + 400 == 4_970
        longer = TextWork(max_tokens=148, context_tokens=2048)
        assert (await quoted(person, longer)).price == 500 + 2 * (74 * 55 + 400)
        assert (await quoted(person, work, "tiny")).price == 500 + 4_470 * 400 // 1000
        assert (await quoted(person, work, "large")).price == 500 + 4_470 * 2
        # Whatever a worker calls what it serves: a name that the rules do not know is of the rules' usual size.
        await worker.serve("huge 405b", kind="text")
        private = TextPrivate(prompt="why", salt=secrets.token_bytes(32))
        settled = await served(worker, person, PublicPart(work=work, models=("huge 405b",)), private)
        assert settled.minted == 4_970


async def test_prices_have_multipliers_per_model(link: Link) -> None:
    async with RawPeer.open(link) as person, RawPeer.open(link) as worker:
        assert (await quoted(person, ImageWork(width=512, height=512, steps=30), "dear")).price == 15_200
        await worker.serve("dear")
        public, private = a_picture("dear", side=512)
        assert (await served(worker, person, public, private)).minted == 15_200


async def test_tax_is_flat_for_each_job_whatever_its_size_and_is_burned(horde: Horde, link: Link) -> None:
    key = SigningKey.generate()
    await fund(link, key)
    async with RawPeer.open(link, key) as person, RawPeer.open(link) as worker:
        await worker.serve("taxed")
        for side in (64, 512):
            settled = await served(worker, person, *a_picture("taxed", side=side))
            assert (settled.burned, settled.minted) == (3_000, 0)
        await person.say(AskQuote(public=but(a_picture("taxed")[0], share=True)))
        refused = (await person.envelope("refused")).open(Refused)
        assert (refused.code, "no open data set yet" in refused.text) == ("not_offered", True)
    report = await horde.audit()
    assert (report["ok"], report["burned"]) == (True, 6_000)
