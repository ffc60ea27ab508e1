"""Rules for hordes of different kinds, as a start: what differs from the defaults, each value with its reason."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

#: Each a file beside this one.
NAMES = ("public", "school", "friends")


@dataclass(frozen=True)
class Template:
    """values: by key, as in `times.accept`. reasons: why so, by key."""

    name: str
    values: Mapping[str, object]
    reasons: Mapping[str, str]


NO_TEMPLATE = Template("", {}, {})


def template(name: str) -> Template:
    """The one of `NAMES` with this name."""
    text = files(__name__).joinpath(f"{name}.toml").read_text("utf-8")
    values = {
        f"{table}.{key}": _frozen(value)
        for table, content in tomllib.loads(text).items()
        for key, value in content.items()
    }
    return Template(name, values, _reasons(text))


def _reasons(text: str) -> dict[str, str]:
    """The comment above each key."""
    reasons: dict[str, str] = {}
    table, comment = "", ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            table = line.strip("[]")
        if line.startswith("#"):
            comment = f"{comment} {line.lstrip('# ')}".strip()
            continue
        if "=" in line and comment:
            reasons[f"{table}.{line.partition('=')[0].strip()}"] = comment
        comment = ""
    return reasons


def _frozen(value: object) -> object:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
