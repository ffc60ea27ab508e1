"""Every field that people or programs can fill in: of messages, documents, work, rules, and commands, by its path.

`tests/protocol/fields.txt` gives each a reason to exist. Read docs/threats.md for what must not be among them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import click
import msgspec

from protocol import frames, messages
from protocol.documents import Evidence, Leaf
from protocol.envelope import Challenge
from protocol.kinds import DOCUMENTS
from protocol.rules import Rules
from protocol.work import ImagePrivate, ImageWork, PublicPart, TextPrivate, TextWork

FILE = Path(__file__).parents[1] / "protocol" / "fields.txt"

#: Of whatever is no message and no document, by the name that its paths begin with.
_OTHERS: dict[str, type[msgspec.Struct]] = {
    "challenge": Challenge,
    "ledger.leaf": Leaf,
    "ledger.evidence": Evidence,
    "public": PublicPart,
    "work.image": ImageWork,
    "work.text": TextWork,
    "private.image": ImagePrivate,
    "private.text": TextPrivate,
    "stream.open": frames.OpenBody,
    **{
        f"stream.{of.__struct_config__.tag}": of
        for of in (
            frames.Text,
            frames.Start,
            frames.Chunk,
            frames.Final,
            frames.Progressed,
            frames.Preview,
            frames.Failed,
            frames.Alive,
        )
    },
}

#: These are listed once, under a name of their own, wherever they stand.
_APART = (PublicPart, ImageWork, TextWork)


def reasons(text: str) -> dict[str, str]:
    """Path and reason of each line; lines that begin with `#` are for readers. Raises `ValueError` for another line."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("#") or not line:
            continue
        path, colon, reason = line.partition(": ")
        if not colon or len(reason) < 5 or path in found:
            raise ValueError(f"{line!r}: wanted `path: reason`, each path once")
        found[path] = reason
    return found


def fields_of_protocol() -> set[str]:
    """Paths of every field of the wire and of the rules."""
    return {
        *(
            path
            for kind, of in {**messages.FROM_PEER, **messages.FROM_TRACKER}.items()
            for path in within(f"message.{kind}", of)
        ),
        *(path for kind, of in DOCUMENTS.items() for path in within(f"document.{kind}", of)),
        *(path for name, of in _OTHERS.items() for path in within(name, of)),
        *within("rule", Rules),
    }


def within(path: str, of: Any) -> Iterator[str]:
    """Paths of the fields of a struct and of the structs in it, except of those that are listed apart."""
    for field in msgspec.structs.fields(of):
        here = f"{path}.{field.encode_name}"
        inner = [found for found in _structs_in(field.type) if found not in _APART]
        if not inner or path != "rule":  # a table of the rules is no field; whatever else holds others is one itself
            yield here
        for struct in inner:
            yield from within(here, struct)


def _structs_in(of: Any) -> list[type[msgspec.Struct]]:
    if isinstance(of, type) and issubclass(of, msgspec.Struct):
        return [of]
    return [found for part in get_args(of) for found in _structs_in(part)]


def fields_of_commands(programs: Mapping[str, click.Command]) -> set[str]:
    """Paths of every option and argument, as people type the command; hidden ones too."""
    return {path for name, command in programs.items() for path in _options(name, command)}


def _options(name: str, command: click.Command) -> Iterator[str]:
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            yield f"{name} {parameter.name}"
        else:
            yield f"{name} {max(parameter.opts, key=len)}"
    if isinstance(command, click.Group):
        for below, inner in command.commands.items():
            yield from _options(f"{name} {below}", inner)
