"""What a worker says about where it is reached, and the version that rises whenever this changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from protocol.documents import PeerRecord

#: Listening on one of these means on all addresses of the machine.
_ANY = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 (compared with, not listened on)


class Addresses:
    """Under which addresses a worker can be reached: first those at which the tracker has reached it, then the one
    that its router says is mapped to it; then those that were given, else the one that it listens on, else the one from
    which it reaches the tracker."""

    def __init__(self, listening: str, given: Sequence[str]) -> None:
        self.mapped = ""
        self._reached: dict[bool, str] = {}  # by whether it is one of IPv6
        self._reached_from: str | None = None
        self._listening = listening
        self._given = tuple(given)

    def tested(self, address: str, local: str | None, *, reachable: bool) -> None:
        """The tracker has tested this address, or could test none, while `local` was this machine's own towards it."""
        if not address or local != self._reached_from:
            self._reached.clear()
        self._reached_from = local
        self._reached.pop(address.startswith("["), None)
        if reachable:
            self._reached[address.startswith("[")] = address

    def known(self, port: int, local: str | None) -> tuple[str, ...]:
        """`host:port` for each; `local` is this machine's address towards the tracker."""
        # In another network than before, what was reached there may be somebody else's by now.
        reached = self._reached.values() if self._reached_from == local else ()
        if self._given:
            own = [with_port(address, port) for address in self._given]
        else:
            host = self._listening if self._listening not in _ANY else local
            own = [with_port(host, port)] if host else []
        return tuple(dict.fromkeys(address for address in (*reached, self.mapped, *own) if address))


def with_port(address: str, port: int) -> str:
    """`address` with `port` unless it names one; IPv6 hosts in brackets."""
    if address.startswith("["):
        return address if "]:" in address else f"{address}:{port}"
    if address.count(":") > 1:
        return f"[{address}]:{port}"
    return address if ":" in address else f"{address}:{port}"


class RecordKeeper:
    """Makes peer records whose version never falls, across starts and whatever the clock does."""

    def __init__(self, path: Path, clock: Callable[[], int]) -> None:
        self._path = path
        self._clock = clock
        self._last: PeerRecord | None = None

    def record(self, certificate: bytes, addresses: Sequence[str]) -> PeerRecord:
        """The record of this certificate and these addresses: the last one, if it says the same."""
        last = self._last
        if last is None or (last.certificate, last.addresses) != (certificate, tuple(addresses)):
            self._last = PeerRecord(version=self._next(), certificate=certificate, addresses=tuple(addresses))
            return self._last
        return last

    def _next(self) -> int:
        version = max(self._clock(), self._stored() + 1)
        new = self._path.with_suffix(".new")
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new.write_text(str(version), encoding="ascii")
        new.replace(self._path)
        return version

    def _stored(self) -> int:
        try:
            return int(self._path.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return 0
