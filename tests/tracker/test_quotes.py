"""What a request would cost, before it is asked for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.postings import share
from tracker.quotes import Cost, cost


@pytest.mark.parametrize(
    ("balance", "n", "found"),
    [
        (0, 1, Cost(held=0, free=7_600, first_held=0, is_carried=True)),
        (100_000, 1, Cost(held=10_600, free=0, first_held=10_600, is_carried=False)),
        (7_600, 1, Cost(held=7_600, free=0, first_held=7_600, is_carried=False)),
        (15_000, 2, Cost(held=15_000, free=3_200, first_held=10_600, is_carried=False)),
        (-5, 3, Cost(held=0, free=22_800, first_held=0, is_carried=True)),
    ],
)
def test_a_balance_covers_the_price_then_the_tax_job_by_job(balance, n, found):
    assert cost(7_600, 3_000, balance, n) == found


@given(price=st.integers(0, 10**6), tax=st.integers(0, 10**4), balance=st.integers(-5, 10**7), n=st.integers(1, 20))
def test_it_is_what_the_holds_of_its_jobs_would_be(price, tax, balance, n):
    found, left, free = cost(price, tax, balance, n), balance, 0
    for _ in range(n):
        part = share(price, tax, left)
        left -= part.held
        free += part.free
    assert (found.held, found.free) == (balance - left, free)
