"""The door itself, over HTTP, before a horde whose every event the test gives."""

import asyncio
import base64
import contextlib
import io
import json
from collections import defaultdict
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from peer import events
from peer.gateway.access import Access
from peer.gateway.asks import Caller
from peer.gateway.catalogue import Catalogue, Model
from peer.gateway.hordes import Hordes
from peer.gateway.openai.lines import WAITING
from peer.gateway.openai.stream import Stream
from peer.gateway.serve import Listening, make_app, serving
from peer.home import Home
from tests.peer.gateway.openai.happened import leased, received

KEY = "k" * 22
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
MODELS = [
    Model("text", "m", "home", 2, waiting=1, max_tokens=64, max_context=2048),
    Model("image", "p/1", "home", 1, max_pixels=4096, max_steps=9),
    Model("text", "gone", "home", 0),
]


class Told(Hordes):
    """Hordes that say what the test lets them say, to all prompts or to one. asked: who asked for what. closed: an ask
    was left early. heard: one waits for more."""

    def __init__(self, folder):
        super().__init__({}, Home(folder))
        self.asked = []
        self.closed = asyncio.Event()
        self.heard = asyncio.Event()
        self.says: dict[str, asyncio.Queue[events.Event | BaseException]] = defaultdict(asyncio.Queue)
        self.known = Catalogue(["home"], MODELS)

    def say(self, *said, prompt=""):
        for event in said:
            self.says[prompt].put_nowait(event)

    async def catalogue(self, **_):
        return self.known

    async def ask(self, caller, ask, *, to_the_end=False):
        self.asked.append((caller, ask))
        self.known.find(ask.kind, ask.models)
        says = self.says[ask.prompt if ask.prompt in ("a", "b") else ""]
        left = ask.n
        try:
            while left:
                if says.empty():
                    self.heard.set()
                event = await says.get()
                if isinstance(event, BaseException):
                    raise event
                left -= isinstance(event, events.Received)
                yield event
        finally:
            if left:
                self.closed.set()


@pytest.fixture
async def hordes(tmp_path):
    return Told(tmp_path)


@pytest.fixture
async def v1(hordes) -> AsyncIterator[aiohttp.ClientSession]:
    app = make_app(hordes, Access(KEY))
    async with serving(app, Listening("127.0.0.1", 0)) as url:
        headers = {"Authorization": f"Bearer {KEY}"}
        async with aiohttp.ClientSession(f"{url}/v1/", headers=headers) as session:
            yield session


async def post(session, path, status=200, **body):
    async with session.post(path, json=body) as answer:
        assert answer.status == status, await answer.text()
        assert answer.content_type == "application/json"
        return await answer.json()


async def test_models_are_listed_and_looked_up(v1):
    async with v1.get("models") as answer:
        listed = await answer.json()
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["m", "p/1"]
    for model in listed["data"]:
        async with v1.get(f"models/{model['id']}") as answer:
            assert await answer.json() == model
    first = listed["data"][0]
    assert {"object": "model", "owned_by": "home", "kind": "text", "context_length": 2048}.items() <= first.items()
    assert isinstance(first["created"], int)


async def test_with_several_hordes_each_is_listed_with_its_own_name_too(v1, hordes):
    hordes.known = Catalogue(["home", "away"], [*MODELS, Model("text", "m", "away", 1)])
    async with v1.get("models") as answer:
        assert [model["id"] for model in (await answer.json())["data"]] == ["m", "p/1", "home/m", "home/p/1", "away/m"]
    async with v1.get("models/away/m") as answer:
        assert (await answer.json())["owned_by"] == "away"


async def test_a_model_that_is_not_served_is_not_found(v1):
    for name in ("gone", "other", "a%2Fb"):
        async with v1.get(f"models/{name}") as answer:
            assert answer.status == 404
            assert (await answer.json())["error"]["code"] == "model_not_found"
    error = (await post(v1, "chat/completions", 404, **{**CHAT, "model": "other"}))["error"]
    assert (error["code"], error["param"]) == ("model_not_found", "model")


async def test_no_models_because_no_horde_answers_is_an_error(v1, hordes):
    hordes.known = Catalogue(["home"], [])
    async with v1.get("models") as answer:
        assert await answer.json() == {"object": "list", "data": []}
    hordes.known = Catalogue(["home"], [], {"home": "no tracker answers"})
    async with v1.get("models") as answer:
        assert answer.status == 503
        assert "no tracker answers" in (await answer.json())["error"]["message"]


async def test_without_the_key_nothing_is_told_and_nothing_asked(v1, hordes):
    for headers in ({"Authorization": "Bearer " + "x" * 22}, {"Authorization": ""}):
        async with v1.post("chat/completions", json=CHAT, headers=headers) as answer:
            assert answer.status == 401
            assert (await answer.json())["error"]["code"] == "invalid_api_key"
    assert not hordes.asked


