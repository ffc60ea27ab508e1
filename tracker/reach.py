"""Whether people can connect to a worker, or to a peer that relays: which address may be tried, when, and how.

The tracker tries the address that a peer's own connection comes from, and no other: nobody can make it connect into
somebody else's network, nor into the one that it stands in.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import ipaddress
import random
import re
import secrets
import socket
import ssl
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal
from urllib.parse import urlsplit

from protocol.documents import REACH_CHALLENGE_BYTES, PeerRecord, ReachProof, open_document, parse_document
from protocol.envelope import check_document_context
from protocol.errors import Refusal, WrongSigner
from protocol.links import is_private_host
from protocol.rules import ReachSection
from tracker.doors import household_of
from tracker.forwarded import IPAddress

Role = Literal["worker", "relay"]
#: Key, role, and of what version of IP the address is.
Name = tuple[bytes, Role, int]

LOWEST_PORT = 1024
#: Of the ports that a record names, so many are tried.
MAX_PORTS = 2
#: One address and port is tried for so long.
PROBE_S = 5.0
MAX_HEAD_BYTES = 4096
MAX_PROOF_BYTES = ReachProof.MAX_BYTES
#: So many tests run at once.
AT_ONCE = 16
#: A peer that changes its record all the time is tested no more often than this.
SOON_MS = 5_000
#: Of all tests of a minute, one household gets at most this part, and a few in any case.
HOUSEHOLD_PART = 6
HOUSEHOLD_LEAST = 4
MINUTE_MS = 60_000

#: Stands for an address that is not known.
NOWHERE: IPAddress = ipaddress.IPv4Address(0)
#: Of IPv6, what is given out to be reached from everywhere; whatever is outside leads nobody knows where.
_GLOBAL = ipaddress.ip_network("2000::/3")
#: Addresses in which another one is hidden that nobody looked at, relays to such, and examples.
_HIDDEN = [ipaddress.ip_network(text) for text in ("2001::/32", "2002::/16", "3fff::/20", "192.88.99.0/24")]


class Home(Enum):
    """Where the horde itself is, by its address."""

    PUBLIC = "public"
    PRIVATE = "private"
    LOOPBACK = "loopback"


def home_of(url: str) -> Home:
    """Where a horde with this address is."""
    host = urlsplit(url).hostname or ""
    if not is_private_host(host):
        return Home.PUBLIC
    try:
        return Home.LOOPBACK if ipaddress.ip_address(host).is_loopback else Home.PRIVATE
    except ValueError:
        return Home.LOOPBACK  # localhost


@dataclass(frozen=True)
class Result:
    """What came of a test. address: what was tried; empty if nothing could be. reason: empty if it was reached."""

    address: str
    reason: str = ""
    text: str = ""

    @property
    def reachable(self) -> bool:
        """Whether people can connect there."""
        return not self.reason


def why_not(address: IPAddress, home: Home, *, ours: bool) -> str:
    """What speaks against connecting to this address for somebody; empty if nothing does. ours: one of this machine."""
    # To the library all of ::/8 is reserved, loopback among it.
    if address.is_multicast or address.is_unspecified or (address.version == 4 and address.is_reserved):
        return f"{address} is no address of a machine"
    if home is Home.LOOPBACK:
        return ""
    if address.is_loopback:
        return f"{address} is loopback"
    if home is Home.PRIVATE:
        return ""
    is_outside = address.version == 6 and address not in _GLOBAL
    if is_outside or not address.is_global or any(address in network for network in _HIDDEN):
        return f"{address} is not reachable from everywhere"
    return f"{address} is the tracker's own" if ours else ""


def is_ours(address: IPAddress) -> bool:
    """Whether this machine has the address."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True


def ports_of(record: PeerRecord) -> tuple[int, ...]:
    """The ports that a record names, each once, those that may be tried."""
    found: dict[int, None] = {}
    for address in record.addresses:
        text = address.rpartition(":")[2]
        port = int(text) if re.fullmatch(r"[0-9]{1,5}", text) else 0
        if LOWEST_PORT <= port <= 65_535:
            found[port] = None
    return tuple(found)[:MAX_PORTS]


