"""Refusals: every code is there once and travels."""

import pytest

from protocol import errors
from protocol.errors import REFUSALS, Refusal, refusal


def test_every_refusal_is_listed_under_a_code_of_its_own() -> None:
    classes = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Refusal)]

    assert {kind.code for kind in classes} == set(REFUSALS)
    assert len({kind.code for kind in classes}) == len(classes)
    assert all(1 <= len(code) <= 40 for code in REFUSALS)


@pytest.mark.parametrize("code", REFUSALS)
def test_a_code_becomes_the_same_refusal_at_the_other_end(code: str) -> None:
    again = refusal(code, "why")

    assert type(again) is REFUSALS[code]
    assert again.text == "why"


def test_a_code_of_a_newer_peer_becomes_a_plain_refusal() -> None:
    assert type(refusal("from_the_future", "why")) is Refusal
