"""Every defence, the attack that it is against, and the figure that tells: within its bound with it, beyond it without.

Most attacks meet more than one defence. So that a case shows what one of them does, `without` leaves the others off
that would hold as well; only the one of the case is then switched on and off. All days' budgets are cut to the hours
that are played.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any
from unittest.mock import patch

import msgspec

from protocol.messages import Offer
from protocol.rules import Rules
from tests.simulate.attacks import ATTACKS
from tests.simulate.run import play
from tests.simulate.world import World
from tracker.matching import Waiting, Worker
from tracker.pool import Crew, Pool

#: Two hours of a horde of four machines, or five with the attacker's.
SMALL = World(days=0.08, speeds=(0.8, 1.2), givers=2, casual=300, heavy=10, blocks=60)
#: As a value of a rule in thousandths or permille: so much that it bounds nothing.
ENDLESS = 10**12
ALL = 1_000

Values = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """defence: a rule, or what else it is; with it, it is as by default. attack: by its name. figure: of `play`; most:
    what it is at most with the defence, and less than it is without. off: rules without the defence. without: rules by
    which others that would hold as well are off in both. is_slow: left out of `make test`."""

    defence: str
    attack: str
    figure: str
    most: float
    off: Values = field(default_factory=dict)
    without: Values = field(default_factory=dict)
    world: Values = field(default_factory=dict)
    by_seam: bool = False
    is_slow: bool = False

    def figures(self, seed: int, *, is_on: bool) -> dict[str, Any]:
        """The figures of one small world."""
        world = replace(SMALL, **self.world)
        values = {**_hours(world), **self.without, **({} if is_on else self.off)}
        seam = worker_drawn_first() if self.by_seam and not is_on else nullcontext()
        with seam:
            return play(world, seed, rules_with(values), ATTACKS[self.attack])


def _hours(world: World) -> Values:
    """The days' budgets, for the part of a day that is played."""
    mint = Rules().mint
    return {
        "mint.daily": round(mint.daily * world.days),
        "mint.owner_base": round(mint.owner_base * world.days),
    }


def rules_with(values: Values) -> Rules:
    """The default rules with some values changed, by their names."""
    rules = Rules()
    for name, value in values.items():
        section, key = name.split(".")
        changed = msgspec.structs.replace(getattr(rules, section), **{key: value})
        rules = msgspec.structs.replace(rules, **{section: changed})
    return rules


@contextmanager
def worker_drawn_first() -> Iterator[None]:
    """Idle workers are drawn as if each had an owner of its own."""

    def draw(
        self: Pool, job: Waiting, crews: list[tuple[Crew, Offer]], chance: random.Random
    ) -> tuple[Worker, Offer] | None:
        fits = [
            (self.workers[key], offer)
            for crew, offer in crews
            for owner in sorted(crew.idle)
            if owner not in self.resting
            for key in crew.idle[owner].sample(1_000, chance)
            if key not in job.excluded
        ]
        return chance.choice(fits) if fits else None

    with patch.object(Pool, "_draw_idle", draw):
        yield


BASE_OFF: Values = {"mint.owner_base": ENDLESS}
SHARES_OFF: Values = {"mint.owner_share": ALL, "mint.asker_share": ALL}
#: Many machines and little to do: whoever floods could have nearly all of them.
ROOMY: Values = {"days": 0.03, "load": 0.2, "givers": 20}

CASES = (
    Case("mint.owner_base, mint.owner_matched", "split-farm", "ratio", 2.2, BASE_OFF),
    Case("mint.owners", "models", "ratio", 2.2, {"mint.owners": 1}, BASE_OFF | SHARES_OFF, is_slow=True),
    Case("mint.owner_share", "split-farm", "owner_of_mint", 0.45, {"mint.owner_share": ALL}, BASE_OFF, is_slow=True),
    Case("mint.daily", "split-farm", "minted", 8_010, {"mint.daily": ENDLESS}, BASE_OFF | SHARES_OFF, is_slow=True),
    Case("earning.withheld", "renews", "rival_kept", 0.6, {"earning.withheld": 0}, world={"days": 0.05}),
    Case("matching.declines", "picky", "ratio", 2.2, {"matching.declines": 10**9}, is_slow=True),
    Case(
        "limits.without_kudos_running",
        "account-flood",
        "rival_share",
        0.5,
        {"limits.without_kudos_running": 10**6},
        world=ROOMY,
        is_slow=True,
    ),
    Case(
        "limits.anonymous_running",
        "block-flood",
        "rival_share",
        0.3,
        {"limits.anonymous_running": 10**6},
        {"limits.anonymous_open_jobs": 10**6},
        world=ROOMY,
        is_slow=True,
    ),
    Case(
        "limits.anonymous_open_jobs",
        "block-flood",
        "rival_open",
        60,
        {"limits.anonymous_open_jobs": 10**6},
        world={"days": 0.02},
    ),
    Case(
        "matching.every",
        "rich-flood",
        "unserved_anonymous",
        0.5,
        {"matching.every": 0},
        {"times.waiting": 1_200},
        is_slow=True,
    ),
    Case("the owner is drawn before the worker", "split", "busy_ratio", 4, world={"load": 0.3}, by_seam=True),
)
