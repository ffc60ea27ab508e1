"""What this door answers."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from peer.client import system_clock
from peer.events import PotluckError
from peer.gateway import bodies, pictures
from peer.gateway.a1111.desk import Desk, Drawing
from peer.gateway.a1111.infotext import info, infotext, with_text
from peer.gateway.a1111.samplers import sampler_items, scheduler_items
from peer.gateway.a1111.wishes import CHECKPOINT, TextToImage, ask_of, model_of
from peer.gateway.asks import Result
from peer.gateway.door import CALLER, HORDES
from peer.gateway.errors import Troubled, trouble

DESK = web.AppKey("A1111_DESK", Desk)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def answer(content: object) -> web.Response:
    """JSON."""
    return web.Response(body=msgspec.json.encode(content), content_type="application/json")


async def txt2img(request: web.Request) -> web.Response:
    """Paint, and answer when all of it is there. Cancelled when its client goes away."""
    raw = await request.read() or b"{}"
    body = bodies.decode(raw, TextToImage, strict=False)
    desk, served = request.app[DESK], await _served(request)
    ask = ask_of(body, model_of(body.checkpoint, served) or desk.checkpoint(served))
    drawing = Drawing(ask, system_clock())
    desk.drawings.append(drawing)
    comments = ""
    try:
        await drawing.follow(request.app[HORDES].ask(request[CALLER], drawing.ask))
    except PotluckError as error:
        if not drawing.interrupted and not drawing.made:
            raise
        comments = trouble(error).text
    finally:
        desk.drawings.remove(drawing)
    return await _answer(raw, body, drawing, "interrupted" if drawing.interrupted else comments)


async def _answer(raw: bytes, body: TextToImage, drawing: Drawing, comments: str) -> web.Response:
    ask, sampler = drawing.ask, body.sampler.name
    made: list[Result] = []
    images: list[str] = []
    for result in drawing.made:
        try:
            images.append(await _file(result, infotext(ask, sampler, result)))
            made.append(result)
        except pictures.CannotConvert as error:
            comments = str(error)
    if drawing.made and not made:
        raise Troubled("failed", comments)
    return answer(
        {
            "images": images if body.send_images is not False else [],
            "parameters": msgspec.Raw(raw),
            "info": info(ask, sampler, body.batch, made, system_clock(), comments),
        }
    )


async def _file(result: Result, text: str) -> str:
    png = await pictures.to(result.content, pictures.PNG)
    return base64.b64encode(with_text(png, text)).decode()


async def _shown(preview: bytes) -> str | None:
    """A preview as clients show it; None if there is none, or no picture in it."""
    try:
        return base64.b64encode(await pictures.to(preview, pictures.PNG)).decode() if preview else None
    except pictures.CannotConvert:
        return None


async def progress(request: web.Request) -> web.Response:
    """How far it is, with a preview unless the client wants none."""
    desk = request.app[DESK]
    found = desk.progress(system_clock())
    wanted = request.query.get("skip_current_image", "").lower() not in {"true", "1", "yes", "on"}
    return answer(found | {"current_image": await _shown(desk.preview()) if wanted else None})


async def interrupt(request: web.Request) -> web.Response:
    """Stop all that is under way; its calls answer with pictures as far as they are."""
    for drawing in request.app[DESK].drawings:
        drawing.interrupt()
    return answer({})


async def options(request: web.Request) -> web.Response:
    """The settings that mean something here."""
    current = request.app[DESK].checkpoint(await _served(request))
    return answer(
        {
            CHECKPOINT: current,
            "sd_checkpoint_hash": "",
            "sd_vae": "Automatic",
            "samples_format": "png",
            "CLIP_stop_at_last_layers": 1,
            "enable_pnginfo": True,
            "show_progress_every_n_steps": 1,
        }
    )


async def set_options(request: web.Request) -> web.Response:
    """Choose the model for later calls; other settings are ignored."""
    wanted = (await bodies.read(request, dict[str, Any])).get(CHECKPOINT)
    if wanted is not None:
        if not isinstance(wanted, str):
            raise Troubled("bad_value", f"{CHECKPOINT}: wanted a model's name", CHECKPOINT)
        served = await _served(request)
        model = model_of(wanted, served)
        if model:
            (await request.app[HORDES].catalogue()).find("image", (model,))
        request.app[DESK].chosen = model
    return answer(None)


async def models(request: web.Request) -> web.Response:
    """The picture models that are served now, by the names that hordes announce."""
    (await request.app[HORDES].catalogue()).check_heard()
    return answer(
        [
            {"title": name, "model_name": name, "hash": None, "sha256": None, "filename": name, "config": None}
            for name in await _served(request)
        ]
    )


async def _served(request: web.Request) -> list[str]:
    return list((await request.app[HORDES].catalogue()).names("image"))


def always(content: object) -> Handler:
    """A handler that answers the same each time."""

    async def handle(_: web.Request) -> web.Response:
        return answer(content)

    return handle


def never(what: str) -> Handler:
    """A handler that says what cannot be had."""

    async def handle(_: web.Request) -> web.Response:
        raise Troubled("unsupported", f"a horde does not {what}: use txt2img")

    return handle


#: Memory is a worker's matter; that program says so in this form too if it cannot tell.
_ELSEWHERE = {"error": "pictures are made on other people's machines"}

#: What a horde has none of, in the form in which clients expect a list of it.
NOTHING: dict[str, object] = {
    "upscalers": [{"name": "None", "model_name": None, "model_path": None, "model_url": None, "scale": 4.0}],
    "latent-upscale-modes": [],
    "sd-vae": [],
    "hypernetworks": [],
    "face-restorers": [],
    "realesrgan-models": [],
    "prompt-styles": [],
    "loras": [],
    "embeddings": {"loaded": {}, "skipped": {}},
    "scripts": {"txt2img": [], "img2img": []},
    "script-info": [],
    "extensions": [],
    "cmd-flags": {},
    "memory": {"ram": _ELSEWHERE, "cuda": _ELSEWHERE},
    "samplers": sampler_items(),
    "schedulers": scheduler_items(),
}
#: Calls by which that program looks at its disk or its memory again.
DONE_ANYWAY = (
    "refresh-checkpoints",
    "refresh-vae",
    "refresh-loras",
    "refresh-embeddings",
    "reload-checkpoint",
    "unload-checkpoint",
)
REFUSED = {
    "img2img": "draw over a picture",
    "extra-single-image": "enlarge pictures",
    "extra-batch-images": "enlarge pictures",
    "interrogate": "describe pictures",
    "png-info": "read files",
}


def routes(prefix: str) -> list[web.AbstractRouteDef]:
    """All of them."""
    return [
        web.post(f"{prefix}/txt2img", txt2img),
        web.get(f"{prefix}/progress", progress),
        web.post(f"{prefix}/interrupt", interrupt),
        # One request's pictures are made by several workers at the same time: there is none to go on with.
        web.post(f"{prefix}/skip", interrupt),
        web.get(f"{prefix}/options", options),
        web.post(f"{prefix}/options", set_options),
        web.get(f"{prefix}/sd-models", models),
        *(web.get(f"{prefix}/{name}", always(content)) for name, content in NOTHING.items()),
        *(web.post(f"{prefix}/{name}", always(None)) for name in DONE_ANYWAY),
        *(web.post(f"{prefix}/{name}", never(what)) for name, what in REFUSED.items()),
    ]
