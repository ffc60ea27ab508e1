"""What is wrong with a request, in the words of whoever asks: which value, what it was, and what is wanted."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import inspect

from peer.events import BadRequest
from protocol import codec
from protocol.work import PrivatePart, PublicPart

#: Where our words differ from those that travel.
_NAMES = {"context_tokens": "context"}
#: People say these with a decimal point; they travel in thousandths.
_THOUSANDTHS = frozenset({"guidance", "temperature", "top_p", "min_p", "repeat_penalty", "max_price"})

_PLACE = re.compile(r"at `\$\.([a-z_.]+)((?:\[[^\]`]*\])?)`")


def explain(error: str, part: PublicPart | PrivatePart) -> str | None:
    """The sentence for an error that names a field of `part` by its path, as msgspec does; None for any other."""
    place = _PLACE.search(error)
    if place is None:
        return None
    holder: Any = part
    *above, name = place[1].split(".")
    for step in above:
        holder = getattr(holder, step, None)
    if not isinstance(holder, msgspec.Struct) or name not in holder.__struct_fields__:
        return None
    kind = next(field.type for field in msgspec.structs.fields(type(holder)) if field.name == name)
    thousandths = name in _THOUSANDTHS
    wanted = _wanted(inspect.type_info(kind), of_each=bool(place[2]), thousandths=thousandths)
    return f"{_NAMES.get(name, name)} {_found(getattr(holder, name), thousandths=thousandths)}: wanted {wanted}"


def encoded(part: PublicPart | PrivatePart) -> bytes:
    """A part as it travels; raises `BadRequest` naming a number that is too large to travel at all."""
    try:
        return codec.encode(part)
    except OverflowError as error:
        path = _too_large(part, ())
        raise BadRequest(explain(f"at `$.{'.'.join(path)}`", part) or f"this cannot be asked for: {error}") from error


def _too_large(holder: msgspec.Struct, above: tuple[str, ...]) -> tuple[str, ...]:
    """The path to the first number in `holder` that 64 bits do not hold; empty if there is none."""
    for name in holder.__struct_fields__:
        value, path = getattr(holder, name), (*above, name)
        if isinstance(value, msgspec.Struct):
            if found := _too_large(value, path):
                return found
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            return path
    return ()


def _found(value: object, *, thousandths: bool) -> str:
    if isinstance(value, int):
        return f"{value / 1000:g}" if thousandths else str(value)
    if isinstance(value, str):
        return f"of {len(value)} characters" if value else "that is empty"
    return f"({len(value)} of them)" if isinstance(value, tuple) else repr(value)[:80]


def _wanted(kind: inspect.Type, *, of_each: bool, thousandths: bool) -> str:
    match kind:
        case inspect.IntType(ge=least, le=most, multiple_of=step):
            unit = 1000 if thousandths else 1
            start = f"a multiple of {step}, " if step else ""
            return start + _span(least and least / unit, most and most / unit)
        case inspect.StrType(min_length=least, max_length=most):
            return f"{_span(least, most)} characters"
        case inspect.VarTupleType(item_type=inspect.StrType() as each) if of_each:
            return f"{_wanted(each, of_each=False, thousandths=False)} in each"
        case inspect.VarTupleType(min_length=least, max_length=most):
            return _span(least, most)
        case _:
            return "something else"


def _span(least: float | None, most: float | None) -> str:
    if most is None:
        return f"{least or 0:g} or more"
    return f"{least or 0:.12g} to {most:.12g}"
