"""The PROXY protocol: both versions are understood, nothing behind the header is read, hostile bytes are bounded."""

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracker.proxy_protocol import MAX_LINE_BYTES, MAX_REST_BYTES, SIGNATURE, BadHeader, client_in, still_wanted


def second(command: int, family: int, rest: bytes) -> bytes:
    return SIGNATURE + struct.pack(">BBH", command, family, len(rest)) + rest


def of_ipv4(source: str, port: int, more: bytes = b"") -> bytes:
    addresses = socket.inet_aton(source) + socket.inet_aton("192.0.2.1")
    return second(0x21, 0x11, addresses + struct.pack(">HH", port, 443) + more)


def of_ipv6(source: str, port: int) -> bytes:
    addresses = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, "2001:db8::443")
    return second(0x21, 0x21, addresses + struct.pack(">HH", port, 443))


GOOD = [
    (b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n", ("203.0.113.7", 4711)),
    (b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n", ("2001:db8::7", 4711)),
    (b"PROXY TCP6 ::ffff:203.0.113.7 ::1 4711 443\r\n", ("203.0.113.7", 4711)),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN 2001:db8::7 2001:db8::1 4711 443\r\n", None),
    (of_ipv4("203.0.113.7", 4711), ("203.0.113.7", 4711)),
    (of_ipv4("203.0.113.7", 4711, b"\x04\x00\x02ab"), ("203.0.113.7", 4711)),
    (of_ipv4("203.0.113.7", 4711, bytes(MAX_REST_BYTES - 12)), ("203.0.113.7", 4711)),
    (of_ipv4("203.0.113.7", 0), ("203.0.113.7", None)),
    (of_ipv6("2001:db8::7", 4711), ("2001:db8::7", 4711)),
    (of_ipv6("::ffff:203.0.113.7", 4711), ("203.0.113.7", 4711)),
    (second(0x20, 0x00, b""), None),
    (second(0x20, 0x11, of_ipv4("203.0.113.7", 4711)[16:]), None),
    (second(0x21, 0x00, b"whatever"), None),
]


def read(stream: bytes) -> tuple[bytes, bytes]:
    """Header and rest of a stream, read as far as is asked for; `EOFError` where it ends before."""
    at = 0
    while wanted := still_wanted(stream[:at]):
        if at + wanted > len(stream):
            raise EOFError
        at += wanted
    return stream[:at], stream[at:]


@pytest.mark.parametrize(("header", "client"), GOOD)
def test_a_header_is_understood_and_what_follows_stays_for_tls_or_http(header, client):
    behind = b"\x16\x03\x01\r\nPROXY TCP4"
    taken, left = read(header + behind)

    assert (taken, left) == (header, behind)
    found = client_in(taken)
    assert (found and (str(found.address), found.port)) == client


@pytest.mark.parametrize(("header", "_client"), GOOD)
def test_a_header_may_come_byte_by_byte(header, _client):
    for length in range(len(header)):
        assert 0 < still_wanted(header[:length]) <= len(header) - length
    assert still_wanted(header) == 0


@pytest.mark.parametrize(
    "stream",
    [
        b"GET /peer HTTP/1.1\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03abcdef",
        b"PROXY TCP4 203.0.113.7 192.0.2.1 4711\r\n",
        b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443 5\r\n",
        b"PROXY TCP4 203.0.113.7  192.0.2.1 4711 443\r\n",
        b"PROXY TCP4 2001:db8::7 2001:db8::1 4711 443\r\n",
        b"PROXY TCP6 203.0.113.7 192.0.2.1 4711 443\r\n",
        b"PROXY TCP4 203.0.113.999 192.0.2.1 4711 443\r\n",
        b"PROXY TCP4 203.0.113.7 192.0.2.1 65536 443\r\n",
        b"PROXY TCP4 203.0.113.7 192.0.2.1 0 443\r\n",
        b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 x\r\n",
        b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 \xd9\xa1\r\n",
        b"PROXY TCP5 203.0.113.7 192.0.2.1 4711 443\r\n",
        b"PROXY TCP4\n203.0.113.7 192.0.2.1 4711 443\r\n",
        b"PROXY \r\nGET / HTTP/1.1\r\n",
        b"proxy TCP4 203.0.113.7 192.0.2.1 4711 443\r\n",
        b"PROXY UNKNOWN" + b" " * MAX_LINE_BYTES + b"\r\n",
        second(0x11, 0x11, bytes(12)),
        second(0x22, 0x11, bytes(12)),
        second(0x21, 0x12, bytes(12)),
        second(0x21, 0x31, bytes(216)),
        second(0x21, 0x11, bytes(11)),
        second(0x21, 0x21, bytes(35)),
        SIGNATURE + struct.pack(">BBH", 0x21, 0x11, MAX_REST_BYTES + 1),
        SIGNATURE[:-1] + b"x" * 20,
    ],
)
def test_what_is_no_header_is_refused(stream):
    with pytest.raises(BadHeader):
        client_in(read(stream)[0])


@given(stream=st.binary(max_size=300) | st.binary(max_size=300).map(lambda rest: SIGNATURE + rest))
def test_any_bytes_are_a_header_or_refused_or_too_few(stream):
    try:
        header, _ = read(stream)
        client_in(header)
    except (BadHeader, EOFError):
        pass


@given(stream=st.text("PROXY TCP46UNKNOWN.:0123456789abcdef\r\n").map(str.encode))
def test_never_more_is_asked_for_than_the_longest_line(stream):
    asked = 0
    try:
        while wanted := still_wanted(stream[:asked]):
            asked += wanted
            if asked > len(stream):
                break
    except BadHeader:
        pass
    assert asked <= MAX_LINE_BYTES
