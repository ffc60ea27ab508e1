"""Conditions of a link, each measured after it was set; and what they do to streams."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from tests.nat import links
from tests.nat.kinds import Kind
from tests.nat.measure import measure
from tests.nat.namespaces import NO_NAMESPACES, can_make_namespaces
from tests.nat.net import ELSEWHERE, Network
from tests.nat.probes import answer, listener, port_of, seen_from

pytestmark = [pytest.mark.skipif(not can_make_namespaces(), reason=NO_NAMESPACES), pytest.mark.nat]

HOME = "home"


@pytest.mark.ci_slow
def test_rate_loss_and_delay_are_what_was_asked_for(tmp_path: Path, record_property: Any) -> None:
    told = []

    with Network.open(tmp_path, {HOME: Kind.PORT_RESTRICTED}) as network:
        plain = measure(network, HOME)
        told.append(f"nothing set: {plain}")
        links.limit_rate(network, HOME, mbit=20)
        slow = measure(network, HOME)
        told.append(f"20 Mbit/s: {slow}")
    with Network.open(tmp_path, {HOME: Kind.PORT_RESTRICTED}) as network:
        links.lose(network, HOME, percent=10)
        lossy = measure(network, HOME, kib=128)
        told.append(f"10 of 100 lost: {lossy}")
    with Network.open(tmp_path, {HOME: Kind.PORT_RESTRICTED}, delays_ms={HOME: 20}) as network:
        far = measure(network, HOME)
        told.append(f"20 ms each way: {far}")

    record_property("table", "\n".join(told))
    assert plain.lost_out == plain.lost_in == 0
    assert min(plain.mbit_out, plain.mbit_in) > 2 * 20, "the link must be faster than what it is slowed to"
    assert plain.best_rtt_ms < 40, "the link must be nearer than where it is moved to"
    # A burst may go ahead of the measured bytes' rate, and headers are not counted.
    assert all(10 < mbit < 22 for mbit in (slow.mbit_out, slow.mbit_in))
    # 2,000 drawn at 100 of 1,000: five times the standard deviation.
    assert all(66 < lost < 134 for lost in (lossy.lost_out, lossy.lost_in))
    assert far.best_rtt_ms >= 40
    assert far.lost_out == far.lost_in == 0


async def test_a_cut_link_answers_nothing_and_comes_back(tmp_path: Path) -> None:
    with Network.open(tmp_path, {HOME: Kind.PORT_RESTRICTED}) as network, listener(network[ELSEWHERE], 4) as waiting:
        where = network[ELSEWHERE].outer4, port_of(waiting)
        assert await answer(network[HOME], 4, where) == "connected"
        with links.cut(network, HOME):
            assert await answer(network[HOME], 4, where) == "nothing"
        assert await answer(network[HOME], 4, where) == "connected"


@pytest.mark.parametrize("kind", [Kind.PUBLIC, Kind.PORT_RESTRICTED], ids=lambda kind: kind.value)
async def test_a_home_with_a_new_address_is_seen_under_it(tmp_path: Path, kind: Kind) -> None:
    with Network.open(tmp_path, {HOME: kind}) as network:
        before = await seen_from(network, network[HOME], 4)
        new = links.change_address(network, HOME)
        after = await seen_from(network, network[HOME], 4)

    assert {host for host, _ in after} == {new}
    assert {host for host, _ in before}.isdisjoint({new})


def test_what_was_open_does_not_come_through_under_a_new_address(tmp_path: Path) -> None:
    with Network.open(tmp_path, {HOME: Kind.PORT_RESTRICTED}) as network, listener(network[ELSEWHERE], 4) as waiting:
        waiting.setblocking(True)
        with network[HOME].network.socket(socket.AF_INET, socket.SOCK_STREAM) as own:
            own.connect((network[ELSEWHERE].outer4, port_of(waiting)))
            others, _ = waiting.accept()
            with others:
                own.sendall(b"before")
                assert others.recv(16) == b"before"
                links.change_address(network, HOME)
                others.settimeout(0.5)
                own.sendall(b"after")
                with pytest.raises(TimeoutError):
                    others.recv(16)
