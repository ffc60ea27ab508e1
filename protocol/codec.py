"""Bytes to typed bodies and back. This module alone knows msgpack.

Decoding is strict, then typed. Strict: text keys only, none twice, integers only (no floats) and of 64 bits with sign,
no extension types, no trailing bytes, no unknown field whose name begins with `!`. Typed: frozen msgspec structs;
unknown fields are ignored. Past `decode` nobody holds a dict.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
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
        _depth_of(
            msgpack.unpackb(
                raw,
                raw=False,
                strict_map_key=True,
                ext_hook=_no_ext,
                object_pairs_hook=_check_map,
                list_hook=_check_list,
            )
        )
    except (ValueError, RecursionError) as error:  # every error of msgpack is a ValueError, also of bad UTF-8
        reason = str(error) or type(error).__name__
        raise Malformed(f"not the strict msgpack that the protocol wants: {reason}") from error


_ENCODER = msgspec.msgpack.Encoder()


@cache
def _decoder(of: Hashable) -> Any:
    return msgspec.msgpack.Decoder(cast("type", of))


def _check_map(pairs: list[tuple[object, object]]) -> int:
    """Check one map; what comes back stands for its depth, so that nothing is built."""
    names = set()
    depth = 0
    for name, value in pairs:
        if not isinstance(name, str):
            raise ValueError("a map key that is not text")  # noqa: TRY004 (one error type for all that is malformed)
        if name in names:
            raise ValueError(f"field {name[:40]!r} twice")
        if name.startswith("!") and name not in CRITICAL_FIELDS:
            raise UnknownCriticalField(f"field {name[:40]!r} must be understood and is not: update this program")
        names.add(name)
        depth = max(depth, _depth_of(value))
    return _Depth(_deeper(depth))


def _check_list(items: list[object]) -> int:
    return _Depth(_deeper(max((_depth_of(item) for item in items), default=0)))


class _Depth(int):
    """How deep a map or list is nested; told apart from the integers of a message by its type."""


def _deeper(depth: int) -> int:
    if depth + 1 > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    return depth + 1


def _depth_of(value: object) -> int:
    if isinstance(value, int) and value > MAX_INTEGER:
        raise ValueError(f"the integer {value}: at most {MAX_INTEGER}")
    if isinstance(value, float):
        raise ValueError("a number that is no integer")  # noqa: TRY004
    if isinstance(value, msgpack.Timestamp):  # the one extension that the library takes without asking the hook
        raise ValueError("extension type -1")  # noqa: TRY004
    return value if isinstance(value, _Depth) else 0


def _no_ext(code: int, data: bytes) -> object:
    raise ValueError(f"extension type {code}")
