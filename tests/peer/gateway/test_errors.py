"""Every error that a horde can answer has a kind, and no other error says anything of itself."""

from __future__ import annotations

import pytest

from peer import events
from peer.gateway.errors import _KINDS, STATUSES, Troubled, trouble
from protocol.errors import REFUSALS

TOO_MANY = (
    "50 jobs of this account are under way and 1 more are asked for: at most 50 at once by the rule limits.open_jobs"
)
TOO_MANY_BY_AN_ACT = (
    "2 jobs of account 5 are under way and 1 more are asked for: at most 2 at once by an act of moderators: spam"
)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (events.BadRequest("width 3"), "bad_value"),
        (events.Unreachable("no tracker"), "unavailable"),
        (events.Refused("over_limit", "tokens 9: at most 5"), "over_limit"),
        (events.Refused("over_limit", TOO_MANY), "too_many"),
        (events.Refused("over_limit", TOO_MANY_BY_AN_ACT), "too_many"),
        (events.Refused("content_refused", "no"), "content_refused"),
        (events.Refused("timed_out", "for another 60 s"), "timed_out"),
        (events.Refused("suspended", "by act 5"), "suspended"),
        (events.Refused("not_registered", "for members"), "not_registered"),
        (events.Refused("of a newer horde", "no"), "not_allowed"),
        (events.Refused("internal", "reference 5"), "unavailable"),
        (events.JobFailed("too_long", "a prompt of 9 tokens"), "too_long"),
        (events.JobFailed("unsupported", "a sampler"), "unsupported"),
        (events.JobFailed("crashed", "it crashed"), "failed"),
        (events.JobFailed("busy", "it crashed"), "failed"),
        (events.Denied("digest_mismatch", "something else came"), "failed"),
        (events.JobFailed("content_refused", "a worker read it again"), "content_refused"),
        (events.JobExpired("expired", ""), "expired"),
        (events.JobExpired("suspended", ""), "suspended"),
        (events.JobCancelled("cancelled", ""), "cancelled"),
        (Troubled("gone", "kept no longer"), "gone"),
        (ValueError("a prompt"), "internal"),
        (KeyError("a prompt"), "internal"),
    ],
)
def test_an_error_has_its_kind(error: Exception, kind: str) -> None:
    assert trouble(error).kind == kind


def test_what_nobody_expected_says_nothing_of_itself() -> None:
    assert "secret" not in trouble(RuntimeError("the secret prompt")).text


def test_every_code_that_is_translated_is_one_that_can_come() -> None:
    codes_of_engines = {"too_long", "unsupported"}

    assert set(_KINDS) - set(REFUSALS) == codes_of_engines
    assert set(_KINDS.values()) <= set(STATUSES)
