"""The simulator: one seed gives the same figures, the wanted figures hold in a small world, and each defence counts."""

import json
from dataclasses import replace

import pytest

from tests.simulate.attacks import ATTACKS
from tests.simulate.defences import CASES, SMALL, Case
from tests.simulate.run import play
from tests.simulate.world import World

TINY = replace(SMALL, days=0.02)
CALM = replace(World(), days=0.08, casual=300, blocks=100)


def test_the_same_seed_gives_the_same_figures():
    one, two = (play(TINY, 7, attack=ATTACKS["farm"]) for _ in range(2))

    for found in (one, two):
        del found["cpu"], found["cpu_ms_a_job"]
    assert json.dumps(one) == json.dumps(two)
    assert play(TINY, 8)["honest"] != one["honest"]


def test_nobody_without_an_account_waits_thirty_times_as_long_as_others():
    found = play(CALM, 1)

    assert found["anonymous_over_median"] < 30


NAMED = [
    pytest.param(case, id=f"{case.defence} against {case.attack}", marks=[pytest.mark.ci_slow] if case.is_slow else [])
    for case in CASES
]


@pytest.mark.parametrize("case", NAMED)
def test_without_a_defence_its_check_fails(case: Case):
    on, off = (case.figures(1, is_on=is_on)[case.figure] for is_on in (True, False))

    assert on <= case.most < off
