"""Errors in AI Horde's form: `{message, rc}`, and `errors` by field where there is no better word than BadRequest."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from aiohttp import web

from peer.gateway.errors import Kind, Trouble, Troubled


@dataclass(frozen=True, kw_only=True)
class Coded(Trouble):
    """A trouble for which AI Horde has a word of its own. rc: that word. http: the status that goes with it."""

    rc: str
    http: int


class Wrong(Troubled):
    """A request that is answered with this word. field: the one at fault, if one is."""

    def __init__(self, rc: str, text: str, field: str = "") -> None:
        super().__init__("bad_value", text, field)
        self.trouble = Coded("bad_value", text, field, rc=rc, http=STATUSES.get(rc, 400))


#: The words that this door says by itself and that are not 400.
STATUSES: MappingProxyType[str, int] = MappingProxyType(
    {
        "AnonForbidden": 403,
        "Forbidden": 403,
        "RequestNotFound": 404,
        "WorkerNotFound": 404,
        "UserNotFound": 404,
    }
)

#: Word and status of each trouble that any door can have.
_OF_KIND: MappingProxyType[Kind, tuple[str, int]] = MappingProxyType(
    {
        "bad_value": ("BadRequest", 400),
        "unsupported": ("BadRequest", 400),
        "unknown_model": ("UnsupportedModel", 400),
        "too_long": ("TokenOverflow", 400),
        "too_many": ("TooManyPrompts", 429),
        "not_allowed": ("Forbidden", 403),
        "content_refused": ("CorruptPrompt", 400),
        "timed_out": ("TimeoutIP", 403),
        "suspended": ("Forbidden", 403),
        "not_registered": ("AnonForbidden", 403),
        "unavailable": ("NoValidWorkers", 503),
        "failed": ("AbortedGen", 500),
        "expired": ("RequestExpired", 410),
        "cancelled": ("RequestExpired", 410),
        "gone": ("RequestExpired", 410),
        "internal": ("InternalServerError", 500),
        "bad_key": ("InvalidAPIKey", 401),
        "forbidden": ("Forbidden", 403),
        "not_found": ("ThingNotFound", 404),
        "bad_method": ("BadRequest", 405),
        "too_large": ("BadRequest", 413),
    }
)


#: What of a request can be too large, by the name of its rule, as the word for it and the client's field.
_TOO_LARGE: MappingProxyType[str, tuple[str, str]] = MappingProxyType(
    {
        "pixels": ("InvalidSize", "params.width"),
        "steps": ("TooManySteps", "params.steps"),
        "tokens": ("TokenOverflow", "params.max_length"),
        "context": ("TokenOverflow", "params.max_context_length"),
        "n": ("BadRequest", "params.n"),
    }
)


def code_of(trouble: Trouble) -> tuple[str, int]:
    """The word and the status of this trouble."""
    if isinstance(trouble, Coded):
        return trouble.rc, trouble.http
    if trouble.kind == "over_limit":
        return _TOO_LARGE.get(_measure(trouble), ("BadRequest", ""))[0], 400
    return _OF_KIND[trouble.kind]


def _measure(trouble: Trouble) -> str:
    """What is too large: the gateway names the field, a tracker's sentence begins with it."""
    return trouble.field.removeprefix("max_") or trouble.text.partition(" ")[0]


def _field(trouble: Trouble) -> str:
    """The field of the client's own that is at fault."""
    if isinstance(trouble, Coded) or trouble.kind == "bad_value":
        return trouble.field
    if trouble.kind == "over_limit":
        return _TOO_LARGE.get(_measure(trouble), ("", ""))[1]
    return {"model": "models", "max_tokens": "params.max_length"}.get(trouble.field, trouble.field)


def refuse(trouble: Trouble) -> web.Response:
    """The answer to a request that cannot be met."""
    rc, status = code_of(trouble)
    body: dict[str, Any] = {"message": trouble.text, "rc": rc}
    # Clients look no further where they find `errors`: one beside it would hide the word.
    if (field := _field(trouble)) and rc == "BadRequest":
        body["errors"] = {field: trouble.text}
    headers = {"Allow": trouble.allowed} if trouble.allowed else None
    return web.json_response(body, status=status, headers=headers)
