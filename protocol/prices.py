"""What a job costs: integer functions of its public part and the rules, computed alike by both sides.

All results are thousandths of a kudo, each division rounded down. Sizes are priced along straight lines between the
points of the rules; before the first point the line starts at zero, past the last one its last slope goes on.
"""

from __future__ import annotations

from collections.abc import Sequence

from protocol.errors import NotOffered
from protocol.rules import ModelSection, Rules
from protocol.work import ImageWork, TextWork, Work

STEPS_PRICED = 30
PASSES_PRICED = 2


def interpolate(points: Sequence[tuple[int, int]], at: int) -> int:
    """The height at `at` of the line through (0, 0) and `points`, rounded down; the last slope goes on."""
    left = (0, 0)
    for right in points:
        if at <= right[0] or right is points[-1]:
            break
        left = right
    width = right[0] - left[0]
    if width <= 0:
        return right[1]
    return left[1] + (right[1] - left[1]) * (at - left[0]) // width


def image_price(rules: Rules, work: ImageWork, model: str) -> int:
    """Thousandths for one picture by `model`; raises `NotOffered` for an extra that the rules do not price."""
    prices = rules.prices
    size = interpolate(prices.image_sizes, work.width * work.height)
    drawing = size * work.steps * work.guidance_passes // (STEPS_PRICED * PASSES_PRICED)
    extras = 0
    for extra in work.extras:
        if extra not in prices.image_extras:
            known = ", ".join(sorted(prices.image_extras)) or "none"
            raise NotOffered(f"extra {extra!r} is not offered here; offered: {known}")
        extras += prices.image_extras[extra]
    return (prices.image_base + drawing + extras) * _model(rules, model).price // 1000


def text_price(rules: Rules, work: TextWork, model: str) -> int:
    """Thousandths for one text of at most `max_tokens` by `model`."""
    prices = rules.prices
    facts = _model(rules, model)
    size = interpolate(prices.text_sizes, facts.millions or prices.model_millions)
    tokens = prices.text_token * work.max_tokens
    context = prices.text_context * work.context_tokens // 1024
    return (prices.text_base + (tokens + context) * size // 1000) * facts.price // 1000


def price(rules: Rules, work: Work, model: str) -> int:
    """Thousandths that a worker earns for this work, done in full, by `model`."""
    if isinstance(work, ImageWork):
        return image_price(rules, work, model)
    return text_price(rules, work, model)


def used_price(rules: Rules, work: Work, model: str, used: int, leased: int) -> int:
    """The price by what was used (steps or tokens), never above `leased`, the price of the lease.

    A text costs what it would have cost with `used` as its limit. A picture costs in proportion to its steps, and so
    does a text where a plug-in made the price: nobody else knows what a shorter one costs.
    """
    if isinstance(work, ImageWork):
        return leased * min(used, work.steps) // work.steps
    if rules.prices.plugin:
        return leased * min(used, work.max_tokens) // work.max_tokens
    shorter = TextWork(max_tokens=max(1, min(used, work.max_tokens)), context_tokens=work.context_tokens)
    return min(leased, price(rules, shorter, model))


def tax(rules: Rules, shared: bool = False) -> int:
    """Thousandths that each job burns; less if its result goes to the open data set."""
    return rules.prices.tax_shared if shared else rules.prices.tax


def _model(rules: Rules, name: str) -> ModelSection:
    return rules.models.get(name, ModelSection())
