"""What goes wrong, in OpenAI's form: a status, and `{"error": {message, type, param, code}}`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from types import MappingProxyType

from peer.gateway.errors import Kind, Trouble

#: Status, type and code of each kind of trouble. Where OpenAI has a code for it, it is that one.
FORMS: MappingProxyType[Kind, tuple[int, str, str]] = MappingProxyType(
    {
        "bad_value": (400, "invalid_request_error", "invalid_value"),
        "unsupported": (400, "invalid_request_error", "unsupported_parameter"),
        "unknown_model": (404, "invalid_request_error", "model_not_found"),
        "too_long": (400, "invalid_request_error", "context_length_exceeded"),
        "over_limit": (400, "invalid_request_error", "over_limit"),
        "too_many": (429, "rate_limit_error", "rate_limit_exceeded"),
        "not_allowed": (403, "permission_error", "not_allowed"),
        "content_refused": (400, "invalid_request_error", "content_policy_violation"),
        "timed_out": (403, "permission_error", "timed_out"),
        "suspended": (403, "permission_error", "suspended"),
        "not_registered": (403, "permission_error", "not_registered"),
        "unavailable": (503, "server_error", "unavailable"),
        "failed": (500, "server_error", "job_failed"),
        "expired": (503, "server_error", "job_expired"),
        "cancelled": (500, "server_error", "job_cancelled"),
        "gone": (404, "invalid_request_error", "not_found"),
        "internal": (500, "server_error", "internal_error"),
        "bad_key": (401, "invalid_request_error", "invalid_api_key"),
        "forbidden": (403, "permission_error", "forbidden"),
        "not_found": (404, "invalid_request_error", "not_found"),
        "bad_method": (405, "invalid_request_error", "method_not_allowed"),
        "too_large": (413, "invalid_request_error", "request_too_large"),
    }
)
#: The same request may succeed soon.
_PASSING = frozenset({"too_many", "unavailable"})
#: Fields by what others here call them, and by the words with which sentences about a value begin.
_FIELDS = MappingProxyType(
    {
        "width": "size",
        "height": "size",
        "max_pixels": "size",
        "max_steps": "steps",
        "context": "messages",
        "max_context": "messages",
    }
)
_SAMPLING = ("n", "seed", "stop", "max_tokens", "temperature", "top_p", "top_k", "min_p", "repeat_penalty")
_SAID = frozenset((*_SAMPLING, "prompt", "negative_prompt", "steps", "guidance", "sampler", "max_price"))


@dataclass(frozen=True)
class Fault:
    """An error as clients of OpenAI read it. param: the field that is to blame, if one is known. again: whether the
    same request may succeed if it is sent again soon."""

    status: int
    type: str
    code: str
    text: str
    param: str | None
    again: bool

    def as_json(self) -> bytes:
        """The body of an answer; ASCII, on one line."""
        error = {"message": self.text, "type": self.type, "param": self.param, "code": self.code}
        return json.dumps({"error": error}).encode()

    @property
    def headers(self) -> dict[str, str]:
        """OpenAI's own clients send a request again by themselves when the status is 429, or from 500 on, unless this
        header says otherwise. A job on which several workers failed is not to be tried thrice."""
        return {"x-should-retry": "true" if self.again else "false"}


def fault(trouble: Trouble) -> Fault:
    """The fault for a trouble."""
    status, kind, code = FORMS[trouble.kind]
    return Fault(status, kind, code, trouble.text, _param(trouble), again=trouble.kind in _PASSING)


def _param(trouble: Trouble) -> str | None:
    if trouble.field:
        return _FIELDS.get(trouble.field, trouble.field)
    if trouble.kind == "unknown_model":
        return "model"
    if trouble.kind not in ("bad_value", "over_limit"):
        return None
    first = trouble.text.partition(" ")[0]
    return first if first in _SAID else _FIELDS.get(first)
