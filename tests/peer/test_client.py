"""The client against a real tracker and real workers, each a process of its own."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

import peer
from peer import events
from peer.client import Client
from peer.evidence import Evidence, Unsettled
from peer.verify import verify_content
from protocol.links import Link
from protocol.prices import price
from protocol.work import MAX_SEED, ImageWork
from tests.support.builders import a_key
from tests.support.horde import Horde, until

# One horde serves all of these tests, so they share its loop too.
pytestmark = pytest.mark.asyncio(loop_scope="module")

SMALL: dict[str, Any] = {"width": 64, "height": 64, "steps": 4}
SHORT: dict[str, Any] = {"max_tokens": 12, "context": 256}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def horde(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Horde]:
    async with Horde.open(tmp_path_factory.mktemp("horde")) as horde:
        await horde.worker("fast", "--dry-run", "image", "--dry-run", "text:length=10")
        await horde.worker("slow", "--dry-run", "text:model=slow,step_ms=50")
        yield horde


async def collect(asked: AsyncIterator[events.Event]) -> list[Any]:
    return [event async for event in asked]


def of_kind(found: list[Any], kind: type) -> list[Any]:
    return [event for event in found if isinstance(event, kind)]


async def test_the_public_name_is_the_client() -> None:
    assert peer.Client is Client
    with pytest.raises(AttributeError):
        peer.Server  # noqa: B018


async def test_a_picture_comes_with_everything_that_happened_to_it(horde: Horde) -> None:
    async with horde.client("ann") as ann:
        found = await collect(ann.image("a red circle", seed=5, **SMALL))

    assert isinstance(found[0], events.Queued)
    [leased] = of_kind(found, events.Leased)
    [picture] = of_kind(found, events.Picture)
    [received] = of_kind(found, events.Received)
    assert isinstance(found[-1], events.Settled)
    assert (leased.model, leased.attempt) == ("dry-run-image", 1)
    assert (picture.media_type, picture.seed) == ("image/png", 5)
    assert received.receipt_digest == received.acknowledged_digest
    assert received.artifacts[0].sha256 == hashlib.sha256(picture.content).digest()
    assert of_kind(found, events.Progress)[-1] == events.Progress(0, 4, 4)


async def test_a_picture_can_be_verified_afterwards_down_to_its_settlement(horde: Horde) -> None:
    async with horde.client("ann") as ann:
        found = await collect(ann.image("a red circle", **SMALL))
    [picture] = of_kind(found, events.Picture)

    proofs = Evidence(horde.home("ann").results_folder).proofs(hashlib.sha256(picture.content).digest())
    verified = verify_content(picture.content, proofs)

    assert verified.settlement is not None
    assert verified.settlement.minted == found[-1].minted


async def test_the_pieces_of_a_text_are_what_is_acknowledged(horde: Horde) -> None:
    async with horde.client() as anonymous:
        found = await collect(anonymous.text("tell me", models=["dry-run-text"], **SHORT))

    text = "".join(event.text for event in of_kind(found, events.TextPiece))
    [received] = of_kind(found, events.Received)
    assert text
    assert received.artifacts[0].sha256 == hashlib.sha256(text.encode()).digest()
    assert received.finish == "stop"


async def test_a_text_that_reaches_its_limit_says_so(horde: Horde) -> None:
    async with horde.client() as anonymous:
        found = await collect(anonymous.text("tell me", max_tokens=3, context=256))

    [received] = of_kind(found, events.Received)
    assert (received.finish, received.used) == ("length", 3)


async def test_a_conversation_and_a_raw_prompt_are_taken_too(horde: Horde) -> None:
    turns = [("system", "be short"), ("user", "hello"), ("assistant", "hi"), ("user", "and now?")]
    async with horde.client() as anonymous:
        for found in (
            await collect(anonymous.text(turns, **SHORT)),
            await collect(anonymous.text("once upon", raw=True, **SHORT)),
        ):
            assert isinstance(found[-1], events.Settled)


async def test_the_same_seed_gives_the_same_bytes(horde: Horde) -> None:
    async with horde.client() as anonymous:
        pictures = [
            of_kind(await collect(anonymous.image("a circle", seed=seed, **SMALL)), events.Picture)[0].content
            for seed in (3, 3, 4)
        ]

    assert pictures[0] == pictures[1] != pictures[2]


async def test_several_results_come_side_by_side_each_with_its_seed(horde: Horde) -> None:
    async with horde.client("ann") as ann:
        found = await collect(ann.image("circles", n=4, seed=10, **SMALL))

    assert sorted((picture.index, picture.seed) for picture in of_kind(found, events.Picture)) == [
        (0, 10),
        (1, 11),
        (2, 12),
        (3, 13),
    ]
    assert {event.index for event in of_kind(found, events.Settled)} == {0, 1, 2, 3}


async def test_several_requests_at_once_share_the_client(horde: Horde) -> None:
    async with horde.client("ann") as ann:
        all_found = await asyncio.gather(
            *(collect(ann.image("a circle", seed=seed, **SMALL)) for seed in range(5)),
            *(collect(ann.text("hello", **SHORT)) for _ in range(5)),
        )

    assert all(isinstance(found[-1], events.Settled) for found in all_found)


async def test_a_key_becomes_an_account_when_it_asks_and_only_then(horde: Horde) -> None:
    async with horde.client("newcomer") as newcomer:
        before = await newcomer.account()
        registered = await newcomer.register()
        again = await newcomer.register()

    assert before.number == 0
    assert registered.number == again.number >= 100
    assert "free" in registered.notice
    async with horde.client("newcomer") as newcomer:
        assert newcomer.account_number == registered.number


async def test_leaving_early_cancels_what_is_not_done(horde: Horde) -> None:
    slow = next(process for process in horde.processes if process.name == "slow")
    async with horde.client("ann") as ann:
        asked = ann.text("tell me much", models=["slow"], max_tokens=400, context=2048)
        job = b""
        async with contextlib.aclosing(asked) as asking:
            async for event in asking:
                if isinstance(event, events.Queued):
                    job = event.job
                if isinstance(event, events.TextPiece):
                    break

    # What there was came, as a part, and was paid as such.
    made = await slow.line(lambda line: line.get("event") == "settled" and line.get("job") == job.hex())
    [proof] = [
        proof
        for folder in (horde.home("ann").results_folder / "content").iterdir()
        for proof in Evidence(horde.home("ann").results_folder).proofs(bytes.fromhex(folder.name))
        if proof.job == job
    ]
    assert made["earned"] > 0
    assert proof.settlement


async def test_leaving_before_anybody_could_serve_takes_the_request_back(horde: Horde) -> None:
    async with horde.client("ann") as ann:
        asked = ann.image("x", models=["nobody-serves-this"], **SMALL)
        assert isinstance(await anext(asked), events.Queued)
        await asked.aclose()

        while (await horde.scrape())["waiting"]:  # noqa: ASYNC110 (another process cannot set an event of ours)
            await asyncio.sleep(0.05)


async def test_a_client_that_is_closed_cancels_what_nobody_finished(horde: Horde) -> None:
    async with horde.client("ann") as ann:
        asked = ann.image("x", models=["nobody-serves-this"], **SMALL)
        assert isinstance(await anext(asked), events.Queued)

    assert (await horde.scrape())["waiting"] == 0


async def test_who_waits_can_ask_why(horde: Horde) -> None:
    async with horde.client("ann") as ann:
        asked = ann.image("x", models=["nobody-serves-this"], **SMALL)
        queued = await anext(asked)
        assert isinstance(queued, events.Queued)

        assert sum((await ann.why(queued.job)).values()) > 0


async def test_a_refusal_has_its_code(horde: Horde) -> None:
    async with horde.client("ann") as ann:
        cheap = price(ann.rules, ImageWork(**SMALL), "dry-run-image") / 1000 - 0.001
        with pytest.raises(events.Refused) as caught:
            await collect(ann.image("x", models=["dry-run-image"], max_price=cheap, **SMALL))

    assert caught.value.code == "over_max_price"


@pytest.mark.parametrize(
    "values",
    [
        {"width": 63},
        {"steps": 0},
        {"n": 0},
        {"n": 65},
        {"guidance": -1},
        {"guidance": float("nan")},
        {"guidance": float("inf")},
        {"seed": -1},
        {"seed": MAX_SEED, "n": 2},
        {"max_price": -1},
        {"prompt": "x" * 100_001},
        {"sampler": "x" * 41},
        {"models": ["x"] * 33},
    ],
    ids=str,
)
async def test_what_no_horde_takes_is_refused_before_it_is_sent(horde: Horde, values: dict[str, Any]) -> None:
    async with horde.client() as anonymous:
        with pytest.raises(events.BadRequest):
            anonymous.image(**({"prompt": "x"} | SMALL | values))


@pytest.mark.parametrize(
    "values",
    [
        {"raw": True, "system": "x"},
        {"prompt": [("robot", "x")]},
        {"stop": [""]},
        {"prompt": "", "raw": True},
        {"context": 16, "max_tokens": 16},
    ],
    ids=str,
)
async def test_texts_that_no_horde_takes_are_refused_too(horde: Horde, values: dict[str, Any]) -> None:
    async with horde.client() as anonymous:
        with pytest.raises(events.BadRequest):
            anonymous.text(**({"prompt": "x"} | SHORT | values))


async def test_a_statement_that_an_earlier_program_left_behind_is_settled_by_the_next(horde: Horde) -> None:
    home = horde.home("ann")
    evidence = Evidence(home.results_folder)
    async with horde.client("ann") as ann:
        [picture] = of_kind(await collect(ann.image("a blue square", seed=99, **SMALL)), events.Picture)
        root = ann.link.root
    sha256 = hashlib.sha256(picture.content).digest()
    [proof] = evidence.proofs(sha256)
    # As if that program had ended between storing its acknowledgement and hearing of the settlement.
    unsettled = Unsettled(job=proof.job, attempt=proof.attempt, document=proof.acknowledgement, contents=(sha256,))
    evidence.await_settlement(root, unsettled)

    async with horde.client("ann") as ann:
        await ann.account()
        await until(lambda: not evidence.unsettled(root), "the statement was not answered")

    assert [kept.settlement for kept in evidence.proofs(sha256)] == [proof.settlement]


async def test_a_link_to_another_horde_is_refused(horde: Horde) -> None:
    assert horde.link is not None
    with pytest.raises(events.Unreachable, match="horde"):
        async with Client(Link(horde.link.url, a_key(60).public)):
            pass


async def test_where_no_tracker_is_the_error_says_where_it_was_looked_for(unused_tcp_port: int) -> None:
    link = Link(f"ws://127.0.0.1:{unused_tcp_port}", a_key(60).public)
    with pytest.raises(events.Unreachable, match=str(unused_tcp_port)):
        async with Client(link, connect_seconds=0.3):
            pass


async def test_a_link_over_the_internet_needs_tls() -> None:
    with pytest.raises(events.Unreachable, match="insecure"):
        async with Client(Link("ws://tracker.example", a_key(60).public)):
            pass


async def test_rules_are_kept_for_the_next_time(horde: Horde, tmp_path: Path) -> None:
    async with horde.client("ann") as ann:
        root, rules = ann.link.root, ann.rules

    kept = horde.home("ann").rules(root)
    assert kept is not None
    async with horde.client("ann") as ann:
        assert ann.rules == rules
