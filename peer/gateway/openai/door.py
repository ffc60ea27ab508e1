"""OpenAI's API: models, chat/completions, completions and images/generations, under /v1."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any

import msgspec
from aiohttp import web

from peer.client import system_clock
from peer.events import Event
from peer.gateway import pictures
from peer.gateway.access import Style
from peer.gateway.asks import Result, Results, TextAsk
from peer.gateway.door import CALLER, FILES, HORDES
from peer.gateway.errors import Trouble, Troubled, trouble
from peer.gateway.files import url_of
from peer.gateway.openai import models
from peer.gateway.openai.answers import CUT, Choice, whole
from peer.gateway.openai.asking import chat_ask, completion_asks, picture_ask, wanted_picture
from peer.gateway.openai.bodies import Chat, Completion, Picture, Sampled, read
from peer.gateway.openai.faults import fault
from peer.gateway.openai.lines import error_line
from peer.gateway.openai.stream import Stream
from peer.gateway.openai.talk import Talk

NAME = "OpenAI"
PREFIXES = ("/v1",)
KEYS: Style = "bearer"

#: Names the fields of a request that changed nothing.
IGNORED = "Potluck-Ignored"

log = logging.getLogger(__name__)

Take = Callable[[int, Event], Awaitable[None]]


def prepare(app: web.Application) -> None:
    """Nothing is kept."""


def routes() -> Sequence[web.AbstractRouteDef]:
    """All that this door answers."""
    return [
        web.get("/v1/models", _models),
        web.get("/v1/models/{name:.+}", _model),
        web.post("/v1/chat/completions", _chat),
        web.post("/v1/completions", _completions),
        web.post("/v1/images/generations", _pictures),
    ]


def refuse(trouble: Trouble) -> web.Response:
    """An error in OpenAI's form."""
    found = fault(trouble)
    return web.Response(
        status=found.status, body=found.as_json(), content_type="application/json", headers=found.headers
    )


# Models


async def _models(request: web.Request) -> web.Response:
    catalogue = await request.app[HORDES].catalogue()
    catalogue.check_heard()
    return _json({"object": "list", "data": models.listed(catalogue)})


async def _model(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    for model in models.listed(await request.app[HORDES].catalogue()):
        if model["id"] == name:
            return _json(model)
    raise Troubled("unknown_model", f"no model {name[:120]!r} is served now: /v1/models lists those that are", "model")


# Texts


async def _chat(request: web.Request) -> web.StreamResponse:
    body = read(await request.read(), Chat)
    return await _answer(request, body, [chat_ask(body)], [""])


async def _completions(request: web.Request) -> web.StreamResponse:
    body = read(await request.read(), Completion)
    asks = completion_asks(body)
    return await _answer(request, body, asks, body.prompts if body.echo else [""] * len(asks))


async def _answer(
    request: web.Request, body: Sampled, asks: Sequence[TextAsk], echoes: Sequence[str]
) -> web.StreamResponse:
    """Ask, and answer whole or as it comes. echoes: what each ask's texts begin with, though no worker makes it."""
    n = body.n or 1
    choices = [
        Choice(at * n + index, echo=echo, keeps=not body.stream) for at, echo in enumerate(echoes) for index in range(n)
    ]
    asked = [request.app[HORDES].ask(request[CALLER], ask) for ask in asks]
    if body.stream:
        return await _streamed(request, body, asked, choices)

    async def take(at: int, event: Event) -> None:
        choices[at * n + event.index].receive(event)

    error = await _each(asked, take)
    came = [choice for choice in choices if choice.finish is not None]
    if error is not None and not came:
        raise error
    chat = isinstance(body, Chat)
    model = next((choice.model for choice in came), body.model or "")
    return _json(whole(_name(chat=chat), _created(), model, came, n, chat=chat), _headers(body))


async def _streamed(
    request: web.Request, body: Sampled, asked: Sequence[AsyncGenerator[Event]], choices: Sequence[Choice]
) -> web.StreamResponse:
    n, chat = body.n or 1, isinstance(body, Chat)
    talk = Talk(_name(chat=chat), _created(), body.model or "", choices, n, chat=chat, with_usage=body.with_usage)

    async def take(at: int, event: Event) -> None:
        if said := talk.hear(at, event):
            await stream.say(said)

    async with Stream(request, _headers(body)) as stream:
        try:
            error = await _each(asked, take)
            if error is not None and not stream.begun:
                raise error
            await stream.say(talk.end() if error is None else error_line(fault(_told(error))))
            await stream.response.write_eof()
        except ConnectionError:
            log.info("a client went away in the middle of its answer")
    return stream.response


def _told(error: BaseException) -> Trouble:
    found = trouble(error)
    if found.kind == "internal":
        # Without the error's own words, which may quote somebody's prompt.
        where = "".join(traceback.format_tb(error.__traceback__))
        log.error("a stream ended with an internal error: %s\n%s", type(error).__name__, where)
    return found


async def _each(asked: Sequence[AsyncGenerator[Event]], take: Take) -> BaseException | None:
    """Pass on what happens to each ask, until all have ended; the first error, which keeps none of the others from its
    end. Cancelled, it cancels what is not done."""

    async def follow(at: int) -> None:
        async with contextlib.aclosing(asked[at]) as coming:
            async for event in coming:
                await take(at, event)

    if len(asked) > 1:
        ended = await asyncio.gather(*(follow(at) for at in range(len(asked))), return_exceptions=True)
        return next((error for error in ended if error is not None), None)
    try:
        await follow(0)
    except Exception as error:  # noqa: BLE001 (the caller raises it again, or tells the client)
        return error
    return None


# Pictures


async def _pictures(request: web.Request) -> web.Response:
    body = read(await request.read(), Picture)
    media_type, as_url = body.media_type, body.as_url
    hordes = request.app[HORDES]
    ask = picture_ask(body, await hordes.choose(wanted_picture(body), request[CALLER]))
    results = Results(ask.n)

    async def take(_: int, event: Event) -> None:
        results.receive(event)

    error = await _each([hordes.ask(request[CALLER], ask)], take)
    # A picture that was cut off is a blurred one, though it came with a receipt.
    came = [result for result in results.all if result.is_whole and result.finish != "cancelled" and result.content]
    if not came:
        raise error or Troubled("unavailable", CUT)
    data = [await _one_picture(request, result, media_type, as_url=as_url) for result in came]
    answer = {
        "created": _created(),
        "model": next((result.model for result in came), ""),
        "output_format": media_type.removeprefix("image/"),
        "size": f"{ask.width}x{ask.height}",
        "data": data,
    }
    return _json(answer)


async def _one_picture(request: web.Request, result: Result, media_type: str, *, as_url: bool) -> dict[str, Any]:
    try:
        content = await pictures.to(result.content, media_type)
    except pictures.CannotConvert as error:
        raise Troubled("failed", str(error)) from error
    if as_url:
        name = request.app[FILES].put(content, media_type)
        return {"url": url_of(request, name), "seed": result.seed}
    # Bytes are written as base64.
    return {"b64_json": content, "seed": result.seed}


# Small things


def _json(content: object, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=msgspec.json.encode(content), content_type="application/json", headers=headers)


def _headers(body: Sampled) -> dict[str, str]:
    return {IGNORED: ", ".join(body.ignored)} if body.ignored else {}


def _name(*, chat: bool) -> str:
    return f"{'chatcmpl' if chat else 'cmpl'}-{secrets.token_urlsafe(18)}"


def _created() -> int:
    return system_clock() // 1000
