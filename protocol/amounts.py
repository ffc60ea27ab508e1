"""How people write amounts of kudos and the accounts that they mean."""

from __future__ import annotations

from decimal import Decimal

from protocol.documents import MAX_AMOUNT
from protocol.postings import FIRST_PERSON


def read_kudos(text: str) -> int:
    """The thousandths that `text` means, a number with at most three decimals; raises `ValueError`."""
    try:
        amount = Decimal(text) * 1000
    except ArithmeticError:
        amount = Decimal("nan")
    if not amount.is_finite() or not 1 <= amount <= MAX_AMOUNT or amount != amount.to_integral_value():
        raise ValueError(f"{text[:40]!r}: wanted 0.001 to {MAX_AMOUNT // 1000} kudos, with at most three decimals")
    return int(amount)


def read_account(text: str) -> int:
    """The number of the account that `text` means: it stands alone, or behind a name and `#`; raises `ValueError`."""
    number = text.rpartition("#")[2]
    if not (number.isascii() and number.isdigit() and len(number) <= 18) or int(number) < FIRST_PERSON:
        raise ValueError(
            f"{text[:60]!r}: wanted an account's number, {FIRST_PERSON} or higher, alone or behind its name, as Ada#123"
        )
    return int(number)
