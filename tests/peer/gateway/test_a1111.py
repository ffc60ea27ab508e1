"""AUTOMATIC1111's door: what its clients write, what is asked of a horde, and what they find in the files."""

from __future__ import annotations

import json
import re
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from PIL import Image

from peer import events
from peer.engines.diffusers import SAMPLERS as LIBRARYS
from peer.engines.dry_run import png
from peer.gateway import a1111, bodies
from peer.gateway.a1111.desk import BEGUN, Desk, Drawing
from peer.gateway.a1111.infotext import info, infotext, with_text
from peer.gateway.a1111.samplers import SAMPLERS, find, sampler_items, scheduler_items
from peer.gateway.a1111.wishes import TextToImage, ask_of, model_of
from peer.gateway.asks import ImageAsk, Result
from peer.gateway.errors import Kind, Trouble, Troubled
from peer.gateway.pictures import CannotConvert

DOCUMENT = Path(__file__).parents[3] / "docs" / "gateway-a1111.md"
DRAWN = png(bytes(range(192)), 8, 8)


def body(**fields: Any) -> TextToImage:
    return bodies.decode(msgspec.json.encode(fields), TextToImage, strict=False)


def asked(**fields: Any) -> ImageAsk:
    return ask_of(body(**fields), "")


def made(**more: Any) -> Result:
    return Result(0, model="a model", seed=77, content=DRAWN, media_type="image/png", finish="stop", **more)


#: What the PyPI package webuiapi sends when it is asked for nothing but a prompt.
WEBUIAPI: dict[str, Any] = {
    "enable_hr": False,
    "hr_scale": 2,
    "hr_upscaler": "Latent",
    "hr_second_pass_steps": 0,
    "hr_checkpoint_name": None,
    "hr_prompt": "",
    "denoising_strength": 0.7,
    "firstphase_width": 0,
    "prompt": "a red circle",
    "styles": [],
    "seed": -1,
    "subseed": -1,
    "subseed_strength": 0.0,
    "batch_size": 1,
    "n_iter": 1,
    "steps": 20,
    "cfg_scale": 7.0,
    "width": 512,
    "height": 512,
    "restore_faces": False,
    "tiling": False,
    "do_not_save_samples": False,
    "negative_prompt": "",
    "eta": 1.0,
    "s_churn": 0,
    "override_settings": {},
    "override_settings_restore_afterwards": True,
    "sampler_name": "Euler a",
    "scheduler": "automatic",
    "sampler_index": "Euler a",
    "script_name": None,
    "script_args": [],
    "send_images": True,
    "save_images": False,
    "alwayson_scripts": {},
}


def test_what_a_real_client_sends_is_asked_for() -> None:
    assert asked(**WEBUIAPI) == ImageAsk(prompt="a red circle", steps=20, guidance=7.0, sampler="euler_a")


def test_every_field_may_be_missing_or_null() -> None:
    assert asked() == ImageAsk(prompt="", steps=50, guidance=7.0)
    assert asked(**dict.fromkeys(WEBUIAPI)) == asked()


def test_numbers_may_stand_in_quotes_as_that_program_takes_them() -> None:
    assert asked(steps="12", cfg_scale="3.5", seed="4", width=64.0).steps == 12


def test_a_batch_and_its_repetitions_are_one_request() -> None:
    assert asked(batch_size=3, n_iter=2).n == 6


@pytest.mark.parametrize(("seed", "wanted"), [(-1, None), (None, None), (0, 0), (5, 5)])
def test_a_seed_below_zero_is_drawn_by_lot(seed: int | None, wanted: int | None) -> None:
    assert asked(seed=seed).seed == wanted


