"""Who has a voice, in figures: splitting an account, giving kudos away, and what waits gain nothing."""

import pytest

from protocol import postings
from protocol.documents import Leaf
from protocol.postings import Postings
from protocol.rules import VotesSection
from protocol.standing import earned, is_accepted, voices

RULES = VotesSection(standing=100_000, days=30, quorum=3)
TODAY = 20_000
ANN, BEN = 100, 101


def leaf(event: str, moved: Postings, day: int = TODAY) -> Leaf:
    return Leaf(event=event, day=day, postings=moved, hold=bytes(32), evidence=bytes(32))


def paid(account: int, amount: int, day: int = TODAY, withheld: int = 0) -> Leaf:
    return leaf("settle", postings.settle(account, paid=amount, minted=0, burned=1_000, withheld=withheld), day)


def roll(leaves: list[Leaf]) -> dict[int, int]:
    return voices(earned(leaves, TODAY - RULES.days + 1, TODAY + 1), RULES)


@pytest.mark.parametrize("accounts", [1, 2, 3, 10])
def test_splitting_an_account_gains_nothing_the_same_work_gives_as_many_voices_or_fewer(accounts: int) -> None:
    work = 350_000  # enough for three voices and a half
    share = work // accounts
    found = roll([paid(ANN + number, share) for number in range(accounts)])
    assert len(found) == {1: 1, 2: 2, 3: 3, 10: 0}[accounts]
    assert len(found) * RULES.standing <= work, "no voice is had for less than its whole standing of work"


def test_n_voices_cost_n_times_the_work() -> None:
    for voices_wanted in range(1, 6):
        enough = [paid(ANN + number, RULES.standing) for number in range(voices_wanted)]
        short = [paid(ANN + number, RULES.standing - 1) for number in range(voices_wanted)]
        assert (len(roll(enough)), len(roll(short))) == (voices_wanted, 0)


def test_more_work_of_one_account_is_one_voice() -> None:
    assert roll([paid(ANN, RULES.standing) for _ in range(50)]) == {ANN: 50 * RULES.standing}


def test_kudos_that_are_given_or_awarded_give_no_voice() -> None:
    given = leaf("transfer", postings.transfer(BEN, ANN, 500_000))
    awarded = leaf("award", postings.award(ANN, 500_000))
    returned = leaf("return", postings.give_back(BEN, ANN, 500_000))
    released = leaf("release", postings.release(ANN, 500_000))
    assert roll([given, awarded, returned, released]) == {}


def test_what_is_withheld_counts_when_it_becomes_ones_own() -> None:
    held_back = paid(ANN, RULES.standing, withheld=60_000)
    assert roll([held_back]) == {}
    assert roll([held_back, leaf("vest", postings.vest(ANN, 60_000))]) == {ANN: RULES.standing}
    assert roll([held_back, leaf("trust", postings.vest(ANN, 60_000))]) == {ANN: RULES.standing}


def test_only_days_within_the_rule_count() -> None:
    assert roll([paid(ANN, RULES.standing, TODAY - 29)]) == {ANN: RULES.standing}
    assert roll([paid(ANN, RULES.standing, TODAY - 30)]) == {}


def test_more_than_half_of_enough_votes_decide() -> None:
    cases = {(2, 1): True, (3, 0): True, (2, 0): False, (2, 2): False, (1, 2): False, (0, 0): False}
    assert {case: is_accepted(*case, RULES) for case in cases} == cases
