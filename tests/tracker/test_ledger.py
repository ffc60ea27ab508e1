"""Entries of the ledger: a public leaf that tells nobody's business, and the evidence that opens it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import codec, merkle, postings
from protocol.digests import commitment
from protocol.documents import Evidence, Leaf
from tests.support.builders import DAY, HOUR, NOW, a_digest, a_handle, a_salt
from tracker.ledger import DAY_MS, day_of, decayed, give_back_class, make_entry

EVIDENCE = Evidence(
    time=NOW + HOUR, rules=3, salt=a_salt(1), job=a_handle(), attempt=2, documents=(a_digest(1), a_digest(2))
)
MOVED = postings.settle(101, paid=600, minted=400, burned=30)


def test_an_entry_holds_leaf_and_evidence_as_they_are_hashed_and_kept():
    entry = make_entry("settle", MOVED, EVIDENCE)
    leaf = codec.decode(entry.leaf, Leaf)
    assert (leaf.event, leaf.day, leaf.postings) == ("settle", NOW // DAY, MOVED)
    assert codec.decode(entry.evidence, Evidence) == EVIDENCE
    assert (entry.hash, entry.postings) == (merkle.leaf_hash(entry.leaf), MOVED)


def test_the_evidence_opens_the_leafs_commitments():
    entry = make_entry("settle", MOVED, EVIDENCE)
    leaf = codec.decode(entry.leaf, Leaf)
    assert leaf.hold == commitment(EVIDENCE.salt, a_handle())
    assert leaf.evidence == commitment(EVIDENCE.salt, entry.evidence)


def test_a_leaf_shows_the_day_and_neither_job_documents_nor_time():
    raw = make_entry("settle", MOVED, EVIDENCE).leaf
    for secret in (a_handle(), a_digest(1), a_digest(2), a_salt(1), codec.encode([EVIDENCE.time])[1:]):
        assert secret not in raw


def test_the_same_event_with_another_salt_looks_different():
    other = Evidence(time=EVIDENCE.time, rules=3, salt=a_salt(2), job=a_handle(), attempt=2)
    one, two = (codec.decode(make_entry("hold", (), each).leaf, Leaf) for each in (EVIDENCE, other))
    assert one.hold != two.hold


@pytest.mark.parametrize("moved", [((100, 1),), ((100, -5), (3, 4))])
def test_postings_that_do_not_sum_to_zero_are_never_entered(moved):
    with pytest.raises(ValueError, match="do not sum to zero"):
        make_entry("hold", moved, EVIDENCE)


def test_a_day_begins_at_midnight_utc():
    assert day_of(NOW) == NOW // DAY_MS
    assert (day_of(NOW - 1), day_of(NOW + DAY_MS - 1)) == (day_of(NOW) - 1, day_of(NOW))


# What is forgotten


@pytest.mark.parametrize(("days", "left"), [(0, 8_000), (30, 4_000), (60, 2_000), (300, 7), (1_000, 0), (-5, 8_000)])
def test_half_is_forgotten_in_each_half_life(days, left):
    assert decayed(8_000, NOW, NOW + days * DAY, 30) == left


def test_nothing_comes_of_nothing():
    assert decayed(0, NOW, NOW + DAY, 30) == 0
    assert decayed(-5, NOW, NOW + DAY, 30) == 0


@given(
    amount=st.integers(0, 10**12),
    one=st.integers(0, 400 * DAY),
    two=st.integers(0, 400 * DAY),
    half_life=st.integers(1, 365),
)
def test_forgetting_only_takes_away_and_never_below_zero(amount, one, two, half_life):
    once = decayed(amount, NOW, NOW + one, half_life)
    assert 0 <= once <= amount
    in_two_steps = decayed(once, NOW + one, NOW + one + two, half_life)
    assert in_two_steps <= decayed(amount, NOW, NOW + one + two, half_life) + 1, "looking twice costs at most rounding"
    assert in_two_steps <= once


# Who gives


@pytest.mark.parametrize(
    ("earned", "taken", "found"),
    [(0, 0, 0), (0, 100, 0), (1, 100, 1), (49, 100, 1), (50, 100, 2), (99, 100, 2), (100, 100, 3), (5, 0, 3)],
)
def test_what_the_tracker_vouches_for_about_giving_back(earned, taken, found):
    assert give_back_class(earned, taken) == found
