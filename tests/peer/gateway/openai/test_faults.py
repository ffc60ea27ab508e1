"""Errors in OpenAI's form."""

import json
from typing import get_args

import pytest

from peer.gateway.errors import Kind, Trouble
from peer.gateway.openai import refuse
from peer.gateway.openai.faults import FORMS, fault

STATUSES = {
    "bad_value": 400,
    "unsupported": 400,
    "unknown_model": 404,
    "too_long": 400,
    "over_limit": 400,
    "too_many": 429,
    "not_allowed": 403,
    "content_refused": 400,
    "timed_out": 403,
    "suspended": 403,
    "not_registered": 403,
    "unavailable": 503,
    "failed": 500,
    "expired": 503,
    "cancelled": 500,
    "gone": 404,
    "internal": 500,
    "bad_key": 401,
    "forbidden": 403,
    "not_found": 404,
    "bad_method": 405,
    "too_large": 413,
}


def test_every_trouble_has_a_form():
    assert set(FORMS) == set(get_args(Kind)) == set(STATUSES)


@pytest.mark.parametrize("kind", STATUSES)
def test_an_error_is_as_openai_writes_it(kind):
    response = refuse(Trouble(kind, "it went wrong"))

    assert (response.status, response.content_type) == (STATUSES[kind], "application/json")
    error = json.loads(response.text or "")["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"] == "it went wrong"
    assert isinstance(error["code"], str)


def test_the_codes_that_programs_look_for():
    assert fault(Trouble("unknown_model", "x")).code == "model_not_found"
    assert fault(Trouble("too_long", "x")).code == "context_length_exceeded"
    assert fault(Trouble("bad_key", "x")).code == "invalid_api_key"
    assert fault(Trouble("too_many", "x")).code == "rate_limit_exceeded"
    assert fault(Trouble("content_refused", "x")).code == "content_policy_violation"


@pytest.mark.parametrize(
    "trouble, param",
    [
        (Trouble("bad_value", "temperature 9: wanted 0 to 5"), "temperature"),
        (Trouble("bad_value", "width 7: wanted a multiple of 8, 16 to 4096"), "size"),
        (Trouble("bad_value", "no such thing"), None),
        (Trouble("bad_value", "temperature 9: wanted 0 to 5", "messages[0]"), "messages[0]"),
        (Trouble("over_limit", "pixels 9: at most 4", "max_pixels"), "size"),
        (Trouble("over_limit", "max_tokens 9: at most 4", "max_tokens"), "max_tokens"),
        (Trouble("unknown_model", "no horde serves it"), "model"),
        (Trouble("failed", "steps went wrong"), None),
    ],
)
def test_the_field_that_is_to_blame_is_named(trouble, param):
    assert fault(trouble).param == param


def test_only_what_may_pass_soon_is_sent_again():
    again = {kind for kind in FORMS if fault(Trouble(kind, "x")).headers["x-should-retry"] == "true"}

    assert again == {"too_many", "unavailable"}
