"""What can go wrong, in a few kinds: a door needs one answer for each, in its own form, and no others exist."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from peer import events

Kind = Literal[
    # What was asked for.
    "bad_value",  # a value outside of its range, or a body that cannot be read
    "unsupported",  # understood, and nothing here can do it
    "unknown_model",  # no horde has heard of it
    "too_long",  # prompt and answer do not fit
    "over_limit",  # larger than the horde's rules or the models allow
    "too_many",  # too many jobs at once; fewer, or later, would do
    "not_allowed",  # a rule or a delegation forbids it
    "content_refused",  # the prompt filter found what the horde does not make
    "timed_out",  # nothing is taken for a while, after prompts that were refused
    "suspended",  # an act of moderators stands against who asks
    "not_registered",  # the horde serves its members, and who asks is none
    # What became of it.
    "unavailable",  # no horde answers, or no worker serves this now
    "failed",  # workers tried, and could not
    "expired",  # nobody took it in time
    "cancelled",
    "gone",  # it was here, and is kept no longer
    "internal",  # a fault of the gateway; its log says more
    # The HTTP request itself.
    "bad_key",
    "forbidden",  # a page or an address that may not ask here
    "not_found",
    "bad_method",
    "too_large",
]

#: The plain HTTP status of each kind; a door may have others.
STATUSES: dict[Kind, int] = {
    "bad_value": 400,
    "unsupported": 400,
    "unknown_model": 404,
    "too_long": 400,
    "over_limit": 400,
    "too_many": 429,
    "not_allowed": 403,
    "content_refused": 403,
    "timed_out": 403,
    "suspended": 403,
    "not_registered": 403,
    "unavailable": 503,
    "failed": 500,
    "expired": 504,
    "cancelled": 499,
    "gone": 410,
    "internal": 500,
    "bad_key": 401,
    "forbidden": 403,
    "not_found": 404,
    "bad_method": 405,
    "too_large": 413,
}

#: What a job can end for that says more than how it ended.
_OF_JOBS: frozenset[Kind] = frozenset({"too_long", "unsupported", "content_refused", "suspended"})
#: Kinds of the codes by which trackers refuse and jobs end; a code of a newer horde goes by the error's class.
_KINDS: dict[str, Kind] = {
    "bad_value": "bad_value",
    "bad_body": "bad_value",
    "malformed": "bad_value",
    "private_part_mismatch": "bad_value",
    "over_max_price": "bad_value",
    "not_offered": "unsupported",
    "unsupported": "unsupported",
    "too_large": "too_long",
    "too_long": "too_long",
    "over_limit": "over_limit",
    "not_allowed": "not_allowed",
    "content_refused": "content_refused",
    "timed_out": "timed_out",
    "suspended": "suspended",
    "not_registered": "not_registered",
    "unknown_account": "not_allowed",
    "busy": "unavailable",
    "stopping": "unavailable",
    "too_slow": "unavailable",
    "internal": "unavailable",
}


@dataclass(frozen=True)
class Trouble:
    """What a client is told. text: what was found, what was wanted, what to do; for people, without any trace. field:
    the value in the request that it is about, by the client's own name for it, where that is known. method: which the
    resource takes, of `bad_method`."""

    kind: Kind
    text: str
    field: str = ""
    allowed: str = ""

    @property
    def status(self) -> int:
        """The plain HTTP status."""
        return STATUSES[self.kind]


class Troubled(events.PotluckError):
    """A handler cannot do what was asked; its door answers with `trouble`."""

    def __init__(self, kind: Kind, text: str, field: str = "") -> None:
        super().__init__(text)
        self.trouble = Trouble(kind, text, field)


def trouble(error: BaseException) -> Trouble:
    """What a client is told of an error; one that nobody expected says nothing of itself."""
    match error:
        case Troubled():
            return error.trouble
        case events.BadRequest():
            return Trouble("bad_value", str(error))
        case events.Unreachable():
            return Trouble("unavailable", str(error))
        case events.Refused(code="over_limit") if " are under way" in str(error):
            return Trouble("too_many", str(error))
        case events.Refused():
            return Trouble(_KINDS.get(error.code, "not_allowed"), str(error))
        case events.JobError():
            return Trouble(_kind_of_end(error), str(error))
    return Trouble("internal", "something went wrong in the gateway, whose log says what")


def _kind_of_end(error: events.JobError) -> Kind:
    kind = _KINDS.get(error.reason)
    if kind in _OF_JOBS:
        return kind
    if isinstance(error, events.JobExpired):
        return "expired"
    return "cancelled" if isinstance(error, events.JobCancelled) else "failed"
