"""Probation: what a new owner's pay waits for, and what is missing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.rules import EarningSection
from tests.support.builders import DAY, HOUR, NOW
from tracker.earning import Missing, Record, counts_as_fault, gains_trust, is_trusted, missing, withheld

RULES = EarningSection(withheld=500, trust_jobs=20, trust_days=3, fault_days=7)


def a_record(age=4 * DAY, jobs=20, fault=0, trusted=False):
    return Record(since=NOW - age, jobs=jobs, fault=fault, trusted=trusted)


@pytest.mark.parametrize(
    ("record", "lacks"),
    [
        (a_record(), Missing()),
        (a_record(jobs=0, age=0), Missing(jobs=20, days=3)),
        (a_record(jobs=19), Missing(jobs=1)),
        (a_record(age=3 * DAY), Missing()),
        (a_record(age=3 * DAY - 1), Missing(days=1)),
        (a_record(age=2 * DAY - HOUR), Missing(days=2)),
        (a_record(fault=NOW), Missing(fault_days=7)),
        (a_record(fault=NOW - 7 * DAY + 1), Missing(fault_days=1)),
        (a_record(fault=NOW - 7 * DAY), Missing()),
    ],
)
def test_an_owner_is_trusted_after_so_many_jobs_and_days_and_without_a_fault(record, lacks):
    assert missing(record, RULES, NOW) == lacks
    assert is_trusted(record, RULES, NOW) == (lacks == Missing())


def test_trust_once_gained_stays():
    fallen = a_record(age=0, jobs=0, fault=NOW, trusted=True)
    assert missing(fallen, RULES, NOW) == Missing()
    assert withheld(fallen, RULES, 1_000, NOW) == 0


def test_a_part_of_the_pay_waits_until_then_rounded_down():
    assert withheld(a_record(jobs=19), RULES, 1_001, NOW) == 500
    assert withheld(a_record(jobs=20), RULES, 1_001, NOW) == 0


def test_a_rule_of_nothing_switches_probation_off():
    off = EarningSection(withheld=0)
    assert withheld(a_record(jobs=0), off, 1_000, NOW) == 0
    assert missing(a_record(jobs=0, fault=NOW), off, NOW) == Missing(), "nobody is told to wait for anything"
    assert not gains_trust(a_record(jobs=0), off, NOW), "and who served meanwhile is on it when it is switched on again"
    assert not gains_trust(a_record(), off, NOW)
    assert gains_trust(a_record(), RULES, NOW)
    assert not gains_trust(a_record(jobs=0), RULES, NOW)


@given(st.integers(0, 10**12), st.integers(0, 1_000), st.integers(0, 40))
def test_no_more_than_the_pay_waits(pay, permille, jobs):
    rules = EarningSection(withheld=permille)
    assert 0 <= withheld(a_record(jobs=jobs), rules, pay, NOW) <= pay


@given(st.integers(0, 10 * DAY), st.integers(0, 10 * DAY))
def test_a_fault_counts_for_as_long_as_it_keeps_trust_away(age, after):
    record = a_record(fault=NOW - age)
    assert counts_as_fault(record.fault, RULES, NOW + after) == bool(missing(record, RULES, NOW + after).fault_days)
