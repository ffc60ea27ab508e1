"""Which addresses lead into somebody's own network, in whatever clothes."""

import pytest

from peer.paths.addresses import is_private


@pytest.mark.parametrize(
    "host",
    [
        "10.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::10.0.0.1",
        "64:ff9b:1::10.0.0.1",
        "2002:a00:1::1",
        "2002:7f00:1::",
        "::10.0.0.1",
        "::ffff:0:10.0.0.1",
        "fec0::1",
        "fd00::1",
        "fe80::1",
        "::1",
        "ff02::1",
    ],
)
def test_nobody_is_led_into_a_network_by_an_address_within_another(host: str) -> None:
    assert is_private(host)


@pytest.mark.parametrize("host", ["11.0.0.7", "2a00::7", "64:ff9b::11.0.0.7", "2002:b00:7::1", "horde.example"])
def test_what_is_reached_from_everywhere_stays_so(host: str) -> None:
    assert not is_private(host)
