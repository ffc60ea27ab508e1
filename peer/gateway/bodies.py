"""What came in a request, read and checked."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec
from aiohttp import web

from peer.gateway.errors import Troubled

#: A larger body is refused.
MAX_BYTES = 8 * 1024 * 1024

T = TypeVar("T")

_MISSING = re.compile(r"Object missing required field `([^`]*)`")


async def read(request: web.Request, of: type[T]) -> T:
    """The JSON body of a request, as a msgspec type; unknown fields are tolerated, an empty body is `{}`. Raises
    `Troubled` (`bad_value`), which names the field."""
    return decode(await request.read() or b"{}", of)


def decode(raw: bytes | str, of: type[T], *, strict: bool = True) -> T:
    """JSON as a msgspec type; raises `Troubled` (`bad_value`), which names the field. strict: whether a number in
    quotes is none."""
    try:
        return msgspec.json.decode(raw, type=of, strict=strict)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at ")
        field = where.strip("`").removeprefix("$").removeprefix(".")
        if missing := _MISSING.fullmatch(what):
            field = f"{field}.{missing[1]}" if field else missing[1]
            what = "is missing, and has to be given"
        raise Troubled("bad_value", f"{field or 'the body'}: {what[:1].lower()}{what[1:]}", field) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Troubled("bad_value", f"the body is no JSON ({error}): send one JSON object") from error
    except RecursionError as error:
        raise Troubled("bad_value", "the body is nested too deep: send it flatter") from error
