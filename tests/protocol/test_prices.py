"""Prices: what volunteers are used to, whole numbers throughout, and never less for more."""

import ast
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import postings, prices
from protocol.errors import NotOffered
from protocol.prices import image_price, interpolate, price, tax, text_price, used_price
from protocol.rules import MintSection, ModelSection, PricesSection, Rules
from protocol.work import ImageWork, TextWork, Work
from tests.support.builders import but

RULES = Rules()

sides = st.integers(2, 512).map(lambda eighths: eighths * 8)
images = st.builds(ImageWork, width=sides, height=sides, steps=st.integers(1, 500), guidance_passes=st.integers(1, 2))
texts = st.builds(TextWork, max_tokens=st.integers(1, 32_768), context_tokens=st.integers(16, 1_048_576))
works: st.SearchStrategy[Work] = images | texts
#: Lines that rise: what an operator who wants sense writes.
points = st.lists(st.tuples(st.integers(1, 10**7), st.integers(0, 10**6)), min_size=1, max_size=8).map(
    lambda pairs: tuple(zip(sorted({x for x, _ in pairs}), sorted(y for _, y in pairs), strict=False))
)
rules = st.builds(
    lambda sizes, text_sizes, base, token, context: Rules(
        prices=PricesSection(
            image_sizes=sizes,
            text_sizes=text_sizes,
            image_base=base,
            text_base=base,
            text_token=token,
            text_context=context,
        )
    ),
    points,
    points,
    st.integers(0, 10_000),
    st.integers(0, 1_000),
    st.integers(0, 10_000),
)


@pytest.mark.parametrize(
    ("side", "steps", "thousandths"),
    [
        (512, 30, 7_600),
        (768, 30, 11_800),
        (1024, 30, 21_000),
        (1536, 30, 57_000),
        (2048, 30, 114_000),
        (512, 50, 11_000),
    ],
)
def test_a_picture_costs_what_volunteers_are_used_to(side: int, steps: int, thousandths: int) -> None:
    assert image_price(RULES, ImageWork(width=side, height=side, steps=steps), "any") == thousandths


def test_a_short_text_of_a_7b_model_costs_about_five() -> None:
    assert text_price(RULES, TextWork(max_tokens=74), "any") == 5_370


def test_the_tax_is_three_whatever_the_size() -> None:
    assert tax(RULES) == 3_000


def test_the_tax_is_one_where_the_result_is_shared() -> None:
    assert tax(Rules(), shared=True) == 1_000


def test_a_text_costs_slowly_more_by_a_larger_model() -> None:
    models = {str(millions): ModelSection(millions=millions) for millions in (135, 1_000, 7_000, 13_000, 70_000)}
    costs = [text_price(but(RULES, models=models), TextWork(max_tokens=74), name) for name in models]

    assert costs == sorted(set(costs))
    assert costs[-1] < 5 * costs[0]


def test_a_model_has_a_factor_of_its_own() -> None:
    double = but(RULES, models={"dear": ModelSection(price=2_000), "gift": ModelSection(price=0)})

    assert image_price(double, ImageWork(), "dear") == 15_200
    assert image_price(double, ImageWork(), "gift") == 0
    assert image_price(double, ImageWork(), "another") == 7_600


def test_extras_add_their_price_and_others_are_not_offered() -> None:
    offering = but(RULES, prices=PricesSection(image_extras={"upscale": 1_500}))

    assert image_price(offering, ImageWork(extras=("upscale",)), "any") == 9_100
    with pytest.raises(NotOffered, match="upscale"):
        image_price(offering, ImageWork(extras=("face",)), "any")
    with pytest.raises(NotOffered, match="none"):
        image_price(RULES, ImageWork(extras=("upscale",)), "any")


@given(rules=rules, work=images, field=st.sampled_from(["width", "height", "steps", "guidance_passes"]), data=st.data())
def test_a_picture_never_costs_less_for_more(rules: Rules, work: ImageWork, field: str, data: st.DataObject) -> None:
    more = but(work, **{field: getattr(data.draw(images), field)})
    smaller, larger = sorted((work, more), key=lambda either: getattr(either, field))

    assert image_price(rules, smaller, "any") <= image_price(rules, larger, "any")


