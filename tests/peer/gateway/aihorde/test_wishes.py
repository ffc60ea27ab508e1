"""What clients of AI Horde wish for, as what a horde is asked."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from peer.engines.diffusers import SAMPLERS as OURS
from peer.gateway import bodies
from peer.gateway.aihorde import wishes
from peer.gateway.aihorde.bodies import ImageInput, TextInput
from peer.gateway.aihorde.lenient import LenientAsk
from peer.gateway.aihorde.wishes import Wish
from peer.gateway.aihorde.wrong import Wrong, code_of
from peer.gateway.asks import ImageAsk, TextAsk
from protocol.work import MAX_N, MAX_SEED


def image(**fields: Any) -> Wish:
    return wishes.picture(bodies.decode(msgspec.json.encode({"prompt": "a cup", **fields}), ImageInput))


def text(**fields: Any) -> Wish:
    return wishes.text(bodies.decode(msgspec.json.encode({"prompt": "a cup", **fields}), TextInput))


def test_what_is_not_said_is_as_on_ai_horde() -> None:
    assert image().ask == LenientAsk(prompt="a cup", width=512, height=512, steps=30, guidance=7.5, n=1, seed=None)
    assert image(params=None, models=None, unknown={"deep": [1]}) == image()
    assert text().ask == TextAsk(prompt="a cup", max_tokens=80, context=None, n=1, seed=None)


def test_all_that_a_horde_knows_is_asked_for() -> None:
    params = {
        "n": 3,
        "width": 1024,
        "height": 64.0,
        "steps": 12,
        "cfg_scale": 3,
        "seed": "77",
        "sampler_name": "k_euler_a",
    }
    assert image(prompt="a cup ### a plate ### blue", models=["a", "b", "a", ""], params=params).ask == LenientAsk(
        prompt="a cup",
        negative_prompt="a plate ### blue",
        models=("a", "b"),
        width=1024,
        height=64,
        steps=12,
        guidance=3,
        seed=77,
        sampler="euler_a",
        n=3,
    )
    params = {
        "n": 2,
        "max_length": 100,
        "max_context_length": 2048,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 0,
        "min_p": 0,
        "rep_pen": 1.1,
        "stop_sequence": ["\n", "\n", "END"],
    }
    assert text(prompt="### as it is", params=params).ask == TextAsk(
        prompt="### as it is",
        max_tokens=100,
        context=2048,
        temperature=0.5,
        top_p=0.9,
        top_k=0,
        min_p=0,
        repeat_penalty=1.1,
        stop=("\n", "END"),
        n=2,
    )


def test_no_results_means_one() -> None:
    assert image(params={"n": 0}).ask.n == 1


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (None, None),
        ("", None),
        ("5", 5),
        (5, 5),
        (-5, 5),
        ("-5", 5),
        (5.0, 5),
        (2**32, 2**32),
        (10**40, 10**40 % 2**32),
    ],
)
def test_a_seed_is_a_number_however_it_is_written(said: Any, meant: int | None) -> None:
    assert wishes.seed_of(said) == meant


def test_a_seed_in_words_always_means_the_same_number() -> None:
    found = wishes.seed_of("my lucky seed")
    assert found == wishes.seed_of("my lucky seed")
    assert found != wishes.seed_of("another one")
    assert found is not None
    assert 0 <= found <= MAX_SEED - MAX_N


def test_samplers_have_our_names_and_those_that_we_have_not_leave_the_choice_to_the_model() -> None:
    assert set(wishes.SAMPLERS.values()) <= set(OURS)
    assert image(params={"sampler_name": "DDIM"}).ask == image(params={"sampler_name": "ddim"}).ask
    drawn = image(params={"sampler_name": "k_dpmpp_2m", "karras": True}).ask
    assert isinstance(drawn, ImageAsk)
    assert drawn.sampler == "dpmpp_2m_karras"
    unknown = image(params={"sampler_name": "k_lms"})
    assert isinstance(unknown.ask, ImageAsk)
    assert unknown.ask.sampler == ""
    assert [warned.code for warned in unknown.warnings] == ["SamplerMismatch"]
    assert not image(params={"sampler_name": "k_heun"}).warnings


def test_settings_that_would_change_something_and_are_left_out_are_named() -> None:
    assert not text(params={"top_a": 0, "tfs": 1, "typical": 1.0, "frmttriminc": False, "sampler_order": [6]}).warnings
    (warned,) = text(params={"top_a": 0.2, "tfs": 1, "singleline": True}).warnings
    assert "top_a, singleline" in warned.message
    assert [one.code for one in image(params={"hires_fix": True, "clip_skip": 2}).warnings] == [
        "HiResMismatch",
        "ClipSkipMismatch",
    ]


def test_stop_texts_that_a_request_has_no_room_for_end_the_answer_here() -> None:
    stops = [f"stop {number}" for number in range(20)]
    wish = text(params={"stop_sequence": stops})
    assert isinstance(wish.ask, TextAsk)
    assert len(wish.ask.stop) == wishes.MAX_STOPS
    assert [*wish.ask.stop, *wish.cuts] == stops
    assert wishes.cut("a stop 19 b stop 17 c", wish.cuts) == "a "
    assert wishes.cut("nothing of it", wish.cuts) == "nothing of it"


REFUSED: tuple[tuple[dict[str, Any], str, str], ...] = (
    ({"prompt": ""}, "MissingPrompt", "prompt"),
    ({"prompt": None}, "MissingPrompt", "prompt"),
    ({"prompt": "  "}, "MissingPrompt", "prompt"),
    ({"prompt": " ### blue"}, "MissingPrompt", "prompt"),
    ({"prompt": "x" * 100_001}, "InvalidPromptSize", "prompt"),
    ({"params": {"width": 65}}, "InvalidSize", "params.width"),
    ({"params": {"width": 520}}, "InvalidSize", "params.width"),
    ({"params": {"height": 0}}, "InvalidSize", "params.height"),
    ({"params": {"height": 4160}}, "InvalidSize", "params.height"),
    ({"params": {"width": -64}}, "InvalidSize", "params.width"),
    ({"params": {"steps": 501}}, "TooManySteps", "params.steps"),
    ({"params": {"steps": 0}}, "BadRequest", "params.steps"),
    ({"params": {"steps": 1.5}}, "BadRequest", "params.steps"),
    ({"params": {"n": 65}}, "BadRequest", "params.n"),
    ({"params": {"n": -1}}, "BadRequest", "params.n"),
    ({"params": {"n": 10**400}}, "BadRequest", "params.n"),
    ({"params": {"steps": -(10**400)}}, "BadRequest", "params.steps"),
    ({"params": {"cfg_scale": 101}}, "BadRequest", "params.cfg_scale"),
    ({"params": {"tiling": True}}, "TilingMismatch", "params.tiling"),
    ({"params": {"transparent": True}}, "InvalidTransparencyModel", "params.transparent"),
    ({"params": {"control_type": "canny"}}, "ControlNetUnsupported", "params.control_type"),
    ({"params": {"loras": [{"name": "x"}]}}, "BadRequest", "params.loras"),
    ({"params": {"tis": [{"name": "x"}]}}, "BadRequest", "params.tis"),
    ({"params": {"post_processing": ["GFPGAN"]}}, "BadRequest", "params.post_processing"),
    ({"params": {"workflow": "qr_code"}}, "BadRequest", "params.workflow"),
    ({"source_image": "aGk="}, "Img2ImgMismatch", "source_image"),
    ({"source_mask": "aGk="}, "SourceMaskUnnecessary", "source_mask"),
    ({"extra_source_images": [{"image": "aGk="}]}, "InvalidExtraSourceImages", "extra_source_images"),
    ({"workers": ["abc"]}, "BadRequest", "workers"),
    ({"webhook": "https://example.org"}, "BadRequest", "webhook"),
)


@pytest.mark.parametrize(("said", "rc", "field"), REFUSED)
def test_a_picture_that_cannot_be_is_refused_in_the_word_for_it(said: dict[str, Any], rc: str, field: str) -> None:
    with pytest.raises(Wrong) as raised:
        image(**said)
    assert code_of(raised.value.trouble) == (rc, 400)
    assert raised.value.trouble.field == field
    assert raised.value.trouble.text


@pytest.mark.parametrize(
    ("params", "rc", "field"),
    [
        ({"max_length": 512, "max_context_length": 512}, "TokenOverflow", "params.max_length"),
        ({"max_length": 600, "max_context_length": 512}, "TokenOverflow", "params.max_length"),
        ({"max_length": 0}, "BadRequest", "params.max_length"),
        ({"max_length": 32_769}, "BadRequest", "params.max_length"),
        ({"max_context_length": 0}, "BadRequest", "params.max_context_length"),
        ({"temperature": 5.1}, "BadRequest", "params.temperature"),
        ({"top_p": -0.1}, "BadRequest", "params.top_p"),
        ({"top_k": 1001}, "BadRequest", "params.top_k"),
        ({"min_p": 2}, "BadRequest", "params.min_p"),
        ({"rep_pen": 6}, "BadRequest", "params.rep_pen"),
        ({"stop_sequence": ["x" * 201]}, "ExcessiveStopSequence", "params.stop_sequence"),
    ],
)
def test_a_text_that_cannot_be_is_refused_in_the_word_for_it(params: dict[str, Any], rc: str, field: str) -> None:
    with pytest.raises(Wrong) as raised:
        text(params=params)
    assert code_of(raised.value.trouble) == (rc, 400)
    assert raised.value.trouble.field == field


def test_a_penalty_of_zero_is_none() -> None:
    assert text(params={"rep_pen": 0}) == text()


def test_a_blacklist_of_workers_and_source_processing_without_a_source_keep_nobody_from_a_picture() -> None:
    assert image(workers=["abc"], worker_blacklist=True, source_processing="img2img", trusted_workers=True) == image()


def test_every_refusal_says_what_to_do() -> None:
    for said, _, _ in REFUSED:
        with pytest.raises(Wrong, match=re.compile("wanted|leave|say|send|at most")):
            image(**said)