def shown(address: IPAddress, port: int) -> str:
    """`host:port`, IPv6 hosts in brackets."""
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


@dataclass(frozen=True)
class Target:
    """Whom to try, and where."""

    key: bytes
    address: IPAddress
    ports: tuple[int, ...]
    certificate: bytes


@dataclass
class _Entry:
    target: Target
    due: int = 0  # 0: not before something changes
    place: int = 0  # in the heap; 0: none
    tested: int = 0
    is_running: bool = False
    result: Result | None = None


@dataclass
class Probes:
    """Who is to be tested, and when. Of a peer that has gone nothing stays."""

    chance: random.Random
    _entries: dict[Name, _Entry] = field(default_factory=dict)
    _heap: list[tuple[int, int, Name]] = field(default_factory=list)
    _order: int = 0
    _running: int = 0
    _minute: int = 0
    _made: Counter[str] = field(default_factory=Counter)

    def want(self, name: Name, target: Target, now: int) -> None:
        """This peer is to be tested; nothing is, where it was or will be as it stands."""
        entry = self._entries.get(name)
        if entry is None:
            entry = self._entries[name] = _Entry(target)
        elif entry.target == target:
            return
        else:
            entry.target, entry.result = target, None
        self._set(name, entry, max(now, entry.tested + SOON_MS))

    def settle(self, name: Name, target: Target, result: Result) -> None:
        """What is to be said of this peer without a test."""
        self._entries[name] = _Entry(target, result=result)

    def doubt(self, name: Name, now: int, rules: ReachSection) -> None:
        """Somebody could not connect to it."""
        entry = self._entries.get(name)
        if entry is not None and entry.result is not None and entry.result.reachable and not entry.due:
            self._set(name, entry, max(now, entry.tested + rules.every * 1000))

    def drop(self, name: Name) -> None:
        """It has gone."""
        self._entries.pop(name, None)

    def result(self, name: Name) -> Result | None:
        """What came of its test; None as long as nothing did."""
        entry = self._entries.get(name)
        return entry.result if entry else None

    def start(self, now: int, rules: ReachSection) -> list[tuple[Name, Target]]:
        """Those whose test begins now. Each is to be reported by `done`."""
        if now // MINUTE_MS != self._minute:
            self._minute = now // MINUTE_MS
            self._made.clear()
        begun: list[tuple[Name, Target]] = []
        of_one = max(HOUSEHOLD_LEAST, rules.a_minute // HOUSEHOLD_PART)
        while rules.test and self._heap and self._heap[0][0] <= now:
            if self._running >= AT_ONCE or self._made.total() >= rules.a_minute:
                break
            _, place, name = heapq.heappop(self._heap)
            entry = self._entries.get(name)
            if entry is None or entry.place != place:
                continue
            entry.place = 0
            if entry.is_running:
                continue  # `done` puts it back
            household = household_of(entry.target.address)
            if self._made[household] >= of_one:
                self._set(name, entry, now + self.chance.randint(MINUTE_MS // 2, MINUTE_MS))
                continue
            self._made[household] += 1
            self._running += 1
            entry.due, entry.tested, entry.is_running = 0, now, True
            begun.append((name, entry.target))
        return begun

    def done(self, name: Name, target: Target, result: Result, now: int, rules: ReachSection) -> bool:
        """A test has ended; whether its result counts, which it does not if the peer has gone or changed."""
        self._running -= 1
        entry = self._entries.get(name)
        if entry is None:
            return False
        entry.is_running = False
        if entry.target != target:
            if entry.due:
                self._set(name, entry, entry.due)
            return False
        entry.result = result
        if not result.reachable:
            every = rules.every * 1000
            self._set(name, entry, now + every // 2 + self.chance.randint(0, every))
        return True

    def counts(self, role: Role) -> dict[str, int]:
        """How many of this role were reached at one of their addresses, were not, and are not tested."""
        best: dict[bytes, int] = {}
        for (key, found, _), entry in self._entries.items():
            if found == role:
                grade = 0 if entry.result is None else 2 if entry.result.reachable else 1
                best[key] = max(best.get(key, 0), grade)
        grades = Counter(best.values())
        return {"reachable": grades[2], "unreachable": grades[1], "untested": grades[0]}

    def _set(self, name: Name, entry: _Entry, due: int) -> None:
        if entry.place and entry.due == due:
            return
        entry.due = due
        self._order += 1
        entry.place = self._order
        heapq.heappush(self._heap, (due, self._order, name))
        if len(self._heap) > 4 * len(self._entries) + 1000:
            self._heap = [item for item in self._heap if (at := self._entries.get(item[2])) and at.place == item[1]]
            heapq.heapify(self._heap)


# The test itself


def _context() -> ssl.SSLContext:
    """TLS 1.3 with whoever answers: the certificate's digest says who it is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


_CONTEXT = _context()


class _NotReached(Exception):
    """It did not answer as it should. reason: a code."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


async def probe(target: Target, root: bytes) -> Result:
    """Try the ports one after the other; the first that was reached, or what went wrong with the first."""
    results: list[Result] = []
    for port in target.ports:
        results.append(await _probe_port(target, port, root))
        if results[-1].reachable:
            return results[-1]
    return results[0]


async def _probe_port(target: Target, port: int, root: bytes) -> Result:
    address = shown(target.address, port)
    try:
        async with asyncio.timeout(PROBE_S):
            await _ask(target, port, root)
    except TimeoutError:
        text = f"no answer from {address} within {PROBE_S:.0f} s: open or forward the port in your router"
        return Result(address, "timeout", text)
    except _NotReached as error:
        return Result(address, error.reason, f"{address}: {error}")
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        return Result(address, "no_connection", f"{address}: {str(error) or type(error).__name__}")
    return Result(address)


async def _ask(target: Target, port: int, root: bytes) -> None:
    """Connect, ask for a proof, check it; raises `_NotReached` or what connections raise."""
    host, challenge = str(target.address), secrets.token_bytes(REACH_CHALLENGE_BYTES)
    reader, writer = await asyncio.open_connection(host, port, ssl=_CONTEXT, limit=MAX_HEAD_BYTES)
    try:
        seen = hashlib.sha256(writer.get_extra_info("ssl_object").getpeercert(binary_form=True)).digest()
        if seen != target.certificate:
            raise _NotReached("wrong_certificate", "another certificate answers there than the one that was named")
        head = (
            f"POST /reach HTTP/1.1\r\nHost: {shown(target.address, port)}\r\nContent-Length: {len(challenge)}\r\n"
            "Content-Type: application/octet-stream\r\nConnection: close\r\n\r\n"
        )
        writer.write(head.encode() + challenge)
        size = _size_of(await reader.readuntil(b"\r\n\r\n"))
        check_proof(await reader.readexactly(size), challenge, target, root)
    finally:
        writer.transport.abort()


def _size_of(head: bytes) -> int:
    """Bytes of the body behind this head; raises `_NotReached` for another answer than was asked for."""
    status, *lines = head.decode("latin-1").split("\r\n")
    if not re.fullmatch(r"HTTP/1\.1 200(?: .*)?", status):
        raise _NotReached("no_proof", f"answered {status[:60]!r} to POST /reach, and wanted was status 200")
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip().lower() == "content-length" and re.fullmatch(r"[0-9]{1,6}", value.strip()):
            if int(value) <= MAX_PROOF_BYTES:
                return int(value)
            break
    raise _NotReached("no_proof", f"an answer without a length of at most {MAX_PROOF_BYTES} bytes")


def check_proof(raw: bytes, challenge: bytes, target: Target, root: bytes) -> None:
    """Raise `_NotReached` unless this is the proof of the peer that was tried."""
    try:
        envelope = parse_document(raw, ReachProof)
        check_document_context(envelope, root)
        if envelope.key != target.key:
            raise WrongSigner("a proof by another key")
        envelope.verify()
        proof = open_document(envelope, ReachProof)
    except Refusal as refusal:
        raise _NotReached("no_proof", f"{refusal.code}: {refusal.text}") from refusal
    if (proof.challenge, proof.certificate) != (challenge, target.certificate):
        raise _NotReached("no_proof", "a proof for another test or certificate")
