"""The page on this door says all that it takes and answers."""

from pathlib import Path

import pytest

from peer.gateway.openai.asking import ANY_MODEL
from peer.gateway.openai.bodies import MAX_PROMPTS, Chat, Completion, Picture
from peer.gateway.openai.faults import FORMS
from protocol.work import MAX_N

PAGE = (Path(__file__).parents[4] / "docs" / "gateway-openai.md").read_text("utf-8")


@pytest.mark.parametrize("kind", [Chat, Completion, Picture])
def test_every_field_is_on_the_page(kind):
    missing = [name for name in kind.__struct_fields__ if f"`{name}`" not in PAGE and f"`{name}:" not in PAGE]

    assert not missing


@pytest.mark.parametrize("status, code", sorted({(status, code) for status, _, code in FORMS.values()}))
def test_every_error_is_on_the_page(status, code):
    assert any(line.startswith(f"| {status} |") and f"`{code}`" in line for line in PAGE.splitlines())


def test_names_and_bounds_are_those_of_the_code():
    assert f"it is `{ANY_MODEL}`" in PAGE
    assert f"up to {MAX_PROMPTS} of them" in PAGE
    assert f"1 to {MAX_N}" in PAGE
