"""What a request may ask for under the rules, whoever asks."""

from __future__ import annotations

from collections.abc import Sequence

from protocol.errors import NotOffered, NotRegistered, OverLimit, OverMaxPrice
from protocol.filter.verdict import TOPICS
from protocol.rules import Rules
from protocol.work import ImageWork, PublicPart, Work
from tracker.pricing import price


def check_limits(public: PublicPart, rules: Rules, *, anonymous: bool, open_jobs: int) -> None:
    """Refuse what is larger or more than the rules allow; the text says which rule, until when, and what lifts it."""
    if anonymous and not rules.accounts.anonymous:
        raise NotRegistered(
            "this horde serves its members, and you ask without an account (rule accounts.anonymous):"
            f" {to_get_in(rules)}; `--anonymous` is not for this horde"
        )
    if public.share:
        raise NotOffered("this horde has no open data set yet: ask without `share`")
    if unknown := sorted(set(public.flags) - set(TOPICS)):
        raise NotOffered(f"flag {unknown[0]!r} is not known here: known are {', '.join(TOPICS)}")
    limits = rules.limits
    for name, found in _measures(public).items():
        rule = f"anonymous_{name}" if anonymous else name
        most: int = getattr(limits, rule)
        if found > most:
            raise OverLimit(
                f"{name.removeprefix('max_')} {found}: at most {most} here by the rule limits.{rule}, which no time"
                f" lifts: ask for less{_with_account(rules, getattr(limits, name), most, found, anonymous)}"
            )
    rule = "anonymous_open_jobs" if anonymous else "open_jobs"
    most = getattr(limits, rule)
    if open_jobs + public.n > most:
        whose = "of this address block" if anonymous else "of this account"
        lift = _with_account(rules, limits.open_jobs, most, open_jobs + public.n, anonymous)
        raise OverLimit(
            f"{open_jobs} jobs {whose} are under way and {public.n} more are asked for: at most {most} at once by the"
            f" rule limits.{rule}; {_until(open_jobs + public.n - most, open_jobs)}{lift}"
        )


def to_get_in(rules: Rules) -> str:
    """What somebody without an account can do to get one."""
    match rules.accounts.registration:
        case "open":
            return "register, which is free (`potluck account --register`)"
        case "invited":
            return "ask its operator for an invitation, then `potluck account --register --invite CODE`"
        case "closed":
            return "it takes no new accounts now: ask its operator"


def check_user_limit(public: PublicPart, rules: Rules, open_jobs: int) -> None:
    """Refuse what is more than one user of a service may have under way. open_jobs: of that user."""
    most = rules.limits.user_open_jobs
    if open_jobs + public.n > most:
        raise OverLimit(
            f"{open_jobs} jobs of this user of the service are under way and {public.n} more are asked for: at most"
            f" {most} at once by the rule limits.user_open_jobs; {_until(open_jobs + public.n - most, open_jobs)};"
            " the service's other users can ask"
        )


def _measures(public: PublicPart) -> dict[str, int]:
    work = public.work
    if isinstance(work, ImageWork):
        return {"max_pixels": work.width * work.height, "max_steps": work.steps, "max_n": public.n}
    return {"max_tokens": work.max_tokens, "max_context": work.context_tokens, "max_n": public.n}


def _with_account(rules: Rules, limit: int, most: int, found: int, anonymous: bool) -> str:
    """How an account helps a person without one; empty if it does not, or if none is to be had."""
    if not anonymous or not most < limit or found > limit or rules.accounts.registration == "closed":
        return ""
    invited = ", by an invitation of the operator" if rules.accounts.registration == "invited" else ""
    return f", or register, which is free{invited}: with an account it is {limit}"


def _until(over: int, open_jobs: int) -> str:
    """When there will be room for so many jobs more than there is."""
    if over > open_jobs:
        return "ask for fewer at once"
    return f"wait until {over} of them {'has' if over == 1 else 'have'} ended, or cancel some"


def affordable(public: PublicPart, rules: Rules, served: Sequence[str]) -> tuple[str, ...]:
    """Those models whose price the request bears: of the ones it names, else of the ones that are served. Empty if it
    names none and none is served. Raises `OverMaxPrice` if all cost more, `NotOffered` if none has a price."""
    models = public.models or tuple(served)
    costs = _costs(public.work, rules, models or ("",))
    most = public.max_price
    bearable = tuple(model for model in models if model in costs and (not most or costs[model] <= most))
    if not bearable and (models or (most and costs[""] > most)):
        least = _kudos(min(costs.values()))
        raise OverMaxPrice(f"the least that this costs here is {least} kudos, max_price is {_kudos(most)}")
    return bearable


def _costs(work: Work, rules: Rules, models: Sequence[str]) -> dict[str, int]:
    """The price by each of these models that has one; raises `NotOffered` if none has."""
    costs: dict[str, int] = {}
    refusal: NotOffered | None = None
    for model in models:
        try:
            costs[model] = price(rules, work, model)
        except NotOffered as refused:
            refusal = refused
    if not costs and refusal is not None:
        raise refusal
    return costs


def _kudos(thousandths: int) -> str:
    return f"{thousandths / 1000:.3f}".rstrip("0").rstrip(".")
