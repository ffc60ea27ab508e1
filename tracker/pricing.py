"""What a job costs here: by the formulas of `protocol.prices`, or by the operator's own function.

Such a function comes as an entry point in the group `potluck.prices`, and the rule `prices.plugin` names it. It is
given the rules, the work and the model's name, and returns thousandths of a kudo; for the same it must always return
the same. `None` says that it does not price such work.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from importlib.metadata import entry_points

from protocol import prices
from protocol.errors import NotOffered
from protocol.rules import Rules
from protocol.work import Work

log = logging.getLogger(__name__)

GROUP = "potluck.prices"

#: Dearer than anything that can be summed up is a mistake.
MAX_PRICE = 10**12

Pricer = Callable[[Rules, Work, str], int | None]

#: What went wrong in which plug-in: it is logged once, since everybody who asks can bring it about.
_logged: set[tuple[Pricer, str]] = set()


class BadPlugin(Exception):
    """The function that the rules name cannot be had; the text says why."""


@cache
def plugin(name: str) -> Pricer:
    """The function behind an entry point; raises `BadPlugin`."""
    found = list(entry_points(group=GROUP, name=name))
    if not found:
        known = ", ".join(sorted({point.name for point in entry_points(group=GROUP)})) or "none"
        raise BadPlugin(f"no entry point {name!r} in the group {GROUP}: install its package; installed: {known}")
    if len({point.value for point in found}) > 1:
        raise BadPlugin(f"several packages have an entry point {name!r} in the group {GROUP}: uninstall all but one")
    try:
        loaded: Pricer = found[0].load()
    except Exception as error:  # somebody else's code
        raise BadPlugin(f"entry point {name!r} ({found[0].value}) cannot be loaded: {error!r}") from error
    if not callable(loaded):
        raise BadPlugin(f"entry point {name!r} ({found[0].value}) is no function")
    return loaded


def price(rules: Rules, work: Work, model: str) -> int:
    """Thousandths that a worker earns for this work, done in full, by `model`; raises `NotOffered` where nobody has
    set a price, and `BadPlugin` where there is no such plug-in."""
    if not rules.prices.plugin:
        return prices.price(rules, work, model)
    found = _ask(plugin(rules.prices.plugin), rules, work, model)
    if found is None:
        raise NotOffered("this horde has no price for such a job: ask for another size, or another model")
    return found


def _ask(pricer: Pricer, rules: Rules, work: Work, model: str) -> int | None:
    """What the plug-in says, if it is a price; what goes wrong in it is the operator's to hear of, the first time."""
    try:
        found = pricer(rules, work, model)
    except Exception:  # somebody else's code must not end what it is asked from
        if _is_news(pricer, "failed"):
            log.exception("the price plug-in %r failed for model %r", rules.prices.plugin, model[:120])
        return None
    if found is None or (type(found) is int and 0 <= found <= MAX_PRICE):
        return found
    if _is_news(pricer, "no price"):
        log.error("the price plug-in %r gave %r: wanted thousandths, 0 to %d", rules.prices.plugin, found, MAX_PRICE)
    return None


def _is_news(pricer: Pricer, fault: str) -> bool:
    known = (pricer, fault) in _logged
    _logged.add((pricer, fault))
    return not known
