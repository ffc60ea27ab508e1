"""The engine without a model."""

import io
import subprocess
import sys
from dataclasses import replace

import pytest
from PIL import Image

from peer.engines.base import EngineError, PreviewMade
from peer.engines.process import ProcessEngine
from peer.engines.spec import EngineSpec
from tests.peer.engines.contract import (
    EngineContract,
    end_of,
    events_of,
    made,
    picture,
    result_of,
    text,
    with_our_packages,
)


def a_spec(**options) -> EngineSpec:
    return EngineSpec(engine="dry-run", model="nothing", options=options)


class TestPictures(EngineContract):
    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls):
        return a_spec(kind="image", step_ms=2, max_pixels=64 * 64, max_steps=500)

    def a_task(self, spec, seed=1):
        return picture(spec.model, seed=seed)

    def a_long_task(self, spec):
        return picture(spec.model, steps=500)

    def too_large(self, spec):
        return [picture(spec.model, side=72), picture("nothing", steps=501)]


class TestTexts(EngineContract):
    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls):
        return a_spec(kind="text", step_ms=2, max_tokens=1000, max_context=2000)

    def a_task(self, spec, seed=1):
        return text(spec.model, seed=seed)

    def a_long_task(self, spec):
        return text(spec.model, tokens=1000, context=2000)

    def too_large(self, spec):
        return [text(spec.model, tokens=1001, context=2000), text(spec.model, context=2001)]


class TestTextsThatCannotBeContinued(TestTexts):
    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls):
        return a_spec(kind="text", step_ms=2, max_tokens=1000, max_context=2000, continues=False)


async def test_the_picture_shows_the_seed_and_is_what_was_asked_for():
    async with ProcessEngine(a_spec()) as engine:
        file = await result_of(engine, picture("nothing", seed=5, side=40))

    image = Image.open(io.BytesIO(file))
    image.load()
    assert (image.format, image.mode, image.size) == ("PNG", "RGB", (40, 40))
    assert len(set(image.get_flattened_data())) == 25


async def test_a_picture_does_not_depend_on_the_pace_but_a_prompt_changes_it():
    async with ProcessEngine(a_spec()) as quick, ProcessEngine(a_spec(step_ms=1)) as slow:
        assert await result_of(quick, picture("nothing")) == await result_of(slow, picture("nothing"))
        assert await result_of(quick, picture("nothing")) != await result_of(quick, picture("nothing", prompt="else"))


async def test_previews_come_every_so_many_steps():
    async with ProcessEngine(a_spec()) as engine:
        task = replace(picture("nothing", steps=7), preview_every=2)
        events = await events_of(engine, task)

    previews = [event.jpeg for event in events if isinstance(event, PreviewMade)]
    assert {Image.open(io.BytesIO(jpeg)).format for jpeg in previews} == {"JPEG"}
    assert len(previews) == 3


async def test_a_text_ends_at_its_length_or_at_a_stop_text():
    async with ProcessEngine(a_spec(kind="text", length=10)) as engine:
        whole = await events_of(engine, text("nothing"))
        words = made(whole).decode().split()
        stop = f"{words[3][-2:]} {words[4][:2]}"
        stopped = await events_of(engine, text("nothing", stop=(stop,)))
        limited = await events_of(engine, text("nothing", tokens=6))

    assert (end_of(whole).finish, end_of(whole).used, len(words)) == ("stop", 10, 10)
    assert made(stopped).decode() == made(whole).decode().split(stop)[0]
    assert (end_of(stopped).finish, end_of(stopped).used) == ("stop", 5)
    assert (end_of(limited).finish, made(limited).decode().split()) == ("length", words[:6])


async def test_a_text_that_does_not_fit_is_too_long():
    async with ProcessEngine(a_spec(kind="text")) as engine:
        with pytest.raises(EngineError) as refused:
            await events_of(engine, text("nothing", prompt="a b c d e", tokens=60, context=64))

    assert refused.value.code == "too_long"


async def test_the_suffix_is_part_of_the_engine_class():
    async with ProcessEngine(a_spec()) as one, ProcessEngine(a_spec(suffix="other")) as other:
        assert one.offers[0].engine == "dry-run 1"
        assert other.offers[0].engine == "dry-run 1 other"


def test_it_needs_none_of_the_engines_libraries():
    code = (
        "import sys, peer.engines.child, peer.engines.dry_run, peer.engines.process\n"
        "print(*{'torch', 'numpy', 'PIL', 'xllamacpp', 'diffusers', 'transformers'} & {*sys.modules})"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], env=with_our_packages(), capture_output=True, text=True, check=True
    )

    assert loaded.stdout.split() == []