@given(rules=rules, work=texts, field=st.sampled_from(["max_tokens", "context_tokens"]), data=st.data())
def test_a_text_never_costs_less_for_more(rules: Rules, work: TextWork, field: str, data: st.DataObject) -> None:
    more = but(work, **{field: getattr(data.draw(texts), field)})
    smaller, larger = sorted((work, more), key=lambda either: getattr(either, field))

    assert text_price(rules, smaller, "any") <= text_price(rules, larger, "any")


@given(rules=rules, work=texts, sizes=st.tuples(st.integers(1, 10**6), st.integers(1, 10**6)))
def test_a_larger_model_never_costs_less(rules: Rules, work: TextWork, sizes: tuple[int, int]) -> None:
    small, large = sorted(sizes)
    models = {"small": ModelSection(millions=small), "large": ModelSection(millions=large)}

    assert text_price(but(rules, models=models), work, "small") <= text_price(but(rules, models=models), work, "large")


@given(points=points, at=st.tuples(st.integers(0, 10**8), st.integers(0, 10**8)))
def test_a_line_rises_and_goes_through_its_points(points: tuple[tuple[int, int], ...], at: tuple[int, int]) -> None:
    assert interpolate(points, min(at)) <= interpolate(points, max(at))
    assert all(interpolate(points, x) == y for x, y in points)
    assert interpolate(points, 0) == 0


def test_past_the_last_point_the_last_slope_goes_on() -> None:
    line = ((10, 100), (20, 300))

    assert [interpolate(line, at) for at in (5, 10, 15, 20, 30)] == [50, 100, 200, 300, 500]
    assert interpolate(((10, 100),), 30) == 300


@given(rules=rules, work=works, used=st.tuples(st.integers(0, 40_000), st.integers(0, 40_000)))
def test_reported_use_lowers_a_price_and_never_raises_it(rules: Rules, work: Work, used: tuple[int, int]) -> None:
    leased = price(rules, work, "any")
    whole = work.steps if isinstance(work, ImageWork) else work.max_tokens

    less, more = (used_price(rules, work, "any", number, leased) for number in sorted(used))
    assert 0 <= less <= more <= leased
    assert used_price(rules, work, "any", whole, leased) == leased


@given(rules=rules, work=works)
def test_prices_are_whole_numbers(rules: Rules, work: Work) -> None:
    for amount in (price(rules, work, "any"), used_price(rules, work, "any", 1, price(rules, work, "any"))):
        assert type(amount) is int
        assert amount >= 0


@pytest.mark.parametrize("module", [prices, postings], ids=lambda module: module.__name__)
def test_nothing_that_prices_can_make_a_float(module: object) -> None:
    tree = ast.parse(Path(str(module.__file__)).read_text("utf-8"))  # type: ignore[attr-defined]

    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, float)]
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Div)]


def test_no_field_of_the_rules_is_a_float() -> None:
    text = msgspec.json.schema(Rules)

    assert '"number"' not in msgspec.json.encode(text).decode()
    assert '"integer"' in msgspec.json.encode(text).decode()


def test_the_mint_falls_in_steps_as_the_days_budget_is_used_up() -> None:
    mint = MintSection()
    rates = [
        postings.mint_rate(mint.steps, 1_000, used) for used in (0, 499, 500, 749, 750, 899, 900, 999, 1_000, 5_000)
    ]

    assert rates == [1_000, 1_000, 500, 500, 250, 250, 100, 100, 0, 0]


def test_without_a_budget_nothing_is_minted() -> None:
    assert postings.mint_rate(MintSection().steps, 0, 0) == 0
    assert postings.minted(MintSection().steps, 0, 0, 7_600) == 0


@given(daily=st.integers(0, 10**6), used=st.integers(0, 10**6), free=st.integers(0, 10**6))
def test_the_mint_gives_at_most_the_free_part_and_never_more_than_the_budget(daily: int, used: int, free: int) -> None:
    amount = postings.minted(MintSection().steps, daily, used, free)

    assert 0 <= amount <= free
    assert amount <= max(0, daily - used)
