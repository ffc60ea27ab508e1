"""OpenAI's door of a real gateway: tracker, workers and gateway are processes, and the client speaks plain HTTP."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from PIL import Image

from peer.engines.spec import SMOLLM2_MODEL
from tests.support.gateway import Gateway
from tests.support.horde import PATIENCE_S, Horde, Process, until

HELLO = [{"role": "user", "content": "hello there"}]
#: Tokens that the slow worker would make, if it were let: half a minute's.
LONG = 100


class V1:
    """A client of that API."""

    def __init__(self, session: aiohttp.ClientSession, gateway: Gateway) -> None:
        self.session = session
        self.gateway = gateway

    async def get(self, path: str, status: int = 200) -> Any:
        async with self.session.get(f"{self.gateway.url}/v1/{path}", headers=self.gateway.bearer) as answer:
            assert answer.status == status, await answer.text()
            return await answer.json()

    async def post(self, path: str, status: int = 200, **body: Any) -> Any:
        url = f"{self.gateway.url}/v1/{path}"
        async with self.session.post(url, json=body, headers=self.gateway.bearer) as answer:
            assert answer.status == status, await answer.text()
            return await answer.json()

    async def chat(self, status: int = 200, **body: Any) -> Any:
        return await self.post("chat/completions", status, **{"messages": HELLO, **body})

    @asynccontextmanager
    async def streamed(self, path: str = "chat/completions", **body: Any) -> AsyncIterator[AsyncIterator[Any]]:
        """The events of a stream, as they come; those that end it are left out."""
        url = f"{self.gateway.url}/v1/{path}"
        async with self.session.post(url, json={**body, "stream": True}, headers=self.gateway.bearer) as answer:
            assert answer.status == 200, await answer.text()
            assert answer.content_type == "text/event-stream"
            yield _events(answer)


async def _events(answer: aiohttp.ClientResponse) -> AsyncIterator[Any]:
    async for line in answer.content:
        if line.startswith(b"data: ") and line != b"data: [DONE]\n":
            yield json.loads(line[6:])


async def whole(coming: AsyncIterator[Any]) -> tuple[dict[int, str], dict[int, str], Any]:
    """Text and end of each choice of a stream, and what it says of usage."""
    texts: dict[int, str] = {}
    ends: dict[int, str] = {}
    usage = None
    async for event in coming:
        assert "error" not in event, event
        usage = event.get("usage") or usage
        for choice in event["choices"]:
            index = choice["index"]
            piece = choice["delta"].get("content", "") if "delta" in choice else choice["text"]
            texts[index] = texts.get(index, "") + piece
            if choice["finish_reason"]:
                ends[index] = choice["finish_reason"]
    return texts, ends, usage


def made_by(worker: Process) -> int:
    """The last token that the worker says it made."""
    return max((line["done"] for line in worker.lines() if line.get("event") == "progress"), default=0)


@asynccontextmanager
async def a_client(horde: Horde, *arguments: str) -> AsyncIterator[V1]:
    patience = aiohttp.ClientTimeout(total=PATIENCE_S)
    async with aiohttp.ClientSession(timeout=patience) as session:
        yield V1(session, await Gateway.start(horde, "me", *arguments))


@pytest.mark.ci_slow
@pytest.mark.timeout(300)
async def test_tokens_come_as_they_are_made_and_none_is_made_for_a_client_that_left(tmp_path: Path) -> None:
    async with Horde.open(tmp_path) as horde:
        slow = await horde.worker("slow", "--dry-run", "text:model=slow,step_ms=300")
        async with a_client(horde) as v1:
            assert [model["id"] for model in (await v1.get("models"))["data"]] == ["slow"]
            async with v1.streamed(model="slow", messages=HELLO, max_tokens=LONG) as coming:
                first = [(await anext(coming))["choices"][0]["delta"]["content"] for _ in range(3)]
            # Who speaks, and two words; the last one is never made, for its worker is told to stop.
            assert first[0] == ""
            assert all(first[1:])
            ends = ("made", "failed", "dropped")
            await until(lambda: any(line.get("event") in ends for line in slow.lines()), "the worker went on")
            assert 2 <= made_by(slow) < LONG
            # Shown once, at the first start.
            assert v1.gateway.process.text().count(v1.gateway.key) == 1
            assert "hello there" not in v1.gateway.process.text()


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_no_step_is_drawn_for_a_client_of_pictures_that_left(tmp_path: Path) -> None:
    steps = 50  # as many as somebody without an account may ask for
    async with Horde.open(tmp_path) as horde:
        slow = await horde.worker("slow", "--dry-run", "image:model=slow,step_ms=600")
        async with a_client(horde) as v1:
            asked = v1.post("images/generations", model="slow", prompt="a red circle", size="64x64", steps=steps)
            async with asyncio.TaskGroup() as group:
                client = group.create_task(asked)
                await until(lambda: made_by(slow) >= 2, "the worker drew nothing")
                client.cancel()
            ends = ("made", "failed", "dropped")
            await until(lambda: any(line.get("event") in ends for line in slow.lines()), "the worker went on")
            assert 2 <= made_by(slow) < steps
        assert (await horde.audit())["ok"]


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_everything_that_a_client_can_ask_of_workers_without_models(tmp_path: Path) -> None:
    # There is no second worker that could try again.
    async with Horde.open(tmp_path, "matching.failed_attempts = 1") as horde:
        await horde.worker(
            "ann",
            *("--dry-run", "text:model=words,length=6,max_tokens=64,max_context=2048"),
            *("--dry-run", "image:model=paint/er,max_pixels=16384"),
            *("--dry-run", "text:model=broken,fail_at=1"),
        )
        async with a_client(horde) as v1:
            await _models(v1)
            await _whole_and_streamed_answers_are_the_same(v1)
            await _several_choices_and_prompts(v1)
            await _more_than_there_is(v1)
            await _errors(v1)
            await _pictures(v1)
        assert (await horde.audit())["ok"]


async def _models(v1: V1) -> None:
    listed = {model["id"]: model for model in (await v1.get("models"))["data"]}
    assert set(listed) == {"words", "paint/er", "broken"}
    assert await v1.get("models/paint/er") == listed["paint/er"]
    assert (await v1.get("models/other", 404))["error"]["code"] == "model_not_found"


async def _whole_and_streamed_answers_are_the_same(v1: V1) -> None:
    asked: dict[str, Any] = {"model": "words", "seed": 5, "messages": HELLO}
    answer = await v1.chat(**asked)
    [choice] = answer["choices"]
    assert choice["finish_reason"] == "stop"
    assert len(choice["message"]["content"].split()) == 6
    # A worker without a model counts words.
    assert answer["usage"] == {"prompt_tokens": 2, "completion_tokens": 6, "total_tokens": 8}

    async with v1.streamed(**asked, stream_options={"include_usage": True}) as coming:
        assert await whole(coming) == ({0: choice["message"]["content"]}, {0: "stop"}, answer["usage"])
    third = choice["message"]["content"].split()[2]
    cut = await v1.chat(**asked, stop=[third])
    assert cut["choices"][0]["message"]["content"].split() == choice["message"]["content"].split()[:2]
    short = await v1.chat(**asked, max_completion_tokens=3)
    assert (short["choices"][0]["finish_reason"], short["usage"]["completion_tokens"]) == ("length", 3)


async def _several_choices_and_prompts(v1: V1) -> None:
    asked: dict[str, Any] = {"model": "default", "prompt": ["one", "two"], "n": 2, "seed": 5, "max_tokens": 4}
    answer = await v1.post("completions", **asked)
    texts = {choice["index"]: choice["text"] for choice in answer["choices"]}
    assert len(set(texts.values())) == 4
    assert answer["usage"] == {"prompt_tokens": 2, "completion_tokens": 16, "total_tokens": 18}
    async with v1.streamed("completions", **asked, echo=True) as coming:
        echoed, ends, usage = await whole(coming)
    assert echoed == {index: ("one", "two")[index // 2] + text for index, text in texts.items()}
    assert set(ends.values()) == {"length"}
    assert usage is None


async def _more_than_there_is(v1: V1) -> None:
    answer = await v1.chat(model="words", max_tokens=100_000)
    assert (answer["usage"]["completion_tokens"], answer["choices"][0]["finish_reason"]) == (6, "stop")


async def _errors(v1: V1) -> None:
    async def error(status: int, **body: Any) -> tuple[str, str | None]:
        found = (await v1.chat(status, **body))["error"]
        assert found["message"]
        return found["code"], found["param"]

    assert await error(404, model="other") == ("model_not_found", "model")
    assert await error(400, model="words", temperature=9) == ("invalid_value", "temperature")
    assert await error(400, model="words", max_tokens=0) == ("invalid_value", "max_tokens")
    assert await error(400, model="words", tools=[{"type": "function"}]) == ("unsupported_parameter", "tools")
    assert (await error(500, model="broken"))[0] == "job_failed"
    long = [{"role": "user", "content": "a " * 3000}]
    assert (await error(400, model="words", messages=long))[0] == "context_length_exceeded"
    assert (await v1.post("images/generations", 404, prompt="x", model="words"))["error"]["param"] == "model"
    assert (await v1.post("images/generations", 400, prompt="x", size="256x256"))["error"]["param"] == "size"
    assert (await v1.post("audio/speech", 404, input="x"))["error"]["code"] == "not_found"


async def _pictures(v1: V1) -> None:
    asked: dict[str, Any] = {"prompt": "a circle", "model": "paint/er", "seed": 5, "steps": 2}
    answer = await v1.post("images/generations", **asked, n=2, output_format="webp")
    assert [found["seed"] for found in answer["data"]] == [5, 6]
    for found in answer["data"]:
        with Image.open(BytesIO(base64.b64decode(found["b64_json"]))) as image:
            assert (image.format, image.size) == ("WEBP", (128, 128))
    linked = await v1.post("images/generations", **asked, size="64x32", response_format="url")
    async with v1.session.get(linked["data"][0]["url"]) as file:
        assert file.content_type == "image/png"
        with Image.open(BytesIO(await file.read())) as image:
            assert (image.format, image.size) == ("PNG", (64, 32))


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_real_model_answers_chats_and_goes_on_from_texts(tmp_path: Path) -> None:
    async with Horde.open(tmp_path) as horde:
        await horde.worker("ann", "--text", SMOLLM2_MODEL)
        async with a_client(horde) as v1:
            asked: dict[str, Any] = {"model": SMOLLM2_MODEL, "messages": HELLO, "seed": 5, "max_tokens": 24}
            answer = await v1.chat(**asked)
            [choice] = answer["choices"]
            assert choice["message"]["content"].strip()
            assert answer["usage"]["prompt_tokens"] > 2
            assert 0 < answer["usage"]["completion_tokens"] <= 24
            async with v1.streamed(**asked, stream_options={"include_usage": True}) as coming:
                texts, ends, usage = await whole(coming)
            assert (texts[0], ends[0], usage) == (
                choice["message"]["content"],
                choice["finish_reason"],
                answer["usage"],
            )
            # The model's own template makes another prompt of it than the bare words are.
            bare = await v1.post("completions", model=SMOLLM2_MODEL, prompt="hello there", seed=5, max_tokens=24)
            assert 0 < bare["usage"]["prompt_tokens"] < answer["usage"]["prompt_tokens"]
            long = [{"role": "user", "content": "hello there " * 5000}]
            refused = await v1.chat(400, model=SMOLLM2_MODEL, messages=long)
            assert refused["error"]["code"] == "context_length_exceeded"
