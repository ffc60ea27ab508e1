"""What a link is really like, measured with plain sockets between a home and the machine elsewhere on the street."""

from __future__ import annotations

import contextlib
import socket
import statistics
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tests.nat.net import ELSEWHERE, Network, Place

_DATAGRAMS = 2_000
_PAUSE_EVERY, _PAUSE_S = 50, 0.004
_SILENCE_S = 0.5
_ROUND_TRIPS = 15
_PATIENCE_S = 30.0
_BLOCK = bytes(65_536)


@dataclass(frozen=True)
class Measured:
    """Of the way out of the home and of the way in: permille of packets lost, megabits a second; and how many
    milliseconds a round trip takes, in the middle and at best."""

    lost_out: float
    lost_in: float
    mbit_out: float
    mbit_in: float
    rtt_ms: float
    best_rtt_ms: float

    def __str__(self) -> str:
        return (
            f"lost {self.lost_out:.0f} of 1000 going out, {self.lost_in:.0f} coming in; "
            f"{self.mbit_out:.1f} Mbit/s out, {self.mbit_in:.1f} in; "
            f"round trip {self.rtt_ms:.1f} ms (at best {self.best_rtt_ms:.1f})"
        )


def measure(network: Network, home: str, *, kib: int = 512) -> Measured:
    """Measure the uplink of a home that has IPv4, sending so much in each direction for the rate."""
    inside, outside = network[home], network[ELSEWHERE]
    lost_out, lost_in = _losses(inside, outside)
    with _connected(inside, outside) as (own, others):
        trips = _round_trips(own, others)
        out, back = _rate(own, others, kib), _rate(others, own, kib)
    return Measured(lost_out, lost_in, out, back, statistics.median(trips), min(trips))


def _losses(inside: Place, outside: Place) -> tuple[float, float]:
    """Permille of datagrams that did not arrive, on the way out and on the way in."""
    with (
        inside.network.socket(socket.AF_INET, socket.SOCK_DGRAM) as own,
        outside.network.socket(socket.AF_INET, socket.SOCK_DGRAM) as others,
        ThreadPoolExecutor(1) as hearing,
    ):
        for each in (own, others):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
            each.settimeout(_SILENCE_S)
        others.bind((outside.outer4, 0))
        own.connect(others.getsockname())
        arriving = hearing.submit(_heard, others)
        _send_many(own.send)
        out, where = arriving.result()
        if where is None:
            return 1000.0, 1000.0
        arriving = hearing.submit(_heard, own)
        _send_many(lambda number: others.sendto(number, where))
        back, _ = arriving.result()
    return 1000 * (1 - out / _DATAGRAMS), 1000 * (1 - back / _DATAGRAMS)


def _send_many(send: Callable[[bytes], object]) -> None:
    """A little at a time, so that no queue is what loses them."""
    for number in range(_DATAGRAMS):
        send(struct.pack(">I", number))
        if number % _PAUSE_EVERY == 0:
            time.sleep(_PAUSE_S)


def _heard(end: socket.socket) -> tuple[int, tuple[str, int] | None]:
    """How many different datagrams came until there was silence, and from where."""
    numbers: set[bytes] = set()
    where: tuple[str, int] | None = None
    with contextlib.suppress(TimeoutError):
        while len(numbers) < _DATAGRAMS:
            number, where = end.recvfrom(64)
            numbers.add(number)
    return len(numbers), where


@contextlib.contextmanager
def _connected(inside: Place, outside: Place) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A TCP connection from the home to the machine elsewhere: its two ends."""
    with (
        outside.network.socket(socket.AF_INET, socket.SOCK_STREAM) as waiting,
        inside.network.socket(socket.AF_INET, socket.SOCK_STREAM) as own,
    ):
        waiting.bind((outside.outer4, 0))
        waiting.listen(1)
        for each in (waiting, own):
            each.settimeout(_PATIENCE_S)
        own.connect(waiting.getsockname())
        others, _ = waiting.accept()
        with others:
            for each in (own, others):
                each.settimeout(_PATIENCE_S)
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield own, others


def _round_trips(own: socket.socket, others: socket.socket) -> list[float]:
    def echo() -> None:
        for _ in range(_ROUND_TRIPS):
            others.sendall(others.recv(1))

    answering = threading.Thread(target=echo)
    answering.start()
    found = []
    for _ in range(_ROUND_TRIPS):
        began = time.monotonic()
        own.sendall(b"x")
        own.recv(1)
        found.append((time.monotonic() - began) * 1000)
    answering.join()
    return found


def _rate(sender: socket.socket, receiver: socket.socket, kib: int) -> float:
    """Megabits a second, from the first that is sent to the last that came."""
    size = kib * 1024

    def send() -> None:
        for _ in range(size // len(_BLOCK)):
            sender.sendall(_BLOCK)

    sending = threading.Thread(target=send)
    began = time.monotonic()
    sending.start()
    came = 0
    while came < size:
        came += len(receiver.recv(65_536))
    took = time.monotonic() - began
    sending.join()
    return came * 8 / took / 1e6
