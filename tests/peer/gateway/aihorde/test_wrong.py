"""Errors in AI Horde's form."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest

from peer import events
from peer.gateway.aihorde.wrong import STATUSES, Wrong, refuse
from peer.gateway.errors import Kind, Trouble, trouble
from protocol.errors import OverLimit
from protocol.rules import Rules
from protocol.work import ImageWork, PublicPart, TextWork
from tracker.limits import check_limits


def told(found: Trouble) -> tuple[int, dict[str, Any]]:
    answer = refuse(found)
    assert answer.text is not None
    return answer.status, json.loads(answer.text)


@pytest.mark.parametrize(
    ("kind", "status", "rc"),
    [
        ("bad_value", 400, "BadRequest"),
        ("unsupported", 400, "BadRequest"),
        ("unknown_model", 400, "UnsupportedModel"),
        ("too_long", 400, "TokenOverflow"),
        ("over_limit", 400, "BadRequest"),
        ("too_many", 429, "TooManyPrompts"),
        ("not_allowed", 403, "Forbidden"),
        ("content_refused", 400, "CorruptPrompt"),
        ("timed_out", 403, "TimeoutIP"),
        ("suspended", 403, "Forbidden"),
        ("not_registered", 403, "AnonForbidden"),
        ("unavailable", 503, "NoValidWorkers"),
        ("failed", 500, "AbortedGen"),
        ("expired", 410, "RequestExpired"),
        ("cancelled", 410, "RequestExpired"),
        ("gone", 410, "RequestExpired"),
        ("internal", 500, "InternalServerError"),
        ("bad_key", 401, "InvalidAPIKey"),
        ("forbidden", 403, "Forbidden"),
        ("not_found", 404, "ThingNotFound"),
        ("bad_method", 405, "BadRequest"),
        ("too_large", 413, "BadRequest"),
    ],
)
def test_each_trouble_has_its_status_and_word(kind: Kind, status: int, rc: str) -> None:
    assert told(Trouble(kind, "what it is")) == (status, {"message": "what it is", "rc": rc})


def test_no_trouble_is_without_a_word() -> None:
    for kind in get_args(Kind):
        assert told(Trouble(kind, "x"))[1]["rc"]


@pytest.mark.parametrize(
    ("rc", "status"),
    [
        ("MissingPrompt", 400),
        ("AnonForbidden", 403),
        ("RequestNotFound", 404),
        ("WorkerNotFound", 404),
        ("UserNotFound", 404),
    ],
)
def test_a_word_of_our_own_has_its_status_and_stands_alone(rc: str, status: int) -> None:
    found = told(trouble(Wrong(rc, "what it is", "a.field")))
    assert found == (status, {"message": "what it is", "rc": rc})
    assert rc in STATUSES or status == 400


def test_what_has_no_word_of_its_own_names_the_field() -> None:
    found = told(trouble(Wrong("BadRequest", "what it is", "a.field")))
    assert found == (400, {"message": "what it is", "rc": "BadRequest", "errors": {"a.field": "what it is"}})


@pytest.mark.parametrize(
    ("public", "rc", "field"),
    [
        (PublicPart(work=ImageWork(width=2048, height=1024)), "InvalidSize", "params.width"),
        (PublicPart(work=ImageWork(steps=51)), "TooManySteps", "params.steps"),
        (PublicPart(work=ImageWork(), n=5), "BadRequest", "params.n"),
        (PublicPart(work=TextWork(max_tokens=513)), "TokenOverflow", "params.max_length"),
        (PublicPart(work=TextWork(context_tokens=8193)), "TokenOverflow", "params.max_context_length"),
    ],
)
def test_what_a_tracker_finds_too_large_has_the_word_for_it(public: PublicPart, rc: str, field: str) -> None:
    with pytest.raises(OverLimit) as refused:
        check_limits(public, Rules(), anonymous=True, open_jobs=0)
    status, found = told(trouble(events.Refused("over_limit", str(refused.value))))
    assert (status, found["rc"]) == (400, rc)
    assert found.get("errors") == ({field: found["message"]} if rc == "BadRequest" else None)


def test_too_many_jobs_at_once_are_another_matter_than_too_large_ones() -> None:
    with pytest.raises(OverLimit) as refused:
        check_limits(PublicPart(work=ImageWork()), Rules(), anonymous=True, open_jobs=50)
    status, found = told(trouble(events.Refused("over_limit", str(refused.value))))
    assert (status, found["rc"]) == (429, "TooManyPrompts")


def test_what_no_worker_takes_has_the_same_words() -> None:
    assert told(Trouble("over_limit", "pixels 9: ...", "max_pixels"))[1]["rc"] == "InvalidSize"
    assert told(Trouble("over_limit", "context 9: ...", "max_context"))[1]["rc"] == "TokenOverflow"
    assert "errors" not in told(Trouble("unknown_model", "no such", "model"))[1]
    assert told(Trouble("bad_value", "no such", "model"))[1]["errors"] == {"model": "no such"}


def test_a_method_that_is_not_taken_says_which_are() -> None:
    assert refuse(Trouble("bad_method", "x", allowed="GET")).headers["Allow"] == "GET"
