"""What a request may ask for, and which of its models it can bear."""

import re

import pytest

from protocol.errors import NotOffered, NotRegistered, OverLimit, OverMaxPrice
from protocol.prices import price
from protocol.rules import AccountsSection, LimitsSection, ModelSection, PricesSection, Rules
from tests.support.builders import a_public_part, a_text_work, an_image_work, but
from tracker.limits import affordable, check_limits, check_user_limit

LIMITS = LimitsSection(
    max_pixels=512 * 512,
    max_steps=60,
    max_tokens=600,
    max_context=4_096,
    max_n=8,
    anonymous_max_pixels=256 * 256,
    anonymous_max_steps=30,
    anonymous_max_tokens=100,
    anonymous_max_context=1_024,
    anonymous_max_n=2,
    open_jobs=10,
    anonymous_open_jobs=3,
    user_open_jobs=2,
)
RULES = Rules(limits=LIMITS)


def the_largest(kind, *, anonymous, more=0):
    """The largest request that is allowed, and by `more` larger in one measure."""
    if kind == "pixels":
        side = 256 if anonymous else 512
        return a_public_part(an_image_work(side, side + 8 * more))
    if kind == "steps":
        return a_public_part(an_image_work(steps=(30 if anonymous else 60) + more))
    if kind == "tokens":
        return a_public_part(a_text_work(max_tokens=(100 if anonymous else 600) + more, context_tokens=1_024))
    if kind == "context":
        return a_public_part(a_text_work(max_tokens=1, context_tokens=(1_024 if anonymous else 4_096) + more))
    return a_public_part(n=(2 if anonymous else 8) + more)


@pytest.mark.parametrize("anonymous", [True, False])
@pytest.mark.parametrize("kind", ["pixels", "steps", "tokens", "context", "n"])
def test_the_largest_passes_and_the_next_larger_is_refused(kind, anonymous):
    check_limits(the_largest(kind, anonymous=anonymous), RULES, anonymous=anonymous, open_jobs=0)
    with pytest.raises(OverLimit, match=f"{kind} .*: at most"):
        check_limits(the_largest(kind, anonymous=anonymous, more=1), RULES, anonymous=anonymous, open_jobs=0)


@pytest.mark.parametrize("kind", ["pixels", "steps", "tokens", "context", "n"])
def test_a_refusal_says_whether_an_account_would_lift_it(kind):
    with pytest.raises(OverLimit, match="or register, which is free: with an account it is"):
        check_limits(the_largest(kind, anonymous=True, more=1), RULES, anonymous=True, open_jobs=0)
    invited, closed = AccountsSection(registration="invited"), AccountsSection(registration="closed")
    for accounts, says in ((invited, "by an invitation of the operator"), (closed, "ask for less$")):
        rules = but(RULES, accounts=accounts)
        with pytest.raises(OverLimit, match=says):
            check_limits(the_largest(kind, anonymous=True, more=1), rules, anonymous=True, open_jobs=0)
    with pytest.raises(OverLimit) as caught:
        check_limits(the_largest(kind, anonymous=False, more=1), RULES, anonymous=True, open_jobs=0)
    assert "account" not in str(caught.value), "an account would not help"


@pytest.mark.parametrize("anonymous", [True, False])
@pytest.mark.parametrize("kind", ["pixels", "steps", "tokens", "context", "n"])
def test_a_refusal_of_a_size_says_which_rule_and_that_time_does_not_lift_it(kind, anonymous):
    rule = f"limits.{'anonymous_' if anonymous else ''}max_{kind}"
    with pytest.raises(OverLimit, match=f"the rule {rule}, which no time lifts: ask for less"):
        check_limits(the_largest(kind, anonymous=anonymous, more=1), RULES, anonymous=anonymous, open_jobs=0)


def test_a_refusal_of_too_many_jobs_says_which_rule_and_how_many_have_to_end():
    with pytest.raises(OverLimit, match=r"limits\.open_jobs; wait until 1 of them has ended, or cancel some$"):
        check_limits(a_public_part(n=2), RULES, anonymous=False, open_jobs=9)
    with pytest.raises(OverLimit, match=r"limits\.anonymous_open_jobs; wait until 2 of .*: with an account it is 10$"):
        check_limits(a_public_part(n=2), RULES, anonymous=True, open_jobs=3)
    with pytest.raises(OverLimit, match="ask for fewer at once"):
        check_limits(a_public_part(n=8), but(RULES, limits=but(LIMITS, open_jobs=5)), anonymous=False, open_jobs=1)