async def test_a_chat_is_answered_whole(v1, hordes):
    hordes.say(events.Queued(0, b"j", 5), leased(0), events.TextPiece(0, "Hel"), events.TextPiece(0, "lo"))
    hordes.say(received(0, finish="length", used=2, context=11))

    answer = await post(v1, "chat/completions", **CHAT, frequency_penalty=1)

    assert answer["object"] == "chat.completion"
    assert answer["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello", "refusal": None},
            "logprobs": None,
            "finish_reason": "length",
        }
    ]
    assert answer["usage"] == {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
    assert (answer["model"], answer["system_fingerprint"]) == ("m", "engine 1")
    [(caller, ask)] = hordes.asked
    assert (caller, ask.prompt) == (Caller.MEMBER, [("user", "hello")])


async def test_fields_without_effect_are_named(v1, hordes):
    hordes.say(received(0))
    async with v1.post("chat/completions", json={**CHAT, "presence_penalty": 1, "user": "u"}) as answer:
        assert answer.headers["Potluck-Ignored"] == "presence_penalty"


async def test_completions_of_several_prompts_stand_in_order(v1, hordes):
    for prompt in ("b", "a"):
        hordes.say(leased(0), events.TextPiece(0, "!"), received(0), prompt=prompt)

    answer = await post(v1, "completions", model="m", prompt=["a", "b"], echo=True)

    assert [(choice["index"], choice["text"]) for choice in answer["choices"]] == [(0, "a!"), (1, "b!")]
    assert answer["object"] == "text_completion"
    assert answer["usage"]["prompt_tokens"] == 14


async def test_what_came_is_answered_though_another_choice_failed(v1, hordes):
    hordes.say(leased(1), events.TextPiece(1, "yes"), received(1), events.JobFailed("failed", "no", 0))

    answer = await post(v1, "chat/completions", **CHAT, n=2)

    assert [(choice["index"], choice["message"]["content"]) for choice in answer["choices"]] == [(1, "yes")]


@pytest.mark.parametrize(
    "error, status, code",
    [
        (events.BadRequest("temperature 9: wanted 0 to 5"), 400, "invalid_value"),
        (events.Refused("over_limit", "max_tokens 9: at most 5"), 400, "over_limit"),
        (events.Refused("not_allowed", "no"), 403, "not_allowed"),
        (events.Refused("content_refused", "no"), 400, "content_policy_violation"),
        (events.Refused("timed_out", "for another 60 s"), 403, "timed_out"),
        (events.Refused("suspended", "by act 6"), 403, "suspended"),
        (events.Refused("not_registered", "for members"), 403, "not_registered"),
        (events.JobFailed("too_long", "the prompt does not fit"), 400, "context_length_exceeded"),
        (events.JobFailed("failed", "three workers failed"), 500, "job_failed"),
        (events.JobExpired("expired", "nobody took it"), 503, "job_expired"),
        (events.Unreachable("no tracker"), 503, "unavailable"),
        (ZeroDivisionError("secret words of a prompt"), 500, "internal_error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_goes_wrong_before_the_first_piece_has_its_status(v1, hordes, error, status, code, stream, caplog):
    hordes.say(events.Queued(0, b"j", 5), error)

    answer = await post(v1, "chat/completions", status, **CHAT, stream=stream)

    assert answer["error"]["code"] == code
    assert "secret words" not in json.dumps(answer) + caplog.text


@contextlib.asynccontextmanager
async def streamed(session, path="chat/completions", **body):
    async with session.post(path, json={**body, "stream": True}) as answer:
        assert answer.status == 200
        assert answer.content_type == "text/event-stream"
        yield answer


async def data(answer):
    """The next event; None at the end."""
    line = await answer.content.readline()
    assert await answer.content.readline() == b"\n"
    assert line.startswith(b"data: "), line
    return None if line == b"data: [DONE]\n" else json.loads(line[6:])


async def test_each_piece_leaves_before_the_next_is_made(v1, hordes):
    hordes.say(leased(0), events.TextPiece(0, "one"))
    async with streamed(v1, **CHAT, stream_options={"include_usage": True}) as answer:
        assert (await data(answer))["choices"][0]["delta"]["role"] == "assistant"
        for word in ("one", "two", "three"):
            # What comes next is not there yet: it is given only after this one was read.
            assert (await data(answer))["choices"][0]["delta"] == {"content": word}
            assert hordes.says[""].empty()
            hordes.say(events.TextPiece(0, {"one": "two", "two": "three"}.get(word, "four")))
        await data(answer)
        hordes.say(received(0))
        assert (await data(answer))["choices"][0]["finish_reason"] == "stop"
        assert (await data(answer))["usage"] == {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        assert await data(answer) is None
        assert await answer.content.read() == b""


async def test_what_goes_wrong_later_ends_the_stream_with_an_error(v1, hordes):
    hordes.say(leased(0), events.TextPiece(0, "one"))
    async with streamed(v1, **CHAT) as answer:
        await data(answer)
        await data(answer)
        hordes.say(events.Restarted(0, "no engine goes on"))
        error = (await data(answer))["error"]
        assert error["code"] == "job_failed"
        assert "void" in error["message"]
        assert await answer.content.read() == b""
    assert hordes.closed.is_set()


async def test_a_stream_that_is_cut_off_does_not_pass_for_a_whole_one(v1, hordes):
    hordes.say(leased(0), events.TextPiece(0, "one"))
    async with streamed(v1, **CHAT) as answer:
        await data(answer)
        await data(answer)
        hordes.say(received(0, finish="cancelled"))
        assert (await data(answer))["error"]["code"] == "unavailable"
        assert await answer.content.read() == b""


async def test_streams_of_several_prompts_share_one_answer(v1, hordes):
    hordes.say(events.TextPiece(0, "x"), prompt="a")
    async with streamed(v1, "completions", model="m", prompt=["a", "b"]) as answer:
        choices = [(await data(answer))["choices"][0]]
        hordes.say(events.TextPiece(0, "y"), prompt="b")
        choices.append((await data(answer))["choices"][0])
        hordes.say(received(0), prompt="a")
        choices.append((await data(answer))["choices"][0])
        hordes.say(received(0), prompt="b")
        choices.append((await data(answer))["choices"][0])
        assert await data(answer) is None
    assert [(choice["index"], choice["text"], choice["finish_reason"]) for choice in choices] == [
        (0, "x", None),
        (1, "y", None),
        (0, "", "stop"),
        (1, "", "stop"),
    ]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("begun", [False, True])
async def test_a_client_that_goes_away_cancels(v1, hordes, stream, begun):
    if begun:
        hordes.say(leased(0), events.TextPiece(0, "one"))
    asking = asyncio.create_task(v1.post("chat/completions", json={**CHAT, "stream": stream}).__aenter__())
    if begun and stream:
        answer = await asking
        await data(answer)
        answer.close()
    else:
        async with asyncio.timeout(30):
            await hordes.heard.wait()
        asking.cancel()

    async with asyncio.timeout(30):
        await hordes.closed.wait()


async def test_pictures_come_in_the_answer_or_behind_a_link(v1, hordes):
    for wanted in ("b64_json", "url"):
        hordes.say(leased(0, model="p/1"), events.Picture(0, PNG, "image/png", 7), received(0))
        answer = await post(v1, "images/generations", prompt="a circle", model="p/1", response_format=wanted)
        assert (answer["size"], answer["output_format"], answer["model"]) == ("64x64", "png", "p/1")
        [found] = answer["data"]
        assert found["seed"] == 7
        if wanted == "b64_json":
            assert base64.b64decode(found["b64_json"]) == PNG
            continue
        # The link needs no key: pages show pictures by it.
        async with aiohttp.ClientSession() as nobody, nobody.get(found["url"]) as file:
            assert (file.status, file.content_type, await file.read()) == (200, "image/png", PNG)
    assert all((ask.width, ask.steps) == (64, 9) for _, ask in hordes.asked)


async def test_pictures_that_came_are_answered_though_another_failed(v1, hordes):
    hordes.say(events.Picture(1, PNG, "image/png", 8), received(1), events.JobFailed("failed", "no", 0))

    answer = await post(v1, "images/generations", prompt="a circle", n=2)

    assert [found["seed"] for found in answer["data"]] == [8]


async def test_a_picture_that_was_cut_off_is_not_handed_on(v1, hordes):
    hordes.say(events.Picture(0, PNG, "image/png", 8), received(0, finish="cancelled"))

    error = (await post(v1, "images/generations", 503, prompt="a circle"))["error"]

    assert error["code"] == "unavailable"


async def test_a_picture_that_is_none_is_an_error(v1, hordes):
    hordes.say(events.Picture(0, b"not a picture", "image/png", 8), received(0))

    error = (await post(v1, "images/generations", 500, prompt="a circle", output_format="webp"))["error"]

    assert error["code"] == "job_failed"


async def test_what_this_door_has_not_is_said_in_its_form(v1):
    assert (await post(v1, "embeddings", 404))["error"]["code"] == "not_found"
    async with v1.delete("chat/completions") as answer:
        assert answer.status == 405
        assert (await answer.json())["error"]["code"] == "method_not_allowed"
    async with v1.post("chat/completions", data=io.BytesIO(b" " * 9_000_000)) as answer:
        assert answer.status == 413
        assert (await answer.json())["error"]["code"] == "request_too_large"


async def test_while_nothing_comes_a_stream_says_that_it_is_alive():
    over = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        async with Stream(request, alive_seconds=0.01) as stream:
            await over.wait()
            await stream.say(b"data: x\n\n")
            await stream.response.write_eof()
        return stream.response

    app = web.Application()
    app.add_routes([web.get("/", slow)])
    async with (
        serving(app, Listening("127.0.0.1", 0)) as url,
        aiohttp.ClientSession() as session,
        session.get(url) as answer,
    ):
        assert await answer.content.readexactly(2 * len(WAITING)) == 2 * WAITING
        over.set()
        assert (await answer.content.read()).replace(WAITING, b"") == b"data: x\n\n"
