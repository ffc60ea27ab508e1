"""What a request may ask for under the rules, whoever asks."""

from __future__ import annotations

from collections.abc import Sequence

from protocol.errors import NotOffered, OverLimit, OverMaxPrice
from protocol.rules import LimitsSection, Rules
from protocol.work import ImageWork, PublicPart
from tracker.pricing import price


def check_limits(public: PublicPart, rules: Rules, *, anonymous: bool, open_jobs: int) -> None:
    """Refuse what is larger or more than the rules allow; the text says which limit, and what would lift it."""
    if public.share:
        raise NotOffered("this horde has no open data set yet: ask without `share`")
    if public.flags:
        raise NotOffered(f"flag {public.flags[0]!r} is not known here: ask without it")
    limits = rules.limits
    for name, found in _measures(public).items():
        most: int = getattr(limits, f"anonymous_{name}" if anonymous else name)
        if found > most:
            raise OverLimit(
                f"{name.removeprefix('max_')} {found}: at most {most} here{_lift(limits, name, found, anonymous)}"
            )
    most_open = limits.anonymous_open_jobs if anonymous else limits.open_jobs
    if open_jobs + public.n > most_open:
        raise OverLimit(
            f"{open_jobs} jobs are under way and {public.n} more are asked for: at most {most_open} at once"
        )


def _measures(public: PublicPart) -> dict[str, int]:
    work = public.work
    if isinstance(work, ImageWork):
        return {"max_pixels": work.width * work.height, "max_steps": work.steps, "max_n": public.n}
    return {"max_tokens": work.max_tokens, "max_context": work.context_tokens, "max_n": public.n}


def _lift(limits: LimitsSection, name: str, found: int, anonymous: bool) -> str:
    with_account: int = getattr(limits, name)
    return f" without an account, {with_account} with one" if anonymous and found <= with_account else ""


def affordable(public: PublicPart, rules: Rules, served: Sequence[str]) -> tuple[str, ...]:
    """Those models whose price the request bears: of the ones it names, else of the ones that are served. Empty if it
    names none and none is served. Raises `OverMaxPrice` if all cost more, `NotOffered` for an unpriced extra."""
    models = public.models or tuple(served)
    costs = {model: price(rules, public.work, model) for model in models or ("",)}
    bearable = tuple(model for model in models if not public.max_price or costs[model] <= public.max_price)
    if not bearable and (models or (public.max_price and costs[""] > public.max_price)):
        least, most = _kudos(min(costs.values())), _kudos(public.max_price)
        raise OverMaxPrice(f"the least that this costs here is {least} kudos, max_price is {most}")
    return bearable


def _kudos(thousandths: int) -> str:
    return f"{thousandths / 1000:.3f}".rstrip("0").rstrip(".")
