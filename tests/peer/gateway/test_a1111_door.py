"""AUTOMATIC1111's door over HTTP, with painters behind it who paint when they are told to."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from PIL import Image

from peer import events
from peer.engines.dry_run import png
from peer.events import Event, JobCancelled, JobExpired
from peer.gateway import a1111, pictures
from peer.gateway.a1111 import desk
from peer.gateway.access import Access
from peer.gateway.asks import Ask, Caller, ImageAsk
from peer.gateway.catalogue import Catalogue, Model
from peer.gateway.hordes import Hordes
from peer.gateway.serve import Listening, make_app, serving
from peer.home import Home

KEY = "x" * 22
SIDE = 8


class Painters(Hordes):
    """Hordes that answer what a test puts into `plan`, and keep what they were asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__({}, Home(folder))
        self.models = ["best", "second"]
        self.asked: list[ImageAsk] = []
        self.callers: list[Caller] = []
        self.plan: asyncio.Queue[Event | Exception | None] = asyncio.Queue()
        self.silent: dict[str, str] = {}
        self.left = asyncio.Event()
        self.taken_in = asyncio.Event()

    async def catalogue(self, *, at_most_ms: int = 0) -> Catalogue:
        return Catalogue(["home"], [Model("image", name, "home", workers=1) for name in self.models], self.silent)

    async def ask(self, caller: Caller, ask: Ask, *, to_the_end: bool = False) -> AsyncGenerator[Event, None]:
        (await self.catalogue()).find(ask.kind, ask.models)
        assert isinstance(ask, ImageAsk)
        self.asked.append(ask)
        self.callers.append(caller)
        try:
            while (told := await self.plan.get()) is not None:
                if isinstance(told, Exception):
                    raise told
                yield told
                if self.plan.empty():
                    self.taken_in.set()
        finally:
            self.left.set()

    def paint(self, index: int = 0, content: bytes | None = None, finish: str = "stop") -> None:
        """One picture, whole or as far as it is."""
        content = content or png(bytes(SIDE * SIDE * 3), SIDE, SIDE)
        media_type = pictures.kind(content)
        for event in (
            events.Leased(index, worker=b"w" * 32, model="best", attempt=1, price=0, paid=0),
            events.Picture(index, content, media_type, 40 + index),
            events.Received(index, 1, finish, "an engine", 9, (), b"", b""),
        ):
            self.plan.put_nowait(event)

    def end(self) -> None:
        """Nothing more comes."""
        self.plan.put_nowait(None)