@pytest.mark.parametrize(
    ("fields", "kind", "field"),
    [
        ({"enable_hr": True}, "unsupported", "enable_hr"),
        ({"restore_faces": True}, "unsupported", "restore_faces"),
        ({"tiling": True}, "unsupported", "tiling"),
        ({"subseed_strength": 0.3}, "unsupported", "subseed_strength"),
        ({"refiner_checkpoint": "sdxl refiner"}, "unsupported", "refiner_checkpoint"),
        ({"script_name": "X/Y/Z plot"}, "unsupported", "script_name"),
        ({"alwayson_scripts": {"ControlNet": {"args": []}}}, "unsupported", "alwayson_scripts"),
        ({"sampler_name": "DPM fast"}, "not_found", "sampler_name"),
        ({"sampler_name": "Euler", "scheduler": "Karras"}, "unsupported", "scheduler"),
        ({"scheduler": "Exponential"}, "unsupported", "scheduler"),
        ({"batch_size": 0}, "bad_value", "batch_size"),
        ({"n_iter": -1}, "bad_value", "n_iter"),
        ({"n_iter": 13, "batch_size": 5}, "bad_value", "n_iter"),
        # Nothing is made for each of so many before it is refused.
        ({"batch_size": 10**30}, "bad_value", "n_iter"),
        ({"steps": "many"}, "bad_value", "steps"),
        ({"width": 64.5}, "bad_value", "width"),
        ({"prompt": ["a", "b"]}, "bad_value", "prompt"),
    ],
)
def test_what_cannot_be_had_is_refused_by_name(fields: dict[str, Any], kind: Kind, field: str) -> None:
    with pytest.raises(Troubled) as raised:
        asked(**fields)
    assert (raised.value.trouble.kind, raised.value.trouble.field) == (kind, field)


def test_a_model_for_this_once_has_to_be_a_name() -> None:
    assert body(override_settings={"sd_model_checkpoint": "m"}).checkpoint == "m"
    assert not body(override_settings={"sd_model_checkpoint": None, "sd_vae": "x"}).checkpoint
    with pytest.raises(Troubled, match="sd_model_checkpoint"):
        _ = body(override_settings={"sd_model_checkpoint": 5}).checkpoint


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("Deliberate", "Deliberate"),
        ("Deliberate.safetensors", "Deliberate"),
        ("Deliberate.safetensors [10ec4b29]", "Deliberate"),
        ("deliberate", "Deliberate"),
        ("shapes.ckpt", "shapes.ckpt"),
        ("shapes", "shapes.ckpt"),
        ("twin", "twin"),
        ("nobody's", "nobody's"),
        ("", ""),
    ],
)
def test_a_checkpoint_is_found_by_the_names_that_its_files_have(wanted: str, found: str) -> None:
    assert model_of(wanted, ["Deliberate", "shapes.ckpt", "Twin", "TWIN"]) == found


def test_every_sampler_of_the_picture_engine_has_a_name_here_and_no_other_has_one() -> None:
    assert {one.ours for one in SAMPLERS} == {"", *LIBRARYS}


def test_a_sampler_is_found_by_each_of_its_names() -> None:
    for one in SAMPLERS:
        for name in filter(None, (one.name, one.name.upper(), one.ours, *one.aliases)):
            assert find(name, "automatic") is one


def test_a_scheduler_makes_another_sampler_where_there_is_one() -> None:
    assert find("DPM++ 2M", "Karras").ours == "dpmpp_2m_karras"
    assert find("DPM++ 2M Karras", "karras").ours == "dpmpp_2m_karras"
    assert find("DPM++ 2M Karras", "Automatic").ours == "dpmpp_2m_karras"
    assert find("", "").ours == ""


def test_lists_have_the_fields_that_clients_read() -> None:
    assert {"name": "Euler a", "aliases": ["k_euler_a", "k_euler_ancestral", "euler_a"], "options": {}} in (
        sampler_items()
    )
    assert [one["name"] for one in scheduler_items()] == ["automatic", "karras"]


@pytest.mark.parametrize("prompt", ["a red circle", "ein grüner Kreis", "赤い丸, “quoted”\nof two lines"])
def test_the_file_holds_how_it_was_made_and_the_same_pixels(prompt: str) -> None:
    ask = ImageAsk(prompt=prompt, negative_prompt="blue", steps=20, guidance=7.0, width=8, height=8)
    text = infotext(ask, "Euler a", made())

    found = Image.open(BytesIO(with_text(DRAWN, text)))
    found.load()

    assert found.info["parameters"] == text
    assert found.tobytes() == Image.open(BytesIO(DRAWN)).tobytes()
    assert text.startswith(f"{prompt}\nNegative prompt: blue\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 77, ")


def test_a_value_with_a_comma_cannot_be_taken_for_two() -> None:
    text = infotext(ImageAsk(prompt="p"), "Euler", Result(0, model="org/m: v1, final", seed=1))

    assert 'Model: "org/m: v1, final", Version' in text


