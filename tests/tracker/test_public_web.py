"""The ledger over HTTP: what is answered, to whom, and what is refused."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from peer.audit.audit import Options, audit
from peer.audit.mine import Known
from peer.audit.source import BUSY_TRIES, BadSource, FromTracker
from peer.events import Refused, Unreachable
from protocol import codec
from protocol.documents import Document
from protocol.errors import Busy
from protocol.links import Link
from protocol.public import MAX_PART_BYTES, PART_ENTRIES, AskDisclosure, Opened, Part, Row
from protocol.rules import LedgerSection, Rules
from tests.support.builders import NOW, ROOT, SERVING
from tests.support.history import ANN, BEN, History
from tests.support.horde import POLL_S
from tests.support.rewriting import fill
from tracker.config import Settings
from tracker.coordinator import Coordinator
from tracker.public.web import COUNTER, OF_ONE, READERS, WAITING
from tracker.store.sqlite import SqliteStore
from tracker.web import make_app, serving


@dataclass
class Served:
    """A tracker that serves a short ledger. settlement: of its one job."""

    link: Link
    client: aiohttp.ClientSession
    app: aiohttp.web.Application
    settlement: bytes

    async def get(self, path: str) -> tuple[aiohttp.ClientResponse, Any]:
        async with self.client.get(self.link.url.replace("ws", "http", 1) + path) as answer:
            raw = await answer.read()
        is_json = answer.content_type == "application/json"
        return answer, json.loads(raw) if is_json else raw

    async def post(self, path: str, content: bytes) -> tuple[int, bytes]:
        async with self.client.post(self.link.url.replace("ws", "http", 1) + path, data=content) as answer:
            return answer.status, await answer.read()


@asynccontextmanager
async def served(folder: Path, awards: int = 3, delay_days: int = 0, filled: int = 0) -> AsyncIterator[Served]:
    path = folder / "horde.db"
    async with History.open(path, Rules(ledger=LedgerSection(delay_days=delay_days))) as history:
        for number in range(awards):
            await history.award(history.accounts[ANN.public], 1000 + number)
        settlement = await history.serve(ANN, BEN)
        now = history.tick()
    fill(path, filled)
    settings = replace(Settings("127.0.0.1", 0, "", Path(), Path(), Path()), database=path)
    async with SqliteStore.open(path, SERVING) as store:
        await store.seal(now)
        delegation = await store.delegation()
        async with Coordinator.start(
            store, root=ROOT.public, key=SERVING, delegation=delegation, clock=lambda: now, chance=random.Random(1)
        ) as coordinator:
            app = make_app(coordinator, settings)
            async with serving(app) as link, aiohttp.ClientSession() as client:
                yield Served(link, client, app, settlement)


async def test_the_audit_reads_a_served_ledger_and_finds_it_right(tmp_path: Path) -> None:
    async with served(tmp_path) as tracker, FromTracker.open(tracker.link) as source:
        options = Options(root=ROOT.public, version=0, full=True, folder=tmp_path / "audit", now=NOW)

        report = (await audit(source, options, Known([tracker.settlement]), lambda _, __: None)).report

    assert report.ok, list(report.lines())
    assert report.read == report.size >= 5
    assert report.own == 1


async def test_a_day_that_is_not_over_is_proved_and_not_shown(tmp_path: Path) -> None:
    async with served(tmp_path, delay_days=1) as tracker, FromTracker.open(tracker.link) as source:
        options = Options(root=ROOT.public, version=0, full=True, folder=tmp_path / "audit", now=NOW)

        report = (await audit(source, options, Known([tracker.settlement]), lambda _, __: None)).report

    assert report.ok
    assert report.read == 0
    assert report.size >= 5
    assert report.own == 1


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/ledger", 200),
        ("/ledger/entries?from=0", 200),
        ("/ledger/entries", 400),
        ("/ledger/entries?from=1", 400),
        ("/ledger/entries?from=1000", 400),
        ("/ledger/entries?from=-1", 400),
        ("/ledger/entries?from=%D9%A3", 400),
        ("/ledger/entries?from=0&epoch=x", 400),
        ("/ledger/entries?from=" + 19 * "9", 400),
        ("/ledger/services", 200),
        ("/ledger/services?after=7", 200),
        ("/ledger/services?after=x", 400),
        ("/ledger/rules?version=1", 200),
        ("/ledger/rules?version=2", 404),
        ("/ledger/proof?entry=0&size=1", 200),
        ("/ledger/proof?entry=1&size=1", 400),
        ("/ledger/proof?entry=0&size=1000", 400),
        ("/ledger/consistency?from=1&to=2", 200),
        ("/ledger/consistency?from=2&to=1", 400),
        ("/ledger/consistency?from=0&to=1", 400),
    ],
)
async def test_what_can_be_asked_is_answered_and_all_else_refused(tmp_path: Path, path: str, status: int) -> None:
    async with served(tmp_path) as tracker:
        answer, content = await tracker.get(path)

    assert answer.status == status
    if status != 200:
        assert set(content) == {"code", "text"}


async def test_whole_parts_may_be_kept_by_caches_and_nothing_else(tmp_path: Path) -> None:
    async with served(tmp_path, awards=0, filled=PART_ENTRIES) as tracker:
        whole, _ = await tracker.get("/ledger/entries?from=0&epoch=0")
        others = [
            (await tracker.get(path))[0]
            for path in (
                "/ledger/entries?from=1000&epoch=0",
                "/ledger/entries?from=0",
                "/ledger/entries?from=0&epoch=1",  # of an epoch to come, in which they may be others
                "/ledger",
            )
        ]

    assert whole.headers["Cache-Control"] == "public, max-age=86400"
    assert {answer.headers["Cache-Control"] for answer in others} == {"no-store"}


async def test_a_job_is_disclosed_to_who_shows_its_settlement(tmp_path: Path) -> None:
    async with served(tmp_path) as tracker:
        asked = codec.encode(AskDisclosure(settlement=tracker.settlement))
        status, raw = await tracker.post("/ledger/open", asked)
        refused = [
            await tracker.post("/ledger/open", content)
            for content in (b"", b"\x80", codec.encode(AskDisclosure(settlement=b"\x00")), bytes(40_000))
        ]

    assert status == 200
    assert len(codec.decode(raw, Opened).entries) == 1
    assert [status for status, _ in refused] == [400, 400, 400, 413]


async def test_too_many_readers_and_those_of_one_house_are_sent_away_and_those_before_them_answered(
    tmp_path: Path,
) -> None:
    async with served(tmp_path) as tracker:
        counter = tracker.app[COUNTER]
        counter.readers = asyncio.Semaphore(0)
        waiting = [asyncio.create_task(tracker.get("/ledger")) for _ in range(OF_ONE)]
        while counter.waiting < OF_ONE:  # noqa: ASYNC110 (nobody there sets an event for tests)
            await asyncio.sleep(POLL_S)
        late, said = await tracker.get("/ledger")
        others = [
            asyncio.create_task(counter.read(lambda: 7, f"house {number // OF_ONE}"))
            for number in range(READERS + WAITING - OF_ONE)
        ]
        await asyncio.sleep(0)
        with pytest.raises(Busy):
            await counter.read(lambda: 7, "another house")
        for _ in (*waiting, *others):
            counter.readers.release()
        answered = await asyncio.gather(*waiting)
        assert set(await asyncio.gather(*others)) == {7}

    assert late.status == 503
    assert said["code"] == "busy"
    assert {answer.status for answer, _ in answered} == {200}
    assert counter.waiting == len(counter.houses) == 0


async def test_something_else_than_a_tracker_is_told_from_one(tmp_path: Path) -> None:
    async def other(_: aiohttp.web.Request) -> aiohttp.web.Response:
        return aiohttp.web.Response(text="hello")

    app = aiohttp.web.Application()
    app.add_routes([aiohttp.web.get("/ledger", other)])
    runner = aiohttp.web.AppRunner(app)
    await runner.setup()
    try:
        site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        async with FromTracker.open(Link(f"ws://127.0.0.1:{port}", ROOT.public)) as source:
            with pytest.raises(BadSource):
                await source.head()
            with pytest.raises(Unreachable):
                await source.rules(1)
    finally:
        await runner.cleanup()
    async with served(tmp_path) as tracker, FromTracker.open(tracker.link) as source:
        with pytest.raises(Refused):
            await source.inclusion(10**6, 10**6)


@asynccontextmanager
async def answering(*answers: tuple[int, object]) -> AsyncIterator[tuple[Link, list[str]]]:
    """A tracker that gives these answers to `/ledger`, the last one again and again; what it was asked for."""
    asked: list[str] = []

    async def ledger(request: aiohttp.web.Request) -> aiohttp.web.Response:
        status, content = answers[min(len(asked), len(answers) - 1)]
        asked.append(request.path)
        return aiohttp.web.json_response(content, status=status)

    app = aiohttp.web.Application()
    app.add_routes([aiohttp.web.get("/ledger", ledger)])
    runner = aiohttp.web.AppRunner(app)
    await runner.setup()
    try:
        site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield Link(f"ws://127.0.0.1:{runner.addresses[0][1]}", ROOT.public), asked
    finally:
        await runner.cleanup()


BUSY = 503, {"code": "busy", "text": "too many readers"}
HEAD = {"root": "", "delegation": "", "checkpoint": "", "public": "", "rules": 1, "delay_days": 1}


async def test_a_tracker_that_has_too_many_readers_is_asked_again_and_has_refused_nothing() -> None:
    waits: list[float] = []

    async def pause(seconds: float) -> None:
        waits.append(seconds)

    async with answering(BUSY, BUSY, (200, HEAD)) as (link, asked), FromTracker.open(link, pause) as source:
        assert (await source.head()).rules == 1
        assert len(asked) == 3
        assert len(waits) == 2
    for answer in (BUSY, (500, {"code": "internal", "text": "a fault"})):
        async with answering(answer) as (link, asked), FromTracker.open(link, pause) as source:
            with pytest.raises(Unreachable):
                await source.head()
            assert len(asked) == (BUSY_TRIES if answer is BUSY else 1)


async def test_the_largest_part_that_can_be_is_read(tmp_path: Path) -> None:
    row = Row(leaf=bytes(400), evidence=bytes(400), document=bytes(Document.MAX_BYTES))

    part = Part(first=0, rows=(row,) * PART_ENTRIES)

    assert len(codec.encode(part)) <= MAX_PART_BYTES