class Program:
    """A client that knows the key."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session = session
        self.url = f"{url}/sdapi/v1"

    async def get(self, what: str, status: int = 200) -> Any:
        async with self.session.get(f"{self.url}/{what}") as answer:
            assert answer.status == status, await answer.text()
            return await answer.json()

    async def post(self, what: str, status: int = 200, **body: Any) -> Any:
        async with self.session.post(f"{self.url}/{what}", json=body) as answer:
            assert answer.status == status, await answer.text()
            return await answer.json()


@pytest.fixture
def painters(tmp_path: Path) -> Painters:
    return Painters(tmp_path)


@asynccontextmanager
async def opened(painters: Painters, key: str = KEY) -> AsyncIterator[Program]:
    app = make_app(painters, Access(KEY), doors=(a1111,))
    headers = {"Authorization": f"Basic {base64.b64encode(f'anybody:{key}'.encode()).decode()}"}
    async with (
        serving(app, Listening("127.0.0.1", 0)) as url,
        aiohttp.ClientSession(headers=headers) as session,
    ):
        yield Program(session, url)


@pytest.fixture
async def program(painters: Painters) -> AsyncIterator[Program]:
    async with opened(painters) as program:
        yield program


def picture(encoded: str) -> Image.Image:
    found = Image.open(BytesIO(base64.b64decode(encoded, validate=True)))
    found.load()
    return found


async def test_a_picture_comes_as_png_with_how_it_was_made_and_what_was_asked_for(
    painters: Painters, program: Program
) -> None:
    painters.paint(0)
    painters.paint(1)
    painters.end()

    found = await program.post(
        "txt2img", prompt="a red circle", seed=40, batch_size=2, steps=9, width=SIDE, height=SIDE
    )

    info = json.loads(found["info"])
    assert [picture(image).format for image in found["images"]] == ["PNG", "PNG"]
    assert [picture(image).info["parameters"] for image in found["images"]] == info["infotexts"]
    assert info["all_seeds"] == [40, 41]
    assert found["parameters"]["prompt"] == "a red circle"
    assert painters.asked == [
        ImageAsk(prompt="a red circle", models=("best",), width=8, height=8, steps=9, guidance=7.0, seed=40, n=2)
    ]
    assert painters.callers == [Caller.MEMBER]


async def test_whatever_a_worker_sends_a_client_gets_png(painters: Painters, program: Program) -> None:
    drawn = png(bytes(SIDE * SIDE * 3), SIDE, SIDE)
    painters.paint(0, await pictures.to(drawn, pictures.WEBP))
    painters.end()

    [image] = (await program.post("txt2img"))["images"]

    assert picture(image).format == "PNG"
    assert "Seed: 40" in picture(image).info["parameters"]


async def test_images_can_be_left_out_of_the_answer(painters: Painters, program: Program) -> None:
    painters.paint()
    painters.end()

    assert (await program.post("txt2img", send_images=False))["images"] == []


async def test_the_chosen_model_holds_for_later_calls_and_another_can_be_named_for_once(
    painters: Painters, program: Program
) -> None:
    painters.end()
    assert (await program.get("options"))["sd_model_checkpoint"] == "best"
    assert await program.post("options", sd_model_checkpoint="Second.safetensors", samples_format="jpg") is None
    assert (await program.get("options"))["sd_model_checkpoint"] == "second"
    await program.post("txt2img")
    painters.end()
    await program.post("txt2img", override_settings={"sd_model_checkpoint": "best"})

    assert [ask.models for ask in painters.asked] == [("second",), ("best",)]


async def test_a_model_that_nobody_knows_is_refused_and_the_choice_stays(painters: Painters, program: Program) -> None:
    refused = await program.post("options", 404, sd_model_checkpoint="nobody's")
    await program.post("options", 422, sd_model_checkpoint=["a"])
    await program.post("txt2img", 404, override_settings={"sd_model_checkpoint": "nobody's"})

    assert "nobody's" in refused["detail"]
    assert (await program.get("options"))["sd_model_checkpoint"] == "best"


async def test_models_are_listed_by_their_own_names(painters: Painters, program: Program) -> None:
    assert [model["title"] for model in await program.get("sd-models")] == ["best", "second"]
    painters.models = []
    assert await program.get("sd-models") == []
    assert (await program.get("options"))["sd_model_checkpoint"] == ""
    painters.silent = {"home": "no tracker answers"}
    assert "no tracker answers" in (await program.get("sd-models", 503))["detail"]


@pytest.mark.parametrize(
    ("what", "kind"),
    [
        *((name, list) for name in ("samplers", "schedulers", "upscalers", "latent-upscale-modes", "sd-vae", "loras")),
        *((name, list) for name in ("hypernetworks", "face-restorers", "realesrgan-models", "prompt-styles")),
        *((name, dict) for name in ("embeddings", "scripts", "cmd-flags", "memory")),
    ],
)
async def test_menus_are_filled_and_what_a_horde_has_none_of_is_empty(program: Program, what: str, kind: type) -> None:
    assert isinstance(await program.get(what), kind)


async def test_progress_shows_steps_and_the_picture_so_far(painters: Painters, program: Program) -> None:
    assert (await program.get("progress"))["state"]["job_count"] == 0
    small = BytesIO()
    Image.new("RGB", (16, 16)).save(small, "JPEG")
    painters.plan.put_nowait(events.Leased(0, worker=b"w", model="best", attempt=1, price=0, paid=0))
    painters.plan.put_nowait(events.Progress(0, 3, 6))
    painters.plan.put_nowait(events.Preview(0, small.getvalue()))
    asking = asyncio.create_task(program.post("txt2img", steps=6))
    await painters.taken_in.wait()

    shown = await program.get("progress")
    bare = await program.get("progress?skip_current_image=true")
    painters.paint()
    painters.end()
    await asking

    assert shown["progress"] == pytest.approx(0.51)
    assert shown["state"]["sampling_step"] == 3
    assert picture(shown["current_image"]).size == (16, 16)
    assert bare["current_image"] is None
    assert (await program.get("progress"))["progress"] == 0


@pytest.mark.parametrize("what", ["interrupt", "skip"])
async def test_what_is_interrupted_ends_with_pictures_as_far_as_they_are(
    painters: Painters, program: Program, what: str
) -> None:
    painters.paint(1)
    asking = asyncio.create_task(program.post("txt2img", n_iter=3, steps=20))
    await painters.taken_in.wait()
    enough = painters.asked[0].enough
    assert enough is not None
    assert not enough.is_set()

    assert await program.post(what) == {}
    assert enough.is_set()
    assert (await program.get("progress"))["state"]["interrupted"]
    painters.paint(0, finish="cancelled")
    painters.plan.put_nowait(JobCancelled("cancelled", "not begun", 2))
    found = await asking

    info = json.loads(found["info"])
    assert info["all_seeds"] == [40, 41]
    assert "Steps: 9," in info["infotexts"][0]
    assert "Steps: 20," in info["infotexts"][1]
    assert info["comments"] == "interrupted"
    assert len(found["images"]) == 2
    assert (await program.get("progress"))["state"]["job_count"] == 0
    assert await program.post(what) == {}


async def test_an_interrupted_call_answers_also_if_nothing_more_comes(
    painters: Painters, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "PATIENCE_S", 0)
    painters.plan.put_nowait(events.Progress(0, 3, 6))
    asking = asyncio.create_task(program.post("txt2img"))
    await painters.taken_in.wait()

    await program.post("interrupt")

    assert (await asking)["images"] == []
    assert painters.left.is_set()


async def test_a_client_that_goes_away_wants_nothing_any_more(painters: Painters, program: Program) -> None:
    painters.plan.put_nowait(events.Progress(0, 3, 6))
    asking = asyncio.create_task(program.post("txt2img"))
    await painters.taken_in.wait()
    assert not painters.left.is_set()

    asking.cancel()

    async with asyncio.timeout(30):
        await painters.left.wait()


async def test_what_came_before_a_failure_is_not_lost(painters: Painters, program: Program) -> None:
    painters.paint(0)
    painters.plan.put_nowait(JobExpired("expired", "no worker took it in time", 1))

    found = await program.post("txt2img", batch_size=2)

    assert len(found["images"]) == 1
    assert json.loads(found["info"])["comments"] == "no worker took it in time"


async def test_a_picture_that_cannot_be_read_does_not_keep_the_others_back(
    painters: Painters, program: Program
) -> None:
    painters.paint(0, b"\xff\xd8\xff and nothing else")
    painters.paint(1)
    painters.end()
    found = await program.post("txt2img", batch_size=2)
    painters.paint(0, b"no picture at all")
    painters.end()
    refused = await program.post("txt2img", 500)

    assert json.loads(found["info"])["all_seeds"] == [41]
    assert "cannot be read" in json.loads(found["info"])["comments"]
    assert "cannot be read" in refused["detail"]


async def test_a_preview_that_cannot_be_read_is_none(painters: Painters, program: Program) -> None:
    painters.plan.put_nowait(events.Leased(0, worker=b"w", model="best", attempt=1, price=0, paid=0))
    painters.plan.put_nowait(events.Preview(0, b"no picture at all"))
    asking = asyncio.create_task(program.post("txt2img"))
    await painters.taken_in.wait()

    shown = await program.get("progress")
    painters.end()
    await asking

    assert shown["state"]["job_count"] == 1
    assert shown["current_image"] is None


async def test_a_failure_is_an_error_where_nothing_came(painters: Painters, program: Program) -> None:
    painters.plan.put_nowait(JobExpired("expired", "no worker took it in time", 0))

    assert (await program.post("txt2img", 504))["detail"] == "no worker took it in time"
    assert (await program.get("progress"))["state"]["job_count"] == 0


@pytest.mark.parametrize("what", ["img2img", "extra-single-image", "extra-batch-images", "interrogate", "png-info"])
async def test_what_a_horde_cannot_do_is_said(program: Program, what: str) -> None:
    assert "txt2img" in (await program.post(what, 422))["detail"]


@pytest.mark.parametrize("raw", [b"[]", b"{", b'{"steps": "many"}', b"\xff", b'{"prompt": {"a": 1}}'])
async def test_a_body_that_is_no_request_is_refused(painters: Painters, program: Program, raw: bytes) -> None:
    async with program.session.post(f"{program.url}/txt2img", data=raw) as answer:
        assert answer.status == 422
        assert (await answer.json())["error"] == "bad_value"
    assert not painters.asked


async def test_without_the_key_there_is_nothing(painters: Painters) -> None:
    async with opened(painters, key="y" * 22) as stranger:
        for what in ("options", "progress", "sd-models", "nothing-like-that"):
            assert (await stranger.get(what, 401))["error"] == "bad_key"
        await stranger.post("txt2img", 401, prompt="a red circle")
    assert not painters.asked


async def test_an_address_that_is_none_of_that_programs_is_not_found(program: Program) -> None:
    await program.get("no-such-list", 404)
    await program.get("txt2img", 405)
