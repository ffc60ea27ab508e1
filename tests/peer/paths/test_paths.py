"""Paths between two peers over real sockets: direct, punched, relayed, and one in place of another."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import unused_port

from peer.output import Output
from peer.paths.choice import Path as Way
from peer.paths.choice import Timing
from peer.paths.race import Race
from peer.paths.relay_end import NotRelayed, RelayEnds, Tracker, check_ticket
from peer.spool import Spool
from peer.stream_reader import Answered, StreamBroken
from protocol.errors import BadTicket
from protocol.frames import Alive, Final, Frame, Progressed, Text
from protocol.messages import AskPaths, Meet, Refused
from tests.support.builders import (
    JOB_KEY,
    NOW,
    ROOT,
    SERVING,
    WORKER,
    a_key,
    a_lease,
    a_public_part,
    a_receipt,
    a_relay_ticket,
    a_request,
    a_salt,
    a_text_work,
    but,
    signed,
)
from tests.support.horde import until
from tests.support.paths import ATTEMPT, LEASE, BadDoor, a_scene

TEXT = signed(a_lease(a_request(a_public_part(a_text_work(max_tokens=30_000)))))
RECEIPT, SALT = signed(a_receipt()), a_salt()
#: No head starts: who stands is taken.
AT_ONCE = Timing(ask_after=0, head_start=0)


@pytest.fixture
def output(tmp_path: Path) -> Iterator[Output]:
    made = Output(Spool.create(tmp_path / "spool", TEXT))
    yield made
    made.spool.remove()


def add(output: Output, *pieces: str) -> None:
    for piece in pieces:
        output.spool.add_text(piece)
    output.changed()


def finish(output: Output) -> None:
    output.spool.keep_receipt(RECEIPT, SALT, "stop")
    output.spool.finish(RECEIPT, SALT, "stop")
    output.changed()


async def rest(stream: AsyncIterator[Frame | Answered]) -> list[Frame | Answered]:
    return [item async for item in stream if not isinstance(item, Alive | Progressed)]


def texts(items: list[Frame | Answered]) -> str:
    return "".join(item.text for item in items if isinstance(item, Text))


def paths(items: list[Frame | Answered]) -> list[Way]:
    return [item.path for item in items if isinstance(item, Answered)]


def cut(ends: RelayEnds) -> None:
    for pump in list(ends._pumps):
        pump.cancel()


async def test_a_worker_without_an_address_is_reached_through_a_relay(tmp_path: Path, output: Output) -> None:
    add(output, "one ", "two")
    finish(output)
    async with a_scene(tmp_path, output) as scene:
        relaying = await scene.relay()
        items = await rest(scene.stream())

        assert (paths(items), texts(items)) == ([Way.RELAYED], "one two")
        assert [asked.reason for asked in scene.asked] == ["no_address"]
        assert relaying.rooms.pairs == 1
        assert relaying.rooms.carried > 0
        await until(lambda: scene.workers_ends.ends == scene.requesters_ends.ends == 0, "a relayed path stays open")
        await until(lambda: scene.server.connections == 0, "a place at the worker was not given back")


async def test_a_worker_without_an_address_is_met_half_way(tmp_path: Path, output: Output) -> None:
    add(output, "met")
    finish(output)
    async with a_scene(tmp_path, output) as scene:
        scene.meets = True
        await scene.relay()
        items = await rest(scene.stream())

        assert (paths(items), texts(items)) == ([Way.PUNCHED], "met")


async def test_a_punched_connection_serves_again_and_a_relayed_one_does_not(tmp_path: Path, output: Output) -> None:
    add(output, "again")
    finish(output)
    async with a_scene(tmp_path, output) as scene:
        scene.meets = True
        for _ in range(3):
            assert paths(await rest(scene.stream())) == [Way.PUNCHED]
        assert len(scene.asked) == 1
    async with a_scene(tmp_path / "relayed", output) as scene:
        await scene.relay()
        for _ in range(2):
            assert paths(await rest(scene.stream())) == [Way.RELAYED]
        assert len(scene.asked) == 2


async def test_who_asks_for_relays_only_takes_no_other_path(tmp_path: Path, output: Output) -> None:
    finish(output)
    async with a_scene(tmp_path, output, relays_only=True) as scene:
        scene.meets = True
        await scene.relay()
        items = await rest(scene.stream(scene.server.port))

        assert paths(items) == [Way.RELAYED]
        assert [asked.relays_only for asked in scene.asked] == [True]


async def test_a_better_path_takes_over_between_two_frames(tmp_path: Path, output: Output) -> None:
    add(output, "one ")
    async with a_scene(tmp_path, output, timing=AT_ONCE) as scene:
        await scene.relay()
        door = await scene.door()
        stream = scene.stream(door.port)
        items = [await anext(stream), await anext(stream)]
        assert (paths(items), texts(items)) == ([Way.RELAYED], "one ")

        door.opened.set()
        items.append(await anext(stream))
        add(output, "two ", "three")
        finish(output)
        items += await rest(stream)

        assert paths(items) == [Way.RELAYED, Way.DIRECT]
        assert texts(items) == "one two three"
        assert isinstance(items[-1], Final)
        assert scene.desk.openings == [b"opening", b"again"]
        await until(lambda: scene.requesters_ends.ends == 0, "the relayed path stays open")


async def test_the_better_path_goes_on_where_the_other_one_broke(tmp_path: Path, output: Output) -> None:
    add(output, "one ")
    async with a_scene(tmp_path, output, timing=AT_ONCE) as scene:
        await scene.relay()
        door = await scene.door()
        stream = scene.stream(door.port)
        items = [await anext(stream), await anext(stream)]

        door.opened.set()
        reading = asyncio.create_task(rest(stream))
        await until(lambda: len(scene.desk.openings) == 2, "the better path was not opened")
        cut(scene.workers_ends)
        add(output, "two")
        finish(output)
        items += await reading

        assert (paths(items)[-1], texts(items)) == (Way.DIRECT, "one two")


async def test_a_relayed_stream_that_is_cut_goes_on_from_the_next_frame(tmp_path: Path, output: Output) -> None:
    add(output, "one ", "two ")
    async with a_scene(tmp_path, output) as scene:
        await scene.relay()
        stream = scene.stream()
        items = [await anext(stream) for _ in range(3)]
        cut(scene.workers_ends)
        with pytest.raises(StreamBroken):
            await rest(stream)

        add(output, "three")
        finish(output)
        async with contextlib.aclosing(scene.reader.read(scene.worker(), b"opening", 1, scene.guide)) as stream:
            items += await rest(stream)

        assert texts(items) == "one two three"


async def test_the_nearest_of_several_relays_is_taken(tmp_path: Path, output: Output) -> None:
    finish(output)
    async with a_scene(tmp_path, output) as scene:
        silent = socket.create_server(("127.0.0.1", 0))
        await scene.relay(url=f"wss://127.0.0.1:{silent.getsockname()[1]}")
        relaying = await scene.relay()
        with silent:
            assert paths(await rest(scene.stream())) == [Way.RELAYED]

        assert relaying.rooms.pairs == 1


async def test_the_next_address_serves_where_the_first_dies_before_the_answer(tmp_path: Path, output: Output) -> None:
    finish(output)
    async with a_scene(tmp_path, output) as scene:
        door = await scene.bad_door(scene.server.port, ends=True)
        items = await rest(scene.stream(door.port, scene.server.port))

        assert [item.reason for item in items if isinstance(item, Answered)] == [
            f"direct 127.0.0.1:{scene.server.port}"
        ]
        assert scene.desk.openings == [b"opening", b"opening"]


@pytest.mark.parametrize("ends", [True, False], ids=["ends", "stalls"])
async def test_a_relay_that_lets_the_opening_through_and_no_answer_is_replaced_and_tried_last(
    tmp_path: Path, output: Output, ends: bool
) -> None:
    finish(output)
    patient = Timing(race=60_000, answer=30_000)
    async with a_scene(tmp_path, output, timing=patient, reading={"answer_seconds": 3.0}) as scene:
        bad = await scene.relay()
        door = await scene.bad_door(int(scene.tickets[0].url.rpartition(":")[2]), ends=ends)
        scene.tickets[0] = but(scene.tickets[0], url=f"wss://127.0.0.1:{door.port}")
        say = scene.say
        good = await scene.relay(key=a_key(41))
        [better] = scene.tickets[1:]
        scene.tickets.pop()

        async def say_more(asked: AskPaths) -> bytes | None:
            said = await say(asked)
            if better not in scene.tickets:
                scene.tickets.append(better)
            return said

        scene.guide.say = say_more
        items = await rest(scene.stream())

        assert (paths(items), isinstance(items[-1], Final)) == ([Way.RELAYED], True)
        assert [asked.reason for asked in scene.asked] == ["no_address", "broken"]
        assert (bad.rooms.pairs, good.rooms.pairs) == (1, 1)
        assert scene.desk.openings == [b"opening", b"opening"]


async def test_a_connection_that_was_kept_and_answers_no_more_is_replaced(
    tmp_path: Path, output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(output)
    monkeypatch.setattr("peer.stream_reader.KEPT_SECONDS", 0.2)
    async with a_scene(tmp_path, output) as scene:
        served = [False]
        door = await BadDoor(scene.server.port, lambda: served[0], ends=False).serve(scene.stack)
        await rest(scene.stream(door.port))
        served[0] = True
        items = await rest(scene.stream(door.port, scene.server.port))

        assert [item.reason for item in items if isinstance(item, Answered)] == [
            f"direct 127.0.0.1:{scene.server.port}"
        ]


async def test_where_no_path_leads_it_is_said_what_was_tried_on_each(tmp_path: Path, output: Output) -> None:
    async with a_scene(tmp_path, output) as scene:
        scene.meets = True
        scene.place.instead = dict.fromkeys(("worker", "requester"), "127.0.0.1:1")
        await scene.relay(url=f"wss://127.0.0.1:{unused_port()}")
        with pytest.raises(StreamBroken) as caught:
            await rest(scene.stream(unused_port()))

    assert caught.value.reason == "no_connection"
    for path in ("direct 127.0.0.1", "punched", "relayed 127.0.0.1"):
        assert path in str(caught.value)


async def test_what_the_tracker_refuses_is_passed_on(tmp_path: Path, output: Output) -> None:
    async with a_scene(tmp_path, output) as scene:

        async def refuse(asked: object) -> bytes:
            message = Refused(code="no_path", text="nobody relays here", about=b"it")
            asyncio.get_running_loop().call_soon(lambda: scene.guide.refused(message))
            return b"it"

        scene.guide.say = refuse
        with pytest.raises(StreamBroken, match="nobody relays here"):
            await rest(scene.stream())


async def test_a_tracker_that_was_asked_too_soon_is_asked_again(tmp_path: Path, output: Output) -> None:
    finish(output)
    async with a_scene(tmp_path, output) as scene:
        await scene.relay()
        say = scene.guide.say

        async def too_soon(asked: AskPaths) -> bytes | None:
            scene.guide.say = say
            message = Refused(code="busy", text="paths were asked for within a second", about=b"it")
            asyncio.get_running_loop().call_soon(lambda: scene.guide.refused(message))
            return b"it"

        scene.guide.say = too_soon
        assert paths(await rest(scene.stream())) == [Way.RELAYED]


async def test_a_race_lasts_as_long_as_the_horde_gives_for_the_opening(tmp_path: Path, output: Output) -> None:
    async with a_scene(tmp_path, output) as scene:
        assert scene.reader._ground is not None
        scene.guide.open_ms = 60_000
        race = Race([], "no_address", bytes(32), scene.reader._ground, scene.guide)

        assert race.half_seconds == 29


async def test_a_tracker_that_is_away_does_not_keep_a_direct_path_from_being_found(
    tmp_path: Path, output: Output
) -> None:
    finish(output)
    async with a_scene(tmp_path, output) as scene:

        async def nobody(asked: object) -> None:
            return None

        scene.guide.say = nobody
        assert paths(await rest(scene.stream(scene.server.port))) == [Way.DIRECT]
        with pytest.raises(StreamBroken, match="cannot be reached now"):
            await rest(scene.reader.read(replace(scene.worker(), certificate=bytes(32)), b"", -1, scene.guide))


async def test_a_relay_that_answers_in_the_workers_place_gets_nothing(tmp_path: Path, output: Output) -> None:
    async with a_scene(tmp_path, output) as scene:
        await scene.relay()
        with pytest.raises(StreamBroken) as caught:
            await rest(scene.reader.read(replace(scene.worker(), certificate=bytes(32)), b"secret", -1, scene.guide))

    assert caught.value.reason == "no_address"
    assert "another certificate" in str(caught.value)
    assert scene.desk.openings == []


# Tickets


@pytest.mark.parametrize(
    "change, who",
    [
        ({}, a_key(5)),
        ({"attempt": 2}, JOB_KEY),
        ({"job": bytes(16)}, JOB_KEY),
        ({"valid_until": NOW}, JOB_KEY),
        ({"relay": WORKER.public}, JOB_KEY),
        ({"relay": JOB_KEY.public}, JOB_KEY),
    ],
)
def test_a_ticket_for_others_another_attempt_or_another_time_is_not_used(change: dict[str, Any], who: Any) -> None:
    raw = signed(but(a_relay_ticket(LEASE), **change)).raw

    with pytest.raises(BadTicket):
        check_ticket(raw, root=ROOT.public, serving=SERVING.public, me=who.public, attempt=ATTEMPT, now=NOW)


def test_a_ticket_that_the_tracker_did_not_sign_is_not_used() -> None:
    raw = signed(a_relay_ticket(LEASE), WORKER).raw

    with pytest.raises(BadTicket):
        check_ticket(raw, root=ROOT.public, serving=SERVING.public, me=JOB_KEY.public, attempt=ATTEMPT, now=NOW)


@pytest.mark.parametrize(
    "url",
    ["wss://127.0.0.1:1", "wss://192.168.1.1:443", "wss://[::1]:1", "wss://[::ffff:10.0.0.1]:1", "ws://1.1.1.1:1"],
)
async def test_a_ticket_does_not_lead_into_a_private_network_nor_past_tls(url: str) -> None:
    terms = but(a_relay_ticket(LEASE), url=url, certificate=bytes(32))
    ticket = check_ticket(
        signed(terms).raw, root=ROOT.public, serving=SERVING.public, me=JOB_KEY.public, attempt=ATTEMPT, now=NOW
    )
    async with RelayEnds(Tracker("wss://1.1.1.1", True, private_too=False)) as ends:
        with pytest.raises(NotRelayed) as caught:
            await ends.join(ticket, JOB_KEY, ROOT.public)

    assert caught.value.reason == "bad_ticket"


# What comes to a worker


async def test_nobody_is_met_for_an_attempt_that_is_not_here(tmp_path: Path, output: Output) -> None:
    async with a_scene(tmp_path, output) as scene:
        scene.approaches.told(Meet(job=bytes(16), attempt=1, token=bytes(16), tries=1))

        assert scene.place._here == {}


async def test_relayed_paths_of_one_peer_are_bounded(tmp_path: Path, output: Output) -> None:
    async with a_scene(tmp_path, output, ends={"max_ends": 0}) as scene:
        await scene.relay()
        with pytest.raises(StreamBroken, match="as many as there may be"):
            await rest(scene.stream())
