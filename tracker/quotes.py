"""What a request would cost: decided from a balance, a price and the tax, as the holds of its jobs would be."""

from __future__ import annotations

from dataclasses import dataclass

from protocol.postings import share


@dataclass(frozen=True)
class Cost:
    """Of all n jobs: what would be held, and what of the prices would not be covered. first_held: for the first one;
    is_carried: whether others would carry a part of that."""

    held: int
    free: int
    first_held: int
    is_carried: bool


def cost(price: int, tax: int, balance: int, n: int) -> Cost:
    """What n jobs of this price take of a balance, one after the other."""
    first = share(price, tax, balance)
    held = free = 0
    for _ in range(n):
        part = share(price, tax, balance - held)
        held += part.held
        free += part.free
    return Cost(held, free, first.held, first.free > 0)
