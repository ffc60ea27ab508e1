"""Servers with OpenAI's API as engines: what they say in all its ways, and what they are asked. A small server answers
byte for byte; tests with processes of their own are in tests/together."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from PIL import Image

from peer.commands.engines import engine_spec, openai_spec
from peer.engines.base import ArtifactMade, Done, EngineError, StepsDone, Task, TextMade
from peer.engines.maker import Dropped, Job, Maker
from peer.engines.openai.asks import DIALECTS, image_request, offered_name, seed_of, text_request, writes
from peer.engines.openai.back_end import BackEnd as Engine
from peer.engines.openai.says import MAX_BYTES, Events, Trouble
from peer.engines.spec import EngineSpec, OpenAIOptions, SpecError, check, options_of
from protocol.work import ChatMessage
from tests.peer.engines.contract import picture, text
from tests.support.back_end import BackEnd, Reply, back_end

RECORDED = Path(__file__).parent / "recorded"
SERVERS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text("utf-8")) for path in sorted(RECORDED.glob("*.json"))
}
ANSWERS = [(name, answer) for name, server in SERVERS.items() for answer in server["answers"]]
NAMES = [f"{name}: {answer['title']}" for name, answer in ANSWERS]
CHAT = (ChatMessage(role="user", content="Say hi."),)
DONE = b'data: {"choices":[{"delta":{"content":"Hi"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
STREAM = "text/event-stream"


@pytest_asyncio.fixture
async def server() -> AsyncIterator[BackEnd]:
    async with back_end() as server:
        lists(server, "small")
        yield server


def lists(server: BackEnd, *names: str, owner: str = "somebody") -> None:
    server.answer("/v1/models", {"data": [{"id": name, "owned_by": owner} for name in names]})


def body_of(answer: dict[str, Any]) -> bytes:
    end = answer.get("line_end", "\n")
    last = "" if answer.get("cut_end") else end
    body: str = end.join(answer["lines"]) + last
    return body.encode()


def an_engine(server: BackEnd, clock: Callable[[], float] = time.monotonic, **options: Any) -> Engine:
    given = {"url": server.url} | options
    spec = EngineSpec(engine="openai", model="small", options=given)
    return Engine(spec.model, options_of(spec, OpenAIOptions), clock)


async def loaded(server: BackEnd, **options: Any) -> Engine:
    engine = an_engine(server, **options)
    await asyncio.to_thread(engine.load)
    return engine


async def made(engine: Maker, task: Task, hear: Callable[[Job, Any], None] = lambda job, said: None) -> list[Any]:
    """What it says of the task, `Done` last."""
    events: list[Any] = []

    def say(said: Any) -> None:
        events.append(said)
        hear(job, said)

    job = Job(task, say)
    events.append(await asyncio.to_thread(engine.make, job))
    return events


def told(events: Sequence[Any]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextMade))


def asks(path: str, **more: Any) -> Task:
    """A task for which this path is asked."""
    return text("small", messages=CHAT, **more) if "chat" in path else text("small", **more)


# What they say


@pytest.mark.parametrize(("name", "answer"), ANSWERS, ids=NAMES)
async def test_a_servers_answer_is_understood(name, answer):
    said = SERVERS[name]
    async with back_end() as server:
        server.server = said["server"]
        server.answer("/v1/models", said["models"])
        for path, value in said["paths"].items():
            server.answer(path, value)
        ends, kind = answer.get("ends", "length"), answer.get("kind", STREAM)
        server.replies[answer["path"]] = Reply(body_of(answer), answer.get("status", 200), kind, 7, ends)
        engine = await loaded(server)
        (offer,) = engine.offers()[0]
        assert f"openai {said['known_as']} " in offer.engine
        assert offer.max_context == said["context"]

        if "code" in answer:
            with pytest.raises(EngineError) as failed:
                await made(engine, asks(answer["path"]))
            assert failed.value.code == answer["code"]
            assert bool(engine.offers()[0]) == answer["offered"]
            return
        events = await made(engine, asks(answer["path"]))
        assert told(events) == answer["text"]
        assert events[-1] == Done(answer["used"], answer["context_used"], answer["finish"])
        assert [event for event in events if isinstance(event, StepsDone)][-1].done == answer["used"]


@pytest.mark.parametrize(("name", "answer"), ANSWERS, ids=NAMES)
def test_it_does_not_matter_where_an_answer_is_cut(name, answer):
    body = body_of(answer)

    def heard(*pieces: bytes) -> object:
        events = Events()
        try:
            return [said for piece in pieces for said in events.feed(piece)] + list(events.rest()), events.ended
        except Trouble as trouble:
            return str(trouble)

    whole = heard(body)
    assert all(heard(body[:at], body[at:]) == whole for at in range(0, len(body), 31))
    assert heard(*(body[at : at + 1] for at in range(len(body)))) == whole


async def test_no_error_tells_the_servers_own_words(server):
    words = {"error": {"message": "cannot say xylophonequince", "type": "xylo\nphonequince", "code": "bad_prompt"}}
    server.answer("/v1/chat/completions", words, 400)
    engine = await loaded(server)

    with pytest.raises(EngineError) as failed:
        await made(engine, text("small", messages=CHAT))
    assert "400 bad_prompt" in str(failed.value)
    assert "phonequince" not in str(failed.value)


def test_an_endless_line_is_no_answer():
    events = Events()
    events.feed(b"data: " + b"x" * (MAX_BYTES - 6))
    with pytest.raises(Trouble, match="at once"):
        events.feed(b"x")


async def test_a_stop_text_ends_the_answer_though_the_server_does_not_know_it(server):
    pieces = ["one ", "two th", "ree ", "four"]
    lines = [f"data: {json.dumps({'choices': [{'text': piece}]})}\n\n" for piece in pieces]
    server.replies["/v1/completions"] = Reply("".join(lines).encode(), kind=STREAM, ends="chunks", holds=True)
    engine = await loaded(server)

    events = await made(engine, text("small", stop=("a", "b", "c", "d", "three")))

    assert told(events) == "one two "
    assert events[-1].finish == "stop"
    assert server.bodies("/v1/completions")[0]["stop"] == ["a", "b", "c", "d"]
    await server.left.wait()


# A server that dies and comes back


async def test_a_server_that_dies_is_looked_at_now_and_then_and_serves_again_when_it_is_back(server):
    broken = Reply(b'data: {"choices":[{"text":"Once"}]}\n\n', kind=STREAM, ends="nothing")
    server.replies["/v1/completions"] = broken
    now = 100.0
    engine = an_engine(server, clock=lambda: now)
    await engine.look()
    with pytest.raises(EngineError, match="broke off"):
        await made(engine, text("small"))
    await server.stop()
    assert engine.due() <= now
    assert engine.offers()[0]

    await engine.look()
    assert engine.due() > now, "and not all the time"
    assert engine.offers()[0] == ()

    await server.start()
    await engine.look()
    assert engine.offers()[0] == (), "it is back, but the trial fails"
    assert server.bodies("/v1/completions")[-1]["max_tokens"] == 1
    server.replies["/v1/completions"] = Reply(DONE, kind=STREAM)
    now = engine.due()
    await engine.look()
    assert engine.offers()[0]


# Jobs that are not wanted any more


async def test_a_stopped_job_ends_with_what_there_is_and_the_connection_is_closed(server):
    piece = b'data: {"choices":[{"delta":{"content":"Once"}}]}\n\n'
    server.replies["/v1/chat/completions"] = Reply(piece, kind=STREAM, ends="chunks", holds=True)
    engine = await loaded(server)

    events = await made(
        engine, text("small", messages=CHAT), lambda job, said: job.stop() if isinstance(said, TextMade) else None
    )

    assert told(events) == "Once"
    assert events[-1] == Done(1, 1, "cancelled")
    await server.left.wait()
    assert engine.offers()[0]


async def test_a_dropped_job_ends_with_nothing_and_the_connection_is_closed(server):
    server.replies["/v1/chat/completions"] = Reply(b": wait\n\n", kind=STREAM, ends="chunks", holds=True)
    engine = await loaded(server)
    job = Job(text("small", messages=CHAT), lambda said: None)
    making = asyncio.create_task(asyncio.to_thread(engine.make, job))
    while "/v1/chat/completions" not in {asked.path for asked in server.asked}:  # noqa: ASYNC110 (a thread asks)
        await asyncio.sleep(0.005)
    job.drop()

    with pytest.raises(Dropped):
        await making
    await server.left.wait()


async def test_a_job_that_is_stopped_before_it_begins_asks_nothing(server):
    engine = await loaded(server)
    job = Job(text("small", messages=CHAT), lambda said: None)
    job.stop()

    assert engine.make(job) == Done(0, finish="cancelled")
    assert not server.bodies("/v1/chat/completions")


async def test_a_server_that_says_nothing_is_hung(server):
    server.replies["/v1/chat/completions"] = Reply(b"", kind=STREAM, ends="chunks", holds=True)
    engine = await loaded(server, timeout_s=1)

    with pytest.raises(EngineError) as failed:
        await made(engine, text("small", messages=CHAT))
    assert failed.value.code == "hung"


# What is served


async def test_all_models_that_write_are_served_under_the_servers_names(server):
    lists(server, "b:7b", "a/instruct", "nomic-embed-text", "/srv/models/Small-Q4.gguf", "flux.1-dev", "x" * 121)
    engine = await loaded(server, serves="*")

    offers, why = engine.offers()
    assert [offer.model for offer in offers] == ["b:7b", "a/instruct", "small-q4"]
    assert why == ""
    server.replies["/v1/completions"] = Reply(DONE, kind=STREAM)
    await made(engine, text("small-q4"))
    assert server.bodies("/v1/completions")[0]["model"] == "/srv/models/Small-Q4.gguf"


@pytest.mark.parametrize(
    ("listed", "options", "said"),
    [
        (("a", "b"), {"serves": "c"}, "does not list 'c'; it lists a, b"),
        (("a", "b"), {}, "URL#MODEL; it lists a, b"),
        ((), {"serves": "*"}, "wanted 1 to 64 models; it lists nothing"),
        (tuple(map(str, range(65))), {"serves": "*"}, "wanted 1 to 64 models"),
        (("a", "b"), {"serves": "*", "kind": "image"}, "a model that makes pictures"),
    ],
)
async def test_what_is_meant_by_none_of_the_models_is_a_clear_error(server, listed, options, said):
    lists(server, *listed)

    with pytest.raises(EngineError, match=said):
        await loaded(server, **options)


async def test_a_server_without_this_api_is_a_clear_error_and_one_that_is_not_there_is_waited_for(server):
    del server.replies["/v1/models"]
    with pytest.raises(EngineError, match="404"):
        await loaded(server)

    await server.stop()
    engine = await loaded(server)
    offers, why = engine.offers()
    assert offers == ()
    assert why.startswith(f"{server.url}: no answer (")


async def test_a_key_goes_to_the_server_and_nowhere_else(server, tmp_path):
    path = tmp_path / "key"
    path.write_text("sk-hush\n")
    path.chmod(0o600)
    server.answer("/v1/chat/completions", {"error": {"message": "key sk-hush is bad", "code": "bad_key"}}, 401)
    engine = await loaded(server, key_file=str(path))

    with pytest.raises(EngineError, match="refuses its key") as failed:
        await made(engine, text("small", messages=CHAT))
    assert {asked.headers.get("authorization") for asked in server.asked} == {"Bearer sk-hush"}
    assert "hush" not in str(failed.value)
    assert "hush" not in engine.offers()[1]


async def test_a_server_without_completions_is_told_a_raw_prompt_as_a_message(server):
    server.replies["/v1/chat/completions"] = Reply(DONE, kind=STREAM)
    engine = await loaded(server)

    assert told(await made(engine, text("small", prompt="Once"))) == "Hi"
    assert server.bodies("/v1/chat/completions")[0]["messages"] == [{"role": "user", "content": "Once"}]

    asked = len(server.bodies("/v1/completions"))
    assert told(await made(await loaded(server, api="chat"), text("small", prompt="Once"))) == "Hi"
    assert len(server.bodies("/v1/completions")) == asked


async def test_what_cannot_fit_is_refused_before_the_server_is_asked(server):
    engine = await loaded(server)
    for task in (text("small", prompt="x" * 9000, tokens=16, context=512), text("small", tokens=513, context=512)):
        with pytest.raises(EngineError) as refused:
            await made(engine, task)
        assert refused.value.code == "too_long"
    with pytest.raises(EngineError, match="1000 for none"):
        await made(engine, text("small", repeat_penalty=0))
    assert not server.bodies("/v1/completions")


async def test_a_prefix_is_continued_and_counts_towards_the_limit(server):
    lists(server, "small", owner="llamacpp")
    server.answer("/apply-template", {"prompt": "<user>Say hi.<assistant>"})
    server.answer("/tokenize", {"tokens": [0] * 5})
    server.replies["/v1/completions"] = Reply(DONE, kind=STREAM)
    engine = await loaded(server)

    assert engine.offers()[0][0].continues
    await made(engine, text("small", messages=CHAT, prefix="Well, ", tokens=16))
    assert server.bodies("/v1/completions")[0]["prompt"] == "<user>Say hi.<assistant>Well, "
    assert [body["content"] for body in server.bodies("/tokenize")] == [
        "<user>Say hi.<assistant>",
        "<user>Say hi.<assistant>Well, ",
    ]


# What they are asked


def test_each_program_is_asked_for_what_it_knows_by_its_own_names():
    def asked(name: str, **private: Any) -> dict[str, Any]:
        task = text("m", top_k=0, min_p=50, repeat_penalty=1100, temperature=700, top_p=900, **private)
        return text_request(DIALECTS[name], "theirs", task, 5, chat_only=False)[1]

    standard = {
        "model": "theirs",
        "max_tokens": 5,
        "seed": 2,
        "temperature": 0.7,
        "top_p": 0.9,
        "stream": True,
        "stream_options": {"include_usage": True},
        "prompt": "p",
    }
    assert asked("openai", prompt="p") == asked("other", prompt="p") == asked("ollama", prompt="p") == standard
    more = {
        name: {key: value for key, value in asked(name, prompt="p").items() if key not in standard} for name in DIALECTS
    }
    assert more["vllm"] == {"top_k": -1, "min_p": 0.05, "repetition_penalty": 1.1}
    assert more["localai"] == {"top_k": 0, "min_p": 0.05, "repeat_penalty": 1.1}
    assert more["koboldcpp"].items() >= {"top_k": 0, "min_p": 0.05, "rep_pen": 1.1}.items()
    assert more["llama.cpp"].items() >= {"top_k": 0, "min_p": 0.05, "repeat_penalty": 1.1}.items()
    stops = tuple("abcde")
    assert asked("openai", stop=stops)["stop"] == list(stops[:4])
    assert asked("vllm", stop=stops)["stop"] == list(stops)


def test_each_program_that_can_is_told_to_go_on_in_its_own_way():
    def asked(name: str) -> dict[str, Any]:
        return text_request(DIALECTS[name], "m", text("m", messages=CHAT, prefix="Well"), 5, chat_only=False)[1]

    for name in ("vllm", "koboldcpp", "llama.cpp"):
        assert asked(name)["messages"][-1] == {"role": "assistant", "content": "Well"}
    assert asked("vllm").items() >= {"continue_final_message": True, "add_generation_prompt": False}.items()
    assert asked("koboldcpp")["continue_assistant_turn"] is True
    assert {name for name, dialect in DIALECTS.items() if dialect.going_on is None} == {
        "ollama",
        "localai",
        "openai",
        "other",
    }


def test_a_picture_is_asked_for_by_each_programs_own_names():
    task = picture("m", side=64, steps=7, seed=3, negative_prompt="rain", prompt="sun")
    standard = {"model": "m", "prompt": "sun", "n": 1, "size": "64x64", "response_format": "b64_json"}

    assert image_request(DIALECTS["openai"], "m", task)[1] == standard
    measures = {"steps": 7, "seed": 4, "negative_prompt": "rain", "guidance_scale": 3.0}
    assert image_request(DIALECTS["other"], "m", task)[1] == standard | measures
    assert image_request(DIALECTS["localai"], "m", task)[1] == standard | {"prompt": "sun|rain", "step": 7, "seed": 4}


def test_seeds_differ_and_none_of_them_means_any():
    seeds = [0, 1, 2**31 - 3, 2**53 - 1, 2**53 - 2]

    assert len({seed_of(seed) for seed in seeds}) == len(seeds)
    assert all(0 < seed_of(seed) < 2**31 for seed in [*seeds, 2**31 - 2])


# Pictures


def image_of(side: int, kind: str) -> bytes:
    content = BytesIO()
    Image.new("RGB", (side, side), "red").save(content, kind)
    return content.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
async def test_a_picture_comes_as_png_whatever_the_server_sends(server, kind):
    b64 = base64.b64encode(image_of(32, kind)).decode()
    server.answer("/v1/images/generations", {"created": 1, "data": [{"b64_json": b64}]})
    engine = await loaded(server, kind="image")

    steps, artifact, done = await made(engine, picture("small", side=32, steps=4))
    assert (steps, done) == (StepsDone(4, 4), Done(4))
    assert isinstance(artifact, ArtifactMade)
    with Image.open(BytesIO(artifact.content)) as image:
        assert (image.format, image.size) == ("PNG", (32, 32))


async def test_a_picture_that_lies_with_the_server_is_fetched_and_none_that_lies_elsewhere(server):
    server.replies["/files/1.png"] = Reply(image_of(32, "PNG"), kind="image/png")
    engine = await loaded(server, kind="image")

    server.answer("/v1/images/generations", {"data": [{"url": "/files/1.png"}]})
    assert (await made(engine, picture("small", side=32)))[-1] == Done(4)
    server.answer("/v1/images/generations", {"data": [{"url": "http://localhost:1/1.png"}]})
    with pytest.raises(EngineError, match="another server"):
        await made(engine, picture("small", side=32))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([{"b64_json": base64.b64encode(image_of(16, "PNG")).decode()}], "16x16 pixels; 32x32 was asked for"),
        ([{"b64_json": "AAAA"}], "cannot be read"),
        ([{"b64_json": "A"}], "not in base64"),
        ([], "without a picture"),
    ],
)
async def test_what_is_no_such_picture_is_refused(server, data, said):
    server.answer("/v1/images/generations", {"data": data})
    engine = await loaded(server, kind="image")

    with pytest.raises(EngineError, match=said):
        await made(engine, picture("small", side=32))


# The command line


@pytest.mark.parametrize(
    ("words", "model", "options"),
    [
        ("http://127.0.0.1:8080", "127.0.0.1:8080", {"url": "http://127.0.0.1:8080", "serves": "*"}),
        ("mine=http://h:1/v1", "mine", {"url": "http://h:1/v1", "serves": ""}),
        ("http://h:1#llama3:8b", "llama3:8b", {"url": "http://h:1", "serves": "llama3:8b"}),
        ("m=http://h:1#a/b,kind=image", "m", {"url": "http://h:1", "serves": "a/b", "kind": "image"}),
        (
            "http://h:1#/srv/Big.gguf,context=4096",
            "big",
            {"url": "http://h:1", "serves": "/srv/Big.gguf", "context": "4096"},
        ),
    ],
)
def test_the_words_of_a_command_line_name_a_server(words, model, options):
    assert openai_spec(words) == EngineSpec(engine="openai", model=model, options=options)


@pytest.mark.parametrize("words", ["h:1", "m=", "http://h:1#", "http://h:1,kind"])
def test_words_that_name_no_server_are_refused(words):
    with pytest.raises(Exception, match=r"--openai .*wanted"):
        openai_spec(words)


def test_the_words_of_a_command_line_name_any_engine():
    spec = engine_spec("clouds:model=sky,colour=blue")
    assert spec == EngineSpec(engine="clouds", model="sky", options={"colour": "blue"})
    for words in ("clouds", ":model=sky", "clouds:sky"):
        with pytest.raises(Exception, match=r"--engine .*wanted"):
            engine_spec(words)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://h", "wanted http://HOST:PORT"),
        ("http://", "wanted http://HOST:PORT"),
        ("http://h:99999", "no address"),
        ("http://me:hush@h", "a key goes into a file"),
        ("http://h/v1?key=hush", "a key goes into a file"),
        ("http://api.example.com/v1", "wanted https"),
        ("http://8.8.8.8", "wanted https"),
    ],
)
def test_an_address_that_cannot_be_meant_is_refused(url, said):
    with pytest.raises(SpecError, match=said) as refused:
        check(EngineSpec(engine="openai", model="m", options={"url": url}))
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "http://[::1]:1", "http://nas:1", "http://gpu.lan", "https://api.example.com/v1"]
)
def test_an_address_that_can_be_meant_is_taken(url):
    check(EngineSpec(engine="openai", model="m", options={"url": url}))


def test_a_key_file_that_others_may_read_or_that_holds_no_key_is_refused(tmp_path):
    path = tmp_path / "key"
    spec = EngineSpec(engine="openai", model="m", options={"url": "http://h", "key_file": str(path)})
    with pytest.raises(SpecError, match="cannot be read"):
        check(spec)
    path.write_text("two words")
    path.chmod(0o600)
    with pytest.raises(SpecError, match="wanted one key"):
        check(spec)
    path.write_text("sk-hush")
    check(spec)
    if os.name == "posix":
        path.chmod(0o644)
        with pytest.raises(SpecError, match="chmod 600") as refused:
            check(spec)
        assert "hush" not in str(refused.value)


def test_names_of_models_are_read():
    assert offered_name("C:\\models\\Big-Q4.GGUF") == "big-q4"
    assert offered_name("org/Model-1") == "org/Model-1"
    assert [
        writes(name) for name in ("llama3:8b", "qwen-vl", "bge-m3", "whisper-1", "text-embedding-3", "sdxl-base")
    ] == [
        True,
        True,
        False,
        False,
        False,
        False,
    ]


def test_every_option_and_every_program_is_documented():
    page = (Path(__file__).parents[3] / "docs" / "engines.md").read_text("utf-8")

    assert [name for name in OpenAIOptions.__struct_fields__ if f"`{name}`" not in page] == []
    assert [name for name in DIALECTS if f"| `{name}` |" not in page] == []
