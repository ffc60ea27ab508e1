"""The ground: homes behave as they are named. Plain sockets only; no program of ours runs here."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from tests.nat.kinds import Kind
from tests.nat.namespaces import NO_NAMESPACES, can_make_namespaces
from tests.nat.net import Network
from tests.nat.paths import DIRECT, EXPECTED, RELAYED, table
from tests.nat.probes import Punched, common_family, knock, punch, seen_from

pytestmark = [pytest.mark.skipif(not can_make_namespaces(), reason=NO_NAMESPACES), pytest.mark.nat]

KINDS = list(Kind)


@pytest.fixture(scope="module")
def network(tmp_path_factory: Any) -> Iterator[Network]:
    homes = {f"{side} {kind.value}": kind for side in ("a", "b") for kind in Kind}
    with Network.open(tmp_path_factory.mktemp("net"), homes) as made:
        yield made


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.value)
async def test_a_stranger_comes_in_where_the_name_says_so_and_hears_nothing_elsewhere(
    network: Network, kind: Kind
) -> None:
    home = network[f"a {kind.value}"]
    before = home.router.dropped() if home.router else 0

    heard = await knock(network, home, 4 if kind.has_ipv4 else 6)

    assert heard == ("connected" if kind in (Kind.PUBLIC, Kind.FULL_CONE) else "nothing")
    if heard == "nothing":
        assert home.router is not None
        assert home.router.dropped() > before, "it was the router that dropped it"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.value)
async def test_a_port_looks_the_same_to_everybody_unless_the_router_is_symmetric(network: Network, kind: Kind) -> None:
    home = network[f"a {kind.value}"]
    family = 4 if kind.has_ipv4 else 6

    ends = await seen_from(network, home, family)

    assert {host for host, _ in ends} == {home.outer(family)}
    assert (ends[0] == ends[1]) == (kind is not Kind.SYMMETRIC)


@pytest.mark.ci_slow
async def test_a_hole_is_punched_exactly_where_the_table_of_paths_says_so(
    network: Network, record_property: Any
) -> None:
    places = {(one, other): (network[f"a {one.value}"], network[f"b {other.value}"]) for one, other in EXPECTED}

    # Those that cannot be made take as long as the patience lasts, so they are tried at the same time.
    hopeless = [pair for pair in EXPECTED if EXPECTED[pair] == RELAYED]
    found = dict(
        zip(hopeless, await asyncio.gather(*(punch(network, *places[pair]) for pair in hopeless)), strict=True)
    )
    for pair in EXPECTED.keys() - found.keys():
        found[pair] = await punch(network, *places[pair])

    record_property("table", table({pair: _told(made) for pair, made in found.items()}))
    for pair, made in found.items():
        assert (made is not None) == (EXPECTED[pair] != RELAYED), f"{pair}: {made}"


async def test_whatever_is_called_direct_is_a_home_that_anybody_reaches_who_speaks_its_family(
    network: Network,
) -> None:
    for (one, other), path in EXPECTED.items():
        open_to_all = one in (Kind.PUBLIC, Kind.FULL_CONE)
        meets = common_family(network[f"a {one.value}"], network[f"b {other.value}"]) != 0
        assert (path == DIRECT) == (open_to_all and meets)


def _told(made: Punched | None) -> str:
    return "no" if made is None else f"{made.ms:.1f} ms in {made.tries} {'try' if made.tries == 1 else 'tries'}"
