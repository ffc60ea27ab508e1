"""`potluck-tracker models`: what the catalogue of a horde has, and entries for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from protocol.catalogue import Model, files_at, sha256_of
from protocol.licences import BadExpression, is_open
from tracker import catalogue
from tracker.commands.exits import BAD_COMMAND_LINE, CommandError
from tracker.commands.folder import read_catalogue, read_config
from tracker.config import ConfigError


def rows(folder: Path) -> Iterator[dict[str, object]]:
    """The catalogue of the horde in `folder`, model by model."""
    config = read_config(folder)
    for name, model in read_catalogue(config).models.items():
        try:
            open_licence = is_open(model.licence, config.rules.catalogue.open_licences)
        except BadExpression:
            open_licence = False
        yield {
            "name": name,
            "kind": model.kind,
            "licence": model.licence,
            "open": open_licence,
            "millions": model.millions,
            "files": len(model.files),
        }


def entry(place: Path, name: str, model: Model) -> str:
    """The lines for `models.toml` that describe the model in this folder or file; raises `CommandError`."""
    try:
        files = {file: sha256_of(path) for file, path in files_at(place).items()}
    except OSError as error:
        raise CommandError(f"{place}: cannot be read: {error}", BAD_COMMAND_LINE) from error
    if not files:
        raise CommandError(f"{place}: holds nothing that could be loaded", BAD_COMMAND_LINE)
    key = f"models.{json.dumps(name, ensure_ascii=False)}"
    lines = [
        f"[{key}]",
        f'kind = "{model.kind}"',
        f"licence = {json.dumps(model.licence)}",
        f"millions = {model.millions}",
    ]
    lines += [
        f"{field} = {json.dumps(text)}" for field in ("baseline", "hub", "revision") if (text := getattr(model, field))
    ]
    lines += ["", f"[{key}.files]", *(f"{json.dumps(file)} = {json.dumps(digest)}" for file, digest in files.items())]
    text = "\n".join(lines)
    try:
        catalogue.parse(text, place, catalogue.NO_RULES)
    except ConfigError as error:
        raise CommandError("\n".join(error.faults), BAD_COMMAND_LINE) from error
    return text
