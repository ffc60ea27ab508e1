"""Servers that say what no server should: nothing of it ends the engine's process or its watch, and a worker's account
of what it made stays one that can be signed."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import pytest

from peer.engines import pipe
from peer.engines.base import Done, EngineError, TextMade
from peer.engines.health import FAILURES, FIRST_REST_S, TRIAL_S
from peer.engines.openai import back_end as back_end_module
from peer.engines.openai.says import MAX_BYTES, Events, Trouble
from tests.peer.engines.contract import picture, text
from tests.peer.engines.test_openai import (  # noqa: F401 (a fixture)
    DONE,
    STREAM,
    an_engine,
    lists,
    loaded,
    made,
    server,
)
from tests.support.back_end import BackEnd, Reply

DEEP = b"[" * 200_000


def says(server: BackEnd, *events: object) -> None:  # noqa: F811
    lines = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    server.replies["/v1/completions"] = Reply(lines + b"data: [DONE]\n\n", kind=STREAM)


def a_piece(words: str, **more: object) -> dict[str, object]:
    return {"choices": [{"text": words, "finish_reason": "stop"}], **more}


def test_an_endless_event_is_no_answer():
    events = Events()
    line = b"data: " + b"x" * 1000 + b"\n"
    for _ in range(MAX_BYTES // 1000):
        assert events.feed(line) == []
    with pytest.raises(Trouble, match="at once"):
        events.feed(line)


async def test_what_is_nested_without_end_is_no_json(server):  # noqa: F811
    engine = await loaded(server)
    server.replies["/v1/completions"] = Reply(b"data: " + DEEP + b"\n\n", kind=STREAM)
    with pytest.raises(Trouble, match="not JSON"):
        await made(engine, text("small"))
    server.replies["/v1/completions"] = Reply(DEEP, status=400)
    with pytest.raises(Trouble, match="refuses this job"):
        await made(engine, text("small"))
    server.replies["/v1/models"] = Reply(b'{"data":' + DEEP)
    trouble = await engine.look()
    assert trouble is not None
    assert trouble.blame == "server"
    lists(server, "small")
    assert await engine.look() is None


async def test_halves_of_characters_are_no_text_and_no_names(server):  # noqa: F811
    server.replies["/v1/models"] = Reply(rb'{"data":[{"id":"a\ud800"},{"id":"b\u001b[2J"},{"id":"small"}]}')
    engine = await loaded(server, serves="*")
    assert [offer.model for offer in engine.offers()[0]] == ["small"]

    says(server, a_piece("a\ud83d"), a_piece("b"))
    events = await made(engine, text("small"))
    assert [event.text for event in events if isinstance(event, TextMade)] == ["a\ufffd", "b"]
    assert all(pipe.pack(event) for event in events)


@pytest.mark.parametrize("count", [10**30, -5, True, "7", 0])
async def test_counts_that_are_none_are_not_taken_over(server, count):  # noqa: F811
    lists(server, "small", owner="koboldcpp")
    server.answer("/api/extra/tokencount", {"value": count})
    engine = await loaded(server)
    says(server, a_piece("Hi"), {"choices": [], "usage": {"prompt_tokens": count, "completion_tokens": count}})
    done = (await made(engine, text("small")))[-1]
    assert done.used == 1
    assert 0 <= done.context_used <= 3
    assert pipe.pack(done)


async def test_no_more_is_told_than_was_asked_for_whatever_the_server_counts(server):  # noqa: F811
    engine = await loaded(server)
    says(server, a_piece("Hi", usage={"prompt_tokens": 2, "completion_tokens": 5000}))
    assert (await made(engine, text("small")))[-1] == Done(16, 18, "stop")


async def test_an_answer_that_does_not_end_is_none(server):  # noqa: F811
    engine = await loaded(server)
    says(server, *[a_piece("x" * 100_000)] * 8)
    with pytest.raises(Trouble, match="does not end"):
        await made(engine, text("small"))


@pytest.mark.parametrize(
    ("one", "said"),
    [({"b64_json": "\u00e9\u00e9"}, "not in base64"), ({"url": "http://[bad/"}, "another server")],
)
async def test_a_picture_that_is_named_in_no_way_that_can_be_read_is_refused(server, one, said):  # noqa: F811
    server.answer("/v1/images/generations", {"data": [one]})
    engine = await loaded(server, kind="image")
    with pytest.raises(Trouble, match=said):
        await made(engine, picture("small"))


async def test_a_list_that_comes_byte_by_byte_is_not_waited_for(monkeypatch):
    ended = asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while not reader.at_eof():
                writer.write(b" ")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(1000), 0.01)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        ended.set()

    monkeypatch.setattr(back_end_module, "LOOK_TIMEOUT_S", 0.1)
    listening = await asyncio.start_server(drip, "127.0.0.1", 0)
    engine = an_engine(BackEnd(port=listening.sockets[0].getsockname()[1]))
    trouble = await engine.look()
    assert trouble is not None
    assert trouble.blame == "server"
    assert not engine.offers()[0]
    await ended.wait()
    listening.close()


async def test_a_server_that_lists_a_model_and_then_knows_none_rests(server):  # noqa: F811
    now = 0.0
    engine = an_engine(server, lambda: now, kind="image")
    await asyncio.to_thread(engine.load)
    for _ in range(FAILURES):
        assert engine.offers()[0]
        with pytest.raises(EngineError, match="no such model"):
            await made(engine, picture("small"))
        assert not engine.offers()[0]
        now += TRIAL_S
        assert await engine.look() is None
    assert not engine.offers()[0], "it is not offered every few seconds for the next job to fail"

    now += FIRST_REST_S
    assert await engine.look() is None
    assert engine.offers()[0]


async def test_the_watch_goes_on_whatever_a_look_fails_of(server, monkeypatch):  # noqa: F811
    engine = await loaded(server)
    told: list[Any] = []

    class Enough(BaseException):
        pass

    async def look() -> None:
        monkeypatch.setattr(engine, "look", looked)
        raise OSError(24, "Too many open files")

    async def looked() -> None:
        raise Enough

    monkeypatch.setattr(engine, "look", look)
    monkeypatch.setattr(engine, "due", lambda: 0.0)
    with pytest.raises(Enough):
        await asyncio.to_thread(engine.watch, lambda offers, why: told.append((offers, why)))
    ((offers, why),) = told
    assert not offers
    assert "OSError" in why
