"""Rules: published as text and read back the same, with nothing unknown in them."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.rules import (
    HordeSection,
    LimitsSection,
    MintSection,
    ModelSection,
    PricesSection,
    Rules,
    TimesSection,
    from_json,
    to_json,
)

rules = st.builds(
    Rules,
    horde=st.builds(HordeSection, name=st.text(min_size=1, max_size=60)),
    prices=st.builds(
        PricesSection, tax=st.integers(0, 10**6), image_extras=st.dictionaries(st.text(), st.integers(0, 9))
    ),
    limits=st.builds(LimitsSection, max_n=st.integers(1, 64)),
    times=st.builds(TimesSection, accept=st.integers(1, 60)),
    mint=st.builds(MintSection, daily=st.integers(0, 2**62)),
    models=st.dictionaries(st.text(), st.builds(ModelSection, price=st.integers(0, 9_000)), max_size=4),
)


@given(rules=rules)
def test_rules_are_read_back_from_their_text(rules: Rules) -> None:
    assert from_json(to_json(rules)) == rules


@given(rules=rules)
def test_the_same_rules_give_the_same_text(rules: Rules) -> None:
    backwards = msgspec.structs.replace(rules, models=dict(reversed(rules.models.items())))

    assert to_json(backwards) == to_json(rules) == to_json(from_json(to_json(rules)))


def test_defaults_stand_in_the_text() -> None:
    assert from_json("{}") == Rules()
    assert '"tax":3000' in to_json(Rules())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"prices": {"tax": -1}}',
        '{"prices": {"tax": 1.5}}',
        '{"prices": {"image_sizes": []}}',
        '{"limits": {"max_n": 0}}',
        '{"accounts": {"registration": "paid"}}',
        '{"mint": {"steps": [[1, 2, 3]]}}',
    ],
)
def test_what_no_version_knows_is_refused(text: str) -> None:
    with pytest.raises(msgspec.DecodeError):
        from_json(text)


def test_keys_of_a_newer_version_are_ignored() -> None:
    assert from_json('{"hordes": {}, "prices": {"taxes": 1, "tax": 7}}') == from_json('{"prices": {"tax": 7}}')


@given(text=st.text())
def test_any_text_is_rules_or_refused(text: str) -> None:
    try:
        from_json(text)
    except msgspec.DecodeError:
        return
