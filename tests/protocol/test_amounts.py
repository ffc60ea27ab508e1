"""Amounts and accounts as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.amounts import read_account, read_kudos
from protocol.documents import MAX_AMOUNT


@pytest.mark.parametrize(
    ("text", "thousandths"),
    [("1", 1_000), ("7.6", 7_600), ("0.001", 1), ("1e3", 1_000_000), ("1000000000", MAX_AMOUNT), (" 2 ", 2_000)],
)
def test_kudos_are_read_to_the_thousandth(text, thousandths):
    assert read_kudos(text) == thousandths


@pytest.mark.parametrize("text", ["", "0", "-1", "0.0001", "1.0005", "nan", "inf", "1000000001", "1,5", "1e999999"])
def test_what_is_no_amount_is_refused(text):
    with pytest.raises(ValueError, match="at most three decimals"):
        read_kudos(text)


@given(st.integers(1, MAX_AMOUNT))
def test_every_amount_can_be_written(amount):
    assert read_kudos(f"{amount // 1000}.{amount % 1000:03}") == amount


@pytest.mark.parametrize(("text", "number"), [("100", 100), ("Ada#4711", 4711), ("a b c#100", 100)])
def test_an_account_is_its_number_with_or_without_its_name(text, number):
    assert read_account(text) == number


@pytest.mark.parametrize("text", ["", "Ada", "99", "Ada#", "#1x", "-100", "100 ", "٣٣٣", "9" * 30])
def test_what_is_no_account_is_refused(text):
    with pytest.raises(ValueError, match="number, 100 or higher"):
        read_account(text)
