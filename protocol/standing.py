"""Who has a voice: an account that was paid enough for serving within so many days, as the public ledger shows it.

Everybody can compute this from the leaves. What is withheld of a new owner counts when it becomes its own. A voice
asks for the whole of `votes.standing` from each account by itself: who splits its work among n accounts has to do n
times the work for n voices, as n people have to; and who gives kudos away gives no standing with them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from protocol.documents import Leaf
from protocol.postings import FIRST_PERSON
from protocol.rules import VotesSection

DAY_MS = 86_400_000

#: Events by which serving makes kudos an account's own.
EARNING = frozenset({"settle", "recovered", "vest", "trust"})


def days_that_count(opened: int, rules: VotesSection) -> tuple[int, int]:
    """The days by which voices are counted in a vote that began then: the first of them, and the one after the last."""
    today = opened // DAY_MS
    return today - rules.days + 1, today + 1


def earned(leaves: Iterable[Leaf], since: int, before: int) -> Counter[int]:
    """What each account earned by entries of the days from `since` to the one before `before`, in thousandths."""
    found: Counter[int] = Counter()
    for leaf in leaves:
        if leaf.event in EARNING and since <= leaf.day < before:
            count(leaf, found)
    return found


def count(leaf: Leaf, found: Counter[int]) -> None:
    """Add what an entry by which kudos are earned paid to whom."""
    for account, amount in leaf.postings:
        if account >= FIRST_PERSON and amount > 0:
            found[account] += amount


def voices(earnings: Mapping[int, int], rules: VotesSection) -> dict[int, int]:
    """The accounts that have one voice each, with what they earned."""
    return {account: amount for account, amount in earnings.items() if amount >= rules.standing}


def is_accepted(yes: int, no: int, rules: VotesSection) -> bool:
    """Whether a vote changes something."""
    return yes + no >= rules.quorum and yes > no
