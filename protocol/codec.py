"""Bytes to typed bodies and back. This module alone knows msgpack.

Decoding is strict, then typed. Strict: text keys only, none twice, integers only (no floats) and of 64 bits with sign,
no extension types, no trailing bytes, no unknown field whose name begins with `!`. Typed: frozen msgspec structs;
unknown fields are ignored. Past `decode` nobody holds a dict.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Sequence
from functools import cache
from typing import Any, TypeVar, cast

import msgpack
import msgspec

from protocol.errors import BadBody, Malformed, UnknownCriticalField

T = TypeVar("T")

#: Fields beginning with `!` that this version understands: none so far.
CRITICAL_FIELDS: frozenset[str] = frozenset()

#: msgpack has larger ones, which databases and many languages have not.
MAX_INTEGER = 2**63 - 1

#: Deeper nesting than this is in none of our messages.
MAX_DEPTH = 16


class Body(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a message says: a map with text keys; fields at their default are left out."""


def encode(body: msgspec.Struct | Sequence[object]) -> bytes:
    """The msgpack bytes of a body; the bytes that were signed are kept and never encoded a second time."""
    return _ENCODER.encode(body)


def decode(raw: bytes, of: type[T]) -> T:
    """The typed value in `raw`; raises `Malformed`, `UnknownCriticalField` or `BadBody`."""
    check_strict(raw)
    try:
        decoder: msgspec.msgpack.Decoder[T] = _decoder(cast("Hashable", of))
        return decoder.decode(raw)
    except msgspec.DecodeError as error:  # also ValidationError
        raise BadBody(f"{of.__name__.lower()}: {error}") from error


def check_strict(raw: bytes) -> None:
    """Raise `Malformed` or `UnknownCriticalField` unless `raw` is one value in the form that the standard allows."""
    try:
        value = msgpack.unpackb(
            raw,
            raw=False,
            strict_map_key=True,
            ext_hook=_no_ext,
            object_pairs_hook=_check_map,
            list_hook=_check_list,
        )
        if type(value) is not _Depth:
            _check_values((value,))
    except (ValueError, RecursionError) as error:  # every error of msgpack is a ValueError, also of bad UTF-8
        reason = str(error) or type(error).__name__
        raise Malformed(f"not the strict msgpack that the protocol wants: {reason}") from error


_ENCODER = msgspec.msgpack.Encoder()


@cache
def _decoder(of: Hashable) -> Any:
    return msgspec.msgpack.Decoder(cast("type", of))


class _Depth(int):
    """How deep a map or list is nested; stands for it while it is checked, so that nothing is built."""


def _check_map(pairs: list[tuple[object, object]]) -> _Depth:
    fields = dict(pairs)
    for name in fields:
        if not isinstance(name, str):
            raise ValueError("a map key that is not text")  # noqa: TRY004 (one error type for all that is malformed)
        if name.startswith("!") and name not in CRITICAL_FIELDS:
            raise UnknownCriticalField(f"field {name[:40]!r} must be understood and is not: update this program")
    if len(fields) != len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"field {str(twice)[:40]!r} twice")
    return _check_values(fields.values())


def _check_list(items: list[object]) -> _Depth:
    return _check_values(items)


def _check_values(values: Collection[object]) -> _Depth:
    """Refuse what no message holds; the types are gathered first, since nearly all values need no further look."""
    kinds = set(map(type, values))
    if not kinds <= _PLAIN:
        kind = next(iter(kinds - _PLAIN))
        raise ValueError("a number that is no integer" if kind is float else "extension type -1")
    if int in kinds and any(value > MAX_INTEGER for value in values if type(value) is int):
        raise ValueError(f"an integer above {MAX_INTEGER}")
    if _Depth not in kinds:
        return _FLAT
    depth = 1 + max(value for value in values if type(value) is _Depth)
    if depth > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    return _Depth(depth)


_FLAT = _Depth(1)
#: What may stand in a map or list. A timestamp is the one extension that the library takes without asking the hook.
_PLAIN = frozenset({int, str, bytes, bool, type(None), _Depth})


def _no_ext(code: int, data: bytes) -> object:
    raise ValueError(f"extension type {code}")
