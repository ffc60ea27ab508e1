"""Whether an account may give kudos away, and why not."""

from __future__ import annotations

from dataclasses import dataclass

from protocol.errors import BadValue, NoKudos, NotAllowed
from protocol.rules import TransfersSection
from tracker.ledger import DAY_MS, day_of
from tracker.ledger import show_kudos as kudos


@dataclass(frozen=True)
class Giver:
    """Who gives. since: when its account was opened. earned: by serving, without what is withheld. given: by all its
    transfers so far; given_today: by those of this day (UTC)."""

    number: int
    since: int
    balance: int
    earned: int
    given: int = 0
    given_today: int = 0


def check_transfer(rules: TransfersSection, giver: Giver, to: int, amount: int, now: int) -> None:
    """Refuse what the rules or the balance do not bear; the text says what would be, and from when on."""
    if rules.mode == "off":
        raise NotAllowed("transfers are switched off in this horde (rule transfers.mode): its operator decides that")
    if to == giver.number:
        raise BadValue(f"account {to} cannot give to itself: name another account")
    if amount > giver.balance:
        raise NoKudos(f"{kudos(amount)} kudos to give, and the balance is {kudos(giver.balance)}: earn some by serving")
    if rules.mode == "limited":
        _check_limits(rules, giver, amount, now)


def _check_limits(rules: TransfersSection, giver: Giver, amount: int, now: int) -> None:
    old_enough = giver.since + rules.age_days * DAY_MS
    if now < old_enough:
        raise NotAllowed(
            f"an account can give from its day {rules.age_days} on (rule transfers.age_days): yours in"
            f" {-(-(old_enough - now) // DAY_MS)} days"
        )
    left = giver.earned - giver.given
    if amount > left:
        raise NotAllowed(
            f"an account gives no more than it has earned by serving (rule transfers.mode, 'limited'): {kudos(amount)}"
            f" kudos to give, {kudos(max(0, left))} are left of it; serving raises that"
        )
    left = rules.daily - giver.given_today
    if amount > left:
        hours = -(-((day_of(now) + 1) * DAY_MS - now) // 3_600_000)
        raise NotAllowed(
            f"an account gives at most {kudos(rules.daily)} kudos a day (rule transfers.daily): {kudos(amount)} to"
            f" give, {kudos(max(0, left))} are left for today; the next day (UTC) begins in {hours} hours"
        )
