"""What differs between two versions of the rules."""

from hypothesis import given
from hypothesis import strategies as st

from protocol.changes import TOLD, Change, changes, told, values
from protocol.rules import AccountsSection, FilterSection, LimitsSection, ModelSection, PricesSection, Rules
from tests.support.builders import but


def test_the_same_rules_differ_in_nothing():
    assert changes(Rules(), Rules()) == []
    assert told([]) == ""


def test_each_key_that_differs_is_told_with_what_it_was_and_what_it_is():
    before = Rules(limits=LimitsSection(max_n=3))
    after = Rules(accounts=AccountsSection(anonymous=False))

    assert changes(before, after) == [Change("limits.max_n", 3, 20), Change("accounts.anonymous", True, False)]
    assert told(changes(before, after)) == "limits.max_n: 3 -> 20; accounts.anonymous: true -> false"


def test_models_extras_and_lists_are_told_one_by_one():
    before = Rules(models={"a": ModelSection(price=2_000), "b/c d": ModelSection()})
    after = Rules(
        models={"a": ModelSection(price=3_000), "new": ModelSection()},
        prices=PricesSection(image_extras={"upscale": 5}),
        filter=FilterSection(lists={"club": "0" * 64}),
    )
    found = {change.key: (change.before, change.after) for change in changes(before, after)}

    assert found["models.a.price"] == (2_000, 3_000)
    assert found["models.new.price"] == (None, 1_000)
    assert found['models."b/c d".price'] == (1_000, None)
    assert found["prices.image_extras.upscale"] == (None, 5)
    assert found["filter.lists.club"] == (None, "0" * 64)
    assert "models.new.price: none -> 1000" in map(str, changes(before, after))


def test_of_many_changes_a_few_are_told_and_how_many_there_are():
    before = Rules(models={f"model {number}": ModelSection() for number in range(50)})
    found = changes(before, Rules())

    assert len(told(found).split("; ")) == TOLD + 1
    assert told(found).endswith(f"and {len(found) - TOLD} more")


def test_a_long_value_is_cut():
    [change] = changes(Rules(), Rules(prices=PricesSection(image_sizes=tuple((n + 1, n) for n in range(32)))))

    assert len(str(change)) < 200


@given(tax=st.integers(0, 9), text=st.integers(0, 9))
def test_nothing_is_told_that_does_not_differ(tax: int, text: int):
    before, after = but(Rules(), prices=PricesSection(tax=tax)), but(Rules(), prices=PricesSection(tax=text))

    assert bool(changes(before, after)) == (tax != text)
    assert all(dict(values(before))[change.key] == change.before for change in changes(before, after))
