"""What passes a machine's network device, kept as it was, and put together again as its readers would.

Whoever wants to know whether something was said on the wire looks at single packets, at each direction of each
connection put in order, and at the WebSocket frames in it without their masks.
"""

from __future__ import annotations

import ipaddress
import select
import socket
import struct
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.nat.kinds import OUTSIDE
from tests.nat.net import Network
from tests.support.tap import WINDOW, windows

_AF_PACKET = 17  # on Linux, where alone this runs; the `socket` of other systems does not have the name
_ETH_P_ALL = 3
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_ETHERNET_HEAD = 14
_TCP, _IPV4, _IPV6 = 6, 0x0800, 0x86DD

#: From where to where: address and port of both.
Flow = tuple[str, int, str, int]


class Lost(AssertionError):
    """The capture missed packets, so it proves nothing."""


@dataclass
class Capture:
    """What was on the wire."""

    packets: list[bytes] = field(default_factory=list)

    def flows(self) -> Mapping[Flow, bytes]:
        """What each direction of each TCP connection said, in order. Raises `Lost` if a part is missing."""
        parts: dict[Flow, list[tuple[int, int, bytes]]] = defaultdict(list)
        for packet in self.packets:
            if (segment := _tcp(packet)) is not None:
                parts[segment[0]].append(segment[1:])
        return {flow: _in_order(flow, segments) for flow, segments in parts.items()}

    def readings(self) -> Iterator[bytes]:
        """Everything in each way in which it can be read."""
        for flow in self.flows().values():
            yield flow
            yield unmasked(flow)
        yield from self.packets

    def found(self, content: bytes, known: bytes = b"") -> tuple[int, int]:
        """How many of the 16-byte windows of `content` that `known` does not contain were on the wire, of how many."""
        wanted = windows(content) - windows(known)
        seen: set[bytes] = set()
        for reading in self.readings():
            seen.update(
                window for at in range(len(reading) - WINDOW + 1) if (window := reading[at : at + WINDOW]) in wanted
            )
        return len(seen), len(wanted)


@contextmanager
def captured(network: Network, name: str) -> Iterator[Capture]:
    """All that passes the outer device of a machine while the block lasts; afterwards the capture is whole."""
    capture = Capture()
    place = network[name]
    with place.network.socket(_AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL)) as tap:
        tap.setsockopt(socket.SOL_SOCKET, 33, 1 << 26)  # SO_RCVBUFFORCE
        tap.bind((OUTSIDE, _ETH_P_ALL))
        tap.setblocking(False)
        ended = threading.Event()
        thread = threading.Thread(target=_read, args=(tap, capture, ended))
        thread.start()
        try:
            yield capture
        finally:
            ended.set()
            thread.join()
            _, lost = struct.unpack("II", tap.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
    if lost:
        raise Lost(f"{lost} packets at {name} were not captured")


def _read(tap: socket.socket, capture: Capture, ended: threading.Event) -> None:
    while True:
        last = ended.is_set()
        if select.select([tap], [], [], 0 if last else 0.05)[0]:
            capture.packets.append(tap.recv(1 << 18))
        elif last:
            return


def _tcp(packet: bytes) -> tuple[Flow, int, int, bytes] | None:
    """Flow, sequence number, whether it begins the connection, and content; None if this is no TCP."""
    kind = int.from_bytes(packet[12:14], "big")
    at = _ETHERNET_HEAD
    if kind == _IPV4 and packet[at + 9] == _TCP:
        end = at + int.from_bytes(packet[at + 2 : at + 4], "big")
        source, target = packet[at + 12 : at + 16], packet[at + 16 : at + 20]
        at += (packet[at] & 15) * 4
    elif kind == _IPV6 and packet[at + 6] == _TCP:  # no other header comes between them here
        end = at + 40 + int.from_bytes(packet[at + 4 : at + 6], "big")
        source, target = packet[at + 8 : at + 24], packet[at + 24 : at + 40]
        at += 40
    else:
        return None
    from_port, to_port, number = struct.unpack_from(">HHI", packet, at)
    content = packet[at + (packet[at + 12] >> 4) * 4 : end]
    begins = packet[at + 13] & 2
    flow = str(ipaddress.ip_address(source)), from_port, str(ipaddress.ip_address(target)), to_port
    return flow, number, begins, content


def _in_order(flow: Flow, segments: list[tuple[int, int, bytes]]) -> bytes:
    """The content from the beginning of the connection, or from the first segment that was seen."""
    starts = [number + 1 for number, begins, _ in segments if begins]
    start = starts[0] if starts else segments[0][0]
    whole = bytearray()
    for number, _, content in sorted(
        ((number - start) & 0xFFFF_FFFF, begins, content) for number, begins, content in segments if content
    ):
        if number > 0x8000_0000:  # from before what was seen first: a keep-alive, or sent again
            continue
        if number > len(whole):
            raise Lost(f"{flow}: bytes {len(whole)} to {number} are missing")
        whole[number:] = content if number + len(content) > len(whole) else whole[number:]
    return bytes(whole)


def unmasked(flow: bytes) -> bytes:
    """The contents of the WebSocket frames behind an HTTP head, without their masks, one after the other; empty if
    there are none."""
    _, gap, rest = flow.partition(b"\r\n\r\n")
    if not gap or b"websocket" not in flow[: len(flow) - len(rest)].lower():
        return b""
    out = bytearray()
    at = 0
    while at + 2 <= len(rest):
        masked, size = rest[at + 1] & 0x80, rest[at + 1] & 0x7F
        at += 2
        if size >= 126:
            width = 2 if size == 126 else 8
            size = int.from_bytes(rest[at : at + width], "big")
            at += width
        mask = rest[at : at + 4] if masked else bytes(4)
        at += 4 if masked else 0
        content = rest[at : at + size]
        at += size
        repeated = (mask * (len(content) // 4 + 1))[: len(content)]
        out += (int.from_bytes(content, "big") ^ int.from_bytes(repeated, "big")).to_bytes(len(content), "big")
    return bytes(out)
