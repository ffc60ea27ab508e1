"""What an account may give, and what a refusal says: which rule, until when, what would lift it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import BadValue, NoKudos, NotAllowed, Refusal
from protocol.rules import TransfersSection
from tests.support.builders import DAY, HOUR, NOW
from tracker.transfers import Giver, check_transfer

ON, OFF = TransfersSection(mode="on"), TransfersSection(mode="off")
LIMITED = TransfersSection(mode="limited", daily=100_000, age_days=7)
GIVER = Giver(number=100, since=NOW - 30 * DAY, balance=500_000, earned=400_000)


def refusal_of(rules, giver, to=101, amount=1_000):
    with pytest.raises(Refusal) as refused:
        check_transfer(rules, giver, to, amount, NOW)
    return refused.value


@pytest.mark.parametrize("rules", [ON, LIMITED])
def test_an_account_gives_what_it_has_earned(rules):
    check_transfer(rules, GIVER, 101, 100_000, NOW)


def test_where_transfers_are_off_nobody_gives():
    found = refusal_of(OFF, GIVER)
    assert isinstance(found, NotAllowed)
    assert "transfers.mode" in found.text


def test_where_transfers_are_on_only_the_balance_bounds_them():
    young = replace(GIVER, since=NOW, earned=0, given_today=10**9)
    check_transfer(ON, young, 101, 500_000, NOW)
    found = refusal_of(ON, young, amount=500_001)
    assert isinstance(found, NoKudos)
    assert found.text.startswith("500.001 kudos to give, and the balance is 500")


@pytest.mark.parametrize("rules", [ON, LIMITED])
def test_nobody_gives_to_itself(rules):
    assert isinstance(refusal_of(rules, GIVER, to=100), BadValue)


def test_limited_means_an_account_of_some_age_and_says_in_how_many_days():
    found = refusal_of(LIMITED, replace(GIVER, since=NOW - 5 * DAY + HOUR))
    assert isinstance(found, NotAllowed)
    assert "transfers.age_days): yours in 3 days" in found.text
    check_transfer(LIMITED, replace(GIVER, since=NOW - 7 * DAY), 101, 1, NOW)


def test_limited_means_no_more_in_all_than_was_earned_by_serving():
    given = replace(GIVER, given=390_000)
    check_transfer(LIMITED, given, 101, 10_000, NOW)
    found = refusal_of(LIMITED, given, amount=10_001)
    assert isinstance(found, NotAllowed)
    assert "10 are left of it; serving raises that" in found.text


def test_limited_means_so_much_a_day_and_says_when_the_next_one_begins():
    given = replace(GIVER, given=99_000, given_today=99_000)
    check_transfer(LIMITED, given, 101, 1_000, NOW)
    found = refusal_of(LIMITED, given, amount=1_001)
    assert isinstance(found, NotAllowed)
    assert "1 are left for today; the next day (UTC) begins in 24 hours" in found.text


@given(st.integers(1, 10**12), st.integers(0, 10**12), st.integers(0, 10**12), st.integers(0, 10**12))
def test_what_is_allowed_is_within_every_bound(amount, balance, earned, today):
    giver = Giver(100, NOW - 30 * DAY, balance, earned, given=today, given_today=today)
    try:
        check_transfer(LIMITED, giver, 101, amount, NOW)
    except Refusal:
        assert amount > balance or amount + today > earned or amount + today > LIMITED.daily
    else:
        assert amount <= balance
        assert amount + today <= min(earned, LIMITED.daily)
