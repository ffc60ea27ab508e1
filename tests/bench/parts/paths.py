"""A large result over each path, against bare TLS: direct, punched, through the tracker's relay and a volunteer's; what
a relay's processor has to do for it; and how long after its lease a job's first byte comes, by path."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from protocol.documents import Lease, RelayTicket, open_document, parse_document, sign
from protocol.keyfiles import load_key
from protocol.keys import SigningKey
from tests.bench import first_bytes
from tests.bench.control import Child
from tests.bench.figures import Aim, Figure, at_least, ratios
from tests.bench.scale import Bench
from tests.bench.stage import children
from tests.bench.tracker import Tracker, cpu_s

MB = 1_000_000
#: Of tickets that end nothing that is measured.
MAX_BYTES, MAX_RATE, VALID_MS = 1 << 50, 1 << 40, 3_600_000
DIRECT, PUNCHED, RELAYED, VOLUNTEER = "direct", "punched", "relayed", "volunteer"
AIMS: dict[str, Aim] = {
    DIRECT: at_least(0.8),
    PUNCHED: at_least(0.8),
    RELAYED: at_least(0.4),
    VOLUNTEER: at_least(0.4),
}
WHAT = {
    DIRECT: "straight to the worker's port",
    PUNCHED: "over a connection that both opened at once",
    RELAYED: "through the tracker's relay, a WebSocket without TLS of its own (a proxy's part)",
    VOLUNTEER: "through a volunteer's relay, a WebSocket in TLS",
}


@dataclass
class Carried:
    """Rates of one path in MB/s, and CPU in ms for each MB: of the relay and of both ends."""

    rates: list[float] = field(default_factory=list)
    relay_ms: list[float] = field(default_factory=list)
    ends_ms: list[float] = field(default_factory=list)


async def measure(bench: Bench) -> list[Figure]:
    """See the module."""
    return [*await _streams(bench), *await first_bytes.measure(bench)]


@dataclass
class Two:
    """Both ends and the relays. horde: what both know of it. key: signs tickets."""

    sender: Child
    receiver: Child
    volunteer: Child
    tracker: Tracker
    key: SigningKey
    horde: dict[str, str]
    offer: dict[str, str]

    def ticket(self, way: str, lease: bytes) -> str:
        """For the large result, at the relay of this way; none for the others."""
        if way not in (RELAYED, VOLUNTEER):
            return ""
        terms, offer = open_document(parse_document(lease, Lease), Lease), self.offer
        own = way == RELAYED
        ticket = RelayTicket(
            job=terms.job,
            attempt=terms.attempt,
            relay=self.key.public if own else bytes.fromhex(offer["relay"]),
            url=self.horde["tracker"] if own else offer["url"],
            certificate=b"" if own else bytes.fromhex(offer["certificate"]),
            requester=terms.job_key,
            worker=terms.worker,
            max_bytes=MAX_BYTES,
            max_rate=MAX_RATE,
            valid_until=int(time.time() * 1000) + VALID_MS,
        )
        return sign(ticket, self.key, bytes.fromhex(self.horde["root"])).raw.hex()

    async def download(self, what: str, carried: Carried) -> None:
        """The bytes of the large result by aiohttp alone, once."""
        where = await self.sender.ask("where", what=what)
        before = self._ends_s()
        found = await self.receiver.ask("fetch", what=what, where=where)
        size = found["bytes"] / MB
        carried.rates.append(size / found["seconds"])
        carried.ends_ms.append((self._ends_s() - before) * 1000 / size)

    def _ends_s(self) -> float:
        return cpu_s(self.sender.watched) + cpu_s(self.receiver.watched)

    async def carry(self, way: str, at: dict[str, Any], carried: Carried) -> None:
        """The large result over this path, once."""
        where = await self.sender.ask("where", what="large")
        ticket = self.ticket(way, bytes.fromhex(where["lease"]))
        relay = self.tracker.watched if way == RELAYED else self.volunteer.watched
        before = cpu_s(relay), self._ends_s()
        found = await self.receiver.ask("carry", way=way, where=where, horde=self.horde, at=at, ticket=ticket)
        wanted = RELAYED if ticket else way
        if found["path"] != wanted:
            raise RuntimeError(f"the path is {found['path']}, and was to be {wanted}")
        size = found["bytes"] / MB
        carried.rates.append(size / found["seconds"])
        carried.relay_ms.append((cpu_s(relay) - before[0]) * 1000 / size)
        carried.ends_ms.append((self._ends_s() - before[1]) * 1000 / size)


async def _streams(bench: Bench) -> list[Figure]:
    folder = bench.folder / "paths"
    async with (
        Tracker.open(folder / "tracker") as tracker,
        children(folder, "ends", 2) as (sender, receiver),
        children(folder, "volunteer", 1) as (volunteer,),
    ):
        assert tracker.link is not None
        key = load_key(tracker.horde.tracker_folder / "serving.key")
        horde = {"root": tracker.link.root.hex(), "serving": key.public.hex()}
        offer = await volunteer.ask("relay", folder=str(folder / "volunteer"), **horde)
        horde["tracker"] = tracker.link.url
        await sender.ask("serve", folder=str(folder), side=bench.scale.large_side, small=1)
        two = Two(sender, receiver, volunteer, tracker, key, horde, offer)
        ats = {way: await sender.ask("cross", way=way, **horde) if way != DIRECT else {} for way in WHAT}
        carried = {way: Carried() for way in WHAT}
        downloads = {"bare": Carried(), "kept": Carried()}
        for repetition in range(bench.scale.repetitions + 1):
            bench.say(f"paths: {repetition} of {bench.scale.repetitions}")
            for what, download in downloads.items():
                await two.download(what, download)
            for way in WHAT:
                await two.carry(way, ats[way], carried[way])
    bare, kept = map(_without_first, downloads.values())
    return _figures({way: _without_first(each) for way, each in carried.items()}, bare, kept)


def _without_first(carried: Carried) -> Carried:
    """The first one warms up."""
    return Carried(carried.rates[1:], carried.relay_ms[1:], carried.ends_ms[1:])


def _figures(carried: dict[str, Carried], bare: Carried, kept: Carried) -> list[Figure]:
    about = {"ends_cpu_ms_per_mb": bare.ends_ms, "kept_ends_cpu_ms_per_mb": kept.ends_ms}
    what = "aiohttp alone, dropping what comes, same run"
    figures = [Figure("paths_bare_mb_per_s", "MB/s", what, bare.rates, about=about)]
    for way, each in carried.items():
        seen = {"mb_per_s": each.rates, "ends_cpu_ms_per_mb": each.ends_ms}
        ratio, ratio_kept = ratios(each.rates, bare.rates), ratios(each.rates, kept.rates)
        figures += [
            Figure(f"{way}_ratio", "times", f"to bare TLS: {WHAT[way]}", ratio, AIMS[way], about=seen),
            Figure(f"{way}_ratio_kept", "times", "the same to a bare download that is kept", ratio_kept),
        ]
    whose = {RELAYED: "the tracker's process", VOLUNTEER: "a volunteer's process"}
    figures += [
        Figure(f"{way}_cpu_ms_per_mb", "ms/MB", f"CPU of {who}, for each MB that it relays", carried[way].relay_ms)
        for way, who in whose.items()
    ]
    return figures
