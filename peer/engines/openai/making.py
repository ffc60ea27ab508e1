"""One job at a server with OpenAI's API, from the request to the last event."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from io import BytesIO
from typing import Any

import aiohttp

from peer.engines.base import ArtifactMade, Done, EngineError, StepsDone
from peer.engines.maker import Dropped, Job
from peer.engines.openai.asks import Dialect, image_request, text_request
from peer.engines.openai.says import Answer, Events, Trouble, count_of
from peer.engines.openai.server import MAX_PICTURE_BYTES, Server
from peer.engines.spec import EngineMissing
from peer.engines.stops import StopFilter
from protocol.work import ImageWork, TextPrivate, TextWork, texts_of

#: While the server says nothing, the worker's program hears so often that this one lives.
ALIVE_S = 20.0
#: No token is longer than this for long: what has more bytes for each has no room, whatever the tokens are.
TOKEN_BYTES = 16
#: What a server says that has no `/completions`. A raw prompt is then said as a user's message.
NO_SUCH_API = (404, 405)


class Making:
    """One job. named: the server's name for the model. chat_only: it has no `/completions`."""

    def __init__(self, server: Server, dialect: Dialect, named: str, job: Job, *, chat_only: bool) -> None:
        self._server = server
        self._dialect = dialect
        self._named = named
        self._job = job
        self._chat_only = chat_only
        self._answer: Answer | None = None

    async def run(self, silence_s: float) -> Done:
        """Make it, or end as soon as it is halted; raises `EngineError`, and `Dropped` if nobody wants it any more."""
        loop = asyncio.get_running_loop()

        def halt() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, as the job has
                loop.call_soon_threadsafe(making.cancel)

        async with self._server.session(silence_s) as http:
            work = self._job.task.work
            making = asyncio.create_task(
                self._picture(http, work) if isinstance(work, ImageWork) else self._text(http, work)
            )
            alive = asyncio.create_task(self._say_alive())
            self._job.when_halted(halt)
            try:
                return await making
            except asyncio.CancelledError:
                self._job.check()
                return Done(0, finish="cancelled") if self._answer is None else self._answer.cancelled()
            finally:
                alive.cancel()

    async def _say_alive(self) -> None:
        work = self._job.task.work
        total = work.steps if isinstance(work, ImageWork) else work.max_tokens
        with contextlib.suppress(Dropped):
            while True:
                await asyncio.sleep(ALIVE_S)
                answer = self._answer
                self._job.say(StepsDone(0, total) if answer is None else StepsDone(answer.made, answer.most))

    # Texts

    async def _text(self, http: aiohttp.ClientSession, work: TextWork) -> Done:
        task, private = self._job.task, self._job.task.private
        assert isinstance(private, TextPrivate)  # noqa: S101 (why_not saw to it)
        templated = await self._templated(http, private)
        asked = await self._prompt_tokens(http, private, templated)
        if sum(len(text.encode()) for text in texts_of(private)) > TOKEN_BYTES * work.context_tokens:
            asked = asked or work.context_tokens
        if asked + work.max_tokens > work.context_tokens:
            raise EngineError(
                "too_long",
                f"a prompt of {asked} tokens and an answer of up to {work.max_tokens} do not fit into "
                f"{work.context_tokens} tokens: shorten the prompt, or ask for fewer tokens or more context",
            )
        # What was shown already counts towards the limit, so that continued and whole answers end alike.
        raw = templated or private.prompt
        begun = 0
        if task.prefix:
            begun = await self._tokens(http, raw + task.prefix)
            begun = max(0, begun - asked) if raw else begun
        left = work.max_tokens - begun
        if left <= 0:
            return Done(0, asked + begun, "length")
        self._answer = Answer(self._job, left, StopFilter(private.stop, task.prefix), asked + begun)
        try:
            return await self._ask(http, left, templated, chat_only=self._chat_only)
        except Trouble as trouble:
            if self._chat_only or not private.prompt or trouble.status not in NO_SUCH_API:
                raise
        return await self._ask(http, left, "", chat_only=True)

    async def _ask(self, http: aiohttp.ClientSession, most: int, templated: str, *, chat_only: bool) -> Done:
        path, body = text_request(
            self._dialect, self._named, self._job.task, most, chat_only=chat_only, templated=templated
        )
        assert self._answer is not None  # noqa: S101 (made before)
        return await self._hear(http, path, body, self._answer)

    async def _hear(self, http: aiohttp.ClientSession, path: str, body: dict[str, Any], answer: Answer) -> Done:
        events = Events()
        async with contextlib.aclosing(self._server.stream(http, path, body, events)) as stream:
            async for said in stream:
                if answer.hear(said):
                    break
        return answer.end(ended=events.ended)

    async def _templated(self, http: aiohttp.ClientSession, private: TextPrivate) -> str:
        """The messages in the model's own template, where the server tells it."""
        if self._dialect.name != "llama.cpp" or not private.messages or self._chat_only:
            return ""
        messages = [{"role": message.role, "content": message.content} for message in private.messages]
        try:
            said, _ = await self._server.ask(http, f"{self._server.root}/apply-template", {"messages": messages})
        except Trouble as trouble:
            if trouble.blame == "server" or not trouble.status:
                raise
            if trouble.status in (401, 404):
                return ""
            roles = ", ".join(message.role for message in private.messages[:20])
            text = f"the model's chat template does not take these roles: {roles}"
            raise Trouble("unsupported", text, "doubt") from trouble
        return str(said.get("prompt", ""))

    async def _prompt_tokens(self, http: aiohttp.ClientSession, private: TextPrivate, templated: str) -> int:
        """Tokens of the prompt; 0 where nobody knows."""
        if self._dialect.name == "vllm" and private.messages:
            messages = [{"role": message.role, "content": message.content} for message in private.messages]
            return await self._count(http, "/tokenize", {"model": self._named, "messages": messages}, "count")
        return await self._tokens(http, templated or "\n".join(texts_of(private)[: -len(private.stop) or None]))

    async def _tokens(self, http: aiohttp.ClientSession, text: str) -> int:
        """Tokens of a text; 0 where nobody knows."""
        match self._dialect.name:
            case "llama.cpp":
                asked = {"content": text, "add_special": True, "parse_special": True}
                return await self._count(http, "/tokenize", asked, "tokens")
            case "vllm":
                return await self._count(http, "/tokenize", {"model": self._named, "prompt": text}, "count")
            case "koboldcpp":
                return await self._count(http, "/api/extra/tokencount", {"prompt": text}, "value")
        return 0

    async def _count(self, http: aiohttp.ClientSession, path: str, asked: dict[str, Any], name: str) -> int:
        try:
            said, _ = await self._server.ask(http, self._server.root + path, asked)
        except Trouble as trouble:
            if trouble.blame == "server":
                raise
            return 0
        found = said.get(name)
        return len(found) if isinstance(found, list) else count_of(found)

    # Pictures

    async def _picture(self, http: aiohttp.ClientSession, work: ImageWork) -> Done:
        path, body = image_request(self._dialect, self._named, self._job.task)
        said, _ = await self._server.ask(http, self._server.url + path, body, MAX_PICTURE_BYTES)
        data = said.get("data")
        one = data[0] if isinstance(data, list) and data and isinstance(data[0], dict) else {}
        if isinstance(one.get("b64_json"), str) and one["b64_json"]:
            try:
                content = base64.b64decode(one["b64_json"].rpartition(",")[2])
            except ValueError as error:
                raise Trouble("failed", "the back end's picture is not in base64", "failure") from error
        elif isinstance(one.get("url"), str):
            content = await self._server.fetch(http, one["url"])
        else:
            raise Trouble("failed", "the back end ended without a picture", "failure")
        png = await asyncio.to_thread(png_of, content, work.width, work.height)
        self._job.say(StepsDone(work.steps, work.steps))
        self._job.say(ArtifactMade("image/png", png))
        return Done(work.steps)


def png_of(content: bytes, width: int, height: int) -> bytes:
    """The picture as a PNG file; raises `Trouble` unless it is a picture of these measures."""
    from PIL import Image

    try:
        with Image.open(BytesIO(content)) as image:
            if image.size != (width, height):
                made = f"{image.width}x{image.height}"
                text = f"the back end made a picture of {made} pixels; {width}x{height} was asked for"
                raise Trouble("unsupported", text, "doubt")
            if image.format == "PNG":
                image.verify()
                return content
            png = BytesIO()
            image.convert("RGB").save(png, "PNG")
            return png.getvalue()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise Trouble("failed", "the back end's picture cannot be read", "failure") from error


def check_pillow() -> None:
    """Raise `EngineMissing` where pictures cannot be read."""
    try:
        import PIL  # noqa: F401 (whether it is here)
    except ModuleNotFoundError as error:
        raise EngineMissing("pictures need the package Pillow; it comes with potluck[worker]") from error
