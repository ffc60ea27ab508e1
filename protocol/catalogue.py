"""The catalogue of a horde: what it knows of models, and the digests of their files.

The tracker publishes it as JSON; the rules name it by its digest, so that it is signed with them, and carry what is
needed to compute prices.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from protocol.licences import BadExpression, is_open
from protocol.rules import CatalogueSection, Natural, Section

#: A catalogue of a thousand large models takes about half of it.
MAX_BYTES = 4 * 1024 * 1024
MAX_MODELS = 1000
MAX_FILES = 1000

Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
FilePath = Annotated[str, Meta(min_length=1, max_length=300)]


class Model(Section, frozen=True, kw_only=True):
    """One model.

    kind: what it makes. licence: an SPDX expression. millions: of parameters. baseline: the family that it belongs to.
    price: factor of its prices in permille. hub, revision: where it is published. files: SHA-256 in hex, by the path
    below the model's folder; of a single file by its name, which may be another one at the worker.
    """

    kind: Literal["image", "text"] = "image"
    licence: Annotated[str, Meta(min_length=1, max_length=200)] = "LicenseRef-unknown"
    millions: Natural = 0
    baseline: Annotated[str, Meta(max_length=60)] = ""
    price: Natural = 1_000
    hub: Annotated[str, Meta(max_length=200)] = ""
    revision: Annotated[str, Meta(max_length=200)] = ""
    files: dict[FilePath, Sha256] = msgspec.field(default_factory=dict)


class Catalogue(msgspec.Struct, frozen=True):
    """All models that the horde knows, by name."""

    models: dict[str, Model] = {}


NOTHING = Catalogue()


class BadCatalogue(Exception):
    """What a tracker shows is not the catalogue that its rules name."""


def to_json(catalogue: Catalogue) -> bytes:
    """The text that is published; the same catalogue always gives the same."""
    return msgspec.json.encode(catalogue, order="deterministic")


def digest(raw: bytes) -> str:
    """By what the rules name a published catalogue."""
    return hashlib.sha256(raw).hexdigest()


def read(raw: bytes, named: str) -> Catalogue:
    """The catalogue in a published text, if the rules name it; raises `BadCatalogue`."""
    if digest(raw) != named:
        raise BadCatalogue("the tracker shows another catalogue than its rules name")
    try:
        return msgspec.json.decode(raw, type=Catalogue)
    except msgspec.DecodeError as error:
        raise BadCatalogue(f"a catalogue that this program does not understand: {error}") from error


def keeps_to_it(rules: CatalogueSection) -> bool:
    """Whether only models of the catalogue may be offered."""
    return rules.listed_only or rules.open_only


def why_not(name: str, kind: str, catalogue: Catalogue, rules: CatalogueSection) -> str:
    """Why a model may not be offered in this horde; empty if it may."""
    model = catalogue.models.get(name)
    if model is None:
        for rule in ("listed_only", "open_only"):
            if getattr(rules, rule):
                return f"it is not in the horde's catalogue (rule catalogue.{rule}): see /models"
        return ""
    if model.kind != kind:
        return f"the horde's catalogue has it as a model for {model.kind}, and it is offered for {kind}"
    if rules.open_only and not _is_open(model.licence, rules):
        return f"its licence {model.licence} is none of catalogue.open_licences (rule catalogue.open_only)"
    return ""


def _is_open(licence: str, rules: CatalogueSection) -> bool:
    try:
        return is_open(licence, rules.open_licences)
    except BadExpression:
        return False


#: Files that nothing loads: they may lie beside a model or not.
_TALK = frozenset({".md", ".png", ".jpg", ".jpeg", ".gif", ".webp", ".mp4", ".pdf"})
_NAMES = frozenset({"license", "license.txt", "copying", "notice", "notice.txt"})


def is_loadable(path: PurePosixPath) -> bool:
    """Whether a file in a model's folder has to be in the catalogue: all but hidden ones and what people read."""
    if any(part.startswith(".") for part in path.parts):
        return False
    return path.suffix.lower() not in _TALK and path.name.lower() not in _NAMES


_PART = re.compile(r"(.+)-\d{5}-of-\d{5}\.gguf")


def files_at(place: Path) -> dict[str, Path]:
    """What can be loaded from a model's folder, by the path in a catalogue; or the file if it is one, with the other
    parts of it if it has some. Raises `OSError`."""
    if not place.is_dir():
        part = _PART.fullmatch(place.name)
        others = place.parent.iterdir() if part else ()
        parts = [path for path in others if (other := _PART.fullmatch(path.name)) and part and other[1] == part[1]]
        return {path.name: path for path in sorted(parts) or [place]}
    below = ((PurePosixPath(path.relative_to(place).as_posix()), path) for path in sorted(_below(place)))
    return {str(name): path for name, path in below if is_loadable(name) and path.is_file()}


def _below(place: Path) -> Iterator[Path]:
    """Every file below a folder, also behind links to folders, as what loads a model follows them."""

    def failed(error: OSError) -> None:
        raise error

    for at, folders, files in os.walk(place, onerror=failed, followlinks=True):
        within = Path(at).resolve()
        folders[:] = [name for name in folders if not within.is_relative_to((within / name).resolve())]
        yield from (Path(at, name) for name in files)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hex; raises `OSError`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def differing(model: Model, found: Mapping[str, str]) -> str:
    """What keeps files from being those of the catalogue, for people; empty if they are. found: digests by path, as
    `files_at` has them. A file that is not here is not loaded, and so nothing is missed."""
    if len(found) == 1 and set(found.values()) <= set(model.files.values()):
        return ""  # a single file may have any name
    for name, digest_here in sorted(found.items()):
        wanted = model.files.get(name)
        if wanted is None:
            return f"{name} is here and not in the catalogue: take it away, or get the model again"
        if wanted != digest_here:
            return f"{name} has SHA-256 {digest_here}, and the catalogue says {wanted}: get the model again"
    return "" if found else "nothing is here that could be loaded"