@pytest.mark.parametrize(("anonymous", "most"), [(True, 3), (False, 10)])
def test_so_many_jobs_are_under_way_at_once(anonymous, most):
    public = a_public_part(n=2)
    check_limits(public, RULES, anonymous=anonymous, open_jobs=most - 2)
    with pytest.raises(OverLimit, match=f"{most - 1} jobs of .* are under way and 2 more"):
        check_limits(public, RULES, anonymous=anonymous, open_jobs=most - 1)


def test_so_many_jobs_of_one_user_of_a_service_are_under_way_at_once():
    check_user_limit(a_public_part(n=1), RULES, 1)
    with pytest.raises(
        OverLimit, match=r"limits\.user_open_jobs; wait until 1 of them has ended, .*other users can ask$"
    ):
        check_user_limit(a_public_part(n=1), RULES, 2)


def test_a_request_may_mark_itself_with_a_topic_of_the_filter():
    check_limits(but(a_public_part(), flags=("adult", "hate")), RULES, anonymous=True, open_jobs=0)


@pytest.mark.parametrize("fields", [{"share": True}, {"flags": ("adult", "priority")}])
def test_what_this_horde_does_not_offer_is_refused_by_name(fields):
    with pytest.raises(NotOffered, match=r"share|'priority' .* known are adult, violence"):
        check_limits(but(a_public_part(), **fields), RULES, anonymous=False, open_jobs=0)


# Models


DEAR = Rules(models={"dear": ModelSection(price=3_000), "cheap": ModelSection(price=500)})
WORK = an_image_work()
NORMAL = price(DEAR, WORK, "any")


def asking(*models, max_price=0):
    return but(a_public_part(WORK, models=models), max_price=max_price)


@pytest.mark.parametrize(
    ("models", "max_price", "served", "bearable"),
    [
        (("cheap", "any", "dear"), 0, (), ("cheap", "any", "dear")),
        (("cheap", "any", "dear"), NORMAL, (), ("cheap", "any")),
        (("dear", "cheap"), NORMAL - 1, ("any",), ("cheap",)),
        ((), 0, ("dear", "any"), ("dear", "any")),
        ((), NORMAL, ("dear", "any"), ("any",)),
        ((), 0, (), ()),
        ((), NORMAL, (), ()),
    ],
)
def test_models_whose_price_a_request_bears(models, max_price, served, bearable):
    assert affordable(asking(*models, max_price=max_price), DEAR, served) == bearable


@pytest.mark.parametrize(
    ("models", "max_price", "served"),
    [(("dear", "any"), NORMAL - 1, ()), ((), NORMAL - 1, ("dear", "any")), ((), NORMAL - 1, ())],
)
def test_a_bound_below_every_price_is_refused_with_the_least(models, max_price, served):
    with pytest.raises(OverMaxPrice, match=f"the least that this costs here is {NORMAL / 1000:g} kudos"):
        affordable(asking(*models, max_price=max_price), DEAR, served)


@pytest.mark.parametrize(("bound", "shown"), [(1, "0.001"), (1_000, "1"), (100, "0.1")])
def test_a_bound_is_told_in_kudos_as_it_was_given(bound, shown):
    with pytest.raises(OverMaxPrice, match=rf"max_price is {shown}$"):
        affordable(asking("dear", max_price=bound), Rules(models={"dear": ModelSection(price=1_000_000)}), ())


def test_an_extra_that_the_rules_do_not_price_is_refused():
    public = a_public_part(an_image_work())
    public = but(public, work=but(public.work, extras=("upscale",)))
    with pytest.raises(NotOffered, match="upscale"):
        affordable(public, Rules(), ())
    offered = Rules(prices=PricesSection(image_extras={"upscale": 7}))
    assert affordable(public, offered, ()) == public.models


@pytest.mark.parametrize(
    ("registration", "says"),
    [
        ("open", "register, which is free"),
        ("invited", "ask its operator for an invitation, then `potluck account --register --invite CODE`"),
        ("closed", "it takes no new accounts now: ask its operator"),
    ],
)
def test_who_asks_a_horde_for_members_as_nobody_is_told_how_to_get_in(registration, says):
    rules = Rules(accounts=AccountsSection(registration=registration, anonymous=False))
    check_limits(a_public_part(), rules, anonymous=False, open_jobs=0)
    with pytest.raises(NotRegistered, match=re.escape(says)):
        check_limits(a_public_part(), rules, anonymous=True, open_jobs=0)
