"""What the ledger records of each event: a public leaf, and the evidence beside it that opens its commitments."""

from __future__ import annotations

from dataclasses import dataclass

from protocol import merkle
from protocol.codec import encode
from protocol.digests import commitment
from protocol.documents import Evidence, Leaf
from protocol.postings import Postings

DAY_MS = 86_400_000


@dataclass(frozen=True)
class Entry:
    """One entry as it is stored. leaf, evidence: encoded; hash: of the leaf in the tree."""

    leaf: bytes
    hash: bytes
    evidence: bytes
    postings: Postings


def day_of(now: int) -> int:
    """Days since 1970 (UTC)."""
    return now // DAY_MS


def make_entry(event: str, postings: Postings, evidence: Evidence) -> Entry:
    """The entry that records `postings`; they must sum to zero."""
    if sum(amount for _, amount in postings):
        raise ValueError(f"postings of a {event} that do not sum to zero: {postings}")
    beside = encode(evidence)
    leaf = encode(leaf_of(event, postings, evidence, beside))
    return Entry(leaf, merkle.leaf_hash(leaf), beside, postings)


def leaf_of(event: str, postings: Postings, evidence: Evidence, beside: bytes) -> Leaf:
    """The public leaf: the day only, and hold and evidence as commitments. beside: the evidence as it is kept."""
    return Leaf(
        event=event,
        day=day_of(evidence.time),
        postings=postings,
        hold=commitment(evidence.salt, evidence.job or b""),
        evidence=commitment(evidence.salt, beside),
    )


def show_kudos(thousandths: int) -> str:
    """Thousandths as people write kudos: `7.6`."""
    return f"{thousandths / 1000:,.3f}".rstrip("0").rstrip(".")


def decayed(amount: int, since: int, now: int, half_life_days: int) -> int:
    """What is left of `amount` after `now - since` milliseconds when half is forgotten in `half_life_days`."""
    if amount <= 0 or now <= since:
        return max(0, amount)
    return int(amount * 0.5 ** ((now - since) / (half_life_days * DAY_MS)))


def give_back_class(earned: int, taken: int) -> int:
    """0: has not given yet; 1: gives less than half of what it takes; 2: less than that; 3: at least as much."""
    if earned <= 0:
        return 0
    if earned * 2 < taken:
        return 1
    return 2 if earned < taken else 3
