"""Probation: whether an owner is trusted, what of its pay waits until then, and what is missing."""

from __future__ import annotations

from dataclasses import dataclass

from protocol import postings
from protocol.rules import EarningSection
from tracker.ledger import DAY_MS


@dataclass(frozen=True)
class Record:
    """What is known of an owner. since: when its account was opened. jobs: of its workers, paid. fault: when one of
    its attempts was refunded last, 0 if never. trusted: it has been, and so it stays."""

    since: int
    jobs: int
    fault: int = 0
    trusted: bool = False


@dataclass(frozen=True)
class Missing:
    """What is missing to trust. jobs, days: so many more. fault_days: until the last fault has been long enough ago."""

    jobs: int = 0
    days: int = 0
    fault_days: int = 0

    def __bool__(self) -> bool:
        """Whether anything is."""
        return bool(self.jobs or self.days or self.fault_days)


NOTHING_MISSING = Missing()


def missing(record: Record, rules: EarningSection, now: int) -> Missing:
    """What this owner still needs to be trusted; nothing once it has been, nor where nothing is withheld of anybody.
    Days are of 24 hours, begun ones count."""
    if record.trusted or not rules.withheld:
        return NOTHING_MISSING
    days = _days_until(record.since + rules.trust_days * DAY_MS, now)
    fault_days = _days_until(record.fault + rules.fault_days * DAY_MS, now) if record.fault else 0
    return Missing(max(0, rules.trust_jobs - record.jobs), days, fault_days)


def is_trusted(record: Record, rules: EarningSection, now: int) -> bool:
    """Whether all that this owner earns is its own at once."""
    return not missing(record, rules, now)


def gains_trust(record: Record, rules: EarningSection, now: int) -> bool:
    """Whether it is trusted from now on, whatever the rules will be; where probation is switched off, nobody gains
    that."""
    return bool(rules.withheld) and not record.trusted and is_trusted(record, rules, now)


def counts_as_fault(fault: int, rules: EarningSection, now: int) -> bool:
    """Whether a refund at that time still stands against trust."""
    return now < fault + rules.fault_days * DAY_MS


def withheld(record: Record, rules: EarningSection, pay: int, now: int) -> int:
    """What of a pay waits. record: with the job that is being paid, so that the one that completes the trust is paid
    whole."""
    return 0 if is_trusted(record, rules, now) else postings.withheld(rules.withheld, pay)


def _days_until(moment: int, now: int) -> int:
    return max(0, -(-(moment - now) // DAY_MS))
