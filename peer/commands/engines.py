"""Which engines a worker is to have, from the words of a command line."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from peer.commands.common import Failure
from peer.commands.exits import Exit

if TYPE_CHECKING:
    from peer.engines.spec import EngineSpec

#: What our own engines import, and the command that gets it.
NEEDED = {"diffusers": ("diffusers", "torch", "transformers", "safetensors", "PIL"), "text": ("xllamacpp",)}
EXTRA_COMMAND = "pip install 'potluck[worker]'"

#: A hub id is two words with a slash between them.
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def chosen(
    images: Sequence[str],
    texts: Sequence[str],
    dry_runs: Sequence[str],
    servers: Sequence[str] = (),
    engines: Sequence[str] = (),
) -> list[EngineSpec]:
    """The specs of what was named; what a worker serves by itself if nothing was. Raises `Failure` naming the command
    that gets what is not installed, or `click.UsageError`."""
    from peer.engines.spec import EngineMissing, SpecError, check, default_specs

    try:
        specs = [*map(image_spec, images), *map(text_spec, texts), *map(dry_run_spec, dry_runs)]
        specs += [*map(openai_spec, servers), *map(engine_spec, engines)]
        specs = specs or default_specs()
        for spec in specs:
            check(spec)
    except EngineMissing as error:
        raise Failure("missing", str(error), Exit.MISSING) from error
    except SpecError as error:
        raise click.UsageError(str(error)) from error
    check_installed(specs)
    return specs


def image_spec(words: str) -> EngineSpec:
    """`shapes`, or `[NAME=]FOLDER`, or `[NAME=]HUB_ID[@REVISION]`."""
    from peer import shapes
    from peer.engines.spec import EngineSpec, shapes_spec

    if words == shapes.NAME:
        return shapes_spec()
    name, place = _named(words)
    if Path(place).is_dir():
        return EngineSpec(engine="diffusers", model=name or Path(place).resolve().name, options={"path": place})
    hub, _, revision = place.partition("@")
    if not _HUB_ID.fullmatch(hub):
        raise click.UsageError(
            f"--image {words}: wanted {shapes.NAME}, a folder that exists, or a hub id like who/what"
        )
    options: dict[str, str | int | bool] = {"hub": hub, "revision": revision} if revision else {"hub": hub}
    return EngineSpec(engine="diffusers", model=name or hub, options=options)


def text_spec(words: str) -> EngineSpec:
    """The name of the default model, or `[NAME=]FILE.gguf`."""
    from peer.engines.spec import SMOLLM2_MODEL, EngineSpec, smollm2_spec

    if words == SMOLLM2_MODEL:
        return smollm2_spec()
    name, place = _named(words)
    return EngineSpec(engine="text", model=name or Path(place).stem.lower(), options={"path": place})


def dry_run_spec(words: str) -> EngineSpec:
    """`image` or `text`, then `:option=value,...` as the dry run defines them; `model` is the name of its model."""
    from peer.engines.spec import EngineSpec

    kind, _, rest = words.partition(":")
    if kind not in ("image", "text"):
        raise click.UsageError(f"--dry-run {words}: wanted image or text instead of {kind!r}")
    options = {"kind": kind} | _options(f"--dry-run {words}", rest)
    model = str(options.pop("model", f"dry-run-{kind}"))
    return EngineSpec(engine="dry-run", model=model, options=options)


def openai_spec(words: str) -> EngineSpec:
    """`[NAME=]URL[#MODEL]`, then `,option=value,...` as the engine defines them. Without NAME and MODEL it is all
    models that the server lists, under its names for them; with NAME alone, the only one."""
    from urllib.parse import urlsplit

    from peer.engines.openai.asks import offered_name
    from peer.engines.spec import EngineSpec

    place, _, rest = words.partition(",")
    name, equals, url = place.partition("=")
    if not equals or "/" in name or "#" in name:
        name, url = "", place
    url, hash_, serves = url.partition("#")
    if not url.startswith(("http://", "https://")):
        raise click.UsageError(f"--openai {words}: wanted an address like http://127.0.0.1:8080/v1")
    if hash_ and not serves:
        raise click.UsageError(f"--openai {words}: wanted the server's name for a model behind the #")
    options = {"url": url, "serves": serves or ("" if name else "*")} | _options(f"--openai {words}", rest)
    model = name or (offered_name(serves) if serves else urlsplit(url).netloc.rpartition("@")[2])
    return EngineSpec(engine="openai", model=model[:120], options=options)


def engine_spec(words: str) -> EngineSpec:
    """The name of an engine, then `:option=value,...` as it defines them; `model` is the name of its model."""
    from peer.engines.spec import EngineSpec

    engine, _, rest = words.partition(":")
    options = _options(f"--engine {words}", rest)
    model = str(options.pop("model", ""))
    if not engine or not model:
        raise click.UsageError(f"--engine {words}: wanted an engine's name and its model's, as in NAME:model=MODEL")
    return EngineSpec(engine=engine, model=model, options=options)


def check_installed(specs: Iterable[EngineSpec]) -> None:
    """Raise `Failure` with the command that gets the libraries which these engines need and which are not here."""
    needed = dict.fromkeys(name for spec in specs for name in NEEDED.get(spec.engine, ()))
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        text = f"not installed: {', '.join(missing)}; this command gets it: {EXTRA_COMMAND}"
        raise Failure("missing", text, Exit.MISSING)


def _options(said: str, rest: str) -> dict[str, str | int | bool]:
    options: dict[str, str | int | bool] = {}
    for part in filter(None, rest.split(",")):
        name, equals, value = part.partition("=")
        if not equals:
            raise click.UsageError(f"{said}: wanted name=value instead of {part!r}")
        options[name] = value
    return options


def _named(words: str) -> tuple[str, str]:
    name, equals, place = words.partition("=")
    return (name, place) if equals and not Path(words).exists() else ("", words)
