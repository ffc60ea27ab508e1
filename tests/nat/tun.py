"""An uplink on which every packet takes its time: two TUN devices, and a process of ours that forwards between them.

Needed where the kernel has no netem.
"""

from __future__ import annotations

import os
import select
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.nat.namespaces import Namespace

ROOT = Path(__file__).parents[2]

_TUNSETIFF = 0x4004_54CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_PACKET = 65_536
#: Packets on their way in one direction; more are dropped, as on any link.
_MOST = 10_000


@contextmanager
def delayed(one: Namespace, device: str, other: Namespace, other_device: str, delay_ms: float) -> Iterator[None]:
    """A cable between two namespaces on which each packet takes so long, while the block lasts."""
    ends = [one.call(lambda: _open_tun(device)), other.call(lambda: _open_tun(other_device))]
    try:
        for end in ends:
            os.set_inheritable(end, True)
        process = subprocess.Popen(
            (sys.executable, "-S", "-m", __name__, *map(str, ends), str(delay_ms)),
            stdin=subprocess.PIPE,
            cwd=ROOT,
            pass_fds=ends,
        )
    finally:
        for end in ends:
            os.close(end)
    try:
        # More than by default, for our process may have to wait for its turn.
        for namespace, name in ((one, device), (other, other_device)):
            namespace.ip(f"link set {name} txqueuelen {_MOST}")
        yield
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait()


def _open_tun(name: str) -> int:
    if sys.platform == "linux":
        import fcntl

        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        try:
            fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode("ascii"), _IFF_TUN | _IFF_NO_PI))
        except OSError:
            os.close(fd)
            raise
        return fd
    raise OSError("only Linux has such TUN devices")


class Way:
    """One direction: what came in, with the time at which it goes out."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._waiting: deque[tuple[float, bytes]] = deque()

    def put(self, packet: bytes, now: float) -> None:
        """A packet sets off."""
        if len(self._waiting) < _MOST:
            self._waiting.append((now + self._delay, packet))

    def arrived(self, now: float) -> Iterator[bytes]:
        """Those that have been on their way long enough, in order."""
        while self._waiting and self._waiting[0][0] <= now:
            yield self._waiting.popleft()[1]

    @property
    def next_at(self) -> float | None:
        """When the next one arrives; None if there is none."""
        return self._waiting[0][0] if self._waiting else None


def forward(one: int, other: int, delay: float) -> None:
    """Pass packets between two TUN devices until standard input closes."""
    ways = {one: Way(delay), other: Way(delay)}
    out = {one: other, other: one}
    while True:
        due = [way.next_at for way in ways.values() if way.next_at is not None]
        ready, _, _ = select.select([0, *ways], [], [], max(0.0, min(due) - time.monotonic()) if due else None)
        if 0 in ready:
            return
        for fd, way in ways.items():
            if fd in ready:
                _take_in(fd, way)
            for packet in way.arrived(time.monotonic()):
                _send(out[fd], packet)


def _take_in(fd: int, way: Way) -> None:
    try:
        while True:
            way.put(os.read(fd, _PACKET), time.monotonic())
    except BlockingIOError:
        return


def _send(fd: int, packet: bytes) -> None:
    try:
        os.write(fd, packet)
    except OSError:  # the device is down, or its queue is full: the packet is lost
        return


if __name__ == "__main__":
    forward(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]) / 1000)
