"""Double entry: which accounts each event of the ledger moves. The postings of an event sum to zero.

Accounts are numbers. System accounts: mint 1 (its balance is minus all kudos ever made), burn 2 (all ever destroyed),
held 3 (kudos set aside for jobs under way), anonymous 4 (everybody without an account), withheld 5 (earned by owners
who are not trusted yet). Persons begin at 100. No event names both the payer and the worker of a job.
"""

from __future__ import annotations

from dataclasses import dataclass

MINT = 1
BURN = 2
HELD = 3
ANONYMOUS = 4
WITHHELD = 5
#: Accounts that are nobody's.
SYSTEM = (MINT, BURN, HELD, ANONYMOUS, WITHHELD)
FIRST_PERSON = 100

Postings = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Share:
    """How one job's cost falls: `price` = paid + free; `tax_paid` is what of the tax is covered."""

    paid: int
    free: int
    tax_paid: int

    @property
    def held(self) -> int:
        """What the payer's hold must contain."""
        return self.paid + self.tax_paid


def share(price: int, tax: int, available: int) -> Share:
    """A hold covers the price first, then the tax; the uncovered price is free, uncovered tax is waived."""
    available = max(0, available)
    paid = min(price, available)
    return Share(paid, price - paid, min(tax, available - paid))


def hold(payer: int, amount: int) -> Postings:
    """Kudos set aside for a job; also what a payer owes for a settlement that was entered again after a restore."""
    return _without_zeros((payer, -amount), (HELD, amount))


def release(payer: int, amount: int) -> Postings:
    """Kudos set aside and not spent go back to the payer; also of a refund."""
    return _without_zeros((HELD, -amount), (payer, amount))


def settle(worker: int, *, paid: int, minted: int, burned: int, withheld: int = 0) -> Postings:
    """A worker is paid from the hold and from the mint, the tax is burned; the same when it is entered again.

    withheld: what of paid + minted waits until the worker's owner is trusted.
    """
    return _without_zeros(
        (HELD, -(paid + burned)),
        (MINT, -minted),
        (worker, paid + minted - withheld),
        (WITHHELD, withheld),
        (BURN, burned),
    )


def vest(account: int, amount: int) -> Postings:
    """An owner is trusted: all that was withheld of its earnings becomes its own."""
    return _without_zeros((WITHHELD, -amount), (account, amount))


def transfer(giver: int, to: int, amount: int) -> Postings:
    """An account gives kudos to another; nothing if both are one."""
    return () if giver == to else _without_zeros((giver, -amount), (to, amount))


def leave(account: int, balance: int, withheld: int) -> Postings:
    """An account ends: what it has is burned. If it owes (after a restore), the mint carries what nothing covers."""
    left = balance + withheld
    return _without_zeros((account, -balance), (WITHHELD, -withheld), (MINT, min(0, left)), (BURN, max(0, left)))


def award(account: int, amount: int) -> Postings:
    """The operator gives kudos that are made for it."""
    return _without_zeros((MINT, -amount), (account, amount))


def give_back(account: int, to: int, amount: int) -> Postings:
    """Moderators return kudos of an account to another one, or to nobody (0): then they are burned."""
    return _without_zeros((account, -amount), (to or BURN, amount))


def mint_rate(steps: tuple[tuple[int, int], ...], daily: int, used: int) -> int:
    """Permille of a free part that is minted when `used` thousandths of the day's budget are spoken for."""
    if daily <= 0:
        return 0
    for up_to, rate in steps:
        if used * 1000 < up_to * daily:
            return rate
    return 0


def room(daily: int, share: int, used: int) -> int:
    """What one owner, or one asker, may still get of the day's budget: `share` permille of it in all."""
    return max(0, daily * share // 1000 - used)


def owner_room(daily: int, share: int, base: int, matched: int, paid: int, used: int) -> int:
    """What one owner may still get of the day's budget: `base` and `matched` permille of what it was paid that day, and
    never more than `share` permille of the budget."""
    return max(0, min(daily * share // 1000, base + paid * matched // 1000) - used)


def minted(steps: tuple[tuple[int, int], ...], daily: int, used: int, free: int, within: int | None = None) -> int:
    """What of a free part is minted: by the rate, never beyond the day's budget, nor beyond `within`, if given."""
    most = max(0, daily - used)
    return min(free * mint_rate(steps, daily, used) // 1000, most if within is None else min(most, within))


def withheld(permille: int, pay: int) -> int:
    """What of a new owner's pay waits until it is trusted."""
    return pay * permille // 1000


def _without_zeros(*postings: tuple[int, int]) -> Postings:
    return tuple((account, amount) for account, amount in postings if amount)
