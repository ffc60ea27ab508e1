"""Prices of an operator's own: every picture costs 9 kudos and every text 2, whatever its size. Extras have none."""

from __future__ import annotations

from protocol.rules import Rules
from protocol.work import ImageWork, Work

PICTURE = 9_000
TEXT = 2_000


def price(rules: Rules, work: Work, model: str) -> int | None:
    """Thousandths for this work by that model; None for what has no price here."""
    if not isinstance(work, ImageWork):
        return TEXT
    return None if work.extras else PICTURE * rules.models[model].price // 1000 if model in rules.models else PICTURE
