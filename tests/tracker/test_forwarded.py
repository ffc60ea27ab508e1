"""Where a connection comes from: what a trusted proxy says of it, and nothing that anybody else made up."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracker.forwarded import FORWARDED, X_FORWARDED_FOR, Client, Trust, parse_address

PROXIES = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1"))


def found(remote: str, values: list[str], header: str = X_FORWARDED_FOR) -> tuple[str | None, int | None]:
    """What is believed of a request from port 999 of `remote`."""
    client = Trust(PROXIES, header).client(Client(parse_address(remote), 999), values)
    return (str(client.address) if client.address else None, client.port)


@pytest.mark.parametrize(
    ("remote", "forwarded", "client"),
    [
        # Nobody speaks for a stranger, and a stranger for nobody.
        ("203.0.113.7", [], ("203.0.113.7", 999)),
        ("203.0.113.7", ["198.51.100.1"], ("203.0.113.7", 999)),
        ("::ffff:203.0.113.7", ["198.51.100.1"], ("203.0.113.7", 999)),
        ("", ["198.51.100.1"], (None, 999)),
        # The last hop that is not trusted counts; what it says of others is its own invention.
        ("10.0.0.1", ["198.51.100.1"], ("198.51.100.1", None)),
        ("10.0.0.1", ["1.1.1.1, 198.51.100.1"], ("198.51.100.1", None)),
        ("10.0.0.1", ["1.1.1.1:80,198.51.100.1:4711"], ("198.51.100.1", 4711)),
        ("10.0.0.1", ["1.1.1.1", "198.51.100.1"], ("198.51.100.1", None)),
        ("10.0.0.1", ["198.51.100.1, 10.9.9.9"], ("198.51.100.1", None)),
        ("10.0.0.1", ["1.1.1.1:1", "198.51.100.1:4711, 10.9.9.9:5"], ("198.51.100.1", 4711)),
        ("10.0.0.1", ["10.9.9.9:5"], ("10.9.9.9", 5)),
        # A proxy that does not say from whom it has a request is as far as one can see; its port is nobody's.
        ("10.0.0.1", [], ("10.0.0.1", None)),
        ("10.0.0.1", [""], ("10.0.0.1", None)),
        ("10.0.0.1", ["nonsense"], ("10.0.0.1", None)),
        ("10.0.0.1", ["198.51.100.1, nonsense"], ("10.0.0.1", None)),
        ("10.0.0.1", ["198.51.100.1,"], ("10.0.0.1", None)),
        ("10.0.0.1", ["198.51.100.1, unknown, 10.9.9.9:5"], ("10.9.9.9", None)),
        ("10.0.0.1", ["198.51.100.1:" + "1" * 80], ("10.0.0.1", None)),
        # Forms of addresses and ports.
        ("::1", ["[2001:db8::1]"], ("2001:db8::1", None)),
        ("::1", ["2001:db8::1"], ("2001:db8::1", None)),
        ("::1", ["[2001:db8::1]:4711"], ("2001:db8::1", 4711)),
        ("::ffff:10.0.0.1", ["::ffff:198.51.100.1"], ("198.51.100.1", None)),
        ("::1", ["[::ffff:198.51.100.1]:4711"], ("198.51.100.1", 4711)),
        ("::1", ["fe80::1%eth0"], ("::1", None)),
        ("10.0.0.1", ["198.51.100.1:0"], ("198.51.100.1", None)),
        ("10.0.0.1", ["198.51.100.1:65536"], ("198.51.100.1", None)),
        ("10.0.0.1", ["198.51.100.1:-5"], ("198.51.100.1", None)),
        ("10.0.0.1", ["198.51.100.1:\u0661"], ("198.51.100.1", None)),
        ("10.0.0.1", ["198.51.100.1:"], ("198.51.100.1", None)),
        ("10.0.0.1", ["for=198.51.100.1"], ("10.0.0.1", None)),
    ],
)
def test_only_a_trusted_proxy_speaks_for_others(remote, forwarded, client):
    assert found(remote, forwarded) == client


@pytest.mark.parametrize(
    ("remote", "forwarded", "client"),
    [
        ("203.0.113.7", ["for=198.51.100.1"], ("203.0.113.7", 999)),
        ("10.0.0.1", ["for=198.51.100.1"], ("198.51.100.1", None)),
        ("10.0.0.1", ['for="198.51.100.1:4711"'], ("198.51.100.1", 4711)),
        ("10.0.0.1", ['For="[2001:db8::1]:4711";proto=https;by=10.0.0.1'], ("2001:db8::1", 4711)),
        ("10.0.0.1", ['proto=https ; FOR = "x"'], ("10.0.0.1", None)),
        ("10.0.0.1", ["by=10.0.0.1;for=198.51.100.1;host=h"], ("198.51.100.1", None)),
        ("10.0.0.1", ["for=1.1.1.1, for=198.51.100.1"], ("198.51.100.1", None)),
        ("10.0.0.1", ["for=1.1.1.1", "for=198.51.100.1, for=10.9.9.9"], ("198.51.100.1", None)),
        ("10.0.0.1", [r'for="198.51.100\.1:47\11"'], ("198.51.100.1", 4711)),
        ("10.0.0.1", ['for="198.51.100.1:_hidden"'], ("198.51.100.1", None)),
        ("10.0.0.1", ["for=198.51.100.1, for=unknown"], ("10.0.0.1", None)),
        ("10.0.0.1", ["for=198.51.100.1, for=_secret"], ("10.0.0.1", None)),
        ("10.0.0.1", ["for=198.51.100.1, proto=https"], ("10.0.0.1", None)),
        ("10.0.0.1", ["for=198.51.100.1;for=198.51.100.2"], ("10.0.0.1", None)),
        # IPv6 stands in brackets and in quotes, or it is no node.
        ("10.0.0.1", ["for=2001:db8::1"], ("10.0.0.1", None)),
        ("10.0.0.1", ['for="2001:db8::1"'], ("10.0.0.1", None)),
        # What a client left open does not swallow what the proxy wrote behind it, nor is it believed.
        ("10.0.0.1", ['for="1.1.1.1, for=198.51.100.1'], ("10.0.0.1", None)),
        ("10.0.0.1", ['for="x, for="198.51.100.1:4711"'], ("10.0.0.1", None)),
        ("10.0.0.1", ['for="1.1.1.1', "for=198.51.100.1"], ("198.51.100.1", None)),
        ("10.0.0.1", ['for="1.1.1.1', "for=10.9.9.9"], ("10.9.9.9", None)),
        ("10.0.0.1", ["198.51.100.1"], ("10.0.0.1", None)),
    ],
)
def test_a_trusted_proxy_may_say_it_as_rfc_7239_wants_it(remote, forwarded, client):
    assert found(remote, forwarded, FORWARDED) == client


def test_a_stranger_keeps_nobody_busy_with_blanks():
    # With two ways to take each blank this one header would take minutes.
    assert found("10.0.0.1", [f"for=1.1.1.1;{' ' * 200_000}@, for=198.51.100.1"], FORWARDED) == ("10.0.0.1", None)


@given(
    values=st.lists(st.text(max_size=60) | st.text('for=";,\\[]:. 0123456789af', max_size=60), max_size=4),
    header=st.sampled_from([FORWARDED, X_FORWARDED_FOR]),
)
def test_whatever_a_client_wrote_the_hop_that_its_proxy_wrote_behind_it_counts(values, header):
    own = "203.0.113.7:4711" if header == X_FORWARDED_FOR else 'for="203.0.113.7:4711"'

    assert found("10.0.0.1", [*values, own], header) == ("203.0.113.7", 4711)


@given(value=st.text() | st.text('for=";,\\[]:. 0123456789af'), header=st.sampled_from([FORWARDED, X_FORWARDED_FOR]))
def test_any_text_is_a_hop_or_nobody(value, header):
    client = Trust((*PROXIES, ipaddress.ip_network("0.0.0.0/0")), header).client(
        Client(ipaddress.ip_address("10.0.0.1"), 9), [value]
    )

    assert client.address is not None
    assert client.port is None or 0 < client.port < 65_536
