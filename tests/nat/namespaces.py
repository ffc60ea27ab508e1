"""Network namespaces that a test makes for itself.

A namespace here has no name and no file: it lives as long as this process holds it open or a process runs in it. So
whichever way the tests end, Ctrl+C and SIGKILL included, nothing of it stays on the machine.
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

NO_NAMESPACES = "no right or no tools to make network namespaces here"

_CLONE_NEWNET = 0x4000_0000
#: Gives the program after it another /etc/hosts, which nobody else sees.
_WITH_HOSTS = 'mount --bind "$1" /etc/hosts && shift && exec "$@"'


class CommandFailed(Exception):
    """A tool of the system did not do what a test needs; the text has what it said."""


class Namespace:
    """A network of its own, with a loopback device and nothing else. Whoever makes it closes it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._fd = _in_thread(_new_namespace)
        self.call(lambda: _write_sysctls({"ipv6/conf/default/accept_dad": "0", "ipv6/conf/all/accept_dad": "0"}))
        self.ip("link set lo up")

    def __repr__(self) -> str:
        return f"<Namespace {self.name}>"

    def close(self) -> None:
        """Let it go; it ends with the last process in it."""
        os.close(self._fd)

    @property
    def path(self) -> str:
        """Where other processes find it."""
        return f"/proc/{os.getpid()}/fd/{self._fd}"

    def call(self, function: Callable[[], T]) -> T:
        """What `function` returns, called in a thread that is in this namespace. Sockets that it makes stay there."""

        def inside() -> T:
            _enter(self._fd)
            return function()

        return _in_thread(inside)

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket of this namespace, for use in any thread."""
        return self.call(lambda: socket.socket(family, kind, protocol))

    def prefix(self, hosts: Path | None = None) -> tuple[str, ...]:
        """Words before a command that make it run in here, with `hosts` as its /etc/hosts. The process is the
        command's own, so that signals meet it, and it is killed when the thread that started it ends."""
        inside = ("setpriv", "--pdeathsig", "KILL", "nsenter", f"--net={self.path}", "--")
        if hosts is None:
            return inside
        return (*inside, "unshare", "--mount", "sh", "-c", _WITH_HOSTS, "sh", str(hosts))

    def run(self, *command: str, stdin: str = "") -> str:
        """Run a command in here to its end; its output. Raises `CommandFailed`."""
        done = subprocess.run((*self.prefix(), *command), input=stdin, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CommandFailed(
                f"{self.name}: {' '.join(command)} ended with {done.returncode}: {done.stderr}\n{stdin}"
            )
        return done.stdout

    def ip(self, *lines: str) -> None:
        """Carry out commands of `ip`, one in each line. Raises `CommandFailed`."""
        self.run("ip", "-batch", "-", stdin="\n".join(lines) + "\n")

    def nft(self, rules: str) -> None:
        """Carry out commands of `nft`, all of them or none. Raises `CommandFailed`."""
        self.run("nft", "-f", "-", stdin=rules)

    def forward(self) -> None:
        """Pass packets on between devices, as a router does."""
        self.call(lambda: _write_sysctls({"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1"}))

    def dropped(self) -> int:
        """How many packets the rules here have counted as dropped, in counters named `dropped`."""
        listed = self.run("nft", "list", "counters").split()
        return sum(int(listed[at + 1]) for at, word in enumerate(listed) if word == "packets")


def wire(one: Namespace, device: str, other: Namespace, other_device: str) -> None:
    """Lay a cable between two namespaces."""
    one.ip(f"link add name {device} type veth peer name {other_device} netns {other.path}")


@cache
def can_make_namespaces() -> bool:
    """Whether this process may make namespaces and has the tools that fill them: on Linux, as root, with nftables,
    iproute2 and TUN devices."""
    return sys.platform == "linux" and os.geteuid() == 0 and _namespaces_work()


def _namespaces_work() -> bool:
    try:
        tried = Namespace("trial")
    except (OSError, CommandFailed):
        return False
    try:
        tried.nft("table inet trial { chain out { type nat hook postrouting priority srcnat; masquerade; }; }\n")
        tried.run("tc", "qdisc", "show")
    except (OSError, CommandFailed):
        return False
    finally:
        tried.close()
    return os.access("/dev/net/tun", os.R_OK | os.W_OK)


def _new_namespace() -> int:
    _checked(ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET))
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY)


def _enter(fd: int) -> None:
    _checked(ctypes.CDLL(None, use_errno=True).setns(fd, _CLONE_NEWNET))


def _checked(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _write_sysctls(values: dict[str, str]) -> None:
    for name, value in values.items():
        Path("/proc/sys/net", name).write_text(value, "ascii")


def _in_thread(function: Callable[[], T]) -> T:
    """A namespace belongs to a thread: one that changes it is used for nothing else."""
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    for error in errors:
        raise error
    return results[0]
