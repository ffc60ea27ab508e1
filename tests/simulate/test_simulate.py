"""The simulator: one seed gives the same figures, the wanted figures hold in a small world, and each defence counts."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from tests.simulate.__main__ import BAD_RULES, INTERRUPTED, main
from tests.simulate.attacks import ATTACKS
from tests.simulate.defences import CASES, SMALL, Case
from tests.simulate.run import play
from tests.simulate.world import World
from tracker.audit import Report, audit

TINY = replace(SMALL, days=0.02)
CALM = replace(World(), days=0.05, casual=300, blocks=100)
#: Bounds were chosen by the figures of other seeds.
SEEDS = (31, 32)


def test_the_same_seed_gives_the_same_figures_and_another_one_others() -> None:
    one, two = (play(TINY, 7, attack=ATTACKS["farm"]) for _ in range(2))

    for found in (one, two):
        del found["cpu"], found["cpu_ms_a_job"]
    assert json.dumps(one) == json.dumps(two)
    assert play(TINY, 8)["honest"] != one["honest"]


def test_nobody_without_an_account_waits_thirty_times_as_long_as_others() -> None:
    found = play(CALM, SEEDS[0])

    assert found["anonymous_over_median"] < 30


@pytest.mark.parametrize("attack", ["cancels", "circle"])
def test_the_ledger_of_a_simulated_horde_stands_an_audit(attack: str) -> None:
    reports: list[Report] = []
    play(TINY, SEEDS[0], attack=ATTACKS[attack], look=lambda path: reports.append(audit(path)))

    [report] = reports
    assert report.findings == ()
    assert report.jobs > 50


# Each defence


def _marks(case: Case, seed: int) -> list[pytest.MarkDecorator]:
    return [pytest.mark.slow] if case.is_slow or seed != SEEDS[0] else []


PLAYED = [
    pytest.param(case, seed, id=f"{case.defence} against {case.attack}, seed {seed}", marks=_marks(case, seed))
    for case in CASES
    for seed in SEEDS
]


@pytest.mark.parametrize(("case", "seed"), PLAYED)
def test_without_a_defence_its_check_fails(case: Case, seed: int) -> None:
    on, off = (case.figures(seed, is_on=is_on)[case.figure] for is_on in (True, False))

    assert on <= case.most < off


@pytest.mark.parametrize("seed", [SEEDS[0], pytest.param(SEEDS[1], marks=pytest.mark.slow)])
def test_an_owner_with_three_machines_is_not_starved_where_there_is_much_to_do(seed: int) -> None:
    found = play(replace(SMALL, load=0.9), seed, attack=ATTACKS["three"])

    assert found["busy_ratio"] > 0.7


# The command


#: `python -m tests.simulate`, which hears Ctrl+C even in the background of a shell that ignores it.
HEEDFUL = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from tests.simulate.__main__ import main
sys.exit(main())
"""


def play_a_moment(folder: Path, *words: str) -> list[str]:
    return ["--out", str(folder), "--no-plots", "--attack", "none", "--days", "0.004", "--jobs", "1", *words]


def test_rules_of_ones_own_are_played(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules = tmp_path / "horde.toml"
    rules.write_text('[horde]\nname = "Ours"\n[mint]\ndaily = 0\n', "utf-8")

    assert main(play_a_moment(tmp_path / "out", "--seeds", "1", "--json", "--rules", str(rules))) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rules"]["mint"]["daily"] == 0
    [played] = found["results"]["none"]
    assert played["minted"] == 0
    assert played["jobs"] > 0


def test_what_was_played_is_drawn_and_written_as_strict_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = tmp_path / "horde.toml"
    rules.write_text('[horde]\nname = "Ours"\n[limits]\nmax_pixels = 64\n', "utf-8")  # most are never served
    words = play_a_moment(tmp_path / "out", "--seeds", "1", "--json", "--rules", str(rules))

    assert main([word for word in words if word != "--no-plots"]) == 0

    [played] = json.loads(capsys.readouterr().out, parse_constant=_refuse)["results"]["none"]
    assert played["p99_all"] is None
    with Image.open(tmp_path / "out" / "simulate.png") as picture:
        picture.load()
        assert len(picture.getcolors(2**24) or ()) > 10


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def test_rules_that_are_none_are_told_as_the_tracker_tells_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = tmp_path / "horde.toml"
    rules.write_text("[mint]\ndayly = 5\n", "utf-8")

    assert main(play_a_moment(tmp_path / "out", "--seeds", "1", "--rules", str(rules))) == BAD_RULES
    assert "dayly" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="signals and file modes of POSIX")
def test_ctrl_c_ends_it_with_130_and_the_same_command_goes_on_where_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, "-c", HEEDFUL, *play_a_moment(tmp_path, "--seeds", "500")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stderr is not None
        assert any(line.startswith("1 of 500") for line in process.stderr)
        if sys.platform != "win32":  # for the type checker: this test does not run there
            os.killpg(process.pid, signal.SIGINT)  # to the whole group, as a terminal does it
        rest = process.stderr.read()  # ends when every process of the group has

    assert process.returncode == INTERRUPTED, rest
    assert "interrupted after" in rest
    assert "Traceback" not in rest
    assert main(play_a_moment(tmp_path, "--seeds", "1")) == 0
    out, err = capsys.readouterr()
    assert "none: 1 seeds" in out
    assert "1 of" not in err, "it is kept, and not played again"
