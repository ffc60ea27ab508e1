"""Requests for pictures and texts: taken in, looked at, taken back."""

from __future__ import annotations

import base64
import dataclasses
import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from aiohttp import web

from peer.client import Client, system_clock
from peer.gateway import bodies, pictures
from peer.gateway.aihorde import progress, wishes
from peer.gateway.aihorde.bodies import ImageInput, TextInput
from peer.gateway.aihorde.wishes import Wish
from peer.gateway.aihorde.wrong import Wrong
from peer.gateway.asks import ImageAsk, Result, TextAsk
from peer.gateway.catalogue import Chosen, check_image, measured, room_for
from peer.gateway.door import CALLER, FILES, HORDES, RUNNING
from peer.gateway.errors import Troubled
from peer.gateway.files import url_of
from peer.gateway.hordes import room_allowed
from peer.gateway.running import Running
from peer.measures import image_work, text_work
from protocol.messages import Quote
from protocol.work import MAX_N, Kind


@dataclass
class Shown:
    """How the results of one request are shown. seed: of the first. links: whether pictures are links. cuts: texts at
    which answers end. ids: of each result. webp: pictures that were looked at, by index; names: of their files, where
    they are links."""

    n: int
    seed: int
    links: bool
    cuts: Sequence[str]
    ids: list[str] = field(init=False)
    webp: dict[int, bytes] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ids = [str(uuid.uuid4()) for _ in range(self.n)]


#: The requests that came through this door; each goes when the gateway lets go of it.
SHOWN: web.AppKey[WeakKeyDictionary[Running, Shown]] = web.AppKey("AIHORDE", WeakKeyDictionary)


async def ask_image(request: web.Request) -> web.Response:
    """`POST /generate/async`."""
    said = await bodies.read(request, ImageInput)
    return await _ask(request, wishes.picture(said), is_dry=bool(said.dry_run), links=said.r2 is not False)


async def ask_text(request: web.Request) -> web.Response:
    """`POST /generate/text/async`."""
    said = await bodies.read(request, TextInput)
    return await _ask(request, wishes.text(said), is_dry=bool(said.dry_run), links=False)


async def check_image_request(request: web.Request) -> web.Response:
    """`GET /generate/check/{id}`."""
    running, _ = _find(request, "image")
    return web.json_response(await _standing(request, running))


async def image_status(request: web.Request) -> web.Response:
    """`GET /generate/status/{id}`, and what is left after a DELETE."""
    running, shown = _find(request, "image")
    _cancel(request, running)
    standing = await _standing(request, running)
    made = [await _image(request, result, shown) for result in running.results.all if result.is_whole]
    return web.json_response({**standing, "generations": made, "shared": False})


async def text_status(request: web.Request) -> web.Response:
    """`GET /generate/text/status/{id}`, and what is left after a DELETE."""
    running, shown = _find(request, "text")
    _cancel(request, running)
    standing = await _standing(request, running)
    made = [
        progress.text(result, shown.seed + result.index, shown.ids[result.index], wishes.cut(result.text, shown.cuts))
        for result in running.results.all
        if result.is_whole
    ]
    return web.json_response({**standing, "generations": made})


async def _ask(request: web.Request, wish: Wish, *, is_dry: bool, links: bool) -> web.Response:
    hordes, caller = request.app[HORDES], request[CALLER]
    seed = secrets.randbelow(wishes.TEXT_SEEDS - MAX_N) if wish.ask.seed is None else wish.ask.seed
    ask = dataclasses.replace(_with_room(wish.ask), seed=seed)
    chosen, client = await hordes.reach(caller, ask)
    quote = await _quote(client, ask, chosen)
    answer: dict[str, Any] = {"kudos": progress.kudos((quote.price + quote.tax) * ask.n)}
    if wish.warnings:
        answer["warnings"] = [dataclasses.asdict(warned) for warned in wish.warnings]
    if is_dry:
        return web.json_response(answer)
    running = request.app[RUNNING].start(caller, ask)
    request.app[SHOWN][running] = Shown(ask.n, seed, links, wish.cuts)
    await _taken_in(running)
    return web.json_response({"id": running.id, **answer}, status=202)


def _with_room(ask: ImageAsk | TextAsk) -> ImageAsk | TextAsk:
    """Clients say how much their model reads at most, which is often far more than this prompt needs, and costs."""
    if isinstance(ask, TextAsk) and ask.context and ask.context >= room_for(ask.texts, ask.max_tokens or 0):
        return dataclasses.replace(ask, context=None)
    return ask


async def _quote(client: Client, ask: ImageAsk | TextAsk, chosen: Chosen) -> Quote:
    """What it costs; refused as the request would be."""
    if isinstance(ask, ImageAsk):
        check_image(ask, chosen)
        work = image_work(ask.width, ask.height, ask.steps, ask.guidance)
        return await client.quote(work, models=chosen.models, n=ask.n)
    tokens, context = measured(ask, chosen, room_allowed(client))
    return await client.quote(text_work(tokens, context), models=chosen.models, n=ask.n)


async def _taken_in(running: Running) -> None:
    """Return when the horde has it, so that whatever it refuses is an answer to the request itself."""
    try:
        while not running.ended and not any(result.job for result in running.results.all):
            await running.changed()
    except BaseException:
        # Its client went away, and will never learn what it would have to ask about.
        running.cancel()
        raise
    if running.trouble is not None and not any(result.job for result in running.results.all):
        error = Troubled(running.trouble.kind, running.trouble.text)
        error.trouble = running.trouble
        raise error


def _find(request: web.Request, kind: Kind) -> tuple[Running, Shown]:
    id = request.match_info["id"]
    try:
        running = request.app[RUNNING].get(id)
    except Troubled as error:
        if error.trouble.kind != "not_found":
            raise
        raise Wrong("RequestNotFound", str(error)) from error
    shown = request.app[SHOWN].get(running)
    if shown is None or running.ask.kind != kind:
        raise Wrong("RequestNotFound", f"there is no {kind} request {id[:100]} here")
    return running, shown


def _cancel(request: web.Request, running: Running) -> None:
    if request.method == "DELETE":
        running.cancel()


async def _standing(request: web.Request, running: Running) -> dict[str, Any]:
    catalogue = await request.app[HORDES].catalogue(at_most_ms=60_000)
    speeds = {name: model.speed for name, model in catalogue.names(running.ask.kind).items()}
    return progress.check(running, running.results.all, lambda name: speeds.get(name, 0), system_clock())


async def _image(request: web.Request, result: Result, shown: Shown) -> dict[str, Any]:
    index = result.index
    if not shown.links:
        if (content := shown.webp.get(index)) is None:
            content = shown.webp[index] = await _webp(result.content)
        return progress.image(result, result.seed, shown.ids[index], base64.b64encode(content).decode())
    files, name = request.app[FILES], shown.names.get(index, "")
    if not name or files.get(name) is None:
        content = await _webp(result.content)
        name = shown.names[index] = files.put(content, pictures.kind(content))
    return progress.image(result, result.seed, shown.ids[index], url_of(request, name))


async def _webp(content: bytes) -> bytes:
    try:
        return await pictures.to(content, pictures.WEBP)
    except pictures.CannotConvert:
        # Better the file that came than nothing: it is paid for, and clients look at what a file is.
        if pictures.kind(content):
            return content
        raise
