"""What tracker and relay could read of a job, if they wrote down every byte that passes their network devices."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.nat.capture import Capture, captured
from tests.nat.hordes import StreetHorde
from tests.nat.kinds import Kind
from tests.nat.namespaces import NO_NAMESPACES, can_make_namespaces
from tests.nat.net import TRACKER, Network
from tests.nat.paths import DIRECT, PUNCHED, RELAYED
from tests.nat.probes import say

pytestmark = [pytest.mark.skipif(not can_make_namespaces(), reason=NO_NAMESPACES), pytest.mark.nat]

PROMPT = "a teapot of rare green porcelain beside the unmistakable window 4711"
WORKER, REQUESTER, RELAY = "worker", "requester", "relay"
SIZE = ("--width", "256", "--height", "256", "--steps", "5")
TLS = ("--self-signed",)


async def a_job(horde: StreetHorde, watched: str = TRACKER, *words: str) -> tuple[Capture, bytes, list[str]]:
    """What was on the wire while a worker came and made a picture; the picture; the paths that it took.
    words: more for `potluck image`."""
    with captured(horde.network, watched) as capture:
        await horde.worker(WORKER, "--dry-run", "image:model=painter,step_ms=50")
        asked = await (await horde.picture(REQUESTER, "painter", *SIZE, *words, prompt=PROMPT)).finished()
    assert len(capture.packets) > 10, "something passed"
    return capture, asked.file.read_bytes(), asked.paths


@pytest.mark.ci_slow
async def test_over_tls_neither_prompt_nor_picture_can_be_read_at_a_tracker_that_relays(tmp_path: Path) -> None:
    with Network.open(tmp_path, {WORKER: Kind.SYMMETRIC, REQUESTER: Kind.SYMMETRIC}) as network:
        async with StreetHorde.open(network, tmp_path, init=TLS) as horde:
            capture, picture, paths = await a_job(horde)
        with captured(network, TRACKER) as control:
            await say(network, REQUESTER, TRACKER, PROMPT.encode() + picture)

    assert paths[-1] == RELAYED
    assert sum(map(len, capture.flows().values())) > 2 * len(picture), "it did pass: in, and out again"
    for content in (PROMPT.encode(), picture):
        assert capture.found(content)[0] == 0
        found, looked_for = control.found(content)
        assert found == looked_for > len(content) / 2


@pytest.mark.slow
async def test_a_relay_is_blind_also_where_the_outer_connection_is_plain(tmp_path: Path) -> None:
    with Network.open(tmp_path, {WORKER: Kind.SYMMETRIC, REQUESTER: Kind.SYMMETRIC}) as network:
        async with StreetHorde.open(network, tmp_path) as horde:
            capture, picture, paths = await a_job(horde)

    assert paths[-1] == RELAYED
    assert capture.found(picture)[0] == 0
    found, looked_for = capture.found(PROMPT.encode())
    assert found == looked_for, "the prompt's one visit, which TLS would have hidden"


@pytest.mark.slow
async def test_what_is_punched_passes_no_tracker_at_all(tmp_path: Path) -> None:
    with Network.open(tmp_path, {WORKER: Kind.PORT_RESTRICTED, REQUESTER: Kind.PORT_RESTRICTED}) as network:
        async with StreetHorde.open(network, tmp_path, init=TLS) as horde:
            capture, picture, paths = await a_job(horde)

    assert paths[-1] == PUNCHED
    assert capture.found(picture)[0] == 0
    assert capture.found(PROMPT.encode())[0] == 0
    assert sum(map(len, capture.flows().values())) < 200_000, "conversation only"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("relay", "peers"),
    [(Kind.PUBLIC, Kind.SYMMETRIC), (Kind.PUBLIC, Kind.IPV6_ONLY)],
    ids=["by IPv4", "by IPv6"],
)
async def test_a_volunteer_relays_what_it_cannot_read(tmp_path: Path, relay: Kind, peers: Kind) -> None:
    with Network.open(tmp_path, {WORKER: peers, REQUESTER: peers, RELAY: relay}) as network:
        async with StreetHorde.open(network, tmp_path, "relays.tracker = false", init=TLS) as horde:
            await horde.relay(RELAY)
            capture, picture, paths = await a_job(horde, RELAY, "--relays-only")

    assert paths == [RELAYED]
    assert sum(map(len, capture.flows().values())) > 2 * len(picture), "it did pass: in, and out again"
    for content in (PROMPT.encode(), picture):
        assert capture.found(content)[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("hides", [True, False], ids=["relays only", "the control"])
async def test_who_asks_for_relays_only_shows_its_address_to_no_worker(tmp_path: Path, hides: bool) -> None:
    with Network.open(tmp_path, {WORKER: Kind.PUBLIC, REQUESTER: Kind.PUBLIC}) as network:
        own = {network[REQUESTER].outer4, network[REQUESTER].outer6}
        async with StreetHorde.open(network, tmp_path, init=TLS) as horde:
            capture, _, paths = await a_job(horde, WORKER, *(["--relays-only"] if hides else []))

    assert paths == [RELAYED if hides else DIRECT]
    met = {address for flow in capture.flows() for address in flow if address in own}
    assert bool(met) != hides
