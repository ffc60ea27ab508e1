"""What hordes of different kinds begin with."""

from pathlib import Path

import pytest

from tracker.config import parse
from tracker.rulebook import default_toml, keys
from tracker.templates import NAMES, Template, template

FILE = Path("horde.toml")


def rules_of(kind):
    start = template(kind)
    return parse(default_toml(start.values, start.reasons), FILE).rules


@pytest.mark.parametrize("kind", NAMES)
def test_a_template_is_understood_says_only_what_differs_and_why(kind):
    start, defaults = template(kind), dict(keys())

    assert {key for key, value in start.values.items() if defaults[key] == value} == set()
    assert start.reasons.keys() <= start.values.keys()
    assert len(start.reasons) >= len(start.values) // 2
    rules = rules_of(kind)
    for key, value in start.values.items():
        table, _, name = key.partition(".")
        assert getattr(getattr(rules, table), name) == value


@pytest.mark.parametrize("kind", NAMES)
def test_its_reasons_stand_in_the_file_that_is_made(kind):
    start = template(kind)
    words = " ".join(default_toml(start.values, start.reasons).replace("#", " ").split())

    assert all(f"Here: {reason}" in words for reason in start.reasons.values())


def test_a_public_horde_serves_everybody_and_the_others_their_members():
    assert {kind: rules_of(kind).accounts.anonymous for kind in NAMES} == {
        "public": True,
        "school": False,
        "friends": False,
    }


def test_a_school_makes_nothing_for_adults_and_friends_pay_no_tax():
    assert set(rules_of("school").filter.treatments().values()) == {"refuse", "replace"}
    assert rules_of("school").transfers.mode == "off"
    assert (rules_of("friends").prices.tax, rules_of("friends").transfers.mode) == (0, "on")


def test_a_template_that_names_no_rule_would_be_seen():
    start = Template("x", {"limits.max_m": 3}, {})

    assert parse(default_toml(start.values), FILE).rules == parse("", FILE).rules
    assert start.values.keys() - dict(keys()).keys() == {"limits.max_m"}
