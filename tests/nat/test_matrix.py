"""Every kind of worker with every kind of requester: a finished, verified picture, over the path that is expected.

Some cells stand for the others in CI; `make test-nat` runs them all.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.nat.hordes import StreetHorde
from tests.nat.kinds import Kind
from tests.nat.namespaces import NO_NAMESPACES, can_make_namespaces
from tests.nat.net import Network
from tests.nat.paths import CHOICE, DIRECT, EXPECTED, table

pytestmark = [
    pytest.mark.skipif(not can_make_namespaces(), reason=NO_NAMESPACES),
    pytest.mark.nat,
    pytest.mark.asyncio(loop_scope="module"),
]

#: What was found, pair by pair.
FOUND: dict[tuple[Kind, Kind], str] = {}

CELLS = [
    pytest.param(
        worker,
        requester,
        marks=pytest.mark.ci_slow if (worker, requester) in CHOICE else pytest.mark.slow,
        id=f"{worker.value} to {requester.value}".replace(" ", "_"),
    )
    for worker, requester in EXPECTED
]


def worker_at(kind: Kind) -> str:
    """Where the worker of this kind lives."""
    return f"w {kind.value}"


def requester_at(kind: Kind) -> str:
    """Where the requester of this kind lives."""
    return f"r {kind.value}"


def model_of(kind: Kind) -> str:
    """What the worker of this kind serves, and no other one."""
    return f"at-{kind.name.lower()}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def horde(tmp_path_factory: Any) -> AsyncIterator[StreetHorde]:
    """A street with two homes of each kind, and a tracker."""
    homes = {place(kind): kind for place in (worker_at, requester_at) for kind in Kind}
    folder = tmp_path_factory.mktemp("street")
    with Network.open(folder, homes) as network:
        async with StreetHorde.open(network, folder) as served:
            yield served


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("worker", "requester"), CELLS)
async def test_a_picture_comes_over_the_expected_path(horde: StreetHorde, worker: Kind, requester: Kind) -> None:
    if worker_at(worker) not in horde.workers:
        await horde.worker(worker_at(worker), "--dry-run", f"image:model={model_of(worker)},step_ms=50")

    asked = await (await horde.picture(requester_at(requester), model_of(worker))).finished()

    assert asked.file.read_bytes().startswith(b"\x89PNG")
    FOUND[worker, requester] = asked.paths[-1] if asked.paths else "unknown"
    assert FOUND[worker, requester] == EXPECTED[worker, requester], asked.events("path")


@pytest.mark.ci_slow
async def test_what_was_found_is_shown(record_property: Any) -> None:
    record_property("table", table(FOUND))
    assert {pair: path for pair, path in FOUND.items() if path != EXPECTED[pair]} == {}


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_a_picture_of_the_real_engine_comes_punched(horde: StreetHorde) -> None:
    where = Kind.PORT_RESTRICTED
    if worker_at(where) in horde.workers:
        await horde.workers.pop(worker_at(where)).stop()
    await horde.worker(worker_at(where), "--image", "shapes")

    asked = await (await horde.picture(requester_at(where), "shapes", "--width", "64", "--height", "64")).finished()

    assert asked.paths[-1] == EXPECTED[where, where]


@pytest.mark.slow
async def test_a_worker_of_both_families_that_names_no_address_is_reached_by_who_has_one(tmp_path: Path) -> None:
    homes = {"worker": Kind.PUBLIC, "by IPv4": Kind.PORT_RESTRICTED, "by IPv6": Kind.IPV6_ONLY}
    with Network.open(tmp_path, homes) as network:
        async with StreetHorde.open(network, tmp_path) as served:
            await served.worker("worker", "--dry-run", "image:model=painter,step_ms=50", says_where=False)
            paths = [
                (await (await served.picture(place, "painter")).finished()).paths[-1]
                for place in ("by IPv4", "by IPv6")
            ]

    assert paths == [DIRECT, DIRECT]
