"""The PROXY protocol, versions 1 and 2: what a proxy that knows nothing of HTTP says first about whom it speaks for.

https://www.haproxy.org/download/1.8/doc/proxy-protocol.txt. There is no socket in here: bytes go in, and what comes out
is how many more can be read without reading beyond the header, for what follows it belongs to TLS or HTTP.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import Final

from tracker.forwarded import Client, parse_address, parse_port

#: The second version's first twelve bytes, of which no other protocol's beginning is made.
SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
#: A header of the first version is one line of at most so many bytes.
MAX_LINE_BYTES = 107
#: Behind the addresses, the second version can carry anything; what proxies really send stays far below this.
MAX_REST_BYTES = 2048

_SHORTEST_LINE = b"PROXY UNKNOWN\r\n"
_HEAD_BYTES = 16
_LOCAL, _PROXY = 0x20, 0x21
_NO_ADDRESS, _TCP4, _TCP6 = 0x00, 0x11, 0x21
#: Both addresses, then both ports.
_ADDRESSES = {_TCP4: struct.Struct(">4s4sHH"), _TCP6: struct.Struct(">16s16sHH")}


class BadHeader(Exception):
    """Not how a proxy begins; the text says what was found."""


def still_wanted(header: bytes) -> int:
    """How many bytes are certainly missing behind these; 0 when the header is complete. Raises `BadHeader`."""
    if not header:
        return len(_SHORTEST_LINE)
    if header.startswith(SIGNATURE[: len(header)]):
        return _wanted_of_second(header)
    if header.startswith(b"PROXY "[: len(header)]):
        return _wanted_of_first(header)
    raise BadHeader("what came first is no PROXY header")


def client_in(header: bytes) -> Client | None:
    """For whom the connection is, by a header that is complete; None if it is the proxy's own. Raises `BadHeader`."""
    return _second(header) if header.startswith(SIGNATURE) else _first(header)


def _wanted_of_first(header: bytes) -> int:
    if header.endswith(b"\r\n"):
        return 0
    if len(header) >= MAX_LINE_BYTES:
        raise BadHeader(f"a PROXY line of more than {MAX_LINE_BYTES} bytes")
    if b"\n" in header:
        raise BadHeader("a PROXY line with a line break in it")
    # Nothing is known but that the line has not ended.
    return max(1, len(_SHORTEST_LINE) - len(header))


def _wanted_of_second(header: bytes) -> int:
    if len(header) < _HEAD_BYTES:
        return _HEAD_BYTES - len(header)
    if header[12] not in (_LOCAL, _PROXY):
        raise BadHeader(f"version and command {header[12]:#04x} in a PROXY header: wanted 0x20 or 0x21")
    rest = int.from_bytes(header[14:16], "big")
    if rest > MAX_REST_BYTES:
        raise BadHeader(f"a PROXY header with {rest} bytes behind its head: at most {MAX_REST_BYTES} are read")
    return _HEAD_BYTES + rest - len(header)


def _first(header: bytes) -> Client | None:
    """`PROXY TCP4 source destination source-port destination-port`, or `PROXY UNKNOWN` and anything."""
    try:
        words = header.decode("ascii").removesuffix("\r\n").split(" ")
    except UnicodeDecodeError as error:
        raise BadHeader("a PROXY line that is not ASCII") from error
    if words[:2] == ["PROXY", "UNKNOWN"]:
        return None
    match words:
        case ["PROXY", "TCP4" | "TCP6" as family, source, destination, port, other_port]:
            wanted = ipaddress.IPv4Address if family == "TCP4" else ipaddress.IPv6Address
            try:
                address, _ = wanted(source), wanted(destination)
            except ValueError as error:
                raise BadHeader(f"a PROXY line with addresses that are not of {family}") from error
            if parse_port(port) is None or parse_port(other_port) is None:
                raise BadHeader("a PROXY line with ports that are none")
            return Client(parse_address(str(address)), parse_port(port))
        case _:
            raise BadHeader("a PROXY line without two addresses and two ports")


def _second(header: bytes) -> Client | None:
    family = header[13]
    if header[12] == _LOCAL or family == _NO_ADDRESS:
        return None
    addresses = _ADDRESSES.get(family)
    if addresses is None:
        raise BadHeader(f"a PROXY header for connections of kind {family:#04x}: wanted TCP over IPv4 or IPv6")
    if len(header) < _HEAD_BYTES + addresses.size:
        raise BadHeader("a PROXY header that ends within its addresses")
    source, _, port, _ = addresses.unpack_from(header, _HEAD_BYTES)
    return Client(parse_address(str(ipaddress.ip_address(source))), port or None)
