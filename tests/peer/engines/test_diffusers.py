"""Pictures through diffusers: with a pipeline of random weights, and with the one that comes with the package."""

import asyncio
import importlib.metadata
import io
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from PIL import Image

from peer import shapes
from peer.engines.base import ArtifactMade, EngineError, PreviewMade, StepsDone
from peer.engines.diffusers import PREVIEW_SHARE, Previews
from peer.engines.process import ProcessEngine
from peer.engines.spec import EngineSpec, shapes_spec
from tests.peer.engines import tiny_pipeline
from tests.peer.engines.contract import (
    SECRET,
    EngineContract,
    end_of,
    events_of,
    made,
    picture,
    result_of,
    with_our_packages,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random pipeline, made by another process, so that torch and its warnings stay out of this one."""
    folder = tmp_path_factory.mktemp("tiny")
    subprocess.run(
        [sys.executable, "-m", tiny_pipeline.__name__, str(folder)],
        cwd=Path(__file__).parents[3],
        env=with_our_packages(),
        capture_output=True,
        check=True,
    )
    return folder


def tiny_spec(folder: Path, **options) -> EngineSpec:
    cpu: dict[str, str | int | bool] = {
        "path": str(folder),
        "device": "cpu",
        "threads": 1,
        "max_pixels": 64 * 64,
        "max_steps": 450,
    }
    return EngineSpec(engine="diffusers", model="tiny", options=cpu | options)


def pixels(file: bytes) -> tuple[tuple[int, int], bytes]:
    image = Image.open(io.BytesIO(file))
    return image.size, image.tobytes()


@pytest.mark.slow
class TestTinyPipeline(EngineContract):
    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls, folder):
        return tiny_spec(folder)

    def a_task(self, spec, seed=1):
        return picture(spec.model, seed=seed)

    def a_long_task(self, spec):
        return picture(spec.model, steps=350)

    def too_large(self, spec):
        return [picture(spec.model, side=72), picture(spec.model, steps=451)]

    async def test_the_class_names_versions_data_type_device_and_threads(self, engine):
        engine_class = engine.offers[0].engine

        for package in ("diffusers", "torch"):
            assert f"{package} {importlib.metadata.version(package)}" in engine_class
        assert " float32 cpu " in engine_class
        assert engine_class.endswith(" 1 threads")

    @pytest.mark.parametrize(
        ("name", "asked", "width"),
        [
            ("plain", {}, 32),
            ("negative", {"negative_prompt": "blue"}, 32),
            ("unguided", {"guidance": 1_000}, 32),
            ("wide", {}, 64),
        ],
    )
    async def test_it_draws_what_the_library_draws_of_the_same_words(self, spec, engine, folder, name, asked, width):
        task = picture(spec.model, seed=7, prompt=tiny_pipeline.PROMPT, **asked)

        drawn = await result_of(engine, replace(task, work=msgspec.structs.replace(task.work, width=width)))

        assert pixels(drawn) == pixels((folder / f"{name}.png").read_bytes())

    async def test_the_file_holds_nothing_but_the_picture(self, spec, engine):
        file = await result_of(engine, picture(spec.model))
        chunks = []
        at = 8
        while at < len(file):
            chunks.append(file[at + 4 : at + 8])
            at += int.from_bytes(file[at : at + 4], "big") + 12

        assert set(chunks) == {b"IHDR", b"IDAT", b"IEND"}
        assert SECRET.encode() not in file

    @pytest.mark.parametrize("sampler", ["ddim", "euler_a", "heun", "dpmpp_2m", "dpmpp_2m_karras", "unipc"])
    async def test_a_sampler_is_obeyed_counts_its_steps_and_leaves_no_trace(self, spec, engine, sampler):
        plain = picture(spec.model, steps=6)
        before = await result_of(engine, plain)

        events = await events_of(engine, picture(spec.model, steps=6, sampler=sampler))

        assert end_of(events).used == 6
        assert [event for event in events if isinstance(event, StepsDone)][-1] == StepsDone(6, 6)
        assert (made(events) == before) == (sampler == "ddim")
        assert await result_of(engine, plain) == before

    async def test_an_unknown_sampler_is_refused_with_those_that_there_are(self, spec, engine):
        with pytest.raises(EngineError, match=r"no sampler 'magic'.*euler_a") as refused:
            await events_of(engine, picture(spec.model, sampler="magic"))

        assert refused.value.code == "unsupported"

    async def test_what_the_library_refuses_is_unsupported(self, spec, engine):
        with pytest.raises(EngineError, match="32x32 in 450 steps") as refused:
            await events_of(engine, picture(spec.model, steps=tiny_pipeline.NOISE_LEVELS + 50))

        assert refused.value.code == "unsupported"
        assert SECRET not in str(refused.value)

    async def test_previews_are_small_and_change_nothing(self, spec, engine):
        task = picture(spec.model, steps=7, side=64)
        without = await events_of(engine, task)
        with_them = await events_of(engine, replace(task, preview_every=2))

        previews = [event.jpeg for event in with_them if isinstance(event, PreviewMade)]
        assert 1 <= len(previews) <= 3  # how many of them are cheap enough, the clock decides
        assert all(len(jpeg) <= 64 * 1024 for jpeg in previews)
        assert {Image.open(io.BytesIO(jpeg)).format for jpeg in previews} == {"JPEG"}
        assert not any(isinstance(event, PreviewMade) for event in without)
        assert made(without) == made(with_them)

    async def test_a_stopped_picture_is_whole_and_of_the_size_asked_for(self, spec, engine):
        stop = asyncio.Event()
        files = []
        async for event in engine.run(picture(spec.model, steps=350, side=64), stop):
            stop.set()
            if isinstance(event, ArtifactMade):
                files.append(event.content)

        [file] = files
        assert pixels(file)[0] == (64, 64)


@pytest.mark.slow  # it loads a pipeline of its own
def test_a_preview_is_due_after_every_so_many_steps_but_not_after_the_last():
    previews = Previews(5, 15, began=100.0)

    assert [done for done in range(1, 16) if previews.is_due(done, 100.0 + done)] == [5, 10]
    assert not any(Previews(0, 15, began=100.0).is_due(done, 100.0 + done) for done in range(1, 16))


def test_after_the_first_previews_are_drawn_only_as_long_as_they_take_a_small_share():
    previews = Previews(1, 100, began=0.0)
    assert previews.is_due(1, 0.5)
    previews.took(1.0)

    assert not previews.is_due(2, 0.9 / PREVIEW_SHARE)
    assert previews.is_due(3, 1.1 / PREVIEW_SHARE)
    previews.took(1.0)
    assert not previews.is_due(4, 1.9 / PREVIEW_SHARE)


@pytest.mark.slow
async def test_another_data_type_and_number_of_threads_are_another_class(folder, tmp_path):
    async with ProcessEngine(tiny_spec(folder, dtype="bfloat16", threads=2)) as engine:
        assert " bfloat16 " in engine.offers[0].engine
        assert engine.offers[0].engine.endswith(" 2 threads")
        assert await result_of(engine, picture("tiny", steps=2))


@pytest.mark.slow  # it loads a pipeline of its own
async def test_files_that_can_hold_code_are_not_read(folder, tmp_path):
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix != ".safetensors":
            copy = tmp_path / "pickled" / path.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    (tmp_path / "pickled" / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"pickle")

    with pytest.raises(EngineError, match="cannot load"):
        await ProcessEngine(tiny_spec(tmp_path / "pickled")).open()


@pytest.mark.slow  # it loads a pipeline of its own
async def test_a_pipeline_that_wants_more_than_words_is_refused(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "inpaint")
    path = tmp_path / "inpaint" / "model_index.json"
    path.write_text(path.read_text().replace('"StableDiffusionPipeline"', '"StableDiffusionInpaintPipeline"'))

    with pytest.raises(EngineError, match="wants image") as refused:
        await ProcessEngine(tiny_spec(tmp_path / "inpaint")).open()

    assert refused.value.code == "unsupported"


@pytest.mark.slow  # it loads a pipeline of its own
async def test_the_model_that_comes_with_the_package_is_drawn():
    async with ProcessEngine(shapes_spec()) as engine:
        task = picture(shapes.NAME, steps=shapes.STEPS, side=shapes.SIDE, prompt="a large red circle on blue")
        first = await result_of(engine, task)

        assert pixels(first)[0] == (shapes.SIDE, shapes.SIDE)
        assert await result_of(engine, task) == first
        assert await result_of(engine, replace(task, seed=2)) != first
