"""Strikes: how often somebody's prompts were refused of late, and how long nothing is taken from them for it."""

from __future__ import annotations

from dataclasses import dataclass

from protocol.errors import TimedOut
from protocol.rules import FilterSection


@dataclass(frozen=True)
class Strikes:
    """Of one account, address block, or user of a service. count: as it stood at `last`, when the last one came.
    until: when their time-out ends, or ended."""

    count: int = 0
    last: int = 0
    until: int = 0


NONE = Strikes()


def standing(strikes: Strikes, rules: FilterSection, now: int) -> int:
    """How many are not forgotten."""
    return max(0, strikes.count - max(0, now - strikes.last) // (rules.forget * 1000))


def struck(strikes: Strikes, rules: FilterSection, now: int) -> Strikes:
    """One more. Each beyond those that have no consequence doubles the time-out, up to the longest."""
    count = standing(strikes, rules, now) + 1
    over = count - rules.strikes
    if over <= 0:
        return Strikes(count, now, strikes.until)
    # Beyond 2^40 seconds every bound is reached.
    seconds = min(rules.timeout * 2 ** min(over - 1, 40), rules.longest_timeout)
    return Strikes(count, now, max(strikes.until, now + seconds * 1000))


def check_time_out(strikes: Strikes, now: int) -> None:
    """Raise `TimedOut` while nothing is taken from these."""
    if strikes.until > now:
        raise TimedOut(
            f"{strikes.count} prompts were refused, so nothing is taken from you for another"
            f" {-(-(strikes.until - now) // 1000)} s: wait, then ask for something else"
        )
