"""Links that break, move and drag while a result is on its way: it arrives whole, from the worker that began it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from tests.nat import links
from tests.nat.hordes import Asked, StreetHorde
from tests.nat.kinds import Kind
from tests.nat.measure import measure
from tests.nat.namespaces import NO_NAMESPACES, can_make_namespaces
from tests.nat.net import Network
from tests.nat.paths import EXPECTED, PUNCHED
from tests.support.horde import until

pytestmark = [
    pytest.mark.skipif(not can_make_namespaces(), reason=NO_NAMESPACES),
    pytest.mark.nat,
    pytest.mark.slow,
    pytest.mark.timeout(240),
]

WORKER, REQUESTER = "worker", "requester"
TOKENS = 80
#: A worker whose connection broke is waited for so long, in place of the usual 10 s: it has to find out first.
RULES = "times.worker_grace = 60"

Break = Callable[[Network], AbstractContextManager[Any]]


def cut_requester(network: Network) -> AbstractContextManager[Any]:
    return links.cut(network, REQUESTER)


def cut_worker(network: Network) -> AbstractContextManager[Any]:
    return links.cut(network, WORKER)


def move_requester(network: Network) -> AbstractContextManager[Any]:
    return nullcontext(links.change_address(network, REQUESTER))


def move_worker(network: Network) -> AbstractContextManager[Any]:
    return nullcontext(links.change_address(network, WORKER))


def pieces(asked: Asked) -> int:
    """How much of the text has come."""
    return len(asked.events("text_piece"))


@pytest.mark.parametrize("breaks", [cut_requester, cut_worker, move_requester, move_worker])
@pytest.mark.parametrize(
    "kinds",
    [
        (Kind.PUBLIC, Kind.PORT_RESTRICTED),
        (Kind.PORT_RESTRICTED, Kind.PORT_RESTRICTED),
        (Kind.SYMMETRIC, Kind.SYMMETRIC),
    ],
    ids=lambda kinds: EXPECTED[kinds],
)
async def test_a_text_goes_on_where_it_was_cut(tmp_path: Path, kinds: tuple[Kind, Kind], breaks: Break) -> None:
    with Network.open(tmp_path, {WORKER: kinds[0], REQUESTER: kinds[1]}) as network:
        async with StreetHorde.open(network, tmp_path, RULES) as horde:
            worker = await horde.worker(WORKER, "--dry-run", "text:model=teller,step_ms=100")
            asked = await horde.text(REQUESTER, "teller", "--max-tokens", str(TOKENS))
            await until(lambda: pieces(asked) >= 5, "the text did not begin")
            assert asked.paths[-1] == EXPECTED[kinds]

            with breaks(network):
                # The engine goes on meanwhile: it is done before anybody comes back.
                await worker.line(lambda line: line.get("event") == "delivered" or line.get("done") == TOKENS)
            await asked.finished()

    assert [event["attempt"] for event in asked.events("leased")] == [1]
    assert not asked.events("requeued")
    assert not asked.events("restarted")
    text = "".join(event["text"] for event in asked.events("text_piece"))
    assert text == asked.file.read_text("utf-8")
    assert len(text.split()) == TOKENS


async def test_a_picture_comes_punched_over_a_long_slow_and_lossy_link(tmp_path: Path, record_property: Any) -> None:
    homes = {WORKER: Kind.PORT_RESTRICTED, REQUESTER: Kind.PORT_RESTRICTED}
    with Network.open(tmp_path, homes, delays_ms={WORKER: 40, REQUESTER: 15}) as network:
        links.limit_rate(network, WORKER, mbit=10)
        links.lose(network, WORKER, percent=2)
        measured = measure(network, WORKER, kib=128)
        record_property("table", f"the worker's link: {measured}")
        assert measured.best_rtt_ms >= 80
        assert all(10 < lost < 40 for lost in (measured.lost_out, measured.lost_in))
        assert all(mbit < 11 for mbit in (measured.mbit_out, measured.mbit_in))
        async with StreetHorde.open(network, tmp_path) as horde:
            await horde.worker(WORKER, "--dry-run", "image:model=painter,step_ms=50")
            asked = await horde.picture(REQUESTER, "painter", "--width", "512", "--height", "512", "--steps", "5")
            await asked.finished()

    assert asked.paths[-1] == PUNCHED, asked.events("path")