def test_what_a_worker_wrote_into_its_file_stays_behind() -> None:
    theirs = with_text(DRAWN, "buy my kudos")

    assert b"buy my kudos" in theirs
    ours = with_text(theirs, "mine")
    assert b"buy my kudos" not in ours
    assert ours == with_text(DRAWN, "mine")


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff", DRAWN[:8], DRAWN[:40], DRAWN[:-1], DRAWN[:8] + bytes(60)])
def test_a_file_that_is_not_whole_is_not_handed_on(content: bytes) -> None:
    with pytest.raises(CannotConvert):
        with_text(content, "anything")


def test_the_answer_says_what_each_picture_was_made_of() -> None:
    ask = ImageAsk(prompt="p", negative_prompt="q", n=2)
    found = json.loads(info(ask, "Euler", 2, [made(), Result(1, model="other", seed=78)], 0))

    assert (found["seed"], found["all_seeds"], found["all_prompts"]) == (77, [77, 78], ["p", "p"])
    assert found["sd_model_name"] == "a model"
    assert found["batch_size"] == 2
    assert "Model: other" in found["infotexts"][1]
    assert "comments" not in found
    assert json.loads(info(ask, "Euler", 2, [], 0, "interrupted"))["comments"] == "interrupted"


def test_an_idle_door_says_so_in_every_field_that_clients_look_at() -> None:
    found = Desk().progress(0)

    assert found["progress"] == 0.0
    assert found["state"]["job_count"] == 0
    assert found["eta_relative"] == 0.0
    assert found["textinfo"] is None


def test_progress_grows_with_every_step_of_every_picture() -> None:
    desk = Desk()
    drawing = Drawing(ImageAsk(prompt="", n=2, steps=10), now=1_000)
    desk.drawings.append(drawing)

    waiting = desk.progress(2_000)
    drawing.results.receive(events.Position(0, ahead=3, workers=1, wait=20))
    told = desk.progress(2_000)
    drawing.results.receive(events.Leased(0, worker=b"w", model="m", attempt=1, price=0, paid=0))
    drawing.results.receive(events.Progress(0, 5, 10))
    drawing.results.receive(events.Preview(0, b"small"))
    half = desk.progress(2_000)
    preview = desk.preview()
    drawing.results.receive(events.Received(0, 1, "stop", "e", 10, (), b"", b""))
    one = desk.progress(2_000)

    assert waiting["progress"] == BEGUN
    assert told["textinfo"] == "waiting for a worker: 3 before it, in about 20 s"
    assert told["eta_relative"] == 20
    assert half["progress"] == pytest.approx(BEGUN + 0.25)
    assert half["state"]["sampling_step"] == 5
    assert half["state"]["sampling_steps"] == 10
    assert half["textinfo"] is None
    assert half["eta_relative"] == pytest.approx(1 / 0.26 - 1)
    assert preview == b"small"
    assert one["progress"] == pytest.approx(BEGUN + 0.5)
    assert one["state"]["job_no"] == 1
    assert desk.preview() == b""


def test_the_model_stays_the_same_until_another_is_chosen_or_it_is_gone() -> None:
    desk = Desk()

    assert desk.checkpoint([]) == ""
    assert desk.checkpoint(["a", "b"]) == "a"
    assert desk.checkpoint(["b", "a"]) == "a"
    assert desk.checkpoint(["b"]) == "b"
    desk.chosen = "c"
    assert desk.checkpoint(["b"]) == "c"


@pytest.mark.parametrize(
    ("kind", "status"),
    [("bad_value", 422), ("unsupported", 422), ("unknown_model", 404), ("unavailable", 503), ("bad_key", 401)],
)
def test_errors_have_that_programs_form(kind: Kind, status: int) -> None:
    found = a1111.refuse(Trouble(kind, "why"))

    assert found.status == status
    assert json.loads(found.body)["detail"] == "why"  # type: ignore[arg-type]
    assert ("WWW-Authenticate" in found.headers) == (kind == "bad_key")


def test_every_call_is_documented() -> None:
    told = DOCUMENT.read_text("utf-8")
    paths = [route.path for route in a1111.routes() if isinstance(route, web.RouteDef)]

    assert len(paths) > 30
    for path in paths:
        name = path.removeprefix("/sdapi/v1/")
        assert re.search(rf"[ `]{re.escape(name)}[`,]", told), f"{name} is not in docs/gateway-a1111.md"


def test_every_sampler_is_documented() -> None:
    told = " ".join(DOCUMENT.read_text("utf-8").split())
    for sampler in SAMPLERS:
        assert sampler.name in told
